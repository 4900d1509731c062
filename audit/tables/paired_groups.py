"""Paired differences of many groups of samples at once: means, errors, tests, intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit
from scipy.stats import binom

from audit.tables.bootstrap import bca_intervals
from audit.tables.paired import MOST_EXACT
from audit.tables.power import ALPHA

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

# More clusters than this are dealt at random into so many groups, which resamples then draw: the
# error of a mean stays known to a hundredth.
MOST_DRAWN = 10_000
# Errors this small beside their mean are rounding.
_ROUNDING = 1e-12
# Halvings that find the end of an interval within [−1, 1] to rounding.
_HALVINGS = 50


@dataclass(frozen=True)
class GroupMeans:
    """Means of groups and how far to trust them; all G.

    Attributes:
        n: Samples with a value.
        clusters: Different pictures among them.
        mean: Of the values; NaN without any.
        error: Its standard error, from the clusters' sums; NaN for fewer than two.
        degrees: Degrees of freedom of the error.
        spread: Standard deviation of the values.
    """

    n: Ids
    clusters: Ids
    mean: Floats
    error: Floats
    degrees: Floats
    spread: Floats

    @property
    def effective(self) -> Floats:
        """How many independent values would give this error, at most n."""
        with np.errstate(divide="ignore", invalid="ignore"):
            size = np.where(self.error > 0, (self.spread / self.error) ** 2, self.clusters)
        return np.minimum(size, self.n)

    def floored(self, error: Floats) -> GroupMeans:
        """The same with at least this error, where there is one."""
        return GroupMeans(
            self.n, self.clusters, self.mean, np.maximum(self.error, error), self.degrees,
            self.spread,
        )  # fmt: skip


@dataclass(frozen=True)
class Grouping:
    """Which group and which cluster each sample belongs to.

    Attributes:
        group: N, from 0; −1 for none.
        count: How many groups, G.
        unit: Cluster within its group, N; a cluster in two groups counts as two.
        group_of_unit: The group of each of them.
    """

    group: Ids
    count: int
    unit: Ids
    group_of_unit: Ids

    @classmethod
    def of(cls, group: Ids, count: int, clusters: Ids) -> Grouping:
        """Number the clusters of each group."""
        keys = group * (int(clusters.max(initial=0)) + 1) + clusters
        _, first, unit = np.unique(keys, return_index=True, return_inverse=True)
        return cls(group, count, unit, group[first])

    def means(self, values: Floats) -> GroupMeans:
        """The mean of each group with its error.

        Args:
            values: N; NaN where a value is missing.

        Returns:
            As :func:`audit.tables.power.mean_error` gives it for one group.

        Source:
            Liang and Zeger 1986, equation 10, for a mean, with the factor G/(G − 1).

        Example:
            >>> two = Grouping.of(np.array([0, 0, 1, 1]), 2, np.arange(4))
            >>> found = two.means(np.array([1.0, 3.0, 5.0, 5.0]))
            >>> found.mean.tolist(), found.error.tolist()
            ([2.0, 5.0], [1.0, 0.0])
        """
        there = np.isfinite(values) & (self.group >= 0)
        group, unit, known = self.group[there], self.unit[there], values[there]
        n = np.bincount(group, minlength=self.count)
        total = np.bincount(group, known, self.count)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = total / n
            sums, present = self._unit_sums(unit, known - mean[group])
            clusters = np.bincount(self.group_of_unit[present], minlength=self.count)
            squares = np.bincount(self.group_of_unit[present], sums[present] ** 2, self.count)
            error = np.sqrt(clusters / (clusters - 1) * squares) / n
            spread = np.sqrt(np.bincount(group, (known - mean[group]) ** 2, self.count) / (n - 1))
        error = np.where(error <= _ROUNDING * abs(mean), 0.0, error)
        error = np.where(clusters >= 2, error, np.nan)
        return GroupMeans(
            n, clusters, mean, error, np.asarray(clusters - 1.0), np.where(n > 1, spread, np.nan)
        )

    def _unit_sums(self, unit: Ids, values: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        size = len(self.group_of_unit)
        sums = np.bincount(unit, values, size).astype(np.float64)
        return sums, np.bincount(unit, minlength=size) > 0

    def are_outcomes(self, differences: Floats) -> NDArray[np.bool_]:
        """Groups each of whose clusters was lost, was gained, or did not change, as one.

        Args:
            differences: N; NaN where a value is missing.

        Returns:
            G: whether the mean of each cluster is −1, 0 or 1.
        """
        there = np.isfinite(differences) & (self.group >= 0)
        unit = self.unit[there]
        sums, present = self._unit_sums(unit, differences[there])
        size = np.bincount(unit, minlength=len(sums))
        whole = np.isin(sums / np.maximum(size, 1), (-1, 0, 1))
        torn = np.bincount(self.group_of_unit[present & ~whole], minlength=self.count)
        return np.asarray(torn == 0)

    def signs(self, differences: Floats) -> tuple[Ids, Ids]:
        """How many clusters of each group lost and gained, by the sign of their sum.

        Args:
            differences: N; NaN where a value is missing.

        Returns:
            Two of G.
        """
        there = np.isfinite(differences) & (self.group >= 0)
        sums, present = self._unit_sums(self.unit[there], differences[there])
        sums = np.where(abs(sums) <= _ROUNDING, 0, sums)
        lost, gained = (
            np.bincount(self.group_of_unit[present & side], minlength=self.count)
            for side in (sums < 0, sums > 0)
        )
        return lost, gained


def sign_test(lost: Ids, gained: Ids) -> Floats:
    """McNemar's p of many groups at once.

    Args:
        lost: How often only the first run was right, G.
        gained: How often only the second was, G.

    Returns:
        As :func:`audit.tables.paired.mcnemar` gives it for each group.

    Example:
        >>> sign_test(np.array([6]), np.array([1])).tolist()
        [0.125]
    """
    changed, fewer = lost + gained, np.minimum(lost, gained)
    p = 2 * binom.cdf(fewer, changed, 0.5)
    p = np.where(changed > MOST_EXACT, p - binom.pmf(fewer, changed, 0.5), p)
    return np.minimum(1.0, p)


def t_test(found: GroupMeans) -> Floats:
    """Two-sided p that each mean is 0; 1 where all values are 0, NaN without an error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(found.mean == 0, 0.0, abs(found.mean) / found.error)
    p = 2 * stdtr(np.maximum(found.degrees, 1), -t)
    return np.where(np.isfinite(found.error), p, np.nan)


