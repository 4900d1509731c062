"""Finished runs by hand: the tables a gate reads, without a model or a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from audit.gate import GateSettings
from audit.tables import AuditRun

FINISHED = "2026-01-02T03:04:05+00:00"


def a_class(label: int, name: str, **changed: Any) -> dict[str, Any]:
    """A class that keeps every rule, but for what is changed."""
    return {
        "label": label, "label_name": name, "n": 100, "n_scored": 100,
        "accuracy": 0.9, "accuracy_low": 0.83, "accuracy_high": 0.94,
        "verdict": "no evidence", "reliance": 0.01, "reliance_low": 0.0, "reliance_high": 0.02,
        "background_share": 0.3, "background_share_low": 0.28, "background_share_high": 0.32,
        "transplant_rate": 0.1, "far_logit": 0.2, "kappa": 0.4,
    } | changed  # fmt: skip


UNTESTED = {
    "verdict": "too few samples", "reliance": None, "reliance_low": None, "reliance_high": None
}  # fmt: skip


def frame(*classes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(classes).convert_dtypes()


def a_run(
    path: Path,
    *classes: dict[str, Any],
    correct: Sequence[bool | None] = (True,) * 9 + (False,),
    **totals: Any,
) -> AuditRun:
    """A run whose tables are held already."""
    facts = {
        "run_id": "abc", "fingerprint": "abcdef", "dataset": "folder:<b>|x", "split": "test",
        "model": "cnn", "finished": FINISHED,
        "totals": {"samples": sum(c["n"] for c in classes), "label_issue_share": 0.01,
                   "accuracy": 0.9} | totals,
    }  # fmt: skip
    run = AuditRun(path, facts)
    run.__dict__["classes"] = frame(*classes)
    run.__dict__["samples"] = pd.DataFrame({"correct": pd.array(list(correct), "boolean")})
    return run


def settings(**given: Any) -> GateSettings:
    return GateSettings(**given)
