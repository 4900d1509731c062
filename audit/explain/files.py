"""Which pictures are meant, what is read of them, and where drawings go."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from audit.data import Geometry
from audit.data.decode import UnreadableImage, decode_rgb
from audit.errors import DataError, UsageError, visible
from audit.report.pictures.panels import MADE_BY, Box

# Pixels of a batch as the network sees it, and of the decoded pictures that are kept meanwhile.
_BATCH_PIXELS = 16 * 224 * 224
_KEPT_PIXELS = 64_000_000
_LARGEST_BATCH = 64
_LARGEST_RESIZED = 500_000_000
_OURS = re.compile(r"_(heatmap|channels)(_\d+)?\.jpg$")
# File systems allow 255 bytes, and a suffix is put behind a file while it is written.
_LONGEST_STEM = 150


def find_images(given: Path | str | Iterable[Path | str]) -> list[Path]:
    """The pictures that files, folders and globs name, each once.

    Args:
        given: Of a folder, and of what a glob matches, the files with the ending of an image are
            taken; a file that is named itself always is. What starts with a dot, and what
            :func:`explain_images` drew, is left out of folders and globs.

    Returns:
        In the order given; those of a folder or glob sorted.

    Raises:
        UsageError: If one of them names nothing.
    """
    names = [given] if isinstance(given, (str, Path)) else list(given)
    found: dict[Path, Path] = {}
    for name in names:
        for path in _matches(name):
            found.setdefault(path.absolute(), path)
    if not found:
        raise UsageError("no picture is named", expected="files, folders or globs")
    return list(found.values())


def _matches(name: Path | str) -> list[Path]:
    path = Path(name)
    if path.is_dir():
        return _in_folder(path) or _refuse_nothing(name, "a folder without images")
    if path.is_file():
        return [path]
    # Not Path.glob, which takes no absolute patterns.
    matched = sorted(map(Path, glob.glob(str(name), recursive=True)))  # noqa: PTH207
    found = [file for match in matched for file in _in_folder(match)]
    reason = "nothing of that name" if not matched else f"{len(matched)} files, none an image"
    return found or _refuse_nothing(name, reason)


def _in_folder(place: Path) -> list[Path]:
    """Image files at any depth, sorted; of a file, itself if it is one."""

    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}")

    if not place.is_dir():
        return [place] if _is_picture(place) else []
    found: list[Path] = []
    for folder, folders, names in os.walk(place, onerror=refuse):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [Path(folder) / name for name in names]
    return sorted(file for file in found if _is_picture(file))


def _is_picture(file: Path) -> bool:
    name = file.name
    return (
        name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".") and not _drawn_here(file)
    )


def _drawn_here(file: Path) -> bool:
    if not _OURS.search(file.name):
        return False
    with contextlib.suppress(OSError), file.open("rb") as content:
        return MADE_BY in content.read(256)
    return False


def _refuse_nothing(name: Path | str, found: str) -> list[Path]:
    raise UsageError(
        f"no picture matches '{as_text(name)}'",
        expected="an image file, a folder of them, or a glob such as 'photos/*.jpg'",
        found=found,
    )


def as_text(path: Path | str) -> str:
    """A path for people; bytes that are not UTF-8 and control characters are escaped."""
    return visible(os.fsencode(path).decode("utf-8", "backslashreplace"))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a picture's drawings go."""

    heatmap: Path
    channels: Path


def places_of(files: Sequence[Path], out: Path) -> dict[Path, Place]:
    """A name for each drawing that no other has, and no picture that is explained.

    Args:
        files: The pictures.
        out: The folder for the drawings.

    Returns:
        By picture: ``<name>_heatmap.jpg``, and for the second of a name ``<name>_heatmap_2.jpg``.

    Example:
        >>> places = places_of([Path("a/cat.png"), Path("b/cat.jpg")], Path("out"))
        >>> [str(place.heatmap) for place in places.values()]
        ['out/cat_heatmap.jpg', 'out/cat_heatmap_2.jpg']
    """
    taken = {_identity(file.resolve()) for file in files}
    folder = out.resolve()
    used: Counter[str] = Counter()
    places = {}
    for file in files:
        stem = os.fsencode(file.stem)[:_LONGEST_STEM].decode("utf-8", "ignore") or "image"
        while True:
            used[_identity(stem)] += 1
            place = _numbered(out, stem, used[_identity(stem)])
            both = {_identity(folder / path.name) for path in (place.heatmap, place.channels)}
            if not both & taken:
                break
        taken |= both
        places[file] = place
    return places


def _numbered(out: Path, stem: str, number: int) -> Place:
    tail = f"_{number}.jpg" if number > 1 else ".jpg"
    return Place(heatmap=out / f"{stem}_heatmap{tail}", channels=out / f"{stem}_channels{tail}")


def _identity(path: Path | str) -> str:
    """The same for two names where capitals do not count, as on some file systems."""
    return str(path).casefold()


@dataclass(frozen=True, kw_only=True)
class Read:
    """A picture that was read, or why it could not be.

    Attributes:
        path: The file.
        picture: uint8 3×H×W, upright.
        framed: As the network sees it.
        box: What of the picture that is.
        reason: Why there is none.
    """

    path: Path
    picture: Tensor | None = None
    framed: Tensor | None = None
    box: Box = (0, 0, 0, 0)
    reason: str = ""


def read_batches(files: Sequence[Path], geometry: Geometry) -> Iterator[list[Read]]:
    """So many pictures together that neither they nor their copies for the network are too much."""
    most = max(1, min(_LARGEST_BATCH, _BATCH_PIXELS // (geometry.size[0] * geometry.size[1])))
    batch: list[Read] = []
    pixels = 0
    for file in files:
        read = _read(file, geometry)
        batch.append(read)
        pixels += read.picture[0].numel() if read.picture is not None else 0
        if len(batch) == most or pixels > _KEPT_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _read(file: Path, geometry: Geometry) -> Read:
    try:
        picture = decode_rgb(file.read_bytes())
    except OSError as error:
        return Read(path=file, reason=error.strerror or str(error))
    except UnreadableImage as error:
        # Pillow names the buffer that it was given.
        reason = re.sub(r" <_io\S+ object at \w+>", "", str(error)).partition("\n")[0]
        return Read(path=file, reason=reason if file.stat().st_size else "the file is empty")
    height, width = picture.shape[1:]
    box = geometry.box(height, width)
    # The resize comes before the crop, so that a strip of a picture becomes very large.
    times = geometry.size[0] / (box[2] - box[0]) * geometry.size[1] / (box[3] - box[1])
    if height * width * times > _LARGEST_RESIZED:
        return Read(path=file, reason=f"it is too narrow: {width}×{height} pixels")
    return Read(path=file, picture=picture, framed=geometry(picture, None)[0], box=box)
