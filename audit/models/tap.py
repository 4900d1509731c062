"""Cutting a classifier in two at its target layer: features, and the head that reads them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from audit.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A classifier as two functions, ``head(backbone(x)) == model(x)``.

    Attributes:
        backbone: Normalised images N×3×H×W to features N×C×h×w.
        head: Features to logits N×K.
        layer: Name of the target layer, for people.
        channels: C.
        grid: h and w.
        linear: Weight K×C of the linear layer if the head is global average pooling and one
            linear layer, else ``None``.
    """

    backbone: nn.Module
    head: nn.Module
    layer: str
    channels: int
    grid: tuple[int, int]
    linear: Tensor | None


def cut(model: nn.Module, image_size: tuple[int, int]) -> Cut:
    """Find the target layer by one dry run and cut the model there.

    The target layer is the last 4-D activation with more than one cell that some later operation
    reduces in space (a pooling or a mean): the finest map that still carries the class.

    Args:
        model: In evaluation mode; is not changed.
        image_size: Height and width of the images it gets.

    Returns:
        The two halves; they share the model's parameters.

    Raises:
        ModelError: If the model cannot be traced, or has no such layer.

    Example:
        >>> from audit.models.architectures import build
        >>> cut(build("cnn", 10).eval(), (32, 32)).grid
        (8, 8)
    """
    probe = torch.linspace(-1, 1, 2 * 3 * image_size[0] * image_size[1])
    probe = probe.view(2, 3, *image_size)
    traced = _trace(model)
    try:
        with torch.no_grad():
            expected = model(probe)
            ShapeProp(traced).propagate(probe)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"the model does not run on {image_size[0]}×{image_size[1]} images",
            found=str(error).splitlines()[0],
            remedy="set --image-size to the size it was trained on",
        ) from error
    node = _target_node(traced)
    backbone, head = _upto(traced, node), _after(traced, node)
    with torch.no_grad():
        features = backbone(probe)
        if not torch.equal(head(features), expected):
            raise ModelError(f"cutting the model at {_name(node)} changes its output")
    return Cut(
        backbone=backbone,
        head=head,
        layer=_name(node),
        channels=int(features.shape[1]),
        grid=(int(features.shape[2]), int(features.shape[3])),
        linear=_gap_linear_weight(head, features),
    )


def _trace(model: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(model)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            "the model's graph cannot be traced", found=str(error).splitlines()[0]
        ) from error


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    return tuple(getattr(node.meta.get("tensor_meta"), "shape", ())) or None


def _target_node(traced: fx.GraphModule) -> fx.Node:
    candidates = [node for node in traced.graph.nodes if _is_map(node) and _is_reduced(node)]
    if not candidates:
        maps = [
            f"{_name(n)} {'×'.join(map(str, _shape(n) or ()))}"
            for n in traced.graph.nodes
            if len(_shape(n) or ()) == 4 and n.op != "placeholder"
        ]
        raise ModelError(
            "the model has no layer with a map to explain",
            expected="a 4-D activation of more than one cell that is pooled later",
            found=", ".join(maps[-5:]) or "no 4-D activation",
        )
    return candidates[-1]


def _is_map(node: fx.Node) -> bool:
    shape = _shape(node)
    return node.op != "placeholder" and shape is not None and len(shape) == 4 and min(shape[2:]) > 1


def _is_reduced(node: fx.Node) -> bool:
    shape = _shape(node)
    assert shape is not None
    for user in node.users:
        after = _shape(user)
        if after is None:
            continue
        if len(after) == 4 and after[2] * after[3] < shape[2] * shape[3]:
            return True
        if len(after) != 4 and torch.Size(after).numel() < torch.Size(shape).numel():
            return True
    return False


def _upto(traced: fx.GraphModule, node: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for old in traced.graph.nodes:
        copies[old] = graph.node_copy(old, copies.__getitem__)
        if old is node:
            break
    graph.output(copies[node])
    return _finished(traced, graph)


def _after(traced: fx.GraphModule, node: fx.Node) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {node: graph.placeholder("features")}
    seen = False
    for old in traced.graph.nodes:
        if seen and (old.op == "get_attr" or any(arg in copies for arg in old.all_input_nodes)):
            stray = [arg for arg in old.all_input_nodes if arg not in copies]
            if stray:
                raise ModelError(
                    f"the model cannot be cut at {_name(node)}",
                    found=f"{_name(old)} also reads {_name(stray[0])} from before it",
                )
            copies[old] = graph.node_copy(old, copies.__getitem__)
        seen = seen or old is node
    return _finished(traced, graph)


def _finished(traced: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """The graph as a module that shares the model's parameters and holds no others."""
    module = fx.GraphModule(traced, graph)
    graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    return module


def _name(node: fx.Node) -> str:
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    inside = str(stack[-1][0]) if stack else ""
    return f"{inside}.{node.name}" if inside else node.name


def _gap_linear_weight(head: nn.Module, features: Tensor) -> Tensor | None:
    """The linear layer's weight if the head is exactly mean over cells, then that layer."""
    linears = [module for module in head.modules() if isinstance(module, nn.Linear)]
    if len(linears) != 1 or linears[0].in_features != features.shape[1]:
        return None
    probe = torch.randn(features.shape, generator=torch.Generator().manual_seed(0)) * 3
    with torch.no_grad():
        same = torch.allclose(head(probe), linears[0](probe.mean(dim=(2, 3))), atol=1e-4)
    return linears[0].weight if same else None
