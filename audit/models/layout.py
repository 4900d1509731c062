"""Finding the h×w grid in an activation, whatever order its axes have."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# Class, distillation and register tokens that stand before the patches.
MOST_PREFIX = 8

Order = Literal["channels first", "channels last", "tokens"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an activation holds a grid.

    Attributes:
        order: N×C×h×w, N×h×w×C, or tokens N×(prefix + h·w)×C.
        channels: C.
        grid: h and w.
        prefix: How many tokens stand before the grid's.
    """

    order: Order
    channels: int
    grid: tuple[int, int]
    prefix: int = 0

    def split(self, activation: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features N×C×h×w, and the tokens before them N×prefix×C where there are any.

        Args:
            activation: In this layout.

        Example:
            >>> tokens = torch.arange(10.0).view(1, 5, 2)
            >>> layout = Layout(order="tokens", channels=2, grid=(2, 2), prefix=1)
            >>> features, before = layout.split(tokens)
            >>> features[0, 0].tolist(), before.tolist()
            ([[2.0, 4.0], [6.0, 8.0]], [[[0.0, 1.0]]])
        """
        if self.order == "channels first":
            return activation, None
        if self.order == "channels last":
            return activation.permute(0, 3, 1, 2), None
        cells = activation[:, self.prefix :].transpose(1, 2)
        before = activation[:, : self.prefix] if self.prefix else None
        return cells.unflatten(2, self.grid), before

    def join(self, features: Tensor, before: Tensor | None) -> Tensor:
        """The activation again.

        Args:
            features: N×C×h×w.
            before: What :meth:`split` gave beside it.
        """
        if self.order == "channels first":
            return features
        if self.order == "channels last":
            return features.permute(0, 2, 3, 1)
        cells = features.flatten(2).transpose(1, 2)
        return cells if before is None else torch.cat([before, cells], dim=1)


def find_layout(
    shape: tuple[int, ...], image: tuple[int, int], grids: Collection[tuple[int, int]]
) -> Layout | None:
    """The grid in an activation's shape, or ``None`` if it holds none of more than one cell.

    Args:
        shape: Of the activation, the batch first.
        image: H and W of the images.
        grids: Grids of maps that were seen before it, for tokens.

    Example:
        >>> find_layout((2, 7, 7, 768), (224, 224), [])
        Layout(order='channels last', channels=768, grid=(7, 7), prefix=0)
        >>> find_layout((2, 197, 192), (224, 224), [(14, 14)]).prefix
        1
    """
    if len(shape) == 4:
        _, a, b, c = shape
        if b * c > 1 and _like(image, (b, c)):
            return Layout(order="channels first", channels=a, grid=(b, c))
        if a * b > 1 and _like(image, (a, b)):
            return Layout(order="channels last", channels=c, grid=(a, b))
        if (a, b) == (1, 1) or b * c <= 1:
            return None
        # A crop or a padding of another aspect than the image; most networks put channels first.
        return Layout(order="channels first", channels=a, grid=(b, c))
    if len(shape) == 3:
        return _tokens(shape, image, grids)
    return None


def _like(image: tuple[int, int], grid: tuple[int, int]) -> bool:
    """Whether the grid has the image's aspect, up to rounding, and is not finer."""
    (height, width), (h, w) = image, grid
    if h < 1 or w < 1 or h > height or w > width:
        return False
    stride = height / h
    return abs(w - width / stride) <= 1 + 1e-9


def _tokens(
    shape: tuple[int, ...], image: tuple[int, int], grids: Collection[tuple[int, int]]
) -> Layout | None:
    _, tokens, channels = shape
    for grid in sorted(grids, key=lambda g: -g[0] * g[1]):
        prefix = tokens - grid[0] * grid[1]
        if grid[0] * grid[1] > 1 and 0 <= prefix <= MOST_PREFIX:
            return Layout(order="tokens", channels=channels, grid=grid, prefix=prefix)
    for prefix in range(min(MOST_PREFIX, tokens - 4) + 1):
        cells = tokens - prefix
        h = math.isqrt(cells * image[0] // image[1])
        for height in (h, h + 1):
            if height > 1 and cells % height == 0 and _like(image, (height, cells // height)):
                grid = (height, cells // height)
                return Layout(order="tokens", channels=channels, grid=grid, prefix=prefix)
    return None
