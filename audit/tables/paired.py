"""Two runs on the same samples: have they changed, and are they the same?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit
from scipy.stats import binom

from audit.tables.bootstrap import LEVEL, RESAMPLES, bca_interval
from audit.tables.power import ALPHA, mean_error

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

# Means this close count as equal: two points of kappa or of a share.
MARGIN = 0.02
# McNemar's test is exact up to this many samples that changed.
MOST_EXACT = 25


class Changed(NamedTuple):
    """How often two runs disagree.

    Attributes:
        lost: True in the first run only.
        gained: True in the second run only.
        p: That losses and gains are equally likely, two-sided.
    """

    lost: int
    gained: int
    p: float


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Changed:
    """Whether a share (of correct predictions, of hits) differs between two runs.

    Exact up to 25 samples that changed; the mid-p version above, as the exact test is conservative
    and the chi-square one, at few changes, is not safe.

    Args:
        first: The first run's outcomes, n.
        second: The second run's, of the same samples.

    Returns:
        The counts, and p: 1 where nothing changed. Samples count as independent: where there are
        duplicates, see :func:`paired_interval` as well.

    Source:
        McNemar 1947; mid-p: Fagerland, Lydersen and Laake 2013, "The McNemar test for binary
        matched-pairs data".

    Example:
        >>> mcnemar(np.array([True] * 6 + [False]), np.array([False] * 6 + [True]))
        Changed(lost=6, gained=1, p=0.125)
    """
    lost = int((first & ~second).sum())
    gained = int((second & ~first).sum())
    changed, fewer = lost + gained, min(lost, gained)
    p = 2 * float(binom.cdf(fewer, changed, 0.5))
    if changed > MOST_EXACT:
        p -= float(binom.pmf(fewer, changed, 0.5))
    return Changed(lost, gained, min(1.0, p))


class Equivalence(NamedTuple):
    """Whether two means are as good as equal.

    Attributes:
        difference: Second mean minus first.
        low: Lower end of the difference's 1 − 2α interval.
        high: Upper end of it.
        p: That the difference is at least the margin, on either side.
        equivalent: Whether p is at most α: the interval lies within the margin.
    """

    difference: float
    low: float
    high: float
    p: float
    equivalent: bool


def tost(
    first: Floats,
    second: Floats,
    *,
    margin: float = MARGIN,
    clusters: Ids | None = None,
    alpha: float = ALPHA,
) -> Equivalence:
    """Two one-sided t tests: is the paired difference within the margin?

    That no change was found is no proof of none; this is.

    Args:
        first: The first run's scores, n; pairs with a missing score are left out.
        second: The second run's, of the same samples.
        margin: Largest difference that counts as none, > 0.
        clusters: Which cluster each sample belongs to, n; without it each is its own.
        alpha: Level of each test.

    Returns:
        The difference with its interval, p and the answer; NaN and no for fewer than two clusters.

    Source:
        Schuirmann 1987, "A comparison of the two one-sided tests procedure"; error of clusters as
        in :func:`audit.tables.power.mean_error`.

    Example:
        >>> scores = np.linspace(0, 1, 50)
        >>> tost(scores, scores + 0.001 * np.cos(scores)).equivalent
        True
    """
    differences, ids = _differences(first, second, clusters)
    mean, error, degrees, _ = mean_error(differences, ids)
    if not np.isfinite(error):
        return Equivalence(mean, np.nan, np.nan, np.nan, False)
    if error == 0:
        p = float(abs(mean) >= margin)
        return Equivalence(mean, mean, mean, p, p <= alpha)
    p = float(stdtr(degrees, (abs(mean) - margin) / error))
    half = float(stdtrit(degrees, 1 - alpha)) * error
    return Equivalence(mean, mean - half, mean + half, p, p <= alpha)


def paired_interval(
    first: Floats,
    second: Floats,
    rng: np.random.Generator,
    *,
    clusters: Ids | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float]:
    """BCa bootstrap interval of the mean paired difference, second minus first.

    Args:
        first: The first run's scores, n; pairs with a missing score are left out.
        second: The second run's, of the same samples.
        rng: Draws the resamples.
        clusters: Which cluster each sample belongs to, n; without it each is its own.
        resamples: How many.
        level: Coverage aimed at.

    Returns:
        Lower and upper end; NaN for fewer than two clusters.

    Source:
        As :func:`audit.tables.bootstrap.bca_interval`.

    Example:
        >>> scores = np.arange(50.0)
        >>> paired_interval(scores, scores + 2, np.random.default_rng(0))
        (2.0, 2.0)
    """
    differences, ids = _differences(first, second, clusters)
    return bca_interval(differences, rng, clusters=ids, resamples=resamples, level=level)


def _differences(first: Floats, second: Floats, clusters: Ids | None) -> tuple[Floats, Ids | None]:
    differences = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    there = np.isfinite(differences)
    return differences[there], clusters[there] if clusters is not None else None
