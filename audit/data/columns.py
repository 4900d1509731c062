"""Columns of text in Parquet files that are read as they are asked for, and their unique names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from audit.data.parquet import ParquetRows
from audit.data.places import as_text

# Of digests: a number for each byte, an odd base, and its inverse modulo 2⁶⁴.
_NUMBERS = np.random.default_rng(20_251).integers(0, 2**64, 256, np.uint64)
_BASE = 0x9E37_79B9_7F4A_7C15
_INVERSE = pow(_BASE, -1, 2**64)
_AT_A_TIME = 4096
# What absolute paths hold that os.path.relpath changes beyond their first part.
_UNTIDY = r"//|/\.\.?(/|$)|/$"


class TextColumn(Sequence[str]):
    """A column as text without spaces around it, empty where it is null, as :func:`text_column`.

    Args:
        rows: The table.
        name: The column's name in its files.
    """

    def __init__(self, rows: ParquetRows, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        # Without this a loop over the sequence would not end.
        if not 0 <= i < len(self):
            raise IndexError(i)
        value = self._rows.value(self._name, i)
        return "" if value is None else str(value).strip()

    def __iter__(self) -> Iterator[str]:
        for _, part in self._rows.parts(self._name):
            for value in part.to_pylist():
                yield "" if value is None else str(value).strip()

    def parts(self) -> Iterator[tuple[int, pa.Array]]:
        """The stripped text a row group at a time, each with the number of its first row."""
        for start, part in self._rows.parts(self._name):
            coded = pa.types.is_dictionary(part.type)
            text = (part.dictionary_decode() if coded else part).cast(pa.large_string())
            yield start, pc.utf8_trim_whitespace(pc.fill_null(text, ""))


class Outlines(Sequence[object]):
    """A column as it is.

    Args:
        rows: The table.
        name: The column's name in its files.
    """

    def __init__(self, rows: ParquetRows, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> object: ...
    @overload
    def __getitem__(self, i: slice) -> list[object]: ...
    def __getitem__(self, i: int | slice) -> object:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._rows.value(self._name, i)


class OneEach(Sequence[Sequence[str]]):
    """A column of names as one name a row, none where the cell is empty.

    Example:
        >>> OneEach(["a.png", ""])[0:2]
        [('a.png',), ()]
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, i: int) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, i: slice) -> list[tuple[str, ...]]: ...
    def __getitem__(self, i: int | slice) -> tuple[str, ...] | list[tuple[str, ...]]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        name = self._names[i]
        return (name,) if name else ()

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return ((name,) if name else () for name in self._names)


def name_below(name: str, common: str) -> str:
    """What a sample is called: an absolute path from a folder, anything else as it is.

    Example:
        >>> name_below("/data/a/1.png", "/data"), name_below("c.png", "/data"), name_below("", "")
        ('a/1.png', 'c.png', 'no name')
    """
    if os.path.isabs(name):  # noqa: PTH117 - Path would drop surrogates of odd names
        return os.path.relpath(name, common)
    return name or "no name"


def numbered(below: str, number: int) -> str:
    """A name for people, with its number where it is repeated.

    Example:
        >>> numbered("c.png", 1), numbered("c.png", 2)
        ('c.png', 'c.png@2')
    """
    return as_text(below) + (f"@{number}" if number > 1 else "")


@dataclass(frozen=True)
class UniqueNames(Sequence[str]):
    """Samples' names by the column of their pictures, repeated ones numbered.

    Attributes:
        names: The column.
        common: The folder that absolute paths share.
        rows: Rows whose name occurred before, sorted, int64.
        numbers: For each of these how often it has occurred with this one, int64.
    """

    names: TextColumn
    common: str
    rows: NDArray[np.int64] = field(repr=False)
    numbers: NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        place = int(np.searchsorted(self.rows, i))
        repeated = place < len(self.rows) and self.rows[place] == i
        number = int(self.numbers[place]) if repeated else 1
        return numbered(name_below(self.names[i], self.common), number)


@dataclass(frozen=True)
class Scanned:
    """What one pass over a column of names tells.

    Attributes:
        common: The folder that absolute paths share; empty where there are none.
        addresses: One address of each protocol that occurs.
    """

    common: str
    addresses: tuple[str, ...]


