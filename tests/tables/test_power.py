from __future__ import annotations

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.power import NormalIndPower, TTestPower
from statsmodels.stats.proportion import proportion_confint, proportion_effectsize

from audit.tables.power import detectable_mean, detectable_rate, mean_error, wilson_interval


def test_error_of_independent_values_is_the_textbooks() -> None:
    values = np.random.default_rng(0).exponential(1, 50)
    found = mean_error(values)
    assert found.error == pytest.approx(values.std(ddof=1) / 50**0.5)
    assert (found.degrees, found.effective) == (49, pytest.approx(50))
    assert mean_error(values, np.arange(50)[::-1]) == pytest.approx(found)


def test_error_of_clusters_equals_statsmodels() -> None:
    rng = np.random.default_rng(0)
    clusters = rng.permutation(np.repeat(5 * np.arange(30), rng.integers(1, 6, 30)))
    values = rng.normal(size=150)[clusters] + rng.normal(size=len(clusters))
    fitted = OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}
    )
    # statsmodels' other correction, for the number of regressors: (n − 1)/(n − k) is 1 here.
    found = mean_error(values, clusters)
    assert found.error == pytest.approx(float(fitted.bse[0]))
    assert found.degrees == 29
    assert found.effective == pytest.approx(values.var(ddof=1) / found.error**2)


def test_copies_count_once() -> None:
    values = np.random.default_rng(0).normal(size=200)
    once, thrice = mean_error(values), mean_error(np.repeat(values, 3), np.repeat(range(200), 3))
    assert thrice.error == pytest.approx(once.error)
    assert thrice.effective == pytest.approx(200, rel=0.01)


def test_effective_size_is_never_more_than_there_is() -> None:
    # Values that differ within clusters only: their mean is surer than that of independent ones.
    values = np.tile([0.0, 1.0], 20) + np.repeat(np.arange(20), 2) * 1e-3
    assert mean_error(values, np.repeat(np.arange(20), 2)).effective == 40


def test_nothing_one_cluster_and_equal_values() -> None:
    nothing = mean_error(np.array([]))
    assert np.isnan([nothing.mean, nothing.error]).all()
    assert nothing.effective == 0
    one = mean_error(np.array([1.0, 3.0]), np.zeros(2, int))
    assert (one.mean, one.effective) == (2, 1)
    assert np.isnan(one.error)
    assert mean_error(np.ones(6), np.repeat([0, 1], 3)) == (1, 0, 1, 2)


@pytest.mark.parametrize("size", [5, 20, 100, 5000])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_detectable_mean_equals_statsmodels(size: int, power: float) -> None:
    expected = TTestPower().solve_power(nobs=size, alpha=0.05, power=power, alternative="two-sided")
    assert float(detectable_mean(2.5, size, power=power)) == pytest.approx(2.5 * expected, rel=0.01)


@pytest.mark.parametrize("reference", [0.0, 0.05, 0.2, 0.6])
@pytest.mark.parametrize("size", [30, 200, 5000])
def test_detectable_rate_equals_statsmodels(reference: float, size: int) -> None:
    rate = float(detectable_rate(reference, size))
    effect = proportion_effectsize(rate, reference)
    power = NormalIndPower(ddof=0).power(effect, size, 0.05, ratio=0, alternative="two-sided")
    assert power == pytest.approx(0.8, abs=0.001)


def test_what_cannot_be_detected_is_nan() -> None:
    assert np.isnan(detectable_mean(1.0, [0, 1])).all()
    assert np.isnan(detectable_rate([0.2, 0.9], [0, 15])).all()
    assert detectable_rate([0.2, 0.9], 200).shape == (2,)


@pytest.mark.parametrize("right", [0, 1, 17, 40])
def test_wilson_equals_statsmodels(right: int) -> None:
    low, high = wilson_interval(right / 40, 40)
    expected = proportion_confint(right, 40, method="wilson")
    np.testing.assert_allclose((low, high), expected, atol=1e-12)


def test_wilson_of_nothing_is_unknown() -> None:
    low, high = wilson_interval([np.nan, 0.5], [0, 10])
    assert np.isnan([low[0], high[0]]).all()
    assert 0 < low[1] < 0.5 < high[1] < 1
