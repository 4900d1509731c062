"""The command as users give it, watched from outside: its events, its parts, its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

_SECONDS_BETWEEN_LOOKS = 0.02


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A command that has ended.

    Attributes:
        began: When, in Unix time.
        ended: Likewise.
        events: Its lines of JSON, each with ``at``: when it was read, in Unix time.
        memory: Its resident bytes as time went by: pairs of Unix time and bytes.
        peak: The most that it ever held, by the kernel's count.
        device_memory: Bytes in use on the device that was to be watched, likewise.
        run: The folder that it left.
        shards: When each shard was begun and computed, in Unix time, in order.
    """

    began: float
    ended: float
    events: list[dict[str, Any]]
    memory: list[tuple[float, int]]
    peak: int
    device_memory: list[tuple[float, int]]
    run: Path
    shards: list[tuple[float, float]]

    @property
    def seconds(self) -> float:
        """From the command to its end."""
        return self.ended - self.began

    def at(self, event: str) -> float:
        """When an event was told last."""
        return max(one["at"] for one in self.events if one.get("event") == event)

    def held(self, begin: float, end: float) -> int:
        """The most memory between two moments."""
        return max(size for moment, size in self.memory if begin <= moment <= end)


def audit_run(out: Path, *options: str, threads: int | None = None, device: str = "cpu") -> Watched:
    """Run ``audit run`` in a process of its own.

    Args:
        out: Where its report goes; empty beforehand.
        *options: Of the command.
        threads: Of torch; ``None`` leaves its own choice.
        device: Whose memory to watch too, where it is no CPU.

    Raises:
        RuntimeError: If it fails.
    """
    command = [sys.executable, "-m", "audit", "run", *options, "--log-json", "--out", str(out)]
    env = dict(os.environ)
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    # What the measurements define must be found by the command, too.
    env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), env.get("PYTHONPATH", "")])
    began = time.time()
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        memory: list[tuple[float, int]] = []
        on_device: list[tuple[float, int]] = []
        watching = threading.Thread(target=_watch, args=(process, memory, device, on_device))
        watching.start()
        lines = []
        for line in process.stderr:
            lines.append((time.time(), line))
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.time()
        process.returncode = os.waitstatus_to_exitcode(status)
        watching.join()
    if process.returncode:
        raise RuntimeError("".join(line for _, line in lines[-20:]))
    plan = next(out.glob("*/*/*/plan.json"))
    return Watched(
        began=began,
        ended=ended,
        events=[{**json.loads(line), "at": at} for at, line in lines if line.startswith("{")],
        memory=memory,
        peak=usage.ru_maxrss * 1024,
        device_memory=on_device,
        run=plan.parent,
        shards=_shards(plan.parent),
    )


def _shards(run: Path) -> list[tuple[float, float]]:
    found = []
    for file in (run / "samples").glob("_part-*.json"):
        worker = json.loads(file.read_text())["worker"]
        end = datetime.fromisoformat(worker["finished"]).timestamp()
        found.append((end - worker["seconds"], end))
    return sorted(found)


def _watch(
    process: subprocess.Popen[str],
    memory: list[tuple[float, int]],
    device: str,
    on_device: list[tuple[float, int]],
) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    statm = Path(f"/proc/{process.pid}/statm")
    while process.returncode is None:
        try:
            memory.append((time.time(), int(statm.read_text().split()[1]) * page))
        except (OSError, IndexError):
            return
        if device.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(device)
            on_device.append((time.time(), total - free))
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def threads_of(asked: int) -> int | None:
    """What to tell the command of threads: nothing, where all cores are to be used."""
    return None if asked == len(os.sched_getaffinity(0)) else asked
