"""What becomes of memory that was freed."""

from __future__ import annotations

import ctypes
import platform

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# The most that glibc raises the second one to by itself; larger pieces go back at once.
_KEPT_PIECE = 32 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have this process keep what batches free, for the next ones.

    By itself glibc gives larger pieces back to the system whenever they lie at the end, and each of
    their pages is asked for anew and zeroed when the next batch writes to it. A batch needs as much
    as the one before: to keep it costs no memory at the peak, and spares a step up to a quarter
    of its time where its tensors are large beside its products. Cannot be undone, so only a process
    that does nothing else should ask for it.

    Returns:
        Whether that could be set: with glibc alone. Elsewhere nothing changes.

    Source:
        mallopt(3), ``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD``.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # To set one of them ends the adjusting of both.
    return all(
        mallopt(name, amount) == 1
        for name, amount in ((_TRIM_THRESHOLD, _NEVER), (_MMAP_THRESHOLD, _KEPT_PIECE))
    )
