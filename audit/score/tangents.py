"""Derivatives of a head along several directions, in one pass over its graph.

Forward-mode differentiation computes every operation for each direction, and all of them for the
biases too. A head that was captured as a graph can be followed operation by operation: what an
operation gives is computed once, what it does to all directions by a rule of its own where that
is cheaper, and what the biases add is nothing before the first of them, and the same for all
images until something depends on the image. An operation without a rule is differentiated alone.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call, jvp, vmap
from torch.utils import _pytree as pytree

from audit.products import linear
from audit.score.operations import BY_PLACE, RULES, Call, Push, alone, fitted

# Along the directions, and along the biases; None for nothing.
_Moved = tuple[Any, Any]

_WRITING = frozenset(
    f"{before}{name}{before}"
    for name in ("iadd", "isub", "imul", "itruediv", "ipow", "setitem")
    for before in ("", "__")
)
# What writes into its first argument, and what gives the same without.
_WITHOUT_WRITING: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    torch.relu_: torch.relu,
    "relu_": torch.relu,
}
# Operations whose result is no view of what they were given.
_NEW = frozenset(("add", "mul", "linear", "conv2d", "batch_norm", "layer_norm", "max_pool2d"))
# Operations that give what they are given.
_PASSING = frozenset(("Identity", "Dropout", "dropout", "contiguous"))
# Operations that give no tensors.
_NUMBERS = frozenset(("getattr", "size", "dim", "len"))
# What may be given by name after the first arguments, in order, and what it is otherwise.
_NAMED: dict[str, tuple[int, dict[str, Any]]] = {
    "linear": (2, {"bias": None}),
    "layer_norm": (2, {"weight": None, "bias": None, "eps": 1e-5}),
    "softmax": (1, {"dim": None}),
    "max_pool2d": (2, {
        "stride": None, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False,
    }),
}  # fmt: skip
# Modules that are a function of what they are given and of what they hold.
_MODULES: dict[type[nn.Module], tuple[str, Callable[..., Any], tuple[str, ...]]] = {
    nn.Linear: ("linear", linear, ("weight", "bias")),
    nn.LayerNorm: ("layer_norm", F.layer_norm, ("normalized_shape", "weight", "bias", "eps")),
    nn.Conv2d: (
        "conv2d", F.conv2d, ("weight", "bias", "stride", "padding", "dilation", "groups"),
    ),
    nn.BatchNorm2d: (
        "batch_norm", F.batch_norm,
        ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    ),
    nn.MaxPool2d: (
        "max_pool2d", F.max_pool2d,
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
}  # fmt: skip
# What following a graph may raise that differentiating it does not.
_TROUBLE = (
    RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError,
)  # fmt: skip
# Whether a captured graph can be followed, once that was tried.
_FOLLOWED: WeakKeyDictionary[fx.GraphModule, bool] = WeakKeyDictionary()


class NotFollowedError(ValueError):
    """An operation writes into what others may read, or has no form that can be followed."""


def derivatives(
    head: nn.Module,
    features: Tensor,
    directions: Tensor,
    *,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Derivatives of a head's logits along directions of the features, and along its biases.

    A head that holds a captured graph as ``inner``, and how its activation is made of features as
    ``layout``, is followed operation by operation, if on two random samples that gives the same as
    forward-mode differentiation of the whole, which any other head is left to.

    Args:
        head: Features, and whatever else it reads, to logits, in evaluation mode.
        features: ``A``, N×C×h×w.
        directions: S×N×C×h×w.
        biases: For each parameter that the head adds, what it adds, by name.
        rest: What the head reads beside the features; it does not move.

    Returns:
        S×N×K for the directions, and N×K for the biases.

    Example:
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
        >>> head[1].weight.data = torch.tensor([[1.0, -1.0]])
        >>> A = torch.tensor([[[[3.0, 5.0]]]])
        >>> biases = {"1.bias": torch.tensor([0.5])}
        >>> [found.tolist() for found in derivatives(head, A, A[None], biases=biases)]
        [[[[-2.0]]], [[0.5]]]
    """
    graph = getattr(head, "inner", None)
    held = dict(head.named_parameters())
    followable = isinstance(graph, fx.GraphModule) and hasattr(head, "layout")
    if not followable or not biases.keys() <= held.keys():
        return by_forward_mode(head, features, directions, biases=biases, rest=rest)
    known = cast("fx.GraphModule", graph)
    if known not in _FOLLOWED:
        # Never tried on a batch's own samples: what is decided must not depend on them.
        few, *others = (_drawn_like(each) for each in (features, *rest))
        both = torch.stack([few, few.flip(-1)])
        _FOLLOWED[known] = _agree(head, few, both, biases, tuple(others))
    if _FOLLOWED[known]:
        try:
            return _followed(head, features, directions, biases, rest)
        except torch.OutOfMemoryError:
            raise
        except _TROUBLE:
            _FOLLOWED[known] = False
    return by_forward_mode(head, features, directions, biases=biases, rest=rest)


