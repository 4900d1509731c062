"""Labels of any kind as positions in a list of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audit.data.pictures import BadLabel
from audit.errors import DataError

# More classes than this are row numbers or identifiers.
_MOST_CLASSES = 100_000
_NONE = -1
# Text of more digits than this is a name: not every such number fits 64 bits.
_MOST_DIGITS = 18


@dataclass(frozen=True)
class Labels:
    """A label for each sample.

    Attributes:
        values: int64, N: as they are said, -1 where there is none.
        classes: The classes' names, in the order of the labels.
        remarks: Why a sample has no label, where more is known.

    Example:
        >>> labels = Labels(np.array([1, 7]), ("cat", "dog"))
        >>> labels.at(0)
        1
        >>> labels.at(1)
        Traceback (most recent call last):
        ...
        audit.data.pictures.BadLabel: its label 7 is none of the 2 classes
    """

    values: NDArray[np.int64]
    classes: tuple[str, ...]
    remarks: Mapping[int, str] = field(default_factory=dict)

    def at(self, i: int) -> int:
        """The label of a sample.

        Raises:
            BadLabel: If it has none, or one that is no class.
        """
        label = int(self.values[i])
        if 0 <= label < len(self.classes):
            return label
        if label == _NONE:
            raise BadLabel(self.remarks.get(i, "it has no label"))
        raise BadLabel(f"its label {label} is none of the {len(self.classes)} classes")


def labels_of(column: pa.ChunkedArray, names: Sequence[str], source: str) -> Labels:
    """Read a column of labels.

    Args:
        column: Integers or text. Text that is integers throughout is read as such.
        names: The classes' names; where there are none, text gives its sorted values, and
            integers as many classes as their largest asks for, named by number.
        source: What messages call the table.

    Returns:
        The labels.

    Raises:
        DataError: If the column holds something else, or numbers that cannot be positions.

    Example:
        >>> labels_of(pa.chunked_array([["dog", "cat", None, "dog"]]), (), "x").values.tolist()
        [1, 0, -1, 1]
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        codes, said = _coded(column)
        if names or not _are_numbers(said):
            return _from_texts(codes, said, names)
        numbers = pa.array([int(text) if text else None for text in said], pa.int64())
        column = pa.chunked_array([numbers.take(pa.array(codes))])
    elif pa.types.is_dictionary(column.type):
        column = column.cast(kind)
    if pa.types.is_boolean(column.type):
        return _from_numbers(column.cast(pa.int8()), names or ("false", "true"), source)
    whole = pa.types.is_floating(column.type) and _are_whole(column)
    if whole or pa.types.is_integer(column.type):
        return _from_numbers(column, names, source)
    raise DataError(
        f"the labels in {source} are of a kind that names no class",
        expected="integers or text",
        found=str(column.type),
    )


def _are_numbers(texts: Sequence[str]) -> bool:
    said = [text for text in texts if text]
    return bool(said) and all(
        text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS for text in said
    )


def _are_whole(column: pa.ChunkedArray) -> bool:
    """Whether floating-point numbers are integers, as pandas stores those with gaps."""
    return bool(pc.all(pc.equal(pc.round(column), column)).as_py() in (True, None))


def _coded(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str]]:
    """Text as positions in a list of the different texts, without spaces round them."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if not column.num_chunks:
        return np.array([], np.int64), []
    said = ["" if text is None else text.strip() for text in column.chunk(0).dictionary.to_pylist()]
    # One more for rows that hold nothing.
    codes = [
        chunk.indices.fill_null(len(said)).cast(pa.int64()).to_numpy() for chunk in column.chunks
    ]
    every = np.concatenate(codes)
    # A dictionary may hold what no row says.
    used = np.bincount(every, minlength=len(said) + 1) > 0
    kept = [text for text, occurs in zip([*said, ""], used, strict=True) if occurs]
    return (np.cumsum(used) - 1)[every], kept


def _from_texts(codes: NDArray[np.int64], said: Sequence[str], names: Sequence[str]) -> Labels:
    classes = tuple(names) or tuple(sorted({text for text in said if text}))
    position = {name: k for k, name in enumerate(classes)}
    values = np.array([position.get(text, _NONE) for text in said], np.int64)[codes]
    strange = [k for k, text in enumerate(said) if text and text not in position]
    remarks = {
        int(i): f"its label '{said[codes[i]]}' is none of the {len(classes)} classes"
        for i in np.flatnonzero(np.isin(codes, strange))
    }
    return Labels(values, classes, remarks)


def _from_numbers(column: pa.ChunkedArray, names: Sequence[str], source: str) -> Labels:
    try:
        values: NDArray[Any] = column.cast(pa.int64()).fill_null(_NONE).to_numpy()
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the labels in {source} are no positions in a list of classes",
            expected=f"numbers from 0 to {_MOST_CLASSES - 1:,}, or names",
            found=str(error).splitlines()[0],
        ) from error
    if not names:
        count = int(values.max(initial=_NONE)) + 1
        if count > _MOST_CLASSES:
            raise DataError(
                f"the labels in {source} are no positions in a list of classes",
                expected=f"numbers from 0 to {_MOST_CLASSES - 1:,}, or names",
                found=f"{count - 1}",
            )
        names = [str(k) for k in range(count)]
    return Labels(values, tuple(names))
