"""A wish to stop, from a signal: the shard at hand may still be finished for a while."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Who hears SIGTERM, the innermost last.
_HEARD: list[Stopping] = []


class Stopped(BaseException):
    """The work was ended by a signal; what was finished is kept.

    Not an ``Exception``, so that nothing on the way takes it for a failure.
    """


class Stopping:
    """Whether, and until when, work may go on.

    Args:
        grace: Seconds from the wish to the end.

    Example:
        >>> stopping = Stopping(grace=0)
        >>> stopping.ask()
        >>> stopping.asked, stopping.over
        (True, True)
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._asked_at: float | None = None
        self._at_once = False

    def ask(self) -> None:
        """Wish for an end; further wishes change nothing.

        Raises:
            Stopped: Where work is at hand that need not be finished.
        """
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        if self._at_once:
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While this lasts, a wish ends the work where it is: nothing would be gained by waiting.

        Raises:
            Stopped: If an end was wished for before, or meanwhile.
        """
        self.check_between()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    @property
    def asked(self) -> bool:
        """Whether no other shard is to be begun."""
        return self._asked_at is not None

    @property
    def over(self) -> bool:
        """Whether the shard at hand is to be dropped."""
        return self._asked_at is not None and time.monotonic() - self._asked_at >= self._grace

    def check(self) -> None:
        """End the work at hand where its time is over.

        Raises:
            Stopped: Then.
        """
        if self.over:
            raise Stopped

    def check_between(self) -> None:
        """End the work between two shards where an end is wished for.

        Raises:
            Stopped: Then.
        """
        if self.asked:
            raise Stopped


@contextmanager
def on_terminate(grace: float) -> Iterator[Stopping]:
    """Turn SIGTERM into a wish to stop.

    Args:
        grace: Seconds in which a shard may still be finished.

    Yields:
        What the work asks. Outside of the main thread, where Python hears no signals, it is never
        wished for.
    """
    stopping = Stopping(grace)
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def ask(number: int, frame: FrameType | None) -> None:
        stopping.ask()

    before = signal.signal(signal.SIGTERM, ask)
    outer = _HEARD[-1] if _HEARD else None
    _HEARD.append(stopping)
    try:
        if outer is not None and outer.asked:
            # Libraries that were being loaded may have taken the end for a failure of theirs.
            stopping.ask()
        yield stopping
    finally:
        _HEARD.pop()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def ended_by_terminate() -> Iterator[Stopping]:
    """Let SIGTERM end the work where it is, unless :func:`on_terminate` says otherwise.

    As process 1 of a container, which is ended by no signal that it does not handle, too.

    Yields:
        Whether it was wished for, also where something on the way has swallowed the end.

    Raises:
        Stopped: On the signal. Outside of the main thread, where Python hears none, nothing is
            changed.
    """
    with on_terminate(grace=0) as stopping, stopping.at_once():
        yield stopping
