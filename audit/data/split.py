"""What every source of images looks like to the rest of the audit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from audit.data.geometry import Geometry
from audit.errors import visible

MaskKind = Literal["dataset", "box"]

OK = "ok"
UNREADABLE = "unreadable"
MASK_MISSING = "mask_missing"
MASK_UNREADABLE = "mask_unreadable"
MASK_MISMATCH = "mask_mismatch"
BAD_LABEL = "bad_label"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some samples of a split, in the geometry that the model sees.

    Attributes:
        index: Positions in the split, int64, N.
        sample_id: Stable unique names, N.
        images: uint8, N×3×H×W; zeros where ``status`` is ``unreadable``.
        labels: int64, N; -1 where the label is not one of the split's classes.
        object_mask: float32 in [0, 1], N×H×W: the share of each pixel that is object; ``None``
            where the split has no masks.
        unknown: Likewise the share that is neither known to be object nor background; with
            ``object_mask`` at most 1. ``None`` where everything is known.
        status: ``ok`` or the reason why part of the sample is missing, N.
        problem: The same in words, with the names of the files; empty where all is well, N.
        stored: How the pictures were stored, int64, N×3: height and width in pixels (upright), and
            bytes of the encoded file; -1 where unknown. ``None`` where nothing is known.
    """

    index: Tensor
    sample_id: Sequence[str]
    images: Tensor
    labels: Tensor
    object_mask: Tensor | None
    status: Sequence[str]
    problem: Sequence[str] = ()
    unknown: Tensor | None = None
    stored: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.problem:
            object.__setattr__(self, "problem", [""] * len(self.sample_id))

    def __len__(self) -> int:
        return len(self.sample_id)

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (called by the data loader on CUDA machines)."""
        return Batch(
            index=self.index.pin_memory(),
            sample_id=self.sample_id,
            images=self.images.pin_memory(),
            labels=self.labels.pin_memory(),
            object_mask=None if self.object_mask is None else self.object_mask.pin_memory(),
            unknown=None if self.unknown is None else self.unknown.pin_memory(),
            status=self.status,
            problem=self.problem,
            stored=None if self.stored is None else self.stored.pin_memory(),
        )


class Split(Protocol):
    """Images with labels and, where there are any, object masks; fetched a batch at a time."""

    @property
    def name(self) -> str:
        """The dataset's name, for paths and titles."""

    @property
    def part(self) -> str:
        """Which split of the dataset: ``test``, ``train``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; a label is an index into them."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """Height and width that all pictures were stored in; ``None`` where they have many."""

    @property
    def has_masks(self) -> bool:
        """Whether batches carry object masks."""

    @property
    def mask_kind(self) -> MaskKind:
        """What they are: outlines of objects, or soft shapes in their bounding boxes."""

    @property
    def in_memory(self) -> bool:
        """Whether fetching is a memory copy, so that worker processes would not help."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What is known of the split beforehand, JSON-serialisable (for example planted cues)."""

    def fingerprint(self) -> str:
        """A digest of the content: equal for equal images, labels and masks."""

    def framed(self, geometry: Geometry) -> Split:
        """The same samples in another geometry; it applies to the pictures as they were stored."""

    def __len__(self) -> int: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch: ...


@dataclass(frozen=True, kw_only=True)
class ArraySplit:
    """A split that fits in memory as arrays.

    Args:
        images: uint8, N×3×H×W.
        labels: int64, N.
        masks: uint8 0/1, N×H×W, or ``None``.

    Example:
        >>> split = ArraySplit(
        ...     name="two", part="test", classes=("a", "b"), sample_ids=("x", "y"),
        ...     images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 1]))
        >>> split.__getitems__([1]).labels
        tensor([1])
    """

    name: str
    part: str
    classes: tuple[str, ...]
    sample_ids: tuple[str, ...]
    images: Tensor
    labels: Tensor
    masks: Tensor | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    in_memory: bool = True
    mask_kind: MaskKind = "dataset"

    @property
    def image_size(self) -> tuple[int, int]:
        """See :class:`Split`."""
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """See :class:`Split`."""
        return self.image_size

    @property
    def has_masks(self) -> bool:
        """See :class:`Split`."""
        return self.masks is not None

    def fingerprint(self) -> str:
        """See :class:`Split`."""
        digest = hashlib.sha256(repr((self.classes, tuple(self.images.shape))).encode())
        for array in (self.images, self.labels, self.masks):
            if array is not None:
                digest.update(array.numpy().tobytes())
        return digest.hexdigest()

    def framed(self, geometry: Geometry) -> Split:
        """See :class:`Split`."""
        return frame(self, geometry)

    def name_of(self, i: int) -> str:
        """See :func:`name_of`."""
        return self.sample_ids[i]

    def __len__(self) -> int:
        return len(self.sample_ids)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.int64)
        return Batch(
            index=index,
            sample_id=[self.sample_ids[i] for i in indices],
            images=self.images[index],
            labels=self.labels[index],
            object_mask=None if self.masks is None else self.masks[index].float(),
            status=[OK] * len(indices),
        )


def name_of(split: Split, i: int) -> str:
    """What a sample is called, told without opening it.

    Args:
        split: The samples.
        i: Position of one.

    Returns:
        Its ``sample_id``; empty where the split cannot tell.
    """
    tell = getattr(split, "name_of", None)
    return str(tell(i)) if tell is not None else ""


