"""Where the time of a run goes: phases on the clock, operators of some steps, a trace of both."""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Steps whose operators are looked at: so many, after so many that warm up.
WARM_UP, LOOKED_AT = 2, 4
# Spans that the trace shows; further ones count in the table only.
MOST_SPANS = 5_000
_OPERATORS = 15
_LIBRARIES = ("torch", "torchvision", "numpy", "pyarrow", "pandas", "opencv-python-headless")
# Phases that every image goes through.
_BY_IMAGE = ("decode", "fetch", "masks", "step", "to host", "rows", "encode", "commit")
# What a phase is called where no other is at hand.
OTHER = "other"
_OFF = nullcontext()


@dataclass
class _Sum:
    """Of one phase: how often, how long, and how long without the phases inside it."""

    count: int = 0
    seconds: float = 0.0
    own: float = 0.0


@dataclass(frozen=True)
class _Span:
    """A piece of time, for the trace; nanoseconds since 1970."""

    name: str
    thread: int
    start: int
    stop: int


@dataclass
class _Thread(threading.local):
    """The phases that a thread is in: for each, the time of the phases inside it."""

    inner: list[float] = field(default_factory=list)


class Profile:
    """One process's times, from its making on.

    Args:
        clock: Nanoseconds that only grow.

    Attributes:
        images: How many the steps took.
    """

    def __init__(self, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.images = 0
        self._clock = clock
        self._began = clock()
        # The trace of operators counts from 1970.
        self._epoch = time.time_ns() - self._began
        self._age = process_age()
        self._main = threading.get_ident()
        self._here, self._beside = defaultdict[str, _Sum](_Sum), defaultdict[str, _Sum](_Sum)
        self._spans: list[_Span] = []
        self._dropped = 0
        self._thread = _Thread()
        self._lock = threading.Lock()
        self._steps = 0
        self._profiler: torch.profiler.profile | None = None
        self._operators: list[dict[str, Any]] = []
        self._trace: dict[str, Any] = {}

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        """Count the time inside for a phase.

        Args:
            name: Of the phase. Phases inside it count for themselves.
        """
        start, inner = self._clock(), self._thread.inner
        inner.append(0.0)
        try:
            yield
        finally:
            stop = self._clock()
            within = inner.pop()
            seconds = (stop - start) / 1e9
            if inner:
                inner[-1] += seconds
            self._add(name, start, stop, seconds - within)

    def _add(self, name: str, start: int, stop: int, own: float) -> None:
        here = threading.get_ident() == self._main
        with self._lock:
            total = (self._here if here else self._beside)[name]
            total.count += 1
            total.seconds += (stop - start) / 1e9
            total.own += own
            if len(self._spans) < MOST_SPANS:
                thread = threading.get_native_id()
                self._spans.append(_Span(name, thread, self._epoch + start, self._epoch + stop))
            else:
                self._dropped += 1

    @contextmanager
    def step(self, images: int) -> Iterator[None]:
        """Count a step, and look at the operators of some.

        Args:
            images: That it takes.
        """
        if self._steps == WARM_UP:
            self._look()
        with self.span("step"):
            yield
        self._steps += 1
        self.images += images
        if self._steps == WARM_UP + LOOKED_AT:
            self._keep()

    def _look(self) -> None:
        import torch
        from torch.profiler import ProfilerActivity, profile

        kinds = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(ProfilerActivity.CUDA)
        with self.span("profiler"):
            self._profiler = profile(activities=kinds)
            self._profiler.start()

    def _keep(self) -> None:
        """End looking at operators, and keep what was seen."""
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        with self.span("profiler"), tempfile.TemporaryDirectory() as folder:
            profiler.stop()
            self._operators = _operators(profiler)
            file = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(file))
            trace = json.loads(file.read_bytes())
        # Neither is anybody else's business.
        self._trace = {k: v for k, v in trace.items() if k not in ("traceName", "host_name")}

    def report(self, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """All that was measured.

        Args:
            about: What was run.

        Returns:
            ``seconds`` of the profile; ``phases`` of the thread that computes, whose ``seconds``
            add up to it, and those ``beside`` it in other threads; ``operators`` of the steps
            looked at; ``machine`` and ``run``. JSON-serialisable.
        """
        self._keep()
        seconds = (self._clock() - self._began) / 1e9
        with self._lock:
            phases = _table(self._here, seconds, self.images)
            beside = _table(self._beside, seconds, self.images)
        left = seconds - sum(phase["seconds"] for phase in phases)
        phases.append(_row(OTHER, 1, left, seconds, 0))
        return {
            "seconds": seconds,
            "seconds_before": self._age,
            "images": self.images,
            "steps": self._steps,
            "phases": phases,
            "beside": beside,
            "operators": self._operators,
            "spans_left_out": self._dropped,
            "machine": machine(),
            "run": dict(about or {}),
        }

    def trace(self) -> dict[str, Any]:
        """The spans, and the operators of the steps looked at, as a Chrome trace."""
        self._keep()
        base = int(self._trace.get("baseTimeNanoseconds", 0))
        process = os.getpid()
        events = [
            {
                "ph": "X",
                "cat": "phase",
                "name": span.name,
                "pid": process,
                "tid": span.thread,
                "ts": (span.start - base) / 1e3,
                "dur": (span.stop - span.start) / 1e3,
            }
            for span in self._spans
        ]
        return self._trace | {"traceEvents": [*self._trace.get("traceEvents", ()), *events]}


_AT_WORK: Profile | None = None


@contextmanager
def profiling(*, wanted: bool = True) -> Iterator[Profile | None]:
    """Count the time of what happens inside; what is told by :func:`span` goes there.

    Args:
        wanted: Whether to count at all.

    Yields:
        The profile; ``None`` where none is wanted.

    Example:
        >>> with profiling() as profile:
        ...     with span("fetch"):
        ...         pass
        >>> [phase["phase"] for phase in profile.report()["phases"]]
        ['fetch', 'other']
    """
    global _AT_WORK  # noqa: PLW0603  # of the process, as its clock is
    if not wanted:
        yield None
        return
    before, _AT_WORK = _AT_WORK, Profile()
    try:
        yield _AT_WORK
    finally:
        _AT_WORK = before


def span(name: str) -> AbstractContextManager[None]:
    """Count the time inside for a phase, where a profile is wanted; else do nothing.

    Args:
        name: Of the phase.
    """
    return _OFF if _AT_WORK is None else _AT_WORK.span(name)


def step(images: int) -> AbstractContextManager[None]:
    """The same for a step.

    Args:
        images: That it takes.
    """
    return _OFF if _AT_WORK is None else _AT_WORK.step(images)


def spanned(items: Iterable[T], name: str) -> Iterator[T]:
    """Count the time in which items are made, or waited for, for a phase.

    Args:
        items: Are passed on.
        name: Of the phase.

    Yields:
        The items.
    """
    source = iter(items)
    while True:
        with span(name):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item


def process_age() -> float:
    """Seconds since this process began; 0 where the system does not tell."""
    try:
        told = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        up = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return max(0.0, up - int(told[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


def machine() -> dict[str, Any]:
    """What a machine is, without its name: processors, memory, GPUs, system, versions."""
    import torch

    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": _memory(),
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in gpus],
        "threads": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _LIBRARIES},
    }  # fmt: skip


def without_paths(value: object) -> Any:
    r"""Settings without what is private: paths and addresses become their kind and ``…``.

    Args:
        value: As JSON has it.

    Example:
        >>> without_paths({"dataset": "folder:/home/me/cats", "seed": 3, "masks": ["auto"]})
        {'dataset': 'folder:…', 'seed': 3, 'masks': ['auto']}
        >>> without_paths("s3://bucket/runs"), without_paths("my.pt2"), without_paths(r"C:\me")
        ('s3:…', 'my.pt2', 'C:…')
    """
    if isinstance(value, Mapping):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(each) for each in value]
    if isinstance(value, str) and re.search(r"[/\\]", value):
        kind, colon, _ = value.partition(":")
        return f"{kind}:…" if colon and not re.search(r"[/\\]", kind) else "…"
    return value


