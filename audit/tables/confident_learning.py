"""Confident learning (cleanlab) on the few probabilities that rows keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.int64]

# Probabilities held at a time, 32 MB; cleanlab makes a few copies of them.
_CELLS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Labels and what a model said of them, all of N samples.

    Attributes:
        labels: In [0, K), N.
        label_probability: Of the labelled class, in [0, 1], N.
        top_classes: Most probable classes, most probable first, N×T.
        top_probabilities: Theirs, in [0, 1], N×T.
        classes: K.
    """

    labels: Classes
    label_probability: Floats
    top_classes: Classes
    top_probabilities: Floats
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, begin: int, end: int) -> Predictions:
        """Those from one position to before another."""
        return Predictions(
            labels=self.labels[begin:end],
            label_probability=self.label_probability[begin:end],
            top_classes=self.top_classes[begin:end],
            top_probabilities=self.top_probabilities[begin:end],
            classes=self.classes,
        )


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What cleanlab says of labels.

    Attributes:
        scores: Self-confidence in [0, 1], low = more likely wrong, N.
        is_issue: Which labels it calls wrong, N.
        thresholds: From which probability on a class is predicted confidently: its mean
            probability over the samples labelled so, K; infinite for a class without any.
    """

    scores: Floats
    is_issue: NDArray[np.bool_]
    thresholds: Floats


def spread_probabilities(predictions: Predictions) -> Floats:
    """All probabilities, from the largest ones and the label's.

    What is known stays as it is; the rest of the mass is spread evenly over the other classes.
    That is exact as long as at most one class is not known: for up to six classes where five are
    kept. The most probable class and the label's probability are exact for any number of classes.

    Args:
        predictions: Of N samples.

    Returns:
        N×K; rows sum to 1 up to rounding.

    Example:
        >>> spread_probabilities(Predictions(
        ...     labels=np.array([3]), label_probability=np.array([0.1]),
        ...     top_classes=np.array([[1]]), top_probabilities=np.array([[0.7]]), classes=4,
        ... )).round(2).tolist()
        [[0.1, 0.7, 0.1, 0.1]]
    """
    known = np.full((len(predictions), predictions.classes), np.nan)
    np.put_along_axis(known, predictions.top_classes, predictions.top_probabilities, axis=1)
    known[np.arange(len(predictions)), predictions.labels] = predictions.label_probability
    unknown = np.isnan(known)
    rest = np.maximum(1 - np.nansum(known, axis=1), 0) / np.maximum(unknown.sum(axis=1), 1)
    return np.where(unknown, rest[:, None], known)


def inspect_labels(predictions: Predictions) -> Inspection:
    """Which labels confident learning calls wrong.

    The number of wrong labels is that of the samples for which a class other than the label is
    predicted confidently; that many with the lowest self-confidence are called wrong, except where
    label and prediction agree. It needs the most probable class and the label's probability of
    each sample, so that the spread of the others (:func:`spread_probabilities`) changes nothing.

    Args:
        predictions: Of N samples, made by a model that was not trained on them.

    Returns:
        Scores and issues in the samples' order.

    Source:
        Northcutt et al. 2021, "Confident Learning", section 3; cleanlab's ``LabelInspector``.
    """
    # sklearn behind it takes most of a second; only the end of a run needs it.
    from cleanlab.experimental.label_issues_batched import LabelInspector

    counts = np.bincount(predictions.labels, minlength=predictions.classes)
    # cleanlab would count every prediction of a class without samples as confident.
    present = np.flatnonzero(counts)
    place = np.cumsum(counts > 0) - 1
    thresholds = np.full(predictions.classes, np.inf)
    if not len(present):
        return Inspection(scores=np.empty(0), is_issue=np.empty(0, bool), thresholds=thresholds)
    inspector = LabelInspector(num_class=len(present), store_results=False, verbose=False, n_jobs=1)
    for part in _batches(predictions):
        inspector.update_confident_thresholds(
            place[part.labels], spread_probabilities(part)[:, present]
        )
    scores = np.concatenate(
        [
            inspector.score_label_quality(
                place[part.labels], spread_probabilities(part)[:, present]
            )
            for part in _batches(predictions)
        ]
    )
    thresholds[present] = inspector.get_confident_thresholds()
    is_issue = np.zeros(len(predictions), bool)
    is_issue[np.argsort(scores, kind="stable")[: inspector.get_num_issues()]] = True
    is_issue &= predictions.top_classes[:, 0] != predictions.labels
    return Inspection(scores=scores, is_issue=is_issue, thresholds=thresholds)


def _batches(predictions: Predictions) -> Iterator[Predictions]:
    at_once = max(1, _CELLS // predictions.classes)
    for begin in range(0, len(predictions), at_once):
        yield predictions.part(begin, begin + at_once)
