"""Could chance alone have done this? Null hypotheses of maps and masks, over many classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from audit.tables.power import mean_error

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

# The normal approximation of the shuffled statistic needs this many samples.
LEAST_TO_SHUFFLE = 10


def area_null_p(kappas: Floats, clusters: Ids | None = None) -> float:
    """Whether the mean kappa is 0: whether evidence falls on the object as by its area.

    A two-sided t test of the mean, with the standard error of clusters. Not a bootstrap: two
    thousand resamples cannot tell p-values below .0005 apart, which Benjamini–Hochberg over a
    thousand classes asks for; the t statistic is good to far below, and its error from skewness
    falls with the number of samples.

    Args:
        kappas: One class's finite values, n.
        clusters: Which cluster each belongs to, n; without it each is its own.

    Returns:
        p in [0, 1]; NaN for fewer than two clusters, or where all values are equal.

    Source:
        Student 1908; error of clusters as in :func:`audit.tables.power.mean_error`.

    Example:
        >>> round(area_null_p(np.array([-1.0, 0.0, 1.0, 2.0])), 3)
        0.495
    """
    mean, error, degrees, _ = mean_error(kappas, clusters)
    if not error > 0:
        return np.nan
    return float(2 * stdtr(degrees, -abs(mean / error)))


class Shuffle(NamedTuple):
    """A mean object share against its null distribution.

    Attributes:
        observed: Mean share of each map on its own mask, T.
        mean: Mean of T over all ways to deal the masks to the maps.
        variance: Variance of T over them.
        z: (T − mean) over its standard deviation; NaN where the variance is 0.
        p: Two-sided, by the normal approximation; NaN where z is, or for fewer than 10 samples.
    """

    observed: float
    mean: float
    variance: float
    z: float
    p: float


def mask_shuffle_null(maps: Floats, masks: Floats, weights: Floats | None = None) -> Shuffle:
    """Whether maps follow their own images' masks, or any masks of the class equally well.

    The mean and variance over all n! permutations, in closed form: with each map normalised to sum
    1 and ``S_ij`` the share of map i on mask j, T = tr S / n has mean ΣS/n² and variance
    ΣD²/((n − 1)n²), where D is S with row and column means taken out. ΣD² comes from d×d Gram
    matrices where there are more samples than cells, so that it costs n·d², not n²·d.

    Args:
        maps: Of one class, n×d; what is below 0 counts as 0. No map is zero.
        masks: On the maps' grid, n×d in [0, 1].
        weights: What a cell counts, d; without it cells count equally (as they do in object_share
            where the image's size is a multiple of the grid's).

    Returns:
        Observed value, null mean and variance, z and p.

    Source:
        Hoeffding 1951, "A Combinatorial Central Limit Theorem", theorem 2.

    Example:
        >>> own = mask_shuffle_null(np.eye(12), np.eye(12))
        >>> own.observed, round(own.mean, 4), own.p < 1e-6
        (1.0, 0.0833, True)
    """
    size = len(maps)
    shares = np.maximum(maps, 0) * (1 if weights is None else weights)
    shares = shares / shares.sum(axis=1, keepdims=True)
    if size == 0:
        return Shuffle(*[np.nan] * 5)
    observed = float(np.einsum("nd,nd->", shares, masks) / size)
    mean = float(shares.mean(axis=0) @ masks.mean(axis=0))
    squares = _sum_of_squares(shares - shares.mean(axis=0), masks - masks.mean(axis=0))
    variance = squares / ((size - 1) * size**2) if size > 1 else 0.0
    # Equal masks or maps leave nothing but rounding.
    if variance <= (1e-12 * abs(observed)) ** 2:
        return Shuffle(observed, mean, 0.0, np.nan, np.nan)
    z = (observed - mean) / np.sqrt(variance)
    p = float(2 * ndtr(-abs(z))) if size >= LEAST_TO_SHUFFLE else np.nan
    return Shuffle(observed, mean, variance, float(z), p)


def shuffle_of_rows(samples: pd.DataFrame, clusters: Ids) -> Shuffle:
    """The shuffle null of one class's rows.

    Args:
        samples: Rows with ``map``, ``grid_mask`` and ``background_share``; without ``grid_mask``
            nothing is known.
        clusters: Which cluster each row belongs to, n: one sample of each takes part, as copies of
            one image are not exchangeable with others.

    Returns:
        As :func:`mask_shuffle_null`, over the scored rows.
    """
    if "grid_mask" not in samples:
        return Shuffle(*[np.nan] * 5)
    scored = samples["background_share"].notna() & samples["grid_mask"].notna()
    places = np.flatnonzero(scored.to_numpy() & samples["map"].notna().to_numpy())
    places = places[np.unique(clusters[places], return_index=True)[1]]
    if not len(places):
        return Shuffle(*[np.nan] * 5)
    maps, masks = (
        np.stack(list(samples[name].iloc[places])).astype(np.float64)
        for name in ("map", "grid_mask")
    )
    there = np.isfinite(maps).all(axis=1) & np.isfinite(masks).all(axis=1)
    # The stored half floats may round a faint map to zero.
    there &= (maps > 0).any(axis=1)
    return mask_shuffle_null(maps[there], masks[there])


def adjusted_p(p_values: Floats) -> Floats:
    """Benjamini–Hochberg's q-values.

    Args:
        p_values: In [0, 1]; NaN where there was no test: it stays NaN and does not count.

    Returns:
        q in [0, 1]: the smallest false discovery rate at which a test is called.

    Source:
        Benjamini and Hochberg 1995, "Controlling the False Discovery Rate".

    Example:
        >>> adjusted_p(np.array([0.01, np.nan, 0.04]))
        array([0.02,  nan, 0.04])
    """
    # scipy.stats takes long to import, and only the end of a run needs it.
    from scipy.stats import false_discovery_control

    tested = np.isfinite(p_values)
    found = np.full(len(p_values), np.nan)
    if tested.any():
        found[tested] = false_discovery_control(p_values[tested], method="bh")
    return found


def _sum_of_squares(maps: Floats, masks: Floats) -> float:
    """ΣD² for D = maps·masksᵀ, by the smaller of the two products."""
    size, cells = maps.shape
    if size <= cells:
        return float(((maps @ masks.T) ** 2).sum())
    return max(0.0, float(np.einsum("ij,ij->", maps.T @ maps, masks.T @ masks)))
