"""The masks that a batch is scored under: the main one, its border moved, and other families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.cam import Resampler

# The border moves on a grid so many times finer than the features'.
_SUBCELLS = 2
# It moves by a whole cell, or as far as leaves this share of the object, or of the background.
LEAST_LEFT = 0.25
# A smaller share of all mass is rounding.
_NOTHING = 1e-5


@dataclass(frozen=True, kw_only=True)
class Family:
    """Masks from one place.

    Attributes:
        mask: The share of each pixel that is object, in [0, 1], N×H×W.
        unknown: Likewise the share that counts on no side; ``None`` where everything is known.
        valid: Which samples have a mask, bool N; ``None`` for all.
    """

    mask: Tensor
    unknown: Tensor | None = None
    valid: Tensor | None = None

    @cached_property
    def indicator(self) -> Tensor:
        """Pixels that are object as 1, others as 0, float32 N×H×W."""
        return torch.ge(self.mask, 0.5, out=torch.empty_like(self.mask))

    def take(self, rows: Tensor) -> Family:
        """Some of the samples, in another order."""
        parts = (self.mask, self.unknown, self.valid)
        mask, unknown, valid = (None if part is None else part[rows] for part in parts)
        assert mask is not None
        return Family(mask=mask, unknown=unknown, valid=valid)

    @classmethod
    def joined(cls, parts: Sequence[Family]) -> Family:
        """The masks of several batches as one."""
        return cls(
            mask=torch.cat([part.mask for part in parts]),
            unknown=_joined_unknown([(part.mask, part.unknown) for part in parts]),
            valid=_joined_valid(parts),
        )

    def beside(self, main: Tensor | None) -> Family:
        """The same without the pixels that the main mask does not know either."""
        if main is None:
            return self
        if self.unknown is None:
            return Family(mask=self.mask * (1 - main), unknown=main, valid=self.valid)
        unknown = torch.maximum(self.unknown, main)
        mask = torch.minimum(self.mask, 1 - unknown)
        return Family(mask=mask, unknown=unknown, valid=self.valid)


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Object masks of a batch, in pixels.

    Attributes:
        main: What scores rest on: the share of each pixel that is object, in [0, 1], N×H×W.
        unknown: Likewise the share that counts on no side; ``None`` where everything is known.
        others: Masks from elsewhere, by the family's name. What the main one does not know
            counts on no side under them too, so that all are compared on the same pixels.
    """

    main: Tensor
    unknown: Tensor | None = None
    others: Mapping[str, Family] = field(default_factory=dict)

    def take(self, rows: Tensor) -> Masks:
        """Some of the samples, in another order."""
        return Masks(
            main=self.main[rows],
            unknown=None if self.unknown is None else self.unknown[rows],
            others={name: family.take(rows) for name, family in self.others.items()},
        )

    @classmethod
    def joined(cls, parts: Sequence[Masks]) -> Masks:
        """The masks of several batches as one; all have the same families."""
        return cls(
            main=torch.cat([part.main for part in parts]),
            unknown=_joined_unknown([(part.main, part.unknown) for part in parts]),
            others={
                name: Family.joined([part.others[name] for part in parts])
                for name in parts[0].others
            },
        )

    @cached_property
    def inside(self) -> Tensor:
        """Pixels that are object, bool N×H×W."""
        return self.main >= 0.5

    @cached_property
    def indicator(self) -> Tensor:
        """The same as 0 and 1, float32."""
        return torch.ge(self.main, 0.5, out=torch.empty_like(self.main))

    @cached_property
    def known(self) -> Tensor | None:
        """Pixels that are object or background, bool N×H×W; ``None`` for all."""
        return None if self.unknown is None else self.unknown < 0.5

    @cached_property
    def has_object(self) -> Tensor:
        """Whether any pixel is object, bool N."""
        return self.indicator.sum(dim=(1, 2)) > 0

    @cached_property
    def has_background(self) -> Tensor:
        """Whether any known pixel is not object, bool N."""
        taken = self.indicator
        if self.known is not None:
            taken = torch.maximum(taken, (~self.known).to(taken.dtype))
        return taken.sum(dim=(1, 2)) < taken.shape[1] * taken.shape[2]

    @property
    def area(self) -> Tensor:
        """Object's share of what is known, N; NaN where nothing is."""
        inside = self.main.mean(dim=(1, 2))
        if self.unknown is None:
            return inside
        known = 1 - self.unknown.mean(dim=(1, 2))
        return torch.where(known > _NOTHING, inside / known, torch.nan)


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
        return torch.where(known > _NOTHING * self.weight.sum(), inside / known, torch.nan)

    def shares(self, positive: Tensor) -> Tensor:
        """The share of a map's positive mass on the object, for every mask in one product.

        Args:
            positive: ``L ≥ 0``, N×h×w.

        Returns:
            ``R = Σ u·L·m / Σ u·L·(1 − unknown)`` in [0, 1], N×V; NaN for a map without mass
            on known pixels.

        Source:
            As :func:`audit.score.attention.object_share`.
        """
        mass = (positive * self.weight).flatten(1)[:, :, None]
        inside = (self.object.flatten(2) @ mass)[..., 0]
        total = mass.sum(dim=1).expand_as(inside)
        known = total if self.unknown is None else (self.known.flatten(2) @ mass)[..., 0]
        # What resampling rounds is no evidence.
        return torch.where(known > _NOTHING * total, inside / known, torch.nan).clamp(max=1)


