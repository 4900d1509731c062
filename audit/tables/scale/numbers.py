"""What is summed of a part's rows: numbers with NaN for null, one column each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audit.tables.classes import (
    ANSWER_SCORES,
    CONFIDENT_MASK,
    CONFIDENT_SCORES,
    MOVED_SCORES,
    SCORES,
)
from audit.tables.totals import MUCH_OF_BORDER

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

# Summed by group too, as intervals rest on them.
GROUPED = (*SCORES, "correct")
_RATE = "_transplant_rate"


def summed_names(columns: Sequence[str]) -> list[str]:
    """What is summed of rows with these columns, :data:`GROUPED` first.

    Args:
        columns: Names of the columns of samples.
    """
    return [
        *GROUPED,
        "one", "label_probability", "background_agrees", "object_agrees", "trusted",
        "object_area", "unknown_area", "much_of_border",
        "transplant_far_rate", "transplant_additive_rate",
        *(name for name in columns if name.endswith(_RATE)),
        *(f"{score}_{answer}" for score in ANSWER_SCORES for answer in ("correct", "incorrect")),
        *(f"{score}_{end}" for score in MOVED_SCORES for end in ("low", "high")),
        *(f"{score}_confident" for score in CONFIDENT_SCORES),
    ]  # fmt: skip


def read_numbers(rows: pa.Table) -> dict[str, Floats]:
    """Everything in :func:`summed_names`, n each.

    Args:
        rows: Of a part; what it has no column for is NaN.
    """
    found = {name: column(rows, name) for name in (*GROUPED, *_PLAIN)}
    count = rows.num_rows
    label = column(rows, "label")
    source = of_names(rows, "mask_source")
    trusted = (source == "dataset") | (found["mask_confidence"] >= CONFIDENT_MASK)
    trusted &= np.isfinite(found["background_share"])
    found |= {
        "one": np.ones(count),
        "trusted": trusted.astype(np.float64),
        "much_of_border": (column(rows, "border_touch") > MUCH_OF_BORDER).astype(np.float64),
    }
    for region in ("background", "object"):
        pointed = column(rows, f"{region}_pred")
        found[f"{region}_agrees"] = np.where(np.isfinite(pointed), pointed == label, np.nan)
    for name in rows.column_names:
        if name.endswith(_RATE):
            found[name] = column(rows, name)
    for score in ANSWER_SCORES:
        for answer, truth in (("correct", 1), ("incorrect", 0)):
            found[f"{score}_{answer}"] = np.where(found["correct"] == truth, found[score], np.nan)
    for score in CONFIDENT_SCORES:
        found[f"{score}_confident"] = np.where(trusted, found[score], np.nan)
    return found


_PLAIN = (
    "label_probability", "object_area", "unknown_area", "transplant_far_rate",
    "transplant_additive_rate",
    *(f"{score}_{end}" for score in MOVED_SCORES for end in ("low", "high")),
)  # fmt: skip


def column(rows: pa.Table, name: str) -> Floats:
    """Numbers or flags as float64, NaN for null; all NaN without the column."""
    if name not in rows.column_names:
        return np.full(rows.num_rows, np.nan)
    values = rows[name]
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    return np.asarray(values.cast(pa.float64()).to_numpy(), np.float64)


def whole(rows: pa.Table, name: str) -> Ids:
    """Whole numbers, −1 for null; all −1 without the column."""
    if name not in rows.column_names:
        return np.full(rows.num_rows, -1)
    return np.asarray(pc.fill_null(rows[name].cast(pa.int64()), -1).to_numpy(), np.int64)


def of_names(rows: pa.Table, name: str) -> NDArray[np.object_]:
    """Names, ``None`` for null or without the column."""
    if name not in rows.column_names:
        return np.full(rows.num_rows, None, object)
    return np.asarray(rows[name].cast(pa.string()).to_numpy(zero_copy_only=False), object)
