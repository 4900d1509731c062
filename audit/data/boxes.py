"""Bounding boxes instead of outlines: soft shapes, and which box belongs to which picture."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data.boxfiles import NamedBox, read_boxes
from audit.data.listed import FileRecords
from audit.data.maskvalues import BadMask, OtherSize, Shares, Size
from audit.data.places import as_text, shown
from audit.data.split import MASK_MISMATCH, MASK_MISSING
from audit.errors import DataError, visible

# How much of a box is object, from its middle (u = v = 0) to its edges (±1): the mean over 862
# outlines of COCO (200 photos, boxes of at least 32 pixels a side) is 0.81·((1−u²)(1−v²))^0.44
# to 0.011 (root mean square over a 20×20 grid, made symmetric). The mean of it is 0.53.
_MIDDLE = 0.81
_FALL = 0.44
# Boxes are rounded, so a little outside the picture is no mistake; it is cut off.
_SLACK_PIXELS = 2.0
_SLACK_SHARE = 0.01

_LONGEST_TEXT = 80

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def soft_box(box: Box, size: Size) -> Tensor:
    """How much of each pixel is probably object, where only a box is known.

    Args:
        box: Left, top, right and bottom in pixels, with fractions.
        size: The picture's height and width.

    Returns:
        float32, H×W: highest in the middle of the box, falling to its edges, 0 outside.

    Example:
        >>> soft_box((1, 0, 4, 2), (2, 5))[0]
        tensor([0.0000, 0.5511, 0.7137, 0.5511, 0.0000])
    """
    columns = _profile(box[0], box[2], size[1])
    rows = _profile(box[1], box[3], size[0])
    return _MIDDLE * rows[:, None] * columns[None]


def _profile(start: float, stop: float, count: int) -> Tensor:
    """One side's factor of the formula, at the middle of what each pixel has of the box."""
    edges = torch.arange(count + 1, dtype=torch.float64).clamp(start, stop)
    middle = (edges[1:] + edges[:-1]) / 2
    u = (2 * middle - start - stop) / (stop - start)
    return ((1 - u**2).clamp_min(0) ** _FALL * edges.diff()).float()


@dataclass(frozen=True, kw_only=True)
class BoxMasks:
    """Soft shapes in boxes; where boxes overlap, the higher share counts.

    Attributes:
        boxes: For each sample float64, K×4.
        source: What messages call the file with the boxes.
        missing: Why a sample has none.
        sizes: The sizes (height and width) that the file says the samples' pictures have.
        texts: What the file says of boxes whose edges are not all numbers, by sample and row.
    """

    boxes: Sequence[NDArray[np.float64]]
    source: str
    missing: str = "it has no box"
    sizes: Mapping[int, tuple[Size, ...]] = field(default_factory=dict)
    texts: Mapping[tuple[int, int], str] = field(default_factory=dict)

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        if not len(self.boxes[i]):
            raise BadMask(MASK_MISSING, f"{self.missing} in {self.source}")
        other = next((said for said in self.sizes.get(i, ()) if said != size), None)
        if other is not None:
            raise OtherSize(f"in {self.source}", other)
        shares = torch.zeros(size)
        for row, (left, top, right, bottom) in enumerate(self.boxes[i].tolist()):
            self._refuse((left, top, right, bottom), size, self.texts.get((i, row)))
            shares = torch.maximum(shares, soft_box((left, top, right, bottom), size))
        return Shares(shares, None, self.source)

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        for i, boxes in enumerate(self.boxes):
            yield repr((boxes.tolist(), self.sizes.get(i, ())))

    def _refuse(self, box: Box, size: Size, text: str | None) -> None:
        left, top, right, bottom = box
        text = ", ".join(f"{edge:g}" for edge in box) if text is None else text[:_LONGEST_TEXT]
        named = f"its box {text} in {self.source}"
        if not all(map(math.isfinite, box)):
            raise BadMask(MASK_MISMATCH, f"{named} is not four numbers")
        if right <= left or bottom <= top:
            raise BadMask(MASK_MISMATCH, f"{named} has no area")
        height, width = size
        slack = [max(_SLACK_PIXELS, _SLACK_SHARE * side) for side in (width, height)]
        beyond = (-left, -top, right - width, bottom - height)
        if any(more > slack[k % 2] for k, more in enumerate(beyond)):
            raise BadMask(
                MASK_MISMATCH,
                f"{named} lies beyond the picture, which is {width}×{height} pixels",
            )


def find_boxes(place: Path, records: FileRecords) -> tuple[BoxMasks, dict[str, object]]:
    """Match a file of boxes with pictures.

    A picture is named by its path below the image folder, with or without ending; by its bare
    name where no other picture has that. A row with empty cells is no box. A box labelled with
    another class of the split belongs to something else in the picture and is left out.

    Args:
        place: A CSV or COCO JSON file, or a folder of VOC XML files.
        records: The pictures and their labels.

    Returns:
        The masks, and how many boxes belong to no picture, where there are any.

    Raises:
        DataError: If the file cannot be read, or no box belongs to any picture.
    """
    boxes = read_boxes(place)
    position = _positions(records)
    matched: dict[int, list[NamedBox]] = defaultdict(list)
    surplus = 0
    for box in boxes:
        found = next((position[name] for name in _names_for(box.image) if name in position), None)
        if found is None:
            surplus += 1
        else:
            matched[found].append(box)
    if len(records) and not matched:
        raise DataError(
            f"no box in {place} belongs to any picture",
            expected=f"boxes for {records.ids[0]} and the like",
            found=f"boxes for {as_text(boxes[0].image)} and the like" if boxes else "no boxes",
            remedy="name the pictures by their path below the image folder" if boxes else None,
        )
    classes = tuple(map(visible, records.labels.classes))
    rows = []
    sizes: dict[int, tuple[Size, ...]] = {}
    texts: dict[tuple[int, int], str] = {}
    for i in range(len(records)):
        label = int(records.labels.values[i])
        others = {name for k, name in enumerate(classes) if k != label}
        kept = [box for box in matched.get(i, ()) if box.text and visible(box.label) not in others]
        rows.append(np.array([box.edges for box in kept], np.float64).reshape(-1, 4))
        sizes[i] = tuple({box.size: None for box in kept if box.size is not None})
        texts |= {
            (i, row): box.text
            for row, box in enumerate(kept)
            if not all(map(math.isfinite, box.edges))
        }
    masks = BoxMasks(
        boxes=rows,
        source=shown(str(place)),
        missing="it has no box of its class",
        sizes={i: said for i, said in sizes.items() if said},
        texts=texts,
    )
    return masks, {"surplus_boxes": surplus} if surplus else {}


def _positions(records: FileRecords) -> dict[str, int]:
    """Where each picture is, by every name that means one picture alone."""
    counts = Counter(name for path in records.names for name in set(_names_for(path)))
    return {
        name: i
        for i, path in enumerate(records.names)
        for name in _names_for(path)
        if counts[name] == 1
    }


def _names_for(path: str) -> tuple[str, ...]:
    """What a picture may be called, the most precise first.

    Example:
        >>> _names_for("a/x.jpg")
        ('a/x.jpg', 'a/x', 'x.jpg', 'x')
    """
    path = path.replace("\\", "/").removeprefix("./")
    folder, slash, name = path.rpartition("/")
    stem = Path(name).stem
    return tuple(dict.fromkeys((path, f"{folder}{slash}{stem}", name, stem)))
