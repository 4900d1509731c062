"""Real commands in processes of their own, and those that they start."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


class Stem:
    """Starts commands: see :mod:`tests.faults.stem`.

    Args:
        environment: Of the commands, and of what they are forked from.
        folder: Where they are given.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self._codes: dict[int, int] = {}
        self._said: deque[dict[str, Any]] = deque()
        script = Path(__file__).with_name("stem.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self.code = Path(self._wait_for("ready"))

    def fork(self, words: Sequence[str], log: Path, more: Mapping[str, str], host: str) -> int:
        """Begin a command; its number."""
        order = {
            "words": list(words),
            "log": str(log),
            "environment": {**self.environment, **more},
            "folder": str(self.folder),
            "host": host,
        }
        self._in.write(json.dumps(order).encode() + b"\n")
        self._in.flush()
        return int(self._wait_for("began"))

    def code_of(self, pid: int, seconds: float) -> int | None:
        """The exit code of a command, once it has ended within some time."""
        end = time.monotonic() + seconds
        while pid not in self._codes:
            left = end - time.monotonic()
            if left <= 0 or not self._hear(left):
                break
        return self._codes.get(pid)

    def close(self) -> None:
        self._in.close()
        self._process.wait(PATIENCE)
        self._out.close()

    def _wait_for(self, what: str) -> Any:
        while True:
            while self._said:
                said = self._said.popleft()
                if what in said:
                    return said[what]
            if not self._hear(PATIENCE):
                raise Hung("the process that forks commands does not answer")

    def _hear(self, seconds: float) -> bool:
        if not select.select([self._out], [], [], seconds)[0]:
            return False
        for line in os.read(self._out.fileno(), 1 << 16).decode().splitlines():
            said = json.loads(line)
            if "ended" in said:
                self._codes[said["ended"]] = said["code"]
            else:
                self._said.append(said)
        return True


class Running:
    """A command at work, in a session of its own.

    Args:
        stem: Whose child it is.
        words: What is said to ``audit``.
        log: Where its output goes.
        fresh: Whether an interpreter of its own is started for it.
        host: What its machine is called, if not as it is.
        more: Added to its environment.
    """

    def __init__(
        self,
        stem: Stem,
        words: Sequence[str],
        log: Path,
        *,
        fresh: bool = False,
        host: str = "",
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.started = time.monotonic()
        self._stem = stem
        self._popen: subprocess.Popen[bytes] | None = None
        if not fresh:
            self.pid = stem.fork(words, log, more or {}, host)
            return
        with log.open("wb") as file:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "audit", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**stem.environment, **(more or {})},
                cwd=stem.folder,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def ended(self) -> bool:
        return self._code(0) is not None

    def children(self) -> list[Process]:
        return descendants(self.pid)

    def send(self, number: signal.Signals, *, group: bool = False) -> None:
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def until(self, reached: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Wait for a moment; ``False`` where the command ended before it."""
        end = time.monotonic() + seconds
        while not reached():
            if self._code(_LOOK) is not None:
                return False
            if time.monotonic() > end:
                raise Hung(f"waited {seconds:.0f} s for a moment; it said: {self.said[-500:]}")
        return True

    def catch(self, reached: Callable[[], bool]) -> bool:
        """Wait for a moment and halt the command in it; ``False`` where there was none."""
        while self.until(reached):
            self.send(signal.SIGSTOP, group=True)
            while not self.ended and (found := _stat(self.pid)) and found.state not in "TZX":
                time.sleep(_LOOK)
            if reached():
                return True
            self.send(signal.SIGCONT, group=True)
        return False

    def end(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; the exit code, or minus the signal that ended it."""
        code = self._code(seconds)
        if code is None:
            self.kill()
            raise Hung(f"did not end in {seconds:.0f} s; it said: {self.said[-500:]}")
        return code

    def kill(self) -> None:
        """End it with all that it started."""
        children = self.children()
        self.send(signal.SIGKILL, group=True)
        for child in children:
            child.send(signal.SIGKILL)
        self._code(PATIENCE)

    def _code(self, seconds: float) -> int | None:
        if self._popen is None:
            return self._stem.code_of(self.pid, seconds)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
