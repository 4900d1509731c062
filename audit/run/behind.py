"""Work done in another thread while the next is prepared: in order, and with bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(Generic[T]):
    """One piece of work at a time in a thread of its own; its caller hears of it in its own thread.

    As a context manager it waits for the work at hand, whatever ends the block. What the work
    raised is then raised, also in place of what ended the block: it belongs to what came before.

    Args:
        tell: Is told, in the caller's thread, the result of each piece, in order.

    Example:
        >>> with Behind(print) as behind:
        ...     behind.put(lambda: "one")
        ...     behind.put(lambda: "two")
        one
        two
    """

    def __init__(self, tell: Callable[[T], object]) -> None:
        self._tell = tell
        self._threads = ThreadPoolExecutor(1, "audit-behind")
        self._at_hand: Future[T] | None = None

    @property
    def busy(self) -> bool:
        """Whether there is work whose result was not told yet."""
        return self._at_hand is not None

    def put(self, work: Callable[[], T]) -> None:
        """Begin a piece of work, once the one before is done and told.

        Args:
            work: Called in the thread.

        Raises:
            BaseException: What the piece before raised; this one is not begun then.
        """
        self.finish()
        self._at_hand = self._threads.submit(work)

    def look(self) -> bool:
        """Tell the result of the work at hand if it is done; do not wait for it.

        Returns:
            Whether it was told.

        Raises:
            BaseException: What it raised.
        """
        if self._at_hand is None or not self._at_hand.done():
            return False
        self.finish()
        return True

    def finish(self) -> None:
        """Wait for the work at hand, and tell its result.

        Raises:
            BaseException: What it raised.
        """
        if self._at_hand is not None:
            wait([self._at_hand])
            # It is not told twice, whatever it raises.
            done, self._at_hand = self._at_hand, None
            self._tell(done.result())

    def __enter__(self) -> Behind[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._threads:
            self.finish()
