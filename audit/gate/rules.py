"""The rules about one run's own numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd

from audit.gate.checks import (
    FAILED,
    NOT_EVALUATED,
    PASSED,
    SPLIT,
    Bound,
    Check,
    Measured,
    Status,
    figures,
    number,
)
from audit.gate.settings import GateSettings
from audit.run.gaps import gaps_in_words, gaps_of
from audit.tables.clusters import find_clusters
from audit.tables.power import mean_error, wilson_interval
from audit.tables.reading import AuditRun
from audit.tables.verdicts import MASK_LIMITED, RELIES, SUSPECT, TOO_FEW

By = Literal["point", "sure", "strict"]
# Verdicts that say that nothing can be said.
NOT_JUDGED = (MASK_LIMITED, TOO_FEW)


def check_forbidden(forbidden: Collection[str], classes: pd.DataFrame) -> list[Check]:
    """Hold each class's verdict against those that no class may have.

    Args:
        forbidden: Verdicts; where no class may be suspect, none may rely on background either.
        classes: Rows of ``classes.parquet``.
    """
    if SUSPECT in forbidden:
        forbidden = {*forbidden, RELIES}
    return [_forbidden(forbidden, row) for row in classes.to_dict("records")]


def _forbidden(forbidden: Collection[str], row: dict[Any, Any]) -> Check:
    verdict = str(row["verdict"])
    value, low, high = (number(row[f"reliance{end}"]) for end in ("", "_low", "_high"))
    status: Status = PASSED
    if verdict in forbidden:
        status = FAILED
    elif verdict in NOT_JUDGED:
        status = NOT_EVALUATED
    words = verdict
    if value is not None:
        words += f", reliance {figures(value)}"
        if low is not None and high is not None:
            words += f" ({figures(low)} to {figures(high)})"
    if status == FAILED:
        words += f"; limit: no class may be '{verdict}'"
    name = str(row["label_name"])
    return Check(
        rule="forbid", label=int(row["label"]), name=name, status=status, value=value,
        low=low, high=high, verdict=verdict, message=f"class '{name}': {words}",
    )  # fmt: skip


def check_each_class(settings: GateSettings, rule: str, classes: pd.DataFrame) -> list[Check]:
    """Hold one number of each class against its limit.

    Args:
        settings: The gate.
        rule: ``min_class_accuracy``, ``max_reliance`` or ``max_background_share``.
        classes: Rows of ``classes.parquet``.
    """
    column, quantity, ceiling, usual = _OF_CLASSES[rule]
    bound = Bound(
        rule=rule, quantity=quantity, limit=getattr(settings, rule), ceiling=ceiling,
        by="strict" if settings.strict else usual,
    )  # fmt: skip
    return [bound.check(found) for found in _measured(classes, column)]


# Column, words, whether the limit is an upper one, and what decides without ``strict``. Reliance is
# estimated from edited samples and random partners, so it must be sure; the others describe the
# very images of the split.
_OF_CLASSES: dict[str, tuple[str, str, bool, By]] = {
    "min_class_accuracy": ("accuracy", "accuracy", False, "point"),
    "max_reliance": ("reliance", "reliance", True, "sure"),
    "max_background_share": ("background_share", "background share", True, "point"),
}


def _measured(classes: pd.DataFrame, column: str) -> list[Measured]:
    return [
        Measured(
            int(row["label"]),
            str(row["label_name"]),
            *(number(row[f"{column}{end}"]) for end in ("", "_low", "_high")),
        )
        for row in classes.to_dict("records")
    ]


def check_accuracy(settings: GateSettings, run: AuditRun) -> list[Check]:
    """Hold the split's accuracy against ``min_accuracy``."""
    assert settings.min_accuracy is not None
    bound = Bound(
        rule="min_accuracy", quantity="accuracy", limit=settings.min_accuracy, ceiling=False,
        by="strict" if settings.strict else "point",
    )  # fmt: skip
    return [bound.check(split_accuracy(run.samples))]


def split_accuracy(samples: pd.DataFrame) -> Measured:
    """The share of right predictions and its 95% interval (Wilson; near-duplicates count less).

    Args:
        samples: The rows of all parts.
    """
    correct = samples["correct"].to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(correct)
    right = mean_error(correct[known], find_clusters(samples)[known])
    ends = wilson_interval(right.mean, right.effective)
    return Measured(SPLIT, "", number(right.mean), *map(number, ends))


def check_label_issues(settings: GateSettings, totals: dict[str, Any]) -> list[Check]:
    """Hold the share of labels that look wrong against its limit."""
    assert settings.max_label_issue_share is not None
    bound = _exact("max_label_issue_share", "share of label issues", settings.max_label_issue_share)
    return [bound.check(Measured(SPLIT, "", number(totals["label_issue_share"])))]


def check_undefined(
    settings: GateSettings, samples: int, all_classes: pd.DataFrame, classes: pd.DataFrame
) -> list[Check]:
    """Hold the share of samples without scores against its limit, for the split and each class.

    Args:
        settings: The gate.
        samples: How many the split holds; those without a label have no scores of any class.
        all_classes: Rows of ``classes.parquet``.
        classes: Those that rules of classes hold for.
    """
    assert settings.max_undefined_share is not None
    bound = _exact("max_undefined_share", "undefined share", settings.max_undefined_share)
    scored = int(all_classes["n_scored"].sum())
    found = [Measured(SPLIT, "", _share(samples - scored, samples))]
    for row in classes.to_dict("records"):
        n = int(row["n"])
        share = _share(n - int(row["n_scored"]), n)
        found.append(Measured(int(row["label"]), str(row["label_name"]), share))
    return [bound.check(each) for each in found]


def _share(part: int, whole: int) -> float | None:
    # Not 1 − the rest over the whole: 3 of 10 must keep a limit of 0.3.
    return part / whole if whole else None


def _exact(rule: str, quantity: str, limit: float) -> Bound:
    """A limit for a number that is counted, not estimated."""
    return Bound(rule=rule, quantity=quantity, limit=limit, ceiling=True, by="point")


def check_missing(manifest: Mapping[str, Any], *, allowed: bool) -> Check:
    """Whether a run that goes without parts of its split may do so.

    Args:
        manifest: Of a run that lacks some.
        allowed: What the gate says.
    """
    absent = sum(gap.samples for gap in gaps_of(manifest))
    share = absent / (absent + int(manifest["totals"]["samples"]))
    words = f"the split: {gaps_in_words(manifest)}"
    if not allowed:
        words += "; limit: none may be missing unless allow_missing is true"
    return Check(
        rule="allow_missing", label=SPLIT, name="", status=PASSED if allowed else FAILED,
        value=share, limit=None if allowed else 0.0, message=words,
    )  # fmt: skip


def check_tested(least: int, classes: pd.DataFrame) -> list[Check]:
    """Hold the number of classes with a verdict that says something against its limit.

    Args:
        least: The limit.
        classes: Rows of ``classes.parquet``.
    """
    count = int((~classes["verdict"].isin(NOT_JUDGED)).sum())
    enough = count >= least
    words = f"{count} of {len(classes)} classes could be judged, "
    words += f"{'not ' if not enough else ''}as many as the limit {least}"
    return [
        Check(
            rule="min_tested_classes", label=SPLIT, name="", status=PASSED if enough else FAILED,
            value=float(count), limit=float(least), message=f"the split: {words}",
        )
    ]  # fmt: skip
