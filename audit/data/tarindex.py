"""What lies where in tar files: one pass over their headers, kept for the next time."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from audit.data.identity import Stamp
from audit.data.places import as_text, is_uri, reason
from audit.data.reading import RangeFile, Reader
from audit.errors import DataError, OutputError
from audit.files import make_folder, write_parquet

FOLDER = "tars"  # under the folder of caches
IMAGES = frozenset(
    {"jpg", "jpeg", "png", "webp", "bmp", "gif", "ppm", "pgm", "pbm", "tif", "tiff"}
)  # fmt: skip
MASKS = frozenset({"mask.png", "seg.png"})
CLASS_FILES = ("classes.txt", "classes.json")
_LAYOUT = "1"  # of the index; those of another are made again
_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.string()),
        ("image_start", pa.int64()),
        ("image_bytes", pa.int64()),
        ("mask_start", pa.int64()),
        ("mask_bytes", pa.int64()),
        ("image_problem", pa.string()),
        ("label_problem", pa.string()),
        ("mask_problem", pa.string()),
    ]
)
# As WebDataset takes names apart: a folder and what comes before the first dot; the rest.
_NAME = re.compile(r"^(?P<key>(?:.*/|)[^./][^./]*)\.(?P<ending>[^/]*)$", re.DOTALL)
_COMPRESSED = {
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ\x00": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_COMPRESSED_ENDINGS = (".gz", ".tgz", ".bz2", ".xz", ".zst")
# A label or a list of classes is short; so are extended headers. More is not read.
_LONGEST_TEXT = 2**20
# What a store is asked for at a time while headers are read.
_AT_A_TIME = 2**20
_DAMAGED = (tarfile.TarError, ValueError, KeyError, OverflowError, RecursionError, MemoryError)


class Range(NamedTuple):
    """Where a member's bytes lie in its tar; ``length`` is -1 where there is none."""

    start: int
    length: int


_NOWHERE = Range(0, -1)


@dataclass
class _Sample:
    """What has one key."""

    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    image: Range = _NOWHERE
    mask: Range = _NOWHERE
    label: str | None = None
    said: str | None = None  # the label in .json, which counts where there is no .cls
    image_problem: str | None = None
    label_problem: str | None = None
    mask_problem: str | None = None


def index_of(place: str, stamp: Stamp, cache: Path | None, reader: Reader) -> pa.Table:
    """Where the samples of one tar lie.

    Args:
        place: The tar: a path or URI.
        stamp: Its size and version.
        cache: The folder of caches; ``None`` keeps nothing.
        reader: What reads it.

    Returns:
        A row a sample, in the order of their first members: its key, its label as text, where
        picture and mask lie, and what is wrong with each. The metadata may hold ``classes``, and
        the name of their file.

    Raises:
        DataError: If it is compressed, damaged or cannot be read.
    """
    kept = None if cache is None else _kept_place(place, stamp, cache)
    if kept is not None:
        with contextlib.suppress(OSError, pa.ArrowInvalid):
            table = pq.read_table(kept)
            if table.schema.equals(_SCHEMA, check_metadata=False):
                return table
    table = _scan(place, stamp.size, reader)
    if kept is not None:
        # A cache that cannot be written costs time, not the run.
        with contextlib.suppress(OutputError):
            make_folder(kept.parent)
            write_parquet(kept, table)
    return table


def _kept_place(place: str, stamp: Stamp, cache: Path) -> Path:
    whole = place if is_uri(place) else str(Path(place).resolve())
    key = hashlib.sha256(repr((_LAYOUT, whole, *stamp)).encode(errors="surrogatepass"))
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", Path(place).stem)[:60]
    return cache / FOLDER / f"{stem}-{key.hexdigest()[:16]}.parquet"


def _scan(place: str, size: int, reader: Reader) -> pa.Table:
    found = _Scan()
    try:
        with _opened(place, size, reader) as file:
            _refuse_compressed(place, file)
            for member in _members(file, size):
                found.add(member, file)
    except _DAMAGED as error:
        raise DataError(
            f"the tar file {as_text(place)} is damaged",
            expected="a whole tar file, with two blocks of zeros at its end",
            found=str(error).partition("\n")[0] or type(error).__name__,
            remedy="make or download it again, or leave it out of the pattern",
        ) from error
    except OSError as error:
        raise DataError(
            f"the tar file {as_text(place)} cannot be read", found=reason(error)
        ) from error
    return found.table()


