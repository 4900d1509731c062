"""Borders of masks as paths to draw over a picture of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

# Points' x and y, in pixels.
Polygon = Sequence[Sequence[float]]

# Masks up to this side are traced pixel by pixel; larger ones are simplified, by so many pixels.
EXACT_SIDE = 96
_SLACK = 0.75


def outline_path(mask: NDArray[np.bool_], size: tuple[int, int] | None = None) -> str | None:
    """The border of a mask as the data of an SVG path.

    Args:
        mask: H×W.
        size: Height and width of the picture in whose coordinates the path is; the mask's own
            where that is ``None``.

    Returns:
        Closed polygons along the borders of pixels, holes included (fill rule even-odd); ``None``
        for an empty mask.

    Example:
        >>> outline_path(np.array([[False, True], [False, False]]))
        'M1 0V1H2V0Z'
    """
    if not mask.any():
        return None
    across, down = (1.0, 1.0) if size is None else np.divide(size[::-1], mask.shape[::-1]).tolist()
    borders = _borders(mask)
    if max(mask.shape) > EXACT_SIDE:
        borders = [points for points in map(_simplified, borders) if len(points) > 2]
    return "".join(_polygon([(x * across, y * down) for x, y in each]) for each in borders) or None


def _borders(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Polygons through the corners of pixels, each some points' x and y."""
    # At twice the size a contour runs through the outer half of each pixel at the border; the next
    # corner towards the outside is then one division away, for holes too.
    height, width = mask.shape
    twice = np.zeros((2 * height + 4, 2 * width + 4), np.uint8)
    # Of each pixel the four quarters.
    for down in (2, 3):
        for right in (2, 3):
            twice[down : down + 2 * height : 2, right : right + 2 * width : 2] = mask
    contours, _ = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [_corners(((contour[:, 0] - 1) // 2).tolist()) for contour in contours]


def _corners(points: Polygon) -> Polygon:
    """Without repeated points and points on a straight line."""
    points = [point for before, point in pairwise([points[-1], *points]) if point != before]
    around = zip([points[-1], *points], points, [*points[1:], *points[:1]], strict=False)
    return [
        here
        for before, here, after in around
        if (here[0] - before[0]) * (after[1] - here[1])
        != (here[1] - before[1]) * (after[0] - here[0])
    ]


def _simplified(points: Polygon) -> Polygon:
    kept = cv2.approxPolyDP(np.array(points, np.int32)[:, None], _SLACK, closed=True)
    return [(x, y) for x, y in kept[:, 0].tolist()]


def _polygon(points: Polygon) -> str:
    """A closed path with as few characters as may be."""
    x, y = points[0]
    text = [f"M{x:g} {y:g}"]
    for next_x, next_y in points[1:]:
        if next_x == x:
            text.append(f"V{next_y:g}")
        elif next_y == y:
            text.append(f"H{next_x:g}")
        else:
            text.append(f"L{next_x:g} {next_y:g}")
        x, y = next_x, next_y
    return "".join(text) + "Z"