def _drawn_like(batch: Tensor) -> Tensor:
    """Two samples of random numbers, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn((2, *batch.shape[1:]), generator=generator, dtype=torch.float32)
    return drawn.to(batch)


def by_forward_mode(
    head: nn.Module,
    features: Tensor,
    directions: Tensor,
    *,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor]:
    """As :func:`derivatives`, of any head as a whole.

    Args:
        head: As there, and so are the others.
        features: Likewise.
        directions: Likewise.
        biases: Likewise.
        rest: Likewise.

    Returns:
        Likewise.
    """
    held = {**dict(head.named_parameters()), **dict(head.named_buffers())}
    values = {name: held[name].detach() for name in biases}
    if not values:
        found = vmap(lambda t: jvp(lambda a: head(a, *rest), (features,), (t,))[1])(directions)
        return found, torch.zeros_like(found[0])

    def of(given: Tensor, changed: dict[str, Tensor]) -> Tensor:
        return cast("Tensor", functional_call(head, changed, (given, *rest)))

    def moved(cells: Tensor, added: dict[str, Tensor]) -> Tensor:
        return jvp(of, (features, values), (cells, added))[1]

    count = len(directions)
    last = {
        name: torch.cat([tangent.new_zeros(count, *tangent.shape), tangent[None]])
        for name, tangent in biases.items()
    }
    found = vmap(moved)(torch.cat([directions, torch.zeros_like(directions[:1])]), last)
    return found[:count], found[count]


def _followed(
    head: Any,
    features: Tensor,
    directions: Tensor,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...],
) -> tuple[Tensor, Tensor]:
    held = dict(head.named_parameters())
    before, still = None, None
    if head.layout.prefix:
        before, rest = rest[0], rest[1:]
        still = torch.zeros_like(before).repeat(len(directions), *(1,) * (before.dim() - 1))
    moved = head.layout.join(directions.flatten(0, 1), still).unflatten(0, directions.shape[:2])
    given = (head.layout.join(features, before), *rest)
    tangents = {held[name]: tangent for name, tangent in biases.items()}
    return along(head.inner, given, moved, tangents)


@torch.no_grad()
def _agree(
    head: nn.Module,
    features: Tensor,
    directions: Tensor,
    biases: Mapping[str, Tensor],
    rest: tuple[Tensor, ...],
) -> bool:
    """Whether following the graph gives what differentiating it gives."""
    try:
        ours = _followed(head, features, directions, biases, rest)
    except torch.OutOfMemoryError:
        raise
    except _TROUBLE:
        return False
    theirs = by_forward_mode(head, features, directions, biases=biases, rest=rest)
    share = torch.finfo(theirs[0].dtype).eps ** 0.5
    return all(
        own.shape == other.shape
        and torch.allclose(own, other, rtol=0, atol=share * float(other.abs().max()) + 1e-12)
        for own, other in zip(ours, theirs, strict=True)
    )


def along(
    graph: fx.GraphModule,
    given: tuple[Tensor, ...],
    directions: Tensor,
    biases: Mapping[nn.Parameter, Tensor],
) -> tuple[Tensor, Tensor]:
    """Derivatives of a graph's output along directions of its first input, and along its biases.

    Args:
        graph: Activations to logits N×K, in evaluation mode.
        given: Its inputs, N×….
        directions: Of the first of them, S×N×….
        biases: For each parameter, what it moves by; all of them move together.

    Returns:
        S×N×K for the directions, and N×K for the biases.

    Raises:
        NotFollowedError: If an operation writes into what others may read.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> graph = fx.symbolic_trace(nn.Sequential(layer, nn.ReLU()))
        >>> layer.weight.data, layer.bias.data = torch.tensor([[1.0, -1.0]]), torch.tensor([0.5])
        >>> steps = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> found = along(graph, (torch.tensor([[2.0, 1.0]]),), steps, {layer.bias: layer.bias})
        >>> [each.tolist() for each in found]
        [[[[1.0]], [[-1.0]]], [[0.5]]]
    """
    with torch.no_grad():
        walk = _Walk(graph, directions, biases)
        logits = walk.run(*given)
        cells, bias = walk.result
        nothing = torch.zeros_like(logits)
        return (
            nothing.expand(len(directions), *nothing.shape) if cells is None else cells,
            nothing if bias is None else bias[0].expand_as(nothing),
        )


class _Walk(fx.Interpreter):
    """Computes every node once, and beside it what the directions and the biases do to it.

    Directions have a first axis of S, biases one of 1; the next is of one image only where all
    images are moved alike.
    """

    def __init__(
        self, graph: fx.GraphModule, directions: Tensor, biases: Mapping[nn.Parameter, Tensor]
    ) -> None:
        super().__init__(graph)
        # By identity: a parameter may have several names.
        self._biases = {id(parameter): tangent[None] for parameter, tangent in biases.items()}
        first = next(iter(graph.graph.nodes))
        self._moved: dict[fx.Node, _Moved] = {first: (directions, None)}
        self.result: _Moved = (None, None)

    def run_node(self, n: fx.Node) -> Any:
        """The node's value."""
        if n.op in ("placeholder", "get_attr"):
            value = super().run_node(n)
            if id(value) in self._biases:
                self._moved[n] = (None, self._biases[id(value)])
            return value
        if n.op == "output":
            (source,) = n.all_input_nodes
            self.result = self._moved.get(source, self.result)
            return self.env[source]
        call, moved = self._call(n)
        if not call.live or call.name in _NUMBERS:
            value = call.value()
        else:
            value, push = RULES.get(call.name, alone)(call)
            cells, bias = (_pushed(push, moved, value, group) for group in (0, 1))
            self._moved[n] = cells, bias
        for spent in self.user_to_last_uses.get(n, ()):
            self._moved.pop(spent, None)
        return value

    def _call(self, n: fx.Node) -> tuple[Call, dict[int, _Moved]]:
        """A node as an operation, and what is moved of its arguments, by place."""
        name, function, held = self._operation(n)
        placed, named = _placed(name, n)
        nodes: list[Any] = [*placed, *held]
        moving = [node for node in n.all_input_nodes if node in self._moved]
        if any(node not in placed for node in moving):
            # Given by name, or in a list.
            if held:
                raise NotFollowedError(n.name)
            nodes, spec = pytree.tree_flatten((placed, named))
            name, function = "", _unflattened(function, spec)
        elif named:
            function = _named(function, self._values(named))
            name = "" if name in BY_PLACE else name
        moved: dict[int, _Moved] = {}
        for place, node in enumerate(nodes):
            if isinstance(node, fx.Node) and node in self._moved:
                moved[place] = self._moved[node]
            elif isinstance(node, nn.Parameter) and id(node) in self._biases:
                moved[place] = (None, self._biases[id(node)])
        return Call(name, function, tuple(self._values(nodes)), tuple(moved)), moved

    def _values(self, nodes: Any) -> Any:
        return fx.node.map_arg(nodes, self.env.__getitem__)

    def _operation(self, n: fx.Node) -> tuple[str, Callable[..., Any], tuple[Any, ...]]:
        """Its name, what computes it, and what of a module is added to its arguments."""
        if n.op == "call_module":
            part = self.submodules[str(n.target)]
            if any(getattr(each, "inplace", False) for each in part.modules()):
                self._must_be_alone(n)
                if list(part.children()):
                    raise NotFollowedError(n.name)
                part = copy.copy(part)
                part.inplace = False
            return _opened(part, self._biases)
        target = cast("Any", n.target)
        if "out" in n.kwargs or _may_be_told_by_place(n):
            raise NotFollowedError(n.name)
        if n.kwargs.get("inplace") or target in _WITHOUT_WRITING:
            self._must_be_alone(n)
            target = _WITHOUT_WRITING.get(target, target)
        elif _writes(_name(target)):
            raise NotFollowedError(n.name)
        return _name(target), _method(target) if isinstance(target, str) else target, ()

    def _must_be_alone(self, n: fx.Node) -> None:
        """Refuse a node that writes into what others may read."""
        source = n.args[0]
        while isinstance(source, fx.Node) and len(source.users) == 1:
            if source.op == "placeholder":
                return
            name = self._operation(source)[0]
            if name in _NEW:
                return
            if name not in _PASSING:
                break
            source = source.args[0]
        raise NotFollowedError(n.name)


