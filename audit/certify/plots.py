"""The pictures of a benchmark's page, as PNG."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from audit.certify.evaluation import RELIED_ON
from audit.certify.known import Images
from audit.certify.plants import CUES, paint

_EXAMPLES = 8
# Safe for people who do not tell red from green.
_COLOURS = {"background": "#d55e00", "object": "#0072b2", "both": "#999999"}


def draw_cues(test: Images, cues: tuple[str, ...]) -> bytes:
    """Some test images without and with each cue, a row each.

    Args:
        test: Clean test images with object masks.
        cues: Names.

    Returns:
        A PNG.
    """
    count = min(_EXAMPLES, len(test))
    index = test.index[:: max(1, len(test) // count)][:count]
    images = test.images[index]
    masks = None if test.masks is None else test.masks[index]
    rows = {"clean": images} | {cue: paint(cue, images, masks, index) for cue in cues}
    figure = Figure(figsize=(1.1 * count + 1.6, 1.1 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, pictures) in zip(grid, rows.items(), strict=True):
        strip = np.concatenate(list(pictures.permute(0, 2, 3, 1).numpy()), axis=1)
        axes.imshow(strip, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    return _png(figure)


def draw_scores(classes: pd.DataFrame) -> bytes | None:
    """The audit's score against what was measured, one dot a class.

    Args:
        classes: Rows of ``certify.parquet``.

    Returns:
        A PNG; ``None`` where no class with a cue has a score.
    """
    trained = classes[classes["kind"].isin(["planted", "clean"]) & classes["reliance"].notna()]
    planted = trained[trained["pull"].notna()]
    if planted.empty:
        return None
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for place, colour in _COLOURS.items():
        some = planted[planted["place"] == place]
        if some.empty:
            continue
        left.scatter(some["pull"], some["reliance"], s=22, color=colour, label=f"cue on {place}",
                     alpha=0.8)  # fmt: skip
    left.axvline(RELIED_ON, color="#777777", linewidth=0.8, linestyle=":")
    left.set(xlabel="measured reliance (pull)", ylabel="audit's score (reliance)",
             title="Classes with a cue")  # fmt: skip
    left.legend()
    _draw_by_strength(right, trained)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return _png(figure)


def _draw_by_strength(axes: Axes, rows: pd.DataFrame) -> None:
    """The mean score of each cue's classes against strength, and of classes without a cue."""
    for cue in rows["cue"].dropna().unique():
        means = rows[rows["cue"] == cue].groupby("strength")["reliance"].mean()
        place = CUES[cue].place
        axes.plot(
            means.index * 100,
            means.to_numpy(),
            marker="o",
            markersize=4,
            label=cue,
            linestyle="-" if place == "background" else "--",
        )
    bare = rows[rows["cue"].isna()].groupby("strength")["reliance"].max()
    if len(bare):
        # One strength makes no line.
        axes.plot(bare.index * 100, bare.to_numpy(), color="black", linewidth=1, linestyle=":",
                  marker=".", label="highest class without cue")  # fmt: skip
    axes.set(xlabel="images of the class with the cue, %", ylabel="audit's score (reliance)",
             title="Score by strength")  # fmt: skip
    axes.legend(fontsize=8)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
