"""Samples and masks that lie in one file or object each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from audit.data.decode import UnreadableImage
from audit.data.identity import identities
from audit.data.labels import Labels
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size, read_mask
from audit.data.pictures import Window
from audit.data.places import is_uri, join, shown
from audit.data.reading import Piece, Reader, read_bytes
from audit.data.split import MASK_MISSING, MASK_UNREADABLE


@dataclass(frozen=True, kw_only=True)
class FileRecords:
    """Pictures in files.

    Attributes:
        base: The folder (or URI) below which they lie.
        names: Each picture's path below it, or a complete path or URI.
        ids: Each sample's name.
        labels: Each sample's label.
        windows: The part of the picture that is the sample; ``None`` for whole pictures.
        reader: What reads them.
    """

    base: str
    names: Sequence[str]
    ids: Sequence[str]
    labels: Labels
    windows: Sequence[Window] | None = None
    reader: Reader = field(default_factory=Reader)

    def __len__(self) -> int:
        return len(self.names)

    def sample_id(self, i: int) -> str:
        """See :class:`audit.data.pictures.Records`."""
        return self.ids[i]

    def label(self, i: int) -> int:
        """See :class:`audit.data.pictures.Records`."""
        return self.labels.at(i)

    def picture(self, i: int) -> bytes:
        """See :class:`audit.data.pictures.Records`."""
        name = self.names[i]
        if not name:
            raise UnreadableImage("no file is named")
        return read_bytes(join(self.base, name), self.reader)

    def window(self, i: int) -> Window | None:
        """See :class:`audit.data.pictures.Records`."""
        return None if self.windows is None else self.windows[i]

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Records`."""
        # Once each, for the instances of a picture share its file.
        names = dict.fromkeys(self.names)
        count = len(self) if self.windows is None else len(names)
        return identities((join(self.base, name) for name in names), count, self.reader)

    def ahead(self, indices: Sequence[int]) -> FileRecords:
        """See :class:`audit.data.pictures.ReadAhead`."""
        reader = _ahead(self.reader, self.base, [self.names[i] for i in indices])
        return self if reader is self.reader else replace(self, reader=reader)


@dataclass(frozen=True, kw_only=True)
class FileMasks:
    """Masks in files.

    Attributes:
        base: The folder (or URI) below which they lie.
        names: For each sample the files that may be its mask: usable only where it is one.
        files: Which values mean what.
        wanted: What was looked for, for messages.
        reader: What reads them.
    """

    base: str
    names: Sequence[Sequence[str]]
    files: MaskFiles
    wanted: str = "none is named"
    reader: Reader = field(default_factory=Reader)

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        names = self.names[i]
        if not names:
            raise BadMask(MASK_MISSING, f"it has no mask: {self.wanted}")
        if len(names) > 1:
            listed = ", ".join(map(shown, names))
            raise BadMask(MASK_UNREADABLE, f"which file is its mask is not clear: {listed}")
        place = join(self.base, names[0])
        return read_mask(place, shown(names[0]), self.files, size, self.reader)

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        yield repr((self.files.object_values, self.files.unknown_values))
        yield repr([len(names) for names in self.names])
        places = (join(self.base, name) for names in self.names for name in names)
        yield from identities(places, len(self.names), self.reader)

    def ahead(self, indices: Sequence[int]) -> FileMasks:
        """See :class:`audit.data.pictures.ReadAhead`."""
        chosen = [self.names[i] for i in indices]
        reader = _ahead(self.reader, self.base, [names[0] for names in chosen if len(names) == 1])
        return self if reader is self.reader else replace(self, reader=reader)


def _ahead(reader: Reader, base: str, names: Sequence[str]) -> Reader:
    """A reader that holds these, if there are any in a store; else the same."""
    places = [place for name in names if name and is_uri(place := join(base, name))]
    return reader.ahead(map(Piece, places)) if places else reader
