"""The rules about the change since a baseline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from audit.errors import ConfigError
from audit.gate.checks import (
    FAILED,
    NOT_EVALUATED,
    PASSED,
    SPLIT,
    Bound,
    Check,
    Measured,
    figures,
    number,
    subject,
)
from audit.gate.settings import AGAINST_BASELINE, GateSettings
from audit.tables.comparison import LEAST_PAIRS, compare_runs_tables
from audit.tables.reading import AuditRun, load_run
from audit.tables.scored import METRICS
from audit.tables.thresholds import THRESHOLDS

# A change of one class among many is sure only if it also stands out of what chance does to as many
# classes (Benjamini–Hochberg).
SURE = 0.05
_EDITED = frozenset(metric.name for metric in METRICS if metric.edited)


def open_baseline(path: Path) -> AuditRun:
    """Open the run to compare with.

    Args:
        path: A run's folder, or a folder of runs of which the newest counts.

    Raises:
        ConfigError: If there is no complete run.
    """
    if not path.is_dir():
        raise ConfigError(
            f"the gate's baseline {path} does not exist",
            expected="the folder of a finished run",
            remedy="name it as baseline in [gate], or with audit gate --baseline",
        )
    return load_run(path)


def compare_with(baseline: AuditRun, run: AuditRun) -> pd.DataFrame:
    """The comparison of a run with its baseline, a row for each class or the split and metric.

    Raises:
        UsageError: If they cannot be compared, or are the same folder.
    """
    if baseline.path.resolve() == run.path.resolve():
        raise ConfigError(
            "the gate's baseline is the very run that it judges",
            expected="another run",
            found=str(run.path),
            remedy="name the folder of a run, not one that holds both",
        )
    compared: pd.DataFrame = compare_runs_tables(baseline, run)["compare"].to_pandas()
    return compared


def check_changes(
    settings: GateSettings, compared: pd.DataFrame, classes: pd.DataFrame
) -> dict[str, list[Check]]:
    """Hold changes since the baseline against their limits, for the split and each class.

    Args:
        settings: The gate.
        compared: Rows of the table ``compare``, the baseline as ``a``.
        classes: Rows of ``classes.parquet`` that rules of classes hold for.

    Returns:
        The checks of each rule, by its name with the metric.
    """
    names = dict(zip(map(int, classes["label"]), map(str, classes["label_name"]), strict=True))
    found = {}
    for direction in AGAINST_BASELINE:
        limits: dict[str, float] = getattr(settings, direction)
        for metric, limit in limits.items():
            bound = Bound(
                rule=f"{direction}.{metric}",
                quantity=f"{direction.removeprefix('max_')} of {metric}",
                limit=limit,
                ceiling=True,
                by="strict" if settings.strict else "sure",
            )
            own = compared[compared["metric"] == metric].to_dict("records")
            rows = {int(row["label"]): row for row in own}
            found[bound.rule] = [
                _check(bound, metric, rows.get(label), label, name)
                for label, name in {SPLIT: "", **names}.items()
            ]
    return found


def _check(bound: Bound, metric: str, row: dict[Any, Any] | None, label: int, name: str) -> Check:
    """One class, or the split, of one rule."""
    if row is None:
        return _undecided(bound, label, name, f"no sample has {metric} in both runs")
    least = THRESHOLDS.least_edited if metric in _EDITED else LEAST_PAIRS
    if row["n_clusters"] < least:
        words = f"{int(row['n_clusters'])} different pictures have {metric} in both runs, "
        return _undecided(bound, label, name, f"{words}{least} are needed")
    change, low, high = (number(row[column]) for column in ("change", "low", "high"))
    if bound.rule.startswith("max_fall"):
        change, low, high = _negative(change), _negative(high), _negative(low)
    check = bound.check(Measured(label, name, change, low, high))
    # The split is one test, named beforehand.
    if bound.by == "sure" and label != SPLIT:
        check = _unless_by_chance(check, number(row["q"]))
    return _told(check, row)


def _undecided(bound: Bound, label: int, name: str, why: str) -> Check:
    return Check(
        rule=bound.rule, label=label, name=name, status=NOT_EVALUATED, value=None,
        limit=bound.limit, message=f"{subject(label, name)}: {why}",
    )  # fmt: skip


def _unless_by_chance(check: Check, q: float | None) -> Check:
    """Pass a sure change that so many classes would show by chance."""
    if check.status != FAILED or q is None or q <= SURE:
        return check
    found, _, limit = check.message.rpartition(" is surely above ")
    words = f"{found} is above {limit}, but among so many classes it may be chance"
    words += f" (q = {figures(q)})"
    return replace(check, status=PASSED, message=words)


def _told(check: Check, row: dict[Any, Any]) -> Check:
    """Say from what to what."""
    before, after = number(row["a"]), number(row["b"])
    if before is None or after is None:
        return check
    return replace(check, message=f"{check.message}; {figures(before)} → {figures(after)}")


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
