"""docs/speed.md and its plot, written anew from what was measured.

python -m benchmarks.speed [--from benchmarks/results.parquet]

Text between two markers of a section is replaced; everything else on the page stays.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.bare import PACKED
from benchmarks.plotting import draw_ratios
from benchmarks.results import FILE, Row, load

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
PLOT = PAGE.with_name("speed.svg")


def table(head: Sequence[str], lines: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table in Markdown.

    Args:
        head: Of the columns.
        lines: Cells.
        words: How many columns, the first ones, are of words; the others are of numbers.
    """
    rule = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def replaced(page: str, section: str, text: str) -> str:
    """A page with another text between the markers of a section.

    Args:
        page: Markdown.
        section: Its name.
        text: What is to stand there.

    Raises:
        ValueError: If the page has no such markers.

    Example:
        >>> replaced("a <!-- speed:x -->old<!-- /speed:x --> b", "x", "new").split()
        ['a', '<!--', 'speed:x', '-->', 'new', '<!--', '/speed:x', '-->', 'b']
    """
    begin, end = f"<!-- speed:{section} -->", f"<!-- /speed:{section} -->"
    if begin not in page or end not in page:
        raise ValueError(f"the page has no place for {section}")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def by_machine(rows: Sequence[Row], tell: Callable[[list[Row]], str]) -> str:
    """What is told of the rows of each machine, under its name."""
    parts = []
    for machine, own in groupby(sorted(rows, key=lambda r: r.machine), key=lambda r: r.machine):
        parts.append(f"**{machine}**\n\n{tell(list(own))}")
    return "\n\n".join(parts) if parts else "Not measured yet."


def groups(rows: Sequence[Row]) -> list[tuple[str, str, list[Row]]]:
    """Rows that were measured together, with their subject and setting."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.subject, row.setting), []).append(row)
    return [(subject, setting, own) for (subject, setting), own in found.items()]


def tell_step(rows: list[Row]) -> str:
    """A line a network, then all ways of each."""
    head = ("network", "setting", "best bare pass, images/s", "as loaded", "best usual way",
            "audit", "audit over the best usual way", "audit, compiled",
            "counted floor")  # fmt: skip
    lines = []
    for subject, setting, own in groups(rows):
        by_name = {row.variant: row for row in own}
        timed = [r for r in own if r.ratio is not None and not r.variant.startswith("audit")]
        best = min(timed, key=lambda row: row.seconds or 0)
        floor = max(r.seconds or 0 for r in own if r.variant.startswith("floor,"))
        usual = min((row for row in timed if row.variant != PACKED), key=lambda r: r.seconds or 0)
        audit = by_name.get("audit")
        over = "" if audit is None else f"{(audit.seconds or 0) / (usual.seconds or 1):.2f}"
        named = {
            name: ratio(by_name.get(name)) for name in ("as loaded", "audit", "audit, compiled")
        }
        cells = [named["as loaded"], ratio(usual), named["audit"], over, named["audit, compiled"]]
        lines.append(
            (subject, setting, f"{best.variant}: {best.images_per_second:,.0f}", *cells,
             f"{floor / (best.seconds or 1):.2f}")
        )  # fmt: skip
    return table(head, lines, words=3) + "\n\n" + folded_away("All ways", details(rows))


def tell_peers(rows: list[Row]) -> str:
    """How many times as long as the audit each library takes."""
    told = []
    for subject, setting, own in groups(rows):
        lines = [
            (row.variant, ratio(row), spread(row), f"{row.images_per_second:,.0f}") for row in own
        ]
        head = (f"{subject}; {setting}", "over the audit", "quartiles", "images/s")
        told.append(table(head, lines))
    return "\n\n".join(told)


def tell_job(rows: list[Row]) -> str:
    """The stages of the whole job."""
    told = []
    for subject, setting, own in groups(rows):
        lines = [(r.variant, seconds(r), ratio(r)) for r in own]
        told.append(table((f"{subject}; {setting}", "seconds", "over the bare pass"), lines))
    return "\n\n".join(told)


def details(rows: list[Row]) -> str:
    """Everything that is known of each group."""
    told = []
    for subject, setting, own in groups(rows):
        lines = [(r.variant, ratio(r), spread(r), milliseconds(r), rate(r), value(r)) for r in own]
        head = (f"{subject}; {setting}", "ratio", "quartiles", "ms", "a second", "")
        told.append(table(head, lines))
    return "\n\n".join(told)


def folded_away(title: str, text: str) -> str:
    """Text that opens with a click."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def ratio(row: Row | None) -> str:
    """As text; empty where there is none."""
    return "" if row is None or row.ratio is None else f"{row.ratio:.2f}"


def spread(row: Row) -> str:
    """Quartiles of the ratio."""
    return "" if row.ratio is None else f"{row.ratio_low:.2f} to {row.ratio_high:.2f}"


def seconds(row: Row) -> str:
    """Median, and quartiles where it was timed several times."""
    if row.seconds is None:
        return ""
    ends = f" ({row.low:.2f} to {row.high:.2f})" if row.rounds > 1 else ""
    return f"{row.seconds:.2f}{ends}"


def milliseconds(row: Row) -> str:
    """Median."""
    return "" if row.seconds is None else f"{1000 * row.seconds:,.1f}"


def rate(row: Row) -> str:
    """Images, or rows, a second."""
    return "" if row.images_per_second is None else f"{row.images_per_second:,.0f}"


def value(row: Row) -> str:
    """What is no time."""
    return "" if row.value is None else f"{row.value:,.2f} {row.unit}"


SECTIONS: dict[str, Callable[[list[Row]], str]] = {
    "step": tell_step, "peers": tell_peers, "job": tell_job, "parts": details, "growth": details,
    "engines": tell_job,
}  # fmt: skip


def write_page(rows: Sequence[Row], page: Path = PAGE, plot: Path = PLOT) -> None:
    """Bring the page and its plot up to date.

    Args:
        rows: All that was measured.
        page: Is changed in place.
        plot: Is written.
    """
    text = page.read_text(encoding="utf-8")
    for section, tell in SECTIONS.items():
        own = [row for row in rows if row.section == section]
        text = replaced(text, section, by_machine(own, tell))
    page.write_text(text, encoding="utf-8")
    draw_ratios(rows, plot)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--from", dest="file", type=Path, default=FILE)
    write_page(load(made.parse_args(arguments).file))


if __name__ == "__main__":
    main()
