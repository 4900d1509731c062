"""What single operations do to directions of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp, vmap

from audit.products import linear

# Directions of an operation's arguments (each S×shape), by place, to what they become.
Push = Callable[[dict[int, Any]], Any]
_LINEAR = (
    "reshape", "view", "flatten", "Flatten", "unflatten", "squeeze", "unsqueeze", "permute",
    "transpose", "getitem", "select", "slice", "narrow", "expand", "unbind", "chunk", "split",
    "contiguous", "clone", "dropout", "Dropout", "Identity", "mean", "sum", "avg_pool2d",
    "adaptive_avg_pool2d", "AvgPool2d", "AdaptiveAvgPool2d",
)  # fmt: skip
_POINTWISE = (
    "gelu", "GELU", "silu", "SiLU", "hardswish", "Hardswish", "hardsigmoid", "Hardsigmoid",
    "sigmoid", "Sigmoid", "tanh", "Tanh", "relu6", "ReLU6", "leaky_relu", "LeakyReLU",
)  # fmt: skip
_ARITHMETIC = ("add", "sub", "mul", "truediv", "div")
# Operations whose rules know no other names.
BY_PLACE = frozenset((
    *_ARITHMETIC, "linear", "layer_norm", "max_pool2d", "batch_norm", "matmul", "scores_of",
    "mixture_of",
))  # fmt: skip


class Call(NamedTuple):
    """An operation and what it is given.

    Attributes:
        name: By which its rule is found; empty for none.
        function: What computes it.
        args: The values of its arguments.
        live: The places of those that directions come by.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    live: tuple[int, ...]

    def value(self) -> Any:
        """What it gives."""
        return self.function(*self.args)

    def only(self, *places: int) -> bool:
        """Whether directions come by these places alone."""
        return set(self.live) <= set(places)


def fitted(direction: Any, value: Any) -> Any:
    """Directions S×shape of a value, or S×1×… where all its images are moved alike.

    Args:
        direction: That can be spread to this shape; a tuple for a tuple.
        value: What they belong to.
    """
    if isinstance(value, (tuple, list)):
        return tuple(map(fitted, direction, value))
    aligned = _aligned(direction, value.dim())
    return aligned.expand(*aligned.shape[:2], *value.shape[1:]).to(value.dtype)


def _aligned(direction: Tensor, rank: int) -> Tensor:
    missing = (1,) * (rank + 1 - direction.dim())
    return direction.view(len(direction), *missing, *direction.shape[1:]) if missing else direction


def _full(direction: Tensor, value: Tensor) -> Tensor:
    return direction.expand(len(direction), *value.shape)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor:
    if one is None or other is None:
        return cast("Tensor", other if one is None else one)
    return one + other


def alone(call: Call) -> tuple[Any, Push]:
    """An operation without a rule: differentiated by torch.

    Args:
        call: The operation.

    Returns:
        What it gives, and what becomes of directions.
    """

    def push(directions: dict[int, Any]) -> Any:
        places = sorted(directions)

        def of(*values: Any) -> Any:
            args = list(call.args)
            for place, value in zip(places, values, strict=True):
                args[place] = value
            return call.function(*args)

        primals = tuple(call.args[place] for place in places)

        def one(*tangents: Tensor) -> Any:
            return jvp(of, primals, tangents)[1]

        return vmap(one)(*(_full(directions[p], call.args[p]) for p in places))

    return call.value(), push


def _linear_in_first(call: Call) -> tuple[Any, Push]:
    """What does the same to directions as to values."""
    first, *others = call.args
    if not call.only(0):
        return alone(call)
    if isinstance(first, (tuple, list)):
        return call.value(), lambda directions: call.function(directions[0], *others)
    same = vmap(lambda direction: call.function(direction, *others))
    return call.value(), lambda directions: same(_full(directions[0], first))


def _linear(call: Call) -> tuple[Any, Push]:
    given, weight = call.args[:2]
    if not call.only(0, 2) or given.dim() < 2:
        return alone(call)

    def push(directions: dict[int, Any]) -> Tensor:
        mapped = linear(directions[0], weight) if 0 in directions else None
        added = _aligned(directions[2], given.dim()) if 2 in directions else None
        return _sum(mapped, added)

    return call.value(), push