def _joined_unknown(parts: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor | None:
    """What is unknown in several batches; ``None`` where all is known in all of them."""
    if all(unknown is None for _, unknown in parts):
        return None
    return torch.cat([torch.zeros_like(m) if unknown is None else unknown for m, unknown in parts])


def _joined_valid(parts: Sequence[Family]) -> Tensor | None:
    if all(part.valid is None for part in parts):
        return None
    every = [
        torch.ones(len(part.mask), dtype=torch.bool, device=part.mask.device)
        if part.valid is None
        else part.valid
        for part in parts
    ]
    return torch.cat(every)


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
        self._averaging = tuple(
            _averaging_matrix(pixels, cells).to(device)
            for pixels, cells in zip(image, self._fine, strict=True)
        )

    @property
    def weight(self) -> Tensor:
        """``u``, h×w."""
        return self._from_pixels.weight

    def to_grid(self, mask: Tensor) -> Tensor:
        """One mask N×H×W as N×h×w."""
        return self._from_pixels.to_grid(mask)

    def to_image(self, maps: Tensor) -> Tensor:
        """Maps N×h×w upsampled to N×H×W."""
        return self._from_pixels.to_image(maps)

    def __call__(self, masks: Masks) -> CellMasks:
        """All masks on the grid.

        Args:
            masks: In pixels.

        Returns:
            The masks on the grid. Eroded and dilated, the border moves by one cell each way, or
            as far as leaves a quarter of the object (of the background).
        """
        main = self.to_grid(masks.main)
        eroded, dilated = self._moved(masks, main)
        families = [family.beside(masks.unknown) for family in masks.others.values()]
        others = [self.to_grid(family.mask) for family in families]
        objects = torch.stack([main, eroded, dilated, *others], dim=1)
        # What the main mask does not know stays so wherever its border goes.
        shares = [masks.unknown] * 3 + [family.unknown for family in families]
        if all(share is None for share in shares):
            return CellMasks(object=objects, unknown=None, weight=self.weight)
        nothing = torch.zeros_like(main)
        unknown = torch.stack(
            [nothing if share is None else self.to_grid(share) for share in shares], dim=1
        )
        objects = torch.minimum(objects, 1 - unknown)
        return CellMasks(object=objects, unknown=unknown, weight=self.weight)

    def _moved(self, masks: Masks, main: Tensor) -> tuple[Tensor, Tensor]:
        """The main mask eroded and dilated, on the grid; itself where its border must not move."""
        inside = self._shrunk(masks.main)
        unknown = torch.zeros_like(inside) if masks.unknown is None else self._shrunk(masks.unknown)
        outside = (1 - unknown - inside).clamp_min(0)
        eroded, smaller = _eroded(inside, self._steps)
        left, larger = _eroded(outside, self._steps)
        dilated = (1 - unknown - left).clamp(0, 1)
        return tuple(
            torch.where(moved[:, None, None], self._from_fine.to_grid(mask), main)
            for mask, moved in ((eroded, smaller), (dilated, larger))
        )  # type: ignore[return-value]  # two of them

    def _shrunk(self, mask: Tensor) -> Tensor:
        if tuple(mask.shape[-2:]) == self._fine:
            return mask
        down, along = self._averaging
        return down @ (mask @ along.T)


def _averaging_matrix(pixels: int, cells: int) -> Tensor:
    """Takes the mean of the pixels of each cell along an axis, cells×pixels."""
    return F.adaptive_avg_pool1d(torch.eye(pixels), cells).T.contiguous()


def _eroded(mask: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Take off a mask's border step by step, as long as a quarter is left; and whether it moved."""
    enough = LEAST_LEFT * mask.sum(dim=(1, 2))
    result = smaller = mask
    moved = torch.zeros_like(enough, dtype=torch.bool)
    for step in range(steps):
        # Cross and square in turn make an octagon; beyond the image nothing is taken off.
        smaller = -(_grown_by_square if step % 2 else _grown_by_cross)(-smaller)
        keep = smaller.sum(dim=(1, 2)) >= enough
        moved = moved | keep
        result = torch.where(keep[:, None, None], smaller, result)
    return result, moved


def _grown_by_cross(mask: Tensor) -> Tensor:
    return torch.maximum(_widened(mask, 1), _widened(mask, 2))


def _grown_by_square(mask: Tensor) -> Tensor:
    return _widened(_widened(mask, 1), 2)


def _widened(mask: Tensor, axis: int) -> Tensor:
    """The larger of each pixel and its two neighbours along an axis."""
    length = mask.shape[axis]
    first, last = mask.narrow(axis, 0, 1), mask.narrow(axis, length - 1, 1)
    before = torch.cat([first, mask.narrow(axis, 0, length - 1)], dim=axis)
    after = torch.cat([mask.narrow(axis, 1, length - 1), last], dim=axis)
    return torch.maximum(mask, torch.maximum(before, after))


def border_touch(inside: Tensor) -> Tensor:
    """How much of the image's border is object.

    Args:
        inside: bool (or 0 and 1), N×H×W.

    Returns:
        In [0, 1], N.

    Example:
        >>> border_touch(torch.tensor([[[1, 1, 1], [0, 1, 0], [0, 0, 0]]]).bool())
        tensor([0.3750])
    """
    height, width = inside.shape[-2:]
    across = inside[:, [0, -1] if height > 1 else [0]].float().sum(dim=(1, 2))
    down = inside[:, 1:-1, [0, -1] if width > 1 else [0]].float().sum(dim=(1, 2))
    return (across + down) / (height * width - max(0, height - 2) * max(0, width - 2))


def overlap(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of two masks of 0 and 1, float N×H×W; NaN where both are empty."""
    shared = (one * other).sum(dim=(1, 2))
    either = one.sum(dim=(1, 2)) + other.sum(dim=(1, 2)) - shared
    return torch.where(either > 0, shared / either, torch.nan)
