"""Does accuracy hang on how much the background speaks for the class?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.tables.power import wilson_interval

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

FOLDS = 5
# The share of a class at either end of the ranking, and the fewest samples there.
END_SHARE = 0.2
LEAST_AT_END = 5


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How accuracy differs between the samples with the most and the least far evidence.

    Attributes:
        gap: Accuracy with the most minus that with the least, in [−1, 1].
        low: Lower end of its 95% interval.
        high: Upper end.
        p: Probability of such a difference by chance, two-sided.
        n: Samples at either end.
    """

    gap: float
    low: float
    high: float
    p: float
    n: int


def channel_weights(far: Floats, features: Floats) -> Doubles:
    """What one unit of a channel's far background supplies to a class.

    ``Σ far·sign(features) / Σ |features|`` over the samples that are explained as the class. Where
    features are not negative, as after a ReLU, that is the ratio of the two sums; the signs keep
    others from cancelling. For a pooled linear head it is the head's weight.

    Args:
        far: Contributions of far background to the class's logit, n×C.
        features: Far-background features, n×C.

    Returns:
        C; 0 for channels that are silent there.

    Example:
        >>> features = np.array([[1.0, 0.0], [3.0, 0.0]], np.float32)
        >>> channel_weights(features * 2, features).tolist()
        [2.0, 0.0]
    """
    size = abs(features).sum(axis=0, dtype=np.float64)
    supplied = (far * np.sign(features)).sum(axis=0, dtype=np.float64)
    return np.divide(supplied, size, out=np.zeros_like(size), where=size > 0)


def crossfitted_evidence(
    features: Floats,
    folds: NDArray[np.int64],
    explained_far: Floats,
    explained_features: Floats,
    explained_folds: NDArray[np.int64],
) -> Doubles:
    """Each sample's far evidence for a class, under weights that other samples gave.

    A prediction that is right because of its background raises the weight of that background; with
    its own help it would then rank among those with much evidence, and accuracy among them would
    come out too high. So a sample's weights are taken from the other folds.

    Args:
        features: Far-background features of the samples to rank, n×C.
        folds: Their folds, n.
        explained_far: What far background supplies to the class, of the samples explained as it,
            m×C.
        explained_features: Their far-background features, m×C.
        explained_folds: Their folds, m.

    Returns:
        Logits, n; NaN where no sample of another fold is explained as the class.

    Example:
        >>> ones = np.ones((2, 1), np.float32)
        >>> folds = np.array([0, 1])
        >>> crossfitted_evidence(ones, folds, ones * [[2], [5]], ones, folds).tolist()
        [5.0, 2.0]
    """
    evidence = np.full(len(features), np.nan)
    for fold in np.unique(folds):
        others = explained_folds != fold
        if others.any():
            weights = channel_weights(explained_far[others], explained_features[others])
            evidence[folds == fold] = features[folds == fold] @ weights
    return evidence


def accuracy_gap(evidence: Doubles, correct: NDArray[np.bool_]) -> Gap | None:
    """Accuracy of the fifth with the most evidence minus that of the fifth with the least.

    Args:
        evidence: n; samples without (NaN) are left out.
        correct: Whether they are predicted as labelled, n.

    Returns:
        The gap with Newcombe's interval and Fisher's exact p; ``None`` for fewer than five samples
        at either end.

    Source:
        Moayeri et al. 2023, "Spuriosity Rankings"; Newcombe 1998, "Interval estimation for the
        difference between independent proportions", method 10.

    Example:
        >>> evidence = np.arange(50.0)
        >>> found = accuracy_gap(evidence, evidence > 20)
        >>> found.gap, found.n, round(found.low, 2), found.p < 0.001
        (1.0, 10, 0.61, True)
    """
    known = ~np.isnan(evidence)
    order = np.argsort(evidence[known], kind="stable")
    ranked = correct[known][order]
    count = int(len(ranked) * END_SHARE)
    if count < LEAST_AT_END:
        return None
    right_most, right_least = int(ranked[-count:].sum()), int(ranked[:count].sum())
    most, least = right_most / count, right_least / count
    most_low, most_high = wilson_interval(most, count)
    least_low, least_high = wilson_interval(least, count)
    gap = most - least
    # scipy.stats takes long to import, and only the end of a run needs it.
    from scipy.stats import fisher_exact

    table = [[right_most, count - right_most], [right_least, count - right_least]]
    return Gap(
        gap=gap,
        low=gap - float(np.hypot(most - most_low, least_high - least)),
        high=gap + float(np.hypot(most_high - most, least - least_low)),
        p=float(fisher_exact(table).pvalue),
        n=count,
    )
