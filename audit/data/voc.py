"""``voc``: PASCAL VOC's segmentation pictures, in torchvision's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audit.data.identity import identities
from audit.data.labels import Labels
from audit.data.listed import FileRecords
from audit.data.maskvalues import BadMask, Shares, Size, palette_values
from audit.data.pictures import CONTEXT, LEAST_INSTANCE, PictureSplit, Samples, Window
from audit.data.places import listing, reason
from audit.data.split import MASK_MISSING, MASK_UNREADABLE
from audit.errors import DataError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
_VOID = 255
_PLACES = ("VOCdevkit/VOC2012", "VOC2012", "", "VOCdevkit/VOC2007", "VOC2007")
_LISTS = Path("ImageSets", "Segmentation")


class _Instance(NamedTuple):
    """One object of a picture: its number there, class, pixels and box (ends exclusive)."""

    number: int
    label: int
    area: int
    box: tuple[int, int, int, int]


_NO_LABEL = "its label is not known"
# What stands for the objects of a picture whose masks cannot be read.
_NO_INSTANCE = _Instance(0, -1, 0, (0, 0, 0, 0))
# All of a picture of unknown size: ends beyond it are cut off.
_WHOLE = Window(0, 0, 2**31 - 1, 2**31 - 1)


@dataclass(frozen=True)
class _Scanned:
    """What a picture's two masks hold; or status and problem where they cannot be read."""

    size: Size = (0, 0)
    instances: tuple[_Instance, ...] = ()
    bad: tuple[str, str] | None = None


def open_voc(
    part: str, root: Path, samples: Samples = "images", *, download: bool = False
) -> PictureSplit:
    """Open PASCAL VOC.

    Args:
        part: ``train``, ``val`` or ``trainval``; for VOC 2007 also ``test``.
        root: Folder that holds ``VOCdevkit/VOC2012`` (or is one of the two).
        samples: ``images``: one sample a picture, its label is the class of its largest object
            and its mask all objects of that class. ``instances``: one square cut-out an object
            whose box is at least 32 pixels long, with 30% more than the box; its mask is that
            object. Borders (255) are unknown, in cut-outs also other objects of the class.
        download: Let torchvision fetch VOC 2012 into ``root`` where it is absent.

    Returns:
        The split.

    Raises:
        DataError: If the data is absent and is not, or cannot be, downloaded.
    """
    folder = _folder(root, download=download)
    names = _listed(folder, part)
    with ThreadPoolExecutor() as pool:
        scanned = list(pool.map(partial(_scanned, folder), names))
    build = _whole if samples == "images" else _instances
    records, masks, facts = build(folder, names, scanned)
    return PictureSplit(
        name="voc", part=part, classes=CLASSES, records=records, masks=masks, facts=facts
    )


