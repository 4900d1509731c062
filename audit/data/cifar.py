"""CIFAR-10 and CIFAR-100, in torchvision's folder or in the Hub's Parquet layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch

from audit.data.labels import labels_of
from audit.data.parquet import (
    IMAGE_COLUMNS,
    ParquetRecords,
    ParquetRows,
    class_names,
    holds_pictures,
    said_of,
)
from audit.data.pictures import PictureSplit
from audit.data.places import listing
from audit.data.split import ArraySplit, Split
from audit.errors import DataError

_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
_SIZE = (32, 32)
_LABELS = {"cifar10": "label", "cifar100": "fine_label"}
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
_PLACES = ("", "{name}", "data", "plain_text", "{name}/plain_text", "{name}/{name}", "{name}/data")


def open_cifar(name: str, part: str, root: Path, *, download: bool = False) -> Split:
    """Open CIFAR-10 or CIFAR-100.

    Args:
        name: ``cifar10`` or ``cifar100``.
        part: ``train`` or ``test``.
        root: Folder that holds the Hub's ``<part>-*.parquet`` (also one level down), or
            torchvision's folder.
        download: Let torchvision fetch the data into ``root`` where it is absent.

    Returns:
        The split, 32×32, without masks.

    Raises:
        DataError: If the data is absent and is not, or cannot be, downloaded.
    """
    if part not in ("train", "test"):
        raise DataError(f"{name} has no split named '{part}'", expected="train or test", found=part)
    files = _find_parquet(name, part, root)
    if files:
        return _open_hub(name, part, files)
    return _open_torchvision(name, part, root, download=download)


def _find_parquet(name: str, part: str, root: Path) -> list[Path]:
    for place in _PLACES:
        files = sorted((root / place.format(name=name)).glob(f"{part}-*.parquet"))
        if files:
            return files
    return []


def _open_hub(name: str, part: str, files: Sequence[Path]) -> PictureSplit:
    rows = ParquetRows(files)
    label = _LABELS[name]
    image = _image_column(rows, label)
    names = class_names(rows.schema, label) or _known_names(name)
    labels = labels_of(rows.column(label), names, files[0].name)
    return PictureSplit(
        name=name,
        part=part,
        classes=names,
        records=ParquetRecords(rows=rows, image=image, labels=labels, part=part),
        stored_size=_SIZE,
    )


def _image_column(rows: ParquetRows, label_column: str) -> str:
    kinds = {field.name: field.type for field in rows.schema}
    image = next((name for name in IMAGE_COLUMNS if name in kinds), None)
    if (
        image is None
        or not pa.types.is_integer(kinds.get(label_column, pa.null()))
        or not pa.types.is_struct(kinds[image])
        or not holds_pictures(kinds[image])
    ):
        raise DataError(
            f"{rows.files[0]} is not an image dataset in the Hub's layout",
            expected=f"columns img (or image): struct with bytes, and {label_column}: integer",
            found=said_of(rows.schema),
        )
    return image


def _known_names(name: str) -> tuple[str, ...]:
    """The usual names, for a file that was saved anew without its metadata."""
    if name == "cifar10":
        return CIFAR10_CLASSES
    return tuple(f"class {k}" for k in range(100))


def _open_torchvision(name: str, part: str, root: Path, *, download: bool) -> ArraySplit:
    from torchvision import datasets

    factory = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        data = factory(str(root), train=part == "train", download=download)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name} was not found in {root}" + (", nor downloaded" if download else ""),
            expected=f"{part}-*.parquet (the Hub's layout) or {_FOLDERS[name]}/ (torchvision's)",
            found=str(error).splitlines()[0] if download else listing(root),
            remedy=f"put one of the two into {root} (or name another folder with --data-root), "
            f"or let it be downloaded: audit run --dataset {name} --data-root {root} --download",
        ) from error
    labels = torch.tensor(data.targets, dtype=torch.int64)
    return ArraySplit(
        name=name,
        part=part,
        classes=tuple(data.classes),
        sample_ids=tuple(f"{part}-{i:06d}" for i in range(len(labels))),
        images=torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(),
        labels=labels,
    )
