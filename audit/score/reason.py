"""Where a prediction's reason lies: on the object, on the background, on both or on neither."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REASONS = ("object", "background", "both", "neither")


@dataclass(frozen=True, kw_only=True)
class Reasons:
    """What the regions alone point to, beside prediction and label.

    Attributes:
        reason: Positions in :data:`REASONS`, int64, N.
        right_for_wrong_reason: 1, 0 or -1 (undefined), int64, N.
        wrong_because_of_background: Likewise.
        context_driven: Likewise.
    """

    reason: Tensor
    right_for_wrong_reason: Tensor
    wrong_because_of_background: Tensor
    context_driven: Tensor


def find_reasons(
    object_pred: Tensor, background_pred: Tensor, target: Tensor, predicted: Tensor, labels: Tensor
) -> Reasons:
    """Say which regions point to the target, and whether that is as it should be.

    A region points to the class to which it contributes most, over all classes. Where the target
    is the labelled class of a wrong prediction, the reason tells of the label; the flags do not
    depend on the target, for a right prediction is label and target alike.

    Args:
        object_pred: Class with the largest contribution from the object, int64, N.
        background_pred: Likewise from the background.
        target: The class that is explained.
        predicted: The predicted class.
        labels: The labelled class; -1 where unknown.

    Returns:
        The reason (``object`` where the object alone points to the target and the background does
        not, ``background`` the other way round), and three flags: right for the wrong reason
        (correct, and the reason is the background), wrong because of the background (not correct,
        the background points to the predicted class, the object does not), context-driven (the
        background points to the label, the object to another class).

    Source:
        Contributions by region as in Draelos and Carin 2020.

    Example:
        >>> cat, dog = torch.tensor([0]), torch.tensor([1])
        >>> found = find_reasons(cat, dog, target=dog, predicted=dog, labels=dog)
        >>> REASONS[found.reason], found.right_for_wrong_reason.item()
        ('background', 1)
    """
    by_object, by_background = object_pred == target, background_pred == target
    reason = torch.where(
        by_object, torch.where(by_background, 2, 0), torch.where(by_background, 1, 3)
    )
    correct = predicted == labels
    background_only = (background_pred == predicted) & (object_pred != predicted)
    context = (background_pred == labels) & (object_pred != labels)

    def known(flag: Tensor) -> Tensor:
        return torch.where(labels >= 0, flag.long(), -1)

    return Reasons(
        reason=reason,
        right_for_wrong_reason=known(correct & background_only),
        wrong_because_of_background=known(~correct & background_only),
        context_driven=known(context),
    )
