"""Do maps change when the network's weights are drawn anew? If not, they do not explain it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from audit.cam import Method
from audit.explaining import Explainer
from audit.models.linear import pooled_linear

# Networks have hundreds of layers; this many steps show the course.
MOST_STAGES = 10


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The network with its last layers drawn anew.

    Attributes:
        layer: The earliest layer drawn anew.
        share: The share of the network's parameters drawn anew.
        correlations: For each method the rank correlation of each image's map with its map in the
            trained network, N; NaN where one of them is constant.
    """

    layer: str
    share: float
    correlations: dict[Method, NDArray[np.float64]]


def count_stages(explainer: Explainer) -> int:
    """How many stages :func:`cascade` has."""
    return sum(1 for _ in _groups(_layers(explainer)))


def cascade(
    explainer: Explainer, images: Tensor, seed: int, batch_size: int = 32
) -> Iterator[Stage]:
    """Draw the weights anew, from the last layer to the first, and compare the maps.

    Every tensor of parameters is replaced by normal numbers of its own mean and spread. The maps
    explain the classes that the trained network predicts.

    Args:
        explainer: Is not changed.
        images: uint8, N×3×H×W.
        seed: Of the drawing.
        batch_size: Images explained at a time.

    Yields:
        At most :data:`MOST_STAGES` stages; in the last one every layer is drawn anew.

    Source:
        Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3: the model parameter
        randomization test, cascading.
    """
    # What makes features fast has copies of the weights.
    explainer = explainer.as_it_is()
    batches = images.split(batch_size)
    trained = [explainer(b, lambda logits: logits.argmax(dim=1, keepdim=True)) for b in batches]
    targets = [found.targets for found in trained]
    before = _joined([found.maps for found in trained])
    drawn = copy.deepcopy(explainer)
    generator = torch.Generator().manual_seed(seed)
    layers = _layers(drawn, images[:1])
    total = sum(p.numel() for _, held in layers for p in held)
    done = 0
    for group in _groups(layers):
        for _, held in group:
            for parameter in held:
                _draw(parameter, generator)
                done += parameter.numel()
        _refresh(drawn)
        after = _joined([_explain(drawn, b, t) for b, t in zip(batches, targets, strict=True)])
        yield Stage(
            layer=_plain(group[-1][0]),
            share=done / total,
            correlations={
                method: rank_correlation(before[method], maps) for method, maps in after.items()
            },
        )


def rank_correlation(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Spearman's correlation, row by row.

    Args:
        first: N×M.
        second: N×M.

    Returns:
        In [−1, 1], N; NaN where a row is constant or not finite.

    Example:
        >>> rank_correlation(np.array([[1.0, 2, 3]]), np.array([[1.0, 9, 2]])).tolist()
        [0.5]
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values, axis=1) for values in (first, second)]
    centred = [r - r.mean(axis=1, keepdims=True) for r in ranks]
    products = (centred[0] * centred[1]).sum(axis=1)
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    whole = np.isfinite(first).all(axis=1) & np.isfinite(second).all(axis=1) & (spread > 0)
    return np.where(whole, products / np.where(spread > 0, spread, 1), np.nan)


def _plain(name: str) -> str:
    """A layer's name without the names of what the audit has wrapped around it."""
    plain = name.removeprefix("backbone.").removeprefix("head.") if "." in name else name
    for wrapper in ("inner.", "inner.", "network.", "network.", "network."):
        plain = plain.removeprefix(wrapper)
    return plain


def _explain(explainer: Explainer, images: Tensor, targets: Tensor) -> dict[Method, Tensor]:
    return explainer(images, lambda _: targets).maps


def _joined(parts: list[dict[Method, Tensor]]) -> dict[Method, NDArray[np.float64]]:
    """Maps of several batches, one flat row an image."""
    return {
        method: np.concatenate([part[method][:, 0].flatten(1).double().cpu() for part in parts])
        for method in parts[0]
    }


def _layers(
    explainer: Explainer, images: Tensor | None = None
) -> list[tuple[str, list[nn.Parameter]]]:
    """Parameters by the module that holds them, the last layer first, none twice."""
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in explainer.named_parameters():
        layers.setdefault(name.rpartition(".")[0], []).append(parameter)
    if explainer.parts.how == "hooks" and images is not None:
        # A graph holds its parts in the order of use; a network in the order of registration.
        used = _order_of_use(explainer, images)
        layers = dict(sorted(layers.items(), key=lambda item: used.get(item[0], -1)))
    return list(reversed(layers.items()))


@torch.no_grad()
def _order_of_use(explainer: Explainer, images: Tensor) -> dict[str, int]:
    """When each module is first called in a forward pass."""
    order: dict[str, int] = {}
    names = {part: name for name, part in explainer.backbone.named_modules()}

    def note(part: nn.Module, *_: object) -> None:
        order.setdefault(f"backbone.{names[part]}", len(order))

    handles = [part.register_forward_pre_hook(note) for part in names]
    try:
        # The head's copy of the network is the same modules; all of it runs there.
        explainer.network(explainer.normalised(images))
    finally:
        for handle in handles:
            handle.remove()
    return order


def _groups(
    layers: list[tuple[str, list[nn.Parameter]]],
) -> Iterator[list[tuple[str, list[nn.Parameter]]]]:
    """The last layer alone, then the others in nearly equal parts."""
    if not layers:
        return
    yield layers[:1]
    rest = layers[1:]
    parts = min(MOST_STAGES - 1, len(rest))
    edges = [round(part * len(rest) / parts) for part in range(parts + 1)] if parts else []
    for start, stop in pairwise(edges):
        yield rest[start:stop]


def _refresh(explainer: Explainer) -> None:
    """What was read off the trained head must be read off the drawn one."""
    parts = explainer.parts
    if parts.linear is not None:
        device = parts.linear.device
        features = torch.zeros(2, parts.channels, *parts.grid, device=device)
        explainer.parts = replace(parts, linear=pooled_linear(explainer.head, features))


def _draw(parameter: nn.Parameter, generator: torch.Generator) -> None:
    values = parameter.detach().float()
    mean = values.mean()
    # Scales that are all 1 and biases that are all 0 have no spread of their own.
    spread = values.std() if values.numel() > 1 else values.new_zeros(())
    spread = torch.where(spread > 0, spread, 0.1 * mean.abs() + 0.01)
    noise = torch.randn(parameter.shape, generator=generator).to(values.device)
    parameter.data = (mean + spread * noise).to(parameter.dtype)
