"""What the command prints at the end."""

from __future__ import annotations

from typing import Any

import pandas as pd

from audit.report.masktrust import MISFITS
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
        *_masks(facts["mask_check"]),
        "",
        "Most reliant on background, by transplant rate (how often the class's background, put",
        "under another class's object, still gets this class as the answer; a screen, no proof):",
        *[_line(place, row) for place, (_, row) in enumerate(scored[:_CLASSES].iterrows(), 1)],
    ]
    if len(scored) > _CLASSES:
        rest = scored["transplant_rate"][_CLASSES:]
        lines.append(f"   the other classes: {percent(rest.min())} to {percent(rest.max())}")
    if scored.empty:
        lines.append(f"   no class could be scored: {_why_not(totals['statuses'])}")
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


def _why_not(statuses: dict[str, int]) -> str:
    if statuses.get("ok"):
        return (
            "transplants need objects of at least two classes, and a head that reads\n"
            "   nothing but the features"
        )
    return "the columns status and problem of the samples say why"


def _masks(check: dict[str, Any] | None) -> list[str]:
    """A warning where the dataset's masks do not lie where the images' edges are."""
    if check is None or check["verdict"] not in MISFITS:
        return []
    if check["verdict"] == "no fit":
        found = "follow the edges of their images no better than other images' masks do"
    else:
        found = f"would fit their images better {check['placement']}"
    return [f"WARNING: the object masks {found} ({check['n']} looked at).",
            "Do not trust the numbers below before you have looked at the masks."]  # fmt: skip


def _bad(statuses: dict[str, int]) -> list[str]:
    other = {name: count for name, count in statuses.items() if name != "ok"}
    if not other:
        return []
    return ["without all scores: " + ", ".join(f"{n:,} {name}" for name, n in other.items())]
