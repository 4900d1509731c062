"""From features and gradients to class activation maps, signed, at grid resolution."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Method = Literal[
    "hirescam",
    "gradcam",
    "cam",
    "gradcam++",
    "xgradcam",
    "layercam",
    "eigencam",
    "scorecam",
    "ablationcam",
    "channels",
]
METHODS: tuple[Method, ...] = get_args(Method)

# Below this correlation, a component's sign says nothing about the mean activation; values this
# close, relative to the peak, are equally high. float64 leaves about 1e-15.
_TIED = 1e-9


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
    return weighted(features, weight[target][:, None])[:, 0]


def weighted(features: Tensor, weights: Tensor) -> Tensor:
    """Sums over channels, for several weights of each channel at once.

    Args:
        features: ``A``, N×C×h×w.
        weights: N×T×C.

    Returns:
        N×T×h×w.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
        >>> weighted(A, torch.tensor([[[1.0, 0.0], [1.0, -1.0]]])).tolist()
        [[[[1.0, 2.0]], [[-2.0, -2.0]]]]
    """
    # A view, whichever way features lie in memory.
    cells = features.permute(0, 2, 3, 1).flatten(1, 2)
    return (weights @ cells.mT).unflatten(2, features.shape[2:])


def gradcam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    """Sum over channels of activation times the channel's weighted positive gradients.

    Each cell's positive gradient counts with ``α = g² / (2g² + ΣA·g³) = 1 / (2 + ΣA·g)``, where
    ``ΣA`` sums the channel over its cells. The closed form has no stabilising constant, so that a
    gradient weighs the same however small it is. Where activations may be negative, so may the
    denominator, and weights may be of any size or sign.

    Args:
        features: ``A``, N×C×h×w.
        gradients: ``g``, ∂z/∂A of the target's logit, N×C×h×w.

    Returns:
        Signed maps, N×h×w. A cell whose denominator is 0 adds nothing.

    Source:
        Chattopadhyay et al. 2018, "Grad-CAM++", equations 7 and 19 before the ReLU; the factor
        exp(z), common to all gradients, is left out.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> gradcam_plus_plus(A, torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]])) * 12
        tensor([[[1., 2.],
                 [3., 4.]]])
    """
    denominator = 2 + features.sum(dim=(2, 3), keepdim=True) * gradients
    weight = _ratio_or_zero(gradients.relu(), denominator).sum(dim=(2, 3))
    return torch.einsum("nchw,nc->nhw", features, weight)


def xgradcam(features: Tensor, gradients: Tensor) -> Tensor:
    """Sum over channels of activation times the activation-weighted mean of the gradient.

    Args:
        features: ``A``, N×C×h×w.
        gradients: ``g``, ∂z/∂A of the target's logit, N×C×h×w.

    Returns:
        Signed maps, N×h×w; over the cells they sum to what :func:`hirescam` sums to, but for
        channels whose activations cancel (``ΣA = 0``), which add nothing.

    Source:
        Fu et al. 2020, "Axiom-based Grad-CAM", the weights of section 3, before the ReLU.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> xgradcam(A, torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]]))
        tensor([[[0.5000, 1.0000],
                 [1.5000, 2.0000]]])
    """
    weighted = torch.einsum("nchw,nchw->nc", gradients, features)
    weight = _ratio_or_zero(weighted, features.sum(dim=(2, 3)))
    return torch.einsum("nchw,nc->nhw", features, weight)


def layercam(features: Tensor, gradients: Tensor) -> Tensor:
    """Sum over channels of activation times positive gradient, cell by cell.

    Args:
        features: ``A``, N×C×h×w.
        gradients: ∂z/∂A of the target's logit, N×C×h×w.

    Returns:
        Signed maps, N×h×w; nowhere negative if no activation is.

    Source:
        Jiang et al. 2021, "LayerCAM", the pixel-wise weights of section III, before the ReLU.

    Example:
        >>> A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> layercam(A, torch.tensor([[[[1.0, 0.0], [0.0, -1.0]]]]))
        tensor([[[1., 0.],
                 [0., 0.]]])
    """
    return torch.einsum("nchw,nchw->nhw", features, gradients.relu())


def eigencam(features: Tensor) -> Tensor:
    """Projection of each cell's activations on the first principal component over the cells.

    The same map for every class. A principal component has no sign of its own; here the map
    correlates positively with the mean activation over channels. Where that correlation is 0,
    the highest cell in magnitude is positive, the first in row order among equals. If the two
    largest components explain equally much, the component itself is arbitrary.

    Args:
        features: ``A``, N×C×h×w.

    Returns:
        Signed maps, float32, N×h×w, each of sum 0; 0 where all cells are alike, NaN for an image
        whose features are not all finite.

    Source:
        Muhammad and Yeasin 2020, "Eigen-CAM", with the channels centred over the cells first.

    Example:
        >>> eigencam(torch.tensor([[[[1.0, 5.0]], [[2.0, 5.0]]]]))
        tensor([[[-2.5000,  2.5000]]])
    """
    flat = features.double().flatten(2)
    centred = flat - flat.mean(dim=2, keepdim=True)
    finite = centred.isfinite().flatten(1).all(dim=1)
    # The decomposition refuses a whole batch for one image that is not finite.
    centred = torch.where(finite[:, None, None], centred, 0.0)
    maps = _first_component(centred)
    maps = maps * _sign(maps, centred.mean(dim=1))[:, None]
    maps = torch.where(finite[:, None], maps, torch.nan)
    return maps.unflatten(1, features.shape[2:]).float()


def top_channels(
    features: Tensor, count: int, activity: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The channels with the largest mean activation, and their own maps.

    Args:
        features: ``A``, N×C×h×w.
        count: How many, at most C.
        activity: The mean of each channel, or its sum, N×C; computed where it is not given.

    Returns:
        Channel numbers, int64 N×count, and their maps, N×count×h×w; most active first.

    Example:
        >>> numbers, maps = top_channels(torch.tensor([[[[1.0]], [[5.0]], [[3.0]]]]), 2)
        >>> numbers.tolist(), maps.flatten().tolist()
        ([[1, 2]], [5.0, 3.0])
    """
    activity = features.mean(dim=(2, 3)) if activity is None else activity
    numbers = activity.topk(count, dim=1).indices
    chosen = numbers[:, :, None, None].expand(-1, -1, *features.shape[2:])
    return numbers, features.gather(1, chosen)


