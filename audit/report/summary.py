"""What the command prints at the end."""

from __future__ import annotations

import pandas as pd

from audit.report.wording import percent
from audit.tables.reading import AuditRun
from audit.tables.totals import rank_classes

_CLASSES = 3


def summarise(run: AuditRun, seconds: float) -> str:
    """A few lines that a person can read.

    Args:
        run: The finished run.
        seconds: How long it took.
    """
    facts, totals = run.manifest, run.manifest["totals"]
    ranked = rank_classes(run.classes)
    scored = ranked[ranked["transplant_rate"].notna()]
    lines = [
        "",
        f"{facts['model']} on {facts['dataset']} ({facts['split']}): "
        f"{totals['samples']:,} images, accuracy {percent(totals['accuracy'], 2)}, "
        f"{seconds:.1f} s",
        *_bad(totals["statuses"]),
        "",
        "Most reliant on background, by transplant rate (how often the class's background, put",
        "under another class's object, still gets this class as the answer; a screen, no proof):",
        *[_line(place, row) for place, (_, row) in enumerate(scored[:_CLASSES].iterrows(), 1)],
    ]
    if len(scored) > _CLASSES:
        rest = scored["transplant_rate"][_CLASSES:]
        lines.append(f"   the other classes: {percent(rest.min())} to {percent(rest.max())}")
    if scored.empty:
        lines.append("   no class could be scored; the column status of the samples says why")
    planted = facts["known_answer"].get("planted_classes")
    if planted:
        lines += ["", f"Known answer: the background was planted in {', '.join(planted)}."]
    lines += ["", f"Report: {run.path / 'index.html'}", f"Tables: {run.path}"]
    return "\n".join(lines)


def _line(place: int, row: pd.Series) -> str:
    interval = f"{percent(row['transplant_rate_low'])} to {percent(row['transplant_rate_high'])}"
    return (
        f"{place}. {_one_line(row['label_name'])}: "
        f"transplant rate {percent(row['transplant_rate'])} "
        f"(95 % interval {interval}), heatmap on background "
        f"{percent(row['background_share'])}, accuracy {percent(row['accuracy'])}, "
        f"n = {row['n']:,}"
    )


def _one_line(name: object) -> str:
    """A class name for a terminal: no control characters."""
    return "".join(c if c.isprintable() else "�" for c in str(name))


def _bad(statuses: dict[str, int]) -> list[str]:
    other = {name: count for name, count in statuses.items() if name != "ok"}
    if not other:
        return []
    return ["without all scores: " + ", ".join(f"{n:,} {name}" for name, n in other.items())]
