"""``coco`` and ``coco:FILE.json``: pictures with COCO's instance annotations."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audit.data.labels import Labels
from audit.data.listed import FileRecords
from audit.data.maskvalues import BadMask, OtherSize, Shares, Size
from audit.data.pictures import CONTEXT, LEAST_INSTANCE, PictureSplit, Samples, Window
from audit.data.places import listing, reason
from audit.data.rle import Filled, fill
from audit.data.split import MASK_MISSING
from audit.errors import DataError

_YEAR = "2017"
_PREFIX = "instances_"
_LISTS = ("images", "annotations", "categories")
_EXPECTED = (
    "COCO's JSON: images with id and file_name, annotations with id, image_id, category_id and "
    "segmentation, categories with id and name"
)
# No picture has so many pixels on a side; a number beyond it, or one that is none, says nothing.
_LONGEST_SIDE = 2**31
# Pictures that are looked for before a folder is taken for the wrong one.
_TRIED = 20


class _Picture(NamedTuple):
    id: int
    name: str
    size: Size | None


class _Annotation(NamedTuple):
    """One annotation; its outline stays JSON text, a tenth of the lists that it parses to."""

    id: int
    picture: int
    category: int
    crowd: bool
    area: float
    box: tuple[float, float, float, float] | None
    outline: str


class _Category(NamedTuple):
    id: int
    name: str


@dataclass(frozen=True)
class _Instances:
    """An annotation file's content."""

    source: str
    pictures: tuple[_Picture, ...]
    categories: tuple[_Category, ...]
    by_picture: dict[int, tuple[_Annotation, ...]]


@dataclass(frozen=True, kw_only=True)
class CocoMasks:
    """Masks from annotations.

    Attributes:
        source: The annotation file's name.
        sizes: The size that the file says of each sample's picture.
        inside: Each sample's outlines.
        unknown: What is neither this sample's object nor background; of one whose outline is
            missing or broken, all of its box.
    """

    source: str
    sizes: Sequence[Size | None]
    inside: Sequence[tuple[str, ...]]
    unknown: Sequence[tuple[_Annotation, ...]]

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        said = self.sizes[i]
        if said is not None and said != size:
            raise OtherSize(f"in {self.source}", said)
        inside = [self._fill(outline, size) for outline in self.inside[i]]
        unknown = [self._neither(one, size) for one in self.unknown[i]]
        return Shares.of(
            np.logical_or.reduce(inside),
            np.logical_or.reduce(unknown) if unknown else None,
            f"in {self.source}",
        )

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        for size, inside, unknown in zip(self.sizes, self.inside, self.unknown, strict=True):
            said = size, inside, tuple((one.outline, one.box) for one in unknown)
            yield hashlib.sha256(repr(said).encode()).hexdigest()

    def _neither(self, one: _Annotation, size: Size) -> Filled:
        try:
            return self._fill(one.outline, size)
        except BadMask:
            if one.box is None:
                raise
        left, top, width, height = one.box
        filled = np.zeros(size, np.bool_)
        rows, columns = (
            slice(max(0, math.floor(start)), max(0, math.ceil(start + length)))
            for start, length in ((top, height), (left, width))
        )
        filled[rows, columns] = True
        return filled

    def _fill(self, outline: str, size: Size) -> Filled:
        if outline in ("", "null", "[]", "{}"):
            raise BadMask(
                MASK_MISSING, f"an object of it has a box but no outline in {self.source}"
            )
        return fill(outline, size, self.source)


def open_coco(part: str, root: Path, samples: Samples = "images") -> PictureSplit:
    """Open COCO from its usual folder.

    Args:
        part: ``train``, ``val`` or another that ``annotations/instances_<part>2017.json`` (or
            without the year) holds.
        root: Folder with ``annotations`` and the folders of pictures; or its sub-folder ``coco``.
        samples: See :func:`open_coco_file`.

    Returns:
        The split.

    Raises:
        DataError: If the data is absent.
    """
    folder = next((f for f in (root, root / "coco") if (f / "annotations").is_dir()), root)
    files = sorted((folder / "annotations").glob(f"{_PREFIX}*.json"))
    parts = [file.stem.removeprefix(_PREFIX) for file in files]
    if not files:
        raise DataError(
            f"coco was not found in {root}",
            expected=f"annotations/{_PREFIX}{part}{_YEAR}.json and {part}{_YEAR}/",
            found=listing(root),
            remedy=f"put them into {root}, or name another folder with --data-root",
        )
    for wanted in (part, f"{part}{_YEAR}"):
        if wanted in parts:
            return open_coco_file(files[parts.index(wanted)], part, samples, name="coco")
    short = [name.removesuffix(_YEAR) for name in parts]
    raise DataError(
        f"coco has no split named '{part}' in {folder}",
        expected=" | ".join(short),
        found=part + (" (its outlines are not public)" if part == "test" else ""),
        remedy=f"name another with --split, for example --split {short[-1]}",
    )


