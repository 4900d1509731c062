"""``parquet:GLOB``: the Hub's image Parquet, read a row group at a time."""

from __future__ import annotations

import bisect
import contextlib
import glob
import itertools
import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audit.data.decode import UnreadableImage
from audit.data.identity import identities, stamps
from audit.data.labels import Labels, labels_of
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size, Values, decode_mask, shares_in_values
from audit.data.pictures import PictureSplit, Window
from audit.data.reading import RangeFile, Reader, ReadPolicy
from audit.data.rle import fill
from audit.data.split import MASK_MISSING, MASK_UNREADABLE
from audit.errors import DataError

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
MASK_COLUMN = "mask"
# Row groups that each process keeps: some hundred megabytes, the whole of CIFAR.
_KEPT_BYTES = 256 * 2**20
# Fewer rows or columns of numbers may as well be polygons.
_LEAST_ARRAY = 8
_HUB_FILE = re.compile(r"^(?P<part>.+?)-\d+(-of-\d+)?\.parquet$")
_GLOB = re.compile(r"[*?\[]")


class ParquetRows:
    """Rows of Parquet files as one table, read a row group at a time; the last ones are kept.

    Args:
        files: The files, in order: paths or URIs.
        policy: How long and how often those in a store are asked for.

    Raises:
        DataError: If one cannot be read, or they differ in their columns.
    """

    def __init__(self, files: Sequence[Path | str], policy: ReadPolicy | None = None) -> None:
        self.files = tuple(files)
        self._reader = Reader(policy=policy or ReadPolicy())
        self._sizes = _sizes_of(files, self._reader.policy)
        self._groups: list[tuple[Path | str, int]] = []
        sizes: list[int] = []
        schemas: list[pa.Schema] = []
        with ThreadPoolExecutor() as pool:
            for file, (schema, counts) in zip(files, pool.map(self._footer, files), strict=True):
                schemas.append(schema)
                self._groups += [(file, group) for group in range(len(counts))]
                sizes += counts
        self.schema = schemas[0]
        self._refuse_other_columns(schemas)
        self._starts = [0, *itertools.accumulate(sizes)]
        self._kept: OrderedDict[tuple[int, str], pa.Array] = OrderedDict()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": OrderedDict()}

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, for small ones."""
        chunks = []
        for file in self.files:
            with _readable(file), self._opened(file) as opened:
                chunks += opened.read(columns=[name])[name].chunks
        return pa.chunked_array(chunks, self.schema.field(name).type)

    def codes(self, name: str) -> pa.ChunkedArray:
        """A whole column of text as positions in dictionaries, which takes little memory."""
        chunks = []
        for file in self.files:
            with _readable(file), self._opened(file, coded=[name]) as opened:
                chunks += opened.read(columns=[name])[name].chunks
        return pa.chunked_array(chunks)

    def parts(self, name: str) -> Iterator[tuple[int, pa.Array]]:
        """A column a row group at a time, each with the number of its first row; none is kept.

        Raises:
            DataError: If a file cannot be read any more.
        """
        for group, (file, number) in enumerate(self._groups):
            with _readable(file), self._opened(file) as opened:
                column = opened.read_row_group(number, columns=[name])[name]
            yield self._starts[group], column.combine_chunks()

    def value(self, name: str, i: int) -> Any:
        """One value; of pictures their bytes, however they are wrapped.

        Raises:
            OSError: If the file cannot be read any more.
        """
        group = bisect.bisect_right(self._starts, i) - 1
        kept = self._kept.get((group, name))
        if kept is None:
            kept = self._read(group, name)
        return kept[i - self._starts[group]].as_py()

    def _read(self, group: int, name: str) -> pa.Array:
        file, number = self._groups[group]
        try:
            with self._opened(file) as opened:
                column = opened.read_row_group(number, columns=[name])[name]
        except pa.ArrowInvalid as error:
            raise OSError(str(error).splitlines()[0]) from error
        if holds_pictures(column.type) and pa.types.is_struct(column.type):
            column = pc.struct_field(column, "bytes")
        array = column.combine_chunks()
        self._kept[group, name] = array
        while len(self._kept) > 1 and sum(a.nbytes for a in self._kept.values()) > _KEPT_BYTES:
            self._kept.popitem(last=False)
        return array

    def _footer(self, file: Path | str) -> tuple[pa.Schema, list[int]]:
        with _readable(file), self._opened(file) as opened:
            groups = range(opened.metadata.num_row_groups)
            return opened.schema_arrow, [opened.metadata.row_group(g).num_rows for g in groups]

    def _opened(self, file: Path | str, coded: Sequence[str] = ()) -> pq.ParquetFile:
        if isinstance(file, Path):
            return pq.ParquetFile(file, read_dictionary=coded)
        whole = pa.PythonFile(RangeFile(file, self._sizes[file], self._reader), mode="r")
        return pq.ParquetFile(whole, read_dictionary=coded)

    def _refuse_other_columns(self, schemas: Sequence[pa.Schema]) -> None:
        for file, schema in zip(self.files, schemas, strict=True):
            if not schema.equals(self.schema, check_metadata=False):
                raise DataError(
                    f"{file} has other columns than {last_part(self.files[0])}",
                    expected=said_of(self.schema),
                    found=said_of(schema),
                    remedy="name the files of one dataset",
                )


@dataclass(frozen=True, kw_only=True)
class ParquetRecords:
    """Pictures in a column.

    Attributes:
        rows: The table.
        image: The column with the pictures.
        labels: Each row's label.
        part: The split's name, which begins the names of its samples.
    """

    rows: ParquetRows
    image: str
    labels: Labels
    part: str

    def __len__(self) -> int:
        return len(self.rows)

    def sample_id(self, i: int) -> str:
        """See :class:`audit.data.pictures.Records`."""
        return f"{self.part}-{i:06d}"

    def label(self, i: int) -> int:
        """See :class:`audit.data.pictures.Records`."""
        return self.labels.at(i)

    def picture(self, i: int) -> bytes:
        """See :class:`audit.data.pictures.Records`."""
        data = self.rows.value(self.image, i)
        if data is None:
            raise UnreadableImage("its row holds no bytes")
        return bytes(data)

    def window(self, i: int) -> Window | None:
        """See :class:`audit.data.pictures.Records`."""
        return None

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Records`."""
        return identities(map(str, self.rows.files), 0)


