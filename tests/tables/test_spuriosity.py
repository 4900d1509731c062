from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from statsmodels.stats.proportion import confint_proportions_2indep

from audit.tables.spuriosity import (
    FOLDS,
    accuracy_gap,
    channel_weights,
    crossfitted_evidence,
)


@pytest.mark.parametrize("signed", [False, True])
def test_weights_of_a_linear_head_are_its_weights(signed: bool) -> None:
    """Exactly, even where features of both signs cancel in a plain ratio of sums."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    features = features - features.mean(axis=0) if signed else abs(features)
    weights = rng.normal(size=6).astype(np.float32)
    assert_allclose(channel_weights(features * weights, features), weights, rtol=1e-4)


def test_weights_of_nonnegative_features_keep_the_sum() -> None:
    """Whatever the head does, the class's total over its samples stays what it was."""
    rng = np.random.default_rng(1)
    features = rng.exponential(size=(40, 6)).astype(np.float32)
    far = (features**2 * rng.normal(size=6)).astype(np.float32)
    weights = channel_weights(far, features)
    assert_allclose((features * weights).sum(axis=0), far.sum(axis=0), rtol=1e-4)


def test_each_fold_is_weighed_by_the_others() -> None:
    rng = np.random.default_rng(2)
    features = rng.exponential(size=(30, 4)).astype(np.float32)
    far = (rng.normal(size=(30, 4)) * features).astype(np.float32)
    folds = np.arange(30) % FOLDS
    found = crossfitted_evidence(features[:9], folds[:9], far, features, folds)
    for n in range(9):
        others = [m for m in range(30) if folds[m] != folds[n]]
        weights = far[others].sum(axis=0) / features[others].sum(axis=0)
        assert found[n] == pytest.approx(float(features[n] @ weights), rel=1e-4)


def test_without_samples_in_other_folds_there_is_no_evidence() -> None:
    ones = np.ones((2, 1), np.float32)
    zero = np.zeros(2, np.int64)
    assert np.isnan(crossfitted_evidence(ones, zero, ones, ones, zero)).all()


def test_gap_by_hand() -> None:
    # 50 samples: the ten with the most evidence all right, of the ten with the least four.
    correct = np.zeros(50, bool)
    correct[[0, 1, 2, 3]] = True
    correct[40:] = True
    order = np.random.default_rng(0).permutation(50)
    found = accuracy_gap(np.arange(50.0)[order], correct[order])
    assert found is not None
    assert found.n == 10
    assert found.gap == pytest.approx(0.6)
    low, high = confint_proportions_2indep(10, 10, 4, 10, compare="diff", method="newcomb")
    assert_allclose((found.low, found.high), (low, high), atol=1e-9)
    # Hypergeometric: of 14 right among 20, all ten or at most four in the first ten.
    assert found.p == pytest.approx(2 * 210 / 38760, rel=1e-6)


def test_a_background_that_harms_has_a_negative_gap() -> None:
    found = accuracy_gap(np.arange(100.0), np.arange(100) < 50)
    assert found is not None
    assert (found.gap, found.n) == (-1, 20)
    assert found.high < 0


def test_small_classes_have_no_gap() -> None:
    assert accuracy_gap(np.arange(24.0), np.ones(24, bool)) is None
    assert accuracy_gap(np.zeros(0), np.zeros(0, bool)) is None
    assert accuracy_gap(np.full(100, np.nan), np.ones(100, bool)) is None
    found = accuracy_gap(np.arange(25.0), np.ones(25, bool))
    assert found is not None
    assert (found.gap, found.p) == (0, 1)


def test_weights_from_the_same_samples_see_a_gap_where_there_is_none() -> None:
    """Why folds: each sample is right by a luck of its own, which its own weights remember."""
    crossed, own = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        features = rng.exponential(size=(100, 400)).astype(np.float32)
        far = features * rng.normal(size=features.shape).astype(np.float32)
        correct = far.sum(axis=1) > 0
        folds = rng.permutation(100) % FOLDS
        explained = (far[correct], features[correct])
        same = features @ channel_weights(*explained)
        across = crossfitted_evidence(features, folds, *explained, folds[correct])
        for evidence, gaps in ((across, crossed), (same, own)):
            found = accuracy_gap(evidence, correct)
            assert found is not None
            gaps.append(found.gap)
    error = np.std(crossed) / np.sqrt(len(crossed))
    assert abs(np.mean(crossed)) < 3 * error
    assert np.mean(own) > 3 * error
