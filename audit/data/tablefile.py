"""Tables that a user wrote: CSV as text columns, Parquet as it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audit.data.places import read_bytes, reason
from audit.errors import DataError

_DELIMITERS = ",;\t"
# Outlines in a cell are long.
_LONGEST_CELL = 2**31 - 1


def read_table(place: str, what: str) -> pa.Table:
    """Read a table whole.

    Args:
        place: Path or URI of a CSV or Parquet file.
        what: What messages call it: ``manifest``.

    Returns:
        The table, its columns' names in small letters; every column of a CSV file is text.

    Raises:
        DataError: If it is absent or damaged.
    """
    try:
        data = read_bytes(place)
        parquet = data[:4] == b"PAR1"
        table = pq.read_table(pa.BufferReader(data)) if parquet else _read_csv(data)
    except FileNotFoundError as error:
        raise DataError(f"the {what} {place} does not exist") from error
    except OSError as error:
        raise DataError(f"the {what} {place} cannot be read", found=reason(error)) from error
    except (pa.ArrowInvalid, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"the {what} {place} cannot be read",
            expected="a CSV file with a line of column names, or a Parquet file",
            found=str(error).splitlines()[0],
        ) from error
    names = [name.strip().lower() for name in table.column_names]
    if len(set(names)) < len(names):
        raise DataError(
            f"the {what} {place} has two columns of one name", found=", ".join(table.column_names)
        )
    return table.rename_columns(names)


def text_column(table: pa.Table, name: str) -> list[str]:
    """A column as text without spaces around it; empty where it is null.

    Example:
        >>> text_column(pa.table({"image": [" a.png", None]}), "image")
        ['a.png', '']
    """
    return ["" if value is None else str(value).strip() for value in table[name].to_pylist()]


def columns_found(table: pa.Table) -> str:
    """The columns' names, for messages."""
    return ", ".join(table.column_names) or "none"


def _read_csv(data: bytes) -> pa.Table:
    """All columns as text, so that a class named 007 keeps its name."""
    # Not with pyarrow, whose threads for CSV abort the process where it ends soon after.
    head = data.split(b"\n", 1)[0].decode("utf-8-sig")
    delimiter = max(_DELIMITERS, key=head.count)
    lines = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = list(_rows(csv.reader(lines, delimiter=delimiter, strict=True)))
    finally:
        csv.field_size_limit(limit)
    columns = zip(*rows[1:], strict=True) if len(rows) > 1 else ((),) * len(rows[0])
    return pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], rows[0])


def _rows(reader: Any) -> Iterator[list[str]]:
    """The lines that hold something, as many cells in each as in the first."""
    first: list[str] = []
    for row in filter(None, reader):
        first = first or row
        if len(row) != len(first):
            raise csv.Error(f"line {reader.line_num} has {len(row)} cells, the first {len(first)}")
        yield row
    if not first:
        raise csv.Error("an empty file")
