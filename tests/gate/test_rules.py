"""Every rule on both sides of its limit, at the limit, and where nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from audit.errors import ConfigError, UsageError
from audit.gate import evaluate
from audit.gate.checks import Bound, Check, Measured
from audit.gate.rules import split_accuracy
from tests.gate.making import UNTESTED, a_class, a_run, settings


def checks_of(path: Path, *classes: dict[str, Any], **rules: Any) -> list[Check]:
    return list(evaluate(a_run(path, *classes), settings(**rules)).checks)


def statuses(path: Path, *classes: dict[str, Any], **rules: Any) -> list[str]:
    return [check.status for check in checks_of(path, *classes, **rules)]


@pytest.mark.parametrize(
    ("ceiling", "by", "limit", "status"),
    [
        # The number is 0.5, its interval 0.4 to 0.6.
        (True, "point", 0.49, "failed"), (True, "point", 0.5, "passed"),
        (True, "sure", 0.39, "failed"), (True, "sure", 0.4, "passed"),
        (True, "strict", 0.59, "failed"), (True, "strict", 0.6, "passed"),
        (False, "point", 0.51, "failed"), (False, "point", 0.5, "passed"),
        (False, "sure", 0.61, "failed"), (False, "sure", 0.6, "passed"),
        (False, "strict", 0.41, "failed"), (False, "strict", 0.4, "passed"),
    ],
)  # fmt: skip
def test_which_end_of_the_interval_decides(
    ceiling: bool, by: Literal["point", "sure", "strict"], limit: float, status: str
) -> None:
    bound = Bound(rule="r", quantity="q", limit=limit, ceiling=ceiling, by=by)
    assert bound.check(Measured(0, "a", 0.5, 0.4, 0.6)).status == status
    assert bound.check(Measured(0, "a", None)).status == "not evaluated"
    alone = bound.check(Measured(0, "a", 0.5))
    assert alone.status == (status if by == "point" else "not evaluated")


def test_a_number_beside_its_limit_is_told_from_it() -> None:
    bound = Bound(rule="r", quantity="accuracy", limit=0.9, ceiling=False, by="point")
    found = bound.check(Measured(-1, "", 0.89998, 0.898, 0.902))
    assert found.message == "the split: accuracy 0.89998 (0.898 to 0.902) is below the limit 0.9"


def test_forbidden_verdicts(tmp_path: Path) -> None:
    relies = a_class(1, "cat", verdict="relies on background", reliance=0.4, reliance_low=0.3,
                     reliance_high=0.5)  # fmt: skip
    both = (a_class(0, "dog"), relies)
    good, bad = checks_of(tmp_path, *both, forbid=["relies on background"])
    assert (good.status, bad.status) == ("passed", "failed")
    assert bad.message == (
        "class 'cat': relies on background, reliance 0.4 (0.3 to 0.5); "
        "limit: no class may be 'relies on background'"
    )
    assert (bad.value, bad.low, bad.high, bad.verdict) == (0.4, 0.3, 0.5, "relies on background")
    # What is worse than suspect does not pass a gate that lets nothing suspect through.
    assert statuses(tmp_path, *both, forbid=["suspect"]) == ["passed", "failed"]
    suspect = a_class(0, "dog", verdict="suspect")
    assert statuses(tmp_path, suspect, relies, forbid=["suspect"]) == ["failed", "failed"]
    assert statuses(tmp_path, suspect, relies, forbid=["relies on background"]) == [
        "passed", "failed",
    ]  # fmt: skip
    assert statuses(tmp_path, *both, forbid=["relies on background"], **{"except": ["cat"]}) == [
        "passed"
    ]
    assert statuses(tmp_path, *both, forbid=["relies on background"], classes=["cat"]) == ["failed"]


def test_a_class_that_was_not_judged_is_listed_and_may_be_forbidden(tmp_path: Path) -> None:
    both = (a_class(0, "dog"), a_class(1, "cat", **UNTESTED))
    assert statuses(tmp_path, *both, forbid=["suspect"]) == ["passed", "not evaluated"]
    assert statuses(tmp_path, *both, forbid=["too few samples"]) == ["passed", "failed"]
    assert statuses(tmp_path, *both, forbid=["suspect"], untested="fail") == ["passed", "failed"]
    limited = a_class(1, "cat", verdict="mask-limited")
    assert statuses(tmp_path, a_class(0, "dog"), limited, forbid=["suspect"]) == [
        "passed", "not evaluated",
    ]  # fmt: skip


@pytest.mark.parametrize("rule", [{"forbid": ["relies on background"]}, {"max_reliance": 0.2}])
def test_no_gate_passes_because_nothing_was_tested(tmp_path: Path, rule: dict[str, Any]) -> None:
    none = (a_class(0, "dog", **UNTESTED), a_class(1, "cat", **UNTESTED))
    evaluation = evaluate(a_run(tmp_path, *none), settings(**rule))
    assert not evaluation.passed
    assert evaluation.failed[0].message.startswith("the split: nothing could be judged by")
    assert evaluate(a_run(tmp_path, *none), settings(**rule, untested="allow")).passed
    assert len(evaluate(a_run(tmp_path, *none), settings(**rule, untested="fail")).failed) == 2


def test_tested_classes_are_counted(tmp_path: Path) -> None:
    classes = (
        a_class(0, "a"),
        a_class(1, "b", verdict="suspect"),
        a_class(2, "c", verdict="mask-limited"),
        a_class(3, "d", **UNTESTED),
    )
    (check,) = checks_of(tmp_path, *classes, min_tested_classes=3)
    assert (check.status, check.value, check.limit) == ("failed", 2, 3)
    assert "2 of 4 classes could be judged" in check.message
    assert statuses(tmp_path, *classes, min_tested_classes=2) == ["passed"]


@pytest.mark.parametrize(
    ("rule", "column", "point", "sure", "strict"),
    [
        # The class's value is 0.5 (0.4 to 0.6). Limits it just keeps, and just does not keep.
        ("min_class_accuracy", "accuracy", (0.5, 0.51), None, (0.4, 0.41)),
        ("max_background_share", "background_share", (0.5, 0.49), None, (0.6, 0.59)),
        ("max_reliance", "reliance", None, (0.4, 0.39), (0.6, 0.59)),
    ],
)
def test_limits_of_each_class(
    tmp_path: Path,
    rule: str,
    column: str,
    point: tuple[float, float] | None,
    sure: tuple[float, float] | None,
    strict: tuple[float, float],
) -> None:
    values = {column: 0.5, f"{column}_low": 0.4, f"{column}_high": 0.6}
    unknown = {column: None, f"{column}_low": None, f"{column}_high": None}
    classes = (a_class(0, "dog", **values), a_class(1, "cat", **unknown))
    kept, broken = point or sure or (0.0, 0.0)
    assert statuses(tmp_path, *classes, **{rule: kept}) == ["passed", "not evaluated"]
    assert statuses(tmp_path, *classes, **{rule: broken}) == ["failed", "not evaluated"]
    assert statuses(tmp_path, *classes, **{rule: strict[0]}, strict=True)[0] == "passed"
    assert statuses(tmp_path, *classes, **{rule: strict[1]}, strict=True)[0] == "failed"
    failed = checks_of(tmp_path, *classes, **{rule: broken})[0]
    assert "class 'dog'" in failed.message
    assert "0.5 (0.4 to 0.6)" in failed.message
    assert failed.message.endswith(f"the limit {broken}")


def test_accuracy_of_the_split(tmp_path: Path) -> None:
    dog = a_class(0, "dog")
    assert statuses(tmp_path, dog, min_accuracy=0.9) == ["passed"]
    (failed,) = checks_of(tmp_path, dog, min_accuracy=0.91)
    assert (failed.status, failed.label, failed.value) == ("failed", -1, 0.9)
    # Wilson's interval of 9 of 10.
    assert failed.low == pytest.approx(0.59585, abs=1e-5)
    assert failed.high == pytest.approx(0.98213, abs=1e-5)
    assert statuses(tmp_path, dog, min_accuracy=0.59, strict=True) == ["passed"]
    assert statuses(tmp_path, dog, min_accuracy=0.6, strict=True) == ["failed"]


def test_accuracy_leaves_out_what_has_no_label(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_class(0, "dog"), correct=(True, None, False, None))
    assert split_accuracy(run.samples).value == 0.5
    nothing = a_run(tmp_path, a_class(0, "dog"), correct=(None, None))
    evaluation = evaluate(nothing, settings(min_accuracy=0.1))
    assert [check.status for check in evaluation.checks] == ["not evaluated", "failed"]


def test_label_issues(tmp_path: Path) -> None:
    dog = a_class(0, "dog")
    assert statuses(tmp_path, dog, max_label_issue_share=0.01) == ["passed"]
    assert statuses(tmp_path, dog, max_label_issue_share=0.0099) == ["failed"]
    run = a_run(tmp_path, dog, label_issue_share=None)
    checks = evaluate(run, settings(max_label_issue_share=0.5)).checks
    assert [check.status for check in checks] == ["not evaluated", "failed"]


def test_undefined_samples_of_the_split_and_of_each_class(tmp_path: Path) -> None:
    # 3 of 10 undefined; 1 − 7/10 would be above 0.3.
    classes = (
        a_class(0, "dog", n=10, n_scored=7),
        a_class(1, "cat", n=10, n_scored=10),
        a_class(2, "none", n=0, n_scored=0),
    )
    split, dog, cat, none = checks_of(tmp_path, *classes, max_undefined_share=0.3)
    assert (split.value, dog.value, cat.value, none.value) == (0.15, 0.3, 0.0, None)
    assert [c.status for c in (split, dog, cat, none)] == ["passed"] * 3 + ["not evaluated"]
    assert statuses(tmp_path, *classes, max_undefined_share=0.2)[:3] == [
        "passed", "failed", "passed",
    ]  # fmt: skip
    # The split counts samples without a label too, and classes that are excepted.
    run = a_run(tmp_path, *classes, samples=34)
    found = evaluate(run, settings(max_undefined_share=0.4, **{"except": ["dog"]})).checks
    assert [check.status for check in found] == ["failed", "passed", "not evaluated"]
    assert found[0].value == 0.5


@pytest.mark.parametrize("setting", ["classes", "except"])
def test_an_unknown_class(tmp_path: Path, setting: str) -> None:
    run = a_run(tmp_path, a_class(0, "dog"), a_class(1, "cat"))
    with pytest.raises(ConfigError, match=rf"unknown class 'cta' in the gate's '{setting}'") as it:
        evaluate(run, settings(max_reliance=0.1, **{setting: ["cta"]}))
    assert "did you mean 'cat'?" in str(it.value)
    assert "dog, cat" in str(it.value)


def test_a_gate_for_no_class(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_class(0, "dog"))
    with pytest.raises(ConfigError, match="leaves no class"):
        evaluate(run, settings(max_reliance=0.1, **{"except": ["dog"]}))


def test_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_class(0, "dog"))
    run.__dict__["classes"] = run.classes.drop(columns="verdict")
    with pytest.raises(UsageError, match="too old"):
        evaluate(run, settings(max_reliance=0.1))