def _name(target: Any) -> str:
    if target is F.max_pool2d:
        return "max_pool2d"
    if isinstance(target, torch._ops.OpOverload):
        return target.overloadpacket.__name__
    return str(getattr(target, "__name__", target))


def _writes(name: str) -> bool:
    return name in _WRITING or (name.endswith("_") and not name.endswith("__"))


def _placed(name: str, n: fx.Node) -> tuple[list[Any], dict[str, Any]]:
    """A node's arguments, with those in their places that were given by name."""
    placed = list(n.args)
    named = {key: value for key, value in n.kwargs.items() if key != "inplace"}
    count, usual = _NAMED.get(name, (0, {}))
    if named and len(placed) >= count and named.keys() & usual.keys():
        for key in list(usual)[len(placed) - count :]:
            placed.append(named.pop(key, usual[key]))
    return placed, named


def _may_be_told_by_place(n: fx.Node) -> bool:
    """Whether an unnamed argument may say that the operation works in place."""
    told = any(each is True for each in n.args)
    return told and "inplace" in getattr(getattr(n.target, "__code__", None), "co_varnames", ())


def _method(name: str) -> Callable[..., Any]:
    return lambda owner, *args, **named: getattr(owner, name)(*args, **named)


def _named(function: Callable[..., Any], named: dict[str, Any]) -> Callable[..., Any]:
    return lambda *args: function(*args, **named)


