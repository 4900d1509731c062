"""Samples as plain records, for tools that show images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.pictures.show import Seen
from audit.tables.reading import enlarge_map

# Values of a mask.
OBJECT, UNKNOWN = 1, 2
_FLAGS = ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")
_FIELDS = (
    "status", "reason", "background_share", "transplant_rate", "object_logit", "near_logit",
    "far_logit", "margin", "object_area", "mask_confidence", "suspect_kind", "suspect_score",
    "suggested_name", "p_object_only", "p_background_only", "p_mixed_same", "p_mixed_rand",
    "edit_effect", "background_decides",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample.

    Attributes:
        sample_id: The sample.
        label: Name and probability of the labelled class.
        prediction: Likewise of the predicted one.
        heatmap: float32 in [0, 1], H×W.
        mask: uint8, H×W: 1 object, 2 unknown, 0 background.
        tags: The flags that are true.
        fields: Scores by name, those that are defined: str, float, int or bool.
    """

    sample_id: str
    label: tuple[str, float | None] | None
    prediction: tuple[str, float | None] | None
    heatmap: NDArray[np.float32] | None
    mask: NDArray[np.uint8] | None
    tags: tuple[str, ...]
    fields: Mapping[str, Any]


def record_of(row: pd.Series, seen: Seen, grid: tuple[int, int]) -> Record:
    """Make a record.

    Args:
        row: From :meth:`audit.tables.AuditRun.sample`.
        seen: The sample's picture and mask.
        grid: h and w of the map.
    """
    size = seen.image.shape[:2]
    mask = None
    if seen.mask is not None:
        mask = np.zeros(seen.mask.shape, np.uint8)
        mask[seen.mask == 255], mask[seen.mask == 128] = OBJECT, UNKNOWN
    return Record(
        sample_id=str(row.name),
        label=_named(row["label_name"], row["label_probability"]),
        prediction=_named(row["predicted_name"], row["confidence"]),
        heatmap=None if row["map"] is None else enlarge_map(row["map"], grid, size),
        mask=mask,
        tags=tuple(name for name in _FLAGS if pd.notna(row[name]) and row[name]),
        fields={name: _plain(row[name]) for name in _FIELDS if pd.notna(row[name])}
        | {"index": int(row["index"])},
    )


def _named(name: Any, share: Any) -> tuple[str, float | None] | None:
    return None if pd.isna(name) else (str(name), None if pd.isna(share) else float(share))


def _plain(value: Any) -> Any:
    """A value of Python's own types."""
    return value.item() if isinstance(value, np.generic) else value
