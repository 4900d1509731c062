"""Tables that a user wrote: CSV as text columns, Parquet as it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audit.data.places import reason
from audit.data.reading import Reader, read_bytes
from audit.errors import DataError

_DELIMITERS = ",;\t"
# Outlines in a cell are long.
_LONGEST_CELL = 2**31 - 1


def read_table(place: str, what: str, reader: Reader | None = None) -> pa.Table:
    """Read a table whole.

    Args:
        place: Path or URI of a CSV or Parquet file.
        what: What messages call it: ``manifest``.
        reader: What reads it; ``None`` for the usual limits.

    Returns:
        The table, its columns' names in small letters; every column of a CSV file is text.

    Raises:
        DataError: If it is absent or damaged.
    """
    try:
        data = read_bytes(place, reader)
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
    return table.rename_columns(refuse_repeated(table.column_names, place, what))


def refuse_repeated(columns: Sequence[str], place: str, what: str) -> list[str]:
    """The names of columns in small letters, without spaces around them.

    Raises:
        DataError: If two are the same.
    """
    names = [name.strip().lower() for name in columns]
    if len(set(names)) < len(names):
        raise DataError(f"the {what} {place} has two columns of one name", found=", ".join(columns))
    return names


def text_column(table: pa.Table, name: str) -> list[str]:
    """A column as text without spaces around it; empty where it is null.

    Example:
        >>> text_column(pa.table({"image": [" a.png", None]}), "image")
        ['a.png', '']
    """
    return ["" if value is None else str(value).strip() for value in table[name].to_pylist()]


def columns_found(table: pa.Table | pa.Schema) -> str:
    """The columns' names, for messages."""
    names = table.names if isinstance(table, pa.Schema) else table.column_names
    return ", ".join(names) or "none"


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
