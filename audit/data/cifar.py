"""CIFAR-10 and CIFAR-100, in torchvision's folder or in the Hub's Parquet layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from audit.data.decode import UnreadableImage, decode_rgb
from audit.data.geometry import Geometry
from audit.data.split import BAD_LABEL, OK, UNREADABLE, ArraySplit, Batch, MaskKind, Split, frame
from audit.errors import DataError

_FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}
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
        return HubParquetSplit(name, part, files, label_column=_LABELS[name])
    return _open_torchvision(name, part, root, download=download)


class HubParquetSplit:
    """32×32 images from the Hub's Parquet files, decoded as they are fetched.

    Args:
        name: The dataset's name.
        part: The split's name.
        files: The Parquet files, in order.
        label_column: The integer column with the labels.

    Raises:
        DataError: If the columns are not those of an image dataset.
    """

    image_size = (32, 32)
    has_masks = False
    mask_kind: MaskKind = "dataset"
    in_memory = False

    def __init__(
        self, name: str, part: str, files: Sequence[Path], *, label_column: str = "label"
    ) -> None:
        self.name = name
        self.part = part
        self.facts: Mapping[str, object] = {}
        self._files = tuple(files)
        table = _read_parquet(files)
        image_column = _image_column(table, files[0], label_column)
        self._bytes = pa.chunked_array(
            [chunk.field("bytes") for chunk in table[image_column].chunks]
        ).combine_chunks()
        # A missing label becomes -1, which is no class.
        labels = table[label_column].fill_null(-1).to_numpy()
        self._labels = torch.from_numpy(labels.astype("int64"))
        self.classes = _class_names(table.schema, label_column) or _known_names(name)

    def fingerprint(self) -> str:
        """See :class:`audit.data.split.Split`."""
        digest = hashlib.sha256(b"hub-parquet")
        for file in self._files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()

    def framed(self, geometry: Geometry) -> Split:
        """See :class:`audit.data.split.Split`."""
        return frame(self, geometry)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        index = torch.as_tensor(indices, dtype=torch.int64)
        images = torch.zeros(len(indices), 3, *self.image_size, dtype=torch.uint8)
        labels = self._labels[index].clone()
        status = [OK] * len(indices)
        for row, position in enumerate(indices):
            if not 0 <= int(labels[row]) < len(self.classes):
                labels[row] = -1
                status[row] = BAD_LABEL
            try:
                image = decode_rgb(self._bytes[position].as_py() or b"")
                if image.shape[1:] != self.image_size:
                    raise UnreadableImage(f"the image is {tuple(image.shape[1:])}, not 32×32")
                images[row] = image
            except UnreadableImage:
                status[row] = UNREADABLE
        return Batch(
            index=index,
            sample_id=[f"{self.part}-{position:06d}" for position in indices],
            images=images,
            labels=labels,
            object_mask=None,
            status=status,
        )


def _find_parquet(name: str, part: str, root: Path) -> list[Path]:
    for place in _PLACES:
        files = sorted((root / place.format(name=name)).glob(f"{part}-*.parquet"))
        if files:
            return files
    return []


def _read_parquet(files: Sequence[Path]) -> pa.Table:
    try:
        return pa.concat_tables([pq.read_table(file) for file in files])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"the Parquet files in {files[0].parent} cannot be read",
            found=str(error).splitlines()[0],
            remedy="download them again",
        ) from error


def _image_column(table: pa.Table, file: Path, label_column: str) -> str:
    image = next((name for name in ("img", "image") if name in table.column_names), None)
    kinds = {field.name: field.type for field in table.schema}
    if (
        image is None
        or not pa.types.is_integer(kinds.get(label_column, pa.null()))
        or not pa.types.is_struct(kinds[image])
        or kinds[image].get_field_index("bytes") < 0
        or not pa.types.is_binary(kinds[image].field("bytes").type)
    ):
        raise DataError(
            f"{file} is not an image dataset in the Hub's layout",
            expected=f"columns img (or image): struct with bytes, and {label_column}: integer",
            found=", ".join(f"{name}: {kind}" for name, kind in kinds.items()),
        )
    return image


def _class_names(schema: pa.Schema, label_column: str) -> tuple[str, ...]:
    """The names in the file's metadata; empty where there are none."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described["info"]["features"][label_column]["names"]
        return tuple(str(name) for name in names)
    except (ValueError, KeyError, TypeError):
        return ()


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
            found=str(error).splitlines()[0] if download else _listing(root),
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


def _listing(root: Path) -> str:
    if not root.is_dir():
        return "no such folder"
    names = sorted(path.name for path in root.iterdir())
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else "an empty folder"
