"""Generated pictures with an object each, for measurements: any sample can be made alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from audit.data import Batch, Split
from audit.data.geometry import Geometry
from audit.data.split import ArraySplit, MaskKind

_PATTERNS = 128
# Pictures in memory, unless more are asked for.
FEW_SMALL, FEW_LARGE = 1024, 64


@cache
def _patterns(side: int) -> tuple[Tensor, Tensor]:
    """Smooth pictures, uint8 P×3×side×side, and places of objects, bool P×side×side."""
    generator = torch.Generator().manual_seed(side)
    coarse = 255 * torch.rand(_PATTERNS, 3, 6, 6, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    grain = 12 * torch.randn(_PATTERNS, 3, side, side, generator=generator)
    centre = side * (0.35 + 0.3 * torch.rand(_PATTERNS, 2, 1, 1, generator=generator))
    radius = side * (0.12 + 0.2 * torch.rand(_PATTERNS, 2, 1, 1, generator=generator))
    y, x = torch.arange(side)[:, None], torch.arange(side)[None, :]
    away = ((y - centre[:, 0]) / radius[:, 0]) ** 2 + ((x - centre[:, 1]) / radius[:, 1]) ** 2
    return (smooth + grain).clamp(0, 255).to(torch.uint8), away < 1


def draw(index: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Pictures and their objects: one pattern in the shape of another one's object on a third.

    Args:
        index: Positions, int64 N.
        side: Height and width.

    Returns:
        uint8 N×3×side×side, and bool N×side×side.
    """
    pictures, objects = _patterns(side)
    mask = objects[(index * 7 + 3) % _PATTERNS]
    inner = 255 - pictures[(index // _PATTERNS * 5 + index) % _PATTERNS]
    outer = pictures[(index // 3) % _PATTERNS]
    return torch.where(mask[:, None], inner, outer), mask


@dataclass(frozen=True, kw_only=True)
class GeneratedSplit:
    """Pictures that are made when they are asked for, so that none of them stays in memory.

    Attributes:
        count: How many.
        classes: Class names.
        side: Height and width.
    """

    count: int
    classes: tuple[str, ...]
    side: int
    name: str = "generated"
    part: str = "test"
    has_masks: bool = True
    mask_kind: MaskKind = "dataset"
    in_memory: bool = True
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def image_size(self) -> tuple[int, int]:
        """See :class:`audit.data.split.Split`."""
        return self.side, self.side

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """Likewise."""
        return self.image_size

    def fingerprint(self) -> str:
        """Likewise."""
        return hashlib.sha256(repr((self.count, len(self.classes), self.side)).encode()).hexdigest()

    def framed(self, geometry: Geometry) -> Split:
        """Pictures are made in one size only."""
        assert geometry.size == self.image_size
        return self

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.int64)
        images, masks = draw(index, self.side)
        return Batch(
            index=index,
            sample_id=[f"{i:07d}" for i in indices],
            images=images,
            labels=index % len(self.classes),
            object_mask=masks.float(),
            status=["ok"] * len(indices),
        )


def in_memory(count: int, classes: int, side: int) -> ArraySplit:
    """The same pictures as arrays, without masks.

    Args:
        count: How many.
        classes: Of the labels.
        side: Height and width.
    """
    index = torch.arange(count)
    return ArraySplit(
        name=f"generated-{side}-{count}-{classes}",
        part="test",
        classes=class_names(classes),
        sample_ids=tuple(f"{i:07d}" for i in range(count)),
        images=draw(index, side)[0],
        labels=index * 3 % classes,
    )


def class_names(count: int) -> tuple[str, ...]:
    """Names in the order of their labels."""
    return tuple(f"class {number:04d}" for number in range(count))


# What `--dataset benchmarks.pictures:NAME --limit N` audits.
def ten_classes() -> GeneratedSplit:
    """100,000 pictures, 32×32."""
    return GeneratedSplit(count=100_000, classes=class_names(10), side=32)


def thousand_classes() -> GeneratedSplit:
    """Likewise."""
    return GeneratedSplit(count=100_000, classes=class_names(1000), side=32)


def small_pictures() -> ArraySplit:
    """Of 32×32 in memory."""
    return in_memory(FEW_SMALL, 10, 32)


def small_pictures_of_many() -> ArraySplit:
    """The same of 1,000 classes."""
    return in_memory(FEW_SMALL, 1000, 32)


def many_small_pictures() -> ArraySplit:
    """What large batches take."""
    return in_memory(32_768, 10, 32)


def large_pictures() -> ArraySplit:
    """Of 224×224 in memory."""
    return in_memory(FEW_LARGE, 1000, 224)


def many_large_pictures() -> ArraySplit:
    """What large batches take."""
    return in_memory(1024, 1000, 224)