def _unflattened(function: Callable[..., Any], spec: pytree.TreeSpec) -> Callable[..., Any]:
    def of(*leaves: Any) -> Any:
        args, named = pytree.tree_unflatten(leaves, spec)
        return function(*args, **named)

    return of


def _opened(
    part: nn.Module, moving: Mapping[int, Tensor]
) -> tuple[str, Callable[..., Any], tuple[Any, ...]]:
    """A module as a function of its input and of what it holds."""
    batch_norm = isinstance(part, nn.BatchNorm2d)
    plain = not batch_norm or not (part.training or part.running_mean is None)
    if type(part) in _MODULES and plain and getattr(part, "padding_mode", "zeros") == "zeros":
        name, function, held = _MODULES[type(part)]
        return name, function, tuple(getattr(part, each) for each in held)
    own = {name: p for name, p in part.named_parameters() if id(p) in moving}
    if not own:
        return type(part).__name__, part, ()

    def with_own(given: Any, *values: Tensor) -> Any:
        return functional_call(part, dict(zip(own, values, strict=True)), (given,))

    return "", with_own, tuple(own.values())


def _pushed(push: Push, moved: Mapping[int, _Moved], value: Any, group: int) -> Any:
    own = {place: both[group] for place, both in moved.items() if both[group] is not None}
    return fitted(push(own), value) if own else None
