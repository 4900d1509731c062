"""The tables of columns in ``reports/README.md``, made from the schemas themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from audit.report.editpictures import PICTURE_COLUMNS
from audit.report.thumbs import THUMB_COLUMNS
from audit.run.columns import Column
from audit.run.edit_rows import edit_columns
from audit.run.rows import FAITHFULNESS_COLUMNS, FAMILY_COLUMNS, SAMPLE_COLUMNS
from audit.tables.backgrounds import BACKGROUND_COLUMNS
from audit.tables.changes import CHANGE_COLUMNS
from audit.tables.channels import CHANNEL_COLUMNS
from audit.tables.classes import CLASS_COLUMNS, CONFUSION_COLUMNS
from audit.tables.comparison import COMPARE_COLUMNS
from audit.tables.edited import EDITED_COLUMNS
from audit.tables.evidence import EVIDENCE_COLUMNS
from audit.tables.labels import LABEL_COLUMNS
from audit.tables.masks import MASK_COLUMNS
from audit.tables.methods import METHOD_COLUMNS, SANITY_COLUMNS
from audit.tables.properties import PROPERTY_COLUMNS
from audit.tables.strata import STRATA_COLUMNS
from audit.tables.transplants import TRANSPLANT_COLUMNS
from audit.tables.trend import TREND_COLUMNS
from audit.tables.verdicts import VERDICT_COLUMNS

TABLES: dict[str, Sequence[Column]] = {
    "samples/part-*.parquet": SAMPLE_COLUMNS,
    "samples/part-*.parquet, with --faithfulness": FAITHFULNESS_COLUMNS,
    "samples/part-*.parquet, for each further family of masks, behind its name and _": (
        FAMILY_COLUMNS
    ),
    "edits/part-*.parquet": edit_columns(),
    "classes.parquet": (*CLASS_COLUMNS, *EDITED_COLUMNS, *VERDICT_COLUMNS),
    "evidence.parquet": EVIDENCE_COLUMNS,
    "confusion.parquet": CONFUSION_COLUMNS,
    "backgrounds.parquet": BACKGROUND_COLUMNS,
    "channels.parquet": CHANNEL_COLUMNS,
    "labels.parquet": LABEL_COLUMNS,
    "strata.parquet": STRATA_COLUMNS,
    "methods.parquet": METHOD_COLUMNS,
    "sanity.parquet": SANITY_COLUMNS,
    "masks.parquet": MASK_COLUMNS,
    "transplants.parquet": TRANSPLANT_COLUMNS,
    "properties.parquet": PROPERTY_COLUMNS,
    "thumbs.parquet": THUMB_COLUMNS,
    "edited.parquet": PICTURE_COLUMNS,
    "compare.parquet, of two runs": COMPARE_COLUMNS,
    "changes.parquet, of two runs": CHANGE_COLUMNS,
    "trend.parquet, of many runs": TREND_COLUMNS,
}
BEGIN, END = "<!-- columns: begin -->", "<!-- columns: end -->"


def as_markdown() -> str:
    """All tables' columns as Markdown.

    Example:
        >>> "| `kappa` |" in as_markdown()
        True
    """
    parts = []
    for name, columns in TABLES.items():
        rows = ["| " + " | ".join(_cells(column)) + " |" for column in columns]
        header = "| column | type | meaning | range | null when |\n| --- | --- | --- | --- | --- |"
        parts.append(f"### `{name}`\n\n{header}\n" + "\n".join(rows))
    return "\n\n".join(parts)


def refresh(text: str) -> str:
    """A document with the tables between its two markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{as_markdown()}\n{END}{after}"


def _cells(column: Column) -> list[str]:
    texts = (column.meaning, column.range, column.null_when or "never")
    return [f"`{column.name}`", _type(column.type), *(t.replace("|", "\\|") for t in texts)]


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return "string (dictionary)"
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return {"halffloat": "float16", "float": "float32", "double": "float64"}.get(
        str(kind), str(kind)
    )


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(refresh(path.read_text(encoding="utf-8")), encoding="utf-8")
