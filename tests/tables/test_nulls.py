from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

from audit.tables.nulls import (
    LEAST_TO_SHUFFLE,
    adjusted_p,
    area_null_p,
    mask_shuffle_null,
    shuffle_of_rows,
)

Array = np.ndarray


def test_area_null_equals_the_t_test() -> None:
    values = np.random.default_rng(0).normal(0.1, 1, 40)
    assert area_null_p(values) == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue)


def test_area_null_counts_copies_once() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 40)
    copies, clusters = np.repeat(values, 5), np.repeat(np.arange(40), 5)
    assert area_null_p(copies, clusters) == pytest.approx(area_null_p(values))
    assert area_null_p(copies) < area_null_p(values) / 10


def test_area_null_errs_as_often_as_it_says_for_kappas() -> None:
    # Shares of random maps on objects of many sizes: kappas of mean 0, skewed to the left.
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(2000):
        area = rng.uniform(0.2, 0.6, 40)
        share = rng.beta(5 * area, 5 * (1 - area))
        p_values.append(area_null_p((share - area) / (1 - area)))
    assert 0.04 < np.mean(np.array(p_values) < 0.05) < 0.065


def test_area_null_without_spread_or_values() -> None:
    for values in ([], [0.3], [0.3, 0.3]):
        assert np.isnan(area_null_p(np.array(values)))
    assert np.isnan(area_null_p(np.arange(4.0), np.zeros(4, int)))


def maps_and_masks(size: int, cells: int, follow: float) -> tuple[Array, Array]:
    rng = np.random.default_rng(size)
    masks = np.clip(rng.normal(0.4, 0.5, (size, cells)), 0, 1)
    return follow * masks + rng.exponential(1, (size, cells)) - 0.2, masks


def brute(maps: Array, masks: Array, weights: Array) -> tuple[Array, float, float]:
    shares = np.maximum(maps, 0) * weights
    shares /= shares.sum(axis=1, keepdims=True)
    crossed = shares @ masks.T
    centred = crossed - crossed.mean(0) - crossed.mean(1)[:, None] + crossed.mean()
    size = len(maps)
    return crossed, crossed.mean(), (centred**2).sum() / ((size - 1) * size**2)


@pytest.mark.parametrize(("size", "cells"), [(2, 9), (30, 64), (64, 64), (400, 16)])
def test_both_ways_equal_the_whole_matrix(size: int, cells: int) -> None:
    maps, masks = maps_and_masks(size, cells, 0.3)
    weights = np.random.default_rng(1).uniform(0.5, 1.5, cells)
    found = mask_shuffle_null(maps, masks, weights)
    crossed, mean, variance = brute(maps, masks, weights)
    assert found.observed == pytest.approx(np.trace(crossed) / size)
    assert found.mean == pytest.approx(mean)
    assert found.variance == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("follow", [0.0, 0.2])
@pytest.mark.parametrize("size", [25, 200])
def test_shuffle_null_equals_ten_thousand_permutations(size: int, follow: float) -> None:
    maps, masks = maps_and_masks(size, 64, follow)
    found = mask_shuffle_null(maps, masks)
    crossed, *_ = brute(maps, masks, np.ones(64))
    rng = np.random.default_rng(0)
    dealt = rng.permuted(np.tile(np.arange(size), (10_000, 1)), axis=1)
    drawn = crossed[np.arange(size), dealt].mean(axis=1)
    error = drawn.std() / 100
    assert found.mean == pytest.approx(drawn.mean(), abs=4 * error)
    assert found.variance == pytest.approx(drawn.var(), rel=0.06)
    far = abs(drawn - found.mean) >= abs(found.observed - found.mean)
    assert found.p == pytest.approx(far.mean(), abs=0.02)


def test_shuffle_null_of_all_permutations_by_hand() -> None:
    # S = [[.9, .5], [.2, .6]]: T is .75 as dealt and .35 swapped.
    maps = np.eye(2)
    masks = np.array([[0.9, 0.2], [0.5, 0.6]])
    found = mask_shuffle_null(maps, masks)
    assert (found.observed, found.mean) == (pytest.approx(0.75), pytest.approx(0.55))
    assert found.variance == pytest.approx(0.2**2)
    assert found.z == pytest.approx(1)
    assert np.isnan(found.p), "two samples are no normal distribution"


def test_shuffle_null_errs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    p_values = [
        mask_shuffle_null(rng.exponential(1, (LEAST_TO_SHUFFLE, 16)), rng.uniform(size=(10, 16))).p
        for _ in range(2000)
    ]
    assert 0.035 < np.mean(np.array(p_values) < 0.05) < 0.065


@pytest.mark.parametrize("size", [12, 300])
def test_equal_masks_or_maps_leave_nothing_to_shuffle(size: int) -> None:
    maps, masks = maps_and_masks(size, 64, 0)
    for pair in ((maps, np.tile(masks[:1], (size, 1))), (np.tile(maps[:1], (size, 1)), masks)):
        found = mask_shuffle_null(*pair)
        assert found.variance == 0
        assert np.isnan([found.z, found.p]).all()
        assert found.observed == pytest.approx(found.mean)
    assert np.isnan(mask_shuffle_null(maps[:0], masks[:0])).all()
    assert np.isnan(mask_shuffle_null(maps[:1], masks[:1]).z)


def test_rows_are_read_as_they_are_stored() -> None:
    maps, masks = maps_and_masks(40, 16, 0.4)
    rows = pd.DataFrame(
        {
            "map": [row.astype(np.float16) for row in maps],
            "grid_mask": [row.astype(np.float16) for row in masks],
            "background_share": 0.5,
        }
    )
    expected = mask_shuffle_null(maps, masks)
    found = shuffle_of_rows(rows, np.arange(40))
    assert found == pytest.approx(expected, rel=0.01)

    # Copies, undefined rows and maps that a half float rounds to zero take no part.
    more = pd.concat([rows, rows.iloc[:5], rows.iloc[:3]], ignore_index=True)
    more.at[45, "map"] = None
    more.loc[46, "background_share"] = np.nan
    more.at[47, "map"] = np.zeros(16, np.float16)
    again = shuffle_of_rows(more, np.array([*range(40), *range(5), 90, 91, 92]))
    assert again == pytest.approx(found)

    without = rows.drop(columns="grid_mask")
    assert np.isnan(shuffle_of_rows(without, np.arange(40))).all()
    assert np.isnan(shuffle_of_rows(rows.iloc[:0], np.arange(0))).all()


def test_adjusted_p_equals_statsmodels_and_leaves_out_nan() -> None:
    rng = np.random.default_rng(0)
    p_values = np.concatenate([rng.uniform(size=30), rng.uniform(0, 1e-4, 10), [0.0, 1.0]])
    expected = multipletests(p_values, method="fdr_bh")[1]
    np.testing.assert_allclose(adjusted_p(p_values), expected)
    gaps = np.insert(p_values, [3, 20], np.nan)
    found = adjusted_p(gaps)
    np.testing.assert_allclose(found[np.isfinite(gaps)], expected)
    assert np.isnan(found[np.isnan(gaps)]).all()
    assert np.isnan(adjusted_p(np.full(3, np.nan))).all()
    assert len(adjusted_p(np.array([]))) == 0
