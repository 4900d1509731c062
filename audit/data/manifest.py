"""``manifest:FILE``: a table of pictures and labels, with paths or addresses."""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audit.data.boxes import BoxMasks, find_boxes
from audit.data.boxfiles import box_columns, edges_in, refuse_relative, texts_in
from audit.data.columns import (
    OneEach,
    Outlines,
    TextColumn,
    name_below,
    numbered,
    scan,
    unique_names,
)
from audit.data.identity import BY_MANIFEST, MOST_LISTED, identities, listing_facts
from audit.data.labels import labels_of
from audit.data.listed import FileMasks, FileRecords
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size
from audit.data.parquet import ParquetRows, holds_pictures, last_part
from audit.data.pictures import Masks, PictureSplit
from audit.data.places import is_uri, matching, require_backends
from audit.data.reading import Piece, Reader, ReadPolicy
from audit.data.rle import fill
from audit.data.split import MASK_MISSING
from audit.data.tablefile import columns_found, read_table, refuse_repeated, text_column
from audit.errors import DataError

_EXPECTED = "columns image,label, optionally mask, rle, or a box as x1,y1,x2,y2 or box"
_MAGIC = b"PAR1"


def open_manifest(
    place: str, part: str, masks: MaskFiles, policy: ReadPolicy | None = None
) -> PictureSplit:
    """Open a table of pictures.

    Args:
        place: Path or URI of a CSV or Parquet file with the columns ``image`` and ``label``, or a
            folder or glob of Parquet files. Optionally ``mask`` (a file), ``rle`` (an outline in
            COCO's forms, as JSON text), or a box as ``x1,y1,x2,y2``, ``x,y,w,h`` or ``box``: of
            these the first counts, ``rle`` also where a row's ``mask`` is empty. Paths are
            relative to the table's folder (of a glob, to what comes before its first wildcard);
            anything that fsspec reads may be named by its URI.
        part: The split's name.
        masks: Which values of masks mean what, or a file of boxes.
        policy: How long and how often objects in a store are asked for.

    Returns:
        The split, 32×32 until it is ``framed``. Of Parquet files only labels are held; names are
        read a row group at a time, as samples are asked for.

    Raises:
        DataError: If the table lacks a column, or a package that reads its URIs is missing.
    """
    require_backends([place])
    reader = Reader(policy=policy or ReadPolicy())
    files = _files_of(place, reader)
    columns = _columns_of(place, files, reader)
    records = FileRecords(
        base=_base_of(place, files),
        names=columns.names,
        ids=columns.ids,
        labels=labels_of(columns.labels, (), columns.file),
        reader=reader,
    )
    given, facts = _masks_of(columns, records, masks)
    addresses = [place, records.base, *columns.addresses]
    require_backends(addresses)
    facts |= listing_facts(len(records), remote=any(map(is_uri, addresses[1:])))
    facts |= records.labels.facts
    identity: Callable[[], str] | None = None
    if len(records) > MOST_LISTED:
        facts["data_fingerprint"] = BY_MANIFEST
        identity = partial(_identity, files or [place], masks, reader)
    return PictureSplit(
        name=_name_of(place, files),
        part=part,
        classes=records.labels.classes,
        records=records,
        masks=given,
        mask_kind="box" if isinstance(given, BoxMasks) else "dataset",
        facts=facts,
        identity=identity,
    )


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What a manifest says, in memory or to be read from its files.

    Attributes:
        file: What messages call the table.
        names: Pictures.
        ids: Samples.
        labels: The column of labels.
        mask_names: Masks; ``None`` where there is no such column.
        outlines: Outlines; ``None`` where there is no such column.
        boxes: A table of the columns with boxes; it may have none.
        addresses: What names a file system among pictures and masks.
    """

    file: str
    names: Sequence[str]
    ids: Sequence[str]
    labels: pa.ChunkedArray
    mask_names: Sequence[str] | None
    outlines: Sequence[object] | None
    boxes: pa.Table
    addresses: Sequence[str]


def _files_of(place: str, reader: Reader) -> list[str]:
    """The Parquet files that a place means, sorted; empty for a CSV file."""
    found = matching(place, ".parquet")
    if found is not None:
        if not found:
            raise DataError(
                f"no file matches manifest:{place}",
                expected="a CSV or Parquet file, a folder of Parquet files or a glob, for "
                "example 'manifest:index/part-*.parquet'",
                found="nothing",
            )
        return found
    try:
        start = reader.read(Piece(place, 0, len(_MAGIC)))
    except OSError:
        # Shorter, or on a server without ranges: what is wrong shows where it is read whole.
        start = b""
    return [place] if start == _MAGIC else []


def _columns_of(place: str, files: Sequence[str], reader: Reader) -> _Columns:
    if not files:
        return _in_memory(read_table(place, "manifest", reader), place)
    rows = ParquetRows([file if is_uri(file) else Path(file) for file in files], reader.policy)
    refuse_repeated(rows.schema.names, place, "manifest")
    return _in_files(rows, {name.strip().lower(): name for name in rows.schema.names}, place)


def _in_memory(table: pa.Table, place: str) -> _Columns:
    _refuse_columns(table.schema, place)
    names = text_column(table, "image")
    masks = text_column(table, "mask") if "mask" in table.column_names else None
    return _Columns(
        file=last_part(place),
        names=names,
        ids=_ids(names),
        labels=table["label"],
        mask_names=masks,
        outlines=table["rle"].to_pylist() if "rle" in table.column_names else None,
        boxes=table,
        addresses=[name for name in (*names, *(masks or ())) if is_uri(name)],
    )


def _in_files(rows: ParquetRows, own: Mapping[str, str], place: str) -> _Columns:
    fields = [rows.schema.field(name).with_name(plain) for plain, name in own.items()]
    schema = pa.schema(fields)
    _refuse_columns(schema, place)
    names = TextColumn(rows, own["image"])
    masks = TextColumn(rows, own["mask"]) if "mask" in own else None
    known = scan(names)
    # Numbers are small as they are, and stay numbers.
    kind = schema.field("label").type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    has_others = {"mask", "rle"} & set(own)
    boxes = () if has_others else [n for n in _box_names(schema) if n in own]
    return _Columns(
        file=last_part(place),
        names=names,
        ids=unique_names(names, known.common),
        labels=rows.codes(own["label"]) if text else rows.column(own["label"]),
        mask_names=masks,
        outlines=Outlines(rows, own["rle"]) if "rle" in own else None,
        boxes=pa.table({name: rows.column(own[name]) for name in boxes}),
        addresses=[*known.addresses, *(scan(masks).addresses if masks is not None else ())],
    )


def _box_names(schema: pa.Schema) -> Sequence[str]:
    """Columns that hold boxes."""
    return box_columns(schema.empty_table()) or ("box",)


def _refuse_columns(schema: pa.Schema, place: str) -> None:
    missing = [name for name in ("image", "label") if name not in schema.names]
    if missing:
        raise DataError(
            f"the manifest {place} has no column {' and no column '.join(missing)}",
            expected=_EXPECTED,
            found=columns_found(schema),
        )
    _refuse_bytes(schema, place)


def _base_of(place: str, files: Sequence[str]) -> str:
    """The folder that paths in the table are relative to."""
    if not files or list(files) == [place]:
        return place.rpartition("/")[0] if is_uri(place) else str(Path(place).parent)
    if glob.has_magic(place):
        before = re.split(r"[*?\[]", place, maxsplit=1)[0].rpartition("/")[0]
        return before or ("/" if place.startswith("/") else ".")
    return place.rstrip("/") or "/"


def _name_of(place: str, files: Sequence[str]) -> str:
    """The file's stem; of several files the folder that they lie in."""
    if not files or list(files) == [place]:
        return Path(last_part(place)).stem
    base = _base_of(place, files)
    return last_part(base if is_uri(base) else Path(base).resolve()) or "manifest"