@dataclass(frozen=True, kw_only=True)
class ParquetMasks:
    """Masks in a column: encoded pictures, arrays of values, or outlines in COCO's forms.

    Nested lists of numbers are an array where they have the picture's shape, the Hub's metadata
    says so, or they form a rectangle of at least 8×8; else they are polygons.

    Attributes:
        rows: The table.
        column: The column with the masks.
        files: Which values of a picture mean what.
    """

    rows: ParquetRows
    column: str
    files: MaskFiles

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        source = f"column {self.column}"
        try:
            said = self.rows.value(self.column, i)
        except OSError as error:
            raise BadMask(MASK_UNREADABLE, f"its {source} cannot be read: {error}") from error
        if said is None or said in ("", b""):
            raise BadMask(MASK_MISSING, f"its {source} is empty")
        if isinstance(said, bytes):
            return decode_mask(said, self.files, f"in {source}", size)
        values = _array_in(said, size, declared=self._is_array)
        if values is not None:
            return shares_in_values(values, f"in {source}", size, self.files)
        return Shares.of(fill(said, size, source), None, f"in {source}")

    @property
    def _is_array(self) -> bool:
        """Whether the Hub's metadata says that the column holds arrays."""
        kind = _feature(self.rows.schema, self.column).get("_type")
        return isinstance(kind, str) and kind.startswith("Array")

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        # Their bytes are in the files that the records name.
        yield repr((self.column, self.files.object_values, self.files.unknown_values))


def open_parquet(pattern: str, part: str, masks: MaskFiles) -> PictureSplit:
    """Open Parquet files that hold pictures.

    Args:
        pattern: A file, a folder or a glob. Of files named as the Hub does,
            ``<part>-00000-of-00001.parquet``, those of ``part`` are taken.
        part: The split's name.
        masks: Which values of a ``mask`` column's pictures mean what.

    Returns:
        The split, 32×32 until it is ``framed``.

    Raises:
        DataError: If nothing matches, or the columns are not those of an image dataset.
    """
    rows = ParquetRows(_matching(pattern, part))
    image, label = _columns_of(rows)
    first = Path(rows.files[0])
    labels = labels_of(rows.column(label), class_names(rows.schema, label), first.name)
    has_masks = MASK_COLUMN in rows.schema.names
    return PictureSplit(
        name=_name_of(pattern, first),
        part=part,
        classes=labels.classes,
        records=ParquetRecords(rows=rows, image=image, labels=labels, part=part),
        masks=ParquetMasks(rows=rows, column=MASK_COLUMN, files=masks) if has_masks else None,
        facts=labels.facts,
    )


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether a column's type is bytes, or a struct with a field of bytes.

    Example:
        >>> holds_pictures(pa.struct({"bytes": pa.binary(), "path": pa.string()}))
        True
    """
    if pa.types.is_struct(kind):
        found = kind.get_field_index("bytes")
        return found >= 0 and holds_pictures(kind.field(found).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def said_of(schema: pa.Schema) -> str:
    """The columns with their types, for messages."""
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...]:
    """The names in the file's metadata; empty where there are none."""
    try:
        return tuple(str(name) for name in _feature(schema, label_column)["names"])
    except (KeyError, TypeError):
        return ()


