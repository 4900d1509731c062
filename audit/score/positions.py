"""Choices that follow from a sample's position in the split alone."""

from __future__ import annotations

import torch
from torch import Tensor

_RANGE = 2**31


def scramble(index: Tensor) -> Tensor:
    """Spread consecutive positions over [0, 2³¹), the same on every device.

    Args:
        index: Positions, int64, any shape.

    Returns:
        int64, the same shape.

    Example:
        >>> scramble(torch.tensor([0, 1, 2])).tolist()
        [418071105, 662719938, 871651671]
    """
    x = (index * 0x9E3779B1 + 0x7F4A7C15) & 0x7FFFFFFF
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    return x ^ (x >> 12)


def is_kept(index: Tensor, share: float) -> Tensor:
    """Which samples belong to a share of the split, spread over all of it.

    Args:
        index: Positions, int64, N.
        share: In [0, 1].

    Returns:
        bool, N; a smaller share keeps some of those that a larger one keeps.

    Example:
        >>> is_kept(torch.arange(4), 0.4).tolist()
        [True, True, False, False]
    """
    return scramble(index) < share * _RANGE


def of_other_classes(
    index: Tensor, labels: Tensor, *, first: Tensor, count: Tensor, total: int, number: int
) -> Tensor:
    """For each sample, places among items sorted by class that are not of its own class.

    Args:
        index: Positions of the samples in the split, int64, N.
        labels: int64, N; -1 where unknown.
        first: For each class its first item, int64, K.
        count: For each class how many items it has, int64, K.
        total: How many items there are.
        number: P, how many to choose.

    Returns:
        Places among the items, int64, N×P; spread evenly over those of other classes. Meaningless
        (but valid) where the label is unknown or no other class has items.

    Example:
        >>> first, count = torch.tensor([0, 1]), torch.tensor([1, 1])
        >>> of_other_classes(torch.tensor([5, 6]), torch.tensor([0, 1]),
        ...     first=first, count=count, total=2, number=1).tolist()
        [[1], [0]]
    """
    own = labels.clamp_min(0)
    others = (total - count[own]).clamp_min(1)
    step = torch.arange(number, device=index.device)
    place = (scramble(index)[:, None] + step * others[:, None] // number) % others[:, None]
    place = place + count[own][:, None] * (place >= first[own][:, None])
    return place.clamp_max(max(total - 1, 0))
