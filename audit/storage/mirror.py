"""Copies of a run's files between a storage and a folder of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from audit.errors import OutputError
from audit.files import write_atomically
from audit.storage.protocol import Storage, plain_name

# Files at a time; each is held in memory meanwhile.
_THREADS = 8


def pull(storage: Storage, names: Sequence[str], folder: Path) -> None:
    """Copy files to a folder; each is there whole or not at all.

    Args:
        storage: Where they are.
        names: Relative, and where to under the folder as well.
        folder: Is created, with its folders.

    Raises:
        OutputError: If a file is missing, was cut short on the way, or cannot be written.

    Example:
        >>> from audit.storage import LocalStorage
        >>> there = LocalStorage(Path(tmp) / "there")
        >>> there.write("tables/classes.parquet", b"rows")
        >>> pull(there, ["tables/classes.parquet"], Path(tmp) / "here")
        >>> (Path(tmp) / "here" / "tables" / "classes.parquet").read_bytes()
        b'rows'
    """
    sizes = _sizes(storage) if names else {}

    def copy(name: str) -> None:
        target = folder / plain_name(name)
        try:
            content = storage.read(name)
        except FileNotFoundError as error:
            raise OutputError(f"{storage.place}/{name} is missing") from error
        _check_size(storage, name, len(content), sizes.get(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)

    _all(copy, names)


def push(folder: Path, storage: Storage, names: Sequence[str]) -> None:
    """Copy files from a folder, in no particular order, replacing those that are there.

    Args:
        folder: Where they are.
        storage: Where to.
        names: Relative to both.

    Raises:
        OutputError: If a file is missing, cannot be written, or is not there in its size.
    """
    sent = {}

    def copy(name: str) -> None:
        try:
            content = (folder / plain_name(name)).read_bytes()
        except OSError as error:
            raise OutputError(f"cannot read {folder / name}", found=error.strerror) from error
        storage.write(name, content)
        sent[name] = len(content)

    _all(copy, names)
    sizes = _sizes(storage) if names else {}
    for name, size in sent.items():
        _check_size(storage, name, size, sizes.get(name))


def _all(copy: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(copy, names):
            pass


def _sizes(storage: Storage) -> dict[str, int]:
    return {entry.name: entry.bytes for entry in storage.entries()}


def _check_size(storage: Storage, name: str, size: int, listed: int | None) -> None:
    if size != listed:
        raise OutputError(
            f"{storage.place}/{name} has another size than its copy",
            expected=f"{size:,} bytes" if listed is not None else "a listing that has it",
            found="none" if listed is None else f"{listed:,} bytes",
            remedy="run the same command again, when nobody else writes there",
        )
