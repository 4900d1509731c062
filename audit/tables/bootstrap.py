"""Bootstrap intervals of means and quantiles, over samples or over clusters of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Counts = NDArray[np.signedinteger[Any]]

RESAMPLES = 2000
LEVEL = 0.95
# Draws held at a time: so many stay near the processor. The stream of draws, and with it every
# result, is the same for any number.
_DRAWS = 250_000
# Statistics closer to the observed one than this, relative to it, are equal but for rounding.
_ROUNDING = 1e-12
# An interval needs two clusters.
_FEWEST = 2


@dataclass(frozen=True)
class Intervals:
    """Lower and upper ends of several statistics.

    Attributes:
        means: s×2.
        quantiles: t×2.
    """

    means: Floats
    quantiles: Floats


def bca_interval(
    values: Floats,
    rng: np.random.Generator,
    *,
    clusters: Ids | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of one mean.

    Args:
        values: Finite numbers, n.
        rng: Draws the resamples.
        clusters: Which cluster each value belongs to, n; without it each is its own.
        resamples: How many.
        level: Coverage aimed at.

    Returns:
        Lower and upper end; NaN for fewer than two clusters; the mean twice where all are equal.

    Source:
        Efron 1987, "Better Bootstrap Confidence Intervals", equations 2.3 and 6.6.

    Example:
        >>> low, high = bca_interval(np.arange(100.0), np.random.default_rng(0))
        >>> 43 < low < 45 < 54 < high < 56
        True
    """
    found = bca_intervals(
        values[:, None], rng, clusters=clusters, resamples=resamples, level=level
    ).means[0]
    return float(found[0]), float(found[1])


