"""What a place of whole files can do, whichever kind of place it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from audit.errors import OutputError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file as a listing tells of it.

    Attributes:
        name: Relative to the place, with ``/`` between folders.
        bytes: Its size.
        modified: Seconds since 1970 by the store's own clock; only to be shown.
    """

    name: str
    bytes: int
    modified: float


class Storage(Protocol):
    """A folder, or a prefix of an object store, that holds whole files.

    Attributes:
        place: The folder or the URL, for messages.
    """

    place: str

    def read(self, name: str) -> bytes:
        """All of a file.

        Raises:
            FileNotFoundError: If there is none.
            OutputError: If the store refuses or does not answer.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Make a file that is whole or not there at all, unless there is one already.

        Returns:
            Whether it was made; ``False`` where the name exists: the first writer wins.

        Raises:
            OutputError: If it cannot be written.
        """

    def write(self, name: str, content: bytes) -> None:
        """Make or replace a file; it is at any moment the old one or the new one, whole.

        Raises:
            OutputError: If it cannot be written.
        """

    def delete(self, name: str) -> None:
        """Remove a file; none is fine.

        Raises:
            OutputError: If it cannot be removed.
        """

    def entries(self, folder: str = "") -> list[Entry]:
        """The files of a folder and its folders, sorted by name; none where there is no folder.

        Raises:
            OutputError: If it cannot be listed.
        """

    def clean(self) -> None:
        """Remove what killed writers left."""


def plain_name(name: str) -> str:
    """A file's name that stays inside its place.

    Args:
        name: Relative, with ``/`` between folders.

    Raises:
        OutputError: If it is absolute, empty or climbs.

    Example:
        >>> plain_name("samples/part-000000.parquet")
        'samples/part-000000.parquet'
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name:
        raise OutputError(
            f"'{name}' does not name a file of a run",
            expected="a relative name without '..'",
        )
    return name