class _Scan:
    """The samples and the list of classes that members make."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}
        self._classes: dict[bytes, bytes] = {}

    def add(self, member: tarfile.TarInfo, file: _Headers) -> None:
        """Take in one member."""
        name = as_text(member.name.removeprefix("./"))
        match = _NAME.match(name)
        if member.isdir() or match is None:
            return
        ending = match["ending"].lower()
        if name.rpartition("/")[2] in CLASS_FILES and not self._classes:
            content = file.content(member)
            if content is not None:
                self._classes = {b"classes": content, b"classes_file": name.encode()}
            return
        if ending in IMAGES | MASKS | {"cls", "json"}:
            sample = self._samples.setdefault(match["key"], _Sample())
            _take(sample, name, ending, member, file)

    def table(self) -> pa.Table:
        """A row for each key that has a picture, a label or a mask."""
        rows = [
            _row(key, sample)
            for key, sample in self._samples.items()
            if sample.images or sample.labels or sample.masks or sample.said
        ]
        return pa.Table.from_pylist(rows, _SCHEMA.with_metadata(self._classes or None))


def _take(sample: _Sample, name: str, ending: str, member: tarfile.TarInfo, file: _Headers) -> None:
    plain = member.isreg() and not member.issparse()
    trouble = None if plain else f"{name} is a link or the like, which is not followed"
    where = Range(member.offset_data, member.size)
    if ending in IMAGES:
        sample.images.append(name)
        sample.image, sample.image_problem = where, trouble
    elif ending in MASKS:
        sample.masks.append(name)
        sample.mask, sample.mask_problem = where, trouble
    elif ending == "cls":
        sample.labels.append(name)
        sample.label, sample.label_problem = _text_in(name, file.content(member))
    else:
        sample.said, problem = _label_in(name, file.content(member))
        sample.label_problem = sample.label_problem or problem


def _row(key: str, sample: _Sample) -> dict[str, Any]:
    image_problem = sample.image_problem or _unclear("picture", sample.images)
    if not sample.images:
        image_problem = "no member of the tar is its picture"
    label = sample.label if sample.labels else sample.said
    return {
        "key": key,
        "label": None if len(sample.labels) > 1 else label,
        "image_start": sample.image.start,
        "image_bytes": sample.image.length,
        "mask_start": sample.mask.start,
        "mask_bytes": sample.mask.length,
        "image_problem": image_problem,
        "label_problem": _unclear("label", sample.labels)
        or (sample.label_problem if label is None else None),
        "mask_problem": sample.mask_problem or _unclear("mask", sample.masks),
    }


def _unclear(what: str, names: list[str]) -> str | None:
    if len(names) < 2:
        return None
    return f"which member is its {what} is not clear: {', '.join(names)}"


def _text_in(name: str, content: bytes | None) -> tuple[str | None, str | None]:
    """The text in a member, and what is wrong with it."""
    try:
        return (content or b"").decode().strip() or None, None
    except UnicodeDecodeError:
        return None, f"{name} is no text"


def _label_in(name: str, content: bytes | None) -> tuple[str | None, str | None]:
    """What ``label`` says in a JSON object, and what is wrong with it.

    Example:
        >>> _label_in("x.json", b'{"label": 3}'), _label_in("x.json", b'[1]')
        (('3', None), (None, None))
    """
    try:
        said = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return None, f"{name} is no JSON"
    label = said.get("label") if isinstance(said, dict) else None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if label is None or (isinstance(label, int | str) and not isinstance(label, bool)):
        return (None if label is None else str(label).strip() or None), None
    return None, f"the label in {name} is neither a number nor text"


class _Headers:
    """A tar file for Python's parser, which is kept from reading much at once.

    Args:
        file: The tar.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file

    def read(self, count: int = -1) -> bytes:
        """So many bytes."""
        if not 0 <= count <= _LONGEST_TEXT:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)

    def seek(self, offset: int) -> int:
        """Move to a position."""
        if offset < 0:
            raise tarfile.ReadError("a member before the file's first byte")
        return self._file.seek(offset)

    def tell(self) -> int:
        """The position of the next byte."""
        return self._file.tell()

    def content(self, member: tarfile.TarInfo) -> bytes | None:
        """A short member's bytes; ``None`` where it is long, or no file."""
        if not member.isreg() or member.issparse() or member.size > _LONGEST_TEXT:
            return None
        self.seek(member.offset_data)
        return self.read(member.size)


def _members(file: _Headers, size: int) -> Iterator[tarfile.TarInfo]:
    """A tar's members; raises a ``TarError`` where it does not end as it should."""
    file.seek(0)
    # An empty tar is two blocks of zeros; Python writes them for no member at all.
    with tarfile.open(fileobj=file, mode="r:") as tar:  # type: ignore[call-overload]
        before = -1
        while (member := tar.next()) is not None:
            tar.members = []  # else all of them are kept
            if member.size < 0 or member.offset_data <= before:
                raise tarfile.ReadError(f"{as_text(member.name)} lies before the member before it")
            if not (member.islnk() or member.issym()) and member.offset_data + member.size > size:
                raise tarfile.ReadError(f"{as_text(member.name)} reaches beyond the file's end")
            before = member.offset_data
            yield member
        _refuse_other_end(file, tar.offset, size)


def _refuse_other_end(file: _Headers, offset: int, size: int) -> None:
    """Raise a ``TarError`` where the parser took something for the end that is none."""
    file.seek(offset)
    # A damaged header is one.
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at byte {offset}")
    # So is the end of the first of several tars in one file, whose others would be left out.
    left = size - offset - tarfile.BLOCKSIZE
    if left > _LONGEST_TEXT or any(file.read(max(0, left))):
        raise tarfile.ReadError(f"something lies behind its end at byte {offset}")


@contextlib.contextmanager
def _opened(place: str, size: int, reader: Reader) -> Iterator[_Headers]:
    if is_uri(place):
        yield _Headers(io.BufferedReader(RangeFile(place, size, reader), _AT_A_TIME))
        return
    with Path(place).open("rb") as file:
        yield _Headers(file)


def _refuse_compressed(place: str, file: _Headers) -> None:
    start = file.read(8)
    tool = next((tool for magic, tool in _COMPRESSED.items() if start.startswith(magic)), None)
    if tool is None and place.lower().endswith(_COMPRESSED_ENDINGS):
        tool = "tar"
    if tool is not None:
        raise DataError(
            f"the tar file {as_text(place)} is compressed",
            expected="a plain tar file: a compressed one cannot be read from its middle",
            found=as_text(Path(place).name),
            remedy="pack it again without compression"
            if tool == "tar"
            else f"unpack it with {tool}; pictures in it are compressed already",
        )
