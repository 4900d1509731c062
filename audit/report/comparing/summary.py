"""What ``audit compare`` and ``audit trend`` print at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from audit.errors import visible
from audit.report.comparing.trend import by_step
from audit.report.comparing.words import (
    change_in,
    comparison_name,
    headline,
    kind_names,
    lead_sentences,
    metric_names,
    value_in,
)
from audit.report.language import load_language

# What the terminal shows of a trend.
_SHOWN = ("accuracy", "reliance", "transplant_highest", "kappa")
_LONGEST_REASON = 160


def summarise_comparison(
    path: Path, manifest: Mapping[str, Any], compare: pd.DataFrame, changes: pd.DataFrame
) -> str:
    """A few lines that a person can read.

    Args:
        path: The comparison's folder.
        manifest: Its manifest.
        compare: Rows of ``compare.parquet``.
        changes: Rows of ``changes.parquet``.
    """
    english = load_language("en")
    lines = [""]
    for side in ("a", "b"):
        run = manifest[side]
        lines.append(
            visible(f"{side.upper()}: {run['model']} on {run['dataset']} ({run['split']}), run "
                    f"{run['run_id']}, {run['finished']}")
        )  # fmt: skip
    if manifest["a"].get("without"):
        lines.append(f"WARNING: in both runs {manifest['a']['without']}.")
    lines += ["", headline(english, compare, one_model=manifest["one_model"]).upper()]
    lines += [f"   {sentence.plain()}" for sentence in lead_sentences(english, compare)]
    counts = changes["kind"].value_counts()
    said = [f"{counts[key]:,} {name}" for key, name in kind_names(english).items() if key in counts]
    lines += ["", "Images that changed: " + (", ".join(said) or "none")]
    lines += ["", f"Report: {path / 'index.html'}", f"Tables: {path}"]
    return "\n".join(lines)


def summarise_trend(path: Path, manifest: Mapping[str, Any], trend: pd.DataFrame) -> str:
    """A table of the runs, and those left out.

    Args:
        path: The trend's folder.
        manifest: Its manifest.
        trend: Rows of ``trend.parquet``.
    """
    english = load_language("en")
    names = metric_names(english)
    shown = [name for name in _SHOWN if (trend["metric"] == name).any()]
    split = by_step(trend)
    rows = [["run", *(names[name][0] for name in shown)]]
    for place, run in enumerate(manifest["runs"]):
        cells = [visible(f"{place + 1}. {run['model']} {run['run_id']}")[:40]]
        for metric in shown:
            if (place, metric) not in split:
                cells.append("–")
                continue
            row = split[place, metric]
            text = value_in(metric, row["value"])
            if isinstance(row["verdict"], str):
                change = change_in(english, metric, row["change"])
                text += f" ({change}: {comparison_name(english, row['verdict'])})"
            cells.append(text)
        rows.append(cells)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = [""]
    for line in rows:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    for run in manifest["left_out"]:
        why = visible(f"left out: {run['model']} {run['run_id']}: {run['reason']}")
        lines.append(why if len(why) <= _LONGEST_REASON else why[: _LONGEST_REASON - 1] + "…")
    lines += ["", f"Report: {path / 'index.html'}", f"Tables: {path}"]
    return "\n".join(lines)
