"""All rules of a gate held against a finished run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.errors import ConfigError, UsageError, visible
from audit.gate.baseline import check_changes, compare_with, open_baseline
from audit.gate.checks import FAILED, NOT_EVALUATED, Check, settle_untested
from audit.gate.rules import (
    check_accuracy,
    check_each_class,
    check_forbidden,
    check_label_issues,
    check_missing,
    check_tested,
    check_undefined,
)
from audit.gate.settings import GateSettings, did_you_mean
from audit.tables.reading import AuditRun

# Class names that a message lists.
_MOST_NAMED = 20
# What runs of earlier versions lack.
_NEEDED = ("verdict", "reliance", "n_scored")


@dataclass(frozen=True)
class Evaluation:
    """What a gate says of a run.

    Attributes:
        run: The run.
        settings: The gate.
        baseline: The run that it was compared with, if any.
        checks: Every rule for every class that it holds for, in the order of the rules.
    """

    run: AuditRun
    settings: GateSettings
    baseline: AuditRun | None
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == FAILED)

    @property
    def not_evaluated(self) -> tuple[Check, ...]:
        """The checks that could not be made."""
        return tuple(check for check in self.checks if check.status == NOT_EVALUATED)

    @property
    def counts(self) -> dict[str, int]:
        """How many checks have each status."""
        found = Counter(check.status for check in self.checks)
        return {"passed": found["passed"], "failed": found["failed"],
                "not evaluated": found["not evaluated"]}  # fmt: skip

    @property
    def headline(self) -> str:
        """The outcome in a few words."""
        made = len(self.checks) - len(self.not_evaluated)
        checks = f"{made:,} check{'' if made == 1 else 's'}"
        return f"PASSED: {checks}" if self.passed else f"FAILED: {len(self.failed):,} of {checks}"


def evaluate(run: AuditRun, settings: GateSettings, baseline: AuditRun | None = None) -> Evaluation:
    """Hold a finished run against a gate.

    Args:
        run: The run.
        settings: The gate.
        baseline: What it is compared with, where that is open already; otherwise opened as the
            settings name it.

    Returns:
        Every check.

    Raises:
        ConfigError: If a class is unknown, or the baseline is absent.
        UsageError: If the run cannot be compared with the baseline, or lacks tables.
    """
    _refuse_old(run)
    classes = choose_classes(settings, run.classes)
    found = _own_checks(settings, run, classes)
    if settings.baseline is not None:
        baseline = baseline or open_baseline(settings.baseline)
        found |= check_changes(settings, compare_with(baseline, run), classes)
    settled = (settle_untested(rule, each, settings.untested) for rule, each in found.items())
    return Evaluation(run, settings, baseline, tuple(check for each in settled for check in each))


def _own_checks(
    settings: GateSettings, run: AuditRun, classes: pd.DataFrame
) -> dict[str, list[Check]]:
    """The checks of each rule that needs no baseline."""
    found: dict[str, list[Check]] = {}
    if run.manifest.get("missing"):
        found["allow_missing"] = [check_missing(run.manifest, allowed=settings.allow_missing)]
    for rule in settings.rules:
        if rule == "forbid":
            found[rule] = check_forbidden(settings.forbid, classes)
        elif rule == "min_accuracy":
            found[rule] = check_accuracy(settings, run)
        elif rule == "max_label_issue_share":
            found[rule] = check_label_issues(settings, run.manifest["totals"])
        elif rule == "max_undefined_share":
            total = int(run.manifest["totals"]["samples"])
            found[rule] = check_undefined(settings, total, run.classes, classes)
        elif rule == "min_tested_classes":
            found[rule] = check_tested(int(settings.min_tested_classes or 0), classes)
        elif rule in ("min_class_accuracy", "max_reliance", "max_background_share"):
            found[rule] = check_each_class(settings, rule, classes)
    return found


def choose_classes(settings: GateSettings, classes: pd.DataFrame) -> pd.DataFrame:
    """The classes that rules of classes hold for.

    Args:
        settings: The gate.
        classes: Rows of ``classes.parquet``.

    Raises:
        ConfigError: If a name is no class of the run, or no class is left.
    """
    names = [str(name) for name in classes["label_name"]]
    for setting, named in (("classes", settings.classes), ("except", settings.except_classes)):
        for name in named:
            if name not in names:
                raise ConfigError(
                    f"unknown class '{name}' in the gate's '{setting}'",
                    expected=_listed(names),
                    remedy=did_you_mean(name, names),
                )
    kept = pd.Series(names, classes.index).isin(settings.classes or names)
    kept &= ~pd.Series(names, classes.index).isin(settings.except_classes)
    if not kept.any():
        raise ConfigError(
            "the gate's 'except' leaves no class",
            expected=f"fewer than all {len(names)} classes",
            remedy="leave out rules of classes instead",
        )
    return classes[kept]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _refuse_old(run: AuditRun) -> None:
    missing = [name for name in _NEEDED if name not in run.classes]
    if missing:
        raise UsageError(
            f"the run in {run.path} is too old for a gate",
            expected=f"the column '{missing[0]}' in classes.parquet",
            remedy="run the same audit again: what is whole is kept",
        )


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The whole outcome, for machines."""
    return {
        "schema_version": 1,
        "outcome": "passed" if evaluation.passed else "failed",
        "counts": evaluation.counts,
        "run": _identity(evaluation.run),
        "baseline": None if evaluation.baseline is None else _identity(evaluation.baseline),
        "settings": evaluation.settings.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "checks": [_check_as_json(check) for check in evaluation.checks],
    }


def _identity(run: AuditRun) -> dict[str, Any]:
    names = ("run_id", "fingerprint", "dataset", "split", "model", "finished")
    return {name: run.manifest[name] for name in names}


def _check_as_json(check: Check) -> dict[str, Any]:
    of_class = check.scope == "class"
    return {
        "rule": check.rule,
        "scope": check.scope,
        "label": check.label if of_class else None,
        "class": check.name if of_class else None,
        "status": check.status,
        "value": check.value,
        "low": check.low,
        "high": check.high,
        "limit": check.limit,
        "verdict": check.verdict,
        "message": check.message,
    }


def outcome_lines(evaluation: Evaluation, most: int = 20) -> Iterable[str]:
    """The outcome for a terminal: a line for each failed check.

    Args:
        evaluation: The outcome.
        most: Lines of failed checks at most.
    """
    failed = evaluation.failed
    yield f"GATE {evaluation.headline}"
    yield from (f"   {check.rule}: {visible(check.message)}" for check in failed[:most])
    if len(failed) > most:
        yield f"   and {len(failed) - most:,} more"
    if evaluation.not_evaluated:
        names = list(
            dict.fromkeys(visible(c.name) or "the split" for c in evaluation.not_evaluated)
        )
        yield f"   not judged by every rule: {_listed(names)}"