def open_coco_file(
    file: Path,
    part: str,
    samples: Samples = "images",
    *,
    name: str | None = None,
    root: Path | None = None,
) -> PictureSplit:
    """Open one annotation file with the pictures that lie in a usual place beside it or in root.

    Args:
        file: An instances file.
        part: The split's name.
        samples: ``images``: one sample a picture that has objects; its label is the class of the
            largest, its mask all objects of that class, and crowds of that class are unknown
            (crowds of others are background). ``instances``: one square cut-out an object (no
            crowds) whose box is at least 32 pixels long, with 30% more than the box; its mask is
            that object, and other objects and crowds of its class are unknown.
        name: The dataset's name; ``None`` is the file's.
        root: Where a relative ``file`` that is not found, and pictures, are sought too.

    Returns:
        The split. Classes are the file's categories by their number.

    Raises:
        DataError: If the file is absent or no annotation file, or its pictures are not found.
    """
    if root is not None and not file.is_file() and (root / file).is_file():
        file = root / file
    content = _read(file)
    folder = _pictures_beside(file, part, content, root)
    position = {kind.id: k for k, kind in enumerate(content.categories)}
    build = _whole if samples == "images" else _cutouts
    chosen, facts = build(content, position)
    facts |= _unplaced(content, position)
    classes = tuple(kind.name for kind in content.categories)
    records = FileRecords(
        base=str(folder),
        names=[one.picture.name for one in chosen],
        ids=[one.id for one in chosen],
        labels=Labels(np.array([one.label for one in chosen], np.int64), classes),
        windows=None if samples == "images" else [one.window for one in chosen if one.window],
    )
    masks = CocoMasks(
        source=content.source,
        sizes=[one.picture.size for one in chosen],
        inside=[one.inside for one in chosen],
        unknown=[one.unknown for one in chosen],
    )
    return PictureSplit(
        name=name or file.stem.removeprefix(_PREFIX),
        part=part,
        classes=classes,
        records=records,
        masks=masks,
        facts=facts,
    )


class _Chosen(NamedTuple):
    """A sample."""

    picture: _Picture
    id: str
    label: int
    inside: tuple[str, ...]
    unknown: tuple[_Annotation, ...]
    window: Window | None = None


_Built = tuple[list[_Chosen], dict[str, object]]


def _whole(content: _Instances, position: dict[int, int]) -> _Built:
    chosen = []
    for picture in content.pictures:
        found = content.by_picture.get(picture.id, ())
        things = [one for one in found if not one.crowd and one.category in position]
        if not things:
            continue
        kind = max(things, key=lambda one: (one.area, -one.id)).category
        inside = tuple(one.outline for one in things if one.category == kind)
        crowds = tuple(one for one in found if one.crowd and one.category == kind)
        chosen.append(_Chosen(picture, picture.name, position[kind], inside, crowds))
    empty = len(content.pictures) - len(chosen)
    return chosen, {"pictures_without_objects": empty} if empty else {}


def _cutouts(content: _Instances, position: dict[int, int]) -> _Built:
    chosen: list[_Chosen] = []
    small = unplaced = 0
    for picture in content.pictures:
        found = content.by_picture.get(picture.id, ())
        for one in found:
            if one.crowd or one.category not in position:
                continue
            if one.box is None or picture.size is None:
                unplaced += 1
                continue
            left, top, width, height = one.box
            if max(width, height) < LEAST_INSTANCE:
                small += 1
                continue
            others = tuple(o for o in found if o.category == one.category and o.id != one.id)
            edges = (left, top, left + width, top + height)
            chosen.append(
                _Chosen(
                    picture,
                    f"{picture.name}@{one.id}",
                    position[one.category],
                    (one.outline,),
                    others,
                    Window.around(edges, picture.size, CONTEXT),
                )
            )
    counts = {"instances_too_small": small, "instances_without_box": unplaced}
    return chosen, {name: count for name, count in counts.items() if count}


def _read(file: Path) -> _Instances:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"the annotations {file} cannot be read", expected=_EXPECTED, found=reason(error)
        ) from error
    try:
        # The hook packs each annotation as it is parsed, so that a large file's lists of numbers
        # never fill the memory all at once.
        said = json.loads(data, object_hook=_packed)
        _refuse_other_json(said)
        lists = [list(said[name]) for name in _LISTS]
        _refuse_unpacked(lists)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{file} is no COCO instances file",
            expected=_EXPECTED,
            found=_found(error)[:200],
        ) from error
    pictures, annotations, categories = (sorted(found, key=_id) for found in lists)
    by_picture: dict[int, list[_Annotation]] = defaultdict(list)
    for one in annotations:
        by_picture[one.picture].append(one)
    return _Instances(
        source=file.name,
        pictures=tuple(pictures),
        categories=tuple(categories),
        by_picture={key: tuple(found) for key, found in by_picture.items()},
    )