def frame(split: Split, geometry: Geometry) -> Split:
    """Bring a split whose pictures all have one size into another geometry.

    Args:
        split: A split with its pictures at the size that they were stored in.
        geometry: How they become what the model sees.

    Returns:
        A :class:`FramedSplit`, or ``split`` itself where the geometry would change nothing.

    Example:
        >>> from audit.data.demo import open_demo
        >>> split = open_demo("test")
        >>> frame(split, Geometry.square(32)) is split
        True
        >>> frame(split, Geometry(size=(48, 64), resize=64)).image_size
        (48, 64)
    """
    return split if geometry.keeps(*split.image_size) else FramedSplit(split, geometry)


class _OverSplit:
    """What a split that changes another has in common with it."""

    def __init__(self, split: Split, image_size: tuple[int, int]) -> None:
        self._split = split
        self.name = split.name
        self.part = split.part
        self.classes = split.classes
        self.image_size = image_size
        self.stored_size = split.stored_size
        self.has_masks = split.has_masks
        self.mask_kind = split.mask_kind
        self.in_memory = split.in_memory
        # Not of every split, for users write their own.
        self.any_thread = getattr(split, "any_thread", False)
        self.facts = split.facts


class FramedSplit(_OverSplit):
    """A split in another geometry, resized and cropped batch by batch as it is fetched.

    Args:
        split: A split with its pictures at the size that they were stored in.
        geometry: How they become what the model sees.

    Example:
        >>> split = ArraySplit(
        ...     name="two", part="test", classes=("a", "b"), sample_ids=("x", "y"),
        ...     images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 1]))
        >>> FramedSplit(split, Geometry.square(8)).__getitems__([1]).images.shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, split: Split, geometry: Geometry) -> None:
        super().__init__(split, geometry.size)
        self._geometry = geometry

    def fingerprint(self) -> str:
        """See :class:`Split`."""
        framed = f"{self._split.fingerprint()} {self._geometry}"
        return hashlib.sha256(framed.encode()).hexdigest()

    def framed(self, geometry: Geometry) -> Split:
        """See :class:`Split`."""
        return self._split.framed(geometry)

    def name_of(self, i: int) -> str:
        """See :func:`name_of`."""
        return name_of(self._split, i)

    def __len__(self) -> int:
        return len(self._split)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self._split.__getitems__(indices)
        images = self._geometry.image(batch.images)
        masks = None if batch.object_mask is None else self._geometry.mask(batch.object_mask)
        unknown = None if batch.unknown is None else self._geometry.mask(batch.unknown)
        return replace(batch, images=images, object_mask=masks, unknown=unknown)


class NamedSplit(_OverSplit):
    """A split whose classes were called by number, under other names.

    Args:
        split: The split, its labels numbers of classes.
        classes: Names of at least as many.

    Example:
        >>> split = ArraySplit(
        ...     name="two", part="test", classes=("0", "1"), sample_ids=("x", "y"),
        ...     images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8), labels=torch.tensor([0, 1]))
        >>> NamedSplit(split, ("cat", "dog", "cow")).classes
        ('cat', 'dog', 'cow')
    """

    def __init__(self, split: Split, classes: Sequence[str]) -> None:
        super().__init__(split, split.image_size)
        self.classes = tuple(map(visible, classes))

    def fingerprint(self) -> str:
        """See :class:`Split`; the names are not the data's."""
        return self._split.fingerprint()

    def framed(self, geometry: Geometry) -> Split:
        """See :class:`Split`."""
        return NamedSplit(self._split.framed(geometry), self.classes)

    def name_of(self, i: int) -> str:
        """See :func:`name_of`."""
        return name_of(self._split, i)

    def __len__(self) -> int:
        return len(self._split)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self._split.__getitems__(indices)


class LimitedSplit(_OverSplit):
    """Every k-th sample of a split, so that a sorted folder keeps all its classes.

    Args:
        split: The split to take from.
        limit: How many samples to keep; all of them where the split holds fewer.

    Example:
        >>> split = ArraySplit(
        ...     name="four", part="test", classes=("a",), sample_ids=tuple("wxyz"),
        ...     images=torch.zeros(4, 3, 2, 2, dtype=torch.uint8), labels=torch.zeros(4).long())
        >>> LimitedSplit(split, 2).__getitems__([0, 1]).sample_id
        ['w', 'y']
    """

    def __init__(self, split: Split, limit: int) -> None:
        super().__init__(split, split.image_size)
        kept = min(limit, len(split))
        self._chosen = [i * len(split) // kept for i in range(kept)]

    def fingerprint(self) -> str:
        """See :class:`Split`."""
        chosen = f"{self._split.fingerprint()} {self._chosen}"
        return hashlib.sha256(chosen.encode()).hexdigest()

    def framed(self, geometry: Geometry) -> Split:
        """See :class:`Split`."""
        return LimitedSplit(self._split.framed(geometry), len(self))

    def name_of(self, i: int) -> str:
        """See :func:`name_of`."""
        return name_of(self._split, self._chosen[i])

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = self._split.__getitems__([self._chosen[i] for i in indices])
        return replace(batch, index=torch.as_tensor(indices, dtype=torch.int64))
