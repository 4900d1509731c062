"""Drawing: overlays, outlines, captions, contact sheets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from audit.config import Colours
from audit.report.language import Language
from audit.report.pictures.fonts import Face, missing
from audit.report.pictures.png import png_of

Picture = NDArray[np.uint8]  # RGB, H×W×3

# A sheet is as wide as a slide; letters can be read on a telephone's screen a third as wide.
WIDTH = 1280
MARGIN = 16
# A picture, and the space between those of a tile; three tiles of two fill a row.
SIDE, GAP = 200, 5
_BETWEEN = 16
_TITLE, _TEXT, _HEADING, _CAPTION, _NOTE = Face(40), Face(24), Face(28), Face(25), Face(22)
_BAR = (240, 20)
# The heatmap's and the image's weight in an overlay; maps that go from dark to light need more,
# and an image without colours of its own.
HEAT, UNDER = 0.3, 0.5
_HEAT_ON_GREY, _GREY = 0.6, 0.4

INK, FAINT, GOOD, BAD = "#1a1a1a", "#5c5c5c", "#006837", "#b2182b"
_PAPER = "#ffffff"
_MAPS = {
    "jet": cv2.COLORMAP_JET, "viridis": cv2.COLORMAP_VIRIDIS, "cividis": cv2.COLORMAP_CIVIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
}  # fmt: skip
# Where a line may end: behind a space, and between characters of scripts without spaces.
_PIECES = re.compile(r"[\u2e80-\u9fff\uff00-\uffef]|[^\s\u2e80-\u9fff\uff00-\uffef]+\s*|\s+")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A line of text under a tile.

    Attributes:
        text: Shortened with an ellipsis where it does not fit.
        value: Stands after the text and is never shortened.
        colour: Of the letters.
        ends: Shorten the text in its middle.
    """

    text: str
    value: str = ""
    colour: str = INK
    ends: bool = False


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Pictures side by side with lines under them.

    Attributes:
        pictures: At least one.
        captions: From top to bottom.
        room: How many pixels the captions may take where that is more than the pictures do.
    """

    pictures: Sequence[Picture]
    captions: Sequence[Caption]
    room: int = 0

    @property
    def width(self) -> int:
        """In pixels."""
        return max(self.room, sum(picture.shape[1] + GAP for picture in self.pictures) - GAP)

    @property
    def height(self) -> int:
        """In pixels."""
        tallest = max(picture.shape[0] for picture in self.pictures)
        return tallest + 6 + len(self.captions) * _line(_CAPTION)


@dataclass(frozen=True, kw_only=True)
class Row:
    """Tiles under a heading; as many side by side as fit."""

    heading: str
    tiles: Sequence[Tile]


@dataclass(frozen=True, kw_only=True)
class Legend:
    """What the colours mean.

    Attributes:
        colours: Of the heatmaps.
        low: What stands before the colour bar.
        high: What stands after it.
        note: What the lines mean.
    """

    colours: Colours
    low: str
    high: str
    note: str = ""


def fit(image: Picture, side: int = SIDE) -> Picture:
    """Scale a picture into a square.

    Args:
        image: H×W×3 or H×W×1.
        side: Of the square, in pixels.
    """
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    canvas = np.full((side, side, *image.shape[2:]), 255, np.uint8)
    scaled = resized(image, *size).reshape(*size, *image.shape[2:])
    canvas[top : top + size[0], left : left + size[1]] = scaled
    return canvas


def resized(image: Picture, height: int, width: int) -> Picture:
    """A picture at another size.

    Small ones are enlarged with Lanczos' filter. Its ringing is cut off: a pixel is never darker
    or brighter than all those of the small picture that are round it.

    Args:
        image: H×W×3 or H×W×1.
        height: In pixels.
        width: Likewise.

    Example:
        >>> step = np.repeat(np.uint8([[50, 50, 50, 200, 200, 200]]), 4, axis=0)[..., None]
        >>> large = resized(step, 16, 24)
        >>> int(large.min()), int(large.max())
        (50, 200)
    """
    if image.shape[:2] == (height, width):
        return image
    if height * width < image.shape[0] * image.shape[1]:
        return np.asarray(
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
    large = cv2.resize(image, (width, height), interpolation=cv2.INTER_LANCZOS4)
    around = np.ones((3, 3), np.uint8)
    low, high = (
        cv2.resize(extreme(image, around), (width, height), interpolation=cv2.INTER_LINEAR)
        for extreme in (cv2.erode, cv2.dilate)
    )
    return np.asarray(cv2.min(cv2.max(large, low), high), np.uint8)


def overlay(image: Picture, heatmap: NDArray[np.float32], colours: Colours = "jet") -> Picture:
    """A heatmap over a picture; but for JET the picture is grey.

    Args:
        image: H×W×3.
        heatmap: In [0, 1], H×W.
        colours: Of the heatmap.
    """
    warm = coloured(heatmap, colours)
    if colours == "jet":
        return np.asarray(cv2.addWeighted(warm, HEAT, image, UNDER, 0), np.uint8)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(warm, _HEAT_ON_GREY, grey, _GREY, 0), np.uint8)


def coloured(heatmap: NDArray[np.float32], colours: Colours = "jet") -> Picture:
    """A heatmap as colours.

    Args:
        heatmap: In [0, 1].
        colours: Which.

    Returns:
        uint8 RGB, the heatmap's shape and 3.
    """
    levels = (heatmap * 255).round().clip(0, 255).astype(np.uint8)
    return colour_table(colours)[levels]


def jet(heatmap: NDArray[np.float32]) -> Picture:
    """A heatmap as colours from blue (0) over green to red (1)."""
    return coloured(heatmap)


@cache
def colour_table(colours: Colours) -> Picture:
    """The colours of 256 levels, uint8 RGB, 256×3.

    Example:
        >>> colour_table("jet")[[0, 255]].tolist()
        [[0, 0, 128], [128, 0, 0]]
    """
    levels = np.arange(256, dtype=np.uint8)[:, None]
    table = np.asarray(cv2.applyColorMap(levels, _MAPS[colours])[:, 0, ::-1], np.uint8)
    table.flags.writeable = False
    return table


def outline(image: Picture, mask: Picture) -> Picture:
    """Draw the mask's border: white with a black rim, to show on any picture."""
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    drawn = image.copy()
    cv2.drawContours(drawn, contours, -1, (0, 0, 0), 3)
    cv2.drawContours(drawn, contours, -1, (255, 255, 255), 1)
    return drawn