def _feature(schema: pa.Schema, column: str) -> Mapping[str, Any]:
    """What the Hub's metadata says of a column; empty where it says nothing."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        said = described["info"]["features"][column]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return said if isinstance(said, Mapping) else {}


def _array_in(said: object, size: Size, *, declared: bool) -> Values | None:
    """Nested lists as an array; ``None`` where they are something else, or polygons."""
    if not isinstance(said, list) or not said or not all(isinstance(row, list) for row in said):
        return None
    shape = len(said), len(said[0])
    if {len(row) for row in said} != {shape[1]}:
        return None
    if not declared and shape != size and min(shape) < _LEAST_ARRAY:
        return None
    # Of other types where a row holds what is no number, which is refused where it is read.
    return np.array(said)


def _columns_of(rows: ParquetRows) -> tuple[str, str]:
    """The columns with pictures and labels."""
    kinds: Mapping[str, pa.DataType] = {field.name: field.type for field in rows.schema}
    image = next((n for n in IMAGE_COLUMNS if n in kinds and holds_pictures(kinds[n])), None)
    label = next((n for n in LABEL_COLUMNS if n in kinds), None)
    if image is None or label is None:
        raise DataError(
            f"{rows.files[0]} is not an image dataset in the Hub's layout",
            expected="columns image (or img): struct with bytes, or binary; "
            "and label: integer or string",
            found=said_of(rows.schema),
        )
    return image, label


def _matching(pattern: str, part: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        files = sorted(path.glob("*.parquet")) or sorted(path.glob("*/*.parquet"))
    else:
        # Not Path.glob, which takes no absolute patterns.
        files = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [file for file in files if file.is_file()]
    if not files:
        raise DataError(
            f"no file matches parquet:{pattern}",
            expected="a Parquet file, a folder of them or a glob, for example "
            "'parquet:data/test-*.parquet'",
            found="a folder without Parquet files" if path.is_dir() else "nothing",
        )
    named = {file: match["part"] for file in files if (match := _HUB_FILE.match(file.name))}
    parts = sorted(set(named.values()))
    if len(named) == len(files) and len(parts) > 1:
        if part not in parts:
            raise DataError(
                f"parquet:{pattern} has no split named '{part}'",
                expected=" | ".join(parts),
                found=part,
                remedy=f"name another with --split, for example --split {parts[0]}",
            )
        files = [file for file in files if named[file] == part]
    return files


def _name_of(pattern: str, first: Path) -> str:
    """The file's stem; of several files the folder that they lie in."""
    if not _GLOB.search(pattern) and not Path(pattern).is_dir():
        return first.stem
    folder = first.resolve().parent
    return folder.parent.name if folder.name == "data" else folder.name


def last_part(place: Path | str) -> str:
    """A file's or object's own name.

    Example:
        >>> last_part("s3://bucket/index/part-0.parquet")
        'part-0.parquet'
    """
    return str(place).rstrip("/").rpartition("/")[2]


def _sizes_of(files: Sequence[Path | str], policy: ReadPolicy) -> dict[str, int]:
    """How large the objects among some files are."""
    found = stamps([file for file in files if isinstance(file, str)], policy)
    sizes = {}
    for place, told in found.items():
        with _readable(place):
            if isinstance(told, OSError):
                raise told
            if told.size < 0:
                raise OSError("the server does not tell its size")
        sizes[place] = told.size
    return sizes


@contextlib.contextmanager
def _readable(file: Path | str) -> Iterator[None]:
    """Turn Arrow's errors about a file into a message."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"the Parquet file {file} cannot be read",
            found=str(error).splitlines()[0],
            remedy="download it again",
        ) from error
