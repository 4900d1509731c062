"""Outlines as COCO writes them: polygons, and run lengths as numbers or packed into text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.data.maskvalues import BadMask, OtherSize, Size
from audit.data.split import MASK_MISMATCH, MASK_UNREADABLE

Filled = NDArray[np.bool_]

# Corners may lie this many times the picture's longer side outside it; drawing is slow beyond.
_FARTHEST = 1.0
_LEAST_CORNERS = 3
_LONGEST_SIDE = 2**31


def fill(said: object, size: Size, source: str) -> Filled:
    """Fill an outline.

    Args:
        said: COCO's ``segmentation``: polygons, or a dict of ``size`` and ``counts``; or a list
            of such dicts, or counts alone; or one of these as JSON text.
        size: The height and width of the picture.
        source: What messages call it.

    Returns:
        bool, H×W.

    Raises:
        BadMask: If it is no outline.
        OtherSize: If its run lengths are of another size.

    Example:
        >>> fill({"size": [2, 3], "counts": [2, 3, 1]}, (2, 3), "x").astype(int)
        array([[0, 1, 1],
               [0, 1, 0]])
    """
    if isinstance(said, (str, bytes)):
        said = _from_json(said, source)
    if isinstance(said, Mapping):
        return _from_counts(said.get("counts"), said.get("size"), size, source)
    if not isinstance(said, (list, tuple)) or not said:
        raise _broken(source, "it is neither polygons nor run lengths")
    if isinstance(said[0], Mapping):
        if not all(isinstance(one, Mapping) for one in said):
            raise _broken(source, "some of it is no run lengths")
        parts = [_from_counts(one.get("counts"), one.get("size"), size, source) for one in said]
        return np.logical_or.reduce(parts)
    if isinstance(said[0], (list, tuple)):
        if not all(isinstance(points, (list, tuple)) for points in said):
            raise _broken(source, "some of it is no polygon")
        return _from_polygons(said, size, source)
    return _from_counts(said, size, size, source)


def _from_json(text: str | bytes, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(source, "it is no JSON") from error


def _from_counts(counts: object, said_size: object, size: Size, source: str) -> Filled:
    height, width = _size(said_size, source)
    if (height, width) != tuple(size):
        raise OtherSize(source, (height, width))
    runs = _unpack(counts, source) if isinstance(counts, (str, bytes)) else _runs(counts, source)
    # In Python's numbers, which do not overflow: numpy writes beyond its memory where a sum does.
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise _broken(source, f"its run lengths do not add up to {width}×{height} pixels")
    values = np.arange(len(runs)) % 2 == 1
    # Run lengths go down the columns.
    filled = np.repeat(values, np.array(runs, np.int64))
    return np.ascontiguousarray(filled.reshape(width, height).T)


def _size(said: object, source: str) -> Size:
    if isinstance(said, (list, tuple)) and len(said) == 2:
        height, width = said
        whole = isinstance(height, int) and isinstance(width, int)
        if whole and 0 < height < _LONGEST_SIDE and 0 < width < _LONGEST_SIDE:
            return height, width
    raise _broken(source, "its size is not a height and a width in pixels")


def _runs(counts: object, source: str) -> Sequence[int]:
    if not isinstance(counts, (list, tuple)) or not all(isinstance(c, int) for c in counts):
        raise _broken(source, "its run lengths are not whole numbers")
    return counts


def _unpack(packed: str | bytes, source: str) -> Sequence[int]:
    """COCO's text: five bits a character from 48 on, a sixth says that more follow.

    From the fourth on, a number is the difference from the one before the last.
    """
    text = packed.encode("latin-1", "replace") if isinstance(packed, str) else packed
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 60:
            raise _broken(source, "its packed run lengths hold what is no number")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise _broken(source, "its packed run lengths end within a number")
    return runs


def _from_polygons(said: Sequence[Sequence[float]], size: Size, source: str) -> Filled:
    from pycocotools import mask as coco

    height, width = size
    farthest = _FARTHEST * max(size)
    polygons = []
    for points in said:
        if len(points) % 2 or not all(isinstance(p, (int, float)) for p in points):
            raise _broken(source, "a polygon's corners are not pairs of numbers")
        # Far ones, or no numbers at all: pycocotools would ask for memory without end.
        if not all(-farthest <= p <= 2 * farthest for p in points):
            where = f"beyond the picture, which is {width}×{height} pixels"
            raise BadMask(MASK_MISMATCH, f"its outline in {source} lies {where}")
        # Fewer corners have no area, and four numbers would be taken for a box.
        if len(points) >= 2 * _LEAST_CORNERS:
            polygons.append([float(p) for p in points])
    if not polygons:
        raise _broken(source, "none of its polygons has three corners")
    filled = coco.decode(coco.merge(coco.frPyObjects(polygons, height, width)))
    return np.ascontiguousarray(filled).astype(bool)


def _broken(source: str, why: str) -> BadMask:
    return BadMask(MASK_UNREADABLE, f"its outline in {source} cannot be read: {why}")
