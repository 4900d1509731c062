"""What the classifier says, whatever the reason."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Softmax probabilities and what follows from them, N each.

    Attributes:
        predicted: The class with the largest logit, int64.
        confidence: Its probability.
        label_probability: The labelled class's; NaN where the label is unknown.
        margin: The largest probability minus the second; NaN with a single class.
        top_classes: The up to five most probable classes, int64 N×k, most probable first.
        top_probabilities: Theirs, N×k.
    """

    predicted: Tensor
    confidence: Tensor
    label_probability: Tensor
    margin: Tensor
    top_classes: Tensor
    top_probabilities: Tensor


def predict(logits: Tensor, labels: Tensor) -> Prediction:
    """Read the logits.

    Args:
        logits: N×K.
        labels: int64, N; -1 where unknown.

    Returns:
        The prediction.

    Example:
        >>> p = predict(torch.tensor([[0.0, 0.0, -torch.inf]]), torch.tensor([1]))
        >>> p.confidence.item(), p.margin.item(), p.label_probability.item()
        (0.5, 0.0, 0.5)
    """
    probabilities = torch.softmax(logits, dim=1)
    top = probabilities.topk(min(5, logits.shape[1]), dim=1)
    label = probabilities.gather(1, labels.clamp_min(0)[:, None])[:, 0]
    second = top.values[:, 1] if logits.shape[1] > 1 else torch.full_like(label, torch.nan)
    predicted = logits.argmax(dim=1)
    return Prediction(
        predicted=predicted,
        confidence=probabilities.gather(1, predicted[:, None])[:, 0],
        label_probability=torch.where(labels >= 0, label, torch.nan),
        margin=top.values[:, 0] - second,
        top_classes=top.indices,
        top_probabilities=top.values,
    )
