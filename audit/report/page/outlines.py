"""Borders of masks as paths to draw over a picture of any size."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

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
    scale = np.ones(2) if size is None else np.divide(size[::-1], mask.shape[::-1])
    borders = _borders(mask)
    if max(mask.shape) > EXACT_SIDE:
        borders = [points for points in map(_simplified, borders) if len(points) > 2]
    return "".join(_polygon(points * scale) for points in borders) or None


def _borders(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Polygons through the corners of pixels, each n×2 of x and y."""
    # At twice the size a contour runs through the outer half of each pixel at the border; the next
    # corner towards the outside is then one division away, for holes too.
    twice = np.pad(mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1), 2)
    contours, _ = cv2.findContours(twice, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return [_corners((contour[:, 0].astype(np.int64) - 1) // 2) for contour in contours]


def _corners(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Without repeated points and points on a straight line."""
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)]
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _simplified(points: NDArray[np.int64]) -> NDArray[np.int64]:
    kept = cv2.approxPolyDP(points.astype(np.int32)[:, None], _SLACK, closed=True)
    return np.asarray(kept[:, 0], np.int64)


def _polygon(points: NDArray[np.floating]) -> str:
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
