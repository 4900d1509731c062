"""What this many samples can show: spread of a mean, effective size, smallest detectable effect."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import nctdtrinc, ndtri, stdtrit

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

ALPHA = 0.05
POWER = 0.8


class MeanError(NamedTuple):
    """A mean and how far to trust it.

    Attributes:
        mean: Of the values.
        error: Its standard error, from the clusters' sums; NaN for fewer than two clusters.
        degrees: Degrees of freedom, clusters − 1.
        effective: How many independent values would give this error: at most n; the number of
            clusters where all values are equal.
    """

    mean: float
    error: float
    degrees: int
    effective: float


def mean_error(values: Floats, clusters: Ids | None = None) -> MeanError:
    """The standard error of a mean of clustered values.

    Args:
        values: Finite numbers, n.
        clusters: Which cluster each value belongs to, n; without it each is its own.

    Returns:
        The mean, its error and what goes with it; without clusters the error is sd/√n.

    Source:
        Liang and Zeger 1986, equation 10, for a mean, with the factor G/(G − 1); effective size:
        Kish 1965, "Survey Sampling", section 5.4 (n over the design effect).

    Example:
        >>> found = mean_error(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1]))
        >>> found.mean, found.error, found.degrees, round(found.effective, 3)
        (2.0, 1.0, 1, 1.333)
    """
    size = len(values)
    if size == 0:
        return MeanError(np.nan, np.nan, 0, 0.0)
    mean = float(values.mean())
    centred = values - mean
    sums: Floats = centred
    if clusters is not None:
        ids = np.unique(clusters, return_inverse=True)[1]
        sums = np.bincount(ids, weights=centred).astype(np.float64)
    count = len(sums)
    if count < 2:
        return MeanError(mean, np.nan, 0, 1.0)
    if np.ptp(values) == 0:
        return MeanError(mean, 0.0, count - 1, float(count))
    error = float(np.sqrt(count / (count - 1) * (sums**2).sum()) / size)
    variance = float((centred**2).sum()) / (size - 1)
    effective = variance / error**2 if error > 0 else np.inf
    return MeanError(mean, error, count - 1, min(float(size), effective))


def detectable_mean(
    spread: ArrayLike, size: ArrayLike, *, alpha: float = ALPHA, power: float = POWER
) -> Floats:
    """The smallest distance of a mean from its null value that a t test would find.

    Args:
        spread: Standard deviation of the values.
        size: Effective number of independent values; arrays broadcast.
        alpha: Two-sided level of the test.
        power: Chance of finding it.

    Returns:
        The distance, in the values' unit; NaN for fewer than two values.

    Source:
        Cohen 1988, "Statistical Power Analysis", section 2.4; the noncentral t distribution, whose
        other tail (below 1e-6) is left out.

    Example:
        >>> detectable_mean(1.0, [100, 400]).round(3)
        array([0.283, 0.14 ])
    """
    sizes = np.asarray(size, np.float64)
    enough = sizes >= 2
    degrees = np.where(enough, sizes - 1, 1)
    shift = nctdtrinc(degrees, 1 - power, stdtrit(degrees, 1 - alpha / 2))
    found = np.asarray(spread, np.float64) * shift / np.sqrt(np.maximum(sizes, 1))
    return np.where(enough, found, np.nan)


def detectable_rate(
    reference: ArrayLike, size: ArrayLike, *, alpha: float = ALPHA, power: float = POWER
) -> Floats:
    """The lowest rate above a reference rate that would be told from it.

    Args:
        reference: In [0, 1].
        size: Effective number of independent values; arrays broadcast.
        alpha: Two-sided level of the test.
        power: Chance of finding it.

    Returns:
        The rate; NaN where no rate up to 1 is far enough, or there are no values.

    Source:
        Cohen 1988, section 6.4: arcsine-transformed proportions, one sample.

    Example:
        >>> detectable_rate(0.2, [100, 400]).round(3)
        array([0.322, 0.259])
    """
    sizes = np.asarray(size, np.float64)
    there = sizes > 0
    shift = (ndtri(1 - alpha / 2) + ndtri(power)) / (2 * np.sqrt(np.where(there, sizes, 1)))
    angle = np.arcsin(np.sqrt(np.asarray(reference, np.float64))) + shift
    return np.where(there & (angle <= np.pi / 2), np.sin(angle) ** 2, np.nan)


def wilson_interval(
    share: ArrayLike, size: ArrayLike, *, level: float = 1 - ALPHA
) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share.

    Args:
        share: In [0, 1].
        size: Effective number of independent values; arrays broadcast.
        level: Coverage aimed at.

    Returns:
        Lower and upper ends in [0, 1]; NaN without values.

    Source:
        Wilson 1927, "Probable Inference"; Brown, Cai and DasGupta 2001, equation 4.

    Example:
        >>> low, high = wilson_interval(0.5, 100)
        >>> low.round(3), high.round(3)
        (np.float64(0.404), np.float64(0.596))
    """
    shares, sizes = np.asarray(share, np.float64), np.asarray(size, np.float64)
    sizes = np.where(sizes > 0, sizes, np.nan)
    z = ndtri((1 + level) / 2)
    middle = (shares + z**2 / (2 * sizes)) / (1 + z**2 / sizes)
    half = z / (1 + z**2 / sizes) * np.sqrt(shares * (1 - shares) / sizes + (z / (2 * sizes)) ** 2)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)
