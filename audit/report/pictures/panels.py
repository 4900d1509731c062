"""One picture with its heatmaps, painted where they belong: a captioned panel for each."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from audit.report.pictures.fonts import Face
from audit.report.pictures.tiles import FAINT, INK, Picture, jet, resized

# Top, left, bottom and right in a picture's pixels, in fractions of them too.
Box = tuple[float, float, float, float]

# A picture whose long side is shorter is enlarged to it, so that the caption is readable.
SMALLEST = 320
# A panel is at least so wide; a narrower picture stands in its middle.
NARROWEST = 200
COLUMNS = 3
QUALITY = 92
# What marks a file as drawn here.
MADE_BY = b"drawn by audit explain"

# More of the picture than in a contact sheet, whose tiles have the plain picture beside them.
_HEAT, _UNDER = 0.4, 0.6
_OUTSIDE = 0.5
# Panels of more pixels than this together are made smaller, as are sides that JPEG cannot have.
_MOST_PIXELS = 64_000_000
_MOST_SIDE = 60_000
_SMALLEST_FONT = 14
_ROWS_AT_ONCE = 512
_PAPER = 255


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A heatmap and what is written under it.

    Attributes:
        heat: In [0, 1], h×w; it covers the box. ``None`` leaves the picture bare there.
        name: Shortened with an ellipsis where it does not fit.
        value: Stands after the name and is never shortened.
        note: A second line, if there is something to say.
    """

    heat: NDArray[np.float32] | None
    name: str
    value: str = ""
    note: str = ""


def draw_panels(picture: Picture, panels: Sequence[Panel], box: Box) -> bytes:
    """Draw a picture once for each heatmap, side by side in rows of at most three.

    The picture keeps its size, but for two cases: one whose long side is below 320 pixels is
    enlarged to that; and where panels would hold more than 64 million pixels together, or a side
    be longer than JPEG can have, all become smaller. What lies outside the box is grey and dark,
    with a line between.

    Args:
        picture: RGB, H×W×3.
        panels: At least one.
        box: Where in the picture the heatmaps belong; it may reach beyond.

    Returns:
        A JPEG file.

    Example:
        >>> heat = np.array([[0.0, 0.0], [0.0, 1.0]], np.float32)
        >>> panel = Panel(heat=heat, name="roses", value="91.3%")
        >>> file = draw_panels(np.zeros((480, 640, 3), np.uint8), [panel], (0, 80, 480, 560))
        >>> Image.open(io.BytesIO(file)).size
        (640, 525)
    """
    layout = _Layout.of(picture.shape[0], picture.shape[1], panels)
    shown = resized(picture, layout.height, layout.width)
    y, x = layout.height / picture.shape[0], layout.width / picture.shape[1]
    scaled = (box[0] * y, box[1] * x, box[2] * y, box[3] * x)
    dimmed = _dimmed(shown, _seen(scaled, layout.height, layout.width))
    canvas = np.full((layout.sheet[0], layout.sheet[1], 3), _PAPER, np.uint8)
    for number, panel in enumerate(panels):
        top, left = layout.corner(number)
        inset = left + (layout.panel - layout.width) // 2
        place = canvas[top : top + layout.height, inset : inset + layout.width]
        place[:] = dimmed
        _paint(place, shown, panel.heat, scaled)
        strip = canvas[top + layout.height : top + layout.height + layout.strip]
        strip[:, left : left + layout.panel] = _caption(panel, layout)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, "JPEG", quality=QUALITY, comment=MADE_BY)
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where everything stands, in pixels.

    Attributes:
        height: Of the picture in its panel.
        width: Likewise.
        panel: Width of a panel.
        letters: Size of the font.
        strip: Height of the caption.
        gap: Between panels.
        count: How many panels.
    """

    height: int
    width: int
    panel: int
    letters: int
    strip: int
    gap: int
    count: int

    @classmethod
    def of(cls, height: int, width: int, panels: Sequence[Panel]) -> _Layout:
        """The layout for a picture of this size."""
        lines = 2 if any(panel.note for panel in panels) else 1
        larger = max(1.0, SMALLEST / max(height, width))
        wanted = cls._scaled(height, width, larger, lines, len(panels))
        rows, columns = wanted.sheet
        smaller = min(
            1.0,
            _MOST_SIDE / max(rows, columns),
            math.sqrt(_MOST_PIXELS / (len(panels) * wanted.height * wanted.width)),
        )
        return cls._scaled(height, width, larger * smaller, lines, len(panels))

    @classmethod
    def _scaled(cls, height: int, width: int, scale: float, lines: int, count: int) -> _Layout:
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        # A panorama's font follows its height, or the caption would outgrow the picture.
        letters = max(_SMALLEST_FONT, round(min(width, 3 * height) / 24))
        return cls(
            height=height,
            width=width,
            panel=max(width, NARROWEST),
            letters=letters,
            strip=round(letters * (0.4 + 1.25 * lines)),
            gap=letters // 2,
            count=count,
        )

    @property
    def sheet(self) -> tuple[int, int]:
        """Height and width of the whole."""
        columns = min(self.count, COLUMNS)
        rows = math.ceil(self.count / COLUMNS)
        height = rows * (self.height + self.strip) + (rows - 1) * self.gap
        return height, columns * self.panel + (columns - 1) * self.gap

    def corner(self, number: int) -> tuple[int, int]:
        """Top and left of a panel."""
        row, column = divmod(number, COLUMNS)
        return row * (self.height + self.strip + self.gap), column * (self.panel + self.gap)


def _seen(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """The picture's pixels whose centres lie in the box; at least one."""

    def span(start: float, stop: float, length: int) -> slice:
        first = min(max(0, math.ceil(start - 0.5)), length - 1)
        return slice(first, max(first + 1, min(length, math.ceil(stop - 0.5))))

    return span(box[0], box[2], height), span(box[1], box[3], width)


