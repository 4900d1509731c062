"""Changes since a baseline, on a comparison made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audit.errors import ConfigError
from audit.gate.baseline import check_changes, compare_with, open_baseline
from audit.gate.checks import Check
from tests.gate.making import a_class, a_run, frame, settings

CLASSES = frame(a_class(0, "dog"), a_class(1, "cat"))


def row(label: int, change: float, low: float | None, high: float | None,
        **more: Any) -> dict[str, Any]:  # fmt: skip
    return {
        "label": label, "label_name": {0: "dog", 1: "cat"}.get(label), "metric": "far_logit",
        "n_clusters": 50, "a": 0.5, "b": 0.5 + change, "change": change, "low": low, "high": high,
        "q": 0.001,
    } | more  # fmt: skip


def changes(*rows: dict[str, Any], **rules: Any) -> dict[int, Check]:
    (checks,) = check_changes(settings(baseline="b", **rules), pd.DataFrame(rows), CLASSES).values()
    return {check.label: check for check in checks}


def test_a_rise_fails_where_it_is_sure() -> None:
    rows = (row(-1, 0.1, 0.05, 0.15), row(0, 0.3, 0.2, 0.4), row(1, 0.3, 0.05, 0.55))
    found = changes(*rows, max_rise={"far_logit": 0.1})
    assert {label: check.status for label, check in found.items()} == {
        -1: "passed", 0: "failed", 1: "passed",
    }  # fmt: skip
    assert found[0].rule == "max_rise.far_logit"
    assert found[0].message == (
        "class 'dog': rise of far_logit 0.3 (0.2 to 0.4) is surely above the limit 0.1; 0.5 → 0.8"
    )
    # The lower end at the limit keeps it.
    assert changes(*rows, max_rise={"far_logit": 0.2})[0].status == "passed"


def test_strict_wants_the_whole_interval_below() -> None:
    rows = (row(-1, 0.0, -0.1, 0.1), row(0, 0.0, -0.3, 0.2), row(1, 0.0, -0.3, 0.1))
    found = changes(*rows, max_rise={"far_logit": 0.1}, strict=True)
    assert {label: check.status for label, check in found.items()} == {
        -1: "passed", 0: "failed", 1: "passed",
    }  # fmt: skip
    assert "is not surely at most the limit 0.1" in found[0].message


def test_a_fall_is_a_rise_downwards() -> None:
    rows = (row(-1, 0.5, 0.4, 0.6), row(0, -0.3, -0.4, -0.2), row(1, -0.3, -0.6, 0.0))
    found = changes(*rows, max_fall={"far_logit": 0.1})
    assert [found[label].status for label in (-1, 0, 1)] == ["passed", "failed", "passed"]
    assert (found[0].value, found[0].low, found[0].high) == (0.3, 0.2, 0.4)
    strict = changes(*rows, max_fall={"far_logit": 0.4}, strict=True)
    assert [strict[label].status for label in (-1, 0, 1)] == ["passed", "passed", "failed"]


def test_among_many_classes_chance_counts_but_not_for_the_split() -> None:
    rows = (row(-1, 0.3, 0.2, 0.4, q=0.06), row(0, 0.3, 0.2, 0.4, q=0.06),
            row(1, 0.3, 0.2, 0.4, q=0.05))  # fmt: skip
    found = changes(*rows, max_rise={"far_logit": 0.1})
    assert [found[label].status for label in (-1, 0, 1)] == ["failed", "passed", "failed"]
    assert found[0].message == (
        "class 'dog': rise of far_logit 0.3 (0.2 to 0.4) is above the limit 0.1, "
        "but among so many classes it may be chance (q = 0.06); 0.5 → 0.8"
    )
    strict = changes(*rows, max_rise={"far_logit": 0.1}, strict=True)
    assert [strict[label].status for label in (-1, 0, 1)] == ["failed"] * 3


def test_what_cannot_be_compared_is_not_evaluated() -> None:
    rows = (row(-1, 0.3, None, None, q=None), row(0, 0.9, 0.8, 1.0, n_clusters=9))
    found = changes(*rows, max_rise={"far_logit": 0.1})
    assert [found[label].status for label in (-1, 0, 1)] == ["not evaluated"] * 3
    assert "9 different pictures have far_logit in both runs, 10 are needed" in found[0].message
    assert "no sample has far_logit in both runs" in found[1].message
    # Edited samples need more.
    edited = changes(row(0, 0.9, 0.8, 1.0, n_clusters=19, metric="reliance"),
                     max_rise={"reliance": 0.1})  # fmt: skip
    assert "20 are needed" in edited[0].message


def test_excepted_classes_are_left_out_but_the_split_is_not() -> None:
    rules = settings(baseline="b", max_rise={"far_logit": 0.1})
    rows = pd.DataFrame([row(-1, 0.3, 0.2, 0.4), row(0, 0.3, 0.2, 0.4), row(1, 0.3, 0.2, 0.4)])
    found = check_changes(rules, rows, CLASSES[CLASSES["label"] == 1])["max_rise.far_logit"]
    assert [check.label for check in found] == [-1, 1]


def test_an_absent_baseline(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        open_baseline(tmp_path / "absent")


def test_a_run_is_not_its_own_baseline(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_class(0, "dog"))
    with pytest.raises(ConfigError, match="the very run that it judges"):
        compare_with(a_run(tmp_path / "x" / "..", a_class(0, "dog")), run)