def equivalence(found: GroupMeans, margin: float) -> Floats:
    """The p that each mean is at least the margin on either side, as in ``paired.tost``."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (abs(found.mean) - margin) / found.error
    # Without any error the mean is what it is.
    t = np.where(found.error == 0, np.where(abs(found.mean) < margin, -np.inf, np.inf), t)
    p = stdtr(np.maximum(found.degrees, 1), t)
    return np.where(np.isfinite(found.error), p, np.nan)


def score_interval(lost: Ids, gained: Ids, size: Ids) -> Floats:
    """95% intervals of the change of shares, paired: where few change, others are too narrow.

    Args:
        lost: How often only the first run was right, G.
        gained: How often only the second was, G.
        size: Pairs, G.

    Returns:
        G×2, in [−1, 1]; NaN without pairs.

    Source:
        Tango 1998, "Equivalence test and confidence interval for the difference in proportions for
        the paired-sample design", equations 6 to 8.

    Example:
        >>> score_interval(np.array([0]), np.array([0]), np.array([100])).round(3).tolist()
        [[-0.037, 0.037]]
    """
    bound = ndtri(1 - ALPHA / 2)
    middle = (gained - lost) / np.maximum(size, 1)
    ends = []
    for side in (-1.0, 1.0):
        near, far = middle, np.full(len(middle), side)
        for _ in range(_HALVINGS):
            half = (near + far) / 2
            beyond = -side * _score(lost, gained, size, half) > bound
            near, far = np.where(beyond, near, half), np.where(beyond, half, far)
        ends.append((near + far) / 2)
    return np.where((size > 0)[:, None], np.stack(ends, axis=1), np.nan)


def score_equivalence(lost: Ids, gained: Ids, size: Ids, margin: float) -> Floats:
    """The p that a share's change is at least the margin on either side, by Tango's score test.

    Args:
        lost: How often only the first run was right, G.
        gained: How often only the second was, G.
        size: Pairs, G.
        margin: Largest change that counts as none, in (0, 1).

    Returns:
        G; as :func:`equivalence`, which takes what never occurred for impossible.

    Source:
        Liu, Hsueh, Hsieh and Chen 2002, "Tests for equivalence or non-inferiority for paired
        binary data".

    Example:
        >>> score_equivalence(np.array([0]), np.array([0]), np.array([200]), 0.01).round(3)
        array([0.078])
    """
    sides = (np.full(len(size), -margin), np.full(len(size), margin))
    low, high = (_score(lost, gained, size, side) for side in sides)
    return np.where(size > 0, np.maximum(ndtr(-low), ndtr(high)), np.nan)


def _score(lost: Ids, gained: Ids, size: Ids, change: Floats) -> Floats:
    """Tango's standard normal statistic of a supposed change of each share, G."""
    linear = (2 * size - gained + lost) * change - lost - gained
    root = np.sqrt(np.maximum(linear**2 + 8 * size * lost * change * (1 - change), 0))
    losses = (root - linear) / np.maximum(4 * size, 1)
    variance = size * (2 * losses + change * (1 - change))
    return (gained - lost - size * change) / np.sqrt(np.maximum(variance, _ROUNDING))


