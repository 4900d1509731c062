"""``webdataset:PATTERN``: pictures in tar files, read from their middle and never unpacked."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audit.data.decode import UnreadableImage
from audit.data.identity import MOST_READ, Stamp, identities, listing_facts, stamps
from audit.data.labels import Labels, labels_of
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size, decode_mask
from audit.data.parquet import last_part
from audit.data.pictures import PictureSplit, Window
from audit.data.places import as_text, is_uri, join, matching, reason, require_backends
from audit.data.reading import Piece, Reader, ReadPolicy
from audit.data.split import MASK_MISSING, MASK_UNREADABLE
from audit.data.tarindex import CLASS_FILES, index_of
from audit.errors import DataError

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"^(\d+)\.\.(\d+)$")
_MOST_SHARDS = 1_000_000
_NAMED = re.compile(r"^(?P<part>.+?)-\d+\.tar$")
_ENDINGS = r"\.(tar|tgz)(\.\w+)?$"
# Tars indexed at once, and indexes that each process keeps.
_AT_ONCE = 16
_KEPT = 64
# Above so many bytes the content of local tars is not read for the fingerprint.
MOST_BYTES = 2**33


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        place: A path or URI.
        name: What its samples' names begin with.
        stamp: Its size and version.
    """

    place: str
    name: str
    stamp: Stamp


@dataclass(frozen=True)
class Row:
    """Where one sample lies.

    Attributes:
        shard: Its tar.
        key: Its name in the tar.
        image: The picture's bytes.
        mask: The mask's; ``None`` where it has none.
        image_problem: Why there is no picture; empty where there is one.
        mask_problem: Why the mask cannot be used.
    """

    shard: Shard
    key: str
    image: Piece
    mask: Piece | None
    image_problem: str
    mask_problem: str


