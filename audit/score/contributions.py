"""How many logits each region of the image supplies."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap

from audit.score.tangents import derivatives

# Rare operations are batched one by one, which torch would tell at every call.
torch._C._functorch._set_vmap_fallback_warning_enabled(False)  # type: ignore[attr-defined]

_REGIONS = ("object", "near", "far")
# Contributions that differ by less, in logits, are rounding.
_NOTHING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """Centred logits by where they come from; each N×K.

    Attributes:
        object: From cells on the object.
        near: From background within one cell of it.
        far: From the rest of the background.
        unknown: From what is neither known to be object nor background.
        bias: From the head's biases.
        residual: What a head that is not piecewise linear leaves unexplained.
    """

    object: Tensor
    near: Tensor
    far: Tensor
    unknown: Tensor
    bias: Tensor
    residual: Tensor

    @property
    def background(self) -> Tensor:
        """Near and far together."""
        return self.near + self.far


@dataclass(frozen=True, kw_only=True)
class Supplied:
    """What regions supply to two classes of each sample, and which class each points to.

    Attributes:
        target: To the centred logit of the target from object, near, far and unknown, N×4.
        alt: To that of another class from object, near and far, N×3; of any where there is none.
        bias: What the head's biases supply to the target, N.
        residual: What is left of it unexplained, N.
        object_pred: Class with the largest contribution from the object, int64 N; -1 where the
            object supplies nothing to any.
        background_pred: Likewise from near and far together.
    """

    target: Tensor
    alt: Tensor
    bias: Tensor
    residual: Tensor
    object_pred: Tensor
    background_pred: Tensor


def pointed_to(supplied: Tensor) -> Tensor:
    """The class with the largest contribution.

    Args:
        supplied: N×K.

    Returns:
        int64, N; -1 where a region supplies nothing to any.

    Example:
        >>> pointed_to(torch.tensor([[1.0, 2.0], [0.0, 0.0]])).tolist()
        [1, -1]
    """
    silent = supplied.amax(dim=1) - supplied.amin(dim=1) <= _NOTHING
    return supplied.argmax(dim=1).masked_fill_(silent, -1)


def load_forward_mode() -> None:
    """Load torch's forward-mode differentiation, which warns of its own use of TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


def regions(grid_mask: Tensor, grid_unknown: Tensor | None = None) -> Tensor:
    """Object, near and far (and unknown) as weights of the cells that sum to 1.

    Args:
        grid_mask: ``m``, N×h×w (or N×V×h×w) in [0, 1].
        grid_unknown: Likewise the share that counts on no side; ``None`` for nothing.

    Returns:
        3×N×h×w (or 3×N×V×h×w), or 4×… where ``grid_unknown`` is given. Near is what a 3×3
        maximum of the mask adds to it.

    Example:
        >>> regions(torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]))[:, 0, 0].tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]]
    """
    grown = F.max_pool2d(grid_mask, kernel_size=3, stride=1, padding=1)
    if grid_unknown is None:
        return torch.stack([grid_mask, grown - grid_mask, 1 - grown])
    background = (1 - grid_mask - grid_unknown).clamp_min(0)
    near = torch.minimum(grown - grid_mask, background)
    return torch.stack([grid_mask, near, background - near, grid_unknown])


def contributions(
    head: nn.Module,
    features: Tensor,
    logits: Tensor,
    cell_weights: Tensor,
    *,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...] = (),
) -> Contributions:
    """Split the centred logits by region.

    The head's derivative at the features, applied to the features of one region alone (and for
    the bias to what the head's biases add). A head of linear layers, ReLU, max-pooling and average
    pooling is piecewise linear, so the parts sum to the logits; otherwise ``residual`` is what
    is missing. Logits are centred (minus their mean over classes) because adding one vector to
    every class's weights changes all contributions and no prediction.

    Args:
        head: Features, and whatever else it reads, to logits, in evaluation mode.
        features: ``A``, N×C×h×w.
        logits: ``head(A, *rest)``, N×K.
        cell_weights: Of the regions object, near and far (and unknown), 3×N×h×w (or 4×N×h×w).
        biases: For each parameter that the head adds, what it adds, by name.
        rest: What the head reads beside the features; what it supplies is in ``residual``.

    Returns:
        The parts; they sum to the centred logits.

    Source:
        Draelos and Carin 2020 for the map; forward-mode differentiation gives all classes at once.

    Example:
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> head[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        >>> A = torch.tensor([[[[3.0, 5.0]]]])
        >>> cells = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]], [[[0.0, 1.0]]]])
        >>> parts = contributions(head, A, head(A), cells, biases={})
        >>> parts.object.tolist(), parts.far.tolist()
        ([[1.5, -1.5]], [[2.5, -2.5]])
    """

    def along(tangent: Tensor) -> Tensor:
        return jvp(lambda a: head(a, *rest), (features,), (tangent,))[1]

    parts = vmap(along)(cell_weights[:, :, None] * features)
    if len(parts) == len(_REGIONS):
        parts = torch.cat([parts, torch.zeros_like(parts[:1])])
    bias = _bias_contribution(head, features, logits, biases, rest)
    parts, bias, centred = centre(parts), centre(bias), centre(logits)
    return Contributions(
        object=parts[0],
        near=parts[1],
        far=parts[2],
        unknown=parts[3],
        bias=bias,
        residual=centred - parts.sum(dim=0) - bias,
    )


