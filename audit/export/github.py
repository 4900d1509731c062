"""A run as Markdown, for the summary of a step of GitHub Actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from audit.errors import OutputError
from audit.gate import read_outcome
from audit.gate.markdown import literal, table
from audit.report.wording import percent, points
from audit.tables.reading import AuditRun
from audit.tables.totals import rank_classes
from audit.tables.verdicts import CLEAR, MASK_LIMITED, RELIES, SUSPECT, TOO_FEW

_MOST_ROWS = 50


def run_as_markdown(run: AuditRun, most: int = _MOST_ROWS) -> str:
    """The verdict, the classes that need a look, and what a gate said.

    Args:
        run: A finished run.
        most: Classes at most.

    Returns:
        GitHub-flavoured Markdown of bounded length, with a line end.
    """
    facts, ranked = run.manifest, rank_classes(run.classes)
    name = f"{literal(facts['model'])} on {literal(facts['dataset'])} ({literal(facts['split'])})"
    totals = facts["totals"]
    lines = [
        f"## {_headline(ranked)}",
        "",
        f"{name}: {totals['samples']:,} images, accuracy {percent(totals['accuracy'], 2)}, "
        f"run {literal(facts['run_id'])}",
        "",
        *_classes(ranked[ranked["verdict"] != CLEAR], most),
        *_gate(read_outcome(run)),
        f"Open {literal(str(run.path / 'index.html'), 1000)} for the images behind this.",
    ]
    return "\n".join(lines) + "\n"


def _headline(classes: pd.DataFrame) -> str:
    """The verdict in a line."""
    counts = classes["verdict"].value_counts()
    total = len(classes)
    if found := int(counts.get(RELIES, 0)):
        return f"Relies on background in {found:,} of {total:,} classes"
    unknown = int(counts.get(TOO_FEW, 0) + counts.get(MASK_LIMITED, 0))
    if unknown == total:
        return f"No class could be judged, of {total:,}"
    suspect = int(counts.get(SUSPECT, 0))
    said = (
        f"Suspect: {suspect:,} of {total:,} classes"
        if suspect
        else "No evidence of reliance on background"
    )
    return said + (f", {unknown:,} not judged" if unknown else "")


def _classes(classes: pd.DataFrame, most: int) -> list[str]:
    if classes.empty:
        return []
    rows = [
        [
            literal(str(row["label_name"])),
            str(row["verdict"]),
            f"{points(row['reliance'])} ({points(row['reliance_low'])} to "
            f"{points(row['reliance_high'])})"
            if pd.notna(row["reliance"])
            else "not tested",
            percent(row["accuracy"]),
            f"{row['n']:,}",
        ]
        for row in classes[:most].to_dict("records")
    ]
    titles = ["class", "verdict", "its background moves (95% interval)", "accuracy", "images"]
    more = len(classes) - most
    return [*table(titles, rows), "", *([f"… and {more:,} more", ""] if more > 0 else [])]


def _gate(outcome: dict[str, Any] | None) -> list[str]:
    if outcome is None:
        return []
    failed = [check for check in outcome["checks"] if check["status"] == "failed"]
    if not failed:
        return ["**Gate passed.**", ""]
    shown = [f"- {literal(check['message'], 300)}" for check in failed[:_MOST_ROWS]]
    more = len(failed) - _MOST_ROWS
    checks = "1 check" if len(failed) == 1 else f"{len(failed):,} checks"
    return [f"**Gate failed: {checks}.**", "", *shown,
            *([f"- … and {more:,} more"] if more > 0 else []), ""]  # fmt: skip


def append_summary(path: Path, text: str) -> None:
    """Add Markdown to a file, a blank line before it.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write("\n" + text)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}",
            expected="a file that can be added to",
            found=error.strerror or str(error),
            remedy="name another one with --summary",
        ) from error
