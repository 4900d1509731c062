"""One split for every source of encoded pictures: decoding, checks, geometry, status."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from audit.data.decode import UnreadableImage, decode_rgb, is_turned
from audit.data.geometry import Geometry
from audit.data.maskvalues import BadMask, OtherSize, Shares, Size
from audit.data.places import reason
from audit.data.split import (
    BAD_LABEL,
    MASK_MISMATCH,
    OK,
    UNREADABLE,
    Batch,
    MaskKind,
    Split,
    frame,
)
from audit.errors import visible

# Whether a sample of a dataset with outlines is a picture or one object cut out of it.
Samples = Literal["images", "instances"]
# A cut-out's object has a box whose longer side is at least so many pixels; the square round it
# is this much longer.
LEAST_INSTANCE = 32
CONTEXT = 0.3
# Samples whose bytes are held at a time: a batch of any size reads so many ahead.
_AHEAD = 256
# What pictures of many sizes are brought to where nothing else is said.
DEFAULT_GEOMETRY = Geometry.square(32)


class BadLabel(ValueError):
    """A sample has no label, or one that is no class."""


class Window(NamedTuple):
    """A part of a picture, in whole pixels; ends are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, box: tuple[float, float, float, float], size: Size, context: float) -> Window:
        """The square round a box with some of its surroundings.

        Args:
            box: Left, top, right and bottom in pixels.
            size: The picture's height and width.
            context: By how much the square's side exceeds the box's longer side.

        Returns:
            A square inside the picture, moved where it would leave it; at most as large as the
            picture's short side, so that a longer box is cut at both ends.

        Example:
            >>> Window.around((10, 20, 30, 40), (100, 200), 0.3)
            Window(top=17, left=7, bottom=43, right=33)
            >>> Window.around((0, 0, 10, 10), (100, 200), 0.5)
            Window(top=0, left=0, bottom=15, right=15)
        """
        left, top, right, bottom = box
        side = max(1, min(round(max(right - left, bottom - top) * (1 + context)), *size))
        first_row = min(max(round((top + bottom - side) / 2), 0), size[0] - side)
        first_column = min(max(round((left + right - side) / 2), 0), size[1] - side)
        return cls(first_row, first_column, first_row + side, first_column + side)

    def of(self, array: Tensor) -> Tensor:
        """This part of …×H×W."""
        return array[..., self.top : self.bottom, self.left : self.right]


class Records(Protocol):
    """What a source says of its samples, one at a time; sent to worker processes."""

    def __len__(self) -> int: ...

    def sample_id(self, i: int) -> str:
        """A stable unique name, for files their path below the dataset's folder."""

    def label(self, i: int) -> int:
        """A position in the classes; raises :class:`BadLabel` where there is none."""

    def picture(self, i: int) -> bytes | Tensor:
        """The encoded picture, or uint8 3×H×W; raises ``OSError`` or ``UnreadableImage``."""

    def window(self, i: int) -> Window | None:
        """The part of the picture that is the sample; ``None`` for all of it."""

    def contents(self) -> Iterator[str]:
        """Digests of everything that decides the pictures."""


class Masks(Protocol):
    """Where a source has masks; sent to worker processes."""

    def read(self, i: int, size: Size) -> Shares:
        """The mask of the whole picture, which has this size.

        Raises:
            BadMask: If there is no usable one.
            OtherSize: If it was made for another size (so does the split if the shares have one).
        """

    def contents(self) -> Iterator[str]:
        """Digests of everything that decides the masks."""


@runtime_checkable
class ReadAhead(Protocol):
    """Records or masks that lie in a store, where asking for them one by one would take long."""

    def ahead(self, indices: Sequence[int]) -> Self:
        """The same with what these samples want at hand, read all at once."""