def object_and_background(
    head: nn.Module,
    features: Tensor,
    cell_weights: Tensor,
    *,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """What the object, the background and the head's biases supply to all centred logits.

    As :func:`contributions` does it, with near and far background together: three derivatives in
    one pass. What near and far supply to single classes follows from those classes' gradients.

    Args:
        head: As in :func:`contributions`.
        features: ``A``, N×C×h×w.
        cell_weights: Of the regions object, near and far, 3×N×h×w (more are not read).
        biases: As in :func:`contributions`.
        rest: Likewise.

    Returns:
        Three times N×K.

    Example:
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> head[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        >>> cells = torch.tensor([[[[1.0, 0.0]]], [[[0.0, 0.0]]], [[[0.0, 1.0]]]])
        >>> parts = object_and_background(head, torch.tensor([[[[3.0, 5.0]]]]), cells, biases={})
        >>> [part.tolist() for part in parts]
        [[[1.5, -1.5]], [[2.5, -2.5]], [[0.0, 0.0]]]
    """
    regions = torch.stack([cell_weights[0], cell_weights[1] + cell_weights[2]])
    directions = regions[:, :, None] * features
    supplied, added = derivatives(head, features, directions, biases=biases, rest=rest)
    by_object, by_background = centre(supplied).unbind(dim=0)
    return by_object, by_background, centre(added)


def target_evidence(
    head: nn.Module, features: Tensor, targets: Tensor, rest: tuple[Tensor, ...] = ()
) -> Tensor:
    """What each feature supplies to the centred logit of one class, in one backward pass.

    Summed over channels these are :func:`cell_contributions`; summed over the cells of a region,
    the region's contribution by channel.

    Args:
        head: As in :func:`contributions`.
        features: ``A``, N×C×h×w.
        targets: The classes, int64, N.
        rest: What the head reads beside the features.

    Returns:
        ``A · ∂(z_t − mean z)/∂A``, N×C×h×w, signed.

    Source:
        HiResCAM, Draelos and Carin 2020, equation 5 before its sum, of the centred logit.

    Example:
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> head[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        >>> target_evidence(head, torch.tensor([[[[3.0, 5.0]]]]), torch.tensor([0])).tolist()
        [[[[1.5, 2.5]]]]
    """
    leaf = features.detach().requires_grad_()
    with torch.enable_grad():
        logits = head(leaf, *rest)
        total = centre(logits).gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    return features * gradient


def cell_contributions(
    head: nn.Module, features: Tensor, targets: Tensor, rest: tuple[Tensor, ...] = ()
) -> Tensor:
    """What each cell supplies to the centred logit of one class.

    Sums over the cells of a region equal :func:`contributions` of that region, so that any number
    of masks costs one product.

    Args:
        head: As in :func:`contributions`.
        features: ``A``, N×C×h×w.
        targets: The classes, int64, N.
        rest: What the head reads beside the features.

    Returns:
        :func:`target_evidence` summed over channels, N×h×w, signed.

    Example:
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> head[1].weight.data = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
        >>> cell_contributions(head, torch.tensor([[[[3.0, 5.0]]]]), torch.tensor([0])).tolist()
        [[[1.5, 2.5]]]
    """
    return target_evidence(head, features, targets, rest).sum(dim=1)


def centre(logits: Tensor) -> Tensor:
    """Logits minus their mean over classes (the last axis)."""
    return logits - logits.mean(dim=-1, keepdim=True)


def _bias_contribution(
    head: nn.Module,
    features: Tensor,
    logits: Tensor,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...],
) -> Tensor:
    if not biases:
        return torch.zeros_like(logits)
    held = {**dict(head.named_parameters()), **dict(head.named_buffers())}
    values = {name: held[name].detach() for name in biases}

    def with_biases(changed: dict[str, Tensor]) -> Tensor:
        return functional_call(head, changed, (features, *rest))

    return jvp(with_biases, (values,), (dict(biases),))[1]
