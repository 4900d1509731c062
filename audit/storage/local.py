"""A folder of a local or shared disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

from audit.errors import OutputError
from audit.files import make_folder, output_error, remove_unfinished
from audit.storage.protocol import Entry, plain_name

# As audit.files names them, whose remove_unfinished() finds them.
_TEMPORARY = ".writing"
# What disks without hard links answer.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStorage:
    """Whole files in a folder, flushed to the disk before they get their name.

    Args:
        folder: Is created with the first file.

    Example:
        >>> storage = LocalStorage(tmp)
        >>> storage.create("a/b.txt", b"first"), storage.create("a/b.txt", b"second")
        (True, False)
        >>> storage.read("a/b.txt"), [entry.name for entry in storage.entries()]
        (b'first', ['a/b.txt'])
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self.place = str(folder)

    def __repr__(self) -> str:
        return f"LocalStorage({self.place!r})"

    def read(self, name: str) -> bytes:
        """See :class:`audit.storage.Storage`."""
        path = self._path(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{path} does not exist") from error
        except OSError as error:
            raise _unreadable(path, error) from error

    def create(self, name: str, content: bytes) -> bool:
        """See :class:`audit.storage.Storage`."""
        path = self._path(name)
        if path.exists():
            return False
        return self._place(path, content, _link)

    def write(self, name: str, content: bytes) -> None:
        """See :class:`audit.storage.Storage`."""
        self._place(self._path(name), content, _replace)

    def delete(self, name: str) -> None:
        """See :class:`audit.storage.Storage`."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise OutputError(f"cannot remove {path}", found=error.strerror) from error

    def entries(self, folder: str = "") -> list[Entry]:
        """See :class:`audit.storage.Storage`."""
        top = self._path(folder) if folder else self._folder
        found = []
        for parent, _, names in os.walk(top, onerror=_not_listed):
            for name in names:
                path = Path(parent) / name
                if name.endswith(_TEMPORARY):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    facts = path.stat()
                    relative = path.relative_to(self._folder).as_posix()
                    found.append(Entry(name=relative, bytes=facts.st_size, modified=facts.st_mtime))
        return sorted(found, key=lambda entry: entry.name)

    def clean(self) -> None:
        """Remove temporary files of killed writers.

        Of writers on other machines nobody here knows whether they live; theirs go where the file
        that they were to become is there: a late one then finds that it is not needed. Those of
        claims, which are taken back again, always go: a writer that lives writes it once more.
        """
        remove_unfinished(self._folder)
        for leftover in self._folder.rglob(f"*{_TEMPORARY}"):
            # NAME.TOKEN.HOST.PID.writing, and hosts may have dots.
            elsewhere = f".{socket.gethostname()}." not in leftover.name
            if elsewhere and (".claim." in leftover.name or _has_become(leftover)):
                leftover.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / plain_name(name)

    def _place(self, path: Path, content: bytes, name_it: Callable[[Path, Path], bool]) -> bool:
        make_folder(path.parent)
        try:
            try:
                return _place(path, content, name_it)
            except FileNotFoundError:
                # Somebody took the temporary file for that of a killed writer.
                return _place(path, content, name_it)
        except OSError as error:
            raise output_error(path, error) from error


def _place(path: Path, content: bytes, name_it: Callable[[Path, Path], bool]) -> bool:
    writer = f"{secrets.token_hex(4)}.{socket.gethostname()}.{os.getpid()}"
    temporary = path.with_name(f"{path.name}.{writer}{_TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        made = name_it(temporary, path)
        _flush_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return made


def _replace(temporary: Path, path: Path) -> bool:
    temporary.replace(path)
    return True


def _link(temporary: Path, path: Path) -> bool:
    """Give a file its name unless the name is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Whole still; but of two writers at the same moment the second may win.
        return not path.exists() and _replace(temporary, path)
    return True


def _has_become(leftover: Path) -> bool:
    """Whether the file is there that a temporary one was to become."""
    parts = leftover.name.split(".")
    wholes = (".".join(parts[:count]) for count in range(1, len(parts) - 2))
    return any(leftover.with_name(whole).is_file() for whole in wholes if whole)


def _unreadable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot read {path}", found=error.strerror or str(error))


def _not_listed(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise _unreadable(Path(error.filename), error) from error


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