_Built = tuple[FileRecords, "VocMasks", dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class VocMasks:
    """Masks from pairs of palette images.

    Attributes:
        folder: VOC's folder.
        names: Each sample's picture, without ending.
        labels: Each sample's class.
        numbers: Each sample's object; ``None`` for all objects of the class.
        bad: Status and problem of samples whose masks could not be read.
    """

    folder: Path
    names: Sequence[str]
    labels: Sequence[int]
    numbers: Sequence[int] | None = None
    bad: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        if i in self.bad:
            raise BadMask(*self.bad[i])
        name, value = self.names[i], self.labels[i] + 1
        kinds = _values(self.folder, "SegmentationClass", name)
        source = f"SegmentationClass/{name}.png"
        if self.numbers is None:
            return Shares.of(kinds == value if value else kinds < 0, kinds == _VOID, source)
        things = _values(self.folder, "SegmentationObject", name)
        if things.shape != kinds.shape:
            raise _two_sizes(name)
        inside = things == self.numbers[i]
        return Shares.of(inside, (things == _VOID) | ((kinds == value) & ~inside), source)

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        yield repr(self.numbers)
        for kind in ("SegmentationClass", "SegmentationObject"):
            files = (str(self.folder / kind / f"{name}.png") for name in dict.fromkeys(self.names))
            yield from identities(files, len(self.names))


def _whole(folder: Path, names: Sequence[str], scanned: Sequence[_Scanned]) -> _Built:
    labels = [_largest(found) for found in scanned]
    files = [f"{name}.jpg" for name in names]
    remarks = {
        i: _NO_LABEL if found.bad else "no object is marked in it"
        for i, found in enumerate(scanned)
    }
    records = FileRecords(
        base=str(folder / "JPEGImages"),
        names=files,
        ids=files,
        labels=Labels(np.array(labels, np.int64), CLASSES, remarks),
    )
    bad = {i: found.bad for i, found in enumerate(scanned) if found.bad is not None}
    return records, VocMasks(folder=folder, names=names, labels=labels, bad=bad), {}


def _instances(folder: Path, names: Sequence[str], scanned: Sequence[_Scanned]) -> _Built:
    # A picture whose masks cannot be read stays as one sample, which counts as bad.
    found = [
        (name, picture, thing)
        for name, picture in zip(names, scanned, strict=True)
        for thing in ((_NO_INSTANCE,) if picture.bad else picture.instances)
    ]
    kept = [one for one in found if one[1].bad or _longer_side(one[2].box) >= LEAST_INSTANCE]
    labels = [thing.label for _, _, thing in kept]
    bad = {i: picture.bad for i, (_, picture, _) in enumerate(kept) if picture.bad is not None}
    records = FileRecords(
        base=str(folder / "JPEGImages"),
        names=[f"{name}.jpg" for name, _, _ in kept],
        ids=[
            f"{name}.jpg" if picture.bad else f"{name}.jpg@{thing.number}"
            for name, picture, thing in kept
        ],
        labels=Labels(np.array(labels, np.int64), CLASSES, dict.fromkeys(bad, _NO_LABEL)),
        windows=[
            _WHOLE if picture.bad else Window.around(thing.box, picture.size, CONTEXT)
            for _, picture, thing in kept
        ],
    )
    masks = VocMasks(
        folder=folder,
        names=[name for name, _, _ in kept],
        labels=labels,
        numbers=[thing.number for _, _, thing in kept],
        bad=bad,
    )
    small = len(found) - len(kept)
    return records, masks, {"instances_too_small": small} if small else {}


def _longer_side(box: tuple[int, int, int, int]) -> int:
    left, top, right, bottom = box
    return max(right - left, bottom - top)


def _largest(found: _Scanned) -> int:
    """The class of the largest object; -1 where there is none."""
    if not found.instances:
        return -1
    return max(found.instances, key=lambda thing: (thing.area, -thing.number)).label


def _scanned(folder: Path, name: str) -> _Scanned:
    try:
        things = _values(folder, "SegmentationObject", name)
        kinds = _values(folder, "SegmentationClass", name)
        if things.shape != kinds.shape:
            raise _two_sizes(name)
    except BadMask as error:
        return _Scanned(bad=(error.status, str(error)))
    found = [
        _instance(number, things, kinds)
        for number in np.flatnonzero(np.bincount(things.ravel())).tolist()
    ]
    height, width = things.shape
    return _Scanned((height, width), tuple(one for one in found if one is not None))


def _instance(number: int, things: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> _Instance | None:
    if number in (0, _VOID):
        return None
    inside = things == number
    counts = np.bincount(kinds[inside], minlength=len(CLASSES) + 1)[1 : len(CLASSES) + 1]
    if not counts.any():
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return _Instance(number, int(counts.argmax()), int(inside.sum()), box)


def _values(folder: Path, kind: str, name: str) -> NDArray[np.uint8]:
    source = f"{kind}/{name}.png"
    try:
        data = (folder / kind / f"{name}.png").read_bytes()
    except FileNotFoundError as error:
        raise BadMask(MASK_MISSING, f"its mask {source} does not exist") from error
    except OSError as error:
        raise BadMask(
            MASK_UNREADABLE, f"its mask {source} cannot be read: {reason(error)}"
        ) from error
    return palette_values(data, source)


def _two_sizes(name: str) -> BadMask:
    return BadMask(
        MASK_UNREADABLE,
        f"its masks SegmentationClass/{name}.png and SegmentationObject/{name}.png differ in size",
    )


def _folder(root: Path, *, download: bool) -> Path:
    for place in _PLACES:
        if (root / place / _LISTS).is_dir() and (root / place / "JPEGImages").is_dir():
            return root / place
    found = listing(root)
    if download:
        from torchvision.datasets import VOCSegmentation

        try:
            VOCSegmentation(str(root), image_set="val", download=True)
            return root / _PLACES[0]
        except (RuntimeError, OSError) as error:
            found = str(error).splitlines()[0]
    raise DataError(
        f"voc was not found in {root}" + (", nor downloaded" if download else ""),
        expected=f"{_PLACES[0]}/ with JPEGImages/, SegmentationClass/, SegmentationObject/ and "
        f"{_LISTS.as_posix()}/ (torchvision's folder)",
        found=found,
        remedy=f"put it into {root} (or name another folder with --data-root), "
        f"or let it be downloaded: audit run --dataset voc --data-root {root} --download",
    )


def _listed(folder: Path, part: str) -> list[str]:
    """The names of a split's pictures."""
    parts = sorted(file.stem for file in (folder / _LISTS).glob("*.txt"))
    if part not in parts:
        raise DataError(
            f"voc has no split named '{part}' in {folder}",
            expected=" | ".join(parts) or "train | val | trainval",
            found=part + (" (its outlines are not public)" if part == "test" else ""),
            remedy="name another with --split, for example --split val",
        )
    lines = (folder / _LISTS / f"{part}.txt").read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.strip()]
