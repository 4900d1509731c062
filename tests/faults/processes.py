"""Real commands in processes of their own, and those that they start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK = 0.003  # seconds between two looks at the disk
PATIENCE = 600.0


class Hung(Exception):
    """A command did not end, or a moment did not come."""


@dataclass(frozen=True)
class Process:
    """A process of this machine, told apart from a later one of the same number."""

    pid: int
    born: str

    @property
    def alive(self) -> bool:
        found = _stat(self.pid)
        return found is not None and found.born == self.born and found.state not in "ZX"

    @property
    def title(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            return ""

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True)
class _Stat:
    parent: int
    state: str
    born: str


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(parent=int(fields[1]), state=fields[0], born=fields[19])


def descendants(pid: int) -> list[Process]:
    """The living processes that a process started, and those that these started."""
    stats = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    found: list[Process] = []
    parents = {pid}
    while parents:
        children = {n for n, stat in stats.items() if stat is not None and stat.parent in parents}
        found += [Process(n, stat.born) for n in sorted(children) if (stat := stats[n])]
        parents = children
    return [process for process in found if process.alive]


def all_gone(processes: Sequence[Process], seconds: float) -> bool:
    """Whether processes end within some time."""
    end = time.monotonic() + seconds
    while any(process.alive for process in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


class Running:
    """A command that was started, in a session of its own.

    Args:
        command: Its words.
        log: Where its output goes.
        environment: All of it.
        folder: Where it is given.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.log = log
        self.started = time.monotonic()
        with log.open("wb") as file:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def ended(self) -> bool:
        return self._popen.poll() is not None

    def children(self) -> list[Process]:
        return descendants(self.pid)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def until(self, reached: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Wait for a moment; ``False`` where the command ended before it."""
        end = time.monotonic() + seconds
        while not reached():
            try:
                self._popen.wait(_LOOK)
                return False
            except subprocess.TimeoutExpired:
                if time.monotonic() > end:
                    raise Hung(f"waited {seconds:.0f} s for a moment") from None
        return True

    def end(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; the exit code, or minus the signal that ended it."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Hung(f"did not end in {seconds:.0f} s; it said: {self.said[-500:]}") from None

    def kill(self) -> None:
        """End it with all that it started."""
        children = self.children()
        self.send(signal.SIGKILL, group=True)
        for child in children:
            child.send(signal.SIGKILL)
        self._popen.wait()
