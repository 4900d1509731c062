"""Which samples, pictures and groups: choices that follow from a number alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
_RANGE = 2**31
_WORD = 2**64


def scramble(index: Ids) -> Ids:
    """Spread consecutive positions over [0, 2³¹).

    The numbers of :func:`audit.score.positions.scramble`, so that samples whose evidence by channel
    is stored are among those whose rows are kept, or the other way round.

    Args:
        index: Positions, int64, any shape.

    Returns:
        int64, the same shape; different for different positions below 2³¹.

    Example:
        >>> scramble(np.array([0, 1, 2])).tolist()
        [418071105, 662719938, 871651671]
    """
    x = (index * 0x9E3779B1 + 0x7F4A7C15) & 0x7FFFFFFF
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    return np.asarray(x ^ (x >> 12), np.int64)


def is_drawn(index: Ids, share: float) -> NDArray[np.bool_]:
    """Which samples belong to a share of the split, spread over all of it.

    Args:
        index: Positions, int64, N.
        share: In [0, 1].

    Returns:
        bool, N; a smaller share has some of those of a larger one.
    """
    return np.asarray(scramble(index) < share * _RANGE)


def mixed(numbers: Ids, seed: int = 0) -> NDArray[np.uint64]:
    """64 bits that look random, of 64 bits; different for different numbers.

    Args:
        numbers: int64, any shape.
        seed: Gives others.

    Source:
        Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators" (splitmix64).

    Example:
        >>> hex(int(mixed(np.array([0]))[0]))
        '0xe220a8397b1dcdaf'
    """
    start = np.uint64((0x9E3779B97F4A7C15 * (seed + 1)) % _WORD)
    x = numbers.astype(np.uint64) + start
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)


def group_of(pictures: Ids, index: Ids, groups: int, seed: int) -> Ids:
    """The group of each sample; copies of a picture share one.

    Args:
        pictures: Hashes, N; negative where unknown: then the position decides.
        index: Positions, N.
        groups: G.
        seed: Deals otherwise.

    Returns:
        In [0, G), N.
    """
    keys = np.where(pictures < 0, -1 - index, pictures)
    return np.asarray(mixed(keys, seed) % np.uint64(groups), np.int64)


def is_counted(pictures: Ids, share: float) -> NDArray[np.bool_]:
    """Which samples' pictures belong to a share of all pictures; N, ``False`` for negative ones."""
    # Other bits than those that deal groups.
    place = (mixed(pictures) >> np.uint64(32)).astype(np.float64)
    return np.asarray((pictures >= 0) & (place < share * 2**32))


def first_of_each(groups: Ids, order: tuple[NDArray[np.generic], ...], most: Ids) -> Ids:
    """Places of the first few of each group.

    Args:
        groups: Of each entry, N.
        order: What sorts within a group, the most important first, each N and ascending.
        most: How many may stay of the group of each entry, N.

    Returns:
        Places among the entries, by group and order.

    Example:
        >>> groups, key = np.array([1, 0, 1, 1]), np.array([3, 1, 2, 1])
        >>> first_of_each(groups, (key,), np.full(4, 2)).tolist()
        [1, 3, 2]
    """
    by_group = np.lexsort((*order[::-1], groups))
    sorted_groups = groups[by_group]
    starts = np.flatnonzero(np.diff(sorted_groups, prepend=sorted_groups[:1] - 1))
    lengths = np.diff(np.append(starts, len(groups)))
    rank = np.arange(len(groups)) - np.repeat(starts, lengths)
    return np.asarray(by_group[rank < most[by_group]], np.int64)