def enlarged(mask: NDArray[np.bool_], side: int = SIDE) -> Picture:
    """A mask at the tile's size, 0 or 255."""
    if not mask.any():
        return np.zeros((side, side), np.uint8)
    smooth = fit((mask.astype(np.uint8) * 255)[..., None], side)[..., 0]
    # What `fit` leaves around the picture is paper, not mask.
    height, width = mask.shape
    if height != width:
        paper = fit(np.zeros((height, width, 1), np.uint8), side)[..., 0] > 0
        smooth = np.where(paper, 0, smooth)
    return np.where(smooth > 127, 255, 0).astype(np.uint8)


def veil(image: Picture, unknown: Picture) -> Picture:
    """Grey stripes over the pixels that count on no side."""
    if not unknown.any():
        return image
    rows, columns = np.indices(unknown.shape)
    striped = (unknown > 0) & ((rows + columns) % 8 < 4)
    return np.where(striped[..., None], np.uint8(150), image)


def sheet(
    title: str, subtitle: str, rows: Sequence[Row], legend: Legend, language: Language
) -> bytes:
    """A contact sheet as PNG, 1280 pixels wide.

    Args:
        title: In large letters.
        subtitle: Under it.
        rows: Of tiles.
        legend: What the colours mean.
        language: Of what is added: where letters cannot be drawn, how to help that.
    """
    texts = [title, subtitle, *(row.heading for row in rows)]
    texts += [caption.text for row in rows for tile in row.tiles for caption in tile.captions]
    hint = missing_letters(texts, language)
    blocks = [_title_block(title, subtitle), *(block for row in rows for block in _row_blocks(row))]
    blocks.append(_legend_block(legend, hint))
    return png_of(np.concatenate(blocks))


def missing_letters(texts: Sequence[str], language: Language) -> str:
    """How to get letters drawn that no installed font has; empty where all can be drawn."""
    if not any(map(missing, texts)):
        return ""
    return language.text(
        "An empty box stands for a character that no font on this machine has: install one that "
        "has it, for example Noto Sans CJK, and draw the report again."
    )


