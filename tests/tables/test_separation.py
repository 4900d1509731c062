from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu, norm, rankdata
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from audit.tables.separation import (
    LEAST_SAMPLES,
    Separation,
    ranks_within,
    separate_from_rest,
    separate_within,
)

Floats = np.ndarray


def delong(first: Floats, second: Floats) -> tuple[float, float, float]:
    """AUC and interval from all pairs."""
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    auc = wins.mean()
    variance = wins.mean(axis=1).var(ddof=1) / len(first) + wins.mean(axis=0).var(ddof=1) / len(
        second
    )
    inner = (wins.sum() + 0.5) / (wins.size + 1)
    reach = norm.ppf(0.975) * np.sqrt(variance) / (inner * (1 - inner))
    return auc, float(expit(logit(inner) - reach)), float(expit(logit(inner) + reach))


def assert_equal(found: Separation, place: int, first: Floats, second: Floats) -> None:
    auc, low, high = delong(first, second)
    assert found.auc[place] == pytest.approx(auc, abs=1e-12)
    side = np.repeat([1, 0], [len(first), len(second)])
    assert auc == pytest.approx(roc_auc_score(side, np.concatenate([first, second])), abs=1e-12)
    assert found.low[place] == pytest.approx(low, abs=1e-9)
    assert found.high[place] == pytest.approx(high, abs=1e-9)
    expected = mannwhitneyu(first, second, method="asymptotic").pvalue
    assert found.p[place] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_all_groups_equal_scipy_sklearn_and_all_pairs(digits: int) -> None:
    rng = np.random.default_rng(digits)
    group = rng.choice(6, 500, p=[0.4, 0.2, 0.2, 0.1, 0.1, 0])
    values = np.round(rng.normal(size=500) + 0.3 * group, digits)  # with ties
    first = rng.random(500) < expit(values - 1)
    rest, within = separate_from_rest(values, group, 6), separate_within(values, first, group, 6)
    for k in range(5):
        assert_equal(rest, k, values[group == k], values[group != k])
        own = group == k
        assert_equal(within, k, values[own & first], values[own & ~first])
    for found in (rest, within):
        assert np.isnan([found.auc[5], found.low[5], found.high[5], found.p[5]]).all()


def test_by_hand() -> None:
    # Of a hundred pairs the first is larger in 10 + 9 + … + 1 = 55, and nine are tied.
    values = np.concatenate([np.arange(10) + 1.0, np.arange(10.0)])
    found = separate_within(values, np.arange(20) < 10, np.zeros(20, np.int64), 1)
    assert found.auc[0] == pytest.approx((55 + 9 / 2) / 100)


def test_few_samples_and_equal_values_say_nothing() -> None:
    few = np.arange(30) < LEAST_SAMPLES - 1
    nothing = np.zeros(30, np.int64)
    assert np.isnan(separate_within(np.arange(30.0), few, nothing, 1).auc).all()
    half = np.arange(30) < 15
    same = separate_within(np.ones(30), half, nothing, 1)
    assert np.isnan([same.auc, same.low, same.high, same.p]).all()
    assert np.isnan(separate_from_rest(np.ones(30), half.astype(np.int64), 2).auc).all()
    assert np.isnan(separate_from_rest(np.arange(30.0), nothing, 1).auc).all(), "there is no rest"
    none = np.zeros(0)
    assert np.isnan(separate_within(none, none > 0, none.astype(np.int64), 2).auc).all()
    assert np.isnan(separate_from_rest(none, none.astype(np.int64), 2).auc).all()


def test_sides_that_do_not_overlap_have_an_interval() -> None:
    values, first = np.arange(40.0), np.arange(40) >= 20
    found = separate_within(values, first, np.zeros(40, np.int64), 1)
    assert found.auc[0] == found.high[0] == 1
    assert found.low[0] == pytest.approx(proportion_confint(20, 20, method="wilson")[0])
    found = separate_within(values, ~first, np.zeros(40, np.int64), 1)
    assert found.auc[0] == found.low[0] == 0
    assert found.high[0] == pytest.approx(proportion_confint(0, 20, method="wilson")[1])


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (1.0, 1.0), (0.7, 3.0), (1.8, 0.5)])
def test_the_interval_covers(shift: float, spread: float) -> None:
    rng = np.random.default_rng(1)
    trials, m, n = 2000, 30, 120
    values = np.concatenate(
        [rng.normal(shift, spread, (trials, m)), rng.normal(size=(trials, n))], axis=1
    )
    group = np.repeat(np.arange(trials), m + n)
    first = np.tile(np.arange(m + n) < m, trials)
    found = separate_within(values.ravel(), first, group, trials)
    true = norm.cdf(shift / np.hypot(spread, 1))
    covered = ((found.low <= true) & (true <= found.high)).mean()
    assert 0.93 <= covered <= 0.975


def test_ranks_are_those_of_scipy_in_each_group() -> None:
    rng = np.random.default_rng(2)
    values, group = np.round(rng.normal(size=200), 1), rng.integers(0, 4, 200)
    found = ranks_within(values, group)
    for k in range(4):
        assert found[group == k].tolist() == rankdata(values[group == k]).tolist()
