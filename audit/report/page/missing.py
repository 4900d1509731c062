"""What a page says of parts that were never audited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.report.language import Language
from audit.run.gaps import gaps_of, numbers_of, pieces_of

# Rows of the list; the manifest has all.
_ROWS = 50
# What the merge says where nobody knows more.
_NEVER = "never computed"


def missing_view(manifest: Mapping[str, Any], language: Language) -> dict[str, Any] | None:
    """The banner and the list of what is missing.

    Args:
        manifest: Of the run.
        language: Of the page.

    Returns:
        ``samples`` that are missing of ``all``, how many ``parts`` and ``which`` in words, ``rows``
        of the list and how many ``more`` there are; ``None`` where nothing is missing.
    """
    gaps = gaps_of(manifest)
    if not gaps:
        return None
    numbers = numbers_of(gaps)
    absent = sum(gap.samples for gap in gaps)
    said, more = pieces_of(numbers)
    which = language.things(said)
    if more:
        which = language.text("{which} and others").format(which=which)
    return {
        "samples": absent,
        "all": int(manifest["totals"]["samples"]) + absent,
        "parts": len(numbers),
        "which": which,
        "rows": [
            {
                "parts": str(gap.first) if gap.first == gap.last else f"{gap.first}–{gap.last}",
                "images": f"{gap.start:,}–{gap.stop - 1:,}",
                "samples": gap.samples,
                "reason": language.text("never computed") if gap.reason == _NEVER else gap.reason,
            }
            for gap in gaps[:_ROWS]
        ],
        "more": max(0, len(gaps) - _ROWS),
    }
