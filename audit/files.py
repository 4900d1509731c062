"""Files that are whole or absent: encode in memory, write beside, flush, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from audit.errors import OutputError

_TEMPORARY = ".writing"


def write_atomically(path: Path, content: bytes, *, flag: str | None = "--out") -> None:
    """Write a file so that a kill at any moment leaves the old one, the new one or none.

    Args:
        path: Where to; its folder must exist.
        content: All of the file.
        flag: What names the place, for the message; ``None`` where a call in Python does.

    Raises:
        OutputError: If the disk is full or the folder is not writable.
    """
    temporary = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}{_TEMPORARY}")
    try:
        try:
            _write_beside(temporary, path, content)
        except FileNotFoundError:
            # Taken for that of a dead process, by one of a container with the same host name.
            _write_beside(temporary, path, content)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise output_error(path, error, flag) from error


def _write_beside(temporary: Path, path: Path, content: bytes) -> None:
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush_folder(path.parent)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table so that a kill at any moment leaves the old file, the new one or none.

    Args:
        path: Where to; its folder must exist.
        table: All of it.

    Raises:
        OutputError: If the disk is full or the folder is not writable.
    """
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())


def make_folder(path: Path, *, flag: str | None = "--out") -> Path:
    """Create a folder and its parents.

    Args:
        path: The folder.
        flag: As of :func:`write_atomically`.

    Raises:
        OutputError: If it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error, flag) from error
    if not os.access(path, os.W_OK):
        raise output_error(path, PermissionError(errno.EACCES, "the folder is not writable"), flag)
    return path


def sole_writer(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder; nobody else must write into it meanwhile.

    Raises:
        OutputError: If somebody does.
    """
    return _holding(folder, fcntl.LOCK_EX)


def shared_writer(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder together with others who add to it; nobody may conclude it meanwhile.

    Raises:
        OutputError: If somebody does.
    """
    return _holding(folder, fcntl.LOCK_SH)


@contextlib.contextmanager
def _holding(folder: Path, kind: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another audit is writing {folder}",
                remedy="wait for it to end: it computes the same run",
            ) from error
        except OSError as error:
            # Some network file systems have no locks. Parts are safe without: the first one stays.
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers of this machine left behind anywhere under ``folder``."""
    for leftover in folder.rglob(f"*.{socket.gethostname()}.*{_TEMPORARY}"):
        writer = leftover.name.removesuffix(_TEMPORARY).rpartition(".")[2]
        if writer.isdigit() and (int(writer) == os.getpid() or not _alive(int(writer))):
            leftover.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def output_error(path: Path, error: OSError, flag: str | None = "--out") -> OutputError:
    """What to tell the user about a failed write; ``flag`` as of :func:`write_atomically`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and run the same command again: finished parts are kept"
    elif flag is None:
        remedy = "give another path, in a folder that can be written to"
    else:
        remedy = f"name a folder that can be written to with {flag}"
    return OutputError(f"cannot write {path}", found=error.strerror or str(error), remedy=remedy)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
