"""``oxford-iiit-pet``: 37 breeds with trimaps, in torchvision's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from audit.data.labels import Labels
from audit.data.listed import FileMasks, FileRecords
from audit.data.maskfiles import MaskFiles
from audit.data.pictures import PictureSplit
from audit.data.places import listing
from audit.errors import DataError

_NAME = "oxford-iiit-pet"
# The published halves; "train" is short for the second.
_LISTS = {"test": "test", "trainval": "trainval", "train": "trainval"}
# 1 is the animal, 2 what surrounds it, 3 the seam between them.
_TRIMAP = MaskFiles(object_values=(1,), unknown_values=(3,))


def open_pets(part: str, root: Path, *, download: bool = False) -> PictureSplit:
    """Open the Oxford-IIIT Pet dataset.

    Args:
        part: ``test`` or ``trainval`` (or ``train`` for that).
        root: Folder that holds ``oxford-iiit-pet/{images,annotations}``, or those two.
        download: Let torchvision fetch the data into ``root`` where it is absent.

    Returns:
        The split, labelled by breed; the trimaps' seams are unknown.

    Raises:
        DataError: If the data is absent and is not, or cannot be, downloaded.
    """
    if part not in _LISTS:
        raise DataError(
            f"{_NAME} has no split named '{part}'",
            expected="test or trainval",
            found=part,
            remedy="name one of them with --split",
        )
    folder = _folder(root, download=download)
    rows = _listed(folder / "annotations" / f"{_LISTS[part]}.txt")
    breeds = {label: image.rpartition("_")[0] for image, label in rows}
    count = max(breeds, default=-1) + 1
    classes = tuple(breeds.get(k, f"class {k}").replace("_", " ").title() for k in range(count))
    names = [f"{image}.jpg" for image, _ in rows]
    return PictureSplit(
        name=_NAME,
        part=_LISTS[part],
        classes=classes,
        records=FileRecords(
            base=str(folder / "images"),
            names=names,
            ids=names,
            labels=Labels(np.array([label for _, label in rows], np.int64), classes),
        ),
        masks=FileMasks(
            base=str(folder / "annotations" / "trimaps"),
            names=[(f"{image}.png",) for image, _ in rows],
            files=_TRIMAP,
        ),
    )


def _folder(root: Path, *, download: bool) -> Path:
    for folder in (root / _NAME, root):
        if (folder / "images").is_dir() and (folder / "annotations").is_dir():
            return folder
    found = listing(root)
    if download:
        from torchvision.datasets import OxfordIIITPet

        try:
            OxfordIIITPet(str(root), split="test", download=True)
            return root / _NAME
        except (RuntimeError, OSError) as error:
            found = str(error).splitlines()[0]
    raise DataError(
        f"{_NAME} was not found in {root}" + (", nor downloaded" if download else ""),
        expected=f"{_NAME}/ with images/ and annotations/ (torchvision's folder)",
        found=found,
        remedy=f"put it into {root} (or name another folder with --data-root), "
        f"or let it be downloaded: audit run --dataset {_NAME} --data-root {root} --download",
    )


def _listed(file: Path) -> list[tuple[str, int]]:
    """Each line's image and class, the first class being 0."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        fields = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        return [(image, int(label) - 1) for image, label, *_ in fields]
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read",
            expected="lines of an image's name, its class from 1, and its species",
            found=str(error).splitlines()[0],
            remedy="download it again",
        ) from error
