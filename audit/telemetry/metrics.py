"""Numbers in Prometheus' text format, in a file that node_exporter's textfile collector reads."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from audit.errors import ConfigError, visible

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

_SECONDS_BETWEEN_FILES = 5.0
# Of the last run that succeeded, whichever: a new run's file keeps it.
LAST_SUCCESS = "audit_last_success_timestamp_seconds"
_RUN = ("run", "dataset", "model")
_LINE = ("dataset", "model")
# By name: what it is, and its labels.
_METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "audit_samples": ("Samples that this process answers for.", _RUN),
    "audit_samples_done": ("Of them, those that are computed.", _RUN),
    "audit_samples_missing": ("Of them, those that the finished run goes without.", _RUN),
    "audit_samples_by_status": ("Samples of the finished run by status.", (*_RUN, "status")),
    "audit_shards": ("Shards that this process answers for.", _RUN),
    "audit_shards_done": ("Of them, those whose part is committed.", _RUN),
    "audit_shards_failed": ("Of them, those that could not be computed.", _RUN),
    "audit_samples_per_second": ("Rate of the stage at hand.", (*_RUN, "phase")),
    "audit_phase_seconds": ("Time that each stage has taken by now.", (*_RUN, "phase")),
    "audit_run_complete": ("1 where the run is complete, else 0.", _RUN),
    "audit_accuracy_ratio": ("Share of right answers of the finished run.", _RUN),
    "audit_classes": ("Classes of the finished run by verdict.", (*_RUN, "verdict")),
    LAST_SUCCESS: ("When an audit of this model last ended well, in Unix time.", _LINE),
}


class Metrics:
    """Gauges, and the file that they are kept in.

    Args:
        file: Where to; its folder must exist. The collector reads names that end in ``.prom``.

    Raises:
        ConfigError: If the file could not be written, or prometheus_client is not installed.
    """

    def __init__(self, file: Path) -> None:
        _check_place(file)
        self._registry = _open_registry()
        self._file = file
        self._gauges: dict[str, Gauge] = {}
        self._labels: dict[str, str] = {}
        self._written: float | None = None

    def name_run(self, run: str, dataset: str, model: str) -> None:
        """Say whose the numbers are, before the first of them.

        Args:
            run: Its id.
            dataset: What is audited.
            model: Likewise.
        """
        named = {"run": run, "dataset": dataset, "model": model}
        self._labels = {name: visible(text) for name, text in named.items()}
        before = _last_success(self._file, self._labels)
        if before is not None:
            self.set(LAST_SUCCESS, before)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Note a number.

        Args:
            name: The metric's.
            value: What it is by now.
            **labels: Those of the metric beside the run's.
        """
        help_text, names = _METRICS[name]
        if name not in self._gauges:
            self._gauges[name] = _gauge(name, help_text, names, self._registry)
        all_labels = self._labels | {key: visible(text) for key, text in labels.items()}
        self._gauges[name].labels(**{key: all_labels[key] for key in names}).set(value)

    def write(self, *, now: bool = False) -> None:
        """Write the file, unless that was done seconds ago.

        Args:
            now: Write it all the same.

        Raises:
            OSError: If it cannot be written.
        """
        if not self._labels or not (now or self._is_due()):
            return
        self._written = time.monotonic()
        from prometheus_client import write_to_textfile

        write_to_textfile(str(self._file), self._registry)

    def _is_due(self) -> bool:
        waited = None if self._written is None else time.monotonic() - self._written
        return waited is None or waited >= _SECONDS_BETWEEN_FILES


def _check_place(file: Path) -> None:
    """Find out now whether the file can be written, not after hours of work."""
    problem = None
    if file.is_dir():
        problem = "it is a folder"
    elif file.exists() and not os.access(file, os.W_OK):
        problem = "the file is not writable"
    else:
        try:
            with tempfile.TemporaryFile(dir=file.parent, prefix=file.name):
                pass
        except OSError as error:
            problem = error.strerror or str(error)
    if problem is not None:
        raise ConfigError(
            f"metrics cannot be kept in {file} (--metrics)",
            expected="a file in a folder that exists and can be written to",
            found=problem,
        )


def _open_registry() -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise ConfigError(
            "metrics need the package prometheus_client (--metrics)",
            remedy="pip install 'audit[metrics]'",
        ) from error
    return CollectorRegistry()


def _gauge(
    name: str, help_text: str, labels: tuple[str, ...], registry: CollectorRegistry
) -> Gauge:
    from prometheus_client import Gauge

    return Gauge(name, help_text, labels, registry=registry)


def _last_success(file: Path, labels: dict[str, str]) -> float | None:
    """What the file of an earlier run of the same model on the same data says."""
    from prometheus_client.parser import text_string_to_metric_families

    own = {name: labels[name] for name in _LINE}
    try:
        for family in text_string_to_metric_families(file.read_text(encoding="utf-8")):
            for sample in family.samples:
                if sample.name == LAST_SUCCESS and sample.labels == own:
                    return float(sample.value)
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return None
