from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from audit.tables.clusters import count_duplicates, find_clusters, find_conflicts


def test_equal_hashes_are_one_cluster_and_unknown_ones_stand_alone() -> None:
    hashes = pd.array([5, -3, None, 5, None, -3, 2**62, 2**62 + 1], "Int64")
    found = find_clusters(pd.DataFrame({"image_hash": hashes}))
    assert sorted(set(found)) == list(range(6))
    groups = [set(np.flatnonzero(found == name)) for name in range(6)]
    assert sorted(map(sorted, groups)) == [[0, 3], [1, 5], [2], [4], [6], [7]]


def test_a_run_without_hashes_has_no_duplicates() -> None:
    assert find_clusters(pd.DataFrame({"label": [1, 1]})).tolist() == [0, 1]
    empty = pd.DataFrame({"image_hash": pd.array([None, None], "Int64")})
    assert find_clusters(empty).tolist() == [0, 1]
    assert find_clusters(pd.DataFrame({"image_hash": [np.nan, np.nan]})).tolist() == [0, 1]
    assert len(find_clusters(empty.iloc[:0])) == 0


def test_floats_are_refused_as_they_round() -> None:
    hashes = np.array([2**62, 2**62 + 1, 0]).astype(float)
    with pytest.raises(TypeError, match="float64"):
        find_clusters(pd.DataFrame({"image_hash": hashes}))


def test_counts_and_conflicts_equal_all_pairs() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.integers(0, 30, 100)
    labels = pd.Series(pd.array(rng.integers(0, 3, 100), "Int32"))
    labels[::7] = None
    found = count_duplicates(clusters, labels)
    different = [
        (a, b)
        for a, b in combinations(range(100), 2)
        if clusters[a] == clusters[b]
        and pd.notna(labels[a])
        and pd.notna(labels[b])
        and labels[a] != labels[b]
    ]
    assert found.clusters == len(set(clusters))
    assert found.repeated == 100 - found.clusters
    assert found.conflicting == len(different) > 50

    pairs = [tuple(pair) for pair in find_conflicts(clusters, labels)]
    assert set(pairs) <= set(different)
    # One for each further label of a cluster.
    known = labels.notna().to_numpy()
    kinds = pd.DataFrame({"cluster": clusters[known], "label": labels[known].astype(int)})
    assert len(pairs) == int((kinds.groupby("cluster")["label"].nunique() - 1).sum())


def test_no_conflicts() -> None:
    labels = pd.Series(pd.array([1, 1, None], "Int32"))
    clusters = np.array([0, 0, 0])
    assert count_duplicates(clusters, labels).conflicting == 0
    assert find_conflicts(clusters, labels).shape == (0, 2)
    nothing = labels.iloc[:0]
    assert find_conflicts(clusters[:0], nothing).shape == (0, 2)
    assert count_duplicates(clusters[:0], nothing).clusters == 0


def test_a_hash_of_very_many_tells_of_like_compositions() -> None:
    shared = pd.DataFrame({"image_hash": pd.array([7] * 20 + [8] * 21, "Int64")})
    found = find_clusters(shared)
    assert len(set(found[:20])) == 1
    assert len(set(found[20:])) == 21
