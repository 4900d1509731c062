"""Batch norms folded into the convolutions before them, in a copy of a network's graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

_ATEN = torch.ops.aten
# Names of arguments in order, for every way in which a graph may call a convolution or a norm.
_CONVOLUTIONS: Mapping[Any, tuple[str, ...]] = {
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    _ATEN.conv2d.default: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    _ATEN.conv2d.padding: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    _ATEN.convolution.default: (
        "input", "weight", "bias", "stride", "padding", "dilation", "transposed",
        "output_padding", "groups",
    ),
    _ATEN._convolution.default: (
        "input", "weight", "bias", "stride", "padding", "dilation", "transposed",
        "output_padding", "groups", "benchmark", "deterministic", "cudnn_enabled", "allow_tf32",
    ),
}  # fmt: skip
_NORMS: Mapping[Any, tuple[str, ...]] = {
    nn.functional.batch_norm: (
        "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
    ),
    torch.batch_norm: (
        "input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps",
        "cudnn_enabled",
    ),
    _ATEN.batch_norm.default: (
        "input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps",
        "cudnn_enabled",
    ),
}  # fmt: skip
_EPS = 1e-5
# Python's operators that write into their first operand.
_WRITING = ("iadd", "isub", "imul", "itruediv", "setitem")


@dataclass(kw_only=True)
class Convolution:
    """A convolution of a graph.

    Attributes:
        node: Its node.
        weight: O×(I/groups)×k×k.
        bias: O, or ``None``.
        stride: As of :func:`torch.nn.functional.conv2d`.
        padding: Likewise.
        dilation: Likewise.
        groups: Likewise.
        absorbed: The nodes after it that are computed with it, in order: the batch norm that alone
            reads it is, for it was folded into weight and bias.
    """

    node: fx.Node
    weight: Tensor
    bias: Tensor | None
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    absorbed: list[fx.Node] = field(default_factory=list)

    @property
    def given(self) -> fx.Node:
        """The node that it reads."""
        return self.node.all_input_nodes[0]

    @property
    def output(self) -> fx.Node:
        """The node whose value it gives."""
        return self.absorbed[-1] if self.absorbed else self.node


def copy_graph(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph that may be changed; it shares parameters and submodules with the one given.

    Args:
        graph: Stays as it is.
    """
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph.graph, {}))
    return fx.GraphModule(graph, copied)


def convolutions(graph: fx.GraphModule, *, fold: bool = True) -> Iterator[Convolution]:
    """The two-dimensional convolutions of a graph with constant weights, norms folded into them.

    Args:
        graph: In evaluation mode.
        fold: Whether the folded weights are wanted too, or only which norms may be folded.

    Yields:
        Each of them in order; weights of those without a norm are the network's own.
    """
    for node in graph.graph.nodes:
        found = _convolution(graph, node)
        if found is None:
            continue
        after = next_after(graph, found)
        scaling = None if after is None else _norm(graph, after, node)
        if after is not None and scaling is not None and len(scaling[0]) == len(found.weight):
            if fold:
                found.weight, found.bias = _folded(found.weight, found.bias, *scaling)
            found.absorbed.append(after)
        yield found


def next_after(graph: fx.GraphModule, found: Convolution) -> fx.Node | None:
    """The node that may be computed with a convolution: the only one that reads it.

    Args:
        graph: The graph.
        found: Its output so far.

    Returns:
        ``None`` if there are others, or if something may be written in place meanwhile.
    """
    users = list(found.output.users)
    if len(users) != 1 or users[0].op == "output":
        return None
    between = found.node.next
    while between is not users[0]:
        if between not in found.absorbed and _is_in_place(graph, between):
            return None
        between = between.next
    return users[0]


def rewrite(
    graph: fx.GraphModule,
    found: list[Convolution],
    build: Callable[[Convolution, fx.Node, fx.Node | None], fx.Node],
    convert: Callable[[Convolution], Tensor],
) -> None:
    """Replace convolutions of a graph by others, with weights of their own.

    Args:
        graph: Is changed.
        found: Of :func:`convolutions`; their weights are dropped.
        build: Makes the new node, of the nodes of weight and bias.
        convert: Gives the weight as the new node wants it.
    """
    for number, each in enumerate(found):
        weight = convert(each)
        each.weight = each.weight.new_empty(0)
        graph.register_buffer(f"fast_weight_{number}", weight, persistent=False)
        if each.bias is not None:
            bias = each.bias.detach().to(weight.dtype)
            graph.register_buffer(f"fast_bias_{number}", bias, persistent=False)
        with graph.graph.inserting_before(each.output):
            constants = [graph.graph.get_attr(f"fast_weight_{number}")]
            if each.bias is not None:
                constants.append(graph.graph.get_attr(f"fast_bias_{number}"))
            new = build(each, constants[0], constants[1] if each.bias is not None else None)
        each.output.replace_all_uses_with(new)
        for old in reversed([each.node, *each.absorbed]):
            graph.graph.erase_node(old)


