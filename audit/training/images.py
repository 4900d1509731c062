"""The images of a training run: all roots joined, some held out, copies of those left out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.data import Split, iterate, open_split
from audit.data.split import OK
from audit.errors import DataError
from audit.training.recipe import Recipe

# Root-mean-square difference of 4×4-pixel averages, in grey levels, below which two images count
# as one. CIFAR-10 images and their JPEG copies (quality 75) differ by at most 6.3; 99.9% of
# different ones by more than 7.9.
COPY_DISTANCE = 6.5


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """uint8 images N×3×H×W with their int64 labels N."""

    images: Tensor
    labels: Tensor

    def take(self, chosen: Tensor) -> Labelled:
        """The samples at these positions (or where this mask is true)."""
        return Labelled(images=self.images[chosen], labels=self.labels[chosen])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """What a training run reads.

    Attributes:
        train: The images to train on.
        test: The test split of the first root; ``None`` where it has none of its own.
        held_out: For each root, images that are never trained on.
        classes: Class names.
        image_size: Height and width.
        copies_dropped: Training images left out because they copy a held-out one.
    """

    train: Labelled
    test: Labelled | None
    held_out: tuple[Labelled, ...]
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    copies_dropped: int


def load_training_images(recipe: Recipe) -> TrainingImages:
    """Read the training splits of all roots.

    Args:
        recipe: Names the dataset, its roots and how many images to hold out of each.

    Returns:
        The images in memory.

    Raises:
        DataError: If a root is absent, the roots differ in their classes, or too few images stay.
    """
    splits = [open_split(recipe.dataset, "train", root=root) for root in recipe.data_roots]
    classes = splits[0].classes
    for split, root in zip(splits, recipe.data_roots, strict=True):
        if split.classes != classes:
            raise DataError(
                f"the classes in {root} differ from those in {recipe.data_roots[0]}",
                expected=", ".join(classes),
                found=", ".join(split.classes),
            )
    everything = [read_all(split) for split in splits]
    kept, held_out = [], []
    for number, data in enumerate(everything):
        order = torch.randperm(len(data), generator=_generator(recipe.seed + number))
        if len(data) < 2 * recipe.hold_out:
            raise DataError(
                f"{recipe.data_roots[number]} holds too few images to hold some out",
                expected=f"at least {2 * recipe.hold_out}",
                found=str(len(data)),
                remedy="lower --hold-out",
            )
        held_out.append(data.take(order[: recipe.hold_out]))
        kept.append(data.take(order[recipe.hold_out :]))
    joined = join(kept)
    copies = find_copies(joined.images, join(held_out).images)
    train = joined.take(~copies)
    if len(train) < 2:
        raise DataError(
            "too few images are left to train on",
            expected="at least 2",
            found=f"{len(train)}, after leaving out {int(copies.sum())} copies of held-out images",
        )
    return TrainingImages(
        train=train,
        test=_test_images(recipe, splits[0]),
        held_out=tuple(held_out),
        classes=classes,
        image_size=splits[0].image_size,
        copies_dropped=int(copies.sum()),
    )


def _test_images(recipe: Recipe, train: Split) -> Labelled | None:
    """The test split, unless there is none or it is what we train on."""
    try:
        test = open_split(recipe.dataset, "test", root=recipe.data_roots[0])
    except DataError:
        return None
    if test.classes != train.classes or test.fingerprint() == train.fingerprint():
        return None
    return read_all(test)


def read_all(split: Split) -> Labelled:
    """All readable samples of a split, in memory."""
    images, labels = [], []
    for batch in iterate(split, range(len(split)), batch_size=1024):
        fine = torch.tensor([status == OK for status in batch.status])
        images.append(batch.images[fine])
        labels.append(batch.labels[fine])
    return Labelled(images=torch.cat(images), labels=torch.cat(labels))


def join(parts: list[Labelled]) -> Labelled:
    """Several sets of samples as one."""
    return Labelled(
        images=torch.cat([part.images for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
    )


def find_copies(images: Tensor, of: Tensor) -> Tensor:
    """Which images are (re-encoded) copies of others.

    Args:
        images: uint8, N×3×H×W.
        of: uint8, M×3×H×W.

    Returns:
        bool, N.

    Example:
        >>> images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
        >>> find_copies(images, images[3:4] // 2 * 2).tolist()
        [False, False, False, True, False]
    """
    others = _averages(of)
    found = [
        (torch.cdist(_averages(chunk), others) / others.shape[1] ** 0.5).amin(dim=1) < COPY_DISTANCE
        for chunk in images.split(4096)
    ]
    return torch.cat(found)


def _averages(images: Tensor) -> Tensor:
    return F.avg_pool2d(images.float(), 4).flatten(1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