def _first_component(centred: Tensor) -> Tensor:
    """Scores of the first principal component, N×cells, of N×channels×cells; of either sign."""
    channels, cells = centred.shape[1:]
    if cells <= channels:
        values, vectors = torch.linalg.eigh(centred.mT @ centred)
        return vectors[:, :, -1] * values[:, -1:].clamp_min(0).sqrt()
    _, vectors = torch.linalg.eigh(centred @ centred.mT)
    return torch.einsum("nck,nc->nk", centred, vectors[:, :, -1])


def _sign(maps: Tensor, activation: Tensor) -> Tensor:
    """±1 for each of N centred maps so that it goes with the centred mean activation."""
    covariance = (maps * activation).sum(dim=1)
    correlated = covariance.abs() > _TIED * maps.norm(dim=1) * activation.norm(dim=1)
    size = maps.abs()
    highest = (size >= (1 - _TIED) * size.amax(dim=1, keepdim=True)).int().argmax(dim=1)
    deciding = torch.where(correlated, covariance, maps.gather(1, highest[:, None])[:, 0])
    return torch.where(deciding < 0, -1.0, 1.0)


def _ratio_or_zero(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Division that gives 0 where the denominator is 0."""
    return torch.where(denominator != 0, numerator / denominator, 0.0)
