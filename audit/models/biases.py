"""What a head adds whatever it is given: its biases, as a direction to differentiate along."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

# Operations that add an argument as a bias, and its place and name.
_BIAS_PLACES = {
    "conv1d": 2, "conv2d": 2, "conv3d": 2, "convolution": 2, "_convolution": 2, "linear": 2,
    "addmm": 0, "layer_norm": 3, "group_norm": 3, "native_layer_norm": 3,
}  # fmt: skip


def bias_tangents(head: nn.Module) -> dict[str, Tensor]:
    """For each parameter that is added, what it adds.

    A batch norm in evaluation mode adds its bias less the mean that it subtracts.

    Args:
        head: Any module; graphs inside it are read operation by operation.

    Returns:
        Tangents by the parameters' names in ``head``.

    Example:
        >>> bias_tangents(nn.Linear(2, 1))["bias"].shape
        torch.Size([1])
    """
    tangents = {
        name: parameter.detach()
        for name, parameter in head.named_parameters()
        if name.rpartition(".")[2] == "bias"
    }
    for name, part in head.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.affine:
            shift = _shift(part.weight, part.bias, part.running_mean, part.running_var, part.eps)
            if shift is not None:
                tangents[f"{prefix}bias"] = shift
        if isinstance(part, fx.GraphModule):
            tangents |= {f"{prefix}{key}": value for key, value in _in_graph(part)}
    return tangents


def _in_graph(module: fx.GraphModule) -> Iterator[tuple[str, Tensor]]:
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        name = _operation(node)
        if "batch_norm" in name:
            yield from _batch_norm(module, node, name)
        elif name in _BIAS_PLACES:
            bias = _argument(node, _BIAS_PLACES[name], "bias")
            if isinstance(bias, fx.Node) and bias.op == "get_attr":
                yield str(bias.target), _value(module, bias)


def _operation(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target.overloadpacket.__name__
    return str(getattr(target, "__name__", target))


def _argument(node: fx.Node, place: int, name: str) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)


def _batch_norm(module: fx.GraphModule, node: fx.Node, name: str) -> Iterator[tuple[str, Tensor]]:
    if node.target is F.batch_norm:
        places = {"running_mean": 1, "running_var": 2, "weight": 3, "bias": 4, "eps": 7}
    elif name == "_native_batch_norm_legit_no_training":
        places = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4, "eps": 6}
    else:
        places = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4, "eps": 7}
    found = {key: _argument(node, place, key) for key, place in places.items()}
    bias, eps = found["bias"], found["eps"]
    nodes = [found[key] for key in ("weight", "bias", "running_mean", "running_var")]
    if not all(isinstance(n, fx.Node) and n.op == "get_attr" for n in nodes):
        return
    weight, added, mean, variance = (_value(module, n) for n in nodes)
    shift = _shift(weight, added, mean, variance, 1e-5 if eps is None else eps)
    if shift is not None:
        yield str(bias.target), shift


def _shift(
    weight: Tensor, bias: Tensor, mean: Tensor | None, variance: Tensor | None, eps: float
) -> Tensor | None:
    if mean is None or variance is None:
        return None
    return (bias - mean * weight / (variance + eps).sqrt()).detach()


def _value(module: fx.GraphModule, node: fx.Node) -> Tensor:
    value: Tensor = operator.attrgetter(str(node.target))(module)
    return value.detach()