@dataclass(frozen=True, kw_only=True)
class PictureSplit:
    """Pictures decoded, checked, resized and cropped as they are fetched.

    Args:
        name: The dataset's name.
        part: The split's name.
        classes: Class names; control characters in them, and in both names, are escaped.
        records: The samples.
        masks: Their masks; ``None`` where the source has none.
        mask_kind: What the masks are.
        facts: What is known of the split beforehand.
        geometry: How pictures become what the model sees.
        stored_size: The height and width that all pictures have; others are unreadable.
            ``None`` where they have many sizes.
        any_thread: Whether samples may be fetched in another thread than the one that opened it;
            the user's code may not bear that.
        identity: Tells what stands for labels, names, pictures and masks in the fingerprint, where
            they are too many to be asked; ``None`` asks records and masks.
    """

    name: str
    part: str
    classes: tuple[str, ...]
    records: Records
    masks: Masks | None = None
    mask_kind: MaskKind = "dataset"
    facts: Mapping[str, object] = field(default_factory=dict)
    geometry: Geometry = DEFAULT_GEOMETRY
    stored_size: Size | None = None
    in_memory: bool = False
    any_thread: bool = True
    identity: Callable[[], str] | None = None

    def __post_init__(self) -> None:
        for name in ("name", "part"):
            object.__setattr__(self, name, visible(getattr(self, name)))
        object.__setattr__(self, "classes", tuple(map(visible, self.classes)))

    @property
    def image_size(self) -> Size:
        """See :class:`audit.data.split.Split`."""
        return self.geometry.size

    @property
    def has_masks(self) -> bool:
        """See :class:`audit.data.split.Split`."""
        return self.masks is not None

    def fingerprint(self) -> str:
        """See :class:`audit.data.split.Split`."""
        decided = (self.classes, self.geometry, self.stored_size, self.mask_kind)
        digest = hashlib.sha256(repr(decided).encode())
        if self.identity is not None:
            digest.update(f"identity {self.identity()}\n".encode())
            return digest.hexdigest()
        for content in self.records.contents():
            digest.update(f"picture {content}\n".encode())
        for i in range(len(self.records)):
            label = _label(self.records, i)[0]
            said = f"{visible(self.records.sample_id(i))} {label} {self.records.window(i)}\n"
            digest.update(said.encode())
        for content in self.masks.contents() if self.masks is not None else ():
            digest.update(f"mask {content}\n".encode())
        return digest.hexdigest()

    def framed(self, geometry: Geometry) -> Split:
        """See :class:`audit.data.split.Split`."""
        # Pictures of one size are brought to another a batch at a time, which is faster.
        if self.stored_size is not None:
            return frame(self, geometry)
        return replace(self, geometry=geometry)

    def name_of(self, i: int) -> str:
        """See :func:`audit.data.split.name_of`."""
        return visible(self.records.sample_id(i))

    def __len__(self) -> int:
        return len(self.records)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        count, size = len(indices), self.image_size
        # Filled through NumPy: for small pictures torch's assignments cost as much as decoding.
        images = np.zeros((count, 3, *size), np.uint8)
        masks = torch.zeros(count, *size) if self.masks is not None else None
        unknown: Tensor | None = None
        labels, stored = [-1] * count, [(-1, -1, -1)] * count
        status, problem = [OK] * count, [""] * count
        for row, sample in self._samples(indices):
            labels[row], status[row], problem[row] = sample.label, sample.status, sample.problem
            stored[row] = sample.stored
            if sample.image is not None:
                images[row] = sample.image.numpy()
            if masks is not None and sample.shares is not None:
                masks[row] = sample.shares.object
                if sample.shares.unknown is not None:
                    unknown = torch.zeros_like(masks) if unknown is None else unknown
                    unknown[row] = torch.minimum(sample.shares.unknown, 1 - masks[row])
        return Batch(
            index=torch.as_tensor(indices, dtype=torch.int64),
            sample_id=[visible(self.records.sample_id(i)) for i in indices],
            images=torch.from_numpy(images),
            labels=torch.tensor(labels, dtype=torch.int64),
            object_mask=masks,
            unknown=unknown,
            status=status,
            problem=problem,
            stored=torch.tensor(stored, dtype=torch.int64).reshape(count, 3),
        )

    def _samples(self, indices: Sequence[int]) -> Iterator[tuple[int, _Sample]]:
        """Each sample with its row."""
        # In the order of storage, because neighbours may be read together.
        rows = sorted(range(len(indices)), key=indices.__getitem__)
        for start in range(0, len(rows), _AHEAD):
            some = rows[start : start + _AHEAD]
            split = self._ahead([indices[row] for row in some])
            for row in some:
                yield row, _Sample.read(split, indices[row])

    def _ahead(self, indices: Sequence[int]) -> PictureSplit:
        records, masks = _ahead(self.records, indices), _ahead(self.masks, indices)
        if records is self.records and masks is self.masks:
            return self
        return replace(self, records=records, masks=masks)


