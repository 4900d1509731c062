"""The outcome as Markdown, for a pull request or a step summary, and text made safe for it."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence

from audit.errors import visible
from audit.gate.checks import Check, digits_apart, figures
from audit.gate.evaluation import Evaluation
from audit.gate.settings import GateSettings

# A step summary of GitHub holds 1 MiB; rows beyond these are in gate.json.
_MOST_ROWS = 50
_LONGEST = 120
_STATUSES = ("failed", "passed", "not evaluated")
_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in string.punctuation}


def literal(text: str, longest: int = _LONGEST) -> str:
    r"""A text of someone else's, as code that Markdown and HTML leave as it is.

    Every sign of punctuation becomes a character reference, which no syntax of Markdown sees (not
    even a table's bars); inside ``<code>`` GitHub makes no links of names with @ or of numbers
    with #. Characters that control a display are escaped; a long text is cut.

    Args:
        text: Anything.
        longest: Characters to keep.

    Example:
        >>> print(literal("a|b\n<script>"))
        <code>a&#124;b&#92;n&#60;script&#62;</code>
    """
    seen = visible(text)
    cut = seen if len(seen) <= longest else seen[: longest - 1] + "…"
    return f"<code>{cut.translate(_SIGNS)}</code>"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table.

    Args:
        titles: Of the columns.
        rows: Cells, made safe by :func:`literal` where they hold someone else's text.

    Example:
        >>> table(["a", "b"], [["1", "2"]])
        ['| a | b |', '| --- | --- |', '| 1 | 2 |']
    """
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def as_markdown(evaluation: Evaluation) -> str:
    """The outcome: what failed first, then what was not judged, then what passed.

    Args:
        evaluation: The outcome.

    Returns:
        GitHub-flavoured Markdown of bounded length, with a line end.
    """
    facts = evaluation.run.manifest
    head = f"Gate {evaluation.headline.lower()}"
    name = f"{literal(facts['model'])} on {literal(facts['dataset'])} ({literal(facts['split'])})"
    lines = [f"## {head}", "", f"{name}, run {literal(facts['run_id'])}", ""]
    if evaluation.failed:
        lines += ["### Failed", "", *_rows(evaluation.failed, evaluation.settings)]
    if evaluation.not_evaluated:
        lines += ["### Not judged", "", *_rows(evaluation.not_evaluated, evaluation.settings)]
    lines += [
        "### Rules",
        "",
        *_by_rule(evaluation.checks, evaluation.settings),
        *_provenance(evaluation),
    ]
    return "\n".join(lines) + "\n"


def _rows(checks: Sequence[Check], settings: GateSettings) -> list[str]:
    cells = [
        [
            f"`{check.rule}`",
            literal(check.name) if check.scope == "class" else "the split",
            _value(check),
            _limit(check, settings),
        ]
        for check in checks[:_MOST_ROWS]
    ]
    lines = table(["rule", "class", "found (95% interval)", "limit"], cells)
    more = len(checks) - _MOST_ROWS
    return [*lines, "", *([f"… and {more:,} more in gate.json", ""] if more > 0 else [])]


def _value(check: Check) -> str:
    words = [check.verdict] if check.verdict is not None else []
    if check.value is not None:
        digits, interval = _digits(check), ""
        if check.low is not None and check.high is not None:
            interval = f" ({figures(check.low, digits)} to {figures(check.high, digits)})"
        words.append(figures(check.value, digits) + interval)
    return ", ".join(words) or "undefined"


def _limit(check: Check, settings: GateSettings) -> str:
    if check.limit is not None:
        return figures(check.limit, _digits(check))
    return f"not {' or '.join(settings.forbid)}" if check.rule == "forbid" else "–"


def _digits(check: Check) -> int:
    return digits_apart(check.value, check.low, check.high, check.limit)


def _by_rule(checks: Sequence[Check], settings: GateSettings) -> list[str]:
    """How many classes each rule holds for, and its limit."""
    counts = Counter((check.rule, str(check.status)) for check in checks)
    # The last check of a rule may be the one that nothing could be judged, without a limit.
    limits = {check.rule: _limit(check, settings) for check in reversed(checks)}
    cells = [
        [f"`{rule}`", limits[rule], *(str(counts[rule, status]) for status in _STATUSES)]
        for rule in dict.fromkeys(check.rule for check in checks)
    ]
    return [*table(["rule", "limit", *_STATUSES], cells), ""]


def _provenance(evaluation: Evaluation) -> list[str]:
    lines = []
    if evaluation.baseline is not None:
        lines += [f"Compared with run {literal(evaluation.baseline.manifest['run_id'])}.", ""]
    page = evaluation.run.path / "index.html"
    return [*lines, f"The page shows the images behind this: open {literal(str(page), 1000)}."]
