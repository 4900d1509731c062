"""Edited pictures: objects and backgrounds exchanged, removed and disturbed, in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.score.filling import FILLS, clouds, hole, without
from audit.score.masks import Family, Masks
from audit.score.positions import of_other_classes, scramble

# Transplants a sample under each family of masks: two with each fill.
TRANSPLANTS = 2 * len(FILLS)
# Standard deviation of the noise that disturbs an object or a background, in grey levels.
DISTURBANCE = 64.0
# Fields of noise and of colour, shared by all samples.
_FIELDS = 64


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """One family's view of some images: what is object, and the hole that it leaves.

    Attributes:
        object: The share of each pixel to put elsewhere, float N×H×W.
        hole: The pixels to fill where the object goes, bool N×H×W.
        valid: Where there are both object and background, bool N.
    """

    object: Tensor
    hole: Tensor
    valid: Tensor

    @classmethod
    def of(cls, family: Family) -> Cutout:
        """Cut by a family's masks; what is unknown goes with the object when that is removed."""
        unknown = torch.zeros_like(family.mask) if family.unknown is None else family.unknown
        gap = hole((family.mask + unknown).clamp(0, 1))
        inside = (family.mask >= 0.5).flatten(1).any(dim=1)
        valid = inside & ~gap.flatten(1).all(dim=1)
        if family.valid is not None:
            valid = valid & family.valid
        return cls(object=family.mask, hole=gap, valid=valid)

    def take(self, rows: Tensor) -> Cutout:
        """Some of the images, in another order."""
        return Cutout(object=self.object[rows], hole=self.hole[rows], valid=self.valid[rows])


def cutouts(masks: Masks) -> dict[str, Cutout]:
    """A batch's cut-outs by family; the main family's name is empty."""
    main = Family(mask=masks.main, unknown=masks.unknown)
    others = {name: family.beside(masks.unknown) for name, family in masks.others.items()}
    return {name: Cutout.of(family) for name, family in {"": main, **others}.items()}


@dataclass(frozen=True, kw_only=True)
class EditBank:
    """What pictures are edited with: images of every class, sorted by class, and fields.

    Attributes:
        index: Positions in the split, int64 D.
        images: float32 in [0, 255], D×3×H×W.
        cutouts: By family; the main one's name is empty.
        backdrops: The images without their objects, under the main masks, D×3×H×W.
        labels: int64, D, ascending.
        first: For each class its first image, int64, K.
        count: For each class how many images it has, int64, K.
        mean: The training set's mean colour in grey levels, 3×1×1.
        clouds: Blurred fields of random colours, 64×3×H×W.
        grain: White noise of unit variance, 64×3×H×W.
    """

    index: Tensor
    images: Tensor
    cutouts: Mapping[str, Cutout]
    backdrops: Tensor
    labels: Tensor
    first: Tensor
    count: Tensor
    mean: Tensor
    clouds: Tensor
    grain: Tensor

    @classmethod
    def of(
        cls,
        index: Tensor,
        images: Tensor,
        masks: Masks,
        labels: Tensor,
        *,
        mean: Tensor,
        num_classes: int,
        seed: int,
    ) -> EditBank:
        """Sort images by class and remove their objects.

        Args:
            index: Positions in the split, int64 D.
            images: uint8, D×3×H×W.
            masks: Theirs.
            labels: int64, D, in [0, K).
            mean: In grey levels, 3×1×1.
            num_classes: K.
            seed: Draws other fields.
        """
        order = labels.argsort(stable=True)
        count = torch.bincount(labels, minlength=num_classes)
        pixels = images[order].float()
        cuts = {name: cut.take(order) for name, cut in cutouts(masks).items()}
        size = (int(images.shape[2]), int(images.shape[3]))
        generator = torch.Generator().manual_seed(seed)
        grain = torch.randn(_FIELDS, 3, *size, generator=generator)
        return cls(
            index=index[order],
            images=pixels,
            cutouts=cuts,
            backdrops=without(pixels, cuts[""].hole),
            labels=labels[order],
            first=count.cumsum(0) - count,
            count=count,
            mean=mean.to(images.device),
            clouds=clouds(_FIELDS, size, seed).to(images.device),
            grain=grain.to(images.device),
        )

    def of_other_classes(self, index: Tensor, labels: Tensor) -> Tensor:
        """For each sample the places of images of other classes, N×6."""
        return of_other_classes(
            index,
            labels,
            first=self.first,
            count=self.count,
            total=len(self.labels),
            number=TRANSPLANTS,
        )

    def fill(self, kind: int, index: Tensor, other: Tensor) -> Tensor:
        """What a hole is filled with, N×3×H×W.

        Args:
            kind: Position in :data:`FILLS`.
            index: Positions of the samples in the split, N: they choose the field.
            other: Positions in the bank, N: whose backdrop the third fill takes.
        """
        if FILLS[kind] == "other":
            return self.backdrops[other]
        if FILLS[kind] == "mean":
            return self.mean.expand(len(index), -1, *self.images.shape[2:])
        return self.clouds[(scramble(index) + kind) % _FIELDS]

    def noise(self, index: Tensor) -> Tensor:
        """White noise, N×3×H×W, in grey levels."""
        return DISTURBANCE * self.grain[scramble(index) % _FIELDS]