def _conv(call: Call) -> tuple[Any, Push]:
    if not call.only(0, 2) or len(call.args) < 3 or call.args[0].dim() != 4:
        return alone(call)
    given, weight, _, *settings = call.args

    def push(directions: dict[int, Any]) -> Tensor:
        mapped = added = None
        if 0 in directions:
            each = _full(directions[0], given)
            found = call.function(each.flatten(0, 1), weight, None, *settings)
            mapped = found.unflatten(0, each.shape[:2])
        if 2 in directions:
            added = directions[2][:, None, :, None, None]
        return _sum(mapped, added)

    return call.value(), push


def _batch_norm(call: Call) -> tuple[Any, Push]:
    if not call.only(0, 4) or len(call.args) != 8 or call.args[5] or call.args[2] is None:
        return alone(call)
    given, _, variance, weight, _, _, _, eps = call.args
    shape = (-1, *(1,) * (given.dim() - 2))
    slope = (variance + eps).rsqrt()
    slope = (slope if weight is None else slope * weight).view(shape)

    def push(directions: dict[int, Any]) -> Tensor:
        scaled = directions[0] * slope if 0 in directions else None
        return _sum(scaled, directions[4].view(1, 1, *shape) if 4 in directions else None)

    return call.value(), push


def _relu(call: Call) -> tuple[Any, Push]:
    value = call.value()
    return value, lambda directions: directions[0] * (value > 0)


def _pointwise(call: Call) -> tuple[Any, Push]:
    """What moves every number by its own slope."""
    if not call.only(0):
        return alone(call)
    given, *others = call.args
    found = jvp(lambda x: call.function(x, *others), (given,), (torch.ones_like(given),))
    value, slope = found[0], found[1]
    return value, lambda directions: directions[0] * slope


def _arithmetic(call: Call) -> tuple[Any, Push]:
    if len(call.args) != 2:
        return alone(call)
    x, y = call.args
    value = call.value()

    def push(directions: dict[int, Any]) -> Tensor:
        one, other = (
            _aligned(directions[place], value.dim()) if place in directions else None
            for place in range(2)
        )
        if call.name == "add":
            return _sum(one, other)
        if call.name == "sub":
            return _sum(one, None if other is None else -other)
        if call.name == "mul":
            return _sum(None if one is None else one * y, None if other is None else other * x)
        through = None if other is None else -other * value
        return _sum(one, through) / y

    return value, push


def _max_pool(call: Call) -> tuple[Any, Push]:
    given, *settings = call.args
    if given.dim() != 4 or settings[5:6] == [True]:
        return alone(call)
    # On the CPU torch pools neighbouring channels far faster than neighbouring cells.
    laid = given.contiguous(memory_format=torch.channels_last)
    value, places = F.max_pool2d(laid, *settings[:5], return_indices=True)
    value, places = value.contiguous(), places.contiguous()

    def push(directions: dict[int, Any]) -> Tensor:
        each = _full(directions[0], given).flatten(3)
        taken = each.gather(3, places.flatten(2).expand(len(each), -1, -1, -1))
        return taken.unflatten(3, value.shape[2:])

    return value, push


def _layer_norm(call: Call) -> tuple[Any, Push]:
    given, shape = call.args[:2]
    if not call.only(0, 3) or len(call.args) != 5 or len(shape) != 1 or given.dim() < 2:
        return alone(call)
    weight, bias, eps = call.args[2:5]
    value, mean, scale = torch.native_layer_norm(given, shape, weight, bias, eps)
    normal = (given - mean) * scale
    scale = scale if weight is None else scale * weight

    def push(directions: dict[int, Any]) -> Tensor:
        mapped = added = None
        if 0 in directions:
            each = directions[0]
            along_normal = (each * normal).mean(dim=-1, keepdim=True)
            mapped = each - each.mean(dim=-1, keepdim=True)
            mapped = torch.addcmul(mapped, normal, along_normal, value=-1).mul_(scale)
        if 3 in directions:
            added = _aligned(directions[3], given.dim())
        return _sum(mapped, added)

    return value, push


def _softmax(call: Call) -> tuple[Any, Push]:
    axis = call.args[1] if len(call.args) == 2 else None
    if not call.only(0) or axis is None or axis % call.args[0].dim() == 0:
        return alone(call)
    value = call.value()
    axis = axis % value.dim() - value.dim()

    def push(directions: dict[int, Any]) -> Tensor:
        each = directions[0]
        return value * (each - (value * each).sum(dim=axis, keepdim=True))

    return value, push


