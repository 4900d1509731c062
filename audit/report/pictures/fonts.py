"""Fonts that can draw whatever a class is called.

DejaVu Sans comes with matplotlib, so it is everywhere the same. Characters that it lacks, Chinese
for one, are drawn with an installed font that has them; where none has, with an empty box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
from PIL import ImageDraw, ImageFont

BOX = "\u25a1"
_SANS = str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
_REPLACED = "\ufffd"
# Asked in this order, before all others in the order of their names.
_PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans JP", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "SimHei",
    "Droid Sans Fallback", "Arial Unicode MS",
)  # fmt: skip
# Comes with matplotlib; for every character it has a sign that says of what kind it is.
_LAST_RESORT = "Last Resort"
# Files that hold several faces.
_COLLECTIONS = (".ttc", ".otc")
# Texts whose widths are remembered.
_WIDTHS = 4096
# Characters of every Chinese sheet; a font that has them has the others.
_CHINESE = "类别背景图像样本"


@dataclass(frozen=True)
class Face:
    """A size of letters, with whatever fonts a text needs.

    Args:
        size: Height of the letters in pixels.

    Example:
        >>> Face(20).width("wide") > Face(20).width("i")
        True
    """

    size: int

    def width(self, text: str) -> float:
        """How many pixels a text takes."""
        return _width(self, text)

    def draw(
        self, draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, colour: str
    ) -> None:
        """Write a text.

        Args:
            draw: Where.
            corner: Left and top.
            text: One line.
            colour: Of the letters.
        """
        left, top = corner
        baseline = top + self.sans.getmetrics()[0]
        parts = self._parts(text)
        for number, (part, font) in enumerate(parts, 1):
            draw.text((left, baseline), part, colour, font, anchor="ls")
            left += font.getlength(part) if number < len(parts) else 0

    def fit(self, text: str, width: float) -> str:
        """Cut a text to a width, with an ellipsis where something is missing.

        Args:
            text: Any; what cannot be printed is replaced.
            width: In pixels.

        Example:
            >>> Face(20).fit("background", 60), Face(20).fit("a" + chr(10), 60)
            ('bac…', 'a�')
        """
        return self._cut(text, width, lambda kept, shown: shown[:kept] + "…")

    def fit_ends(self, text: str, width: float) -> str:
        """Cut a text to a width in its middle: both ends of a file's name tell which it is.

        Args:
            text: Any; what cannot be printed is replaced.
            width: In pixels.

        Example:
            >>> Face(20).fit_ends("train/n0144/dog_0093.png", 130)
            'train…3.png'
        """

        def middle(kept: int, shown: str) -> str:
            return shown[: kept - kept // 2] + "…" + shown[len(shown) - kept // 2 :]

        return self._cut(text, width, middle)

    def _cut(self, text: str, width: float, shortened: Callable[[int, str], str]) -> str:
        shown = printable(text)
        if self.width(shown) <= width:
            return shown
        fewest, most = 0, len(shown) - 1
        while fewest < most:
            middle = (fewest + most + 1) // 2
            if self.width(shortened(middle, shown)) <= width:
                fewest = middle
            else:
                most = middle - 1
        return shortened(fewest, shown)

    @property
    def sans(self) -> ImageFont.FreeTypeFont:
        """DejaVu Sans in this size."""
        return _opened(_SANS, self.size)

    def _parts(self, text: str) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        """A text in pieces, each with the font that has its characters."""
        text = printable(text)
        if text.isascii():
            return [(text, self.sans)]
        parts: list[tuple[str, str]] = []
        for character in text:
            file = _font_of(character)
            shown = BOX if file is None else character
            file = file or _SANS
            if parts and parts[-1][1] == file:
                parts[-1] = (parts[-1][0] + shown, file)
            else:
                parts.append((shown, file))
        return [(part, _opened(file, self.size)) for part, file in parts]


@lru_cache(_WIDTHS)
def _width(face: Face, text: str) -> float:
    # Captions say the same of many samples, and are measured to be cut and again to be placed.
    return sum(font.getlength(part) for part, font in face._parts(text))


def printable(text: str) -> str:
    """A text without characters that control how others are shown."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _REPLACED for c in text)


def drawable(text: str) -> str:
    """A text with an empty box for each character that no installed font has.

    Example:
        >>> drawable("a" + chr(7) + "b")
        'a�b'
    """
    return "".join(c if _font_of(c) else BOX for c in printable(text))


def missing(text: str) -> bool:
    """Whether no installed font has some character of a text.

    Example:
        >>> missing("déjà vu, дежавю")
        False
    """
    return not text.isascii() and any(_font_of(c) is None for c in printable(text))


def can_draw_chinese() -> bool:
    """Whether an installed font has Chinese characters."""
    return not missing(_CHINESE)


def families(texts: Iterable[str]) -> list[str]:
    """The families that matplotlib needs for some texts, DejaVu Sans first.

    Args:
        texts: What will be drawn.

    Example:
        >>> families(["dog", "chat"])
        ['DejaVu Sans']
    """
    from matplotlib.font_manager import get_font

    files = {_font_of(c) for c in sorted({c for text in texts for c in printable(text)})}
    others = {get_font(file).family_name for file in files - {None, _SANS} if file is not None}
    return ["DejaVu Sans", *sorted(others)]


@cache
def _opened(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size, index=_face(file))


@cache
def _face(file: str) -> int:
    """The place of a file's face that reads best: the same characters differ between countries."""
    if Path(file).suffix.lower() not in _COLLECTIONS:
        return 0
    names: list[str] = []
    with suppress(OSError):  # after the last face
        while True:
            names.append(str(ImageFont.truetype(file, index=len(names)).getname()[0]))
    return min(range(len(names)), key=lambda place: _rank(names[place]))


@cache
def _font_of(character: str) -> str | None:
    """The file of the first font that has a character."""
    if ord(character) in _characters(_SANS):
        return _SANS
    return next((file for file in _installed() if ord(character) in _characters(file)), None)


@cache
def _characters(file: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(file).get_charmap())


@cache
def _installed() -> tuple[str, ...]:
    """The files of all upright fonts, those that read well first."""
    # Looks through the machine's fonts once, and keeps what it found in a cache of its own.
    from matplotlib.font_manager import fontManager

    _list_new_fonts()

    def order(entry: Any) -> tuple[int, str, int, str]:
        return _rank(entry.name), entry.name, _heaviness(entry.weight), entry.fname

    upright = [
        entry
        for entry in fontManager.ttflist
        if entry.style == "normal" and not entry.name.startswith(_LAST_RESORT)
    ]
    files = dict.fromkeys(entry.fname for entry in sorted(upright, key=order))
    return tuple(file for file in files if Path(file).is_file())


@cache
def _list_new_fonts() -> None:
    """Tell matplotlib of fonts that were installed after it had looked."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    for file in sorted({*findSystemFonts()} - {entry.fname for entry in fontManager.ttflist}):
        with suppress(OSError, RuntimeError, KeyError, ValueError, NotImplementedError):
            fontManager.addfont(file)


def _rank(name: str) -> int:
    return _PREFERRED.index(name) if name in _PREFERRED else len(_PREFERRED)


def _heaviness(weight: int | str) -> int:
    """How far from a regular weight."""
    return abs(weight - 400) if isinstance(weight, int) else 0 if weight == "normal" else 300
