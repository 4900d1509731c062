"""From features and gradients to class activation maps, signed, at grid resolution."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Method = Literal["hirescam", "gradcam", "cam", "channels"]
METHODS: tuple[Method, ...] = ("hirescam", "gradcam", "cam", "channels")


def hirescam(features: Tensor, gradients: Tensor) -> Tensor:
    """Sum over channels of activation times gradient, cell by cell.

    Args:
        features: ``A``, N×C×h×w.
        gradients: ∂z/∂A of the target's logit, N×C×h×w.

    Returns:
        Signed maps, N×h×w. Their sum is the features' contribution to the logit where the head
        is piecewise linear.

    Source:
        Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM", equation 5.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> hirescam(A, torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]]))
        tensor([[[ 1.,  0.],
                 [ 0., -4.]]])
    """
    return torch.einsum("nchw,nchw->nhw", features, gradients)


def gradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Sum over channels of activation times the channel's mean gradient.

    Args:
        features: ``A``, N×C×h×w.
        gradients: ∂z/∂A of the target's logit, N×C×h×w.

    Returns:
        Signed maps, N×h×w.

    Source:
        Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2 before the ReLU.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> gradcam(A, torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]]))
        tensor([[[0.5000, 1.0000],
                 [1.5000, 2.0000]]])
    """
    return torch.einsum("nchw,nc->nhw", features, gradients.mean(dim=(2, 3)))


def cam(features: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Sum over channels of activation times the linear layer's weight.

    Args:
        features: ``A``, N×C×h×w.
        weight: Of the linear layer after global average pooling, K×C.
        target: Class of each map, N.

    Returns:
        Signed maps, N×h×w; their mean is the logit without its bias.

    Source:
        Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", equation 2.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
        >>> cam(A, torch.tensor([[1.0, -1.0]]), torch.tensor([0]))
        tensor([[[-2., -2.]]])
    """
    return torch.einsum("nchw,nc->nhw", features, weight[target])


def top_channels(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The channels with the largest mean activation, and their own maps.

    Args:
        features: ``A``, N×C×h×w.
        count: How many, at most C.

    Returns:
        Channel numbers, int64 N×count, and their maps, N×count×h×w; most active first.

    Example:
        >>> numbers, maps = top_channels(torch.tensor([[[[1.0]], [[5.0]], [[3.0]]]]), 2)
        >>> numbers.tolist(), maps.flatten().tolist()
        ([[1, 2]], [5.0, 3.0])
    """
    numbers = features.mean(dim=(2, 3)).topk(count, dim=1).indices
    chosen = numbers[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return numbers, features.gather(1, chosen)
