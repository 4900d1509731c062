"""``masks.parquet``: how far the numbers depend on where object masks come from."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from audit.run.columns import Column, table_of
from audit.run.rows import FAMILY_COLUMNS
from audit.tables.correlation import rank_correlation

_F64 = pa.float64()
_MEANS = tuple(column.name for column in FAMILY_COLUMNS if column.type == pa.float32())

MASK_COLUMNS: tuple[Column, ...] = (
    Column(name="family", type=pa.string(), range="as in mask_source",
           meaning="Where these masks come from; the first row's are the ones that all other "
           "tables rest on."),
    Column(name="n", type=pa.int64(), range="≥ 0",
           meaning="Samples whose background_share is defined under it."),
    *(
        Column(name=name, type=_F64, range="as in samples", meaning=f"Mean of {name}.",
               null_when="no sample has it, or it is the first row's overlap with itself")
        for name in _MEANS
    ),
    Column(name="bias", type=_F64, range="[−1, 1]",
           meaning="Mean over samples of its background_share minus the first row's.",
           null_when="no sample has both"),
    Column(name="rank_correlation", type=_F64, range="[−1, 1]",
           meaning="Rank correlation over samples of its background_share with the first row's.",
           null_when="fewer than three samples, or one is constant"),
)  # fmt: skip


def compare_masks(samples: pd.DataFrame, families: Sequence[str]) -> pa.Table:
    """One row a family of masks.

    Args:
        samples: All rows.
        families: Their names, the main one first.

    Returns:
        A table with :data:`MASK_COLUMNS`.
    """
    rows = [
        _row(samples, name, "" if place == 0 else f"{name}_") for place, name in enumerate(families)
    ]
    return table_of(rows, MASK_COLUMNS)


def _row(samples: pd.DataFrame, family: str, prefix: str) -> dict[str, object]:
    own, main = samples[f"{prefix}background_share"], samples["background_share"]
    row: dict[str, object] = {
        "family": family,
        "n": int(own.notna().sum()),
        "bias": _mean(own - main),
        "rank_correlation": _or_none(rank_correlation(own, main)),
    }
    for name in _MEANS:
        row[name] = _mean(samples[prefix + name]) if prefix + name in samples else None
    return row


def _mean(values: pd.Series) -> float | None:
    return _or_none(float(values.mean()))


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else value
