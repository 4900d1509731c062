"""Items made in another thread, a few ahead of whoever takes them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

_END: Final = object()
_SECONDS_BETWEEN_LOOKS = 0.1


class _Raised:
    """What ended the thread early."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def ahead(items: Iterable[T], depth: int) -> Generator[T, None, None]:
    """Take items in a thread of their own, so that they are at hand when they are asked for.

    Args:
        items: Are taken one by one, in one thread, from the first ``next`` on.
        depth: How many may wait, beside the one that is being made; 0 makes them when they are
            asked for, in the caller's thread.

    Yields:
        The items in their order. What making one raises is raised in its place. A generator that
        is closed early ends the thread, and waits for the item that is being made.

    Example:
        >>> list(ahead(range(3), depth=2))
        [0, 1, 2]
    """
    if depth < 1:
        yield from items
        return
    waiting: queue.Queue[object] = queue.Queue(depth)
    closed = threading.Event()

    def put(item: object) -> bool:
        while not closed.is_set():
            try:
                waiting.put(item, timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item):
                    return
        except BaseException as error:  # noqa: BLE001  # whatever it is, the caller is to see it
            put(_Raised(error))
        else:
            put(_END)

    thread = threading.Thread(target=work, name="audit-ahead", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]  # only items are put beside these two
    finally:
        closed.set()
        thread.join()
