"""The outcome as files, beside the run or elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from audit.files import make_folder, write_atomically
from audit.gate.evaluation import Evaluation, as_json
from audit.gate.junit import as_junit
from audit.gate.markdown import as_markdown
from audit.tables.reading import AuditRun

JSON, MARKDOWN, JUNIT = "gate.json", "gate.md", "gate.xml"
FILES = (JSON, MARKDOWN, JUNIT)


def write_results(evaluation: Evaluation, folder: Path | None = None) -> tuple[Path, ...]:
    """Write ``gate.json``, ``gate.md`` and ``gate.xml``.

    They are no part of the run: its manifest does not list them.

    Args:
        evaluation: The outcome.
        folder: Where to; without it the run's own folder.

    Returns:
        The three files.

    Raises:
        OutputError: If they cannot be written.
    """
    where = make_folder(evaluation.run.path if folder is None else folder)
    text = json.dumps(as_json(evaluation), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    contents = {
        JSON: text.encode("utf-8", "backslashreplace"),
        MARKDOWN: as_markdown(evaluation).encode(),
        JUNIT: as_junit(evaluation),
    }
    for name, content in contents.items():
        write_atomically(where / name, content)
    return tuple(where / name for name in contents)


def read_outcome(run: AuditRun) -> dict[str, Any] | None:
    """What a gate last said of this run, from ``gate.json`` in its folder.

    Returns:
        Its content; ``None`` if there is none, or it was written of an earlier state of the run.
    """
    try:
        content = json.loads((run.path / JSON).read_text(encoding="utf-8"))
        current = content["run"]["finished"] == run.manifest["finished"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(content) if current else None
