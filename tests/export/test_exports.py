"""Runs exported for real, and read back by the other tool's own reader."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit import load_run
from audit.export import run_as_markdown
from audit.export.numbers import metrics_of
from audit.gate import evaluate, write_results
from audit.gate.settings import GateSettings
from audit.tables import AuditRun
from audit.viewing import Run
from tests.gate.making import UNTESTED, a_class, a_run

Command = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(small_run: Run, tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    """A copy: results of gates are written into it."""
    folder = tmp_path_factory.mktemp("reports") / "run"
    return load_run(shutil.copytree(small_run.path, folder))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A store of MLflow in a folder; the client alone has no other that needs no server."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "mlruns").as_uri()


def runs_in(store: str, experiment: str) -> tuple[Any, list[Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id])


def test_mlflow_holds_the_run(audit_here: Command, run: AuditRun, store: str) -> None:
    evaluation = evaluate(run, GateSettings(min_accuracy=0.5))
    write_results(evaluation)
    flags = ("--to", "mlflow", "--tracking-uri", store, "--experiment", "nightly <b>")
    said = audit_here("export", run.path, *flags)
    assert said.returncode == 0, said.stderr
    client, (found,) = runs_in(store, "nightly <b>")
    assert found.info.run_id in said.stdout
    assert found.info.status == "FINISHED"
    assert found.data.metrics == metrics_of(run)
    assert found.data.metrics["split/accuracy"] == run.manifest["totals"]["accuracy"]
    three = run.classes.set_index("label_name").loc["three"]
    assert found.data.metrics["class_far_logit/three"] == three["far_logit"]
    assert found.data.params["limit"] == "80"
    assert found.data.params["layer"] == "features.2.2"
    assert "out" not in found.data.params
    assert found.data.tags["audit.fingerprint"] == run.manifest["fingerprint"]
    assert found.data.tags["audit.weights_sha256"] == run.manifest["weights_sha256"]
    assert found.data.tags["audit.gate"] == "passed"
    assert found.data.tags["mlflow.note.content"].startswith("## No class could be judged")
    top = {file.path for file in client.list_artifacts(found.info.run_id)}
    tables = {name for name in run.manifest["files"] if "/" not in name}
    assert top == tables | {"manifest.json", "gate.json", "gate.md", "gate.xml", "grids"}
    grids = {file.path for file in client.list_artifacts(found.info.run_id, "grids")}
    assert grids == {name for name in run.manifest["files"] if name.startswith("grids/")}
    page = client.download_artifacts(found.info.run_id, "index.html")
    assert Path(page).read_bytes() == (run.path / "index.html").read_bytes()


def test_a_second_export_brings_the_first_up_to_date(run: AuditRun, store: str) -> None:
    from audit.export.mlflow import export_to_mlflow

    first = export_to_mlflow(run, tracking_uri=store)
    later = AuditRun(run.path, run.manifest | {"finished": "2036-01-01T00:00:00+00:00"})
    later.manifest["totals"] = run.manifest["totals"] | {"accuracy": 0.125}
    assert export_to_mlflow(run, tracking_uri=store) == first
    assert export_to_mlflow(later, tracking_uri=store) == first
    client, (found,) = runs_in(store, "audit")
    assert found.data.metrics == metrics_of(run) | {"split/accuracy": 0.125}
    # One point a change, not one an export.
    history = client.get_metric_history(found.info.run_id, "split/accuracy")
    assert [point.value for point in history] == [run.manifest["totals"]["accuracy"], 0.125]
    assert len(client.get_metric_history(found.info.run_id, "split/kappa")) == 1
    assert found.data.tags["audit.finished"] == "2036-01-01T00:00:00+00:00"


def test_mlflow_refuses_a_store(
    audit_here: Command, run: AuditRun, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = audit_here("export", run.path, "--to", "mlflow", "--tracking-uri", "gopher://nowhere")
    assert said.returncode == 2
    assert "MLflow refuses the experiment 'audit' at gopher://nowhere" in said.stderr
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    said = audit_here("export", run.path, "--to", "mlflow", "--tracking-uri", store)
    assert said.returncode == 2
    assert "MLFLOW_ALLOW_FILE_STORE=true" in said.stderr


@pytest.mark.parametrize(
    ("module", "flags", "hint"),
    [
        ("mlflow", ("--to", "mlflow"), "pip install 'audit[mlflow]'"),
        ("torch.utils.tensorboard", ("--to", "tensorboard", "--logdir", "x"),
         "pip install 'audit[tensorboard]'"),
    ],
)  # fmt: skip
def test_what_is_not_installed(
    audit_here: Command, run: AuditRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    module: str, flags: tuple[str, ...], hint: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    # The import system's own way to say that a module is not there.
    monkeypatch.setitem(sys.modules, module, None)
    said = audit_here("export", run.path, *flags)
    assert said.returncode == 2
    assert hint in said.stderr
    assert not list(tmp_path.iterdir())


def test_tensorboard_holds_the_run(audit_here: Command, run: AuditRun, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logdir = tmp_path / "logs"
    flags = ("export", run.path, "--to", "tensorboard", "--logdir", logdir)
    said = audit_here(*flags)
    assert said.returncode == 0, said.stderr
    (folder,) = logdir.iterdir()
    assert folder.name == f"cnn-demo-{run.manifest['run_id']}"
    foreign = folder / "events.out.tfevents.1.other"
    foreign.write_bytes(b"")
    assert audit_here(*flags).returncode == 0
    assert len(list(folder.iterdir())) == 2
    foreign.unlink()
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    numbers = metrics_of(run)
    assert set(tags["scalars"]) == set(numbers)
    for name, value in numbers.items():
        (point,) = events.Scalars(name)
        assert point.value == np.float32(value)
    assert set(tags["histograms"]) >= {"background_share/three", "far_logit/zero"}
    own = run.samples[run.samples["label"] == 3]["background_share"].dropna()
    (drawn,) = events.Histograms("background_share/three")
    assert drawn.histogram_value.num == len(own)
    assert drawn.histogram_value.sum == pytest.approx(own.sum())
    assert "grids/wrong_but_confident" in tags["images"]
    assert len(tags["images"]) == 7
    (text,) = events.Tensors("verdicts/text_summary")
    assert text.tensor_proto.string_val[0].decode() == run_as_markdown(run)


def test_the_summary_of_a_step(
    audit_here: Command, run: AuditRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert audit_here("export", run.path, "--to", "github").returncode == 0
    assert summary.read_text(encoding="utf-8") == "\n" + run_as_markdown(run)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    said = audit_here("export", run.path, "--to", "github")
    assert (said.returncode, "--summary" in said.stderr) == (2, True)
    other = tmp_path / "other.md"
    assert audit_here("export", run.path, "--to", "github", "--summary", other).returncode == 0
    assert other.read_text(encoding="utf-8") == summary.read_text(encoding="utf-8")
    said = audit_here("export", run.path, "--to", "github", "--summary", tmp_path / "no" / "x")
    assert (said.returncode, "cannot write" in said.stderr) == (1, True)
    assert "remedy: name another one with --summary" in said.stderr
    said = audit_here("export", run.path, "--to", "tensorboard", "--logdir", summary)
    assert (said.returncode, "with --logdir" in said.stderr) == (1, True)


def test_the_summary_says_what_needs_a_look(tmp_path: Path) -> None:
    relies = {"verdict": "relies on background", "reliance": 0.41, "reliance_low": 0.35,
              "reliance_high": 0.5}  # fmt: skip
    run = a_run(tmp_path, a_class(0, "good"), a_class(1, "a|<b>@x", **relies),
                a_class(2, "rare", **UNTESTED), samples=300)  # fmt: skip
    assert run_as_markdown(run).startswith("## Relies on background in 1 of 3 classes\n")
    text = run_as_markdown(run)
    assert "good" not in text
    assert (
        "| <code>a&#124;&#60;b&#62;&#64;x</code> | relies on background | 41% (35% to 50%) | 90% | "
        "100 |" in text
    )
    assert "| <code>rare</code> | too few samples | not tested |" in text
    assert "Gate" not in text
    write_results(evaluate(run, GateSettings(max_reliance=0.2)))
    text = run_as_markdown(run)
    assert "**Gate failed: 1 check.**" in text
    assert "0&#46;41 &#40;0&#46;35 to 0&#46;5&#41; is surely above the limit 0&#46;2" in text
    write_results(evaluate(run, GateSettings(max_reliance=0.4)))
    assert "**Gate passed.**" in run_as_markdown(run)


@pytest.mark.parametrize(
    ("verdicts", "headline"),
    [
        (["no evidence", "no evidence"], "No evidence of reliance on background"),
        (["no evidence", "mask-limited"], "No evidence of reliance on background, 1 not judged"),
        (["suspect", "no evidence"], "Suspect: 1 of 2 classes"),
        (["too few samples", "mask-limited"], "No class could be judged, of 2"),
    ],
)
def test_headlines(tmp_path: Path, verdicts: list[str], headline: str) -> None:
    run = a_run(tmp_path, *(a_class(k, f"c{k}", verdict=v) for k, v in enumerate(verdicts)))
    assert run_as_markdown(run).startswith(f"## {headline}\n")


def test_metrics_of_hostile_names(tmp_path: Path) -> None:
    names = ("a/b", "a b", "../..", "x\n<script>", "n" * 300)
    run = a_run(tmp_path, *(a_class(k, name) for k, name in enumerate(names)))
    found = metrics_of(run)
    assert {name for name in found if name.startswith("class_kappa/")} == {
        "class_kappa/a_b_0", "class_kappa/a_b_1", "class_kappa/class_2", "class_kappa/x_script",
        f"class_kappa/{'n' * 60}",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in found.values())


def test_mlflow_takes_hostile_names(store: str, run: AuditRun, tmp_path: Path) -> None:
    from audit.export.mlflow import export_to_mlflow

    hostile = AuditRun(run.path, run.manifest | {"model": "<b>\n'x'|", "fingerprint": "other"})
    classes = pd.read_parquet(run.path / "classes.parquet", dtype_backend="numpy_nullable")
    classes["label_name"] = [f"../\n<script>{k % 3}|:" for k in range(len(classes))]
    hostile.__dict__["classes"] = classes
    export_to_mlflow(hostile, tracking_uri=store)
    _, (found,) = runs_in(store, "audit")
    assert found.data.metrics == metrics_of(hostile)
    assert "class_kappa/script_0_9" in found.data.metrics


def test_flags_of_another_target(audit_here: Command, run: AuditRun) -> None:
    said = audit_here("export", run.path, "--to", "github", "--logdir", "x")
    assert (said.returncode, "--logdir is not for --to github" in said.stderr) == (2, True)
    said = audit_here("export", run.path, "--to", "tensorboard")
    assert (said.returncode, "needs --logdir" in said.stderr) == (2, True)
    assert audit_here("export", run.path, "--to", "excel").returncode == 2
    assert audit_here("export", run.path / "absent", "--to", "github").returncode == 2