def _matmul(call: Call) -> tuple[Any, Push]:
    x, y = call.args
    if x.dim() != y.dim() or x.dim() < 3:
        return alone(call)

    def push(directions: dict[int, Any]) -> Tensor:
        one = _each_by(_full(directions[0], x), y) if 0 in directions else None
        return _sum(one, x @ _full(directions[1], y) if 1 in directions else None)

    return call.value(), push


def _each_by(directions: Tensor, by: Tensor) -> Tensor:
    """S×…×a×b by …×b×c, which torch would copy S times."""
    beside = directions.movedim(0, -3)
    found = beside.flatten(-3, -2) @ by
    return found.unflatten(-2, beside.shape[-3:-1]).movedim(-3, 0)


def _by_head(given: Tensor, maps: Tensor) -> Tensor:
    """…×H×Q×D by H×D×C, one product a head."""
    first = given.movedim(-3, 0)
    return (first.flatten(1, -2) @ maps).view(*first.shape[:-1], -1).movedim(0, -3)


def _scores(call: Call) -> tuple[Any, Push]:
    """``(q W) · x + q · b``, scaled: products of queries with a linear map of tokens."""
    if not call.only(0, 1, 3) or len(call.args) != 5:
        return alone(call)
    queries, tokens, weight, bias, scale = call.args
    heads, width = queries.shape[1], queries.shape[3]
    maps = weight.unflatten(0, (heads, width)) * scale
    shape = (heads, queries.shape[2])

    def push(directions: dict[int, Any]) -> Tensor:
        found = None
        if 0 in directions:
            moved = _full(directions[0], queries)
            found = _each_by(_by_head(moved, maps).flatten(2, 3), tokens.transpose(1, 2))
            found = found.unflatten(2, shape)
            if bias is not None:
                found += moved @ (bias * scale).view(heads, width, 1)
        if 1 in directions:
            moved = _full(directions[1], tokens).transpose(2, 3)
            found = _sum(found, (_by_head(queries, maps).flatten(1, 2) @ moved).unflatten(2, shape))
        if 3 in directions:
            found = _sum(found, (queries @ (directions[3] * scale).view(heads, width, 1))[None])
        return _sum(found, None)

    return call.value(), push


def _mixture(call: Call) -> tuple[Any, Push]:
    """``W (Σ a x) + b Σ a``: sums of a linear map of tokens."""
    if not call.only(0, 1, 3) or len(call.args) != 4:
        return alone(call)
    weights, tokens, weight, bias = call.args
    heads = weights.shape[1]
    maps = weight.unflatten(0, (heads, -1)).transpose(1, 2)
    shape = (heads, weights.shape[2])

    def push(directions: dict[int, Any]) -> Tensor:
        sums = found = None
        if 0 in directions:
            moved = _full(directions[0], weights)
            sums = _each_by(moved.flatten(2, 3), tokens).unflatten(2, shape)
        if 1 in directions:
            own = weights.flatten(1, 2) @ _full(directions[1], tokens)
            sums = _sum(sums, own.unflatten(2, shape))
        if sums is not None:
            found = _by_head(sums, maps)
        if 0 in directions and bias is not None:
            found = _sum(found, moved.sum(dim=4, keepdim=True) * bias.view(heads, 1, -1))
        if 3 in directions:
            own = weights.sum(dim=3, keepdim=True) * directions[3].view(heads, 1, -1)
            found = _sum(found, own[None])
        return _sum(found, None)

    return call.value(), push


# For each operation, what it gives and what becomes of directions.
RULES: dict[str, Callable[[Call], tuple[Any, Push]]] = {
    **dict.fromkeys(_LINEAR, _linear_in_first),
    **dict.fromkeys(_POINTWISE, _pointwise),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    "linear": _linear,
    "conv2d": _conv,
    "batch_norm": _batch_norm,
    "relu": _relu,
    "ReLU": _relu,
    "max_pool2d": _max_pool,
    "layer_norm": _layer_norm,
    "softmax": _softmax,
    "matmul": _matmul,
    "scores_of": _scores,
    "mixture_of": _mixture,
}
