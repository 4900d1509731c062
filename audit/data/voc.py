"""``voc``: PASCAL VOC's segmentation pictures, in torchvision's folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from audit.data.labels import Labels
from audit.data.listed import FileRecords
from audit.data.maskvalues import BadMask, Shares, Size, palette_values
from audit.data.pictures import CONTEXT, LEAST_INSTANCE, PictureSplit, Samples, Window
from audit.data.places import digests, listing, reason
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


@dataclass(frozen=True)
class _Scanned:
    """What a picture's two masks hold."""

    size: Size
    instances: tuple[_Instance, ...]


def open_voc(
    part: str, root: Path, samples: Samples = "images", *, download: bool = False
) -> PictureSplit:
    """Open PASCAL VOC.

    Args:
        part: ``train``, ``val`` or ``trainval``; for VOC 2007 also ``test``.
        root: Folder that holds ``VOCdevkit/VOC2012`` (or is one of the two).
        samples: ``images``: one sample a picture, its label is the class of its largest object
            and its mask all objects of that class. ``instances``: one square cut-out an object
            whose box is at least 32 pixels long, with 30 % more than the box; its mask is that
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
        scanned = list(pool.map(partial(_scanned_or_none, folder), names))
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
    """

    folder: Path
    names: Sequence[str]
    labels: Sequence[int]
    numbers: Sequence[int] | None = None

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
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
            yield from digests(
                str(self.folder / kind / f"{name}.png") for name in dict.fromkeys(self.names)
            )


def _whole(folder: Path, names: Sequence[str], scanned: Sequence[_Scanned | None]) -> _Built:
    labels = [_largest(found) for found in scanned]
    files = [f"{name}.jpg" for name in names]
    remarks = {
        i: "its label is not known" if found is None else "no object is marked in it"
        for i, found in enumerate(scanned)
    }
    records = FileRecords(
        base=str(folder / "JPEGImages"),
        names=files,
        ids=files,
        labels=Labels(np.array(labels, np.int64), CLASSES, remarks),
    )
    return records, VocMasks(folder=folder, names=names, labels=labels), {}


def _instances(folder: Path, names: Sequence[str], scanned: Sequence[_Scanned | None]) -> _Built:
    found = [
        (name, picture.size, thing)
        for name, picture in zip(names, scanned, strict=True)
        if picture is not None
        for thing in picture.instances
    ]
    kept = [one for one in found if _longer_side(one[2].box) >= LEAST_INSTANCE]
    labels = [thing.label for _, _, thing in kept]
    records = FileRecords(
        base=str(folder / "JPEGImages"),
        names=[f"{name}.jpg" for name, _, _ in kept],
        ids=[f"{name}.jpg@{thing.number}" for name, _, thing in kept],
        labels=Labels(np.array(labels, np.int64), CLASSES),
        windows=[Window.around(thing.box, size, CONTEXT) for _, size, thing in kept],
    )
    masks = VocMasks(
        folder=folder,
        names=[name for name, _, _ in kept],
        labels=labels,
        numbers=[thing.number for _, _, thing in kept],
    )
    return records, masks, _left_out(found, kept, scanned)


def _left_out(
    found: Sequence[object], kept: Sequence[object], scanned: Sequence[_Scanned | None]
) -> dict[str, object]:
    counts = {
        "instances_too_small": len(found) - len(kept),
        "pictures_without_readable_masks": sum(picture is None for picture in scanned),
    }
    return {name: count for name, count in counts.items() if count}


def _longer_side(box: tuple[int, int, int, int]) -> int:
    left, top, right, bottom = box
    return max(right - left, bottom - top)


def _largest(found: _Scanned | None) -> int:
    """The class of the largest object; -1 where there is none."""
    if found is None or not found.instances:
        return -1
    return max(found.instances, key=lambda thing: (thing.area, -thing.number)).label


def _scanned_or_none(folder: Path, name: str) -> _Scanned | None:
    """What the masks of a picture hold; ``None`` where they cannot be read."""
    try:
        things = _values(folder, "SegmentationObject", name)
        kinds = _values(folder, "SegmentationClass", name)
    except BadMask:
        return None
    if things.shape != kinds.shape:
        return None
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