def t_interval(found: GroupMeans) -> Floats:
    """95% intervals of the means by Student's t, G×2."""
    half = stdtrit(np.maximum(found.degrees, 1), 1 - ALPHA / 2) * found.error
    return np.stack([found.mean - half, found.mean + half], axis=1)


def bootstrap(
    values: Floats, clusters: Ids, seed: tuple[int, ...], *, most: int = MOST_DRAWN
) -> Floats:
    """BCa intervals of the means of the columns of one group.

    Args:
        values: n×s; NaN where a value is missing.
        clusters: n.
        seed: Of the resamples.
        most: More clusters than this are dealt at random into so many groups.

    Returns:
        s×2.
    """
    rng = np.random.default_rng(seed)
    ids = np.unique(clusters, return_inverse=True)[1]
    count = int(ids.max(initial=-1)) + 1
    if count > most:
        ids = (rng.permutation(count) % most)[ids]
    return bca_intervals(values, rng, clusters=ids).means


def pooled(found: GroupMeans, kept: NDArray[np.bool_]) -> GroupMeans:
    """The mean over groups of their means, as a group of its own.

    Args:
        found: The groups, G.
        kept: Which of them count, G; each has an error.

    Returns:
        One mean; its error by Welch and Satterthwaite.

    Source:
        Satterthwaite 1946, "An approximate distribution of estimates of variance components".

    Example:
        >>> two = Grouping.of(np.array([0, 0, 1, 1]), 2, np.arange(4))
        >>> both = pooled(two.means(np.array([1.0, 3.0, 4.0, 8.0])), np.array([True, True]))
        >>> both.mean.tolist(), round(float(both.error[0]), 3), round(float(both.degrees[0]), 2)
        ([4.0], 1.118, 1.47)
    """
    error, degrees = found.error[kept], found.degrees[kept]
    groups = max(1, int(kept.sum()))
    squares = error**2
    total = float(squares.sum())
    fourth = float((squares**2 / np.maximum(degrees, 1)).sum())
    return GroupMeans(
        np.array([found.n[kept].sum()]),
        np.array([found.clusters[kept].sum()]),
        np.array([found.mean[kept].mean() if kept.any() else np.nan]),
        np.array([np.sqrt(total) / groups if kept.any() else np.nan]),
        np.array([total**2 / fourth if fourth > 0 else float(degrees.sum())]),
        np.array([np.sqrt(float((found.spread[kept] ** 2).mean())) if kept.any() else np.nan]),
    )
