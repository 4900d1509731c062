"""Histograms that quantiles are read from, with a stated error."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from audit.tables.classes import SCORES

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

# Scores in [0, 1]: steps of this size, and 0 and 1 themselves.
_STEPS = 1600
BOUNDED = frozenset(
    ("transplant_rate", "background_share", "pointing_hit", "rank_accuracy", "iou_50",
     "mask_confidence")
)  # fmt: skip
BOUNDED_ERROR = 1 / (2 * _STEPS)
# Others: steps that grow with the magnitude.
RELATIVE_ERROR = 0.01
SMALLEST, LARGEST = 1e-3, 1e4
_GROWTH = np.log((1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR))
_SIDE = int(np.ceil(np.log(LARGEST / SMALLEST) / _GROWTH))
BINS = max(_STEPS + 2, 2 * _SIDE + 1)


def bins_of(score: str, values: Floats) -> Ids:
    """The bin of each finite value, in [0, BINS).

    A value between :data:`SMALLEST` and :data:`LARGEST` in magnitude is told to one part in a
    hundred, one in [0, 1] of a bounded score to 1/3200; smaller magnitudes are told as 0, larger
    ones as :data:`LARGEST`.

    Args:
        score: One of :data:`audit.tables.classes.SCORES`.
        values: Finite, n.

    Source:
        Masson, Rim and Lee 2019, "DDSketch", section 2.1, for scores without bounds.
    """
    if score in BOUNDED:
        clipped = np.clip(values, 0, 1)
        inside = np.ceil(clipped * _STEPS).astype(np.int64)
        return np.asarray(inside + (clipped == 1), np.int64)
    size = np.maximum(np.abs(values), SMALLEST)
    step = np.clip(np.ceil(np.log(size / SMALLEST) / _GROWTH), 0, _SIDE).astype(np.int64)
    return np.asarray(_SIDE + np.sign(values).astype(np.int64) * step, np.int64)


def values_of(score: str) -> Floats:
    """The value that stands for each bin, ascending, BINS (NaN for bins that cannot occur)."""
    found = np.full(BINS, np.nan)
    if score in BOUNDED:
        found[: _STEPS + 2] = [0, *((np.arange(1, _STEPS + 1) - 0.5) / _STEPS), 1]
        return found
    step = np.arange(1, _SIDE + 1)
    sizes = SMALLEST * np.exp(_GROWTH * step) * (1 - RELATIVE_ERROR)
    found[: 2 * _SIDE + 1] = np.concatenate([-sizes[::-1], [0], sizes])
    return found


def read_quantiles(score: str, counts: NDArray[np.integer], shares: Floats) -> Floats:
    """Quantiles of the values that a histogram counted.

    Args:
        score: Which.
        counts: Of the bins, BINS.
        shares: Probabilities in [0, 1], q.

    Returns:
        Interpolated between ranks as by ``numpy.quantile``, q; NaN where nothing was counted. The
        error is that of the bins.

    Example:
        >>> counts = np.bincount(bins_of("kappa", np.array([-0.5, 0.2, 0.2, 0.9])), minlength=BINS)
        >>> abs(read_quantiles("kappa", counts, np.array([0.5]))[0] - 0.2) < 0.002
        np.True_
    """
    upto = np.cumsum(counts, dtype=np.int64)
    if not upto[-1]:
        return np.full(len(shares), np.nan)
    place = np.clip(shares, 0, 1) * (upto[-1] - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, upto[-1] - 1)
    values = values_of(score)
    lower, upper = (values[np.searchsorted(upto, rank, side="right")] for rank in (below, above))
    return np.asarray(lower + (place - below) * (upper - lower), np.float64)


def bin_keys(label: Ids, numbers: dict[str, Floats]) -> tuple[Ids, NDArray[np.uint32]]:
    """What a part adds to the histograms.

    Args:
        label: Class of each row, n.
        numbers: The scores, n each.

    Returns:
        Keys (class·S + score)·BINS + bin, ascending, and how often each occurs.
    """
    found = []
    for place, score in enumerate(SCORES):
        known = np.isfinite(numbers[score])
        bins = bins_of(score, numbers[score][known])
        found.append((label[known] * len(SCORES) + place) * BINS + bins)
    keys, counts = np.unique(np.concatenate(found), return_counts=True)
    return keys, counts.astype(np.uint32)
