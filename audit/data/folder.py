"""``folder:PATH``: one sub-folder of images a class, and optionally the same tree of masks."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from audit.data.decode import UnreadableImage, decode_mask, decode_rgb
from audit.data.geometry import Geometry
from audit.data.split import MASK_MISMATCH, MASK_MISSING, OK, UNREADABLE, Batch, MaskKind
from audit.errors import DataError

_GEOMETRY = Geometry.square(32)
# Folders that are splits rather than classes.
_PARTS = ("train", "val", "valid", "validation", "test")
_MASK_EXTENSIONS = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")


def open_folder(path: Path, part: str, *, mask_root: Path | None) -> FolderSplit:
    """Open a folder of images.

    Args:
        path: Holds one sub-folder a class; or ``path/part`` does.
        part: The split's name.
        mask_root: A parallel tree: ``mask_root/<class>/<stem>.png`` (or ``…/part/<class>/…``).

    Returns:
        The split, 32×32 until it is ``framed``. Classes are the sub-folders' names, sorted; one
        without images stays a class.

    Raises:
        DataError: If a folder is absent or holds no classes.
    """
    folder = _folder_of_part(path, part)
    classes = tuple(
        sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))
    )
    if not classes:
        raise DataError(
            f"the image folder {folder} holds no classes",
            expected="one sub-folder per class",
            found=f"{sum(1 for _ in folder.iterdir())} files",
        )
    masks = None
    if mask_root is not None:
        masks = mask_root / part if (mask_root / part).is_dir() else mask_root
        if not masks.is_dir():
            raise DataError(f"the mask folder {mask_root} does not exist")
        if masks.resolve() == folder.resolve():
            raise DataError(
                f"{mask_root} holds the images, not their masks",
                expected="another folder with the same tree of mask files",
            )
    return FolderSplit(path.resolve().name, part, folder, classes, masks, _GEOMETRY)


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
        if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
    )


class FolderSplit:
    """Images of a folder tree, decoded, resized and cropped as they are fetched."""

    in_memory = False
    mask_kind: MaskKind = "dataset"

    def __init__(
        self,
        name: str,
        part: str,
        folder: Path,
        classes: tuple[str, ...],
        masks: Path | None,
        geometry: Geometry,
    ) -> None:
        self.name = name
        self.part = part
        self.classes = tuple(_as_text(Path(c)) for c in classes)
        self.has_masks = masks is not None
        self.facts: Mapping[str, object] = {}
        self._folder = folder
        self._masks = masks
        self._files = [
            (file, label)
            for label, name in enumerate(classes)
            for file in _images_in(folder / name)
        ]
        self._geometry = geometry

    @property
    def image_size(self) -> tuple[int, int]:
        """See :class:`audit.data.split.Split`."""
        return self._geometry.size

    def fingerprint(self) -> str:
        """See :class:`audit.data.split.Split`."""
        digest = hashlib.sha256(repr((self.classes, self._geometry)).encode())
        files = [file for file, _ in self._files]
        files += [mask for mask in map(self._mask_of, files) if mask is not None]
        with ThreadPoolExecutor() as pool:
            for file, content in zip(files, pool.map(_digest, files), strict=True):
                root = self._folder if file.is_relative_to(self._folder) else self._masks
                digest.update(os.fsencode(file.relative_to(root or self._folder)))
                digest.update(f" {content}\n".encode())
        return digest.hexdigest()

    def framed(self, geometry: Geometry) -> FolderSplit:
        """See :class:`audit.data.split.Split`."""
        # A copy, because walking a large folder again takes minutes.
        other = copy.copy(self)
        other._geometry = geometry
        return other

    def __len__(self) -> int:
        return len(self._files)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        height, width = self.image_size
        images = torch.zeros(len(indices), 3, height, width, dtype=torch.uint8)
        masks = torch.zeros(len(indices), height, width) if self.has_masks else None
        status = [OK] * len(indices)
        for row, position in enumerate(indices):
            status[row], image, mask = self._read(self._files[position][0])
            if image is not None:
                images[row] = image
            if mask is not None and masks is not None:
                masks[row] = mask
        return Batch(
            index=torch.as_tensor(indices, dtype=torch.int64),
            sample_id=[_as_text(self._files[i][0].relative_to(self._folder)) for i in indices],
            images=images,
            labels=torch.tensor([self._files[i][1] for i in indices], dtype=torch.int64),
            object_mask=masks,
            status=status,
        )

    def _read(self, file: Path) -> tuple[str, Tensor | None, Tensor | None]:
        try:
            image = decode_rgb(file.read_bytes())
        except (OSError, UnreadableImage):
            return UNREADABLE, None, None
        status, mask = self._read_mask(file, image.shape[1:])
        return status, *self._geometry(image, mask)

    def _read_mask(self, file: Path, size: torch.Size) -> tuple[str, Tensor | None]:
        """The mask of an image of this size, and what is wrong where there is none."""
        if self._masks is None:
            return OK, None
        mask_file = self._mask_of(file)
        if mask_file is None:
            return MASK_MISSING, None
        try:
            mask = decode_mask(mask_file.read_bytes())
        except (OSError, UnreadableImage):
            return MASK_MISSING, None
        return (OK, mask) if mask.shape == size else (MASK_MISMATCH, None)

    def _mask_of(self, file: Path) -> Path | None:
        if self._masks is None:
            return None
        base = self._masks / file.relative_to(self._folder)
        candidates = (base.with_suffix(extension) for extension in _MASK_EXTENSIONS)
        return next((mask for mask in candidates if mask.is_file()), None)


def _as_text(path: Path) -> str:
    """A path as text; bytes of a name that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"
