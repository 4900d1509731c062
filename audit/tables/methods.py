"""``methods.parquet`` and ``sanity.parquet``: which way of making maps to trust here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, table_of
from audit.run.rows import FAITHFULNESS_COLUMNS
from audit.tables.correlation import rank_correlation

_F64 = pa.float64()
_SCORES = (
    "background_share", "kappa", "pointing_hit", "rank_accuracy", "iou_50", "focus_entropy",
    "effective_cells",
)  # fmt: skip
_FAITHFUL = tuple(column.name for column in FAITHFULNESS_COLUMNS)

METHOD_COLUMNS: tuple[Column, ...] = (
    Column(name="method", type=pa.string(), range="as in --method", meaning="The method."),
    Column(name="n", type=pa.int64(), range="≥ 0",
           meaning="Samples whose map has a background share."),
    *(
        Column(name=name, type=_F64, range="as in samples", meaning=f"Mean of {name}.",
               null_when="no sample has it")
        for name in _SCORES
    ),
    *(
        Column(name=name, type=_F64, range="as in samples", meaning=f"Mean of {name}.",
               null_when="the run has no --faithfulness, or no sample has it")
        for name in _FAITHFUL
    ),
    Column(name="share_correlation", type=_F64, range="[−1, 1]",
           meaning="Rank correlation over samples of its background share with the first "
           "method's.", null_when="fewer than three samples, or one is constant"),
    Column(name="map_correlation", type=_F64, range="[−1, 1]",
           meaning="Mean over samples of the correlation of its map with the first method's.",
           null_when="no sample has both maps"),
)  # fmt: skip

SANITY_COLUMNS: tuple[Column, ...] = (
    Column(name="method", type=pa.string(), range="as in --method", meaning="The method."),
    Column(name="stage", type=pa.int32(), range="≥ 1",
           meaning="Step of the cascade; at the last one all layers are drawn anew."),
    Column(name="layer", type=pa.string(), range="names",
           meaning="The earliest layer drawn anew."),
    Column(name="share", type=_F64, range="[0, 1]",
           meaning="Share of the network's parameters drawn anew."),
    Column(name="n", type=pa.int64(), range="≥ 0", meaning="Images compared."),
    Column(name="rank_correlation", type=_F64, range="[−1, 1]",
           meaning="Mean rank correlation of the maps with those of the trained network.",
           null_when="no map could be compared"),
    Column(name="low", type=_F64, range="[−1, 1]", meaning="10th percentile over images.",
           null_when="no map could be compared"),
    Column(name="high", type=_F64, range="[−1, 1]", meaning="90th percentile over images.",
           null_when="no map could be compared"),
)  # fmt: skip


def compare_methods(samples: pd.DataFrame, methods: Mapping[str, str]) -> pa.Table:
    """One row a method.

    Args:
        samples: All rows.
        methods: The prefix of its columns by method, the first method first.

    Returns:
        A table with :data:`METHOD_COLUMNS`.
    """
    first = next(iter(methods.values()))
    rows = [_method_row(samples, name, prefix, first) for name, prefix in methods.items()]
    return table_of(rows, METHOD_COLUMNS)


def _method_row(
    samples: pd.DataFrame, name: str, prefix: str, first: str
) -> dict[str, str | int | float]:
    row: dict[str, str | int | float] = {
        "method": name,
        "n": int(samples[f"{prefix}background_share"].notna().sum()),
        "share_correlation": rank_correlation(
            samples[f"{prefix}background_share"], samples[f"{first}background_share"]
        ),
        "map_correlation": _map_correlation(samples[f"{prefix}map"], samples[f"{first}map"]),
    }
    for score in (*_SCORES, *_FAITHFUL):
        column = prefix + score
        row[score] = float(samples[column].mean()) if column in samples else np.nan
    return row


def tabulate_sanity(
    stages: Sequence[tuple[str, float, Mapping[str, NDArray[np.float64]]]],
) -> pa.Table:
    """One row a method and stage.

    Args:
        stages: For each its earliest layer drawn anew, the share of parameters drawn, and the
            correlations of each method's maps.

    Returns:
        A table with :data:`SANITY_COLUMNS`.
    """
    rows = []
    for number, (layer, share, correlations) in enumerate(stages, start=1):
        for method, values in correlations.items():
            known = values[np.isfinite(values)]
            low, high = np.percentile(known, [10, 90]) if len(known) else (np.nan, np.nan)
            rows.append(
                {
                    "method": method,
                    "stage": number,
                    "layer": layer,
                    "share": share,
                    "n": len(known),
                    "rank_correlation": float(known.mean()) if len(known) else np.nan,
                    "low": float(low),
                    "high": float(high),
                }
            )
    return table_of(rows, SANITY_COLUMNS)


def _map_correlation(first: pd.Series, second: pd.Series) -> float:
    both = first.notna() & second.notna()
    if not both.any():
        return np.nan
    maps = [np.stack(list(values[both])).astype(np.float64) for values in (first, second)]
    return _correlation(*maps)


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The mean over rows of Pearson's correlation; rows that are constant are left out."""
    centred = [values - values.mean(axis=1, keepdims=True) for values in (first, second)]
    spread = np.sqrt((centred[0] ** 2).sum(axis=1) * (centred[1] ** 2).sum(axis=1))
    known = spread > 0
    if not known.any():
        return np.nan
    return float(((centred[0] * centred[1]).sum(axis=1)[known] / spread[known]).mean())
