"""Training curves as PNG."""

from __future__ import annotations

import io

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Steps over which the thick line of the iteration curve averages.
_SMOOTH = 100


def draw_iterations(steps: pd.DataFrame) -> bytes:
    """Loss against training step, raw and as a moving average.

    Args:
        steps: One row a step with ``epoch`` and ``loss``.

    Returns:
        The picture as PNG.
    """
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps.index + 1, steps["loss"], color="#9ecae1", linewidth=0.5, label="each step")
    smooth = steps["loss"].rolling(_SMOOTH, min_periods=1).mean()
    axes.plot(steps.index + 1, smooth, color="#08519c", label=f"mean of {_SMOOTH} steps")
    axes.set(xlabel="training step", ylabel="cross-entropy loss", title="Training loss by step")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def draw_epochs(epochs: pd.DataFrame) -> bytes:
    """Loss and accuracy against epoch, for training and held-out images.

    Args:
        epochs: One row an epoch.

    Returns:
        The picture as PNG.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for kind, colour in (("train", "#1b9e77"), ("held_out", "#d95f02")):
            axes.plot(
                epochs["epoch"],
                epochs[f"{kind}_{quantity}"],
                color=colour,
                marker="o",
                markersize=3,
                label=kind.replace("_", " "),
            )
        axes.set(xlabel="epoch", ylabel=quantity, title=f"{quantity.capitalize()} by epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
