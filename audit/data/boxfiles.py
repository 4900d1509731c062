"""Files of bounding boxes: CSV, COCO JSON, and folders of VOC XML."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pyarrow as pa

from audit.data.maskvalues import Size
from audit.data.tablefile import columns_found, read_table, text_column
from audit.errors import DataError

_IMAGE = ("image", "filename", "file_name", "file", "path", "image_path", "imageid", "image_id")
_LABEL = ("label", "class", "category", "name")
_EDGES = (("x1", "y1", "x2", "y2"), ("xmin", "ymin", "xmax", "ymax"))
_EXTENTS = (("x", "y", "w", "h"), ("x", "y", "width", "height"))


class NamedBox(NamedTuple):
    """A box in a picture.

    Attributes:
        image: How its file names the picture.
        edges: Left, top, right and bottom in pixels; NaN where the file says no number.
        label: The class that it is a box of; empty where that is not said.
        size: The height and width that the file says the picture has; ``None`` where it does not.
        text: What the file says of the edges.
    """

    image: str
    edges: tuple[float, float, float, float]
    label: str = ""
    size: Size | None = None
    text: str = ""


def read_boxes(place: Path) -> list[NamedBox]:
    """Read boxes.

    Args:
        place: A CSV or COCO JSON file, or a folder of VOC XML files at any depth.

    Returns:
        The boxes.

    Raises:
        DataError: If it cannot be read as one of these.
    """
    if place.is_dir():
        return _from_voc(place)
    if not place.is_file():
        raise DataError(
            f"the boxes {place} do not exist",
            expected="a CSV or COCO JSON file, or a folder of VOC XML files, with --boxes",
        )
    return _from_coco(place) if place.suffix.lower() == ".json" else _from_table(place)


def box_columns(table: pa.Table) -> tuple[str, ...]:
    """The columns with the edges (or corner and size) of boxes; empty where there are none.

    Example:
        >>> box_columns(pa.table({"image": ["x"], "xmin": [1], "ymin": [1], "xmax": [2],
        ...                       "ymax": [2]}))
        ('xmin', 'ymin', 'xmax', 'ymax')
    """
    sets = (*_EDGES, *_EXTENTS)
    return next((names for names in sets if set(names) <= set(table.column_names)), ())


def edges_in(table: pa.Table, columns: Sequence[str]) -> list[tuple[float, float, float, float]]:
    """The boxes in these columns, as edges; NaN where there is no number.

    Example:
        >>> edges_in(pa.table({"x": ["3"], "y": [4], "w": [10], "h": [""]}), ("x", "y", "w", "h"))
        [(3.0, 4.0, 13.0, nan)]
    """
    read = [[_number(text) for text in text_column(table, name)] for name in columns]
    rows = list(zip(*read, strict=True))
    if tuple(columns) in _EXTENTS:
        return [(x, y, x + width, y + height) for x, y, width, height in rows]
    return [(left, top, right, bottom) for left, top, right, bottom in rows]


def texts_in(table: pa.Table, columns: Sequence[str]) -> list[str]:
    """What these columns say, for messages; nothing where all of a row's cells are empty.

    Example:
        >>> texts_in(pa.table({"x": ["3", ""], "y": ["foo", None]}), ("x", "y"))
        ['3, foo', '']
    """
    cells = zip(*(text_column(table, name) for name in columns), strict=True)
    # A missing number that went through pandas may be one that is none.
    return [
        ", ".join(row) if any(cell.lower() not in ("", "nan") for cell in row) else ""
        for row in cells
    ]


def refuse_relative(edges: Sequence[tuple[float, ...]], source: str) -> None:
    """Refuse boxes given in shares of the picture's sides.

    Raises:
        DataError: If there are boxes and none of them reaches beyond the first pixel.
    """
    finite = [edge for box in edges for edge in box if math.isfinite(edge)]
    if finite and 0 < max(finite) <= 1:
        raise DataError(
            f"the boxes in {source} are not in pixels",
            expected="pixels",
            found=f"nothing beyond {max(finite):g}",
            remedy="multiply them by the width and height of their pictures",
        )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _from_table(place: Path) -> list[NamedBox]:
    table = read_table(str(place), "file of boxes")
    image = next((name for name in _IMAGE if name in table.column_names), None)
    columns = box_columns(table)
    if image is None or not columns:
        raise DataError(
            f"{place} holds no boxes",
            expected="columns image,x1,y1,x2,y2 or image,xmin,… or image,x,y,w,h; optionally label",
            found=columns_found(table),
        )
    label = next((name for name in _LABEL if name in table.column_names), None)
    edges = edges_in(table, columns)
    refuse_relative(edges, place.name)
    labels = text_column(table, label) if label else [""] * len(edges)
    texts = texts_in(table, columns)
    rows = zip(text_column(table, image), edges, labels, texts, strict=True)
    return [NamedBox(name, box, label, None, text) for name, box, label, text in rows]


def _from_coco(place: Path) -> list[NamedBox]:
    try:
        said = json.loads(place.read_bytes())
        _refuse_other_json(said)
        images = {_of(image, "id", "an image"): image for image in said["images"]}
        names = {kind["id"]: str(kind["name"]) for kind in said.get("categories", ())}
        return [
            _coco_box(box, images, names) for box in said["annotations"] if not box.get("iscrowd")
        ]
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{place} holds no boxes",
            expected="COCO's JSON: images with id and file_name, annotations with image_id and "
            "bbox (x, y, width, height)",
            found=str(error) if isinstance(error, _NoBox) else f"no such JSON ({error})",
        ) from error


class _NoBox(ValueError):
    """What a file holds where a box should be, in words for people."""


def _refuse_other_json(said: object) -> None:
    if not isinstance(said, dict):
        raise _NoBox(f"a {type(said).__name__} on its top level, not an object")
    for name in ("images", "annotations"):
        if name not in said:
            raise _NoBox(f"no '{name}' among {', '.join(map(str, said)) or 'nothing'}")
        if not isinstance(said[name], list):
            raise _NoBox(f"'{name}' that is no list")
        for k, one in enumerate(said[name]):
            if not isinstance(one, dict):
                raise _NoBox(f"entry {k} of '{name}' is {json.dumps(one)[:80]}, no object")


def _of(said: dict[str, Any], key: str, what: str) -> Any:
    if key not in said:
        raise _NoBox(f"{what} without {key}")
    return said[key]


def _coco_box(
    said: dict[str, Any], images: dict[Any, dict[str, Any]], names: dict[Any, str]
) -> NamedBox:
    what = f"annotation {said.get('id', 'without id')}"
    number, box = _of(said, "image_id", what), _of(said, "bbox", what)
    if number not in images:
        raise _NoBox(f"{what} of image {number}, which is not among the images")
    image = images[number]
    try:
        x, y, width, height = map(float, box)
    except (TypeError, ValueError, OverflowError) as error:
        raise _NoBox(f"{what} with bbox {json.dumps(box)[:80]}, not four numbers") from error
    return NamedBox(
        str(_of(image, "file_name", f"image {number}")),
        (x, y, x + width, y + height),
        names.get(said.get("category_id"), ""),
        _size(image.get("height"), image.get("width")),
        json.dumps(box),
    )


def _size(height: object, width: object) -> Size | None:
    """A size where both are said as numbers above 0."""
    try:
        said = int(float(str(height))), int(float(str(width)))
    except (ValueError, OverflowError):
        return None
    return said if min(said) > 0 else None


class _NoEntities(ElementTree.TreeBuilder):
    """Builds the tree, and refuses declarations: a few lines of them can fill the memory."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type")


