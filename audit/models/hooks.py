"""Candidates and the cut in a network that cannot be captured: hooks, for one pass at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audit.models.cancelling import CANCELS, DIRECTIONS, cancel, closed, direction, living
from audit.models.graph import PASSIVE
from audit.models.halves import Layer, plain_name
from audit.models.layout import find_layout

# What runs before the target layer while its output is replaced: one dummy image, as many as
# there are features, or the images themselves, where the head reads them too.
Before = Literal["one", "many", "images"]


class _Reached(Exception):  # no error: the layer that was wanted has given its output
    """Ends a pass early."""


@contextmanager
def hooked(module: nn.Module, hook: Callable[..., Any]) -> Iterator[None]:
    """A forward hook that is gone afterwards, whatever happens.

    Args:
        module: Where.
        hook: As of ``register_forward_hook``.
    """
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class HookedNetwork:
    """A network watched through hooks.

    Args:
        module: In evaluation mode.
        images: For dry runs.
        why: Why its operations could not be captured, for messages.
    """

    how = "hooks"

    def __init__(self, module: nn.Module, images: Tensor, why: str = "") -> None:
        self.why = why
        self._module = module
        self._images = images
        with torch.no_grad():
            self._logits: Tensor = module(images)
        self._parts: dict[str, tuple[nn.Module, int]] = {}
        self._order: list[nn.Module] = []
        self.candidates = self._find_candidates()
        self._before: dict[str, Before] = {}

    def _find_candidates(self) -> list[Layer]:
        layers: list[Layer] = []
        grids: list[tuple[int, int]] = []
        calls: Counter[str] = Counter()
        size = (int(self._images.shape[2]), int(self._images.shape[3]))
        names = {part: name for name, part in self._module.named_modules() if name}

        def note(part: nn.Module, _: object, output: object) -> None:
            name = names[part]
            calls[name] += 1
            self._order.append(part)
            shape = tuple(output.shape) if isinstance(output, Tensor) else ()
            if len(shape) not in (3, 4) or shape[0] != len(self._images):
                return
            layout = find_layout(shape, size, grids)
            if layout is None and len(shape) == 3:
                return
            if layout is not None and len(shape) == 4:
                grids.append(layout.grid)
            unique = plain_name(name if calls[name] == 1 else f"{name}#{calls[name]}")
            self._parts[unique] = (part, calls[name])
            layers.append(Layer(name=unique, shape=shape[1:], layout=layout))

        handles = [part.register_forward_hook(note) for part in names]
        try:
            with torch.no_grad():
                self._module(self._images)
        finally:
            for handle in handles:
                handle.remove()
        return layers

    def refusal(self, layer: Layer) -> tuple[str, bool]:
        """Why a candidate is not chosen (empty if it can be), and whether it is bypassed."""
        if layer.layout is None:
            return "it has one cell", False
        if self._settle_before(layer) == "images":
            return "the head also reads other activations", True
        if self._is_passive(layer):
            return "it only pools or rearranges what another gives", False
        alive, cancels = self._sense(layer)
        if not alive:
            return "the logits do not depend on most of its cells", False
        return (CANCELS if cancels else ""), False

    def taking_over(self, cancelling: Layer) -> Layer | None:
        """The first layer that can be explained in place of one whose products cancel.

        Args:
            cancelling: One of the candidates, which everything passes through.
        """
        for layer in self.candidates[self.candidates.index(cancelling) + 1 :]:
            if not layer.same_grid(cancelling) or self._is_passive(layer):
                continue
            if self._sense(layer) == (True, False) and not self._leads_past(layer, cancelling):
                return layer
        return None

    def _is_passive(self, layer: Layer) -> bool:
        part, _ = self._parts[layer.name]
        return not list(part.parameters()) and any(
            word in type(part).__name__.lower() for word in PASSIVE
        )

    def _leads_past(self, layer: Layer, cancelling: Layer) -> bool:
        """Whether cells of a candidate reach the logits by another way than a later one."""
        assert cancelling.layout is not None
        found: dict[int, Tensor] = {}
        with torch.enable_grad(), ExitStack() as stack:
            for place, each in enumerate((cancelling, layer)):
                part, call = self._parts[each.name]
                stack.enter_context(hooked(part, _catch(found, place, call)))
            logits = self._module(self._images.clone().requires_grad_())
            mix = (logits * direction(logits)).sum()
            with closed(found[1]):
                (past,) = torch.autograd.grad(mix, found[0], materialize_grads=True)
        return bool(cancelling.layout.split(past)[0].any())

    def _settle_before(self, layer: Layer) -> Before:
        if layer.name not in self._before:
            self._before[layer.name] = self._try_before(layer)
        return self._before[layer.name]

    def _try_before(self, layer: Layer) -> Before:
        with torch.no_grad():
            (activation,) = _HookFront(self._module, *self._parts[layer.name], "one")(self._images)
            for before in ("one", "many"):
                head = _HookHead(self._module, *self._parts[layer.name], before, self._images)
                try:
                    if torch.allclose(head(activation), self._logits, 1e-4, 1e-4):
                        return before
                except (RuntimeError, ValueError, IndexError, TypeError):
                    continue  # the network does not take one dummy for many features
        return "images"

    def _sense(self, layer: Layer) -> tuple[bool, bool]:
        """Whether the logits depend on a candidate's cells, and whether its products cancel."""
        front, head = self.halves(layer)
        with torch.no_grad():
            activation, *others = front(self._images)
        alive, cancels = False, True
        for number in range(DIRECTIONS):
            cells, gradient = _cells(layer, head, activation, others, number)
            alive = alive or living(gradient)
            cancels = cancels and cancel(cells, gradient)
            if not alive or not cancels:
                break
        return alive, cancels

    def parameters_between(self, first: Layer, second: Layer) -> float:
        """The share of the network's parameters that work between two candidates."""
        total = sum(p.numel() for p in self._module.parameters()) or 1
        start = self._order.index(self._parts[first.name][0])
        stop = self._order.index(self._parts[second.name][0])
        between = {p for part in self._order[start + 1 : stop + 1] for p in part.parameters(False)}
        return sum(p.numel() for p in between) / total

    def halves(self, layer: Layer) -> tuple[nn.Module, nn.Module]:
        """Images to the activation and what else the head reads; these to logits."""
        place = self._parts[layer.name]
        before = self._settle_before(layer)
        return (
            _HookFront(self._module, *place, before),
            _HookHead(self._module, *place, before, self._images),
        )

    def tail(self, first: Layer, later: list[Layer]) -> nn.Module:
        """The activation of one candidate to those of later ones and the logits."""
        place = self._parts[first.name]
        before = self._settle_before(first)
        head = _HookHead(self._module, *place, before, self._images)
        return _HookTail(head, [self._parts[layer.name] for layer in later])


