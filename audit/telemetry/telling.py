"""One run's events and numbers, told as they happen."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from audit.errors import AuditError
from audit.telemetry.logs import FACTS, LOGGER, json_lines
from audit.telemetry.metrics import LAST_SUCCESS, Metrics
from audit.telemetry.profiling import span

_LOG = logging.getLogger(f"{LOGGER}.run")


class Telemetry:
    """What tells of a run; by itself it tells people on stderr, and loggers who ask.

    As a context manager it tells how the work inside ended.

    Args:
        as_json: Tell all as lines of JSON on stderr, and no bars.
        metrics: A file to keep numbers in.

    Attributes:
        human: Whether people are told, by bars and lines.

    Raises:
        ConfigError: If metrics cannot be kept there.

    Example:
        >>> telemetry = Telemetry()
        >>> telemetry.human
        True
    """

    def __init__(self, *, as_json: bool = False, metrics: Path | None = None) -> None:
        self.human = not as_json
        self._metrics = None if metrics is None else Metrics(metrics)
        self._metrics_fail = False
        self._about: dict[str, Any] = {}
        self._counts = {"audit_shards_done": 0, "audit_shards_failed": 0}
        self._shards = 0
        self._started = time.monotonic()
        self._open = ExitStack()

    def __enter__(self) -> Telemetry:
        if not self.human:
            self._open.enter_context(json_lines())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._open:
            if isinstance(error, AuditError):
                self.event("failed", error.problem, level=logging.ERROR, **_described(error))
            elif isinstance(error, Exception):
                said = f"{type(error).__name__}: {error}"
                self.event("failed", said, level=logging.ERROR, error=type(error).__name__)
            elif error is not None:
                self.event("stopped", "stopped: finished parts are kept", level=logging.WARNING)
            self._write(now=True)

    def event(self, name: str, message: str, *, level: int = logging.INFO, **facts: Any) -> None:
        """Tell that something happened.

        Args:
            name: What, as one word.
            message: The same for people.
            level: Of :mod:`logging`.
            **facts: What JSON can hold.
        """
        _LOG.log(level, message, extra={FACTS: {"event": name, **self._about, **facts}})

    def warn(self, message: str) -> None:
        """Tell of a trouble that ends nothing."""
        if self.human:
            print(f"warning: {message}", file=sys.stderr, flush=True)
        self.event("warning", message, level=logging.WARNING)

    def note(self, message: str) -> None:
        """Tell of something that the user may not expect, and that is right."""
        if self.human:
            print(f"note: {message}", file=sys.stderr, flush=True)
        self.event("note", message)

    def opened(
        self, *, run: str, dataset: str, model: str, samples: int, shards: int, message: str
    ) -> None:
        """Tell what is audited.

        Args:
            run: Its id.
            dataset: Name of the data.
            model: Name of the network.
            samples: That this process answers for.
            shards: Likewise.
            message: For people.
        """
        self._about = {"run": run, "dataset": dataset, "model": model}
        if self._metrics is not None:
            self._metrics.name_run(run, dataset, model)
        self._shards = shards
        self._set("audit_samples", samples)
        self._set("audit_shards", shards)
        self._set("audit_samples_done", 0)
        self._set("audit_run_complete", 0)
        self._count("audit_shards_done", 0)
        self._count("audit_shards_failed", 0)
        self.event("opened", message, samples=samples, shards=shards)
        self._write(now=True)

    def found(self, *, shards: int, samples: int) -> None:
        """Tell what earlier processes have finished.

        Args:
            shards: Whose parts are whole.
            samples: Of these.
        """
        self._count("audit_shards_done", shards)
        self._set("audit_samples_done", samples)
        said = f"{shards:,} part is there" if shards == 1 else f"{shards:,} parts are there"
        self.event("found", said, shards_done=shards, done=samples)

    def progressed(
        self, phase: str, *, done: int, total: int, rate: float, seconds: float, message: str
    ) -> None:
        """Tell how far a stage is.

        Args:
            phase: Which; ``audit`` computes the rows.
            done: How many samples of it.
            total: How many there are.
            rate: Samples a second.
            seconds: That it took by now.
            message: For people.
        """
        left = (total - done) / rate if rate > 0 else None
        self.event(
            phase,
            message,
            done=done,
            total=total,
            rate=round(rate, 2),
            seconds=round(seconds, 2),
            left_seconds=None if left is None else round(left, 1),
        )
        if phase == "audit":
            self._set("audit_samples_done", done)
        self._set("audit_samples_per_second", rate, phase=phase)
        self._set("audit_phase_seconds", seconds, phase=phase)
        self._write()

    @contextmanager
    def phase(self, name: str, message: str) -> Iterator[None]:
        """Tell when the work inside is done, and how long it took.

        Args:
            name: Of the stage.
            message: For people.
        """
        started = time.monotonic()
        with span(name):
            yield
        seconds = time.monotonic() - started
        self._set("audit_phase_seconds", seconds, phase=name)
        self.event(name, message, seconds=round(seconds, 2))
        self._write()

    def part_committed(self, shard: int, samples: int, seconds: float | None = None) -> None:
        """Tell that a shard's part is kept.

        Args:
            shard: Its number.
            samples: Of it.
            seconds: That it took, where that is known.
        """
        self._count("audit_shards_done", 1)
        message = f"part {shard} is committed"
        took = None if seconds is None else round(seconds, 2)
        self.event("part_committed", message, shard=shard, samples=samples, seconds=took)
        self._write()

    def part_failed(self, shard: int, reason: str) -> None:
        """Tell that a shard could not be computed.

        Args:
            shard: Its number.
            reason: Why.
        """
        self._count("audit_shards_failed", 1)
        message = f"part {shard} could not be computed: {reason}"
        self.event("part_failed", message, level=logging.ERROR, shard=shard, reason=reason)
        self._write(now=True)

    def worker_died(self, worker: str, reason: str) -> None:
        """Tell that a process that computes has died.

        Args:
            worker: What it is called.
            reason: What is known.
        """
        message = f"worker {worker} died: {reason}"
        self.event("worker_died", message, level=logging.WARNING, worker=worker, reason=reason)
        self._write(now=True)

    def finished(self, manifest: Mapping[str, Any] | None = None) -> None:
        """Tell that all went well.

        Args:
            manifest: Of the run, where this process completed it; ``None`` for a piece of a run.
        """
        totals = {} if manifest is None else manifest["totals"]
        facts: dict[str, Any] = {"seconds": round(time.monotonic() - self._started, 2)}
        if manifest is not None:
            self._set("audit_shards_done", self._shards - len(manifest.get("missing") or ()))
            facts |= {name: totals.get(name) for name in ("samples", "accuracy", "missing")}
            self._tell_totals(totals)
            self._set(LAST_SUCCESS, time.time())
        said = "the run is complete" if totals else "this piece of the run is computed"
        self.event("finished", said, complete=bool(totals), **facts)
        self._write(now=True)

    def _tell_totals(self, totals: Mapping[str, Any]) -> None:
        self._set("audit_run_complete", 1)
        self._set("audit_samples_done", totals["samples"])
        self._set("audit_samples_missing", totals.get("missing", 0))
        if totals.get("accuracy") is not None:
            self._set("audit_accuracy_ratio", totals["accuracy"])
        for status, count in totals["statuses"].items():
            self._set("audit_samples_by_status", count, status=status)
        for verdict, names in totals["verdicts"].items():
            self._set("audit_classes", len(names), verdict=verdict)

    def _count(self, name: str, more: int) -> None:
        self._counts[name] += more
        self._set(name, self._counts[name])

    def _set(self, name: str, value: float, **labels: str) -> None:
        if self._metrics is not None and self._about:
            self._metrics.set(name, value, **labels)

    def _write(self, *, now: bool = False) -> None:
        """Keep the numbers; a full disk must not end a run."""
        if self._metrics is None:
            return
        try:
            self._metrics.write(now=now)
            self._metrics_fail = False
        except OSError as error:
            if not self._metrics_fail:
                self.warn(f"metrics cannot be kept: {error.strerror or error}")
            self._metrics_fail = True


def _described(error: AuditError) -> dict[str, str]:
    """The parts of a message that people can act on."""
    parts = {"expected": error.expected, "found": error.found, "remedy": error.remedy}
    given = {name: text for name, text in parts.items() if text is not None}
    return {"error": type(error).__name__, **given}
