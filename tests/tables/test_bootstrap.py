from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import scipy.stats

from audit.tables.bootstrap import bca_interval, bca_intervals, macro_intervals

Array = np.ndarray


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


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_quantiles_equal_scipy(share: float) -> None:
    values = np.random.default_rng(3).exponential(1, 300)

    def quantile(sample: Array, axis: int = -1) -> Array:
        return np.quantile(sample, share, axis=axis)

    ours = bca_intervals(
        values[:, None], np.random.default_rng(0), quantiles=[(0, share)], resamples=20_000
    ).quantiles[0]
    theirs = scipy.stats.bootstrap(
        (values,), quantile, n_resamples=20_000, rng=np.random.default_rng(1), batch=2000
    ).confidence_interval
    np.testing.assert_allclose(ours, theirs, atol=0.05 * (theirs.high - theirs.low))


def slow_bca(
    groups: Sequence[Array], statistic: Callable[[Array], float], draws: Array, level: float
) -> tuple[float, float]:
    """The textbook's formulas over lists of clusters, one resample at a time."""
    observed = statistic(np.concatenate(groups))
    drawn = [np.concatenate([groups[g] for g in row]) for row in draws]
    statistics = np.array([statistic(sample) for sample in drawn if len(sample)])
    near = np.isclose(statistics, observed, rtol=1e-10)
    below = np.sum((statistics < observed) & ~near) + 0.5 * near.sum()
    count = len(statistics)
    bias = scipy.stats.norm.ppf(np.clip(below / count, 1 / (count + 1), count / (count + 1)))
    left_out = [
        statistic(np.concatenate([*groups[:g], *groups[g + 1 :]]))
        for g in range(len(groups))
        if len(groups[g])
    ]
    moved = np.mean(left_out) - np.array(left_out)
    spread = np.sum(moved**2) ** 1.5
    acceleration = np.sum(moved**3) / (6 * spread) if spread > 0 else 0.0
    tails = bias + scipy.stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    places = scipy.stats.norm.cdf(bias + tails / (1 - acceleration * tails))
    low, high = np.quantile(statistics, places)
    return low, high


@pytest.mark.parametrize("most", [1, 4])
def test_clusters_gaps_and_quantiles_equal_the_slow_way(most: int) -> None:
    rng = np.random.default_rng(most)
    # Clusters in no order, numbered with gaps, of one to `most` rows.
    clusters = rng.permutation(np.repeat(7 * np.arange(40), rng.integers(1, most + 1, 40)))
    values = rng.gamma(1, 1, (len(clusters), 3))
    values[:, 1] = np.round(values[:, 1])  # ties
    values[rng.uniform(size=len(values)) < 0.4, 2] = np.nan
    asked = [(column, share) for column in range(3) for share in (0.1, 0.5, 0.9)]
    found = bca_intervals(
        values, np.random.default_rng(5), clusters=clusters, quantiles=asked, resamples=300
    )
    draws = np.random.default_rng(5).integers(0, 40, (300, 40))

    def slow(column: int, statistic: Callable[[Array], float]) -> tuple[float, float]:
        groups = [values[clusters == name, column] for name in np.unique(clusters)]
        return slow_bca([g[np.isfinite(g)] for g in groups], statistic, draws, 0.95)

    for column in range(3):
        np.testing.assert_allclose(found.means[column], slow(column, np.mean), rtol=1e-9)
    for (column, share), ours in zip(asked, found.quantiles, strict=True):
        expected = slow(column, lambda sample, share=share: float(np.quantile(sample, share)))
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def coverage(draw: Callable[[int], Array], truth: float, clusters: Array | None = None) -> float:
    """How many of 4,000 intervals of fresh data hold the truth; 100 share their resamples."""
    rng = np.random.default_rng(1)
    held = [
        ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
        for _ in range(40)
        for ends in [bca_intervals(draw(100), rng, clusters=clusters, resamples=1000).means]
    ]
    return float(np.mean(held))


@pytest.mark.parametrize("kind", ["normal", "exponential", "rate"])
def test_covers_the_mean_as_often_as_it_says(kind: str) -> None:
    data = np.random.default_rng(0)
    draw, truth = {
        "normal": (lambda sets: data.normal(2, 3, (100, sets)), 2.0),
        "exponential": (lambda sets: data.exponential(1, (100, sets)), 1.0),
        "rate": (lambda sets: (data.uniform(size=(200, sets)) < 0.2).astype(float), 0.2),
    }[kind]
    assert 0.93 < coverage(draw, truth) < 0.97