def _from_voc(folder: Path) -> list[NamedBox]:
    files = sorted(folder.rglob("*.xml"))
    if not files:
        raise DataError(
            f"{folder} holds no boxes",
            expected="VOC's XML files, one a picture",
            found=f"{sum(1 for _ in folder.iterdir())} other files",
        )
    boxes: list[NamedBox] = []
    for file in files:
        try:
            boxes += _boxes_of(file, file.relative_to(folder).with_suffix("").as_posix())
        except (ValueError, OSError, ElementTree.ParseError) as error:
            raise DataError(
                f"the boxes in {file} cannot be read",
                expected="VOC's XML: object elements with name and bndbox",
                found=str(error).splitlines()[0],
            ) from error
    return boxes


def _boxes_of(file: Path, image: str) -> Iterator[NamedBox]:
    # The file's own place names the picture: `filename` inside is often wrong after renaming.
    parser = ElementTree.XMLParser(target=_NoEntities())  # noqa: S314 - entities are refused
    tree = ElementTree.fromstring(file.read_bytes(), parser)  # noqa: S314
    size = _size(tree.findtext("size/height"), tree.findtext("size/width"))
    for thing in tree.iter("object"):
        edges = [_edge(thing, name) for name in ("xmin", "ymin", "xmax", "ymax")]
        # Pixels count from 1 there, and both ends belong to the box.
        yield NamedBox(
            image,
            (edges[0] - 1, edges[1] - 1, edges[2], edges[3]),
            thing.findtext("name") or "",
            size,
            ", ".join(f"{edge:g}" for edge in edges),
        )


def _edge(thing: ElementTree.Element, name: str) -> float:
    text = thing.findtext(f"bndbox/{name}")
    if text is None:
        raise ValueError(f"an object without bndbox/{name}")
    return float(text)
