"""Cutting a classifier in two at its target layer: features, and the head that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, fx, nn

from audit.errors import ModelError
from audit.models.biases import bias_tangents
from audit.models.cancelling import CANCELS
from audit.models.capture import NotCapturedError
from audit.models.frozen import evaluation, plain_kernels
from audit.models.graph_network import GraphNetwork
from audit.models.halves import FixedBatch, Front, Head, Layer, Tail, plain_name
from audit.models.hooks import HookedNetwork
from audit.models.layout import Layout
from audit.models.linear import pooled_linear
from audit.models.probe import probe_images, run_probe
from audit.models.pruning import pruned

# How far the logits of the two halves may be from the whole's, relative to their size.
TOLERANCE = 1e-4
# Tokens are preferred over a map only if more than this share of the network lies between.
_LITTLE = 0.02


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Several layers in one pass.

    Attributes:
        front: Images to the features of the earliest layer and what else its tail reads.
        tail: These to the activations of the later layers in order, as the network has them, and
            the logits.
        layouts: Of each layer's activation, the earliest first.
    """

    front: nn.Module
    tail: nn.Module
    layouts: tuple[Layout, ...]

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """The h and w of each layer, the earliest first."""
        return tuple(layout.grid for layout in self.layouts)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A classifier as two functions, ``head(*backbone(x)) == model(x)``.

    Attributes:
        backbone: Normalised images N×3×H×W to a tuple: features N×C×h×w, and whatever else the
            head reads (class tokens; other activations where the layer is bypassed).
        head: These to logits N×K.
        layer: Name of the target layer, for people.
        channels: C.
        grid: h and w.
        outputs: K.
        linear: Weight K×C if the head is global average pooling and a linear map, else ``None``.
        biases: What each bias of the head adds, by parameter.
        rest: How many tensors the head reads beside the features.
        how: What made the cut: ``torch.fx``, ``torch.export``, ``TorchScript`` or ``hooks``.
        fused: Further layers whose maps are averaged with the target layer's.
        notes: What the user should know of the layer.
    """

    backbone: nn.Module
    head: nn.Module
    layer: str
    channels: int
    grid: tuple[int, int]
    outputs: int
    linear: Tensor | None
    biases: Mapping[str, Tensor]
    rest: int
    how: str
    fused: Fused | None = None
    notes: tuple[str, ...] = ()


Way = Literal["any", "graph", "hooks"]
_Network = GraphNetwork | HookedNetwork


def cut(
    model: nn.Module,
    image_size: tuple[int, int],
    *,
    layers: Sequence[str] = (),
    batch: int | None = None,
    way: Way = "any",
) -> Cut:
    """Find the target layer by a dry run and cut the model there.

    The target layer is the last activation with a grid of more than one cell that everything
    passes through, whose cells the logits depend on, that is more than the pooling of another,
    and whose products with the gradient do not cancel. If they do, because a layer norm follows,
    the output of that norm is taken: the head may then also read class tokens beside it, but all
    that the cells decide passes through it.

    Args:
        model: Is afterwards as it was before.
        image_size: Height and width of the images it gets.
        layers: Names of the layers to take instead; the last one is the target layer, the maps of
            the others are averaged with its map.
        batch: The only number of images that the model takes; ``None`` for any.
        way: ``any`` cuts the graph of operations where there is one, and uses hooks otherwise.

    Returns:
        The two halves; they share the model's parameters.

    Raises:
        ModelError: If the model has no such layer or cannot be cut there.

    Example:
        >>> from audit.models.architectures import build
        >>> cut(build("cnn", 10), (32, 32)).grid
        (8, 8)
    """
    images = probe_images(batch or 2, image_size)
    run_probe(model, images, type(model).__name__)
    with evaluation(model), plain_kernels(), torch.no_grad():
        network = _watch(model, images, batch, way)
        try:
            return _cut(model, network, images, layers, batch)
        except _Unequal as unequal:
            if way != "any" or isinstance(network, HookedNetwork):
                raise ModelError(str(unequal)) from unequal
        hooked = HookedNetwork(model, images)
        try:
            return _cut(model, hooked, images, layers, batch)
        except _Unequal as unequal:
            raise ModelError(str(unequal)) from unequal


def list_layers(
    model: nn.Module, image_size: tuple[int, int], *, batch: int | None = None
) -> tuple[list[Layer], str, str]:
    """Every activation that might be a target layer.

    Args:
        model: Is afterwards as it was before.
        image_size: Height and width of the images it gets.
        batch: The only number of images that the model takes; ``None`` for any.

    Returns:
        The layers in order, each with the reason why it is not chosen; the name of the one that
        is, empty if none can be; and what follows the network.
    """
    images = probe_images(batch or 2, image_size)
    with evaluation(model), plain_kernels(), torch.no_grad():
        network = _watch(model, images, batch, "any")
        examined = [_examined(network, layer) for layer in network.candidates]
        try:
            chosen = _chosen(network, examined)
        except ModelError:
            return examined, "", network.how  # each has its reason beside it
    # What takes over from a layer whose products cancel is refused for nothing any more.
    listed = [chosen if layer.name == chosen.name else layer for layer in examined]
    return listed, chosen.name, network.how


class _Unequal(Exception):  # caught here: the other way is tried then
    """The halves do not make the whole."""


def _watch(model: nn.Module, images: Tensor, batch: int | None, way: Way) -> _Network:
    if way == "hooks":
        return HookedNetwork(model, images)
    try:
        return GraphNetwork(model, images, fixed=batch is not None)
    except NotCapturedError as error:
        if way == "graph" or any(isinstance(p, torch.jit.ScriptModule) for p in model.modules()):
            raise ModelError(
                "the model's operations cannot be followed", found=str(error)
            ) from error
        return HookedNetwork(model, images, why=str(error))


def _cut(
    model: nn.Module,
    network: _Network,
    images: Tensor,
    names: Sequence[str],
    batch: int | None,
) -> Cut:
    if names:
        found = {layer.name: layer for layer in (_named(network, name) for name in names)}
        order = [layer.name for layer in network.candidates]
        chosen = sorted(found.values(), key=lambda layer: order.index(layer.name))
    else:
        chosen = [_chosen(network)]
    layer = chosen[-1]
    assert layer.layout is not None
    front, end = network.halves(layer)
    backbone: nn.Module = Front(front, layer.layout)
    whole: nn.Module = Head(end, layer.layout)
    head: nn.Module = Head(_lean(front, end, images), layer.layout)
    fused = _fused(network, chosen, batch, images) if len(chosen) > 1 else None
    if batch is not None:
        backbone, whole = FixedBatch(backbone, batch), FixedBatch(whole, batch)
        head = FixedBatch(head, batch)
    features, rest, logits = _prove(model, backbone, head, images, layer)
    return Cut(
        backbone=backbone,
        head=head,
        layer=" + ".join(each.name for each in chosen),
        channels=int(features.shape[1]),
        grid=(int(features.shape[2]), int(features.shape[3])),
        outputs=int(logits.shape[1]),
        linear=None if rest else pooled_linear(head, features),
        # A pruned head has the same biases, but not always where they are looked for.
        biases=bias_tangents(whole),
        rest=len(rest),
        how=network.how,
        fused=fused,
        notes=_notes_on(chosen),
    )


def _notes_on(chosen: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(
        f"at the layer {layer.name}, {CANCELS}; maps that multiply the two, and what regions "
        "contribute, are rounding noise there. Leave out --target-layer, or take the output of "
        "the normalisation (audit layers MODEL)"
        for layer in chosen
        if layer.cancels
    )


def _lean(front: nn.Module, end: nn.Module, images: Tensor) -> nn.Module:
    """The second half without what its outputs do not depend on."""
    if not isinstance(end, fx.GraphModule):
        return end
    try:
        given = front(images)
    except (RuntimeError, TypeError, ValueError, NameError, AttributeError):
        return end  # what is wrong is told where the halves are proved
    return pruned(end, given, TOLERANCE)


def _prove(
    model: nn.Module, backbone: nn.Module, head: nn.Module, images: Tensor, layer: Layer
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    try:
        features, *rest = backbone(images)
        logits = head(features, *rest)
    except (RuntimeError, TypeError, ValueError, NameError, AttributeError) as error:
        raise _Unequal(f"the model cannot be cut at {layer.name}: {error}") from error
    expected = model(images)
    scale = 1 + float(expected.abs().max())
    if not torch.allclose(logits, expected, rtol=0, atol=TOLERANCE * scale):
        raise _Unequal(f"cutting the model at {layer.name} changes its output")
    return features, tuple(rest), logits


def _fused(network: _Network, chosen: list[Layer], batch: int | None, images: Tensor) -> Fused:
    if batch is not None:
        raise ModelError(
            f"maps of several layers need a network that takes any number of images, not {batch}",
            remedy="name one --target-layer, or export the network with a dynamic batch",
        )
    for layer in chosen:
        if layer.bypassed:
            raise ModelError(
                f"the layer {layer.name} cannot be averaged with others",
                expected="layers that everything passes through",
                found=layer.reason,
            )
    first, *later = chosen
    layouts = [layer.layout for layer in chosen]
    assert all(layout is not None for layout in layouts)
    known = [layout for layout in layouts if layout is not None]
    inner = network.halves(first)[0]
    front: nn.Module = Front(inner, known[0])
    tail: nn.Module = Tail(_lean(inner, network.tail(first, later), images), known[0])
    return Fused(front=front, tail=tail, layouts=tuple(known))


def _examined(network: _Network, layer: Layer) -> Layer:
    reason, bypassed = network.refusal(layer)
    return replace(layer, reason=reason, bypassed=bypassed)


def _chosen(network: _Network, examined: Sequence[Layer] | None = None) -> Layer:
    """The last layer that can be; a map rather than tokens if hardly anything lies between."""
    refused: list[Layer] = []
    for number in reversed(range(len(network.candidates))):
        layer = examined[number] if examined else _examined(network, network.candidates[number])
        if not layer.reason:
            return _map_before(network, number, layer, examined)
        if layer.cancels and not any(each.cancels for each in refused):
            later = network.taking_over(network.candidates[number])
            if later is not None:
                return later
        refused.append(layer)
    raise _no_layer(refused, network.why)


def _map_before(
    network: _Network, number: int, latest: Layer, examined: Sequence[Layer] | None
) -> Layer:
    """The last map without class tokens if hardly anything lies between, else ``latest``."""
    assert latest.layout is not None
    if latest.layout.prefix == 0:
        return latest
    for earlier in reversed(range(number)):
        layer = network.candidates[earlier]
        if network.parameters_between(layer, latest) >= _LITTLE:
            break
        if layer.layout is None or layer.layout.prefix:
            continue
        layer = examined[earlier] if examined else _examined(network, layer)
        if not layer.reason:
            return layer
    return latest


def _no_layer(refused: list[Layer], why: str) -> ModelError:
    shown = [f"{layer.name} {_sides(layer)}: {layer.reason}" for layer in refused[:4]]
    return ModelError(
        "the model has no layer with a map to explain",
        expected="an activation with a grid of more than one cell that everything passes through",
        found=("; ".join(shown) or "no 4-D activation")
        + (f"; its graph cannot be traced ({why})" if why else ""),
        remedy="look at all of them: audit layers MODEL; take one with --target-layer"
        if refused
        else "class activation maps need a network of convolutions or of patches",
    )


def _named(network: _Network, name: str) -> Layer:
    """The layer of a name; for a module that holds others, the last of them."""
    given, name = name, plain_name(name)
    same = [layer for layer in network.candidates if layer.name == name]
    inside = [layer for layer in network.candidates if layer.name.startswith(f"{name}.")]
    with_grid = [layer for layer in same or inside if layer.layout is not None]
    if not same and not inside:
        raise ModelError(
            f"the model has no layer '{given}'",
            expected="one of " + _choices(network),
            found=given,
            remedy="audit layers MODEL lists all",
        )
    if not with_grid:
        raise ModelError(
            f"the layer '{name}' has no map to explain",
            expected="a grid of more than one cell: " + _choices(network),
            found=_sides((same or inside)[-1]),
        )
    examined = [_examined(network, layer) for layer in reversed(with_grid)]
    best = next((layer for layer in examined if not layer.reason), examined[0])
    rearranges = "pools or rearranges" in best.reason
    usable = not best.reason or best.bypassed or best.cancels or rearranges
    if not usable:
        raise ModelError(
            f"the layer '{name}' cannot be explained",
            expected="a layer that decides: " + _choices(network),
            found=best.reason,
        )
    return best


def _choices(network: _Network, most: int = 5) -> str:
    names = [layer.name for layer in network.candidates if layer.layout is not None]
    found = []
    for name in reversed(names):
        layer = next(each for each in network.candidates if each.name == name)
        if not network.refusal(layer)[0]:
            found.append(f"{name} ({_sides(layer)})")
        if len(found) == most:
            break
    return ", ".join(found) or "none"


def _sides(layer: Layer) -> str:
    return "×".join(map(str, layer.shape))
