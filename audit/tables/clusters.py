"""Near-duplicate images: samples whose pictures have the same hash."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ids = NDArray[np.int64]
HASH = "image_hash"
# A hash that more samples share tells of one composition (a conveyor belt, a slide), not of copies.
MOST_COPIES = 20


def find_clusters(samples: pd.DataFrame) -> Ids:
    """Which samples show the same picture.

    Args:
        samples: Rows; with the column ``image_hash`` (integers, null where unknown), or without.

    Returns:
        A number from 0 to G − 1 for each row, by hash; a sample without a hash, or with one that
        more than 20 share, is a cluster of its own.

    Raises:
        TypeError: If the hashes are floats: 64 bits do not fit, and different pictures would look
            the same.

    Example:
        >>> hashes = pd.array([7, None, 7, None], "Int64")
        >>> find_clusters(pd.DataFrame({"image_hash": hashes})).tolist()
        [0, 1, 0, 2]
    """
    count = len(samples)
    if HASH not in samples:
        return np.arange(count)
    column = samples[HASH]
    known = column.notna().to_numpy()
    known = known & (column.map(column.value_counts()).fillna(0) <= MOST_COPIES).to_numpy()
    if column.notna().any() and not pd.api.types.is_integer_dtype(column.dtype):
        raise TypeError(f"{HASH} must be integers or nullable integers, not {column.dtype}")
    found, ids = np.unique(column[known].to_numpy(np.int64), return_inverse=True)
    clusters = np.empty(count, np.int64)
    clusters[known] = ids
    clusters[~known] = len(found) + np.arange(count - known.sum())
    return clusters


@dataclass(frozen=True)
class Duplicates:
    """How many samples repeat others.

    Attributes:
        clusters: Different pictures.
        repeated: Samples beyond the first of each picture.
        conflicting: Pairs of samples with one picture and different labels.
    """

    clusters: int
    repeated: int
    conflicting: int


def count_duplicates(clusters: Ids, labels: pd.Series) -> Duplicates:
    """Count pictures that occur more than once, and those whose labels disagree.

    Args:
        clusters: From :func:`find_clusters`, n.
        labels: Of the same samples, n; null where unknown: those conflict with nothing.

    Returns:
        The counts.

    Example:
        >>> count_duplicates(np.array([0, 0, 0, 1]), pd.Series([3, 3, 5, 3]))
        Duplicates(clusters=2, repeated=2, conflicting=2)
    """
    different = len(np.unique(clusters))
    known = labels.notna().to_numpy()
    of_cluster = np.unique(clusters[known], return_counts=True)[1]
    both = np.stack([clusters[known], labels[known].to_numpy(np.int64)], axis=1)
    of_label = np.unique(both, axis=0, return_counts=True)[1]
    # Pairs within clusters, without the pairs that share the label as well.
    pairs = (of_cluster**2).sum() - (of_label**2).sum()
    return Duplicates(different, len(clusters) - different, int(pairs) // 2)


def find_conflicts(clusters: Ids, labels: pd.Series) -> Ids:
    """One pair of samples for each further label of a picture.

    Args:
        clusters: From :func:`find_clusters`, n.
        labels: Of the same samples, n; null where unknown.

    Returns:
        Positions, p×2: the first sample of the picture, and the first of it with another label.

    Example:
        >>> find_conflicts(np.array([0, 1, 0, 0]), pd.Series([3, 3, 5, 5])).tolist()
        [[0, 2]]
    """
    places = np.flatnonzero(labels.notna().to_numpy())
    both = np.stack([clusters[places], labels.iloc[places].to_numpy(np.int64)], axis=1)
    _, first = np.unique(both, axis=0, return_index=True)
    first = np.sort(first)
    _, which, start = np.unique(both[first, 0], return_index=True, return_inverse=True)
    pairs = places[np.stack([first[which[start]], first], axis=1)]
    return pairs[pairs[:, 0] != pairs[:, 1]]
