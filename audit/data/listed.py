"""Samples and masks that lie in one file or object each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audit.data.decode import UnreadableImage
from audit.data.labels import Labels
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size, read_mask
from audit.data.pictures import Window
from audit.data.places import digests, join, read_bytes, shown
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
    """

    base: str
    names: Sequence[str]
    ids: Sequence[str]
    labels: Labels
    windows: Sequence[Window] | None = None

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
        if not self.names[i]:
            raise UnreadableImage("no file is named")
        return read_bytes(join(self.base, self.names[i]))

    def window(self, i: int) -> Window | None:
        """See :class:`audit.data.pictures.Records`."""
        return None if self.windows is None else self.windows[i]

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Records`."""
        # Once each, for the instances of a picture share its file.
        return digests(join(self.base, name) for name in dict.fromkeys(self.names))


@dataclass(frozen=True, kw_only=True)
class FileMasks:
    """Masks in files.

    Attributes:
        base: The folder (or URI) below which they lie.
        names: For each sample the files that may be its mask: usable only where it is one.
        files: Which values mean what.
        wanted: What was looked for, for messages.
    """

    base: str
    names: Sequence[Sequence[str]]
    files: MaskFiles
    wanted: str = "none is named"

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        names = self.names[i]
        if not names:
            raise BadMask(MASK_MISSING, f"it has no mask: {self.wanted}")
        if len(names) > 1:
            listed = ", ".join(map(shown, names))
            raise BadMask(MASK_UNREADABLE, f"which file is its mask is not clear: {listed}")
        return read_mask(join(self.base, names[0]), shown(names[0]), self.files, size)

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        yield repr((self.files.object_values, self.files.unknown_values))
        yield repr([len(names) for names in self.names])
        yield from digests(join(self.base, name) for names in self.names for name in names)