def as_markdown(report: Mapping[str, Any]) -> str:
    """A report for people, to be put into an issue.

    Args:
        report: See :meth:`Profile.report`.
    """
    rate = report["images"] / report["seconds"] if report["seconds"] else 0.0
    lines = [
        "# Where the time went",
        "",
        f"{report['seconds']:.2f} s for {report['images']:,} images in {report['steps']:,} "
        f"batches: {rate:,.0f} images a second, everything counted. The process was "
        f"{report['seconds_before']:.2f} s old when counting began (Python and imports).",
        "",
        *_phases("Phase", report["phases"]),
    ]
    if report["beside"]:
        lines += ["", "In other threads, beside the above:", "",
                  *_phases("Phase", report["beside"])]  # fmt: skip
    lines += ["", "## Operators of the step", ""]
    if report["operators"]:
        device = any(each["device_ms"] for each in report["operators"])
        lines += [
            f"Of {LOOKED_AT} batches after {WARM_UP} that warmed up, by time of their own:",
            "",
            "| operator | calls | ms | share |" + (" ms on the GPU |" if device else ""),
            "| --- | ---: | ---: | ---: |" + (" ---: |" if device else ""),
        ]
        for each in report["operators"]:
            line = f"| {each['operator']} | {each['calls']:,} | {each['ms']:.2f} | "
            line += f"{each['share']:.1%} |"
            lines.append(line + (f" {each['device_ms']:.2f} |" if device else ""))
    else:
        lines.append(f"None: there were no more than {WARM_UP} batches.")
    lines += ["", "## Machine and settings", "", "```json"]
    lines += [json.dumps({"machine": report["machine"], "run": report["run"]}, indent=2,
                         ensure_ascii=False), "```", ""]  # fmt: skip
    return "\n".join(lines)