def finish(graph: fx.GraphModule) -> None:
    """Drop what is no longer read, and make the graph's code.

    Args:
        graph: Is changed.
    """
    # Operations whose value nobody reads may write in place; constants do not.
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()


def _convolution(graph: fx.GraphModule, node: fx.Node) -> Convolution | None:
    if node.op == "call_module":
        part = graph.get_submodule(str(node.target))
        # A subclass may do anything; hooks are somebody's.
        if type(part) is not nn.Conv2d or part.padding_mode != "zeros" or is_hooked(part):
            return None
        return Convolution(
            node=node, weight=part.weight, bias=part.bias, stride=part.stride,
            padding=part.padding, dilation=part.dilation, groups=part.groups,
        )  # fmt: skip
    given = _arguments(node, _CONVOLUTIONS)
    if given is None or given.pop("transposed", False):
        return None
    weight, bias = (constant(graph, given.pop(name, None)) for name in ("weight", "bias"))
    if weight is None or weight.dim() != 4 or (bias is None and len(node.all_input_nodes) > 2):
        return None
    options = {name: given[name] for name in ("stride", "padding", "dilation") if name in given}
    if any(isinstance(value, fx.Node) for value in options.values()):
        return None
    groups = given.get("groups", 1)
    return Convolution(node=node, weight=weight, bias=bias, groups=groups, **options)


def _norm(graph: fx.GraphModule, node: fx.Node, read: fx.Node) -> tuple[Tensor, Tensor] | None:
    """By what a norm multiplies each channel, and what it adds then."""
    if node.op == "call_module":
        part = graph.get_submodule(str(node.target))
        if type(part) is not nn.BatchNorm2d or part.training or is_hooked(part):
            return None
        return _scaling(part.running_mean, part.running_var, part.weight, part.bias, part.eps)
    given = _arguments(node, _NORMS)
    if given is None or given["input"] is not read or given.get("training", False):
        return None
    names = ("running_mean", "running_var", "weight", "bias")
    tensors = [constant(graph, given.get(name)) for name in names]
    missing = [given.get(n) for n, t in zip(names, tensors, strict=True) if t is None]
    if any(value is not None for value in missing):
        return None
    mean, variance, weight, bias = tensors
    return _scaling(mean, variance, weight, bias, given.get("eps", _EPS))


def _scaling(
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor] | None:
    if mean is None or variance is None:
        return None
    scale = torch.rsqrt(_wide(variance) + eps)
    scale = scale if weight is None else scale * _wide(weight)
    shift = -_wide(mean) * scale
    return scale, shift if bias is None else shift + _wide(bias)


def _folded(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    scaled = _wide(weight) * scale[:, None, None, None]
    moved = shift if bias is None else shift + _wide(bias) * scale
    return scaled.to(weight.dtype), moved.to(weight.dtype)


def _wide(values: Tensor) -> Tensor:
    """With digits to spare, where the device has them."""
    values = values.detach()
    return values if values.device.type == "mps" else values.double()


def _arguments(node: fx.Node, known: Mapping[Any, tuple[str, ...]]) -> dict[str, Any] | None:
    """A call's arguments by name; ``None`` for other calls."""
    names = known.get(node.target) if node.op == "call_function" else None
    if names is None:
        return None
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def constant(graph: fx.GraphModule, value: object) -> Tensor | None:
    """The tensor that an argument of a node always is; ``None`` if it is computed."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    held: Any = graph
    for step in str(value.target).split("."):
        held = getattr(held, step)
    return held if isinstance(held, Tensor) else None


def is_hooked(part: nn.Module) -> bool:
    """Whether somebody else's code runs with a module."""
    return bool(part._forward_hooks or part._forward_pre_hooks)


def _is_in_place(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.kwargs.get("inplace", False):
        return True
    if node.op == "call_module":
        return any(
            getattr(m, "inplace", False) for m in graph.get_submodule(str(node.target)).modules()
        )
    name = str(node.target if node.op == "call_method" else getattr(node.target, "__name__", ""))
    name = name.partition(".")[0]
    return node.op in ("call_method", "call_function") and (
        (name.endswith("_") and not name.endswith("__")) or name in _WRITING
    )
