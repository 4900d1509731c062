"""A network as a graph of operations, and the two halves of such a graph."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

# Operations that only select, move or average what another gave, by a word in their name.
PASSIVE = (
    "pool", "dropout", "drop_path", "droppath", "identity", "flatten", "contiguous", "clone",
    "permute", "transpose", "reshape", "view", "movedim", "detach", "alias",
)  # fmt: skip


@dataclass
class Record:
    """What a dry run saw.

    Attributes:
        shapes: Of every tensor, by node.
        values: Numbers and sizes, by node.
        floats: The nodes whose tensors hold real numbers.
        tensors: The tensors themselves of the nodes that were asked for.
        output: The logits.
    """

    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    values: dict[fx.Node, Any] = field(default_factory=dict)
    floats: set[fx.Node] = field(default_factory=set)
    tensors: dict[fx.Node, Tensor] = field(default_factory=dict)
    output: Tensor | None = None


class Recorder(fx.Interpreter):
    """Runs a graph and writes down shapes.

    Args:
        graph: The graph.
        keep: Nodes whose tensors are kept.
    """

    def __init__(self, graph: fx.GraphModule, keep: frozenset[fx.Node] = frozenset()) -> None:
        super().__init__(graph)
        self.record = Record()
        self._keep = keep

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; called by :meth:`run`."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.record.shapes[n] = tuple(result.shape)
            if result.is_floating_point():
                self.record.floats.add(n)
            if n in self._keep:
                self.record.tensors[n] = result
        elif _is_number(result):
            self.record.values[n] = result
        return result


def _is_number(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_number(each) for each in value)
    return value is None or isinstance(value, (int, float, bool, torch.dtype, torch.device))


def record(graph: fx.GraphModule, images: Tensor, keep: frozenset[fx.Node] = frozenset()) -> Record:
    """Run a graph once and write down what passes through it.

    Args:
        graph: The graph.
        images: N×3×H×W.
        keep: Nodes whose tensors are wanted too.
    """
    recorder = Recorder(graph, keep)
    output = recorder.run(images)
    recorder.record.output = output[0] if isinstance(output, (tuple, list)) else output
    return recorder.record


class Flow:
    """Which nodes of a graph read which.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: fx.Graph) -> None:
        self.order = list(graph.nodes)
        self.place = {node: place for place, node in enumerate(self.order)}
        self.live: set[fx.Node] = set()
        for node in self.order:
            if node.op == "placeholder" or any(arg in self.live for arg in node.all_input_nodes):
                self.live.add(node)
        reached: set[fx.Node] = set()
        self._last_use: dict[fx.Node, int] = {}
        for node in reversed(self.order):
            users = [user for user in node.users if user in reached]
            if node.op == "output" or users:
                reached.add(node)
            self._last_use[node] = max((self.place[user] for user in users), default=-1)

    def boundary(self, node: fx.Node) -> list[fx.Node]:
        """What the operations after a node read beside it from before it, in order."""
        cut = self.place[node]
        return [n for n in self.order[:cut] if n in self.live and self._last_use[n] > cut]


def first_half(captured: fx.GraphModule, outputs: list[fx.Node]) -> fx.GraphModule:
    """The graph up to some nodes.

    Args:
        captured: The whole.
        outputs: What it shall give; the last in order ends it.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    waiting = set(outputs)
    for old in captured.graph.nodes:
        copies[old] = graph.node_copy(old, copies.__getitem__)
        waiting.discard(old)
        if not waiting:
            break
    graph.output(tuple(copies[node] for node in outputs))
    return _finished(captured, graph)


def second_half(
    captured: fx.GraphModule,
    inputs: list[fx.Node],
    numbers: Mapping[fx.Node, Any],
    also: list[fx.Node] | None = None,
) -> fx.GraphModule:
    """The graph after some nodes.

    Args:
        captured: The whole.
        inputs: What it is given instead; the first is the one that it is cut at.
        numbers: Sizes from before the cut: a number, or a :class:`PerImage`.
        also: Later nodes whose values it gives too, before the logits.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, Any] = {
        node: graph.placeholder(f"given_{n}") for n, node in enumerate(inputs)
    }
    copies |= _sizes(graph, copies[inputs[0]], numbers)
    taps: dict[fx.Node, fx.Node] = {}
    seen = False
    for old in captured.graph.nodes:
        constant = old.op == "get_attr" or not (old.all_input_nodes or old.op == "placeholder")
        if old.op == "output":
            logits = copies[_single(old.args[0])]
            graph.output((*(taps[node] for node in also), logits) if also else logits)
        elif (seen or constant) and old not in copies and _ready(old, copies):
            copies[old] = graph.node_copy(old, copies.__getitem__)
            if also and old in also:
                # An operation that follows in place must not write into what is given.
                taps[old] = copies[old]
                copies[old] = graph.call_method("clone", (copies[old],))
        seen = seen or old is inputs[0]
    return _finished(captured, graph)