def _identity(files: Sequence[str], masks: MaskFiles, reader: Reader) -> str:
    """What stands for a manifest of very many samples: its own bytes, and what its masks mean."""
    places = [*files, *([str(masks.boxes)] if masks.boxes is not None else [])]
    told = [*identities(places, 0, reader), repr((masks.object_values, masks.unknown_values))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class OutlineMasks:
    """Outlines in a column, and files for the rows that name one.

    Attributes:
        outlines: For each sample what its row says; ``None`` or empty for nothing.
        files: Masks in files, which count first; ``None`` where the table names none.
    """

    outlines: Sequence[object]
    files: FileMasks | None = None

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        if self.files is not None and self.files.names[i]:
            return self.files.read(i, size)
        outline = self.outlines[i]
        if outline is None or outline == "":
            raise BadMask(MASK_MISSING, "its column rle is empty")
        return Shares.of(fill(outline, size, "column rle"), None, "in column rle")

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        if self.files is not None:
            yield from self.files.contents()
        yield from map(repr, self.outlines)

    def ahead(self, indices: Sequence[int]) -> OutlineMasks:
        """See :class:`audit.data.pictures.ReadAhead`."""
        return self if self.files is None else replace(self, files=self.files.ahead(indices))


def _masks_of(
    columns: _Columns, records: FileRecords, masks: MaskFiles
) -> tuple[Masks | None, dict[str, object]]:
    if masks.boxes is not None:
        return find_boxes(masks.boxes, records)
    files = None
    if columns.mask_names is not None:
        files = FileMasks(
            base=records.base,
            names=OneEach(columns.mask_names),
            files=masks,
            wanted="its column mask is empty",
            reader=records.reader,
        )
    if columns.outlines is not None:
        return OutlineMasks(outlines=columns.outlines, files=files), {}
    if files is not None:
        return files, {}
    return _boxes_in(columns.boxes, columns.file), {}


def _boxes_in(table: pa.Table, file: str) -> BoxMasks | None:
    """Each row's box, none where its cells are empty; ``None`` where there is no such column."""
    columns = box_columns(table)
    if columns:
        edges, texts = edges_in(table, columns), texts_in(table, columns)
    elif "box" in table.column_names:
        edges = [_edges(said) for said in table["box"].to_pylist()]
        texts = text_column(table, "box")
    else:
        return None
    refuse_relative(edges, file)
    boxes: list[NDArray[np.float64]] = [
        np.array([box] if text else [], np.float64).reshape(-1, 4)
        for box, text in zip(edges, texts, strict=True)
    ]
    said = {
        (i, 0): text for i, text in enumerate(texts) if text and not np.isfinite(edges[i]).all()
    }
    return BoxMasks(boxes=boxes, source=file, texts=said)


def _edges(said: Any) -> tuple[float, float, float, float]:
    """Four numbers from a list or from text such as ``[3, 4, 20, 30]``; else all are NaN."""
    if isinstance(said, str):
        said = said.strip("[]() ").replace(",", " ").replace(";", " ").split()
    try:
        left, top, right, bottom = map(float, said or ())
    except (TypeError, ValueError):
        return (np.nan,) * 4
    return left, top, right, bottom


def _refuse_bytes(schema: pa.Schema, place: str) -> None:
    """Refuse columns of paths that hold something else."""
    for name in ("image", "mask"):
        kind = schema.field(name).type if name in schema.names else pa.string()
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
            continue
        held = "bytes" if holds_pictures(kind) else str(kind)
        raise DataError(
            f"the column {name} of the manifest {place} holds {held}",
            expected="paths or addresses of files",
            found=str(kind),
            remedy=f"for encoded pictures in the table use --dataset parquet:{place}"
            if held == "bytes"
            else None,
        )


def _ids(names: Sequence[str]) -> list[str]:
    """Unique names: absolute paths from the folder that they share, repeated ones numbered.

    Example:
        >>> _ids(["/data/a/1.png", "/data/b/1.png", "c.png", "c.png"])
        ['a/1.png', 'b/1.png', 'c.png', 'c.png@2']
    """
    folders = {os.path.dirname(name) for name in names if os.path.isabs(name)}  # noqa: PTH117, PTH120
    common = os.path.commonpath(folders) if folders else ""
    seen: Counter[str] = Counter()
    ids = []
    for name in names:
        below = name_below(name, common)
        seen[below] += 1
        ids.append(numbered(below, seen[below]))
    return ids
