from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.weightstats import ttost_paired

from audit.tables.paired import MOST_EXACT, mcnemar, paired_interval, tost


def outcomes(both: int, lost: int, gained: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, lost, gained]
    return np.repeat([True, True, False], counts), np.repeat([True, False, True], counts)


@pytest.mark.parametrize(("lost", "gained"), [(0, 1), (3, 3), (2, 9), (5, 20)])
def test_few_changes_are_tested_exactly(lost: int, gained: int) -> None:
    assert lost + gained <= MOST_EXACT
    found = mcnemar(*outcomes(50, lost, gained))
    assert (found.lost, found.gained) == (lost, gained)
    expected = statsmodels_mcnemar([[50, lost], [gained, 0]], exact=True).pvalue
    assert found.p == pytest.approx(expected)


@pytest.mark.parametrize(("lost", "gained"), [(10, 16), (30, 30), (200, 260), (5, 90)])
def test_many_changes_are_tested_by_mid_p(lost: int, gained: int) -> None:
    p = mcnemar(*outcomes(9, lost, gained)).p
    exact = statsmodels_mcnemar([[9, lost], [gained, 0]], exact=True).pvalue
    if lost != gained:
        assert p == pytest.approx(
            exact - scipy.stats.binom.pmf(min(lost, gained), lost + gained, 0.5)
        )
    else:
        assert p == pytest.approx(1)
    chi_square = statsmodels_mcnemar([[9, lost], [gained, 0]], exact=False, correction=False).pvalue
    assert p == pytest.approx(chi_square, abs=0.01)


def test_no_change_is_no_evidence() -> None:
    assert mcnemar(*outcomes(5, 0, 0)) == (0, 0, 1)
    assert mcnemar(np.zeros(0, bool), np.zeros(0, bool)).p == 1


@pytest.mark.parametrize("shift", [0.0, 0.015, 0.03, -0.05])
def test_tost_equals_statsmodels(shift: float) -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0.3, 0.2, 120)
    second = first + shift + rng.normal(0, 0.03, 120)
    found = tost(first, second, margin=0.02)
    expected, *_ = ttost_paired(second, first, -0.02, 0.02)
    assert found.p == pytest.approx(expected)
    assert found.equivalent == (expected <= 0.05)
    interval = scipy.stats.ttest_rel(second, first).confidence_interval(0.9)
    np.testing.assert_allclose((found.low, found.high), interval)
    assert found.equivalent == (found.low > -0.02 and found.high < 0.02)


def test_copies_make_nothing_surer() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0.3, 0.2, 30)
    second = first + rng.normal(0, 0.03, 30)
    once = tost(first, second)
    copies = [np.repeat(scores, 4) for scores in (first, second)]
    clusters = np.repeat(np.arange(30), 4)
    assert tost(*copies, clusters=clusters) == pytest.approx(once)
    assert tost(*copies).p < once.p / 2
    rngs = [np.random.default_rng(seed) for seed in (1, 1, 1)]
    low, high = paired_interval(first, second, rngs[0])
    same = paired_interval(*copies, rngs[1], clusters=clusters)
    np.testing.assert_allclose(same, (low, high))
    naive = paired_interval(*copies, rngs[2])
    assert np.ptp(naive) < 0.6 * (high - low)


def test_missing_scores_leave_their_pair_out() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 30))
    gaps = first.copy(), second.copy()
    gaps[0][3] = gaps[1][7] = np.nan
    kept = np.delete(np.arange(30), [3, 7])
    assert tost(*gaps) == tost(first[kept], second[kept])
    assert paired_interval(*gaps, np.random.default_rng(1)) == paired_interval(
        first[kept], second[kept], np.random.default_rng(1)
    )


def test_no_spread_and_too_few() -> None:
    scores = np.zeros(9)
    same = tost(scores, scores)
    assert (same.difference, same.p, same.equivalent) == (0, 0, True)
    assert not tost(scores, scores + 0.5).equivalent
    alone = tost(scores[:1], scores[:1])
    assert not alone.equivalent
    assert np.isnan(alone.p)
    assert np.isnan(tost(scores[:0], scores[:0]).difference)


def test_paired_interval_covers_a_change_that_single_means_hide() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(0, 10, 200)
    second = first + 0.5 + rng.normal(0, 1, 200)
    low, high = paired_interval(first, second, np.random.default_rng(1))
    assert 0 < low < 0.5 < high < 1
    theirs = scipy.stats.bootstrap(
        (second - first,), np.mean, n_resamples=5000, rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose((low, high), theirs, atol=0.05 * (high - low))
