from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from audit.tables.bootstrap import bca_interval


@pytest.mark.parametrize("kind", ["normal", "skewed", "rates"])
@pytest.mark.parametrize("count", [20, 300])
def test_equals_scipy(kind: str, count: int) -> None:
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.normal(5, 2, count),
        "skewed": rng.exponential(1, count),
        "rates": rng.integers(0, 5, count) / 4,
    }[kind]
    ours = bca_interval(values, np.random.default_rng(0), resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, rng=np.random.default_rng(1), batch=2000
    ).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose(ours, theirs, atol=0.04 * width)


def test_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(600):
        values = rng.gamma(4, 1, 60)
        low, high = bca_interval(values, rng, resamples=1000)
        covered += low <= 4 <= high
    assert 0.92 < covered / 600 < 0.97


def test_few_or_equal_values() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(bca_interval(np.array([1.0]), rng)).all()
    assert bca_interval(np.ones(9), rng) == (1.0, 1.0)


def test_large_samples_stay_within_memory_and_are_right() -> None:
    values = np.random.default_rng(0).normal(0, 1, 50_000)
    low, high = bca_interval(values, np.random.default_rng(0), resamples=400)
    assert high - low == pytest.approx(2 * 1.96 / 50_000**0.5, rel=0.15)
