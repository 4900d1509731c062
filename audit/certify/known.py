"""The clean images that cues are planted into, in memory, with object masks where needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audit.data import LimitedSplit, Split, iterate, open_split
from audit.data.split import OK
from audit.errors import DataError
from audit.masks import enlarge, estimate_masks

# Of all images together, in bytes: beyond it the benchmark asks for a smaller share.
_MOST_BYTES = 4 * 2**30
# CIFAR's own parts share some images; the same part twice shares all.
_MOST_COPIES = 0.2


@dataclass(frozen=True, kw_only=True)
class Images:
    """Samples of one part of a dataset.

    Attributes:
        images: uint8, N×3×H×W.
        labels: int64, N.
        masks: float32 in [0, 1], N×H×W: the dataset's object masks, or ``None``.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def index(self) -> Tensor:
        """Positions, int64, N."""
        return torch.arange(len(self))


@dataclass(frozen=True, kw_only=True)
class KnownData:
    """A dataset to plant into.

    Attributes:
        name: Of the dataset.
        classes: Class names.
        train: What is trained on.
        test: What is audited.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    test: Images

    @property
    def exact(self) -> bool:
        """Whether the dataset tells where its objects are."""
        return self.test.masks is not None


def load_images(split: Split) -> Images:
    """Read all samples of a split that are whole.

    Args:
        split: The split; its pictures have one size.

    Returns:
        The samples; masks where the split has them.

    Raises:
        DataError: If too few are readable, or they do not fit into memory.
    """
    height, width = split.image_size
    if len(split) * height * width * 3 > _MOST_BYTES:
        raise DataError(
            f"{split.name} is too large to plant cues into",
            expected=f"at most {_MOST_BYTES // (height * width * 3):,} images of {height}×{width}",
            found=f"{len(split):,}",
            remedy="take fewer with --limit and --train-limit",
        )
    images, labels, masks = [], [], []
    for batch in iterate(split, range(len(split)), batch_size=1024):
        fine = torch.tensor([status == OK for status in batch.status]) & (batch.labels >= 0)
        images.append(batch.images[fine])
        labels.append(batch.labels[fine])
        if batch.object_mask is not None:
            masks.append(batch.object_mask[fine])
    if not sum(map(len, labels)):
        raise DataError(f"{split.name} holds no readable {split.part} images")
    return Images(
        images=torch.cat(images),
        labels=torch.cat(labels),
        masks=torch.cat(masks) if masks else None,
    )


def object_masks(data: Images, chosen: Tensor | None = None) -> Tensor:
    """Where the objects are: as the dataset says, else as they are estimated on clean images.

    Args:
        data: The samples.
        chosen: bool, N: only these are estimated, the others' masks stay empty.

    Returns:
        float32 in [0, 1], N×H×W.
    """
    if data.masks is not None:
        return data.masks
    size = int(data.images.shape[-2]), int(data.images.shape[-1])
    found = torch.zeros(len(data), *size)
    rows = data.index if chosen is None else chosen.nonzero()[:, 0]
    for part in rows.split(2048):
        found[part] = enlarge(estimate_masks(data.images[part]).planes[:, 0], size)
    return found


def load_dataset(
    name: str, root: Path, *, limit: int | None = None, train_limit: int | None = None
) -> KnownData:
    """Open a dataset's training and test part.

    Args:
        name: As in ``audit run --dataset``; of ``demo`` the variant whose backgrounds tell nothing.
        root: Where datasets with a name lie.
        limit: Most test images, evenly spaced.
        train_limit: Most training images, likewise.

    Returns:
        Both parts in memory.

    Raises:
        DataError: If a part is absent, the parts are the same, or their classes differ.

    Example:
        >>> data = load_dataset("demo", tmp, limit=50, train_limit=100)
        >>> len(data.train), len(data.test), data.exact
        (100, 50, True)
    """
    train, test = (_open(name, part, root) for part in ("train", "test"))
    if train.classes != test.classes:
        raise DataError(f"{name}: the training part has other classes than the test part")
    if train.image_size != test.image_size:
        raise DataError(f"{name}: the parts' images differ in size")
    data = KnownData(
        name=name,
        classes=test.classes,
        train=load_images(_limited(train, train_limit)),
        test=load_images(_limited(test, limit)),
    )
    copies = _copied_share(data)
    if copies > _MOST_COPIES:
        raise DataError(
            f"{copies:.0%} of the test images of {name} are in both parts",
            expected="a dataset with a training and a test part of its own",
        )
    return data


def _copied_share(data: KnownData) -> float:
    """The share of test images that are trained on too, byte for byte."""
    known = {image.tobytes() for image in data.train.images.numpy()}
    copied = sum(image.tobytes() in known for image in data.test.images.numpy())
    return copied / len(data.test)


def _open(name: str, part: str, root: Path) -> Split:
    if name == "demo":
        from audit.data.demo import open_demo

        return open_demo(part, cue_strength=0.0)
    return open_split(name, part, root=root)


def _limited(split: Split, limit: int | None) -> Split:
    return split if limit is None or limit >= len(split) else LimitedSplit(split, limit)