def _cells(
    layer: Layer, head: nn.Module, activation: Tensor, others: list[Tensor], number: int
) -> tuple[Tensor, Tensor]:
    """Features at a layer, and the gradient of a mix of logits there."""
    assert layer.layout is not None
    leaf = activation.clone().requires_grad_()
    with torch.enable_grad():
        logits = head(leaf.clone(), *others)
        mix = (logits * direction(logits, number)).sum()
    (gradient,) = torch.autograd.grad(mix, leaf, materialize_grads=True)
    return layer.layout.split(activation)[0], layer.layout.split(gradient)[0]


class _HookFront(nn.Module):
    """Runs the network up to the call of a module that is wanted."""

    def __init__(self, network: nn.Module, part: nn.Module, call: int, before: Before) -> None:
        super().__init__()
        self.network = network
        # In a tuple, because a module of the network must not be registered a second time here.
        self._place = (part, call)
        self._before = before

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        part, wanted = self._place
        calls = 0
        found: list[Tensor] = []

        def catch(_: nn.Module, __: object, output: Tensor) -> None:
            nonlocal calls
            calls += 1
            if calls == wanted:
                found.append(output)
                raise _Reached

        with hooked(part, catch), suppress(_Reached):
            self.network(images)
        return (found[0], images) if self._before == "images" else (found[0],)


class _HookHead(nn.Module):
    """Runs the network with the output of one call of a module replaced."""

    dummy: Tensor

    def __init__(
        self, network: nn.Module, part: nn.Module, call: int, before: Before, images: Tensor
    ) -> None:
        super().__init__()
        self.network = network
        self._place = (part, call)
        self._before = before
        self.register_buffer("dummy", images[:1].clone(), persistent=False)

    def forward(self, activation: Tensor, *others: Tensor) -> Tensor:
        part, wanted = self._place
        calls = 0

        def replace(*_: object) -> Tensor | None:
            nonlocal calls
            calls += 1
            return activation if calls == wanted else None

        with hooked(part, replace):
            logits: Tensor = self.network(self._images(activation, others))
        return logits

    def _images(self, activation: Tensor, others: tuple[Tensor, ...]) -> Tensor:
        if self._before == "images":
            return others[0]
        return (
            self.dummy if self._before == "one" else self.dummy.expand(len(activation), -1, -1, -1)
        )


class _HookTail(nn.Module):
    """A head that also gives what later modules give."""

    def __init__(self, head: _HookHead, later: list[tuple[nn.Module, int]]) -> None:
        super().__init__()
        self.head = head
        self._later = tuple(later)

    def forward(self, activation: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        found: dict[int, Tensor] = {}
        handles = [
            part.register_forward_hook(_catch(found, place, call))
            for place, (part, call) in enumerate(self._later)
        ]
        try:
            logits = self.head(activation, *others)
        finally:
            for handle in handles:
                handle.remove()
        return (*(found[place] for place in range(len(self._later))), logits)


def _catch(found: dict[int, Tensor], place: int, wanted: int) -> Callable[..., Tensor]:
    calls = 0

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == wanted:
            found[place] = output
            return output.clone()
        return output

    return hook
