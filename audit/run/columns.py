"""Columns of stored tables: what each holds, and tables made of rows or arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column of a table holds.

    Attributes:
        name: As in the file.
        type: As in the file; ``list`` types show their element.
        range: Allowed values, with the unit where there is one.
        meaning: In one sentence.
        null_when: When the value is null; empty for never.
    """

    name: str
    type: pa.DataType
    range: str
    meaning: str
    null_when: str = ""


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The schema of a table with these columns."""
    return pa.schema([(column.name, column.type) for column in columns])


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pa.Table:
    """Rows as a table with exactly these columns.

    Args:
        rows: Values by column; NaN, ``None`` and what is missing become null.
        columns: Of the table.

    Example:
        >>> share = Column(name="share", type=pa.float32(), range="[0, 1]", meaning="A share.")
        >>> table_of([{"share": 0.5}, {"share": float("nan")}], [share])["share"].to_pylist()
        [0.5, None]
    """
    arrays = [
        pa.array([row.get(column.name) for row in rows], column.type, from_pandas=True)
        for column in columns
    ]
    return pa.Table.from_arrays(arrays, schema=schema_of(columns))


def array_of(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Numbers as a column; NaN and negative integers become null."""
    if pa.types.is_list(kind):
        return lists_of(values, kind)
    null = np.isnan(values) if values.dtype.kind == "f" else values < 0
    if pa.types.is_boolean(kind):
        return pa.array(values > 0, kind, mask=null)
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=null)


def lists_of(
    values: NDArray[Any], kind: pa.DataType, kept: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Rows of equal length as lists; an undefined row becomes null.

    Args:
        values: One row a list. Undefined are integers that are all negative, and numbers of
            which the first is NaN.
        kind: Of the lists.
        kept: Which rows ``values`` holds, where it lacks some; those are null.
    """
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    undefined = np.isnan(flat[:, 0]) if flat.dtype.kind == "f" else (flat < 0).all(axis=1)
    null = undefined
    if kept is not None:
        null = np.ones(len(kept), bool)
        null[kept] = undefined
    lengths = np.where(null, 0, flat.shape[1])
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    content = pa.array(flat[~undefined].ravel().astype(kind.value_type.to_pandas_dtype()))
    return pa.ListArray.from_arrays(
        pa.array(offsets), content.cast(kind.value_type), type=kind, mask=pa.array(null)
    )