def scan(names: TextColumn) -> Scanned:
    """Look through a column of names, a row group at a time.

    Args:
        names: Paths and URIs.

    Returns:
        What they have in common.
    """
    common: str | None = None
    addresses: set[str] = set()
    for _, part in names.parts():
        absolute = part.filter(pc.starts_with(part, "/"))
        # Nearly always all lie below what the ones before share.
        if common and common != "/":
            absolute = absolute.filter(pc.invert(pc.starts_with(absolute, f"{common}/")))
        if len(absolute):
            folders = pc.unique(pc.replace_substring_regex(absolute, r"[^/]*$", "")).to_pylist()
            common = os.path.commonpath([*([common] if common else []), *folders])
        remote = part.filter(pc.match_substring(part, "://"))
        while len(remote):
            address = remote[0].as_py().partition("://")[0] + "://"
            addresses.add(address)
            remote = remote.filter(pc.invert(pc.starts_with(remote, address)))
    return Scanned(common or "", tuple(sorted(addresses)))


def unique_names(names: TextColumn, common: str) -> UniqueNames:
    """Number the names that are repeated, by digests of 64 bits (8 bytes a sample while it runs).

    Two different names have the same digest once in some hundred thousand tables of ten million;
    one of them is then numbered although it need not be.

    Args:
        names: The column of pictures.
        common: The folder that absolute paths share.

    Returns:
        Unique names.
    """
    digests = np.empty(len(names), np.uint64)
    for start, part in names.parts():
        below = _below(part, common)
        digests[start : start + len(part)] = digests_of(below)
    if not _has_repeats(digests):
        return UniqueNames(names, common, np.array([], np.int64), np.array([], np.int64))
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    place = np.arange(len(order))
    number = place - np.maximum.accumulate(np.where(first, place, 0)) + 1
    rows = order[~first].astype(np.int64)
    numbers = number[~first].astype(np.int64)
    sorting = np.argsort(rows)
    return UniqueNames(names, common, rows[sorting], numbers[sorting])


def digests_of(part: pa.Array) -> NDArray[np.uint64]:
    """A digest of 64 bits for each text: the sum of its bytes' random numbers times powers.

    Args:
        part: large_string, n, without nulls.

    Returns:
        uint64, n: equal for equal texts; for others with a chance of about 2⁻⁶⁴.

    Example:
        >>> digests = digests_of(pa.array(["ab", "ba", "ab", ""], pa.large_string()))
        >>> len(set(digests.tolist())), bool(digests[0] == digests[2])
        (3, True)
    """
    _, offsets, data = part.buffers()
    ends = np.frombuffer(offsets, np.int64, len(part) + 1, 8 * part.offset)
    digests = np.zeros(len(part), np.uint64)
    if ends[-1] == ends[0]:
        return digests
    letters = np.frombuffer(data, np.uint8, int(ends[-1]))
    # Some thousand at a time, so that the numbers of their letters stay in the processor's cache.
    starts = range(0, len(part), _AT_A_TIME)
    some = [ends[start : start + _AT_A_TIME + 1] for start in starts]
    longest = max(int(each[-1] - each[0]) for each in some) + 1
    powers = np.multiply.accumulate(np.full(longest, _BASE, np.uint64))
    inverse = np.multiply.accumulate(np.full(longest, _INVERSE, np.uint64))
    for start, each in zip(starts, some, strict=True):
        numbers = _NUMBERS[letters[each[0] : each[-1]]]
        sums = np.zeros(len(numbers) + 1, np.uint64)
        np.cumsum(numbers * powers[: len(numbers)], out=sums[1:])
        places = each - each[0]
        digests[start : start + _AT_A_TIME] = np.diff(sums[places]) * inverse[places[:-1]]
    return digests


def _has_repeats(digests: NDArray[np.uint64]) -> bool:
    ordered = np.sort(digests)
    return bool((ordered[1:] == ordered[:-1]).any())


def _below(part: Any, common: str) -> pa.Array:
    """:func:`name_below` of many names."""
    absolute = pc.starts_with(part, "/")
    if not pc.any(absolute).as_py():
        return pc.if_else(pc.equal(part, ""), "no name", part)
    untidy = pc.or_(pc.match_substring_regex(part, _UNTIDY), pc.equal(part, common))
    if pc.any(pc.and_(absolute, untidy)).as_py():
        return pa.array([name_below(name, common) for name in part.to_pylist()], pa.large_string())
    below = pc.utf8_slice_codeunits(part, len(common.rstrip("/")) + 1)
    return pc.if_else(absolute, below, pc.if_else(pc.equal(part, ""), "no name", part))