class Shards:
    """The samples of several tars, by number; indexes are read as they are asked for.

    Args:
        shards: The tars, in order.
        cache: The folder of caches; ``None`` holds all indexes in memory.
        reader: What reads the tars.

    Raises:
        DataError: If one is compressed, damaged or cannot be read.
    """

    def __init__(self, shards: Sequence[Shard], cache: Path | None, reader: Reader) -> None:
        self.shards = tuple(shards)
        self._cache = cache
        self._reader = reader
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()
        labels: list[pa.Array] = []
        counts: list[int] = []
        self.classes: tuple[str, bytes] | None = None
        self.has_masks = False
        self.remarks: dict[int, str] = {}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for number, table in enumerate(pool.map(self._read, range(len(shards)))):
                self._keep(number, table)
                self._take_remarks(sum(counts), table["label_problem"])
                counts.append(len(table))
                labels.append(table["label"].combine_chunks().dictionary_encode())
                told = table.schema.metadata or {}
                if self.classes is None and b"classes" in told:
                    self.classes = told[b"classes_file"].decode(), told[b"classes"]
                given = pc.or_(
                    pc.greater_equal(table["mask_bytes"], 0), pc.is_valid(table["mask_problem"])
                )
                self.has_masks |= bool(pc.any(given).as_py())
        self.labels = pa.chunked_array(labels, pa.dictionary(pa.int32(), pa.string()))
        self._starts = [0, *itertools.accumulate(counts)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | ({} if self._cache is None else {"_kept": OrderedDict()})

    def row(self, i: int) -> Row:
        """Where a sample lies.

        Raises:
            DataError: If the index has gone and the tar cannot be read any more.
        """
        number = bisect.bisect_right(self._starts, i) - 1
        table = self._kept.get(number)
        if table is None:
            table = self._read(number)
            self._keep(number, table)
        said = {name: table[name][i - self._starts[number]].as_py() for name in table.column_names}
        place = self.shards[number].place
        start, mask = said["image_start"], said["mask_start"]
        has_mask = said["mask_bytes"] >= 0
        return Row(
            shard=self.shards[number],
            key=said["key"],
            image=Piece(place, start, start + max(0, said["image_bytes"])),
            mask=Piece(place, mask, mask + said["mask_bytes"]) if has_mask else None,
            image_problem=said["image_problem"] or "",
            mask_problem=said["mask_problem"] or "",
        )

    def _read(self, number: int) -> pa.Table:
        shard = self.shards[number]
        return index_of(shard.place, shard.stamp, self._cache, self._reader).combine_chunks()

    def _keep(self, number: int, table: pa.Table) -> None:
        self._kept[number] = table
        while self._cache is not None and len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def _take_remarks(self, start: int, problems: pa.ChunkedArray) -> None:
        for i in np.flatnonzero(problems.is_valid().to_numpy()):
            self.remarks[start + int(i)] = problems[int(i)].as_py()


@dataclass(frozen=True, kw_only=True)
class ShardRecords:
    """Pictures in tars.

    Attributes:
        shards: Where they lie.
        labels: Each sample's label.
        reader: What reads them.
    """

    shards: Shards
    labels: Labels
    reader: Reader = field(default_factory=Reader)

    def __len__(self) -> int:
        return len(self.shards)

    def sample_id(self, i: int) -> str:
        """See :class:`audit.data.pictures.Records`."""
        row = self.shards.row(i)
        return f"{row.shard.name}/{row.key}"

    def label(self, i: int) -> int:
        """See :class:`audit.data.pictures.Records`."""
        return self.labels.at(i)

    def picture(self, i: int) -> bytes:
        """See :class:`audit.data.pictures.Records`."""
        row = self.shards.row(i)
        if row.image_problem:
            raise UnreadableImage(row.image_problem)
        return self.reader.read(row.image)

    def window(self, i: int) -> Window | None:
        """See :class:`audit.data.pictures.Records`."""
        return None

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Records`."""
        return _told_of(self.shards.shards, self.reader)

    def ahead(self, indices: Sequence[int]) -> ShardRecords:
        """See :class:`audit.data.pictures.ReadAhead`."""
        rows = [self.shards.row(i) for i in indices]
        pieces = [row.image for row in rows if not row.image_problem and is_uri(row.image.place)]
        return replace(self, reader=self.reader.ahead(pieces)) if pieces else self


@dataclass(frozen=True, kw_only=True)
class ShardMasks:
    """Masks in tars.

    Attributes:
        shards: Where they lie.
        files: Which values mean what.
        reader: What reads them.
    """

    shards: Shards
    files: MaskFiles
    reader: Reader = field(default_factory=Reader)

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        row = self.shards.row(i)
        if row.mask_problem:
            raise BadMask(MASK_UNREADABLE, f"its mask cannot be read: {row.mask_problem}")
        if row.mask is None:
            raise BadMask(MASK_MISSING, "no member .mask.png or .seg.png has its key")
        try:
            data = self.reader.read(row.mask)
        except OSError as error:
            raise BadMask(MASK_UNREADABLE, f"its mask cannot be read: {reason(error)}") from error
        return decode_mask(data, self.files, f"in {row.shard.name}", size)

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        # Their bytes are in the tars that the records name.
        yield repr((self.files.object_values, self.files.unknown_values))

    def ahead(self, indices: Sequence[int]) -> ShardMasks:
        """See :class:`audit.data.pictures.ReadAhead`."""
        masks = [self.shards.row(i).mask for i in indices]
        pieces = [mask for mask in masks if mask is not None and is_uri(mask.place)]
        return replace(self, reader=self.reader.ahead(pieces)) if pieces else self


def open_webdataset(
    pattern: str,
    part: str,
    masks: MaskFiles,
    *,
    cache: Path | None = None,
    policy: ReadPolicy | None = None,
) -> PictureSplit:
    """Open tar files in WebDataset's layout.

    Members whose path agrees up to the first dot of their base name are one sample: a picture
    (``.jpg``, ``.png``, ``.webp`` …), its label in ``.cls`` (a number or a name) or as ``label``
    in ``.json``, optionally its mask as ``.mask.png`` or ``.seg.png``. Nothing is unpacked.

    Args:
        pattern: A tar file, a folder of them, a glob, or a range in braces, as path or URI:
            ``data/test-{000000..000009}.tar``. Of files named ``<part>-000000.tar`` in a folder
            or glob those of ``part`` are taken.
        part: The split's name.
        masks: Which values of masks mean what.
        cache: The folder of caches, where the indexes of tars are kept; ``None`` keeps none.
        policy: How long and how often objects in a store are asked for.

    Returns:
        The split, 32×32 until it is ``framed``.

    Raises:
        DataError: If nothing matches, or a tar is compressed, damaged or cannot be read.
    """
    require_backends([pattern])
    reader = Reader(policy=policy or ReadPolicy())
    places = _of_part(_places_of(pattern), pattern, part)
    shards = Shards(_stamped(places, reader.policy), cache, reader)
    labels = _labels_of(shards, _class_names(places[0], shards, reader), pattern)
    inside = ShardMasks(shards=shards, files=masks, reader=reader) if shards.has_masks else None
    return PictureSplit(
        name=_name_of(pattern, places),
        part=part,
        classes=labels.classes,
        records=ShardRecords(shards=shards, labels=labels, reader=reader),
        masks=inside,
        facts=listing_facts(0, remote=not _may_be_read(shards.shards)) | labels.facts,
        identity=partial(_identity, shards.shards, masks, reader),
    )


def braces_opened(pattern: str) -> list[str]:
    """What a pattern with ranges or choices in braces means.

    Raises:
        DataError: If it is more than a million names.

    Example:
        >>> braces_opened("s3://b/t-{08..10}.tar")
        ['s3://b/t-08.tar', 's3://b/t-09.tar', 's3://b/t-10.tar']
        >>> braces_opened("{a,b}.tar")
        ['a.tar', 'b.tar']
    """
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    numbers = _RANGE.match(match[1])
    if numbers is None:
        choices = match[1].split(",")
    else:
        first, last = int(numbers[1]), int(numbers[2])
        if abs(last - first) >= _MOST_SHARDS:
            raise DataError(
                f"webdataset:{pattern} names more than {_MOST_SHARDS:,} files", found=match[0]
            )
        step = 1 if last >= first else -1
        width = max(len(numbers[1]), len(numbers[2])) if numbers[1].startswith("0") else 0
        choices = [f"{n:0{width}d}" for n in range(first, last + step, step)]
    rest = braces_opened(pattern[match.end() :])
    if len(rest) * len(choices) > _MOST_SHARDS:
        raise DataError(f"webdataset:{pattern} names more than {_MOST_SHARDS:,} files")
    return [f"{pattern[: match.start()]}{choice}{end}" for choice in choices for end in rest]


def _places_of(pattern: str) -> list[str]:
    found: list[str] = []
    opened = braces_opened(pattern)
    # A file may have braces in its name.
    if not is_uri(pattern) and Path(pattern).is_file():
        return [pattern]
    for each in opened:
        matched = matching(each, ".tar")
        found += [each] if matched is None else matched
    if not found:
        raise DataError(
            f"no file matches webdataset:{pattern}",
            expected="a tar file, a folder of them, a glob or a range, for example "
            "'webdataset:data/test-{000000..000009}.tar'",
            found="nothing",
        )
    return list(dict.fromkeys(found))


def _of_part(places: Sequence[str], pattern: str, part: str) -> list[str]:
    """Those of one part, where all are named after theirs."""
    named = {place: match["part"] for place in places if (match := _NAMED.match(last_part(place)))}
    parts = sorted(set(named.values()))
    if len(named) < len(places) or len(parts) < 2:
        return list(places)
    if part not in parts:
        raise DataError(
            f"webdataset:{pattern} has no split named '{part}'",
            expected=" | ".join(parts[:20]),
            found=part,
            remedy=f"name another with --split, for example --split {parts[0]}",
        )
    return [place for place in places if named[place] == part]


def _stamped(places: Sequence[str], policy: ReadPolicy) -> list[Shard]:
    told = stamps(places, policy)
    shards = []
    for place, name in zip(places, _shard_names(places), strict=True):
        stamp = told[place]
        if isinstance(stamp, OSError):
            raise DataError(
                f"the tar file {as_text(place)} cannot be read",
                found=reason(stamp),
                remedy="check the pattern after webdataset:",
            ) from stamp
        if stamp.size < 0:
            raise DataError(f"the server does not tell how large {as_text(place)} is")
        shards.append(Shard(place, name, stamp))
    return shards


def _shard_names(places: Sequence[str]) -> list[str]:
    """What each tar's samples begin with: its name, with folders where two have the same.

    Example:
        >>> _shard_names(["a/x-0.tar", "a/x-1.tar"]), _shard_names(["d/a/x.tar", "d/b/x.tar"])
        (['x-0', 'x-1'], ['a/x', 'b/x'])
    """
    names = [re.sub(_ENDINGS, "", last_part(place)) for place in places]
    if max(Counter(names).values()) == 1:
        return [as_text(name) for name in names]
    whole = [re.sub(_ENDINGS, "", place).split("/") for place in places]
    same = 0
    while len({tuple(parts[: same + 1]) for parts in whole}) == 1:
        same += 1
    return [as_text("/".join(parts[same:])) for parts in whole]


def _class_names(first: str, shards: Shards, reader: Reader) -> tuple[str, ...]:
    """The names in a file beside the tars, else in one of them; empty where there is none."""
    folder = first.rpartition("/")[0] if is_uri(first) else str(Path(first).parent)
    for name in CLASS_FILES:
        place = join(folder, name)
        try:
            return _names_in(reader.read(Piece(place)), name, place)
        except FileNotFoundError:
            continue
        except OSError as error:
            # A store that may not be listed says "forbidden" of what is not there.
            if is_uri(place) and "403" in str(error):
                continue
            raise DataError(f"{as_text(place)} cannot be read", found=reason(error)) from error
    if shards.classes is None:
        return ()
    name, content = shards.classes
    return _names_in(content, name, name)


def _names_in(content: bytes, name: str, place: str) -> tuple[str, ...]:
    try:
        if name.endswith(".json"):
            return _names_said(json.loads(content))
        names = tuple(line.strip() for line in content.decode("utf-8-sig").splitlines())
        return tuple(name for name in names if name)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{as_text(place)} is no list of classes",
            expected="a name a line, or JSON: a list of names, or an object of names and numbers",
            found=str(error).partition("\n")[0],
        ) from error


def _names_said(said: object) -> tuple[str, ...]:
    """Class names from JSON in any usual form.

    Example:
        >>> _names_said(["a", "b"]), _names_said({"b": 1, "a": 0}), _names_said({"0": "a"})
        (('a', 'b'), ('a', 'b'), ('a',))
    """
    if isinstance(said, Mapping):
        named = all(isinstance(value, str) for value in said.values())
        numbers = {int(k): v for k, v in said.items()} if named else {v: k for k, v in said.items()}
        said = [numbers[k] for k in range(len(said))]
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        raise TypeError("something else")
    return tuple(said)


def _labels_of(shards: Shards, names: tuple[str, ...], pattern: str) -> Labels:
    column = shards.labels
    said = {text for chunk in column.chunks for text in chunk.dictionary.to_pylist()}
    if not said and len(shards) and not names:
        raise DataError(
            f"no sample of webdataset:{pattern} has a label",
            expected="members .cls with a number or a name, or .json with 'label'",
            found="neither",
        )
    if said and all(text.isascii() and text.isdigit() and len(text) < 10 for text in said):
        column = column.cast(pa.string()).cast(pa.int64())
    labels = labels_of(column, names, pattern)
    return replace(labels, remarks={**labels.remarks, **shards.remarks})


def _name_of(pattern: str, places: Sequence[str]) -> str:
    """The file's stem; of several files the folder that they lie in."""
    if len(places) == 1 and places[0] == pattern:
        return re.sub(_ENDINGS, "", last_part(pattern))
    folder = places[0].rpartition("/")[0]
    folder = folder if is_uri(places[0]) else str(Path(places[0]).resolve().parent)
    return last_part(folder) or "webdataset"


def _may_be_read(shards: Sequence[Shard]) -> bool:
    """Whether all bytes are read for the fingerprint."""
    local = not any(is_uri(shard.place) for shard in shards)
    return local and sum(shard.stamp.size for shard in shards) <= MOST_BYTES


def _told_of(shards: Sequence[Shard], reader: Reader) -> Iterator[str]:
    count = 0 if _may_be_read(shards) else MOST_READ + 1
    told = identities([shard.place for shard in shards], count, reader)
    for shard, each in zip(shards, told, strict=True):
        yield f"{shard.name} {each}"


def _identity(shards: Sequence[Shard], masks: MaskFiles, reader: Reader) -> str:
    """What stands for names, labels, pictures and masks: all are in the tars."""
    told = [*_told_of(shards, reader), repr((masks.object_values, masks.unknown_values))]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()
