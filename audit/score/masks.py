"""The masks that a batch is scored under: the main one, its border moved, and other families."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.cam import Resampler

# The border moves on a grid so many times finer than the features'.
_SUBCELLS = 2
# It moves by a whole cell, or as far as leaves this share of the object, or of the background.
LEAST_LEFT = 0.25


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Object masks of a batch, in pixels.

    Attributes:
        main: What scores rest on: the share of each pixel that is object, in [0, 1], N×H×W.
        unknown: Likewise the share that counts on no side; ``None`` where everything is known.
        others: Masks from elsewhere, by the family's name, each N×H×W.
    """

    main: Tensor
    unknown: Tensor | None = None
    others: Mapping[str, Tensor] = field(default_factory=dict)

    def take(self, rows: Tensor) -> Masks:
        """Some of the samples, in another order."""
        return Masks(
            main=self.main[rows],
            unknown=None if self.unknown is None else self.unknown[rows],
            others={name: mask[rows] for name, mask in self.others.items()},
        )

    @property
    def inside(self) -> Tensor:
        """Pixels that are object, bool N×H×W."""
        return self.main >= 0.5

    @property
    def known(self) -> Tensor | None:
        """Pixels that are object or background, bool N×H×W; ``None`` for all."""
        return None if self.unknown is None else self.unknown < 0.5

    @property
    def area(self) -> Tensor:
        """Object's share of what is known, N; NaN where nothing is."""
        inside = self.main.mean(dim=(1, 2))
        if self.unknown is None:
            return inside
        known = 1 - self.unknown.mean(dim=(1, 2))
        return torch.where(known > 0, inside / known, torch.nan)


@dataclass(frozen=True, kw_only=True)
class CellMasks:
    """The same masks as shares of the cells of a grid.

    Attributes:
        object: N×V×h×w: the main mask, eroded, dilated, then the other families.
        unknown: Likewise; ``None`` where everything is known.
        weight: ``u``, the pixels that each cell stands for, h×w.
    """

    object: Tensor
    unknown: Tensor | None
    weight: Tensor

    @property
    def known(self) -> Tensor:
        """The share of each cell that is object or background, N×V×h×w (or 1)."""
        if self.unknown is None:
            return torch.ones((), device=self.object.device)
        return 1 - self.unknown

    def areas(self) -> Tensor:
        """Object's share of what is known, N×V; NaN where nothing is."""
        inside = (self.object * self.weight).sum(dim=(2, 3))
        known = (self.known * self.weight).expand_as(self.object).sum(dim=(2, 3))
        return torch.where(known > 0, inside / known, torch.nan)

    def shares(self, positive: Tensor) -> Tensor:
        """The share of a map's positive mass on the object, for every mask in one product.

        Args:
            positive: ``L ≥ 0``, N×h×w.

        Returns:
            ``R = Σ u·L·m / Σ u·L·(1 − unknown)`` in [0, 1], N×V; NaN for a map without mass.

        Source:
            As :func:`audit.score.attention.object_share`.
        """
        mass = (positive * self.weight).flatten(1)[:, :, None]
        inside = (self.object.flatten(2) @ mass)[..., 0]
        if self.unknown is None:
            known = mass.sum(dim=1).expand_as(inside)
        else:
            known = (self.known.flatten(2) @ mass)[..., 0]
        return torch.where(known > 0, inside / known, torch.nan).clamp(max=1)