def _packed(said: dict[str, Any]) -> object:
    """An object of the JSON as the tuple that it stands for, or as it is."""
    if "image_id" in said and "category_id" in said:
        try:
            return _annotation(said)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise ValueError(
                f"annotation {said.get('id', 'without id')}, whose id, image_id and category_id "
                "are not all whole numbers"
            ) from error
    if "file_name" in said and "id" in said:
        height, width = said.get("height"), said.get("width")
        size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
        if size is not None and max(map(abs, size)) >= _LONGEST_SIDE:
            size = None
        return _Picture(int(said["id"]), str(said["file_name"]), size)
    if "name" in said and "id" in said and "url" not in said:
        return _Category(int(said["id"]), str(said["name"]))
    return said


def _annotation(said: dict[str, Any]) -> _Annotation:
    box, area = _box(said.get("bbox")), said.get("area")
    if not isinstance(area, (int, float)) or not abs(area) < _LONGEST_SIDE**2:
        area = box[2] * box[3] if box else 0.0
    return _Annotation(
        int(said["id"]),
        int(said["image_id"]),
        int(said["category_id"]),
        bool(said.get("iscrowd", 0)),
        float(area),
        box,
        json.dumps(said.get("segmentation"), separators=(",", ":")),
    )


def _box(said: object) -> tuple[float, float, float, float] | None:
    """Left, top, width and height; ``None`` where they are not said, or cannot be."""
    if not isinstance(said, list) or len(said) != 4:
        return None
    try:
        left, top, width, height = map(float, said)
    except OverflowError:
        return None
    box = left, top, width, height
    return box if all(abs(edge) < _LONGEST_SIDE for edge in box) else None


def _found(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON ({error})"
    return str(error) if isinstance(error, ValueError) else f"what cannot be read ({error})"


def _refuse_other_json(said: object) -> None:
    if not isinstance(said, dict):
        raise ValueError(f"a {type(said).__name__} on its top level, not an object")
    for name in _LISTS:
        if not isinstance(said.get(name), list):
            raise ValueError(f"no list '{name}' among {', '.join(map(str, said)) or 'nothing'}")


def _refuse_unpacked(lists: Sequence[Sequence[object]]) -> None:
    for kind, found in zip((_Picture, _Annotation, _Category), lists, strict=True):
        other = next((one for one in found if not isinstance(one, kind)), None)
        if other is not None:
            named = {_Picture: "image", _Annotation: "annotation", _Category: "category"}[kind]
            raise ValueError(f"{named} that lacks a part: {other}")


def _id(one: Any) -> int:
    return int(one.id)


def _unplaced(content: _Instances, position: dict[int, int]) -> dict[str, object]:
    """How many annotations are of categories or pictures that the file does not list."""
    listed = {picture.id for picture in content.pictures}
    every = content.by_picture.items()
    counts = {
        "annotations_of_unknown_categories": sum(
            one.category not in position for _, found in every for one in found
        ),
        "annotations_of_unknown_pictures": sum(
            len(found) for picture, found in every if picture not in listed
        ),
    }
    return {name: count for name, count in counts.items() if count}


def _pictures_beside(file: Path, part: str, content: _Instances, root: Path | None) -> Path:
    """The folder with the pictures."""
    stem = file.stem.removeprefix(_PREFIX)
    bare = re.sub(r"\d{4}$", "", stem)
    names = dict.fromkeys((stem, bare, part, f"{part}{_YEAR}"))
    homes = dict.fromkeys((file.parent.parent, file.parent))
    places = [
        home / below for home in homes for name in names for below in (name, f"images/{name}")
    ]
    places += [home / below for home in homes for below in ("images", "")]
    if root is not None:
        below_root = (below for name in names for below in (name, f"images/{name}"))
        places += [root / below for below in (*below_root, "images", "")]
    tried = content.pictures[:: max(1, len(content.pictures) // _TRIED)]
    for place in places:
        if any((place / picture.name).is_file() for picture in tried):
            return place
    if not content.pictures:
        return file.parent
    raise DataError(
        f"the pictures of {file} were not found",
        expected=f"{tried[0].name} in one of "
        + ", ".join(f"{place}" for place in places if place.is_dir()),
        found="none of the pictures that were looked for",
        remedy=f"put them into {file.parent}, or name their folder with --data-root",
    )
