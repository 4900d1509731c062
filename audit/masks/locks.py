"""Which process computes which block: one byte of a lock file each, freed when its holder dies."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from audit.files import make_folder, output_error

_HELD = (errno.EACCES, errno.EAGAIN)
# Some network file systems have no locks; work is then done twice, which harms nobody.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class BlockLocks:
    """POSIX locks on the bytes of one file, shared by all processes that fill a folder.

    They belong to the process: within one, everybody holds them at once.

    Args:
        path: The lock file; made with its folder where it is absent.

    Example:
        >>> with BlockLocks(tmp / "lock") as locks:
        ...     locks.take(7)
        True
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent, flag="--cache")
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise output_error(path, error, "--cache") from error

    def __enter__(self) -> BlockLocks:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def take(self, block: int) -> bool:
        """Take a block, unless another process holds it."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, block)
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def release(self, block: int) -> None:
        """Let others have a block."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, block)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
