"""Convolutions of a graph as oneDNN's own, for CPUs: weights laid out once, what follows fused."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from audit.inference.folding import Convolution, is_hooked, next_after, rewrite

_ATEN = torch.ops.aten
_ADDITIONS = (operator.add, operator.iadd, torch.add, _ATEN.add.Tensor, _ATEN.add_.Tensor)


@dataclass(frozen=True)
class _Activation:
    """What oneDNN calls an activation.

    Attributes:
        name: Its name.
        numbers: Its parameters.
        algorithm: How it is computed.
    """

    name: str
    numbers: tuple[float, ...] = ()
    algorithm: str = ""


_RELU, _RELU6 = _Activation("relu"), _Activation("hardtanh", (0.0, 6.0))
_SILU, _HARDSWISH = _Activation("swish"), _Activation("hardswish")
_MODULES: Mapping[type[nn.Module], _Activation] = {
    nn.ReLU: _RELU,
    nn.ReLU6: _RELU6,
    nn.SiLU: _SILU,
    nn.Hardswish: _HARDSWISH,
    nn.Sigmoid: _Activation("sigmoid"),
}
_FUNCTIONS: Mapping[Any, _Activation] = {
    nn.functional.relu: _RELU,
    torch.relu: _RELU,
    torch.relu_: _RELU,
    _ATEN.relu.default: _RELU,
    _ATEN.relu_.default: _RELU,
    nn.functional.relu6: _RELU6,
    _ATEN.relu6.default: _RELU6,
    _ATEN.relu6_.default: _RELU6,
    nn.functional.silu: _SILU,
    _ATEN.silu.default: _SILU,
    _ATEN.silu_.default: _SILU,
    nn.functional.hardswish: _HARDSWISH,
    _ATEN.hardswish.default: _HARDSWISH,
    _ATEN.hardswish_.default: _HARDSWISH,
    "relu": _RELU,
    "relu_": _RELU,
}


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether convolutions on a device may be oneDNN's, in a type."""
    mkldnn = torch.backends.mkldnn
    if device.type != "cpu" or not (mkldnn.is_available() and mkldnn.enabled):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def pack(
    graph: fx.GraphModule,
    found: list[Convolution],
    shapes: Mapping[fx.Node, tuple[int, ...]],
    dtype: torch.dtype,
) -> None:
    """Replace convolutions by packed ones, with additions and activations that follow them.

    Args:
        graph: Is changed.
        found: Convolutions of it.
        shapes: Of its nodes, from a dry run.
        dtype: Of the weights, and of what passes through.
    """
    taken: set[fx.Node] = set()
    kinds = {each.node: _absorb(graph, each, shapes, taken) for each in found}

    def build(each: Convolution, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
        return _packed(graph.graph, each, [weight, bias], *kinds[each.node], dtype)

    given = {each.node: shapes[each.given] for each in found}
    rewrite(graph, found, build, lambda each: _reordered(each, given[each.node], dtype))


def _absorb(
    graph: fx.GraphModule,
    each: Convolution,
    shapes: Mapping[fx.Node, tuple[int, ...]],
    taken: set[fx.Node],
) -> tuple[fx.Node | None, _Activation | None]:
    """Let a convolution compute what follows it: the addition, the activation."""
    addition = next_after(graph, each)
    if addition is not None and addition not in taken and _adds(addition, each.output, shapes):
        each.absorbed.append(addition)
        taken.add(addition)
    else:
        addition = None
    after = next_after(graph, each)
    activation = None if after is None else _activation(graph, after)
    # After an addition oneDNN knows one only.
    if after is not None and activation is not None and (addition is None or activation == _RELU):
        each.absorbed.append(after)
        return addition, activation
    return addition, None


def _adds(node: fx.Node, own: fx.Node, shapes: Mapping[fx.Node, tuple[int, ...]]) -> bool:
    """Whether a node adds two tensors of the same shape, writing into none but ``own``."""
    if node.op != "call_function" or node.target not in _ADDITIONS or node.kwargs:
        return False
    if len(node.args) != 2 or not all(isinstance(arg, fx.Node) for arg in node.args):
        return False
    first, second = node.all_input_nodes if len(node.all_input_nodes) == 2 else (own, own)
    writes = "iadd" in str(node.target) or "add_" in str(node.target)
    return (
        first is not second
        and (first is own or not writes)
        and len(shapes.get(first, ())) == 4
        and shapes.get(first) == shapes.get(second)
    )


def _activation(graph: fx.GraphModule, node: fx.Node) -> _Activation | None:
    if node.op == "call_module":
        part = graph.get_submodule(str(node.target))
        return None if is_hooked(part) else _MODULES.get(type(part))
    alone = len(node.args) == 1 and set(node.kwargs) <= {"inplace"}
    known = node.op in ("call_function", "call_method") and alone
    return _FUNCTIONS.get(node.target) if known else None


def _reordered(each: Convolution, given: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    sides = (_pair(each.padding), _pair(each.stride), _pair(each.dilation))
    weight = each.weight.detach().to(dtype).contiguous()
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, *sides, each.groups, list(given)
    )
    return packed


def _packed(
    graph: fx.Graph,
    each: Convolution,
    constants: list[fx.Node | None],
    addition: fx.Node | None,
    activation: _Activation | None,
    dtype: torch.dtype,
) -> fx.Node:
    def lowered(node: fx.Node) -> fx.Node:
        return node if dtype == torch.float32 else graph.call_method("to", (node, dtype))

    operations = torch.ops.mkldnn._convolution_pointwise
    sides = (_pair(each.padding), _pair(each.stride), _pair(each.dilation))
    shared = (*constants, *sides, each.groups)
    if addition is None:
        kind = activation or _Activation("none")
        alone = (lowered(each.given), *shared, kind.name, list(kind.numbers), kind.algorithm)
        return graph.call_function(operations.default, alone)
    chain = [each.node, *each.absorbed]
    own = chain[chain.index(addition) - 1]
    (other,) = [arg for arg in addition.all_input_nodes if arg is not own]
    last = None if activation is None else activation.name
    both: tuple[Any, ...] = (
        lowered(each.given),
        lowered(other),
        *shared,
        "add",
        1.0,
        last,
        [],
        None,
    )
    return graph.call_function(operations.binary, both)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
