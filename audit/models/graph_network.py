"""Candidates for the target layer, and the cut, in a network that was captured as a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from audit.errors import ModelError
from audit.models.cancelling import CANCELS, DIRECTIONS, cancel, closed, direction, living
from audit.models.capture import Captured, NotCapturedError, capture
from audit.models.graph import (
    UNSETTLED,
    Flow,
    Record,
    first_half,
    is_passive,
    label,
    parameters_between,
    record,
    second_half,
    settled,
)
from audit.models.halves import Layer, plain_name
from audit.models.layout import Layout, find_layout


class GraphNetwork:
    """A network as a graph of operations.

    Args:
        module: In evaluation mode.
        images: For dry runs.
        fixed: Whether the network takes this number of images only.

    Raises:
        NotCapturedError: If its operations cannot be written down, or do not give its logits.
    """

    def __init__(self, module: nn.Module, images: Tensor, *, fixed: bool) -> None:
        self._captured: Captured = capture(module, images)
        self.how = self._captured.how
        self.why = ""
        self._graph = self._captured.graph
        self._flow = Flow(self._graph.graph)
        counts = (len(images),) if fixed else (len(images), len(images) + 1)
        more = torch.cat([images, -images[:1]])
        self._images = images
        self._records = [record(self._graph, images)]
        if not fixed:
            self._records.append(self._recorded(module, more))
        self._counts = (counts[0], counts[-1])
        self._prove(module, more[: counts[-1]])
        self._nodes, self.candidates = self._find_candidates(
            (int(images.shape[2]), int(images.shape[3]))
        )

    def _recorded(self, module: nn.Module, images: Tensor) -> Record:
        """What a dry run on one image more sees."""
        try:
            return record(self._graph, images)
        except (RuntimeError, ValueError) as error:
            reason = f"{self.how}: a graph for {len(images) - 1} images only"
            try:
                module(images)
            except (RuntimeError, ValueError):
                raise ModelError(
                    "the model's batch size is fixed",
                    expected="a network that takes any number of images",
                    found=f"it runs on {len(images) - 1} images and not on {len(images)}",
                    remedy="export it with a dynamic batch, or say how many images it takes "
                    "(batch= in Python)",
                ) from error
            raise NotCapturedError(reason) from error

    def _prove(self, module: nn.Module, images: Tensor) -> None:
        """Control flow that was followed for one image may go elsewhere for another."""
        for tried in (images, images.flip(0) * -3):
            ours, theirs = self._graph(tried), module(tried)
            ours = ours[0] if isinstance(ours, (tuple, list)) else ours
            if ours.shape != theirs.shape or not torch.allclose(ours, theirs, 1e-4, 1e-4):
                raise NotCapturedError(f"{self.how}: other logits: dynamic control flow")

    def _find_candidates(self, size: tuple[int, int]) -> tuple[dict[str, fx.Node], list[Layer]]:
        first = self._records[0]
        nodes: dict[str, fx.Node] = {}
        layers: list[Layer] = []
        grids: list[tuple[int, int]] = []
        seen: Counter[str] = Counter()
        for node in self._flow.order:
            shape = first.shapes.get(node, ())
            if node.op == "placeholder" or node not in self._flow.live or len(shape) < 2:
                continue
            if node not in first.floats or shape[0] != self._counts[0]:
                continue
            if _has_no_space(shape):
                # What comes after, such as logits gathered by class, has the shape of a grid only.
                if not self._flow.boundary(node):
                    break
                if len(shape) == 2:
                    continue
            if len(shape) not in (3, 4):
                continue
            layout = find_layout(shape, size, grids)
            if layout is None and len(shape) == 3:
                continue
            if layout is not None and len(shape) == 4 and layout.grid not in grids:
                grids.append(layout.grid)
            name = plain_name(label(node))
            seen[name] += 1
            name = name if seen[name] == 1 else f"{name}#{seen[name]}"
            nodes[name] = node
            layers.append(Layer(name=name, shape=shape[1:], layout=layout))
        return nodes, layers

    def refusal(self, layer: Layer) -> tuple[str, bool]:
        """Why a candidate is not chosen (empty if it can be), and whether it is bypassed.

        Args:
            layer: One of the candidates.
        """
        if layer.layout is None:
            return "it has one cell", False
        node = self._nodes[layer.name]
        tensors, numbers = self._beside(node)
        if numbers is None:
            return "the head also reads sizes or bundles of tensors from before it", False
        if tensors:
            return f"the head also reads {plain_name(label(tensors[0]))}", True
        source = self._source(node)
        if source is not None:
            return f"it only pools or rearranges what {plain_name(label(source))} gives", False
        if node not in self._sensed:
            return "the logits do not depend on most of its cells", False
        return (CANCELS if self._sensed[node] else ""), False

    def taking_over(self, cancelling: Layer) -> Layer | None:
        """The first layer that can be explained in place of one whose products cancel.

        Its own products do not cancel, and all that the cells of the other decide passes through
        it: what else the head reads carries no more than the tokens before them.

        Args:
            cancelling: One of the candidates, which everything passes through.
        """
        start = self._nodes[cancelling.name]
        later: dict[fx.Node, tuple[Layer, Layout]] = {}
        for layer in self.candidates[self.candidates.index(cancelling) + 1 :]:
            node, layout = self._nodes[layer.name], layer.layout
            if layout is None or not layer.same_grid(cancelling):
                continue
            if self._source(node) is None and self._beside(node)[1] is not None:
                later[node] = (layer, layout)
        sensed = self._sense({node: layout for node, (_, layout) in later.items()})
        fit = [node for node in later if sensed.get(node) is False]
        whole = self._gates(start, fit, cancelling) if fit else None
        return None if whole is None else later[whole][0]

    def _gates(self, start: fx.Node, nodes: list[fx.Node], layer: Layer) -> fx.Node | None:
        """The first node that all ways from a layer's cells to the logits lead through."""
        assert layer.layout is not None
        with torch.enable_grad():
            live = self._images.clone().requires_grad_()
            seen = record(self._graph, live, frozenset([start, *nodes]))
            assert seen.output is not None
            mix = (seen.output * direction(seen.output)).sum()
            for node in nodes:
                with closed(seen.tensors[node]):
                    (past,) = torch.autograd.grad(
                        mix, seen.tensors[start], retain_graph=True, materialize_grads=True
                    )
                if not layer.layout.split(past)[0].any():
                    return node
        return None

    def _source(self, node: fx.Node) -> fx.Node | None:
        """The candidate that a node only passes on, if it does."""
        candidates = set(self._nodes.values())
        while is_passive(self._graph, node):
            node = next(arg for arg in node.all_input_nodes if arg.op != "get_attr")
            if node in candidates:
                return node
        return None

    def _beside(self, node: fx.Node) -> tuple[list[fx.Node], dict[fx.Node, Any] | None]:
        """Tensors and numbers that the head reads beside a node."""
        tensors: list[fx.Node] = []
        numbers: dict[fx.Node, Any] = {}
        first, last = self._records[0], self._records[-1]
        for earlier in self._flow.boundary(node):
            if earlier in first.shapes:
                tensors.append(earlier)
                continue
            if earlier not in first.values:
                return tensors, None
            value = settled(first.values[earlier], last.values[earlier], self._counts)
            if value is UNSETTLED:
                return tensors, None
            numbers[earlier] = value
        return tensors, numbers

    @cached_property
    def _sensed(self) -> dict[fx.Node, bool]:
        """Of the candidates that everything passes through, what :meth:`_sense` finds."""
        return self._sense(
            {
                self._nodes[layer.name]: layer.layout
                for layer in self.candidates
                if layer.layout is not None and not self._beside(self._nodes[layer.name])[0]
            }
        )

    def _sense(self, layouts: Mapping[fx.Node, Layout]) -> dict[fx.Node, bool]:
        """The nodes whose cells the logits depend on, and whether the products there cancel."""
        with torch.enable_grad():
            live = self._images.clone().requires_grad_()
            seen = record(self._graph, live, frozenset(layouts))
        assert seen.output is not None
        # In-place operations after a node may have moved its tensor on; those come out equal.
        tensors = {node: t for node, t in seen.tensors.items() if t.requires_grad}
        found: dict[fx.Node, bool] = {}
        for number in range(DIRECTIONS):
            # A scalar: to be given a gradient torch loads its symbolic shapes, half a second.
            with torch.enable_grad():
                mix = (seen.output * direction(seen.output, number)).sum()
            given: tuple[Tensor | None, ...] = torch.autograd.grad(
                mix, list(tensors.values()), retain_graph=True, allow_unused=True
            )
            for (node, tensor), gradient in zip(list(tensors.items()), given, strict=True):
                if gradient is None:
                    continue
                cells, slopes = (layouts[node].split(t)[0] for t in (tensor.detach(), gradient))
                if number or living(slopes):
                    found[node] = cancel(cells, slopes)
            tensors = {node: t for node, t in tensors.items() if found.get(node)}
            if not tensors:
                break
        return found

    def parameters_between(self, first: Layer, second: Layer) -> float:
        """The share of the network's parameters that work between two candidates."""
        total = sum(p.numel() for p in self._graph.parameters()) or 1
        nodes = self._nodes[first.name], self._nodes[second.name]
        return parameters_between(self._graph, *nodes) / total

    def halves(self, layer: Layer) -> tuple[nn.Module, nn.Module]:
        """Images to the activation and what else the head reads; these to logits.

        Args:
            layer: One of the candidates.
        """
        node = self._nodes[layer.name]
        tensors, numbers = self._beside(node)
        front = first_half(self._graph, [node, *tensors])
        return front, second_half(self._graph, [node, *tensors], numbers or {})

    def tail(self, first: Layer, later: list[Layer]) -> nn.Module:
        """The activation of one candidate to those of later ones and the logits."""
        node = self._nodes[first.name]
        tensors, numbers = self._beside(node)
        also = [self._nodes[layer.name] for layer in later]
        return second_half(self._graph, [node, *tensors], numbers or {}, also)


def _has_no_space(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 4 and shape[2] == shape[3] == 1)
