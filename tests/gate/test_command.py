"""The gate as a pipeline runs it: exit codes, files, and what the terminal says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from xml.etree import ElementTree

import pytest

from audit import load_run, run_audit
from audit.tables import AuditRun

Command = Callable[..., "CompletedProcess[str]"]
LIMIT = 200


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    """The shipped demo model: the background was planted in three and eight."""
    return run_audit(
        dataset="demo", limit=LIMIT, grids=False, out=tmp_path_factory.mktemp("reports")
    )


@pytest.fixture(autouse=True)
def _no_step_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def judged(run: AuditRun) -> int:
    """Of so few images some classes have too few to be judged."""
    count = int(run.classes["reliance"].notna().sum())
    assert 3 <= count < 10
    return count


def job(folder: Path, gate: str, settings: str = "") -> Path:
    file = folder / "job.toml"
    file.write_text(f"{settings}\n[gate]\n{gate}\n", encoding="utf-8")
    return file


def test_a_gate_that_should_fail(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    config = job(tmp_path, "forbid = ['relies on background']\nmax_reliance = 0.25")
    said = audit_here("gate", run.path, "--config", config)
    assert said.returncode == 3, said.stderr
    lines = said.stdout.splitlines()
    assert f"GATE FAILED: 4 of {2 * judged(run)} checks" in lines
    assert any(line.startswith("   not judged by every rule: ") for line in lines)
    for name in ("three", "eight"):
        found = run.classes.set_index("label_name").loc[name, "reliance"]
        (forbidden,) = [
            line for line in lines if line.startswith(f"   forbid: class '{name}': relies on")
        ]
        assert "limit: no class may be 'relies on background'" in forbidden
        (limited,) = [line for line in lines if line.startswith(f"   max_reliance: class '{name}'")]
        assert f"reliance {found:.4g} (" in limited
        assert limited.endswith("is surely above the limit 0.25")
    outcome = json.loads((run.path / "gate.json").read_text(encoding="utf-8"))
    failed = {check["class"] for check in outcome["checks"] if check["status"] == "failed"}
    assert failed == {"three", "eight"}
    suite = ElementTree.parse(run.path / "gate.xml").getroot()[0]
    assert suite.get("failures") == "4"
    assert (run.path / "gate.md").read_text(encoding="utf-8").startswith("## Gate failed: 4 of ")
    # The run is whole as before.
    assert load_run(run.path).manifest == run.manifest


def test_a_gate_that_should_pass(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    config = job(
        tmp_path, "forbid = ['relies on background']\nexcept = ['three', 'eight']\n"
        "min_accuracy = 0.9\nmax_undefined_share = 0.1"
    )  # fmt: skip
    out = tmp_path / "ci"
    said = audit_here("gate", run.path, "--config", config, "--out", out)
    assert said.returncode == 0, said.stderr
    assert f"GATE PASSED: {judged(run) - 2 + 1 + 9} checks" in said.stdout
    assert json.loads((out / "gate.json").read_text(encoding="utf-8"))["outcome"] == "passed"


def test_audit_run_ends_with_its_gate(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    out = run.path.parents[2]
    settings = f"limit = {LIMIT}\ngrids = false\nout = '{out}'"
    config = job(tmp_path, "forbid = ['relies on background']", settings)
    said = audit_here("run", "--config", config)
    assert said.returncode == 3, said.stderr
    assert "RELIES ON BACKGROUND: 2 of 10 classes" in said.stdout
    assert f"GATE FAILED: 2 of {judged(run)} checks" in said.stdout
    # The gate is no part of the run: the same one is found again, and judged otherwise.
    assert load_run(out).manifest["run_id"] == run.manifest["run_id"]
    assert len(list(out.rglob("manifest.json"))) == 1
    config = job(tmp_path, "min_accuracy = 0.5", settings)
    said = audit_here("run", "--config", config)
    assert said.returncode == 0, said.stderr
    assert "GATE PASSED: 1 check" in said.stdout


def test_the_summary_of_a_step(
    audit_here: Command, run: AuditRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    config = job(tmp_path, "max_reliance = 0.25")
    assert audit_here("gate", run.path, "--config", config).returncode == 3
    text = summary.read_text(encoding="utf-8")
    assert text.startswith(f"before\n\n## Gate failed: 2 of {judged(run)} checks\n")
    assert text.endswith((run.path / "gate.md").read_text(encoding="utf-8"))
    # A summary that cannot be written does not hide what the gate says.
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "absent" / "summary.md"))
    said = audit_here("gate", run.path, "--config", config)
    assert said.returncode == 3
    assert "warning: cannot write" in said.stderr


def test_against_a_baseline(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    baseline = shutil.copytree(run.path, tmp_path / "baseline")
    rules = "max_rise = {far_logit = 0, reliance = 0}\nmax_fall = {accuracy = 0}"
    config = job(tmp_path, f"baseline = '{baseline}'\n{rules}")
    said = audit_here("gate", run.path, "--config", config, "--out", tmp_path)
    assert said.returncode == 0, said.stderr
    outcome = json.loads((tmp_path / "gate.json").read_text(encoding="utf-8"))
    assert outcome["baseline"]["run_id"] == run.manifest["run_id"]
    assert {check["value"] for check in outcome["checks"] if check["value"] is not None} == {0.0}
    assert len(outcome["checks"]) == 33


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        ("forbid = [", ["is not valid TOML"]),
        ("max_relience = 0.1", ["unknown rule 'max_relience'", "did you mean 'max_reliance'?"]),
        ("max_reliance = 'low'", ["'max_reliance'", "expected: a valid number", "found: 'low'"]),
        ("max_rise = {far_logit = 0.1}", ["do not fit together", "a baseline"]),
        ("max_rise = {far_logit = 0.1}\nbaseline = 'absent'", ["baseline absent does not exist"]),
        ("max_rise = {far_logit = 0.1}\nbaseline = '{run}'", ["the very run that it judges"]),
        ("max_rise = {far_logit = 0.1}\nbaseline = '{empty}'", ["there is no complete run in"]),
        ("max_reliance = 0.1\nexcept = ['tree']", ["unknown class 'tree'",
                                                   "did you mean 'three'?"]),
    ],
)  # fmt: skip
def test_a_broken_gate(
    audit_here: Command, run: AuditRun, tmp_path: Path, gate: str, words: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    text = gate.replace("{run}", str(run.path)).replace("{empty}", str(tmp_path / "empty"))
    out = tmp_path / "out"
    said = audit_here("gate", run.path, "--config", job(tmp_path, text), "--out", out)
    assert said.returncode == 2
    assert said.stderr.count("error:") == 1
    for word in words:
        assert word in said.stderr
    assert not out.exists()


def test_runs_that_cannot_be_compared(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    other = shutil.copytree(run.path, tmp_path / "other")
    facts = run.manifest | {"data_fingerprint": "of other images"}
    (other / "manifest.json").write_text(json.dumps(facts), encoding="utf-8")
    config = job(tmp_path, "max_rise = {far_logit = 0.1}")
    said = audit_here("gate", run.path, "--config", config, "--baseline", other)
    assert said.returncode == 2
    assert "cannot be compared" in said.stderr
    assert "of other" in said.stderr


def test_a_broken_gate_is_told_before_the_audit(audit_here: Command, tmp_path: Path) -> None:
    config = job(tmp_path, "max_relience = 0.1", f"out = '{tmp_path / 'reports'}'")
    said = audit_here("run", "--config", config)
    assert said.returncode == 2
    assert not (tmp_path / "reports").exists()
    said = audit_here("run", "--config", job(tmp_path, "max_fall = {kappa = 1}\nbaseline = 'no'"),
                      "--out", tmp_path / "reports")  # fmt: skip
    assert (said.returncode, "baseline no does not exist" in said.stderr) == (2, True)
    assert not (tmp_path / "reports").exists()


def test_a_job_without_a_gate(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    config = tmp_path / "job.toml"
    config.write_text("limit = 3", encoding="utf-8")
    said = audit_here("gate", run.path, "--config", config)
    assert said.returncode == 2
    assert "has no gate" in said.stderr
    assert audit_here("gate", run.path).returncode == 2
