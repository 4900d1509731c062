"""Progress on a terminal as a bar, in a log as a line every few seconds, or as events."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from tqdm import tqdm

from audit.telemetry import Telemetry

_SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts samples.

    Args:
        what: What is being done.
        total: How many samples there are.
        done: How many were done before.
        telemetry: Is told, too; where it does not speak to people, it alone is.
    """

    def __init__(
        self, what: str, total: int, done: int = 0, telemetry: Telemetry | None = None
    ) -> None:
        self._what = what
        self._total = total
        self._done = self._before = done
        self._told: int | None = None
        self._telemetry = telemetry or Telemetry()
        self._started = self._said = time.monotonic()
        self._bar = _open_bar(what, total, done) if self._telemetry.human else None

    def __call__(self, count: int) -> None:
        """Note that so many more samples are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            self._say()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None and self._told != self._done:
            self._say()

    def _say(self) -> None:
        self._told = self._done
        elapsed = max(time.monotonic() - self._started, 1e-6)
        rate = (self._done - self._before) / elapsed
        left = (self._total - self._done) / rate if rate else 0.0
        line = f"{self._what}: {self._done:,}/{self._total:,} images, {rate:,.0f} a second"
        if left >= 1:
            line += f", {left:.0f} s left"
        if self._telemetry.human and self._bar is None:
            print(line, file=sys.stderr, flush=True)
        self._telemetry.progressed(
            self._what,
            done=self._done,
            total=self._total,
            rate=rate,
            seconds=elapsed,
            message=line,
        )


def _open_bar(what: str, total: int, done: int) -> tqdm | None:
    """A bar, where there is a terminal."""
    if not sys.stderr.isatty():
        return None
    size = shutil.get_terminal_size()
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=" images",
        smoothing=0.1,
        # Some terminals say they have no size; tqdm would then draw nothing.
        ncols=size.columns,
        nrows=size.lines,
    )
