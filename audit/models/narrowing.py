"""A graph that computes no more than what is wanted of its nodes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import fx, nn

from audit.models.attending import mixture_of, scores_of
from audit.models.demand import Demand, Want, piece_of
from audit.models.graph import operation
from audit.models.kinds import argument, kind_of
from audit.models.projections import Projection


class NotNarrowedError(Exception):
    """Something is wanted in a way that cannot be built; the message says what."""


def narrowed(demand: Demand) -> fx.GraphModule:
    """The same outputs with less work.

    Args:
        demand: What is wanted of every node.

    Returns:
        A graph that shares the parameters of the graph that was looked at.

    Raises:
        NotNarrowedError: If it cannot be built.
    """
    graph = _Builder(demand).graph
    module = fx.GraphModule(demand.graph, graph)
    graph.eliminate_dead_code()
    module.recompile()
    module.delete_all_unused_submodules()
    return module


class _Builder:
    """Writes the new graph in the order of the old one."""

    def __init__(self, demand: Demand) -> None:
        self.graph = fx.Graph()
        self._demand = demand
        self._old = demand.graph
        self._wants = demand.wants
        # Each node, whole or in part as the demand says.
        self._made: dict[fx.Node, Any] = {}
        self._taken: dict[tuple[fx.Node, Want], fx.Node] = {}
        for node in self._old.graph.nodes:
            if node.op == "placeholder":
                # Every input stays, so that the graph is called as before.
                self._made[node] = self.graph.node_copy(node, self._whole)
            elif node in self._wants:
                self._made[node] = self._make(node)

    def _make(self, node: fx.Node) -> Any:
        if node in self._demand.projections:
            return self._projection(self._demand.projections[node], self._input(node))
        if node in self._demand.indexings:
            return self._selection(node)
        kind, want = kind_of(self._old, node), self._wants[node]
        if want is None:
            size = self._size(node, kind)
            return self.graph.node_copy(node, self._given(node)) if size is None else size
        rule = self._RULES.get(kind)
        if rule is not None:
            return rule(self, node, want)
        source = node.args[0]
        if isinstance(source, fx.Node) and self._is_attention_module(source):
            return self._made[source]
        return self.graph.node_copy(node, self._given(node))

    def _is_attention_module(self, node: fx.Node) -> bool:
        return kind_of(self._old, node) == "multihead_attention"

    def _given(self, node: fx.Node) -> Any:
        return lambda each: self._part(each, self._demand.asked.get((node, each)))

    def _input(self, node: fx.Node) -> fx.Node:
        """What a projection's layer reads."""
        source = self._demand.projections[node].source
        return self._part(source, self._demand.asked.get((node, source)))

    def _whole(self, node: fx.Node) -> Any:
        if self._wants.get(node) is not None:
            raise NotNarrowedError(f"all of {node}")
        return self._made[node]

    def _part(self, node: fx.Node, want: Want | None) -> Any:
        """The wanted positions of a node, whatever was made of it."""
        have = self._wants[node]
        if want is None and node not in self._demand.seen.shapes:
            return self._made[node]  # numbers, and bundles of tensors that are in part
        if want is None:
            return self._whole(node)
        if have == want or node not in self._demand.seen.shapes:
            return self._made[node]
        key = (node, want)
        if key not in self._taken:
            known = tuple(range(want.length)) if have is None else have.positions
            if want.folded or (have is not None and have.axis != want.axis):
                raise NotNarrowedError(f"some of {node} on an axis that holds more")
            places = [known.index(position) for position in want.positions]
            self._taken[key] = self._take(self._made[node], want.axis, places)
        return self._taken[key]

    def _take(self, made: fx.Node, axis: int, places: list[int]) -> fx.Node:
        index: Any = places
        if places == list(range(places[0], places[-1] + 1)):
            index = slice(places[0], places[-1] + 1)
        entries = (*(slice(None),) * axis, index)
        return self.graph.call_function(operator.getitem, (made, entries))

    def _size(self, node: fx.Node, kind: str) -> int | None:
        """The length of an axis that is computed in part, where a node reads it."""
        if kind == "getitem" and isinstance(node.args[0], fx.Node):
            read, axis = node.args[0], node.args[1]
            if kind_of(self._old, read) not in ("getattr", "shape", "size"):
                return None
        elif kind in ("size", "sym_size"):
            read, axis = node, argument(node, 1, "dim")
        else:
            return None
        source = read.args[0]
        if not isinstance(source, fx.Node) or not isinstance(axis, int):
            return None
        want, shape = self._wants.get(source), self._demand.seen.shapes.get(source, ())
        if want is None or not shape or axis % len(shape) != want.axis:
            return None
        if want.folded:
            raise NotNarrowedError(f"the length of an axis of {source} that holds more")
        return want.length

    def _selection(self, node: fx.Node) -> fx.Node:
        found, want = self._demand.indexings[node], self._wants[node]
        asked = self._demand.asked[node, found.source]
        assert asked is not None
        made = self._part(found.source, asked)
        axis = -1
        entries: list[Any] = []
        for entry in found.entries:
            axis += entry is not None
            if entry is None:
                entries.append(None)
            elif axis == asked.axis:
                entries.append(0 if isinstance(entry, int) else slice(None))
            elif isinstance(entry, int):
                entries.append(entry)
            else:
                whole = len(entry) == self._demand.seen.shapes[found.source][axis]
                entries.append(slice(None) if whole else slice(entry.start, entry.stop, entry.step))
        plain = all(entry == slice(None) for entry in entries)
        if plain and (want is not None or isinstance(found.entries[asked.axis], range)):
            return made
        return self.graph.call_function(operator.getitem, (made, tuple(entries)))

    def _reshaped(self, node: fx.Node, want: Want) -> fx.Node:
        """The same shape but for the axis of the positions."""
        source, name = node.args[0], operation(node)
        assert isinstance(source, fx.Node)
        if not any(word in name for word in ("reshape", "view")):
            return self.graph.node_copy(node, self._given(node))
        given = node.args[1:] or (argument(node, 1, "shape") or argument(node, 1, "size"),)
        sizes = list(given[0] if isinstance(given[0], (tuple, list)) else given)
        open_axes = [axis for axis, size in enumerate(sizes) if size == -1]
        sizes[want.axis] = -1
        if open_axes not in ([], [want.axis]):
            if want.folded:
                raise NotNarrowedError(f"{node} of positions on an axis that holds more")
            sizes[want.axis] = len(want.positions)
        made = self._given(node)(source)
        sizes = [self._made[size] if isinstance(size, fx.Node) else size for size in sizes]
        # What is in part may lie in memory where no view of it can.
        return self.graph.call_method("reshape", (made, tuple(sizes)))

    def _concatenation(self, node: fx.Node, want: Want) -> Any:
        pieces = argument(node, 0, "tensors")
        axis = argument(node, 1, "dim", 0)
        if axis % len(self._demand.seen.shapes[node]) != want.axis:
            return self.graph.node_copy(node, self._given(node))
        sizes = [self._demand.seen.shapes[each][want.axis] for each in pieces]
        place = piece_of(pieces, want, sizes)
        assert place is not None
        return self._part(*place)

    def _rows(self, linear: fx.Node, first: int, rows: int) -> tuple[fx.Node, fx.Node | None]:
        """Some rows of a layer's weight and bias, as slices of its own parameters."""
        if linear.op == "call_module":
            part = self._old.get_submodule(str(linear.target))
            names = [f"{linear.target}.{name}" for name in ("weight", "bias")]
            held = [self.graph.get_attr(names[0])]
            if part.bias is not None:
                held.append(self.graph.get_attr(names[1]))
        else:
            given = (argument(linear, 1, "weight"), argument(linear, 2, "bias"))
            held = [self._whole(each) for each in given if each is not None]
        return self._sliced(held, first, rows)

    def _sliced(self, held: list[fx.Node], first: int, rows: int) -> tuple[fx.Node, fx.Node | None]:
        taken = [
            self.graph.call_function(operator.getitem, (each, slice(first, first + rows)))
            for each in held
        ]
        return taken[0], taken[1] if len(taken) > 1 else None

    def _projection(self, found: Projection, source: fx.Node) -> fx.Node:
        """The layer's outputs that it holds, and no others, in their places."""
        weight, bias = self._rows(found.linear, found.first, found.rows)
        made = self.graph.call_function(F.linear, (source, weight, bias))
        made = self.graph.call_method("unflatten", (made, -1, found.sizes))
        return self.graph.call_method("permute", (made, found.axes))

    def _tokens(self, found: Projection) -> fx.Node:
        """What keys or values are a map of, N×T×C."""
        source: fx.Node = self._whole(found.source)
        if found.axes[0] == 0:
            return source
        return self.graph.call_method("transpose", (source, 0, 1))

    def _scores(self, queries: fx.Node, found: Projection, scale: float) -> fx.Node:
        weight, bias = self._rows(found.linear, found.first, found.rows)
        given = (queries, self._tokens(found), weight, bias, scale)
        return self.graph.call_function(scores_of, given)

    def _mixture(self, weights: fx.Node, found: Projection) -> fx.Node:
        rows = self._rows(found.linear, found.first, found.rows)
        return self.graph.call_function(mixture_of, (weights, self._tokens(found), *rows))

    def _product(self, node: fx.Node, _: Want) -> fx.Node:
        left, right = node.args[0], argument(node, 1, "other")
        absorbed = self._demand.absorbed.get(node)
        given = self._given(node)
        if absorbed is None:
            return self.graph.call_function(torch.matmul, (given(left), given(right)))
        keys, values = absorbed
        if keys is not None:
            return self._scores(given(left), keys, 1.0)
        assert values is not None
        return self._mixture(given(left), values)

    def _attention(self, node: fx.Node, _: Want) -> fx.Node:
        queries, keys, values = (
            argument(node, place, name) for place, name in enumerate(("query", "key", "value"))
        )
        made = self._given(node)(queries)
        scale = argument(node, 6, "scale")
        absorbed = self._demand.absorbed.get(node)
        if absorbed is None:
            given = (made, self._whole(keys), self._whole(values))
            return self.graph.call_function(F.scaled_dot_product_attention, given, {"scale": scale})
        if scale is None:
            scale = self._demand.seen.shapes[queries][-1] ** -0.5
        if absorbed[0] is not None:
            scores = self._scores(made, absorbed[0], scale)
        else:
            turned = self.graph.call_method("transpose", (self._whole(keys), -2, -1))
            scaled = self.graph.call_function(operator.mul, (made, scale))
            scores = self.graph.call_function(torch.matmul, (scaled, turned))
        weights = self._softmax(scores)
        if absorbed[1] is not None:
            return self._mixture(weights, absorbed[1])
        return self.graph.call_function(torch.matmul, (weights, self._whole(values)))

    def _softmax(self, scores: fx.Node) -> fx.Node:
        return self.graph.call_function(torch.softmax, (scores, -1))

    def _attention_module(self, node: fx.Node, _: Want) -> fx.Node:
        """What the module gives for some queries, from its own parameters."""
        part = self._old.get_submodule(str(node.target))
        assert isinstance(part, nn.MultiheadAttention)
        queries, keys, values = (
            argument(node, place, name) for place, name in enumerate(("query", "key", "value"))
        )
        names = ["in_proj_weight", "in_proj_bias"][: 1 if part.in_proj_bias is None else 2]
        held = [self.graph.get_attr(f"{node.target}.{name}") for name in names]
        width = part.embed_dim
        made = self.graph.call_function(
            F.linear, (self._given(node)(queries), *self._sliced(held, 0, width))
        )
        made = self.graph.call_method("unflatten", (made, -1, (part.num_heads, part.head_dim)))
        made = self.graph.call_method("transpose", (made, 1, 2))
        to_keys, to_values = self._sliced(held, width, width), self._sliced(held, 2 * width, width)
        scores = self.graph.call_function(
            scores_of, (made, self._whole(keys), *to_keys, part.head_dim**-0.5)
        )
        mixed = self.graph.call_function(
            mixture_of, (self._softmax(scores), self._whole(values), *to_values)
        )
        mixed = self.graph.call_method("transpose", (mixed, 1, 2))
        mixed = self.graph.call_method("flatten", (mixed, 2))
        return self.graph.call_module(f"{node.target}.out_proj", (mixed,))

    _RULES: ClassVar[dict[str, Callable[[_Builder, fx.Node, Want], Any]]] = {
        "reshaping": _reshaped,
        "cat": _concatenation,
        "matmul": _product,
        "bmm": _product,
        "scaled_dot_product_attention": _attention,
        "multihead_attention": _attention_module,
    }