def _single(output: Any) -> fx.Node:
    """The logits' node; torch.export returns them in a tuple."""
    node: fx.Node = output[0] if isinstance(output, (tuple, list)) else output
    return node


def _ready(node: fx.Node, copies: Mapping[fx.Node, Any]) -> bool:
    return all(arg in copies for arg in node.all_input_nodes)


def _sizes(graph: fx.Graph, given: fx.Node, numbers: Mapping[fx.Node, Any]) -> dict[fx.Node, Any]:
    def rebuilt(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(rebuilt(each) for each in value)
        if not isinstance(value, PerImage):
            return value
        size = graph.call_method("size", (given, 0))
        return size if value.times == 1 else graph.call_function(operator.mul, (size, value.times))

    return {node: rebuilt(value) for node, value in numbers.items()}


@dataclass(frozen=True)
class PerImage:
    """A number that grows with the batch.

    Attributes:
        times: By how much for each image.
    """

    times: int


class _Unsettled:
    """Says that a number is neither fixed nor grows with the batch."""


UNSETTLED = _Unsettled()


def settled(first: object, second: object, counts: tuple[int, int]) -> object:
    """A number of the graph that was seen at two batch sizes: fixed, or growing with the batch.

    Args:
        first: At the first size; a number or a tuple of them.
        second: At the second.
        counts: The two sizes.

    Returns:
        The number, a :class:`PerImage`, a tuple of these, or :data:`UNSETTLED`.

    Example:
        >>> settled(14, 14, (2, 3)), settled((2, 8), (3, 12), (2, 3))
        (14, (PerImage(times=1), PerImage(times=4)))
        >>> settled(4, 5, (2, 3)) is UNSETTLED
        True
    """
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)):
        if len(first) != len(second):
            return UNSETTLED
        each = tuple(settled(a, b, counts) for a, b in zip(first, second, strict=True))
        return UNSETTLED if UNSETTLED in each else each
    if first == second:
        return first
    if isinstance(first, int) and isinstance(second, int):
        times, rest = divmod(first, counts[0])
        if rest == 0 and times * counts[1] == second:
            return PerImage(times)
    return UNSETTLED


def _finished(captured: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    """The graph as a module that shares the network's parameters and holds no others."""
    module = fx.GraphModule(captured, graph)
    graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    return module


def is_passive(captured: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node only selects, moves or averages what one other node gave."""
    live = [arg for arg in node.all_input_nodes if arg.op != "get_attr"]
    if len(live) != 1:
        return False
    if node.op == "call_module":
        part = captured.get_submodule(str(node.target))
        if next(part.parameters(), None) is not None:
            return False
        return any(word in type(part).__name__.lower() for word in PASSIVE)
    return any(word in operation(node) for word in PASSIVE)


def operation(node: fx.Node) -> str:
    """The name of what a node does, in lower case."""
    if isinstance(node.target, str):
        return node.target.lower()
    return str(getattr(node.target, "__name__", node.target)).lower()


def label(node: fx.Node) -> str:
    """A node's name for people: its module's path, or its operation inside a module."""
    if node.op == "call_module":
        return str(node.target)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    inside = str(stack[-1][0]) if stack else ""
    return f"{inside}.{node.name}" if inside else node.name


def parameters_between(captured: fx.GraphModule, start: fx.Node, stop: fx.Node) -> int:
    """How many numbers the operations after one node and up to another hold."""
    order = list(captured.graph.nodes)
    nodes = order[order.index(start) + 1 : order.index(stop) + 1]
    return sum(_held(captured, node) for node in _with_attributes(nodes))


def _with_attributes(nodes: list[fx.Node]) -> Iterator[fx.Node]:
    seen: set[fx.Node] = set()
    for node in nodes:
        for each in (node, *node.all_input_nodes):
            if each not in seen and (each is node or each.op == "get_attr"):
                seen.add(each)
                yield each


def _held(captured: fx.GraphModule, node: fx.Node) -> int:
    if node.op == "call_module":
        return sum(p.numel() for p in captured.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        value: Any = captured
        for step in str(node.target).split("."):
            value = getattr(value, step)
        return value.numel() if isinstance(value, nn.Parameter) else 0
    return 0
