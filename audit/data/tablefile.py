"""Tables that a user wrote: CSV as text columns, Parquet as it is."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from audit.data.places import read_bytes, reason
from audit.errors import DataError

_DELIMITERS = ",;\t"


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
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
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
    head = data.split(b"\n", 1)[0].decode("utf-8-sig")
    delimiter = max(_DELIMITERS, key=head.count)
    return csv.read_csv(
        pa.BufferReader(data),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=_all_text(data, delimiter)),
    )


def _all_text(data: bytes, delimiter: str) -> dict[str, pa.DataType]:
    """Text for every column, so that a class named 007 keeps its name."""
    head = csv.open_csv(
        pa.BufferReader(data),
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
    )
    return dict.fromkeys(head.schema.names, pa.string())
