"""Which positions along an axis the operations of a graph must compute for its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import fx, nn

from audit.models.graph import Record, operation
from audit.models.kinds import Indexing, argument, indexing, kind_of
from audit.models.projections import Projection, projection_of

_SIZES = ("size", "shape", "sym_size", "dim", "getattr")


@dataclass(frozen=True, kw_only=True)
class Want:
    """What is wanted of a tensor: some positions along one axis.

    Attributes:
        axis: The axis.
        outer: How many cells are folded into the axis outside the positions.
        inner: How many inside.
        length: How many positions there are.
        positions: Those that are wanted, ascending.
    """

    axis: int
    length: int
    positions: tuple[int, ...]
    outer: int = 1
    inner: int = 1

    @property
    def folded(self) -> bool:
        """Whether other cells share the axis."""
        return (self.outer, self.inner) != (1, 1)


class Demand:
    """What every node of a graph must give, found from its outputs backwards.

    Args:
        graph: The graph.
        seen: What a dry run saw.

    Attributes:
        wants: For each node that is needed, the positions wanted of it, or ``None`` for all.
        asked: What a node wants of another, where it does not want all.
        indexings: Nodes that select by constants, and what.
        projections: Nodes that are rearranged outputs of a linear layer that is split.
        absorbed: Attention and products that are computed without the keys and values of all
            tokens.
    """

    def __init__(self, graph: fx.GraphModule, seen: Record) -> None:
        self.graph = graph
        self.seen = seen
        self.wants: dict[fx.Node, Want | None] = {}
        self.asked: dict[tuple[fx.Node, fx.Node], Want | None] = {}
        self.indexings: dict[fx.Node, Indexing] = {}
        self.projections: dict[fx.Node, Projection] = {}
        self.absorbed: dict[fx.Node, tuple[Projection | None, Projection | None]] = {}
        self._waiting: dict[fx.Node, list[tuple[fx.Node, Projection]]] = {}
        self._read: dict[fx.Node, list[Projection]] = {}
        self._sized: set[fx.Node] = set()
        self._asker: fx.Node
        for node in reversed(graph.graph.nodes):
            self._settle(node)

    @property
    def narrow(self) -> bool:
        """Whether anything is needed in part only."""
        return any(want is not None for want in self.wants.values())

    def _ask(self, node: object, want: Want | None) -> None:
        if not isinstance(node, fx.Node):
            return
        if want is not None and len(want.positions) >= want.length:
            want = None
        edge = (self._asker, node)
        self.asked[edge] = want if want is not None else self.asked.get(edge)
        if node not in self.wants:
            self.wants[node] = want
            return
        known = self.wants[node]
        if (
            known is None
            or want is None
            or replace(known, positions=()) != replace(want, positions=())
        ):
            self.wants[node] = None
            return
        both = tuple(sorted({*known.positions, *want.positions}))
        self.wants[node] = replace(want, positions=both) if len(both) < want.length else None

    def _ask_all(self, node: fx.Node) -> None:
        for each in node.all_input_nodes:
            if each in self.seen.shapes or each not in self.seen.values:
                self._ask(each, None)
                self.asked[self._asker, each] = None
        self._ask_numbers(node)

    def _settle(self, node: fx.Node) -> None:
        self._asker = node
        if node.op == "output":
            self.wants[node] = None
        if node in self._waiting or node in self._read:
            self._split(node)
        if node in self._sized:
            self.wants.setdefault(node, None)
        if node not in self.wants:
            return
        kind = kind_of(self.graph, node)
        if kind in _SIZES and self._reads_sizes(node, kind):
            return
        if node in self.seen.shapes and self._wait_for_linear(node):
            return
        want = self.wants[node]
        found = indexing(node, kind, self.seen.shapes, self.seen.values)
        if found is not None and self._select(node, found, want):
            return
        if want is not None and self._pass_on(node, kind, want):
            return
        self.wants[node] = None
        self._ask_all(node)

    def _reads_sizes(self, node: fx.Node, kind: str) -> bool:
        """Sizes are known of what is computed in part, where they are read one by one."""
        if kind == "getattr" and node.args[1] != "shape":
            return False
        whole = kind in ("getattr", "shape") or (kind == "size" and len(node.args) == 1)
        single = all(
            user.op == "call_function"
            and kind_of(self.graph, user) == "getitem"
            and isinstance(user.args[1], int)
            for user in node.users
        )
        if kind != "dim" and whole and not single:
            return False
        source = node.args[0]
        if isinstance(source, fx.Node):
            self._sized.add(source)
        self._ask_numbers(node)
        return True

    def _wait_for_linear(self, node: fx.Node) -> bool:
        """Leave a projection until it is known what else the same layer must give."""
        found = projection_of(self.graph, node, self.seen.shapes, self.seen.values)
        if found is None or found.rows == self._shape(found.linear)[-1]:
            return False
        want = self.wants[node]
        if want is not None and (want.folded or found.axes[want.axis] > 1):
            return False
        self._waiting.setdefault(found.linear, []).append((node, found))
        return True

    def _split(self, linear: fx.Node) -> None:
        waiting, read = self._waiting.pop(linear, []), self._read.pop(linear, [])
        needed = linear in self.wants
        partly = read or any(self.wants[node] is not None for node, _ in waiting)
        if read:
            self._ask_all_but(linear, linear.args[0])
        if partly and not needed and self._sliceable(linear):
            self._ask_all_but(linear, linear.args[0])
            for node, found in waiting:
                want = self.wants[node]
                self.projections[node] = found
                if want is not None:
                    want = replace(want, axis=found.axes[want.axis])
                self._asker = node
                self._ask(found.source, want)
            for found in read:
                self._ask(found.source, None)
            return
        for node, found in waiting:
            self.wants[node] = None
            for each in found.chain:
                self.wants[each] = None
                self._asker = each
                self._ask_all(each)
        self._asker = linear
        if read:
            self._ask(linear, None)

    def _sliceable(self, linear: fx.Node) -> bool:
        if linear.op == "call_module":
            part = self.graph.get_submodule(str(linear.target))
            return "weight" in part._parameters and "bias" in part._parameters
        given = (argument(linear, 1, "weight"), argument(linear, 2, "bias"))
        return all(each is None or isinstance(each, fx.Node) for each in given)

    def _select(self, node: fx.Node, found: Indexing, want: Want | None) -> bool:
        entries = found.of_axes()
        shape = self.seen.shapes[found.source]
        if want is None:
            # The batch is never selected from.
            short = [
                axis
                for axis, entry in enumerate(entries)
                if axis > 0
                and (shape[axis] > 1 if isinstance(entry, int) else len(entry) < shape[axis])
            ]
            if not short:
                return False
            axis = short[0]
            entry = entries[axis]
            positions = (entry,) if isinstance(entry, int) else tuple(sorted(entry))
            if not positions:
                return False
            new = Want(axis=axis, length=shape[axis], positions=positions)
        else:
            source_axis = found.source_axis(want.axis)
            if source_axis is None or source_axis == 0:
                return False
            entry = entries[source_axis]
            folded = want.folded and len(entry) != shape[source_axis]  # type: ignore[arg-type]
            if isinstance(entry, int) or folded or entry.step != 1:
                return False
            moved = want.positions if want.folded else tuple(entry[p] for p in want.positions)
            length = want.length if want.folded else shape[source_axis]
            new = replace(want, axis=source_axis, length=length, positions=moved)
        self.indexings[node] = found
        self._ask(found.source, new)
        return True

    def _pass_on(self, node: fx.Node, kind: str, want: Want) -> bool:
        """Ask a node's inputs for what part of it needs; false if that is not known."""
        rule = self._RULES.get(kind)
        return rule is not None and rule(self, node, want)

    def _shape(self, node: object) -> tuple[int, ...]:
        return self.seen.shapes.get(node, ()) if isinstance(node, fx.Node) else ()

    def _pointwise(self, node: fx.Node, want: Want) -> bool:
        shape = self._shape(node)
        from_end = want.axis - len(shape)
        for each in node.all_input_nodes:
            own = self._shape(each)
            if not own and each in self.seen.values:
                self.wants.setdefault(each, None)
            elif len(own) >= -from_end and own[from_end] == shape[want.axis]:
                self._ask(each, replace(want, axis=len(own) + from_end))
            elif len(own) < -from_end or own[from_end] == 1:
                self._ask(each, None)
            else:
                return False
        return True

    def _layer_norm(self, node: fx.Node, want: Want) -> bool:
        source = node.args[0]
        shape = self._shape(source)
        if node.op == "call_module":
            part = self.graph.get_submodule(str(node.target))
            normalised: Any = part.normalized_shape
        else:
            normalised = argument(node, 1, "normalized_shape")
        if not isinstance(normalised, (tuple, list)) or want.axis >= len(shape) - len(normalised):
            return False
        self._ask_all_but(node, source)
        self._ask(source, want)
        return True

    def _ask_all_but(self, node: fx.Node, *but: object) -> None:
        for each in node.all_input_nodes:
            if each not in but:
                self._ask(each, None)

    def _softmax(self, node: fx.Node, want: Want) -> bool:
        source = node.args[0]
        if node.op == "call_module":
            return False
        axis = argument(node, 1, "dim")
        if not isinstance(axis, int) or axis % len(self._shape(source)) == want.axis:
            return False
        self._ask(source, want)
        return True

    def _linear(self, node: fx.Node, want: Want) -> bool:
        source = node.args[0] if node.args else None
        if want.axis >= len(self._shape(source)) - 1:
            return False
        self._ask_all_but(node, source)
        self._ask(source, want)
        return True

    def _reshape(self, node: fx.Node, want: Want) -> bool:
        source = node.args[0]
        before, after = self._shape(source), self._shape(node)
        place = math.prod(after[: want.axis]) * want.outer
        for axis, size in enumerate(before):
            outside = math.prod(before[:axis])
            if place % outside or (place // outside) * want.length > size:
                continue
            outer = place // outside
            if size % (outer * want.length) == 0:
                inner = size // (outer * want.length)
                if self._is_rigid(node, axis, folded=(outer, inner) != (1, 1)):
                    return False
                self._ask_numbers(node)
                self._ask(source, replace(want, axis=axis, outer=outer, inner=inner))
                return True
        return False

    def _is_rigid(self, node: fx.Node, axis: int, *, folded: bool) -> bool:
        """Whether a reshape of an axis cannot be written for fewer positions."""
        name = operation(node)
        if node.op == "call_module" or name.partition(".")[0] == "flatten":
            return folded
        if not any(word in name for word in ("squeeze", "unflatten")):
            return False
        own = argument(node, 1, "dim")
        if not isinstance(own, int) or folded:
            return True
        return "unsqueeze" not in name and own % len(self._shape(node.args[0])) == axis

    def _ask_numbers(self, node: fx.Node) -> None:
        for each in node.all_input_nodes:
            if each in self.seen.values:
                self.wants.setdefault(each, None)

    def _permute(self, node: fx.Node, want: Want) -> bool:
        source = node.args[0]
        order = _order_of(node, kind_of(self.graph, node), len(self._shape(source)))
        if order is None:
            return False
        self._ask(source, replace(want, axis=order[want.axis]))
        return True

    def _matmul(self, node: fx.Node, want: Want) -> bool:
        left, right = node.args[0], argument(node, 1, "other")
        first, second, shape = self._shape(left), self._shape(right), self._shape(node)
        if not len(first) == len(second) == len(shape) or want.folded:
            return False
        if want.axis == len(shape) - 1:
            self._ask(left, None)
            self._ask(right, want)
        elif want.axis == len(shape) - 2:
            self._ask(left, want)
            if not self._absorb_product(node, right, want):
                self._ask(right, None)
        else:
            for each, own in ((left, first), (right, second)):
                self._ask(each, want if own[want.axis] == shape[want.axis] else None)
        return True

    def _projected(self, node: object, token_axis: int) -> Projection | None:
        """Keys or values N×heads×…, if they are a linear map of tokens."""
        if not isinstance(node, fx.Node) or len(self._shape(node)) != 4:
            return None
        found = projection_of(self.graph, node, self.seen.shapes, self.seen.values)
        if found is None or not self._sliceable(found.linear):
            return None
        width_axis = 5 - token_axis
        if found.axes[1] != 2 or found.axes[width_axis] != 3 or found.axes[token_axis] > 1:
            return None
        return found

    def _worth_absorbing(self, node: object, token_axis: int, queries: int) -> Projection | None:
        """Keys or values that need not be made of all tokens, and should not for so few queries."""
        found = self._projected(node, token_axis)
        if found is None:
            return None
        shape = self._shape(node)
        heads, tokens, width = shape[1], shape[token_axis], shape[5 - token_axis]
        channels = self._shape(found.source)[-1]
        return found if _pays(heads, tokens, width, channels, queries) else None

    def _absorb_product(self, node: fx.Node, right: object, want: Want) -> bool:
        for token_axis in (3, 2):
            found = self._worth_absorbing(right, token_axis, len(want.positions))
            if found is not None:
                self.absorbed[node] = (found, None) if token_axis == 3 else (None, found)
                self._read.setdefault(found.linear, []).append(found)
                return True
        return False

    def _attention(self, node: fx.Node, want: Want) -> bool:
        queries, keys, values = (
            argument(node, place, name) for place, name in enumerate(("query", "key", "value"))
        )
        masked = argument(node, 3, "attn_mask") is not None or argument(node, 5, "is_causal", False)
        dropped = argument(node, 4, "dropout_p", 0.0)
        shapes = [self._shape(each) for each in (queries, keys, values)]
        if masked or dropped or node.kwargs.get("enable_gqa") or want.folded:
            return False
        if want.axis != len(shapes[0]) - 2 or shapes[0][:-2] != shapes[1][:-2]:
            return False
        self._ask(queries, want)
        found = tuple(
            self._worth_absorbing(each, 2, len(want.positions)) for each in (keys, values)
        )
        for each, projection in zip((keys, values), found, strict=True):
            if projection is None:
                self._ask(each, None)
            else:
                self._read.setdefault(projection.linear, []).append(projection)
        if any(found):
            self.absorbed[node] = found[0], found[1]
        return True

    def _attention_module(self, node: fx.Node, want: Want) -> bool:
        part = self.graph.get_submodule(str(node.target))
        assert isinstance(part, nn.MultiheadAttention)
        given = [argument(node, n, name) for n, name in enumerate(("query", "key", "value"))]
        shapes = [self._shape(each) for each in given]
        first_only = all(
            kind_of(self.graph, user) == "getitem" and user.args[1] == 0
            for user in node.users
            if user in self.wants
        )
        plain = part._qkv_same_embed_dim and part.bias_k is None and not part.add_zero_attn
        masked = any(
            argument(node, place, name) is not None
            for place, name in ((3, "key_padding_mask"), (5, "attn_mask"))
        )
        if not (plain and part.batch_first and first_only) or masked or want.folded:
            return False
        if want.axis != 1 or any(len(shape) != 3 for shape in shapes):
            return False
        tokens = shapes[1][1]
        few = len(want.positions)
        if not _pays(part.num_heads, tokens, part.head_dim, part.embed_dim, few):
            return False
        self._ask(given[0], want)
        self._ask(given[1], None)
        self._ask(given[2], None)
        return True

    def _element(self, node: fx.Node, want: Want) -> bool:
        """One of the tensors that an operation gives."""
        source = node.args[0]
        if not isinstance(source, fx.Node) or source in self.seen.shapes:
            return False
        kind = kind_of(self.graph, source)
        if kind == "native_layer_norm" and node.args[1] != 0:
            return False
        if kind not in ("unbind", "native_layer_norm", "multihead_attention"):
            return False
        self._ask(source, want)
        return True

    def _unbind(self, node: fx.Node, want: Want) -> bool:
        axis = argument(node, 1, "dim", 0)
        source = node.args[0]
        if not isinstance(axis, int):
            return False
        axis %= len(self._shape(source))
        self._ask(source, replace(want, axis=want.axis + (axis <= want.axis)))
        return True

    def _cat(self, node: fx.Node, want: Want) -> bool:
        pieces = argument(node, 0, "tensors")
        axis = argument(node, 1, "dim", 0)
        if not isinstance(axis, int) or not isinstance(pieces, (tuple, list)):
            return False
        if axis % len(self._shape(node)) != want.axis:
            for each in pieces:
                self._ask(each, want)
            return True
        place = piece_of(pieces, want, [self._shape(each)[want.axis] for each in pieces])
        if place is None:
            return False
        self._ask(*place)
        return True

    _RULES: ClassVar[dict[str, Callable[[Demand, fx.Node, Want], bool]]] = {
        "pointwise": _pointwise,
        "same": _pointwise,
        "layer_norm": _layer_norm,
        "native_layer_norm": _layer_norm,
        "softmax": _softmax,
        "_softmax": _softmax,
        "linear": _linear,
        "reshaping": _reshape,
        "permute": _permute,
        "transpose": _permute,
        "swapaxes": _permute,
        "matmul": _matmul,
        "bmm": _matmul,
        "scaled_dot_product_attention": _attention,
        "multihead_attention": _attention_module,
        "getitem": _element,
        "unbind": _unbind,
        "cat": _cat,
    }


def _pays(heads: int, tokens: int, width: int, channels: int, queries: int) -> bool:
    """Whether to map queries costs fewer multiplications than to map all tokens."""
    plain = heads * width * tokens * (channels + queries)
    return heads * channels * queries * (width + tokens) < plain


def _order_of(node: fx.Node, kind: str, count: int) -> list[int] | None:
    """For each axis of a permuted tensor the axis that it was.

    Args:
        node: The node.
        kind: ``permute``, ``transpose`` or ``swapaxes``.
        count: How many axes there are.
    """
    given = node.args[1:] or tuple(node.kwargs.values())
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = tuple(given[0])
    axes = [axis % count for axis in given if isinstance(axis, int)]
    if kind == "permute":
        return axes if sorted(axes) == list(range(count)) else None
    if len(axes) != 2:
        return None
    order = list(range(count))
    order[axes[0]], order[axes[1]] = axes[1], axes[0]
    return order


def piece_of(
    pieces: tuple[Any, ...] | list[Any], want: Want, sizes: list[int]
) -> tuple[fx.Node, Want] | None:
    """The piece of a concatenation that holds all wanted positions, and what is wanted of it.

    Args:
        pieces: Of the concatenation.
        want: Of the whole, along the axis of the concatenation.
        sizes: Of the pieces along it.
    """
    if want.folded:
        return None
    start = 0
    for piece, size in zip(pieces, sizes, strict=True):
        if start <= want.positions[0] and want.positions[-1] < start + size:
            moved = tuple(position - start for position in want.positions)
            return piece, replace(want, length=size, positions=moved)
        start += size
    return None
