"""What a run tells machines: lines of JSON, and numbers for Prometheus."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from audit.engines.pieces import Piece
from audit.errors import ConfigError, OutputError
from audit.job import run_audit, run_piece
from audit.run.progress import Progress
from audit.stopping import Stopped
from audit.telemetry import JsonFormatter, Telemetry, json_lines, tell_exit

QUICK: dict[str, Any] = {"dataset": "demo", "limit": 40, "shard_size": 20, "edits": "none",
                         "grids": False}  # fmt: skip
Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def numbers_in(file: Path) -> Numbers:
    families = text_string_to_metric_families(file.read_text(encoding="utf-8"))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def value(numbers: Numbers, name: str, **labels: str) -> float:
    (found,) = [
        number
        for (key, given), number in numbers.items()
        if key == name and labels.items() <= dict(given).items()
    ]
    return found


def opened(telemetry: Telemetry, **changed: Any) -> None:
    facts: dict[str, Any] = {"run": "r", "dataset": "d", "model": "m", "samples": 30, "shards": 3,
                             "message": "opened"}  # fmt: skip
    telemetry.opened(**facts | changed)


@pytest.fixture(autouse=True)
def _loggers_are_left_as_they_were() -> Iterator[None]:
    logger = logging.getLogger("audit")
    before = (list(logger.handlers), logger.level)
    yield
    assert (list(logger.handlers), logger.level) == before


def test_a_run_tells_its_events_and_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    file = tmp_path / "audit.prom"
    asked = {**QUICK, "out": tmp_path / "out", "log_json": True, "metrics": file}
    before = time.time()
    run = run_audit(**asked, say=told.append)
    captured = capsys.readouterr()
    lines = lines_of(captured.err)
    assert told == [] and captured.out == "", "people are told nothing beside the lines"
    assert [line["event"] for line in lines] == [
        "opened", "found", "part_committed", "part_committed", "audit", "tables", "finished"
    ]  # fmt: skip
    run_id = run.manifest["run_id"]
    assert {(line["run"], line["dataset"], line["model"]) for line in lines} == {
        (run_id, "demo", "cnn")
    }
    assert all(line["time"].endswith("+00:00") and line["level"] == "info" for line in lines)
    assert [line["shard"] for line in lines[2:4]] == [0, 1]
    assert (lines[4]["done"], lines[4]["total"]) == (40, 40)
    accuracy = run.manifest["totals"]["accuracy"]
    assert (lines[6]["complete"], lines[6]["samples"], lines[6]["accuracy"]) == (True, 40, accuracy)

    numbers = numbers_in(file)
    expected = {
        "audit_samples": 40, "audit_samples_done": 40, "audit_samples_missing": 0,
        "audit_shards": 2, "audit_shards_done": 2, "audit_shards_failed": 0,
        "audit_run_complete": 1, "audit_accuracy_ratio": accuracy,
    }  # fmt: skip
    for name, number in expected.items():
        assert value(numbers, name, run=run_id, dataset="demo", model="cnn") == number, name
    assert value(numbers, "audit_samples_by_status", status="ok") == 40
    assert value(numbers, "audit_classes", verdict="too few samples") == 10
    for phase in ("audit", "tables"):
        assert value(numbers, "audit_phase_seconds", phase=phase) > 0
    succeeded = value(numbers, "audit_last_success_timestamp_seconds")
    assert before <= succeeded <= time.time()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"audit.prom", "out"}, "no temporary file is left"

    # Nothing is left to do.
    run_audit(**{**asked, "log_json": False})
    assert value(numbers_in(file), "audit_shards_done") == 2
    assert "audit:" not in capsys.readouterr().err

    # A piece of another run in the same file keeps when the model last succeeded.
    other = {**asked, "seed": 1, "log_json": False}
    run_piece(Piece(0, 2), **other)
    numbers = numbers_in(file)
    assert value(numbers, "audit_samples") == 20 == value(numbers, "audit_samples_done")
    assert value(numbers, "audit_run_complete") == 0
    assert value(numbers, "audit_last_success_timestamp_seconds") >= succeeded
    assert "audit: 20/20 images" in capsys.readouterr().err, "people are told again"


def test_metrics_that_cannot_be_kept_end_the_command_at_once(tmp_path: Path) -> None:
    for file in (tmp_path / "absent" / "a.prom", tmp_path, Path("/proc/audit.prom")):
        with pytest.raises(ConfigError, match="--metrics") as refused:
            run_audit(dataset="no such dataset", metrics=file, out=tmp_path / "out")
        assert refused.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_metrics_without_the_package_name_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from audit.telemetry import Telemetry; from pathlib import Path\n"
        "from audit.errors import ConfigError\n"
        "try: Telemetry(metrics=Path(sys.argv[1]))\n"
        "except ConfigError as error: print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.prom")],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "pip install 'audit[metrics]'" in said


def test_a_disk_that_fails_later_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    with Telemetry(metrics=folder / "a.prom") as telemetry:
        opened(telemetry)
        shutil.rmtree(folder)
        telemetry.part_failed(0, "it crashes")
        telemetry.part_failed(1, "it crashes")
    assert capsys.readouterr().err == "warning: metrics cannot be kept: No such file or directory\n"


def test_last_success_is_kept_by_runs_that_fail(tmp_path: Path) -> None:
    file = tmp_path / "a.prom"
    with Telemetry(metrics=file) as telemetry:
        opened(telemetry)
        telemetry.finished()
    names = {name for name, _ in numbers_in(file)}
    assert "audit_last_success_timestamp_seconds" not in names, "a piece is no run"
    with Telemetry(metrics=file) as telemetry:
        opened(telemetry)
        telemetry.finished({"totals": {"samples": 1, "statuses": {}, "verdicts": {}}})
    first = value(numbers_in(file), "audit_last_success_timestamp_seconds", model="m")
    with pytest.raises(OutputError), Telemetry(metrics=file) as telemetry:
        opened(telemetry, run="another")
        raise OutputError("the disk is full")
    numbers = numbers_in(file)
    assert value(numbers, "audit_last_success_timestamp_seconds", model="m") == first
    assert value(numbers, "audit_run_complete", run="another") == 0
    with Telemetry(metrics=file) as telemetry:
        opened(telemetry, model="another")
    names = {name for name, _ in numbers_in(file)}
    assert "audit_last_success_timestamp_seconds" not in names, "another model's is not this one's"


def test_hostile_names_are_labels(tmp_path: Path) -> None:
    name = 'a"b\\c\nd\udc80 {x="y"} 名'
    with Telemetry(metrics=tmp_path / "a.prom") as telemetry:
        opened(telemetry, dataset=name)
    numbers = numbers_in(tmp_path / "a.prom")
    (labels,) = {dict(given)["dataset"] for key, given in numbers if key == "audit_samples"}
    assert labels == 'a"b\\c\\nd\\x80 {x="y"} 名'


def test_how_the_work_ends_is_told() -> None:
    stream = io.StringIO()
    for error in (OutputError("the disk is full", remedy="make room"), ValueError("oh"), Stopped()):
        with json_lines(stream), pytest.raises(type(error)), Telemetry() as telemetry:
            opened(telemetry)
            raise error
    ends = [line for line in lines_of(stream.getvalue()) if line["event"] != "opened"]
    assert [(line["event"], line["level"], line["message"]) for line in ends] == [
        ("failed", "error", "the disk is full"),
        ("failed", "error", "ValueError: oh"),
        ("stopped", "warning", "stopped: finished parts are kept"),
    ]
    assert (ends[0]["error"], ends[0]["remedy"]) == ("OutputError", "make room")
    assert {line["run"] for line in ends} == {"r"}


def test_troubles_are_told() -> None:
    stream = io.StringIO()
    with json_lines(stream), Telemetry(as_json=True) as telemetry:
        opened(telemetry)
        telemetry.part_failed(7, "it kills its process")
        telemetry.worker_died("3", "signal 9")
        telemetry.progressed(
            "audit", done=0, total=9, rate=float("nan"), seconds=0.0, message="0/9"
        )
    failed, died, audit = lines_of(stream.getvalue())[1:]
    assert (failed["shard"], failed["reason"], failed["level"]) == (
        7, "it kills its process", "error"
    )  # fmt: skip
    assert (died["worker"], died["level"]) == ("3", "warning")
    assert audit["rate"] is None, "JSON has no NaN"


def test_no_event_is_told_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with json_lines(), json_lines(), Telemetry(as_json=True) as telemetry:
        telemetry.event("one", "line\nbreak")
    assert [line["message"] for line in lines_of(capsys.readouterr().err)] == ["line\nbreak"]


def test_the_exit_is_told_where_events_are() -> None:
    stream = io.StringIO()
    assert not tell_exit(1, "the disk is full")
    with json_lines(stream):
        assert tell_exit(2, "the disk is full")
        assert tell_exit(0)
    bad, good = lines_of(stream.getvalue())
    assert (bad["event"], bad["level"], bad["code"], bad["message"]) == (
        "exit", "error", 2, "the disk is full"
    )  # fmt: skip
    assert (good["level"], good["code"]) == ("info", 0)


def test_loggers_of_a_program_hear_events_of_a_run_that_tells_people(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "audit"), Telemetry() as telemetry:
        opened(telemetry)
        with Progress("audit", 10, telemetry=telemetry) as progress:
            progress(10)
    assert capsys.readouterr().err.startswith("audit: 10/10 images, ")
    assert [record.name for record in caplog.records] == ["audit.run"] * 2
    line = json.loads(JsonFormatter().format(caplog.records[1]))
    assert (line["event"], line["done"], line["message"][:18]) == (
        "audit", 10, "audit: 10/10 image"
    )  # fmt: skip


def test_a_terminal_gets_no_bar_beside_lines_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Telemetry(as_json=True) as telemetry, Progress("audit", 9, telemetry=telemetry) as on:
            on(9)
        terminal.flush()
        sent = os.read(reader, 10_000).decode()
    os.close(reader)
    (line,) = lines_of(sent)
    assert (line["event"], line["done"]) == ("audit", 9)
