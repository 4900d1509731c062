"""``folder:PATH``: one sub-folder of images a class; optionally a tree of masks, or boxes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from audit.data.boxes import BoxMasks, find_boxes
from audit.data.identity import listing_facts
from audit.data.labels import Labels
from audit.data.listed import FileMasks, FileRecords
from audit.data.maskfiles import MaskFiles
from audit.data.masktree import find_masks
from audit.data.pictures import PictureSplit
from audit.data.places import as_text
from audit.errors import DataError

# Folders that are splits rather than classes.
_PARTS = ("train", "val", "valid", "validation", "test")
# As torchvision's ImageFolder has it.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def open_folder(path: Path, part: str, masks: MaskFiles) -> PictureSplit:
    """Open a folder of images.

    Args:
        path: Holds one sub-folder a class; or ``path/part`` does.
        part: The split's name.
        masks: Its ``root`` is a parallel tree (or its sub-folder ``part`` is) that holds, for
            ``<class>/<stem>.jpg``, one of ``<class>/<stem>.png``, ``<stem>_mask.png``,
            ``mask_<stem>.png``, ``<stem>.jpg.png`` and the like; or ``boxes`` names boxes.

    Returns:
        The split, 32×32 until it is ``framed``. Classes are the sub-folders' names, sorted; one
        without images stays a class.

    Raises:
        DataError: If a folder is absent, holds no classes, or no mask matches.
    """
    folder = _folder_of_part(path, part)
    folders = sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))
    if not folders:
        raise DataError(
            f"the image folder {folder} holds no classes",
            expected="one sub-folder per class",
            found=f"{sum(1 for _ in folder.iterdir())} files",
        )
    found = [
        (str(file.relative_to(folder)), label)
        for label, name in enumerate(folders)
        for file in _images_in(folder / name)
    ]
    names = [name for name, _ in found]
    records = FileRecords(
        base=str(folder),
        names=names,
        ids=[as_text(name) for name in names],
        labels=Labels(
            np.array([label for _, label in found], np.int64), tuple(map(as_text, folders))
        ),
    )
    given, facts = _masks_of(folder, part, records, masks)
    facts |= listing_facts(len(records), remote=False)
    return PictureSplit(
        name=path.resolve().name,
        part=part,
        classes=records.labels.classes,
        records=records,
        masks=given,
        mask_kind="box" if masks.boxes is not None else "dataset",
        facts=facts,
    )


def _masks_of(
    folder: Path, part: str, records: FileRecords, masks: MaskFiles
) -> tuple[FileMasks | BoxMasks | None, dict[str, object]]:
    if masks.boxes is not None:
        return find_boxes(masks.boxes, records)
    if masks.root is None:
        return None, {}
    tree = masks.root / part if (masks.root / part).is_dir() else masks.root
    if tree.exists() and not tree.is_dir():
        raise DataError(
            f"{masks.root} is a file, where a folder of masks should be",
            expected="a folder with one mask file a picture, in the same sub-folders",
            found="a file",
            remedy="name the folder that holds the masks with --mask-root; "
            "a file of bounding boxes goes with --boxes",
        )
    if not tree.is_dir():
        raise DataError(f"the mask folder {masks.root} does not exist")
    if tree.resolve() == folder.resolve():
        raise DataError(
            f"{masks.root} holds the images, not their masks",
            expected="another folder with the same tree of mask files",
        )
    return find_masks(tree, records.names, masks)


def _folder_of_part(path: Path, part: str) -> Path:
    if (path / part).is_dir():
        return path / part
    if not path.is_dir():
        raise DataError(
            f"the image folder {path} does not exist",
            expected="a folder with one sub-folder per class",
            remedy="check the path after folder:",
        )
    others = sorted(e.name for e in path.iterdir() if e.is_dir() and not e.name.startswith("."))
    # "train" alone may be a class (railways have them); a folder of nothing but such names is not.
    if others and set(others) <= set(_PARTS):
        raise DataError(
            f"{path} has no split named '{part}'",
            expected=f"the folder {path / part}",
            found=", ".join(others),
            remedy=f"name another with --split, for example --split {others[0]}",
        )
    return path


def _images_in(folder: Path) -> list[Path]:
    """Image files at any depth, sorted; hidden ones are left out."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}")

    return sorted(
        Path(place) / name
        for place, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    )
