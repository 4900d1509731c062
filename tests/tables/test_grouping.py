from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score

from audit.tables.grouping import (
    LEAST_POINTS,
    MOST_POINTS,
    find_groups,
    nearest_centre,
    principal,
    silhouette,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def blobs(draw: np.random.Generator, sizes: list[int], apart: float, channels: int = 30):
    truth = np.repeat(np.arange(len(sizes)), sizes)
    points = draw.normal(size=(len(truth), channels))
    points += apart * np.eye(channels)[truth]
    order = draw.permutation(len(truth))
    return points[order].astype(np.float32), truth[order]


def test_silhouette_as_scikit_learn_has_it() -> None:
    points = rng().normal(size=(60, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    for of in (rng(1).integers(0, 4, 60), np.array([0] * 59 + [1])):
        wanted = silhouette_score(distances, of, metric="precomputed")
        assert silhouette(distances, of) == pytest.approx(wanted, abs=1e-12)


def test_silhouette_of_points_that_are_all_the_same_is_0() -> None:
    assert silhouette(np.zeros((4, 4)), np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (12, 12)])
def test_principal_components_as_scikit_learn_has_them(shape: tuple[int, int]) -> None:
    points = rng().normal(size=shape).astype(np.float32) + 5
    found = principal(points, 4)
    wanted = PCA(4, svd_solver="full").fit_transform(points)
    assert_allclose(abs(found), abs(wanted), atol=1e-4)
    # The largest value of every component is positive, whichever way the machine solves it.
    assert (found[abs(found).argmax(axis=0), np.arange(4)] > 0).all()


@pytest.mark.parametrize("sizes", [[60, 60], [120, 30], [40, 50, 60], [30] * 6])
def test_groups_that_are_there_are_found(sizes: list[int]) -> None:
    points, truth = blobs(rng(), sizes, apart=9.0)
    groups = find_groups(points, rng(1))
    assert groups.count == len(sizes)
    assert adjusted_rand_score(truth, groups.of) > 0.98
    assert groups.of[0] == 0, "numbered by first point"
    assert 0.1 < groups.silhouette < 1


@pytest.mark.parametrize("count", [25, 100, 600])
def test_one_cloud_is_one_group(count: int) -> None:
    """Round or long: at most one in twenty is split, though a long cloud's halves look apart."""
    long = 0.6 ** np.arange(20) * 10
    split = sum(
        find_groups((rng(seed).normal(size=(count, 20)) * spread).astype(np.float32), rng(seed))
        .count > 1
        for seed in range(20)
        for spread in (1, long)
    )  # fmt: skip
    assert split <= 2


def test_a_handful_of_strangers_is_no_group() -> None:
    points, truth = blobs(rng(), [200, LEAST_POINTS - 1], apart=30.0)
    assert find_groups(points, rng(1)).count == 1
    points, truth = blobs(rng(), [100, 100, LEAST_POINTS - 3], apart=15.0)
    groups = find_groups(points, rng(1))
    assert groups.count == 2
    known = truth < 2
    assert adjusted_rand_score(truth[known], groups.of[known]) > 0.98


def test_many_points_join_the_nearest_group() -> None:
    points, truth = blobs(rng(), [MOST_POINTS, MOST_POINTS // 2, 600], apart=12.0, channels=5)
    groups = find_groups(points, rng(1))
    assert groups.count == 3
    assert len(groups.of) == len(points)
    assert adjusted_rand_score(truth, groups.of) > 0.99


@pytest.mark.parametrize("points", [
    np.zeros((0, 4)), np.zeros((1, 4)), np.zeros((50, 4)), np.ones((50, 1)), np.eye(19),
    np.full((30, 2), 1e-30),
])  # fmt: skip
def test_too_little_to_tell_is_one_group(points: np.ndarray) -> None:
    groups = find_groups(points.astype(np.float32), rng())
    assert groups.of.tolist() == [0] * len(points)
    assert np.isnan(groups.silhouette)


def test_two_values_are_two_groups() -> None:
    points = np.repeat([[0.0, 0.0], [1.0, 0.0]], 20, axis=0).astype(np.float32)
    groups = find_groups(points, rng())
    assert groups.of.tolist() == [0] * 20 + [1] * 20
    assert groups.silhouette == pytest.approx(1)


def test_the_same_points_give_the_same_groups() -> None:
    points, _ = blobs(rng(), [80, 80, 80], apart=5.0)
    first, again = find_groups(points, rng(3)), find_groups(points, rng(3))
    assert first.of.tolist() == again.of.tolist()
    assert first.silhouette == again.silhouette


def test_nearest_centre_by_hand() -> None:
    middle = np.array([[0.0, 0.0], [10.0, 0.0]], np.float32)
    points = np.array([[4.0, 0.0], [6.0, 0.0], [5.0, 0.0]], np.float32)
    assert nearest_centre(points, middle).tolist() == [0, 1, 0]
