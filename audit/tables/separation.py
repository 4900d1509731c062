"""How well a number tells two groups of samples apart, for many groups at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr, ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95
# With fewer samples on either side, nothing is said.
LEAST_SAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Area under the ROC curve for each of G comparisons; NaN where undefined.

    Attributes:
        auc: Chance that a sample of the one side has the larger value, ties half, in [0, 1].
        low: Lower end of the 95% interval.
        high: Upper end.
        p: Two-sided, of no difference.
    """

    auc: Floats
    low: Floats
    high: Floats
    p: Floats


class _Pairs(NamedTuple):
    """What all pairs of an m- and an n-sided comparison add up to, G each.

    ``wins`` counts the pairs whose first is larger (ties half); ``wins_squared`` sums, over the
    first side, the square of each sample's wins, ``losses_squared`` the same over the second.
    ``ties`` is Σ t³ − t over values that occur t times.
    """

    m: Floats
    n: Floats
    wins: Floats
    wins_squared: Floats
    losses_squared: Floats
    ties: Floats


def separate_within(
    values: Floats, first: NDArray[np.bool_], group: Ints, groups: int
) -> Separation:
    """Compare two sides of each group.

    Args:
        values: Finite numbers, n.
        first: Who is on the first side, n.
        group: Each sample's group, in [0, groups), n.
        groups: G.

    Returns:
        One comparison a group: the first side against the second. The interval is DeLong's on the
        logit scale, or Wilson's for the smaller side where the two do not overlap at all; p is the
        Mann–Whitney test's with ties and continuity correction. NaN with fewer than ten samples on
        a side, or where all values are equal.

    Source:
        Mann and Whitney 1947; DeLong et al. 1988, equations 5 and 6; Wilson 1927.

    Example:
        >>> wrong = np.arange(40) % 2 == 0
        >>> found = separate_within(np.arange(40.0) + 9 * wrong, wrong, np.zeros(40, int), 1)
        >>> found.auc.round(3), found.low.round(3), found.high.round(3)
        (array([0.68]), array([0.497]), array([0.82]))
    """
    _, codes = np.unique(values, return_inverse=True)
    place, entry = np.unique(group * (codes.max(initial=0) + 1) + codes, return_inverse=True)
    of = (place // (codes.max(initial=0) + 1)).astype(np.int64)
    one = _sums(first.astype(np.float64), entry, len(place))
    other = _sums((~first).astype(np.float64), entry, len(place))
    one_below, other_below = _below(one, of, groups), _below(other, of, groups)
    wins, losses = other_below + other / 2, one_below + one / 2

    def total(each: Floats) -> Floats:
        return _sums(each, of, groups)

    both = one + other
    return _separation(
        _Pairs(
            m=total(one),
            n=total(other),
            wins=total(one * wins),
            wins_squared=total(one * wins**2),
            losses_squared=total(other * losses**2),
            ties=total(both**3 - both),
        )
    )


def separate_from_rest(values: Floats, group: Ints, groups: int) -> Separation:
    """Compare each group with all others together.

    Args:
        values: Finite numbers, n.
        group: Each sample's group, in [0, groups), n.
        groups: G.

    Returns:
        One comparison a group, as of :func:`separate_within`; in O(n log n) for all of them.

    Example:
        >>> found = separate_from_rest(np.arange(30.0), np.arange(30) // 10, 3)
        >>> found.auc
        array([0. , 0.5, 1. ])
    """
    _, codes = np.unique(values, return_inverse=True)
    every = np.bincount(codes).astype(np.float64)
    below = np.cumsum(every) - every
    # One entry for each value that occurs in a group, in order of group and value.
    place, counts = np.unique(group * len(every) + codes, return_counts=True)
    of, code = (place // max(1, len(every))).astype(np.int64), place % max(1, len(every))
    own = counts.astype(np.float64)
    own_below = _below(own, of, groups)
    rest_below, rest_equal = below[code] - own_below, every[code] - own
    wins = rest_below + rest_equal / 2

    def total(each: Floats) -> Floats:
        return _sums(each, of, groups)

    m = total(own)
    n = len(values) - m
    # The rest's samples between this value of the group and its next one.
    last = np.append(of[1:] != of[:-1], True)[: len(of)]
    next_below = np.where(last, n[of], np.append(rest_below[1:], 0)[: len(of)])
    between = next_below - rest_below - rest_equal
    losses_squared = rest_equal * (own_below + own / 2) ** 2 + between * (own_below + own) ** 2
    return _separation(
        _Pairs(
            m=m,
            n=n,
            wins=total(own * wins),
            wins_squared=total(own * wins**2),
            losses_squared=total(losses_squared),
            ties=np.full(groups, (every**3 - every).sum()),
        )
    )


def ranks_within(values: Floats, group: Ints) -> Floats:
    """Ranks from 1 on within each group, ties at their mean rank.

    Args:
        values: Finite numbers, n.
        group: Each sample's group, n.

    Returns:
        n ranks.

    Example:
        >>> ranks_within(np.array([3.0, 1.0, 1.0, 7.0]), np.array([0, 0, 0, 1]))
        array([3. , 1.5, 1.5, 1. ])
    """
    _, codes = np.unique(values, return_inverse=True)
    width = codes.max(initial=0) + 1
    place, entry, counts = np.unique(group * width + codes, return_inverse=True, return_counts=True)
    of = (place // width).astype(np.int64)
    each = counts.astype(np.float64)
    below = _below(each, of, int(of.max(initial=0)) + 1)
    ranks: Floats = (below + (each + 1) / 2)[entry]
    return ranks


def _sums(each: Floats, of: NDArray[np.integer], groups: int) -> Floats:
    """The sum of each group."""
    sums: Floats = np.bincount(of, weights=each, minlength=groups).astype(np.float64)
    return sums


def _below(counts: Floats, of: Ints, groups: int) -> Floats:
    """Sum of the counts before each entry in its group; entries are sorted by group."""
    running = np.cumsum(counts) - counts
    first = np.searchsorted(of, np.arange(groups))
    start = np.append(running, counts.sum())[first]
    below: Floats = running - start[of]
    return below


def _separation(pairs: _Pairs) -> Separation:
    m, n, wins, wins_squared, losses_squared, ties = pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        auc = wins / (m * n)
        spread_of_first = (wins_squared / n**2 - m * auc**2) / (m - 1)
        spread_of_second = (losses_squared / m**2 - n * (1 - auc) ** 2) / (n - 1)
        variance = np.maximum(spread_of_first, 0) / m + np.maximum(spread_of_second, 0) / n
        # Away from 0 and 1, where the logit ends.
        inner = (wins + 0.5) / (m * n + 1)
        z_level = ndtri((1 + LEVEL) / 2)
        reach = z_level * np.sqrt(variance) / (inner * (1 - inner))
        low, high = expit(logit(inner) - reach), expit(logit(inner) + reach)
        # Sides that do not overlap have no variance; each of the fewer is one success, or failure.
        fewer = np.minimum(m, n)
        low = np.where(auc == 1, fewer / (fewer + z_level**2), low)
        high = np.where(auc == 0, z_level**2 / (fewer + z_level**2), high)
        both = m + n
        deviation = np.sqrt(m * n / 12 * (both + 1 - ties / (both * (both - 1))))
        z = np.maximum(np.abs(wins - m * n / 2) - 0.5, 0) / deviation
        p = np.minimum(2 * ndtr(-z), 1)
    known = (np.minimum(m, n) >= LEAST_SAMPLES) & (deviation > 0)
    return Separation(
        auc=np.where(known, auc, np.nan),
        low=np.where(known, np.minimum(low, auc), np.nan),
        high=np.where(known, np.maximum(high, auc), np.nan),
        p=np.where(known, p, np.nan),
    )
