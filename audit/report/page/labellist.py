"""Why the list of suspect labels is shorter or longer than their number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.report.language import Language
from audit.tables.labels import MOST_ROWS, SUSPECT_SCORE


def list_in_words(totals: Mapping[str, Any], listed: int, language: Language) -> str | None:
    """What to say where others are listed than those labels that may be wrong.

    Args:
        totals: The manifest's totals.
        listed: Rows of ``labels.parquet``.
        language: Of the page.

    Returns:
        A sentence; ``None`` where the two numbers are the same.

    Example:
        >>> from audit.report.language import load_language
        >>> list_in_words({"label_issues": 85}, 24, load_language("en"))[:43]
        'The list has 24 of them, the most doubtful:'
    """
    issues = totals.get("label_issues", listed)
    if listed == issues:
        return None
    if (totals.get("basis") or {}).get("how") == "summed":
        text = language.text(
            "The list has {n}, of each class the most doubtful; how many may be wrong is estimated "
            "from the rows that were kept."
        )
    elif listed < issues:
        text = language.text(
            "The list has {n} of them, the most doubtful: a fifth of the labelled images (or "
            "{most}) at most."
        )
    else:
        text = language.text(
            "The list has {n}: where the model is sure of another class, a label of a probability "
            "below {share} is doubtful, too."
        )
    return text.format(n=f"{listed:,}", most=f"{MOST_ROWS:,}", share=f"{SUSPECT_SCORE:.0%}")
