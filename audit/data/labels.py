"""Labels of any kind as positions in a list of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audit.data.pictures import BadLabel
from audit.errors import DataError, visible

# More classes than this are row numbers or identifiers.
_MOST_CLASSES = 100_000
_NONE = -1
# Text of more digits than this is a name: not every such number fits 64 bits.
_MOST_DIGITS = 18
# From this share of numbers on, what is none is a mistake in a column of numbers, and no name.
_NEARLY_ALL = 0.95
# Characters of a label in a message.
_LONGEST = 40
# What a split's facts say where its classes are called by number, and under which name.
CLASSES = "classes"
BY_NUMBER = "by number"
# Under which name they say what is odd about labels.
ODD_LABELS = "odd labels"


@dataclass(frozen=True)
class Labels:
    """A label for each sample.

    Attributes:
        values: int64, N: as they are said, -1 where there is none.
        classes: The classes' names, in the order of the labels.
        remarks: Why a sample has no label, where more is known.
        by_number: Whether the classes have no names, so that their numbers are their names.
        odd: What the user should know of labels that are no numbers, or no names; empty where all
            is well.

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
    by_number: bool = False
    odd: str = ""

    @property
    def facts(self) -> dict[str, object]:
        """What a split's facts say of them."""
        told: dict[str, object] = {CLASSES: BY_NUMBER} if self.by_number else {}
        return told | ({ODD_LABELS: self.odd} if self.odd else {})

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
        column: Integers or text. Text of which nearly all is integers from 0 on is read as such;
            what is none is no label then.
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
        >>> labels = labels_of(pa.chunked_array([["0", "1"] * 15 + ["x7"]]), (), "x")
        >>> labels.classes, labels.odd
        (('0', '1'), "1 of 31 labels is no number of a class: 'x7' in row 31")
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _from_said(*_coded(column), names, source)
    if pa.types.is_dictionary(column.type):
        column = column.cast(kind)
    if pa.types.is_boolean(column.type):
        return _from_numbers(column.cast(pa.int8()), names or ("false", "true"), source)
    if pa.types.is_integer(column.type):
        return _from_numbers(column, names, source)
    if pa.types.is_floating(column.type):
        whole, strange = _whole_part(column)
        if whole is not None:
            return _from_numbers(whole, names, source, strange)
        if _are_whole(column):
            return _from_numbers(column, names, source)
    raise DataError(
        f"the labels in {source} are of a kind that names no class",
        expected="integers or text",
        found=str(column.type),
    )


def _from_said(
    codes: NDArray[np.int64], said: Sequence[str], names: Sequence[str], source: str
) -> Labels:
    """Labels from text: numbers of classes where nearly all of it is, else names."""
    numeric = np.array([_is_number(text) for text in said], bool)
    filled = np.array([bool(text) for text in said], bool)
    times = np.bincount(codes, minlength=len(said))
    numbers, labels = int(times[numeric].sum()), int(times[filled].sum())
    if (names and set(names) & set(said)) or not _nearly_all(numbers, labels):
        found = _from_texts(codes, said, names)
        if names or 2 * numbers <= labels or numbers == labels:
            return found
        first = int(np.flatnonzero((filled & ~numeric)[codes])[0])
        return replace(found, odd=_mixed(numbers, labels, said[codes[first]], first))
    strange = {int(i): said[codes[i]] for i in np.flatnonzero((filled & ~numeric)[codes])}
    values = [int(text) if is_one else None for text, is_one in zip(said, numeric, strict=True)]
    column = pa.chunked_array([pa.array(values, pa.int64()).take(pa.array(codes))])
    return _from_numbers(column, names, source, strange)


def _is_number(text: str) -> bool:
    """Whether a text is an integer from 0 on."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _nearly_all(numbers: int, labels: int) -> bool:
    """Whether so many numbers among labels mean that all were to be numbers."""
    return numbers > 0 and (numbers == labels or (numbers > 1 and numbers >= _NEARLY_ALL * labels))


def _mixed(numbers: int, labels: int, text: str, row: int) -> str:
    """What to say of names among which most are numbers."""
    return (
        f"{numbers:,} of {labels:,} labels are whole numbers, but {_shown(text)} in row "
        f"{row + 1:,} is not: all are taken as names"
    )


def _shown(text: str) -> str:
    shown = visible(text)
    return f"'{shown if len(shown) <= _LONGEST else shown[:_LONGEST] + '…'}'"


def _are_whole(column: pa.ChunkedArray) -> bool:
    """Whether floating-point numbers are integers, as pandas stores those with gaps."""
    return bool(pc.all(pc.equal(pc.round(column), column)).as_py() in (True, None))


def _whole_part(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, dict[int, str]]:
    """Floating-point numbers without those that are no integers from 0 on, and these by row.

    The first is ``None`` where they are none, or too many for mistakes.
    """
    values: NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(values) & (np.round(values) == values) & (values >= 0)
    if not _nearly_all(int(whole.sum()), int(known.sum())):
        return None, {}
    strange = {int(i): f"{values[i]:g}" for i in np.flatnonzero(known & ~whole)}
    return pa.chunked_array([pa.array(values, mask=~whole)]), strange


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


def _from_numbers(
    column: pa.ChunkedArray,
    names: Sequence[str],
    source: str,
    strange: Mapping[int, str] | None = None,
) -> Labels:
    """Labels from numbers; ``strange`` are what rows say that hold none."""
    strange = dict(strange or {})
    try:
        numbers = column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the labels in {source} are no positions in a list of classes",
            expected=f"numbers from 0 to {_MOST_CLASSES - 1:,}, or names",
            found=str(error).splitlines()[0],
        ) from error
    values: NDArray[Any] = numbers.fill_null(_NONE).to_numpy()
    given = len(values) - numbers.null_count + len(strange)
    remarks = {
        i: f"its label {_shown(text)} is no number of a class" for i, text in strange.items()
    }
    negative = np.flatnonzero((values < 0) & numbers.is_valid().to_numpy())
    rows = sorted([*strange, *negative[:1].tolist()])[:1]
    odd = ""
    if rows:
        text = strange.get(rows[0], str(values[rows[0]]))
        odd = _none_of(len(strange) + len(negative), given, text, rows[0])
    if names:
        return Labels(values, tuple(names), remarks, odd=odd)
    count = int(values.max(initial=_NONE)) + 1
    if count > _MOST_CLASSES:
        raise DataError(
            f"the labels in {source} are no positions in a list of classes",
            expected=f"numbers from 0 to {_MOST_CLASSES - 1:,}, or names",
            found=f"{count - 1}",
        )
    classes = tuple(str(k) for k in range(count))
    return Labels(values, classes, remarks, by_number=True, odd=odd)


def _none_of(strange: int, labels: int, text: str, row: int) -> str:
    """What to say of labels that are no numbers among numbers."""
    if strange == 1:
        return f"1 of {labels:,} labels is no number of a class: {_shown(text)} in row {row + 1:,}"
    return (
        f"{strange:,} of {labels:,} labels are no numbers of classes, the first {_shown(text)} in "
        f"row {row + 1:,}"
    )