def wrap(text: str, width: float, face: Face) -> list[str]:
    """Break a text into lines.

    Args:
        text: Any.
        width: Of a line in pixels; a longer word is shortened.
        face: The letters.

    Example:
        >>> wrap("more of the background", 120, Face(20))
        ['more of the', 'background']
    """
    lines = [""]
    for piece in _PIECES.findall(text):
        if lines[-1] and face.width((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return [face.fit(line.strip(), width) for line in lines if line.strip()]


def captions_of(text: str, width: int) -> list[Caption]:
    """A text as captions, as many as it needs at a width in pixels."""
    return [Caption(text=line) for line in wrap(text, width, _CAPTION)]


def _line(face: Face) -> int:
    return round(face.size * 1.28)


def _paper(height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    page = Image.new("RGB", (WIDTH, height), _PAPER)
    return page, ImageDraw.Draw(page)


def _title_block(title: str, subtitle: str) -> Picture:
    room = WIDTH - 2 * MARGIN
    lines = wrap(subtitle, room, _TEXT)
    height = MARGIN + _line(_TITLE) + len(lines) * _line(_TEXT) + 10
    page, draw = _paper(height)
    _TITLE.draw(draw, (MARGIN, MARGIN - 4), _TITLE.fit(title, room), INK)
    for number, line in enumerate(lines):
        top = MARGIN + _line(_TITLE) + number * _line(_TEXT)
        _TEXT.draw(draw, (MARGIN, top), line, FAINT)
    return np.asarray(page, np.uint8)


def _row_blocks(row: Row) -> list[Picture]:
    """The heading, and tiles as many side by side as fit."""
    lines = wrap(row.heading, WIDTH - 2 * MARGIN, _HEADING)
    page, draw = _paper(10 + len(lines) * _line(_HEADING) + 4)
    for number, line in enumerate(lines):
        _HEADING.draw(draw, (MARGIN, 10 + number * _line(_HEADING)), line, INK)
    blocks = [np.asarray(page, np.uint8)]
    left, together = MARGIN, list[Tile]()
    for tile in row.tiles:
        if together and left + tile.width > WIDTH - MARGIN:
            blocks.append(_tiles_block(together))
            left, together = MARGIN, []
        together.append(tile)
        left += tile.width + _BETWEEN
    return [*blocks, _tiles_block(together)] if together else blocks


def _tiles_block(tiles: Sequence[Tile]) -> Picture:
    page, draw = _paper(max(tile.height for tile in tiles) + 14)
    left = MARGIN
    for tile in tiles:
        corner = left
        for image in tile.pictures:
            page.paste(Image.fromarray(image), (corner, 0))
            corner += image.shape[1] + GAP
        top = max(image.shape[0] for image in tile.pictures) + 6
        for number, caption in enumerate(tile.captions):
            _draw_caption(draw, caption, (left, top + number * _line(_CAPTION)), tile.width)
        left += tile.width + _BETWEEN
    return np.asarray(page, np.uint8)


def _draw_caption(
    draw: ImageDraw.ImageDraw, caption: Caption, corner: tuple[int, int], width: int
) -> None:
    value = f" {caption.value}" if caption.value else ""
    cut = _CAPTION.fit_ends if caption.ends else _CAPTION.fit
    text = cut(caption.text, width - _CAPTION.width(value))
    _CAPTION.draw(draw, corner, text + value, caption.colour)


def _legend_block(legend: Legend, hint: str) -> Picture:
    room = WIDTH - 2 * MARGIN
    notes = [
        (line, colour)
        for text, colour in ((legend.note, FAINT), (hint, BAD))
        for line in wrap(text, room, _NOTE)
    ]
    page, draw = _paper(12 + (1 + len(notes)) * _line(_NOTE) + MARGIN)
    _NOTE.draw(draw, (MARGIN, 8), legend.low, FAINT)
    left = MARGIN + round(_NOTE.width(legend.low)) + 12
    ramp = np.tile(np.linspace(0, 1, _BAR[0], dtype=np.float32), (_BAR[1], 1))
    page.paste(Image.fromarray(coloured(ramp, legend.colours)), (left, 11))
    _NOTE.draw(draw, (left + _BAR[0] + 12, 8), legend.high, FAINT)
    for number, (line, colour) in enumerate(notes):
        _NOTE.draw(draw, (MARGIN, 12 + (1 + number) * _line(_NOTE)), line, colour)
    return np.asarray(page, np.uint8)