class CellMasker:
    """Brings pixel masks to a grid, with the main one's border moved by a cell.

    Args:
        image: H and W.
        grid: h and w.
        device: Where to work.

    Example:
        >>> mask = torch.zeros(1, 8, 8); mask[:, 2:6, 2:6] = 1
        >>> cells = CellMasker((8, 8), (4, 4))(Masks(main=mask))
        >>> [round(area, 2) for area in cells.areas()[0].tolist()]
        [0.25, 0.06, 0.5]
    """

    def __init__(
        self, image: tuple[int, int], grid: tuple[int, int], device: torch.device | str = "cpu"
    ) -> None:
        # Not finer than the image itself.
        self._steps = max(1, min(_SUBCELLS, image[0] // grid[0], image[1] // grid[1]))
        self._fine = (grid[0] * self._steps, grid[1] * self._steps)
        self._from_pixels = Resampler.between(image, grid, device)
        self._from_fine = Resampler.between(self._fine, grid, device)

    @property
    def weight(self) -> Tensor:
        """``u``, h×w."""
        return self._from_pixels.weight

    def to_grid(self, mask: Tensor) -> Tensor:
        """One mask N×H×W as N×h×w."""
        return self._from_pixels.to_grid(mask)

    def __call__(self, masks: Masks) -> CellMasks:
        """All masks on the grid.

        Args:
            masks: In pixels.

        Returns:
            The masks on the grid. Eroded and dilated, the border moves by one cell each way, or
            as far as leaves a quarter of the object (of the background).
        """
        unknown = None if masks.unknown is None else self.to_grid(masks.unknown)
        main = self.to_grid(masks.main)
        eroded, dilated = (self._from_fine.to_grid(moved) for moved in self._moved(masks))
        others = [self.to_grid(mask) for mask in masks.others.values()]
        objects = torch.stack([main, eroded, dilated, *others], dim=1)
        if unknown is None:
            return CellMasks(object=objects, unknown=None, weight=self.weight)
        # What is unknown stays so wherever the border goes; the other families know everything.
        several = torch.stack([unknown] * 3 + [torch.zeros_like(unknown)] * len(others), dim=1)
        objects[:, :3] = torch.minimum(objects[:, :3], 1 - several[:, :3])
        return CellMasks(object=objects, unknown=several, weight=self.weight)

    def _moved(self, masks: Masks) -> tuple[Tensor, Tensor]:
        """The main mask eroded and dilated, on the fine grid."""
        inside = self._shrunk(masks.main)
        known = 1.0 if masks.unknown is None else 1 - self._shrunk(masks.unknown)
        outside = (known - inside).clamp_min(0)
        eroded = _eroded(inside, self._steps)
        left = _eroded(outside, self._steps)
        return eroded, (known - left).clamp(0, 1)

    def _shrunk(self, mask: Tensor) -> Tensor:
        if tuple(mask.shape[-2:]) == self._fine:
            return mask
        return F.interpolate(mask[:, None], size=self._fine, mode="area")[:, 0]


def _eroded(mask: Tensor, steps: int) -> Tensor:
    """Take off the border of a mask step by step, as long as a quarter of it is left."""
    enough = LEAST_LEFT * mask.sum(dim=(1, 2))
    result = smaller = mask
    for step in range(steps):
        # Cross and square in turn make an octagon; beyond the image nothing is taken off.
        smaller = -(_grown_by_square if step % 2 else _grown_by_cross)(-smaller)
        keep = smaller.sum(dim=(1, 2)) >= enough
        result = torch.where(keep[:, None, None], smaller, result)
    return result


def _grown_by_cross(mask: Tensor) -> Tensor:
    return torch.maximum(_widened(mask, 1), _widened(mask, 2))


def _grown_by_square(mask: Tensor) -> Tensor:
    return _widened(_widened(mask, 1), 2)


def _widened(mask: Tensor, axis: int) -> Tensor:
    """The larger of each pixel and its two neighbours along an axis."""
    grown = mask.clone()
    length = mask.shape[axis] - 1
    lower, upper = mask.narrow(axis, 0, length), mask.narrow(axis, 1, length)
    one, other = grown.narrow(axis, 1, length), grown.narrow(axis, 0, length)
    torch.maximum(one, lower, out=one)
    torch.maximum(other, upper, out=other)
    return grown


def border_touch(inside: Tensor) -> Tensor:
    """How much of the image's border is object.

    Args:
        inside: bool, N×H×W.

    Returns:
        In [0, 1], N.

    Example:
        >>> border_touch(torch.tensor([[[1, 1, 1], [0, 1, 0], [0, 0, 0]]]).bool())
        tensor([0.3750])
    """
    ring = torch.ones(inside.shape[-2:], dtype=torch.bool, device=inside.device)
    ring[1:-1, 1:-1] = False
    return inside[:, ring].float().mean(dim=1)


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of two masks, bool N×H×W; NaN where both are empty."""
    shared = (one & other).sum(dim=(1, 2))
    either = (one | other).sum(dim=(1, 2))
    return torch.where(either > 0, shared / either, torch.nan)
