"""Sums by key that are added part by part, in memory that the keys bound, not the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Values = NDArray[Any]

# An array of all keys may take so many bytes; with more keys only those that occur are held.
_DENSE_BYTES = 192 * 2**20
# Entries that wait before keys that occur twice become one.
_WAITING = 2_000_000


def sum_by_key(keys: Ids, values: Values) -> tuple[Ids, Values]:
    """One row for each key that occurs.

    Args:
        keys: n.
        values: n×m.

    Returns:
        The keys, ascending, and the sums of their rows, in the order of the rows.

    Example:
        >>> keys, sums = sum_by_key(np.array([3, 1, 3]), np.array([[1.0], [2.0], [4.0]]))
        >>> keys.tolist(), sums.tolist()
        ([1, 3], [[2.0], [5.0]])
    """
    if not len(keys):
        return keys, values
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    return ordered[starts], np.add.reduceat(values[order], starts, axis=0)


class KeyedSums:
    """Sums of m numbers for each of many keys.

    Args:
        size: Keys are below it.
        width: m.
        dtype: Of the sums.
    """

    def __init__(self, size: int, width: int, dtype: type[np.generic] = np.float64) -> None:
        self._size, self._width, self._dtype = size, width, dtype
        dense = size * width * np.dtype(dtype).itemsize <= _DENSE_BYTES
        self._dense = np.zeros((size, width), dtype) if dense else None
        self._waiting: list[tuple[Ids, Values]] = []
        self._entries = 0

    def add(self, keys: Ids, values: Values) -> None:
        """Add one part's sums.

        Args:
            keys: Each at most once, k.
            values: k×m.
        """
        if self._dense is not None:
            self._dense[keys] += values.astype(self._dtype)
            return
        self._waiting.append((keys, values.astype(self._dtype)))
        self._entries += len(keys)
        # As many may wait as there are keys, so that compacting costs no more than adding.
        if self._entries > max(_WAITING, 2 * len(self._waiting[0][0])):
            self._compact()

    def found(self) -> tuple[Ids, Values]:
        """The keys that were added, ascending, and their sums.

        A key whose sums are all 0 may be left out.
        """
        if self._dense is not None:
            keys = np.flatnonzero((self._dense != 0).any(axis=1))
            return keys, self._dense[keys]
        self._compact()
        return self._waiting[0]

    def of(self, keys: Ids) -> Values:
        """The sums of some keys; 0 for keys that were not added."""
        if self._dense is not None:
            return self._dense[keys]
        known, sums = self.found()
        found = np.zeros((len(keys), self._width), self._dtype)
        if len(known):
            place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            there = known[place] == keys
            found[there] = sums[place[there]]
        return found

    def _compact(self) -> None:
        if self._waiting:
            keys, values = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        else:
            keys, values = np.zeros(0, np.int64), np.zeros((0, self._width), self._dtype)
        self._waiting = [sum_by_key(keys, values)]
        self._entries = len(self._waiting[0][0])