def files_of(profile: Profile, about: Mapping[str, Any], rank: str = "") -> dict[str, bytes]:
    """What a profile leaves, by name: a table for people, the same for programs, and a trace.

    Args:
        profile: Is ended.
        about: What was run; paths in it are taken out.
        rank: What the process is called among those of the run; empty for the only one.
    """
    report = profile.report(without_paths(about))
    suffix = "-" + re.sub(r"[^A-Za-z0-9]+", "-", rank).strip("-") if rank else ""
    table = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    return {
        f"profile{suffix}.md": as_markdown(report).encode(),
        f"profile{suffix}.json": table.encode(),
        f"trace{suffix}.json": json.dumps(profile.trace()).encode(),
    }


def _phases(title: str, phases: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"| {title.lower()} | times | seconds | share | images a second |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for each in phases:
        rate = f"{each['images_per_second']:,.0f}" if each["images_per_second"] else ""
        lines.append(
            f"| {each['phase']} | {each['times']:,} | {each['seconds']:.3f} | "
            f"{each['share']:.1%} | {rate} |"
        )
    return lines


def _table(sums: Mapping[str, _Sum], total: float, images: int) -> list[dict[str, Any]]:
    """Phases in the order in which they first ended."""
    return [_row(name, each.count, each.own, total, images) for name, each in sums.items()]


def _row(name: str, times: int, seconds: float, total: float, images: int) -> dict[str, Any]:
    rate = images / seconds if name in _BY_IMAGE and seconds > 0 else None
    return {
        "phase": name,
        "times": times,
        "seconds": seconds,
        "share": seconds / total if total else 0.0,
        "images_per_second": rate,
    }


def _operators(profiler: torch.profiler.profile) -> list[dict[str, Any]]:
    found = [
        (event.key, event.count, event.self_cpu_time_total / 1e3,
         getattr(event, "self_device_time_total", 0.0) / 1e3)
        for event in profiler.key_averages()
    ]  # fmt: skip
    total = sum(ms for _, _, ms, _ in found) or 1.0
    most = sorted(found, key=lambda each: -(each[2] + each[3]))[:_OPERATORS]
    return [
        {"operator": name, "calls": calls, "ms": ms, "share": ms / total, "device_ms": device_ms}
        for name, calls, ms, device_ms in most
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
