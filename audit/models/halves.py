"""The two halves of a network as modules that speak of features N×C×h×w."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from audit.models.cancelling import CANCELS
from audit.models.kinds import works_in_place
from audit.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An activation that may become the target layer.

    Attributes:
        name: For people and for ``--target-layer``.
        shape: Without the batch.
        layout: Where its grid is; ``None`` if it has one cell.
        reason: Why it is not chosen; empty if it can be.
        bypassed: The head also reads other activations, so that cutting here is possible but
            leaves part of the decision aside.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout | None
    reason: str = ""
    bypassed: bool = False

    @property
    def cancels(self) -> bool:
        """Whether it is refused because its products with the gradient cancel."""
        return self.reason == CANCELS

    def same_grid(self, other: Layer) -> bool:
        """Whether both hold a grid, and the same one.

        Args:
            other: Another layer of the network.
        """
        if self.layout is None or other.layout is None:
            return False
        return self.layout.grid == other.layout.grid


class Front(nn.Module):
    """Images to features and whatever else the head reads.

    Args:
        inner: Images to a tuple of the activation and the others.
        layout: Of the activation.
    """

    def __init__(self, inner: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.inner = inner
        self.layout = layout

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features N×C×h×w, tokens before them if there are any, and other activations."""
        activation, *others = self.inner(images)
        features, before = self.layout.split(activation)
        return (features, *others) if before is None else (features, before, *others)


class Head(nn.Module):
    """Features, and whatever else it reads, to logits.

    Args:
        inner: The activation and the others to logits.
        layout: Of the activation.
    """

    def __init__(self, inner: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.inner = inner
        self.layout = layout
        self._writes = _may_write(inner)

    def forward(self, features: Tensor, *rest: Tensor) -> Tensor:
        """Logits N×K."""
        logits: Tensor = self.inner(*_given(self.layout, features, rest, self._writes))
        return logits


class Tail(nn.Module):
    """Features of an early layer to the activations of later ones, and to logits.

    Args:
        inner: The activation and the others to a tuple of later activations and the logits.
        layout: Of the activation.
    """

    def __init__(self, inner: nn.Module, layout: Layout) -> None:
        super().__init__()
        self.inner = inner
        self.layout = layout
        self._writes = _may_write(inner)

    def forward(self, features: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """The later activations as the network has them, so that they can be differentiated."""
        found: tuple[Tensor, ...] = self.inner(*_given(self.layout, features, rest, self._writes))
        return found


def plain_name(name: str) -> str:
    """A layer's name without those of the modules that the audit wraps around a network."""
    while name.startswith("network."):
        name = name.removeprefix("network.")
    return name


def _given(
    layout: Layout, features: Tensor, rest: tuple[Tensor, ...], writes: bool
) -> tuple[Tensor, ...]:
    before, others = (rest[0], rest[1:]) if layout.prefix else (None, rest)
    activation = layout.join(features, before)
    if not writes:
        return (activation, *others)
    # What follows works in place, and must not write into what it was given.
    return (activation.clone(), *(other.clone() for other in others))


def _may_write(inner: nn.Module) -> bool:
    """Whether a half may write into its inputs; of a graph that is known."""
    return not isinstance(inner, fx.GraphModule) or works_in_place(inner)


class FixedBatch(nn.Module):
    """A half that takes one number of images only, fed as often as needed.

    Args:
        inner: The half.
        size: Its batch size.
    """

    def __init__(self, inner: nn.Module, size: int) -> None:
        super().__init__()
        self.inner = inner
        self.size = size

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """As the half itself, for any number of images."""
        count = len(given[0])
        missing = -count % self.size
        filled = [torch.cat([g, g[:1].expand(missing, *g.shape[1:])]) for g in given]
        pieces = [
            self.inner(*piece) for piece in zip(*(f.split(self.size) for f in filled), strict=True)
        ]
        if isinstance(pieces[0], Tensor):
            return torch.cat(pieces)[:count]
        return tuple(torch.cat(column)[:count] for column in zip(*pieces, strict=True))
