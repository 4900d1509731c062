"""What the nodes of a captured graph do, whichever way the graph was written down."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

# Operations that make every number of their output from the numbers at its own place.
_POINTWISE = frozenset((
    "add", "sub", "rsub", "mul", "truediv", "div", "neg", "pow", "square", "sqrt", "rsqrt", "exp",
    "erf", "tanh", "sigmoid", "relu", "relu6", "gelu", "silu", "mish", "hardswish", "hardsigmoid",
    "hardtanh", "leaky_relu", "elu", "softplus", "clamp", "clamp_min", "clamp_max",
    "to", "type_as",
))  # fmt: skip
# Operations that give what they are given, in evaluation mode.
_SAME = frozenset(("dropout", "contiguous", "clone", "alias", "identity"))
_RESHAPING = frozenset(
    ("reshape", "view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
)
_SAME_MODULES = (nn.Identity, nn.Dropout)
_POINTWISE_MODULES = (
    nn.GELU, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid,
    nn.LeakyReLU, nn.ELU, nn.Softplus,
)  # fmt: skip
_IN_PLACE = frozenset(("iadd", "isub", "imul", "itruediv", "ipow", "setitem", "copy_"))


def kind_of(graph: fx.GraphModule, node: fx.Node) -> str:
    """What a node does: the name of an operation, or ``pointwise``, ``same`` or ``reshaping``.

    Args:
        graph: Where it stands.
        node: The node.

    Returns:
        Empty if that is not known.
    """
    if node.op == "call_module":
        return _kind_of_module(graph.get_submodule(str(node.target)))
    if node.op not in ("call_function", "call_method"):
        return ""
    name = _name(node)
    if name in _POINTWISE:
        return "pointwise"
    if name in _RESHAPING:
        return "reshaping"
    return "same" if name in _SAME else name


def _kind_of_module(part: nn.Module) -> str:
    own = type(part).forward
    if own is nn.Linear.forward:
        return "linear"
    if own is nn.LayerNorm.forward:
        return "layer_norm"
    if type(part) is nn.MultiheadAttention:
        return "multihead_attention"
    if type(part) is nn.Flatten:
        return "reshaping"
    if type(part) in _SAME_MODULES:
        return "same"
    return "pointwise" if type(part) in _POINTWISE_MODULES else ""


def _name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target.overloadpacket.__name__
    return str(getattr(target, "__name__", target))


def works_in_place(graph: fx.GraphModule) -> bool:
    """Whether some operation writes into what it was given.

    Args:
        graph: Any.
    """
    for node in graph.graph.nodes:
        if node.op == "call_module":
            if any(getattr(p, "inplace", False) for p in _parts(graph, node)):
                return True
        elif node.op in ("call_function", "call_method"):
            name = _name(node)
            marked = name.endswith("_") and not name.endswith("__")
            if marked or name in _IN_PLACE or "out" in node.kwargs:
                return True
            if node.kwargs.get("inplace") or _told_by_place(node):
                return True
    return False


def _told_by_place(node: fx.Node) -> bool:
    """Whether the argument ``inplace`` of a Python function is given without its name."""
    if not inspect.isfunction(node.target):
        return False
    names = list(inspect.signature(node.target).parameters)
    return "inplace" in names and argument(node, names.index("inplace"), "inplace") is True


def _parts(graph: fx.GraphModule, node: fx.Node) -> list[nn.Module]:
    return list(graph.get_submodule(str(node.target)).modules())


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """An argument of a node, given by place or by name.

    Args:
        node: The node.
        place: Its place.
        name: Its name.
        default: What it is where it is not given.
    """
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


@dataclass(frozen=True)
class Indexing:
    """A selection by whole numbers and slices.

    Attributes:
        source: What is selected from.
        entries: One for each axis of the source: a position, or a range of them; ``None``
            between them for each new axis.
    """

    source: fx.Node
    entries: tuple[int | range | None, ...]

    def of_axes(self) -> list[int | range]:
        """The entries of the source's axes."""
        return [entry for entry in self.entries if entry is not None]

    def source_axis(self, axis: int) -> int | None:
        """Which axis of the source an axis of the result is, or ``None`` for a new one."""
        result = taken = 0
        for entry in self.entries:
            if not isinstance(entry, int):
                if result == axis:
                    return None if entry is None else taken
                result += 1
            taken += entry is not None
        return None


def indexing(
    node: fx.Node,
    kind: str,
    shapes: Mapping[fx.Node, tuple[int, ...]],
    values: Mapping[fx.Node, Any],
) -> Indexing | None:
    """What a node selects from a tensor, if it does that by constants alone.

    Args:
        node: The node.
        kind: Of :func:`kind_of`.
        shapes: Of all tensors.
        values: Of all numbers.
    """
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source not in shapes:
        return None
    shape = shapes[source]
    if kind == "getitem":
        given = node.args[1] if isinstance(node.args[1], tuple) else (node.args[1],)
    elif kind in ("select", "slice", "narrow"):
        axis = argument(node, 1, "dim", 0)
        if not isinstance(axis, int):
            return None
        first, second = argument(node, 2, "start"), argument(node, 3, "end")
        if kind == "select":
            own: Any = argument(node, 2, "index")
        elif kind == "slice":
            own = slice(first, second, argument(node, 4, "step", 1))
        else:
            length = argument(node, 3, "length")
            if not isinstance(first, int) or not isinstance(length, int) or first < 0:
                return None
            own = slice(first, first + length)
        given = (slice(None),) * (axis % len(shape)) + (own,)
    else:
        return None
    entries = _entries(_known(given, values), shape)
    return None if entries is None else Indexing(source, entries)


def _known(given: tuple[Any, ...], values: Mapping[fx.Node, Any]) -> tuple[Any, ...]:
    def known(value: Any) -> Any:
        return values.get(value, value) if isinstance(value, fx.Node) else value

    return tuple(
        slice(known(each.start), known(each.stop), known(each.step))
        if isinstance(each, slice)
        else known(each)
        for each in given
    )


def _entries(
    given: tuple[Any, ...], shape: tuple[int, ...]
) -> tuple[int | range | None, ...] | None:
    used = sum(each is not None and each is not Ellipsis for each in given)
    if not any(each is Ellipsis for each in given):
        given = (*given, Ellipsis)
    found: list[int | range | None] = []
    axis = 0
    for each in given:
        if each is None:
            found.append(None)
            continue
        if each is Ellipsis:
            missing = len(shape) - used
            found += [range(size) for size in shape[axis : axis + missing]]
            axis += missing
            continue
        if isinstance(each, bool) or not isinstance(each, (int, slice)) or axis >= len(shape):
            return None
        if isinstance(each, int):
            found.append(each % shape[axis])
        else:
            ends = (each.start, each.stop, each.step)
            if not all(end is None or isinstance(end, int) for end in ends):
                return None
            found.append(range(shape[axis])[each])
        axis += 1
    return tuple(found)
