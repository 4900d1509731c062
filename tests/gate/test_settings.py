"""The [gate] table: what it may say, and one clear message for each mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audit.config import load_config
from audit.errors import ConfigError
from audit.gate import load_gate
from audit.gate.settings import RULES
from audit.tables.scored import METRIC_NAMES

JOBS = Path(__file__).parents[2] / "jobs"


def written(folder: Path, text: str) -> Path:
    file = folder / "job.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_rule_is_read(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        dataset = "demo"
        [gate]
        forbid = ["relies on background", "mask-limited"]
        min_accuracy = 1
        min_class_accuracy = 0.5
        max_reliance = 0.1
        max_background_share = 0.6
        max_label_issue_share = 0
        max_undefined_share = 0.05
        min_tested_classes = 3
        baseline = "reports/a"
        except = ["cat"]
        strict = true
        untested = "fail"
        [gate.max_rise]
        far_logit = 0.1
        [gate.max_fall]
        accuracy = 0
        """,
    )
    gate = load_gate(file)
    assert gate is not None
    assert gate.rules == (
        "forbid", "min_accuracy", "min_class_accuracy", "max_reliance", "max_background_share",
        "max_label_issue_share", "max_undefined_share", "min_tested_classes", "max_rise",
        "max_fall",
    )  # fmt: skip
    assert (gate.min_accuracy, gate.max_rise, gate.max_fall) == (
        1.0, {"far_logit": 0.1}, {"accuracy": 0.0},
    )  # fmt: skip
    assert (gate.except_classes, gate.strict, gate.untested) == (("cat",), True, "fail")
    assert gate.baseline == Path("reports/a")


def test_a_limit_of_zero_is_a_rule(tmp_path: Path) -> None:
    gate = load_gate(written(tmp_path, "[gate]\nmax_label_issue_share = 0"))
    assert gate is not None and gate.rules == ("max_label_issue_share",)


def test_other_commands_read_the_job_without_its_gate(tmp_path: Path) -> None:
    file = written(tmp_path, 'limit = 3\n[gate]\nforbid = ["suspect"]')
    config = load_config(file, {})
    assert config.limit == 3
    assert "gate" not in config.model_dump()


def test_a_misspelt_gate_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'gates'") as caught:
        load_config(written(tmp_path, '[gates]\nforbid = ["suspect"]'), {})
    assert caught.value.remedy == "did you mean 'gate'?"
    assert str(caught.value.expected).endswith(", gate")
    with pytest.raises(ConfigError) as caught:
        load_config(None, {"gates": 1})
    assert not str(caught.value.expected).endswith(", gate"), "no setting of a call in Python"


def test_a_job_without_a_gate(tmp_path: Path) -> None:
    assert load_gate(written(tmp_path, "limit = 3")) is None


def test_a_flag_names_the_baseline(tmp_path: Path) -> None:
    file = written(tmp_path, "[gate.max_rise]\nkappa = 0.1")
    gate = load_gate(file, baseline=tmp_path)
    assert gate is not None and gate.baseline == tmp_path


def test_the_example_is_right() -> None:
    gate = load_gate(JOBS / "gate.toml")
    assert gate is not None and "relies on background" in gate.forbid
    assert load_config(JOBS / "gate.toml", {}).dataset == "demo"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[gate", ["is not valid TOML"]),
        ("gate = 3", ["'gate'", "a table [gate]", "found: 3"]),
        ("[gate]", ["do not fit together", "at least one rule", "an empty table"]),
        ("[gate]\nexcept = ['a']", ["at least one rule"]),
        ("[gate]\nmax_relience = 0.1", ["unknown rule 'max_relience'",
                                        "did you mean 'max_reliance'?"]),
        ("[gate]\nexcept_classes = ['a']", ["unknown rule 'except_classes'"]),
        ("[gate]\nmin_accuracy = true", ["'min_accuracy'", "valid number", "found: True"]),
        ("[gate]\nmin_accuracy = '0.9'", ["'min_accuracy'", "found: '0.9'"]),
        ("[gate]\nmin_accuracy = 90", ["'min_accuracy'", "less than or equal to 1", "found: 90"]),
        ("[gate]\nmin_accuracy = nan", ["'min_accuracy'", "found: nan"]),
        ("[gate]\nmin_tested_classes = 0", ["'min_tested_classes'", "greater than or equal to 1"]),
        ("[gate]\nmin_tested_classes = 2.5", ["'min_tested_classes'", "found: 2.5"]),
        ("[gate]\nforbid = 'suspect'", ["'forbid'", "found: 'suspect'"]),
        ("[gate]\nforbid = [1]", ["'forbid.0'", "valid string", "found: 1"]),
        ("[gate]\nforbid = ['suspekt']", ["'forbid'", "did you mean 'suspect'?"]),
        ("[gate]\nforbid = ['no evidence']", ["'forbid'", "verdicts among relies on background"]),
        ("[gate]\nforbid = ['suspect']\nstrict = 1", ["'strict'", "found: 1"]),
        ("[gate]\nforbid = ['suspect']\nuntested = 'maybe'", ["'untested'", "'fail'"]),
        ("[gate]\nforbid = ['suspect']\nclasses = ['a']\nexcept = ['a']",
         ["do not fit together", "both classes and except, as 'a' is"]),
        ("[gate]\nmax_rise = {far_logit = 0.1}", ["a baseline, which max_rise compares with"]),
        ("[gate]\nforbid = ['suspect']\nbaseline = 'b'", ["[gate.max_rise] or [gate.max_fall]"]),
        ("[gate]\nbaseline = 'b'\nmax_rise = {far_logits = 0.1}",
         ["'max_rise'", "did you mean 'far_logit'?"]),
        ("[gate]\nbaseline = 'b'\nmax_fall = {accuracy = -0.1}", ["'max_fall'", "at least 0"]),
        ("[gate]\nbaseline = 'b'\nmax_fall = {accuracy = inf}", ["'max_fall'", "finite"]),
        ("[gate]\nbaseline = 'b'\nmax_fall = {accuracy = 'x'}", ["'max_fall.accuracy'",
                                                                 "found: 'x'"]),
        ("[gate]\nbaseline = 'b'\nmax_fall = 0.1", ["'max_fall'", "found: 0.1"]),
    ],
)  # fmt: skip
def test_mistakes(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_gate(written(tmp_path, text))
    for word in words:
        assert word in str(caught.value)


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml does not exist"):
        load_gate(tmp_path / "absent.toml")


def test_the_gates_of_the_documentation_are_right(tmp_path: Path) -> None:
    text = (JOBS.parent / "docs" / "gate.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    gates = [load_gate(written(tmp_path, block)) for block in blocks]
    assert [gate.rules for gate in gates if gate is not None] == [
        ("forbid", "min_accuracy", "max_reliance"), ("max_rise", "max_fall"),
    ]  # fmt: skip
    named = set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))
    assert named >= set(RULES) - {"max_rise", "max_fall"}
    assert all(f"`{metric}`" in text for metric in METRIC_NAMES)
