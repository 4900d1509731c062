"""Figures for slides: classes by reliance, the transplant matrix, shares by class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from audit.report.phrases import verdict_name
from audit.report.pictures.fonts import Face, drawable, families
from audit.report.pictures.png import png_of
from audit.report.pictures.style import Style
from audit.report.pictures.tiles import FAINT, INK, missing_letters, wrap
from audit.report.wording import percent
from audit.tables.totals import rank_classes
from audit.tables.verdicts import CLEAR, MASK_LIMITED, RELIES, SUSPECT, TOO_FEW

CLASSES, TRANSPLANTS, SHARES = "classes.png", "transplants.png", "shares.png"
# Classes that a figure shows; the tables hold all of them.
MOST_CLASSES = 30
# Cells of larger matrices hold no numbers.
_MOST_WRITTEN = 12

# Pixels of a slide, and of an inch.
_WIDTH, _HEIGHT, _DPI = 1280, 720, 100
_NAMES = 300
_MARGIN = 24
# Room for a colour bar and its numbers.
_BAR = 80
# Safe for people who do not tell red from green; the marks differ too.
_MARKS = {
    RELIES: ("#d55e00", "o"),
    SUSPECT: ("#e69f00", "D"),
    MASK_LIMITED: ("#999999", "s"),
    CLEAR: ("#0072b2", "^"),
    TOO_FEW: ("#999999", "x"),
}


def draw_figures(
    samples: pd.DataFrame, tables: Mapping[str, pd.DataFrame], style: Style | None = None
) -> Iterator[tuple[str, bytes]]:
    """Draw the figures, 1280 × 720 pixels each.

    Args:
        samples: All rows.
        tables: The rows of ``classes.parquet`` and ``transplants.parquet`` by name.
        style: Colours and language.

    Yields:
        Names and contents of PNG files; of the three those for which there are numbers.
    """
    style = style or Style()
    ranked = rank_classes(tables["classes"])
    ranked = ranked[ranked["n"] > 0]
    if ranked["reliance"].notna().any() or ranked["transplant_rate"].notna().any():
        yield CLASSES, _classes_figure(ranked, style)
    transplants = tables["transplants"]
    if len(transplants):
        yield TRANSPLANTS, _transplants_figure(transplants, ranked, style)
    if samples["background_share"].notna().any():
        yield SHARES, _shares_figure(samples, ranked, style)


def _classes_figure(ranked: pd.DataFrame, style: Style) -> bytes:
    """One line a class: its score, the 95% interval, and the verdict as colour and mark."""
    language = style.language
    tested = bool(ranked["reliance"].notna().any())
    column = "reliance" if tested else "transplant_rate"
    scored = ranked[ranked[column].notna()]
    shown = scored[:MOST_CLASSES]
    if tested:
        title = language.text("Classes by reliance on background")
        meaning = language.text(
            "How many answers the class's background moves when it is put under other classes' "
            "objects, in edited pictures; bars are 95% intervals"
        )
    else:
        title = language.text("Classes by transplant rate")
        meaning = language.text(
            "How often objects of other classes are taken for the class on its background, in "
            "feature space: a reason to look, no proof; bars are 95% intervals"
        )
    with _page(title, [meaning, _left_out(len(scored), style)], shown["label_name"], style) as page:
        axes, places = page.axes, np.arange(len(shown))
        values = shown[[column, f"{column}_low", f"{column}_high"]].to_numpy(
            np.float64, na_value=np.nan
        )
        for verdict, (colour, mark) in _MARKS.items():
            own = (shown["verdict"] == verdict).to_numpy(bool)
            if own.any():
                axes.hlines(places[own], values[own, 1], values[own, 2], colour, linewidth=4)
                name = drawable(verdict_name(language, verdict))
                axes.plot(values[own, 0], places[own], mark, color=colour, label=name,
                          markersize=page.letters / 2)  # fmt: skip
        axes.axvline(0, color=FAINT, linewidth=1)
        low = np.nanmin(values[:, 1], initial=0)
        axes.set(xlim=(max(-1.05, low - 0.05), 1.02), ylim=(len(shown) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(lambda value, _: percent(value))
        page.name_rows(list(shown["label_name"]))
        axes.legend(loc="lower right", fontsize=page.points(20), framealpha=0.9)
        axes.grid(axis="x", alpha=0.3)
        return page.png()


def _transplants_figure(transplants: pd.DataFrame, ranked: pd.DataFrame, style: Style) -> bytes:
    """Background class × object class: how often the answer is the background's class."""
    language = style.language
    main = transplants[transplants["family"] == transplants["family"].iloc[0]]
    known = set(main["label"]) | set(main["object"])
    labels = [int(label) for label in ranked["label"] if label in known]
    shown = labels[:MOST_CLASSES]
    names = dict(zip(main["label"], main["label_name"], strict=True))
    names |= dict(zip(main["object"], main["object_name"], strict=True))
    shares = main.pivot_table(index="label", columns="object", values="predicted_label")
    cells = shares.reindex(index=shown, columns=shown).to_numpy(np.float64, na_value=np.nan)
    texts = [str(names[label]) for label in shown]
    meaning = language.text(
        "How often an object (column) is taken for the class of the background (row) that it is "
        "put on, in feature space: a reason to look, no proof"
    )
    title = language.text("Which backgrounds change the answer")
    with _page(title, [meaning, _left_out(len(labels), style)], texts, style) as page:
        axes = page.axes
        # The order of jet's colours is lost in greys and on many eyes.
        colours = "viridis" if style.colours == "jet" else style.colours
        drawn = axes.imshow(cells, cmap=colours, vmin=0, vmax=1, aspect="auto")
        page.name_rows(texts)
        page.name_columns(texts)
        page.add_bar(drawn)
        if len(shown) <= _MOST_WRITTEN:
            _write_cells(axes, cells, page.points(min(20, page.letters)))
        return page.png()


