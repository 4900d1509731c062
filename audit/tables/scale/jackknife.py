"""Intervals of means from the sums of groups, without another look at the rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from audit.tables.power import ALPHA

Floats = NDArray[np.float64]

# An interval needs so many groups with values, none of which holds more than this share of them.
FEWEST_GROUPS = 16
LARGEST_SHARE = 0.25


@dataclass(frozen=True)
class GroupedMeans:
    """Means and how far to trust them; arrays of any one shape.

    Attributes:
        mean: NaN without values.
        error: Standard error; NaN where the groups do not tell.
        degrees: Groups with values − 1.
    """

    mean: Floats
    error: Floats
    degrees: Floats

    def ends(self) -> Floats:
        """Lower and upper ends of the 95% interval by Student's t, …×2; NaN where error is."""
        reach = stdtrit(np.maximum(self.degrees, 1), 1 - ALPHA / 2) * self.error
        return np.stack([self.mean - reach, self.mean + reach], axis=-1)


def grouped_means(counts: Floats, sums: Floats) -> GroupedMeans:
    """Means over all values, with errors by the delete-a-group jackknife.

    Each group is left out in turn, and the mean taken over the others. Groups are dealt at random
    to pictures, so that near-duplicates, which share a picture's hash, never stand in two groups.

    Args:
        counts: Values in each group, …×G.
        sums: Their sums, …×G.

    Returns:
        Means, errors and degrees of freedom, each of the leading shape.

    Source:
        Kott 2001, "The Delete-a-Group Jackknife", equation 2: (G − 1)/G times the sum of squared
        distances; Student's t with G − 1 degrees.

    Example:
        >>> found = grouped_means(np.full(32, 10.0), np.arange(32.0))
        >>> round(float(found.mean), 3), round(float(found.error), 4)
        (1.55, 0.1658)
    """
    total, whole = counts.sum(axis=-1), sums.sum(axis=-1)
    mean = _divide(whole, total)
    left = _divide(whole[..., None] - sums, total[..., None] - counts)
    there = counts > 0
    return _jackknifed(mean, left, there, counts.max(axis=-1) <= LARGEST_SHARE * total)


def macro_mean(counts: Floats, sums: Floats) -> GroupedMeans:
    """The mean over classes of their means, each group left out of all classes at once.

    Args:
        counts: Values in each class and group, K×G.
        sums: Their sums, K×G.

    Returns:
        Numbers without dimensions; classes without values do not count.
    """
    total = counts.sum(axis=1)
    some = total > 0
    counts, sums, total = counts[some], sums[some], total[some]
    whole = sums.sum(axis=1)
    rest = total[:, None] - counts
    # A class that is all in one group stays as it is without that group.
    left = np.where(rest > 0, _divide(whole[:, None] - sums, rest), _divide(whole, total)[:, None])
    mean = np.asarray(_divide(whole, total).mean() if some.any() else np.nan)
    per_group = left.mean(axis=0) if some.any() else np.full(counts.shape[1], np.nan)
    of_group = counts.sum(axis=0)
    spread = np.asarray(of_group.max(initial=0) <= LARGEST_SHARE * of_group.sum())
    return _jackknifed(mean, per_group, of_group > 0, spread)


def _jackknifed(
    mean: Floats, left: Floats, there: NDArray[np.bool_], spread: NDArray[np.bool_]
) -> GroupedMeans:
    groups = there.sum(axis=-1)
    squares = np.where(there, (left - mean[..., None]) ** 2, 0).sum(axis=-1)
    error = np.sqrt(squares * (groups - 1) / np.maximum(groups, 1))
    # Equal values leave nothing but rounding.
    error = np.where(error <= 1e-12 * np.abs(mean), 0, error)
    told = (groups >= FEWEST_GROUPS) & spread
    return GroupedMeans(mean, np.where(told, error, np.nan), (groups - 1).astype(np.float64))


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    there = denominator > 0
    return np.asarray(np.where(there, numerator / np.where(there, denominator, 1), np.nan))