def _dimmed(picture: Picture, seen: tuple[slice, slice]) -> Picture:
    """The picture with what was never seen in dark grey, and a line round the rest."""
    rows, columns = seen
    if (rows.stop - rows.start, columns.stop - columns.start) == picture.shape[:2]:
        return picture
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    dark = cv2.convertScaleAbs(grey, alpha=_OUTSIDE)
    drawn = np.asarray(cv2.cvtColor(dark, cv2.COLOR_GRAY2RGB), np.uint8)
    # White outside the box, where it hides nothing, at the sides where there is an outside.
    line = max(1, round(min(picture.shape[:2]) / 250))
    drawn[
        max(0, rows.start - line) : rows.stop + line,
        max(0, columns.start - line) : columns.stop + line,
    ] = 255
    drawn[rows, columns] = picture[rows, columns]
    return drawn


def _paint(place: Picture, picture: Picture, heat: NDArray[np.float32] | None, box: Box) -> None:
    """Lay a heatmap over the seen part of a picture; in strips, to need little memory."""
    if heat is None:
        return
    rows, columns = _seen(box, *picture.shape[:2])
    across = _weights(columns, box[1], box[3], heat.shape[1]).T
    for start in range(rows.start, rows.stop, _ROWS_AT_ONCE):
        strip = slice(start, min(start + _ROWS_AT_ONCE, rows.stop))
        warm = _weights(strip, box[0], box[2], heat.shape[0]) @ heat @ across
        under = np.ascontiguousarray(picture[strip, columns])
        place[strip, columns] = cv2.addWeighted(
            jet(np.asarray(warm, np.float32)), _HEAT, under, _UNDER, 0
        )


def _weights(pixels: slice, start: float, stop: float, cells: int) -> NDArray[np.float32]:
    """Bilinear weights of a map's cells for pixels, pixels×cells; the map spans start to stop.

    Example:
        >>> _weights(slice(0, 4), 0, 4, 2).tolist()
        [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    centres = np.arange(pixels.start, pixels.stop) + 0.5
    place = ((centres - start) / (stop - start) * cells - 0.5).clip(0, cells - 1)
    low = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    weights = np.zeros((len(centres), cells), np.float32)
    every = np.arange(len(centres))
    weights[every, low] = 1 - (place - low)
    if cells > 1:
        weights[every, low + 1] = place - low
    return weights


def _caption(panel: Panel, layout: _Layout) -> Picture:
    """The strip under a panel, strip×panel×3."""
    strip = Image.new("RGB", (layout.panel, layout.strip), (_PAPER,) * 3)
    draw = ImageDraw.Draw(strip)
    face, small = Face(layout.letters), Face(max(_SMALLEST_FONT - 2, round(layout.letters * 0.8)))
    edge = layout.letters // 4
    value = f" {panel.value}" if panel.value else ""
    room = layout.panel - 2 * edge
    name = face.fit(panel.name, room - math.ceil(face.width(value)))
    face.draw(draw, (edge, round(layout.letters * 0.2)), name + value, INK)
    small.draw(draw, (edge, round(layout.letters * 1.45)), small.fit(panel.note, room), FAINT)
    return np.asarray(strip, np.uint8)