def _write_cells(axes: Axes, cells: np.ndarray, size: float) -> None:
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=size,
                      color=INK if value > 0.6 else "#ffffff")  # fmt: skip


def _shares_figure(samples: pd.DataFrame, ranked: pd.DataFrame, style: Style) -> bytes:
    """One box a class: quartiles and tenths of the share of the heatmap on background."""
    language = style.language
    by_label = dict(tuple(samples.groupby("label", observed=True)["background_share"]))
    boxes, names = [], []
    for label, name in zip(ranked["label"], ranked["label_name"], strict=True):
        if label in by_label and len(values := by_label[label].dropna()):
            tenth, low, middle, high, most = np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9))
            boxes.append({"whislo": tenth, "q1": low, "med": middle, "q3": high, "whishi": most})
            names.append(str(name))
    shown = names[:MOST_CLASSES]
    title = language.text("Where the heatmap lies")
    meaning = language.text(
        "Share of the heatmap on background by class: box, the middle half of the images; line, "
        "the median; whiskers, 10% to 90%. It describes, and accuses nobody: a clean model can "
        "show 35% to 86%"
    )
    with _page(title, [meaning, _left_out(len(names), style)], shown, style) as page:
        axes = page.axes
        axes.bxp(boxes[:MOST_CLASSES], positions=np.arange(len(shown)), orientation="horizontal",
                 showfliers=False, patch_artist=True, widths=0.6,
                 boxprops={"facecolor": "#9ecae1", "edgecolor": "#08519c"},
                 whiskerprops={"color": "#08519c", "linewidth": 2},
                 capprops={"color": "#08519c", "linewidth": 2},
                 medianprops={"color": INK, "linewidth": 3})  # fmt: skip
        axes.axvline(float(samples["background_share"].median()), color="#d55e00", linestyle="--",
                     label=drawable(language.text("median of all images")))  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(len(shown) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(lambda value, _: percent(value))
        page.name_rows(shown)
        axes.legend(loc="lower right", fontsize=page.points(20), framealpha=0.9)
        axes.grid(axis="x", alpha=0.3)
        return page.png()


def _left_out(count: int, style: Style) -> str:
    if count <= MOST_CLASSES:
        return ""
    return style.language.text("The first {shown} of {count} classes").format(
        shown=MOST_CLASSES, count=f"{count:,}"
    )


class _Page:
    """A slide: title and meaning above, axes below.

    Attributes:
        figure: The whole.
        axes: What is plotted.
        letters: Height of the classes' names in pixels.
    """

    def __init__(self, title: str, lines: Sequence[str], rows: int) -> None:
        self.letters = max(12, min(24, round(480 / max(rows, 1))))
        self.figure = Figure(figsize=(_WIDTH / _DPI, _HEIGHT / _DPI), dpi=_DPI)
        self._canvas = FigureCanvasAgg(self.figure)
        top = self._write(title, 36, 14, INK)
        for line in lines:
            for part in wrap(line, _WIDTH - 2 * _MARGIN, Face(22)):
                top = self._write(part, 22, top, FAINT)
        self._top = top
        self._left, self._bottom, self._right = _MARGIN + 60.0, 60.0, 2.0 * _MARGIN
        self.axes = self.figure.add_axes(self._box())
        self.axes.tick_params(labelsize=self.points(20))

    def _write(self, text: str, size: int, top: float, colour: str) -> float:
        shown = drawable(Face(size).fit(text, _WIDTH - 2 * _MARGIN))
        self.figure.text(_MARGIN / _WIDTH, 1 - top / _HEIGHT, shown, fontsize=self.points(size),
                         color=colour, va="top", parse_math=False)  # fmt: skip
        return top + 1.28 * size

    def _box(self) -> tuple[float, float, float, float]:
        """Where the axes lie, in fractions of the slide: left, bottom, width, height."""
        width = _WIDTH - self._left - self._right
        height = _HEIGHT - self._bottom - self._top - 18
        return self._left / _WIDTH, self._bottom / _HEIGHT, width / _WIDTH, height / _HEIGHT

    @staticmethod
    def points(pixels: float) -> float:
        """A size in the unit that matplotlib wants."""
        return pixels * 72 / _DPI

    def name_rows(self, names: Sequence[str]) -> None:
        """Write the classes' names on the left."""
        face = Face(self.letters)
        shown = [drawable(face.fit(str(name), _NAMES)) for name in names]
        widest = max((face.width(name) for name in shown), default=0)
        self._left = _MARGIN + widest + 12
        self.axes.set_position(self._box())
        self.axes.set_yticks(np.arange(len(shown)), shown)
        self._plain(self.axes.get_yticklabels())

    def name_columns(self, names: Sequence[str]) -> None:
        """Write them below, upright where there are many."""
        face = Face(self.letters)
        room = (_WIDTH - self._left - self._right) / max(len(names), 1)
        upright = max((face.width(str(name)) for name in names), default=0) > room - 4
        shown = [drawable(face.fit(str(name), 150 if upright else room)) for name in names]
        widest = max((face.width(name) for name in shown), default=0)
        self._bottom = _MARGIN + 12 + (widest if upright else self.letters)
        self.axes.set_position(self._box())
        self.axes.set_xticks(np.arange(len(shown)), shown, rotation=90 if upright else 0)
        self._plain(self.axes.get_xticklabels())

    def add_bar(self, drawn: AxesImage) -> None:
        """Put a colour bar on the right, from 0% to 100%."""
        self._right = 2.0 * _MARGIN + _BAR
        left, bottom, width, height = self._box()
        self.axes.set_position((left, bottom, width, height))
        place = (left + width + 16 / _WIDTH, bottom, 24 / _WIDTH, height)
        bar = self.figure.colorbar(drawn, cax=self.figure.add_axes(place))
        bar.ax.tick_params(labelsize=self.points(18))
        bar.ax.yaxis.set_major_formatter(lambda value, _: percent(value))

    def _plain(self, labels: Sequence[Text]) -> None:
        """Names are no formulas, whatever dollars they hold."""
        for label in labels:
            label.set_parse_math(False)
            label.set_fontsize(self.points(self.letters))

    def png(self) -> bytes:
        """The slide."""
        self._canvas.draw()
        return png_of(np.asarray(self._canvas.buffer_rgba())[..., :3])


@contextmanager
def _page(
    title: str, lines: Sequence[str], names: Sequence[str] | pd.Series, style: Style
) -> Iterator[_Page]:
    """A slide drawn with matplotlib's own settings, and the fonts that its texts need."""
    texts = [title, *lines, *map(str, names)]
    hint = missing_letters(texts, style.language)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["font.family"] = families(texts)
        yield _Page(title, [*lines, hint], len(names))
