"""Which outputs of a linear layer a rearranged tensor holds: queries, keys, values and the like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from audit.models.kinds import kind_of

_REARRANGING = frozenset((
    "reshaping", "same", "permute", "transpose", "swapaxes", "movedim", "unbind", "chunk", "split",
    "select", "slice", "narrow", "getitem",
))  # fmt: skip
# Longer chains are not attention's.
_MOST_STEPS = 16


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A rearrangement of neighbouring outputs of a linear layer on a tensor of three axes.

    Attributes:
        linear: The layer's node.
        source: What the layer reads.
        chain: The nodes from the layer, without it, to the rearranged tensor.
        first: The first of the outputs.
        sizes: How the outputs are split into axes, in order.
        axes: For each axis of the tensor the axis of the layer's output split in this way.
    """

    linear: fx.Node
    source: fx.Node
    chain: tuple[fx.Node, ...]
    first: int
    sizes: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many outputs of the layer it holds."""
        return math.prod(self.sizes)


def projection_of(
    graph: fx.GraphModule,
    node: fx.Node,
    shapes: Mapping[fx.Node, tuple[int, ...]],
    values: Mapping[fx.Node, Any],
) -> Projection | None:
    """What a node rearranges, or ``None`` if it is more than a rearrangement.

    The numbers of the layer's output are followed through the operations by numbering them.

    Args:
        graph: Where it stands.
        node: Any.
        shapes: Of all tensors.
        values: Of all numbers.
    """
    chain: list[fx.Node] = []
    while kind_of(graph, node) in _REARRANGING and len(chain) < _MOST_STEPS:
        chain.append(node)
        if not (node.args and isinstance(node.args[0], fx.Node)):
            return None
        node = node.args[0]
    if not chain or kind_of(graph, node) != "linear" or len(shapes.get(node, ())) != 3:
        return None
    source = node.args[0] if node.args else None
    if not isinstance(source, fx.Node) or source not in shapes:
        return None
    chain.reverse()
    shape = shapes[node]
    numbers = torch.arange(math.prod(shape)).view(shape)
    found = _carried(graph, node, chain, numbers, values)
    if found is None:
        return None
    layout = _layout(found, shape)
    if layout is None:
        return None
    first, sizes, axes = layout
    return Projection(
        linear=node, source=source, chain=tuple(chain), first=first, sizes=sizes, axes=axes
    )


def _carried(
    graph: fx.GraphModule,
    start: fx.Node,
    chain: list[fx.Node],
    numbers: Tensor,
    values: Mapping[fx.Node, Any],
) -> Tensor | None:
    runner = fx.Interpreter(graph)
    held: dict[fx.Node, Any] = {start: numbers}
    for node in chain:
        if not all(each in held or each in values for each in node.all_input_nodes):
            return None
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs), lambda each: held.get(each, values.get(each))
        )
        try:
            held[node] = getattr(runner, node.op)(node.target, args, kwargs)
        except (RuntimeError, TypeError, ValueError, IndexError):
            return None
    last = held[chain[-1]]
    return last if isinstance(last, Tensor) else None


def _layout(
    numbers: Tensor, shape: tuple[int, ...]
) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """First output, sizes and axes of numbers that went through a chain, if they are regular."""
    outer, inner, outputs = shape
    base = int(numbers.flatten()[0]) if numbers.numel() else -1
    strides = [
        int(numbers.select(axis, 1).flatten()[0]) - base if size > 1 else 0
        for axis, size in enumerate(numbers.shape)
    ]
    regular = torch.full((), base)
    for axis, (size, stride) in enumerate(zip(numbers.shape, strides, strict=True)):
        steps = torch.arange(size) * stride
        regular = regular + steps.view([-1] + [1] * (numbers.dim() - 1 - axis))
    if not 0 <= base < outputs or not torch.equal(regular, numbers):
        return None
    leading = {inner * outputs: (0, outer), outputs: (1, inner)}
    axes = [-1] * numbers.dim()
    split: list[int] = []
    for axis, (size, stride) in enumerate(zip(numbers.shape, strides, strict=True)):
        if stride in leading and leading[stride][1] == size:
            axes[axis] = leading.pop(stride)[0]
        else:
            split.append(axis)
    split.sort(key=lambda axis: (-strides[axis] if strides[axis] else 0, axis))
    # Axes of one cell have no stride; they may stand anywhere, so they come first.
    split.sort(key=lambda axis: strides[axis] != 0)
    expected = 1
    for axis in reversed(split):
        if strides[axis] not in (0, expected):
            return None
        expected *= numbers.shape[axis]
    if leading or base + expected > outputs:
        return None
    for place, axis in enumerate(split):
        axes[axis] = 2 + place
    return base, tuple(numbers.shape[axis] for axis in split), tuple(axes)