def test_covers_the_mean_of_clusters_where_the_naive_interval_does_not() -> None:
    data = np.random.default_rng(0)
    clusters = np.repeat(np.arange(100), 4)

    def draw(sets: int) -> Array:
        shared = data.normal(size=(100, sets)).repeat(4, axis=0)
        return (shared + data.normal(size=(400, sets))) / 2**0.5

    assert 0.93 < coverage(draw, 0.0, clusters) < 0.97
    assert coverage(draw, 0.0) < 0.85, "it sees two fifths of the variance"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_covers_quantiles(share: float) -> None:
    data, rng = np.random.default_rng(0), np.random.default_rng(1)
    truth = scipy.stats.expon.ppf(share)
    held = []
    for _ in range(20):
        values = data.exponential(1, (200, 50))
        asked = [(column, share) for column in range(50)]
        ends = bca_intervals(values, rng, quantiles=asked, resamples=1000).quantiles
        held.append(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())
    assert 0.92 < np.mean(held) < 0.97


def test_macro_of_one_stratum_is_the_mean_and_strata_count_alike() -> None:
    rng = np.random.default_rng(0)
    values = rng.gamma(2, 1, (200, 2))
    one = macro_intervals(values, np.zeros(200, int), np.random.default_rng(3))
    np.testing.assert_allclose(one, bca_intervals(values, np.random.default_rng(3)).means)

    # A stratum of 1,000 with no spread and one of 50: the interval is half the small one's.
    small = rng.normal(5, 1, 50)
    both = np.concatenate([np.ones(1000), small])[:, None]
    low, high = macro_intervals(both, np.repeat([4, 9], [1000, 50]), np.random.default_rng(0))[0]
    own = bca_interval(small, np.random.default_rng(1))
    np.testing.assert_allclose((low, high), np.add(own, 1) / 2, atol=0.02)


def test_macro_covers_the_mean_of_means() -> None:
    data, rng = np.random.default_rng(0), np.random.default_rng(1)
    strata = np.repeat(np.arange(4), [20, 40, 80, 160])
    truth = np.mean([1, 2, 3, 4])
    held = []
    for _ in range(20):
        values = data.exponential(1 + strata[:, None], (300, 100))
        ends = macro_intervals(values, strata, rng, resamples=1000)
        held.append(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())
    assert 0.92 < np.mean(held) < 0.97


def test_macro_leaves_out_strata_without_a_value() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(3, 1, (60, 2))
    strata = np.repeat([0, 1, 2], 20)
    values[40:, 0] = np.nan
    values[:, 1] = np.nan
    found = macro_intervals(values, strata, np.random.default_rng(2))
    without = macro_intervals(values[:40, :1], strata[:40], np.random.default_rng(2))
    np.testing.assert_allclose(found[0], without[0])
    assert np.isnan(found[1]).all()
    assert np.isnan(macro_intervals(values[:, 1:], strata, rng)).all()


def test_few_or_equal_values() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(bca_interval(np.array([1.0]), rng)).all()
    assert np.isnan(bca_interval(np.array([]), rng)).all()
    assert bca_interval(np.ones(9), rng) == (1.0, 1.0)
    # Sums of these round differently in every resample.
    assert bca_interval(np.full(9, 0.1), rng) == pytest.approx((0.1, 0.1), rel=1e-15)
    # The sums of these round, differently in every resample.
    assert bca_interval(np.full(9, 0.1), rng) == pytest.approx((0.1, 0.1), rel=1e-15)
    # Copies of one image are one value, however many.
    assert np.isnan(bca_interval(np.arange(5.0), rng, clusters=np.zeros(5, int))).all()


def test_columns_with_too_little_say_nothing_and_the_others_stay() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    values[1:, 1] = np.nan
    values[:, 2] = np.nan
    asked = [(0, 0.5), (1, 0.5), (2, 0.5)]
    found = bca_intervals(values, np.random.default_rng(1), quantiles=asked)
    assert np.isfinite(found.means).all(axis=1).tolist() == [True, False, False]
    assert np.isfinite(found.quantiles).all(axis=1).tolist() == [True, False, False]
    alone = bca_intervals(values[:, :1], np.random.default_rng(1), quantiles=asked[:1])
    np.testing.assert_allclose(found.means[0], alone.means[0])


def test_two_values_of_many_are_told_from_none() -> None:
    values = np.full((40, 1), np.nan)
    values[[3, 30]] = [[1.0], [2.0]]
    low, high = bca_intervals(values, np.random.default_rng(0)).means[0]
    assert (low, high) == (1.0, 2.0)


def test_large_samples_stay_within_memory_and_are_right() -> None:
    values = np.random.default_rng(0).normal(0, 1, (50_000, 1))
    found = bca_intervals(values, np.random.default_rng(0), quantiles=[(0, 0.5)], resamples=400)
    expected = 2 * 1.96 / 50_000**0.5
    assert np.ptp(found.means[0]) == pytest.approx(expected, rel=0.15)
    assert np.ptp(found.quantiles[0]) == pytest.approx(expected * (np.pi / 2) ** 0.5, rel=0.15)