def bca_intervals(
    values: Floats,
    rng: np.random.Generator,
    *,
    clusters: Ids | None = None,
    quantiles: Sequence[tuple[int, float]] = (),
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Intervals:
    """BCa intervals of many means and quantiles; one draw of resamples serves them all.

    Whole clusters are drawn, and left out one at a time for the acceleration. Where a value is
    missing, its sample is drawn like the others and has no weight in that column's statistics.

    Args:
        values: n×s; NaN where a value is missing.
        rng: Draws the resamples.
        clusters: Which cluster each row belongs to, n; without it each is its own.
        quantiles: Pairs of a column and a probability in [0, 1], t: interpolated linearly, as by
            ``numpy.quantile``.
        resamples: How many.
        level: Coverage aimed at.

    Returns:
        Ends of the means of all columns, and of these quantiles; NaN where fewer than two clusters
        have a value; the statistic twice where all values are equal.

    Source:
        Efron 1987, equations 2.3 and 6.6; clusters as the units that are drawn: Davison and Hinkley
        1997, "Bootstrap Methods and their Application", section 3.8.

    Example:
        >>> values = np.arange(200.0).reshape(100, 2)
        >>> found = bca_intervals(values, np.random.default_rng(0), quantiles=[(0, 0.5)])
        >>> found.means.shape, found.quantiles.shape
        ((2, 2), (1, 2))
    """
    kept = np.isfinite(values).any(axis=1)
    values = values[kept]
    ids, count = _numbered(clusters[kept] if clusters is not None else None, len(values))
    if count < _FEWEST:
        return Intervals(_nothing(values.shape[1]), _nothing(len(quantiles)))
    sums = _ClusterSums.of(values, ids, count)
    ordered = _by_column(values, ids, count, quantiles)
    means, places = [], []
    for counts in _draw(count, rng, resamples):
        means.append(sums.means(counts))
        small = counts.astype(np.int16)
        places.append([one.drawn(small) for one in ordered.values()])
    ends = {
        column: _bca(one.observed(), np.concatenate(drawn), one.left_out(), level)
        for (column, one), drawn in zip(ordered.items(), zip(*places, strict=True), strict=True)
    }
    return Intervals(
        _bca(sums.observed(), np.concatenate(means), sums.left_out(), level),
        np.array(
            [
                ends[column][ordered[column].probabilities.tolist().index(share)]
                for column, share in quantiles
            ]
        ).reshape(-1, 2),
    )


def macro_intervals(
    values: Floats,
    strata: Ids,
    rng: np.random.Generator,
    *,
    clusters: Ids | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Floats:
    """BCa intervals of the mean over strata of their means.

    Resamples are drawn within each stratum, so that every resample has all of them.

    Args:
        values: n×s; NaN where a value is missing.
        strata: Which stratum each row belongs to, n.
        rng: Draws the resamples.
        clusters: Which cluster each row belongs to, n; without it each is its own. A cluster in two
            strata counts as two.
        resamples: How many.
        level: Coverage aimed at.

    Returns:
        Ends for each column, s×2; NaN where no two clusters of a stratum have a value.

    Source:
        As :func:`bca_intervals`; the acceleration of a sum over strata: Davison and Hinkley 1997,
        section 5.3.2.

    Example:
        >>> values, strata = np.arange(100.0)[:, None], np.repeat([0, 1], [90, 10])
        >>> low, high = macro_intervals(values, strata, np.random.default_rng(0))[0]
        >>> bool(low < (44.5 + 94.5) / 2 < high)
        True
    """
    drawn, observed, left_out = [], [], []
    known = np.isfinite(values).any(axis=1)
    if not known.any():
        return _nothing(values.shape[1])
    for stratum in np.unique(strata[known]):
        rows = known & (strata == stratum)
        ids, count = _numbered(clusters[rows] if clusters is not None else None, int(rows.sum()))
        sums = _ClusterSums.of(values[rows], ids, count)
        means = [sums.means(counts) for counts in _draw(count, rng, resamples)]
        # A resample with none of a column's few values says no more than the stratum itself.
        drawn.append(_filled(np.concatenate(means), sums.observed()))
        observed.append(sums.observed())
        left_out.append(sums.left_out() - sums.observed())
    has = np.isfinite(observed)
    shares = has / np.maximum(has.sum(axis=0), 1)
    mean = np.where(has.any(axis=0), (shares * np.nan_to_num(observed)).sum(axis=0), np.nan)
    return _bca(
        mean,
        np.einsum("ps,pbs->bs", shares, np.nan_to_num(drawn)),
        np.concatenate([mean + w * moved for w, moved in zip(shares, left_out, strict=True)]),
        level,
    )


@dataclass(frozen=True)
class _ClusterSums:
    """Sums G×s of values and of their number over each cluster."""

    totals: Floats
    weights: Floats

    @classmethod
    def of(cls, values: Floats, ids: Ids, count: int) -> _ClusterSums:
        there = np.isfinite(values)
        both = np.where(there, values, 0.0), there.astype(np.float64)
        order = np.argsort(ids, kind="stable")
        starts = np.searchsorted(ids[order], np.arange(count))
        return cls(*(np.add.reduceat(each[order], starts, axis=0) for each in both))

    def observed(self) -> Floats:
        """The means, s."""
        return _divide(self.totals.sum(axis=0), self.weights.sum(axis=0))

    def means(self, counts: Counts) -> Floats:
        """The means of resamples, B×s; NaN where one has none of a column's values."""
        drawn = counts.astype(np.float64)
        return _divide(drawn @ self.totals, drawn @ self.weights)

    def left_out(self) -> Floats:
        """The means without each cluster, G×s; NaN for clusters without a value."""
        rest = self.weights.sum(axis=0) - self.weights
        means = _divide(self.totals.sum(axis=0) - self.totals, rest)
        return np.where(self.weights > 0, means, np.nan)


@dataclass(frozen=True)
class _Sorted:
    """A column's n values in order, the clusters they come from, and q probabilities."""

    values: Floats
    ids: Ids
    count: int
    probabilities: Floats

    @classmethod
    def of(cls, values: Floats, ids: Ids, count: int, probabilities: Sequence[float]) -> _Sorted:
        # NaN comes last.
        order = np.argsort(values, kind="stable")[: np.isfinite(values).sum()]
        return cls(values[order], ids[order], count, np.asarray(probabilities, np.float64))

    def observed(self) -> Floats:
        """The quantiles, q."""
        if not len(self.values):
            return np.full(len(self.probabilities), np.nan)
        return np.quantile(self.values, self.probabilities)

    def drawn(self, counts: Counts) -> Floats:
        """The quantiles of resamples, B×q; NaN where one has none of the values."""
        if not len(self.values):
            return np.full((len(counts), len(self.probabilities)), np.nan)
        # One running sum over all resamples, one after the other, is sorted: a rank is looked up.
        taken = np.cumsum(counts.take(self.ids, axis=1), dtype=np.int64)
        ends = taken[len(self.values) - 1 :: len(self.values)]
        size = np.diff(ends, prepend=0)
        low, high, part = self._between(size)
        starts = (ends - size)[:, None]
        lower, upper = (
            self.values[np.searchsorted(taken, starts + rank, side="right") % len(self.values)]
            for rank in (low, high)
        )
        return np.where(size[:, None] > 0, lower + part * (upper - lower), np.nan)

    def left_out(self) -> Floats:
        """The quantiles without each cluster, G×q; NaN for clusters without a value."""
        own = np.bincount(self.ids, minlength=self.count)
        size = len(self.values)
        # The j-th of a cluster's values, in order, moves what is left from its rank − j on by one.
        by_cluster = np.argsort(self.ids, kind="stable")
        cluster = self.ids[by_cluster]
        from_rank = by_cluster - (np.arange(size) - (np.cumsum(own) - own)[cluster])
        low, high, part = self._between(size - own)
        kept = (own > 0) & (own < size)
        found = np.full((self.count, len(self.probabilities)), np.nan)
        for place in range(len(self.probabilities)):
            lower, upper = (
                self.values[
                    rank[kept]
                    + np.bincount(cluster[from_rank <= rank[cluster]], None, self.count)[kept]
                ]
                for rank in (low[:, place], high[:, place])
            )
            found[kept, place] = lower + part[kept, place] * (upper - lower)
        return found

    def _between(self, size: Ids) -> tuple[Ids, Ids, Floats]:
        """The ranks that the quantiles of so many values lie between, and how far."""
        last = np.maximum(size - 1, 0)[:, None]
        place = self.probabilities * last
        below = np.floor(place).astype(np.int64)
        return below, np.minimum(below + 1, last), place - below


def _numbered(clusters: Ids | None, size: int) -> tuple[Ids, int]:
    """Clusters as 0…G−1, and how many there are."""
    if clusters is None:
        return np.arange(size), size
    ids = np.unique(clusters, return_inverse=True)[1]
    return ids, int(ids.max(initial=-1)) + 1


def _draw(count: int, rng: np.random.Generator, resamples: int) -> Iterator[Ids]:
    """How often each of G clusters is in each resample, some resamples at a time: b×G."""
    at_once = max(1, _DRAWS // count)
    for done in range(0, resamples, at_once):
        rows = min(at_once, resamples - done)
        drawn = rng.integers(0, count, (rows, count))
        drawn += np.arange(rows)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)


def _bca(observed: Floats, drawn: Floats, left_out: Floats, level: float) -> Floats:
    """Ends of each of s statistics, from B×s drawn and G×s with one cluster left out."""
    known = np.isfinite(drawn)
    size = known.sum(axis=0)
    scale = _ROUNDING * np.abs(np.where(known, drawn, 0)).max(axis=0)
    ties = np.abs(drawn - observed) <= scale
    # Ties count half: statistics of few distinct values often equal the observed one.
    below = ((drawn < observed) & ~ties).sum(axis=0) + 0.5 * ties.sum(axis=0)
    enough = np.maximum(size, 1)
    bias = ndtri(np.clip(below / enough, 1 / (enough + 1), enough / (enough + 1)))
    shifted = bias[:, None] + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    places = ndtr(bias[:, None] + shifted / (1 - _acceleration(left_out)[:, None] * shifted))
    ends = _quantiles_of_columns(drawn, places, enough)
    ends = np.where(ties.sum(axis=0)[:, None] == size[:, None], observed[:, None], ends)
    return np.where(np.isfinite(left_out).sum(axis=0)[:, None] < _FEWEST, np.nan, ends)


def _acceleration(left_out: Floats) -> Floats:
    """Efron's a of each column; 0 where leaving out changes nothing."""
    known = np.isfinite(left_out)
    mean = _divide(np.where(known, left_out, 0).sum(axis=0), known.sum(axis=0))
    moved = np.where(known, mean - left_out, 0)
    return np.nan_to_num(_divide((moved**3).sum(axis=0), 6 * (moved**2).sum(axis=0) ** 1.5))


def _quantiles_of_columns(values: Floats, places: Floats, size: Ids) -> Floats:
    """Of each column of B×s the quantiles at its own places, s×2; NaN are left out."""
    ordered = np.sort(values.T, axis=1)
    rank = places * (size[:, None] - 1)
    below = np.floor(rank).astype(np.int64)
    lower = np.take_along_axis(ordered, below, axis=1)
    upper = np.take_along_axis(ordered, np.minimum(below + 1, size[:, None] - 1), axis=1)
    return lower + (rank - below) * (upper - lower)


def _filled(drawn: Floats, observed: Floats) -> Floats:
    return np.where(np.isfinite(drawn), drawn, observed)


def _by_column(
    values: Floats, ids: Ids, count: int, quantiles: Sequence[tuple[int, float]]
) -> dict[int, _Sorted]:
    """The columns of which quantiles are asked, each sorted once."""
    asked: dict[int, list[float]] = {}
    for column, share in quantiles:
        asked.setdefault(column, []).append(float(share))
    return {
        column: _Sorted.of(values[:, column], ids, count, shares)
        for column, shares in asked.items()
    }


def _divide(numerator: Floats, denominator: Floats) -> Floats:
    """The ratio; NaN over 0."""
    there = denominator > 0
    return np.where(there, numerator / np.where(there, denominator, 1), np.nan)


def _nothing(count: int) -> Floats:
    return np.full((count, 2), np.nan)
