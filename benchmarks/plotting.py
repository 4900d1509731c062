"""The plot of docs/speed.md: everybody over the best bare forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.libraries import FASTER, FROZEN, MANUAL
from benchmarks.results import Row

_LIBRARIES = ("torch-cam CAM", "torch-cam Grad-CAM", "captum", "pytorch-grad-cam")
_AUDITS = ("audit", "audit, compiled")
_BARE = "bare forward pass"
_WAYS = {MANUAL: "#8c510a", FASTER: "#d8843b", FROZEN: "#f0c99a"}
_OURS, _LIMIT = "#1f5fa8", "#555555"


def relative(rows: Sequence[Row]) -> dict[str, float]:
    """Seconds over the best bare pass of the same measurement, by contestant.

    Args:
        rows: Of one network.
    """
    timed = {row.variant: row.seconds for row in rows if row.seconds and row.ratio}
    bare = min(s for name, s in timed.items() if name.startswith("bare, "))
    return {_BARE if s == bare else name: s / bare for name, s in timed.items()}


def draw_ratios(rows: Sequence[Row], file: Path) -> None:
    """Draw a panel for each network that all were measured on; nothing without any.

    Args:
        rows: All that was measured; those of the first machine with peers are drawn.
        file: An SVG.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    peers = [row for row in rows if row.section == "peers"]
    panels: dict[str, list[Row]] = {}
    for row in peers:
        if row.machine == peers[0].machine:
            panels.setdefault(row.subject, []).append(row)
    if not panels:
        return
    names = [_BARE, *_AUDITS, *_LIBRARIES]
    # The same bytes for the same figures.
    with mpl.rc_context({"svg.hashsalt": "speed", "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(max(7.0, 2.9 * len(panels) + 1.2), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for ax, (subject, own) in zip(axes, panels.items(), strict=True):
            _draw_panel(ax, subject, relative(own), names)
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        figure.supxlabel(
            "time over the best bare forward pass\n"
            "libraries: maps and three scores; audit: all of its columns",
            fontsize=8,
        )
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        figure.savefig(file, metadata={"Date": None})


def _draw_panel(ax: Any, subject: str, found: dict[str, float], names: list[str]) -> None:
    ax.axvline(1, color=_LIMIT, lw=1)
    ax.plot([1], [names.index(_BARE)], "o", color=_LIMIT)
    ours = [name for name in _AUDITS if name in found]
    ax.plot([found[n] for n in ours], [names.index(n) for n in ours], "D", color=_OURS,
            label="audit")  # fmt: skip
    for library in _LIBRARIES:
        ends = [found[f"{library}, {way}"] for way in _WAYS if f"{library}, {way}" in found]
        if ends:
            place = names.index(library)
            ax.plot([min(ends), max(ends)], [place, place], color="#cccccc", lw=2, zorder=1)
    for way, colour in _WAYS.items():
        there = [library for library in _LIBRARIES if f"{library}, {way}" in found]
        ax.plot([found[f"{n}, {way}"] for n in there], [names.index(n) for n in there], "o",
                color=colour, label=way)  # fmt: skip
    ax.set_title(subject, fontsize=9)
    ax.set_xlim(left=0)
    ax.grid(axis="x", color="#eeeeee")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
