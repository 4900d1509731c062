"""Which file of a tree of masks belongs to which picture."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from audit.data.listed import FileMasks
from audit.data.maskfiles import MaskFiles
from audit.data.places import as_text
from audit.errors import DataError

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
_WORDS = r"(?:masks?|segm?|segmentations?|gt|ground_?truth|matte|alpha)"
_SUFFIX = re.compile(rf"[_.\- ]{_WORDS}$", re.IGNORECASE)
_PREFIX = re.compile(rf"^{_WORDS}[_.\- ]", re.IGNORECASE)


def find_masks(
    tree: Path, pictures: Sequence[str], files: MaskFiles
) -> tuple[FileMasks, dict[str, object]]:
    """Match the files of a tree with pictures, listing the tree once.

    Args:
        tree: The folder of masks.
        pictures: Paths of pictures below their own folder.
        files: Which values of a mask mean what.

    Returns:
        The masks, and how many files of the tree belong to no picture, where there are any.

    Raises:
        DataError: If no file belongs to any picture.
    """
    by_picture: dict[str, list[str]] = defaultdict(list)
    listed = sorted(_files_in(tree))
    for file in listed:
        for served in _served(file):
            by_picture[served].append(file)
    names = [
        tuple(sorted({*by_picture.get(_stem(p), ()), *by_picture.get(p, ())})) for p in pictures
    ]
    used = {file for matched in names for file in matched}
    if pictures and not used:
        first = as_text(pictures[0])
        raise DataError(
            f"no file in {tree} is the mask of any picture",
            expected=f"for {first}: {_example(first)}",
            found=f"{as_text(listed[0])} and the like" if listed else "no image file",
            remedy="name the masks after the pictures, in the same sub-folders",
        )
    facts: dict[str, object] = {"surplus_masks": len(listed) - len(used)}
    wanted = "no file of its name, with or without _mask, lies in the mask folder"
    masks = FileMasks(base=str(tree), names=names, files=files, wanted=wanted)
    return masks, facts if len(used) < len(listed) else {}


def _files_in(tree: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}")

    for place, _, names in os.walk(tree, onerror=refuse):
        below = os.path.relpath(place, tree)
        for name in names:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield name if below == "." else f"{below}/{name}"


def _stem(file: str) -> str:
    """A path without the last extension.

    Example:
        >>> _stem("a.b/x.jpg")
        'a.b/x'
    """
    return os.path.splitext(file)[0]  # noqa: PTH122 - Path would drop surrogates of odd names


def _served(file: str) -> set[str]:
    """Pictures whose mask a file may be: by stem, or by their full name.

    Example:
        >>> sorted(_served("a/x_mask.png")), sorted(_served("x.jpg.png"))
        (['a/x', 'a/x_mask'], ['x.jpg'])
    """
    folder, slash, name = _stem(file).rpartition("/")
    bare = {name, _SUFFIX.sub("", name), _PREFIX.sub("", name)} - {""}
    return {f"{folder}{slash}{each}" for each in bare}


def _example(picture: str) -> str:
    stem = _stem(picture)
    return f"{stem}.png, {stem}_mask.png, {picture}.png or the like"