def of_same_class(index: Tensor, labels: Tensor, bank: EditBank, number: int) -> Tensor:
    """For each sample, images of its own class.

    Args:
        index: Positions of the samples in the split, int64 N.
        labels: int64, N.
        bank: Where from.
        number: How many.

    Returns:
        Positions in the bank, int64 N×number; -1 where there is none but the sample itself.
    """
    is_self = bank.index == index[:, None]
    others = bank.count[labels] - is_self.sum(dim=1)
    step = torch.arange(number, device=index.device)
    place = (scramble(index)[:, None] + step) % others.clamp_min(1)[:, None]
    place = place + bank.first[labels][:, None]
    # Without itself: what comes after it moves up.
    own = torch.where(is_self.any(dim=1), is_self.int().argmax(dim=1), len(bank.labels))
    place = (place + (place >= own[:, None]).long()).clamp_max(len(bank.labels) - 1)
    return torch.where((step < others[:, None]), place, -1)


def transplanted(
    images: Tensor, own: Cutout, fill: Tensor, objects: Tensor, where: Tensor
) -> Tensor:
    """Other objects on these images' backgrounds.

    Args:
        images: Float, N×3×H×W.
        own: Their cut-outs.
        fill: What stands where their own objects were, N×3×H×W.
        objects: The images that objects come from, N×3×H×W.
        where: Their object masks, N×H×W.

    Returns:
        ``B + M'·(x' − B)`` with ``B`` the image and its hole filled, N×3×H×W.

    Source:
        Xiao et al. 2020, "Noise or Signal", section 2.

    Example:
        >>> own = Cutout(object=torch.tensor([[[1.0, 0.0, 0.0]]]),
        ...     hole=torch.tensor([[[True, False, False]]]), valid=torch.tensor([True]))
        >>> transplanted(torch.tensor([[[[9.0, 2.0, 3.0]]]]), own, torch.full((1, 1, 1, 3), 5.0),
        ...     torch.full((1, 1, 1, 3), 7.0), torch.tensor([[[0.0, 1.0, 0.0]]])).tolist()
        [[[[5.0, 7.0, 3.0]]]]
    """
    emptied = background_only(images, own, fill)
    return emptied + where[:, None] * (objects - emptied)


def background_only(images: Tensor, own: Cutout, fill: Tensor) -> Tensor:
    """Images with their objects replaced, N×3×H×W."""
    return torch.where(own.hole[:, None], fill, images)


def object_only(images: Tensor, own: Cutout, fill: Tensor) -> Tensor:
    """Images with all but their objects replaced, N×3×H×W."""
    return fill + own.object[:, None] * (images - fill)


def disturbed(images: Tensor, where: Tensor, noise: Tensor) -> Tensor:
    """Images with noise on a part of them, N×3×H×W.

    Source:
        Moayeri et al. 2022, "A Comprehensive Study of Image Classification Model Sensitivity to
        Foregrounds, Backgrounds, and Visual Attributes", section 4.
    """
    return (images + where[:, None] * noise).clamp(0, 255)
