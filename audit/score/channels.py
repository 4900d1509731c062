"""What each channel supplies from each region of the image."""

from __future__ import annotations

import torch
from torch import Tensor

# With less far background than half a cell there is none to speak of.
LEAST_FAR = 0.5


def region_sums(values: Tensor, weights: Tensor) -> Tensor:
    """Sums over the cells of regions, for each channel.

    Args:
        values: N×C×h×w.
        weights: Of the cells in each region, N×R×h×w.

    Returns:
        ``Σ weights·values`` over cells, N×R×C.

    Example:
        >>> values = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])
        >>> region_sums(values, torch.tensor([[[[1.0, 0.5]]]])).tolist()
        [[[2.0, 5.5]]]
    """
    return weights.flatten(2) @ values.flatten(2).transpose(1, 2)


def channel_logits(evidence: Tensor, cell_weights: Tensor) -> Tensor:
    """What each channel contributes to the target from object, near and far.

    Args:
        evidence: From :func:`audit.score.contributions.target_evidence`, N×C×h×w.
        cell_weights: Of the regions object, near and far, 3×N×h×w (more are not read).

    Returns:
        Logits, N×3×C, signed; over the channels they sum to the regions' contributions.

    Source:
        HiResCAM, Draelos and Carin 2020, equation 5, summed over a region instead of channels.

    Example:
        >>> evidence = torch.tensor([[[[1.0, 2.0, 4.0]], [[-1.0, 0.0, 3.0]]]])
        >>> cells = torch.eye(3)[:, None, None]
        >>> channel_logits(evidence, cells)[0].tolist()
        [[1.0, -1.0], [2.0, 0.0], [4.0, 3.0]]
    """
    return region_sums(evidence, cell_weights[:3].transpose(0, 1))


def far_features(features: Tensor, cell_weights: Tensor) -> Tensor:
    """Mean features of the far background.

    Args:
        features: ``A``, N×C×h×w.
        cell_weights: As in :func:`channel_logits`.

    Returns:
        N×C; NaN where the far background has less than half a cell.

    Example:
        >>> cells = torch.tensor([[[[1.0, 0, 0]]], [[[0, 0, 0]]], [[[0, 0.5, 0.5]]]])
        >>> far_features(torch.tensor([[[[9.0, 2.0, 4.0]]]]), cells).tolist()
        [[3.0]]
    """
    far = cell_weights[2]
    amount = far.sum(dim=(1, 2))[:, None]
    sums = region_sums(features, far[:, None])[:, 0]
    return torch.where(amount >= LEAST_FAR, sums / amount, torch.nan)
