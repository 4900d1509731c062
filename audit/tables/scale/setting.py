"""What a part's digest rests on that its rows do not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Whole rows that are drawn from the split, and those added for classes of which few were drawn.
UNIFORM_ROWS = 39_000
ADDED_ROWS = 10_000
# What is kept of every class that has as many, where the classes are not too many.
LEAST_A_CLASS = 50
# Pictures by whose hash repeated ones are counted.
PICTURES = 65_536
# Label suspects in all, and the fewest and most of a class.
_SUSPECTS, _FEWEST_SUSPECTS, _MOST_SUSPECTS = 20_000, 10, 1000
# Flagged samples that a report shows, and the fewest of a class and flag that are looked at.
FLAGGED, _FEWEST_FLAGGED = 1000, 10
# Groups of the jackknife over all classes, and the fewest and most of them.
_CELLS, _FEWEST_GROUPS, _MOST_GROUPS = 8192, 32, 256


@dataclass(frozen=True, kw_only=True)
class Digesting:
    """What the rows of a part do not say; the same for all parts of a run.

    Attributes:
        count: Samples of the split.
        classes: Class names, K.
        seed: Deals pictures to groups otherwise.

    Example:
        >>> setting = Digesting(count=10_000_000, classes=["cat", "dog"], seed=0)
        >>> setting.groups, round(setting.share, 4), setting.least
        (256, 0.0039, 50)
    """

    count: int
    classes: Sequence[str]
    seed: int

    @property
    def share(self) -> float:
        """The share of the split whose rows are kept whole, in (0, 1]."""
        return min(1.0, UNIFORM_ROWS / max(1, self.count))

    @property
    def least(self) -> int:
        """Rows that are kept of each class if it has as many; 0 for over 10,000 classes."""
        return min(LEAST_A_CLASS, ADDED_ROWS // max(1, len(self.classes)))

    @property
    def groups(self) -> int:
        """G, groups of pictures that intervals rest on: a power of 2 from 32 to 256."""
        wanted = _CELLS // max(1, len(self.classes))
        return min(_MOST_GROUPS, max(_FEWEST_GROUPS, 1 << max(0, wanted.bit_length() - 1)))

    @property
    def pictures(self) -> float:
        """The share of pictures whose copies are counted, in (0, 1]."""
        return min(1.0, PICTURES / max(1, self.count))

    @property
    def suspects(self) -> int:
        """Candidates for a wrong label that are kept of each class."""
        share = _SUSPECTS // max(1, len(self.classes))
        return min(_MOST_SUSPECTS, max(_FEWEST_SUSPECTS, share))

    @property
    def flagged(self) -> int:
        """Samples that are kept of each class and flag."""
        return min(FLAGGED, max(_FEWEST_FLAGGED, FLAGGED // max(1, len(self.classes))))
