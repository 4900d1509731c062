"""Every threshold that a verdict rests on, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

# The family whose masks are outlines that somebody drew.
EXACT = "dataset"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What separates a class that relies on background from one that does not.

    The clean references are what classes without a planted cue show in networks trained for the
    purpose (docs/certify.md has the tables); the others are conventions.

    Attributes:
        clean_effect: Under masks that are not exact, a clean class's background moves at most this
            share of transplants: what masks leave of an object counts as background …
        clean_effect_exact: … and under the dataset's own masks this share.
        clean_decided: In at most this share of a clean class's images the background decides alone.
        least_effect: A smaller effect accuses nobody, however sure it is …
        least_effect_exact: … nor does this one under the dataset's own masks …
        least_decided: … unless the background decides alone in this share of the images.
        error_rate: Of all accusations, the share that may be false (Benjamini–Hochberg).
        held_by_fills: What every fill must show at least of the effect of all, for it to hold.
        least_edited: Fewer edited images than this are too few.
        least_usable: Under a family's masks this share of a class's edited images must count.
        least_gap: A class that surely loses this much accuracy on backgrounds of other classes
            (BG-Gap) needs its own: worth a look.
        least_kept: A class whose objects keep less of their accuracy than this when they are cut
            out and put on backgrounds of their own class cannot be cleared by cutting.
        screened: A class whose feature-space rate is this far above the median of all classes is
            worth a look.
        told_apart: A property of whole images that tells a class from the others this well (AUC, or
            1 − AUC) is named beside its verdict.
        least_confidence: Estimated masks that are expected to overlap less than this with their
            objects cannot clear a class.
    """

    clean_effect: float = 0.2
    clean_effect_exact: float = 0.05
    clean_decided: float = 0.05
    least_effect: float = 0.3
    least_effect_exact: float = 0.1
    least_decided: float = 0.1
    error_rate: float = 0.05
    held_by_fills: float = 0.5
    least_edited: int = 20
    least_usable: float = 0.5
    least_gap: float = 0.2
    least_kept: float = 0.5
    screened: float = 0.25
    told_apart: float = 0.85
    least_confidence: float = 0.35

    def clean_effect_under(self, family: str) -> float:
        """The clean reference of the effect under one family of masks."""
        return self.clean_effect_exact if family == EXACT else self.clean_effect

    def least_effect_under(self, family: str) -> float:
        """The effect that accuses under one family of masks."""
        return self.least_effect_exact if family == EXACT else self.least_effect


THRESHOLDS = Thresholds()
