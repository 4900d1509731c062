"""``manifest:FILE``: a table of pictures and labels, with paths or addresses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audit.data.boxes import BoxMasks, find_boxes
from audit.data.boxfiles import box_columns, edges_in, refuse_relative, texts_in
from audit.data.labels import labels_of
from audit.data.listed import FileMasks, FileRecords
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size
from audit.data.parquet import holds_pictures
from audit.data.pictures import Masks, PictureSplit
from audit.data.places import as_text, is_uri, require_backends
from audit.data.rle import fill
from audit.data.split import MASK_MISSING
from audit.data.tablefile import columns_found, read_table, text_column
from audit.errors import DataError

_EXPECTED = "columns image,label, optionally mask, rle, or a box as x1,y1,x2,y2 or box"


def open_manifest(place: str, part: str, masks: MaskFiles) -> PictureSplit:
    """Open a table of pictures.

    Args:
        place: Path or URI of a CSV or Parquet file with the columns ``image`` and ``label``.
            Optionally ``mask`` (a file), ``rle`` (an outline in COCO's forms, as JSON text), or
            a box as ``x1,y1,x2,y2``, ``x,y,w,h`` or ``box``: of these the first counts, ``rle``
            also where a row's ``mask`` is empty. Paths are relative to the table; anything that
            fsspec reads may be named by its URI.
        part: The split's name.
        masks: Which values of masks mean what, or a file of boxes.

    Returns:
        The split, 32×32 until it is ``framed``.

    Raises:
        DataError: If the table lacks a column, or a package that reads its URIs is missing.
    """
    require_backends([place])
    table = read_table(place, "manifest")
    missing = [name for name in ("image", "label") if name not in table.column_names]
    if missing:
        raise DataError(
            f"the manifest {place} has no column {' and no column '.join(missing)}",
            expected=_EXPECTED,
            found=columns_found(table),
        )
    _refuse_bytes(table, place)
    base = place.rpartition("/")[0] if is_uri(place) else str(Path(place).parent)
    names = text_column(table, "image")
    file = place.rstrip("/").rpartition("/")[2]
    records = FileRecords(
        base=base,
        names=names,
        ids=_ids(names),
        labels=labels_of(table["label"], (), file),
    )
    given, facts = _masks_of(table, base, file, records, masks)
    mask_names = text_column(table, "mask") if "mask" in table.column_names else []
    require_backends([base, *names, *mask_names])
    return PictureSplit(
        name=Path(file).stem,
        part=part,
        classes=records.labels.classes,
        records=records,
        masks=given,
        mask_kind="box" if isinstance(given, BoxMasks) else "dataset",
        facts=facts,
    )


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


def _masks_of(
    table: pa.Table, base: str, file: str, records: FileRecords, masks: MaskFiles
) -> tuple[Masks | None, dict[str, object]]:
    if masks.boxes is not None:
        return find_boxes(masks.boxes, records)
    files = None
    if "mask" in table.column_names:
        names = [(name,) if name else () for name in text_column(table, "mask")]
        files = FileMasks(base=base, names=names, files=masks, wanted="its column mask is empty")
    if "rle" in table.column_names:
        return OutlineMasks(outlines=table["rle"].to_pylist(), files=files), {}
    if files is not None:
        return files, {}
    return _boxes_in(table, file), {}


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


def _refuse_bytes(table: pa.Table, place: str) -> None:
    """Refuse columns of paths that hold something else."""
    for name in ("image", "mask"):
        kind = table.schema.field(name).type if name in table.column_names else pa.string()
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
        below = os.path.relpath(name, common) if os.path.isabs(name) else name or "no name"  # noqa: PTH117
        seen[below] += 1
        ids.append(as_text(below) + (f"@{seen[below]}" if seen[below] > 1 else ""))
    return ids
