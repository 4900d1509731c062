"""Intervals from sums of groups."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from audit.tables.bootstrap import bca_interval
from audit.tables.scale.jackknife import grouped_means, macro_mean
from audit.tables.scale.sampling import group_of


def cells(
    values: NDArray[np.float64], groups: NDArray[np.int64], number: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    counts = np.bincount(groups, minlength=number).astype(np.float64)
    return counts, np.bincount(groups, values, number).astype(np.float64)


def test_equals_leaving_out_each_group_by_hand() -> None:
    rng = np.random.default_rng(0)
    values, groups = rng.normal(3, 1, 400), rng.integers(0, 20, 400)
    found = grouped_means(*cells(values, groups, 20))
    left = np.array([values[groups != group].mean() for group in range(20)])
    error = np.sqrt(19 / 20 * ((left - values.mean()) ** 2).sum())
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    assert found.error == pytest.approx(error, rel=1e-9)
    assert found.degrees == 19
    assert found.ends()[1] - values.mean() == pytest.approx(2.0930 * error, rel=1e-4)


def test_says_nothing_of_few_groups_or_of_one_that_holds_most() -> None:
    few = np.r_[np.ones(15), np.zeros(17)]
    assert np.isnan(grouped_means(few, few * np.arange(32)).error)
    one = np.ones(32)
    one[4] = 12
    assert np.isnan(grouped_means(one, np.arange(32.0)).error)
    assert np.isnan(grouped_means(np.zeros(32), np.zeros(32)).mean)


def test_equal_values_have_no_error() -> None:
    counts = np.arange(1.0, 33)
    found = grouped_means(counts, counts * 0.1)
    assert found.error == 0
    assert found.ends() == pytest.approx([0.1, 0.1])


def test_macro_mean_weighs_classes_equally() -> None:
    rng = np.random.default_rng(1)
    classes = [rng.normal(mean, 1, size) for mean, size in ((0, 3000), (10, 300))]
    both = [cells(v, rng.integers(0, 32, len(v)), 32) for v in classes]
    counts, sums = (np.stack(each) for each in zip(*both, strict=True))
    nothing = np.zeros((1, 32))
    found = macro_mean(np.concatenate([counts, nothing]), np.concatenate([sums, nothing]))
    assert found.mean == pytest.approx(np.mean([v.mean() for v in classes]))
    error = np.sqrt(sum(v.var(ddof=1) / len(v) for v in classes)) / 2
    assert found.error == pytest.approx(error, rel=0.5)


@pytest.mark.parametrize("kind", ["normal", "rare hits", "skewed"])
def test_intervals_cover_as_often_as_they_say(kind: str) -> None:
    rng = np.random.default_rng(2)
    size, groups, runs = 3000, 64, 500
    # Every fifth picture is there twice.
    pictures = np.minimum(np.arange(size), np.arange(size) - (np.arange(size) % 5 == 1))
    dealt = group_of(pictures, np.arange(size), groups, 0)
    draw = {
        "normal": lambda n: rng.normal(1, 2, n),
        "rare hits": lambda n: np.less(rng.random(n), 0.05).astype(np.float64),
        "skewed": lambda n: rng.exponential(1, n),
    }[kind]
    truth = {"normal": 1.0, "rare hits": 0.05, "skewed": 1.0}[kind]
    covered = 0
    for _ in range(runs):
        values = draw(size)[pictures]
        low, high = grouped_means(*cells(values, dealt, groups)).ends()
        covered += bool(low <= truth <= high)
    # Four standard deviations of 500 runs at 95%.
    assert abs(covered / runs - 0.95) < 0.04


def test_agrees_with_the_exact_bootstrap() -> None:
    rng = np.random.default_rng(3)
    values = rng.beta(2, 5, 4000)
    low, high = bca_interval(values, rng)
    dealt = group_of(np.full(4000, -1), np.arange(4000), 128, 0)
    ends = grouped_means(*cells(values, dealt, 128)).ends()
    assert ends == pytest.approx([low, high], abs=0.15 * (high - low))
