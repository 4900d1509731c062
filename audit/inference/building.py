"""A fast copy of a backbone, made of the graph of its operations."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from audit.inference.folding import (
    Convolution,
    constant,
    convolutions,
    copy_graph,
    finish,
    is_hooked,
    rewrite,
)
from audit.inference.packing import pack
from audit.models.graph import record
from audit.models.halves import FixedBatch, Front, Head
from audit.products import PackedLinear

# With one convolution only, as in a transformer of patches, another layout gains nothing.
_CONVOLUTIONAL = 2
# What passes between two layers shall not leave the caches: bytes for each thread.
_CACHE_BYTES = 2 * 2**20
_LEAST_PIECE = 4
_LINEAR = (nn.functional.linear, torch.ops.aten.linear.default)


def rebuilt(
    backbone: nn.Module, change: Callable[[fx.GraphModule], fx.GraphModule]
) -> nn.Module | None:
    """A half of a network with another graph inside.

    Args:
        backbone: A half of :class:`audit.models.Cut`.
        change: Gives the other graph; the one given stays as it is.

    Returns:
        ``None`` if the backbone is no graph.
    """
    if isinstance(backbone, FixedBatch):
        inner = rebuilt(backbone.inner, change)
        return None if inner is None else FixedBatch(inner, backbone.size)
    if isinstance(backbone, (Front, Head)):
        inner = rebuilt(backbone.inner, change)
        return None if inner is None else type(backbone)(inner, backbone.layout)
    return change(backbone) if isinstance(backbone, fx.GraphModule) else None


def survey(backbone: nn.Module) -> tuple[torch.memory_format, bool]:
    """The layout that a backbone computes fastest in, and whether batch norms can be folded.

    Args:
        backbone: Any; one that is no graph keeps its own layout.
    """
    graphs = [part for part in backbone.modules() if isinstance(part, fx.GraphModule)]
    found = [each for graph in graphs for each in convolutions(graph, fold=False)]
    many = len(found) >= _CONVOLUTIONAL
    layout = torch.channels_last if many else torch.contiguous_format
    return layout, any(each.absorbed for each in found)


def piece_size(backbone: nn.Module, images: Tensor, dtype: torch.dtype) -> int | None:
    """How many images a CPU's caches hold what passes between two layers of.

    Args:
        backbone: On the CPU.
        images: Normalised, for a dry run.
        dtype: Of what passes.

    Returns:
        A power of two; ``None`` for a backbone that is no graph, or takes one number of images.
    """
    inner = backbone.inner if isinstance(backbone, Front) else backbone
    if not isinstance(inner, fx.GraphModule):
        return None
    largest = max(math.prod(shape) for shape in record(inner, images).shapes.values())
    threads = torch.get_num_threads()
    fit = _CACHE_BYTES * threads * len(images) // (largest * dtype.itemsize)
    return 1 << (max(fit, _LEAST_PIECE, threads).bit_length() - 1)


def folded(
    graph: fx.GraphModule, layout: torch.memory_format, dtype: torch.dtype = torch.float32
) -> fx.GraphModule:
    """A copy with batch norms folded into convolutions.

    Args:
        graph: Stays as it is.
        layout: Of the convolutions' weights.
        dtype: Of the weights of convolutions and linear maps.
    """
    copied = copy_graph(graph)

    def build(each: Convolution, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
        given = copied.graph.call_method("to", (each.given, dtype)) if lower else each.given
        options = (each.stride, each.padding, each.dilation, each.groups)
        return copied.graph.call_function(torch.conv2d, (given, weight, bias, *options))

    def convert(each: Convolution) -> Tensor:
        return each.weight.detach().to(dtype=dtype, memory_format=layout)

    lower = dtype != torch.float32
    rewrite(copied, list(convolutions(copied)), build, convert)
    if lower:
        _lower_linear(copied, dtype)
    finish(copied)
    return copied


def packed(
    graph: fx.GraphModule, images: Tensor, dtype: torch.dtype = torch.float32
) -> fx.GraphModule:
    """A copy with batch norms folded into convolutions, these packed for the CPU.

    Args:
        graph: Stays as it is.
        images: Normalised, for a dry run.
        dtype: As of :func:`folded`.
    """
    copied = copy_graph(graph)
    shapes = record(copied, images).shapes
    found = list(convolutions(copied))
    pack(copied, [each for each in found if not isinstance(each.padding, str)], shapes, dtype)
    if dtype == torch.float32:
        pack_linear(copied)
    else:
        _lower_linear(copied, dtype)
    finish(copied)
    return copied


def pack_linear(graph: fx.GraphModule) -> int:
    """Lay out the weights of linear maps for the CPU at hand.

    Args:
        graph: Is changed; its modules, which are the network's, are not.

    Returns:
        How many there were.
    """
    count = 0
    for node in list(graph.graph.nodes):
        found = _linear_map(graph, node)
        if found is None:
            continue
        given, weight, bias = found
        name = f"packed_{node.name}"
        graph.add_submodule(name, PackedLinear(weight, bias))
        with graph.graph.inserting_before(node):
            new = graph.graph.call_module(name, (given,))
        node.replace_all_uses_with(new)
        graph.graph.erase_node(node)
        count += 1
    return count


def _linear_map(
    graph: fx.GraphModule, node: fx.Node
) -> tuple[fx.Node, Tensor, Tensor | None] | None:
    """What a linear map of a constant weight is given, its weight and its bias."""
    if node.op == "call_module":
        part = graph.get_submodule(str(node.target))
        plain = type(part) is nn.Linear and not is_hooked(part) and not node.kwargs
        if not plain or not isinstance(node.args[0], fx.Node):
            return None
        return node.args[0], part.weight, part.bias  # type: ignore[return-value]
    if node.op != "call_function" or node.target not in _LINEAR:
        return None
    parts = {**dict(zip(("input", "weight", "bias"), node.args, strict=False)), **node.kwargs}
    given, weight, bias = (parts.get(name) for name in ("input", "weight", "bias"))
    constants = [constant(graph, each) for each in (weight, bias)]
    if not isinstance(given, fx.Node) or constants[0] is None:
        return None
    if bias is not None and constants[1] is None:
        return None
    return given, constants[0], constants[1]


def _lower_linear(graph: fx.GraphModule, dtype: torch.dtype) -> None:
    """Linear maps with weights of a lower precision, converted once."""
    for node in list(graph.graph.nodes):
        part = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        if part is None or type(part) is not nn.Linear:
            continue
        own = nn.Linear(1, 1, device="meta")
        own.weight = nn.Parameter(part.weight.detach().to(dtype), False)
        own.bias = None if part.bias is None else nn.Parameter(part.bias.detach().to(dtype), False)
        # The module itself is the network's.
        node.target = f"lower_{node.name}"
        graph.add_submodule(node.target, own)