def _ahead(source: Any, indices: Sequence[int]) -> Any:
    """Records or masks with what some samples want, where they can read ahead."""
    return source.ahead(indices) if isinstance(source, ReadAhead) else source


@dataclass
class _Sample:
    """What could be had of one sample, in the split's geometry."""

    label: int
    status: str = OK
    problem: str = ""
    image: Tensor | None = None
    shares: Shares | None = None
    stored: tuple[int, int, int] = (-1, -1, -1)

    @classmethod
    def read(cls, split: PictureSplit, i: int) -> _Sample:
        label, wrong = _label(split.records, i)
        sample = cls(label, BAD_LABEL if wrong else OK)
        troubles = [wrong] if wrong else []
        try:
            sample._read_image(split, i)
        except (OSError, UnreadableImage) as error:
            said = reason(error) if isinstance(error, OSError) else str(error)
            sample.status = UNREADABLE
            troubles.insert(0, f"it cannot be read: {said}")
        except BadMask as error:
            sample.status = error.status
            troubles.insert(0, str(error))
        if troubles:
            sample.problem = visible(f"{split.records.sample_id(i)}: {'; '.join(troubles)}")
        return sample

    def _read_image(self, split: PictureSplit, i: int) -> None:
        data = split.records.picture(i)
        whole = decode_rgb(data) if isinstance(data, bytes) else data
        size = (whole.shape[1], whole.shape[2])
        if split.stored_size is not None and split.stored_size != size:
            raise UnreadableImage(f"it is {_said(size)}, not {_said(split.stored_size)}")
        window = split.records.window(i)
        self.image = _framed_image(split.geometry, whole, window)
        self.stored = (*size, len(data) if isinstance(data, bytes) else -1)
        if split.masks is not None:
            shares = _checked(split.masks, i, size, data if isinstance(data, bytes) else b"")
            self.shares = _framed_shares(split.geometry, shares, window)


def _label(records: Records, i: int) -> tuple[int, str]:
    """The label, and what is wrong with it."""
    try:
        return records.label(i), ""
    except BadLabel as error:
        return -1, str(error)


def _framed_image(geometry: Geometry, whole: Tensor, window: Window | None) -> Tensor:
    image = whole if window is None else window.of(whole)
    if 0 in image.shape:
        raise UnreadableImage("its window lies beyond the picture")
    return image if geometry.keeps(*image.shape[1:]) else geometry.image(image)


def _framed_shares(geometry: Geometry, shares: Shares, window: Window | None) -> Shares:
    def framed(share: Tensor | None) -> Tensor | None:
        if share is None:
            return None
        share = share if window is None else window.of(share)
        return share if geometry.keeps(*share.shape) else geometry.mask(share)

    inside, unknown = framed(shares.object), framed(shares.unknown)
    assert inside is not None
    return Shares(inside, None if unknown is None or not unknown.any() else unknown, shares.source)


def _checked(masks: Masks, i: int, size: Size, data: bytes) -> Shares:
    """The mask of a picture of this size, whose encoded bytes tell whether EXIF turned it."""
    try:
        shares = masks.read(i, size)
        if tuple(shares.object.shape) != size:
            raise OtherSize(shares.source, shares.object.shape)
    except OtherSize as error:
        turned = bool(data) and is_turned(data)
        cause = _cause(error.size, size, turned=turned)
        raise BadMask(
            MASK_MISMATCH,
            f"its mask {error.source} is {_said(error.size)}, the picture {_said(size)}: {cause}",
        ) from error
    return shares


def _said(size: Size) -> str:
    return f"{size[1]}×{size[0]} pixels"


def _cause(mask: Size, picture: Size, *, turned: bool) -> str:
    """The probable reason why a mask has another size than its picture.

    Example:
        >>> _cause((48, 64), (64, 48), turned=False)
        'it is transposed'
        >>> _cause((24, 32), (48, 64), turned=False)
        'it has the same shape, at 0.5 times the size'
    """
    across = (picture[1], picture[0])
    swapped = "it is transposed"
    if turned:
        swapped = "it fits the picture as stored, before its EXIF orientation turns it"
    if mask == across:
        return swapped
    for shape, said in ((picture, "it has the same shape"), (across, swapped)):
        scale = mask[0] / shape[0]
        if abs(mask[1] - scale * shape[1]) <= max(1.0, scale):
            return f"{said}, at {scale:.3g} times the size"
    return "it was made for another picture, or another cut of it"
