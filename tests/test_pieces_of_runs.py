"""Runs computed in pieces: merged they are what one process makes, and what is missing is told."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audit import compare_runs
from audit.engines.pieces import Piece
from audit.errors import OutputError, UsageError
from audit.files import shared_writer, sole_writer
from audit.job import merge_run, run_audit, run_piece
from audit.stopping import Stopped, Stopping
from tests.conftest import random_model

SETTINGS: dict[str, Any] = {
    "dataset": "demo", "limit": 60, "shard_size": 20, "edits": 12, "grids": False,
}  # fmt: skip
TABLES = ("classes", "confusion", "evidence", "labels", "backgrounds", "channels", "properties")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(**SETTINGS, out=tmp_path_factory.mktemp("whole")).path


@pytest.fixture
def pieces(tmp_path: Path) -> Iterator[Path]:
    """A run of which two of three pieces are computed."""
    for index in (0, 2):
        done = run_piece(Piece(index, 3), **SETTINGS, out=tmp_path)
        assert (done.shards, done.computed, done.samples) == (1, 1, 20)
    yield Path(done.place)


def test_merged_pieces_are_the_whole(whole: Path, pieces: Path) -> None:
    again = run_piece(Piece(0, 3), **SETTINGS, out=pieces.parents[2])
    assert (again.shards, again.computed) == (1, 0)
    with pytest.raises(OutputError, match="1 of 3 parts") as raised:
        merge_run(pieces)
    assert raised.value.found == "part 1 (samples 20 to 39)"
    assert not (pieces / "manifest.json").exists()
    run_piece(Piece(1, 3), **SETTINGS, out=pieces.parents[2])
    merged = merge_run(pieces)
    assert merged.path == pieces
    assert merged.manifest["missing"] == []
    for part in sorted((whole / "samples").glob("part-*")):
        assert part.read_bytes() == (pieces / "samples" / part.name).read_bytes()
    for name in TABLES:
        assert (whole / f"{name}.parquet").read_bytes() == (pieces / f"{name}.parquet").read_bytes()
    files = {str(f.relative_to(pieces)) for f in pieces.rglob("*")}
    assert files == {str(f.relative_to(whole)) for f in whole.rglob("*")}


def test_settings_name_the_run_as_well(pieces: Path) -> None:
    with pytest.raises(OutputError, match="1 of 3 parts"):
        merge_run(**SETTINGS, out=pieces.parents[2])


def test_going_without_what_is_missing(pieces: Path) -> None:
    merged = merge_run(pieces, allow_missing=True)
    assert merged.manifest["missing"] == [
        {"shard": 1, "start": 20, "stop": 40, "samples": 20, "reason": "never computed"}
    ]
    assert merged.manifest["totals"]["missing"] == 20
    assert merged.manifest["totals"]["samples"] == len(merged.samples) == 40
    assert not any("part-000001" in name for name in merged.manifest["files"])
    assert set(merged.samples["index"]) == {*range(20), *range(40, 60)}
    # Edits are found by their samples, not by where those would be in the whole split.
    found = compare_runs(merged, merged, out=pieces / "compared")
    assert set(found.compare["verdict"]) == {"no change"}
    shutil.rmtree(pieces / "compared")
    # What is computed later is not left out.
    run_piece(Piece(1, 3), **SETTINGS, out=pieces.parents[2])
    later = merge_run(pieces)
    assert later.manifest["missing"] == []
    assert len(later.samples) == 60


def test_a_damaged_part_is_missing(pieces: Path) -> None:
    part = pieces / "samples" / "part-000002.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(OutputError, match="2 of 3 parts") as raised:
        merge_run(pieces)
    assert "part 2 (samples 40 to 59)" in str(raised.value)


def test_nothing_at_all_is_no_run(tmp_path: Path) -> None:
    stopping = Stopping(0)
    stopping.ask()
    with pytest.raises(Stopped):
        run_piece(Piece(0, 3), **SETTINGS, out=tmp_path, stopping=stopping)
    (place,) = (tmp_path / "demo" / "cnn").iterdir()
    with pytest.raises(OutputError, match="3 of 3 parts"):
        merge_run(place, allow_missing=True)
    with pytest.raises(UsageError, match="there is no run"):
        merge_run(place / "samples")


def test_a_folder_with_one_run_names_it(pieces: Path, tmp_path: Path) -> None:
    assert merge_run(tmp_path, allow_missing=True).path == pieces
    shutil.copytree(pieces, pieces.with_name("other"))
    with pytest.raises(UsageError, match="there are several runs in") as raised:
        merge_run(tmp_path)
    assert str(raised.value.found).startswith("2: ")
    assert str(pieces) in str(raised.value.found)


def test_the_gate_of_a_run_in_pieces(pieces: Path, audit_here: Callable[..., Any]) -> None:
    settings = "\n".join(f"{name} = {json.dumps(value)}" for name, value in SETTINGS.items())
    job = pieces.parents[2] / "the job.toml"
    job.write_text(
        f"{settings}\nout = {json.dumps(str(pieces.parents[2]))}\n[gate]\nmin_accuracy = 1.0\n"
    )
    done = audit_here("run", "--config", job, "--shard", "1/3")
    assert done.returncode == 0, done.stderr
    assert "piece 1/3: 1 part, of which 1 computed now" in done.stdout
    command = done.stdout.splitlines()[-1].partition(": ")[2]
    assert shlex.split(command) == ["audit", "merge", str(pieces), "--config", str(job)]
    judged = audit_here(*shlex.split(command)[1:])
    assert judged.returncode == 3, judged.stderr
    assert "GATE FAILED" in judged.stdout


def test_processes_of_a_named_run_must_agree(pieces: Path, tmp_path: Path) -> None:
    out = tmp_path / "named"
    run_piece(Piece(0, 3), **SETTINGS, out=out, run="weekly.1")
    assert (out / "demo" / "cnn" / "weekly.1" / "plan.json").is_file()
    with pytest.raises(UsageError, match="is another one") as raised:
        run_piece(Piece(1, 3), **SETTINGS | {"seed": 3}, out=out, run="weekly.1")
    assert raised.value.found == "seed: 0 there, 3 here"


def test_nobody_concludes_a_run_that_others_add_to(pieces: Path) -> None:
    refused = pytest.raises(OutputError, match="another audit is writing")
    with shared_writer(pieces), shared_writer(pieces), refused:
        merge_run(pieces, allow_missing=True)
    with sole_writer(pieces), pytest.raises(OutputError, match="another audit is writing"):
        run_piece(Piece(1, 3), **SETTINGS, out=pieces.parents[2])


def test_a_network_in_memory_is_asked_for(tmp_path: Path) -> None:
    network = random_model("cnn", 10)
    given = {**SETTINGS, "edits": "none", "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    run = run_audit(**given, network=network, out=tmp_path)
    (run.path / "manifest.json").unlink()
    with pytest.raises(UsageError, match="given in memory"):
        merge_run(run.path)
    again = merge_run(run.path, network=network)
    pd.testing.assert_frame_equal(again.samples, run.samples)


def test_a_wish_to_stop_keeps_finished_parts(tmp_path: Path) -> None:
    class AfterOne(Stopping):
        """Is asked when the first shard is done."""

        def check_between(self) -> None:
            if list(tmp_path.rglob("_part-000000.json")):
                self.ask()
            super().check_between()

    with pytest.raises(Stopped):
        run_audit(**SETTINGS, out=tmp_path, stopping=AfterOne(1000))
    (place,) = (tmp_path / "demo" / "cnn").iterdir()
    names = sorted(file.name for file in (place / "samples").iterdir())
    # The next shard was computed while the first part was written: it is kept, or was not begun.
    count = len(names) // 2
    assert count in (1, 2)
    parts = range(count)
    assert names == [
        *(f"_part-{part:06d}.json" for part in parts),
        *(f"part-{part:06d}.parquet" for part in parts),
    ]
    with pytest.raises(OutputError, match=f"{3 - count} of 3 parts"):
        merge_run(place)


def test_the_command(
    pieces: Path, audit_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    flags = [f"--{name.replace('_', '-')}={SETTINGS[name]}" for name in ("dataset", "limit")]
    flags += ["--shard-size=20", "--edits=12", "--no-grids", f"--out={pieces.parents[2]}"]
    missing = audit_here("merge", pieces)
    assert missing.returncode == 1
    assert "part 1 (samples 20 to 39)" in missing.stderr
    done = audit_here("run", *flags, "--shard", "auto/3")
    assert done.returncode == 0, done.stderr
    assert f"audit merge {pieces}" in done.stdout
    merged = audit_here("merge", pieces)
    assert merged.returncode == 0, merged.stderr
    assert json.loads((pieces / "manifest.json").read_text())["status"] == "complete"
    assert audit_here("run", *flags, "--shard", "3/3").returncode == 2


def test_a_named_run_that_is_complete_is_not_taken_for_another(tmp_path: Path) -> None:
    given = {**SETTINGS, "edits": "none", "out": tmp_path, "run": "nightly"}
    first = run_audit(**given)
    with pytest.raises(UsageError, match="is another one"):
        run_audit(**given | {"seed": 5})
    (first.path / "plan.json").unlink()
    # Its manifest has a fingerprint too.
    again = run_audit(**given | {"seed": 5})
    assert again.manifest["config"]["seed"] == 5


def test_edits_and_checks_that_a_run_has_are_kept(tmp_path: Path) -> None:
    first = run_audit(**SETTINGS | {"edits": "none"}, out=tmp_path)
    edited = run_audit(**SETTINGS, out=tmp_path)
    assert edited.path == first.path
    rows = sorted((edited.path / "edits").iterdir())
    _make_stale(edited.path)
    for conclude in (
        lambda: run_audit(**SETTINGS | {"edits": "none"}, out=tmp_path),
        lambda: merge_run(edited.path),
    ):
        kept = conclude()
        assert sorted((kept.path / "edits").iterdir()) == rows
        assert kept.manifest["config"]["edits"] == SETTINGS["edits"]
        _make_stale(kept.path)
    # Where nobody knows any more that there were any, nothing is left of them.
    (kept.path / "manifest.json").unlink()
    none = run_audit(**SETTINGS | {"edits": "none"}, out=tmp_path)
    assert not (none.path / "edited.parquet").exists()
    assert not list((none.path / "edits").iterdir())


def _make_stale(run: Path) -> None:
    """As if the code of reports had changed since."""
    file = run / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"report_code": "before"}))


def test_a_run_is_merged_where_it_lies_by_now(pieces: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved away" / "d=1" / "my run"
    moved.parent.mkdir(parents=True)
    shutil.move(pieces, moved)
    before = {file for file in tmp_path.rglob("*") if moved not in file.parents}
    merged = merge_run(moved.as_uri(), allow_missing=True)
    assert (merged.path, merged.manifest["run_id"]) == (moved, "my run")
    after = {file for file in tmp_path.rglob("*") if moved not in file.parents}
    assert {file for file in after - before if ".cache" not in file.parts} == set()


def test_a_merge_that_fails_takes_nothing_back(pieces: Path) -> None:
    merge_run(pieces, allow_missing=True)
    with pytest.raises(OutputError, match="1 of 3 parts"):
        merge_run(pieces)
    assert (pieces / "manifest.json").is_file()


def test_merging_begins_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        merge_run(**SETTINGS, out=tmp_path)
    assert not list(tmp_path.rglob("plan.json"))


@pytest.mark.parametrize("name", ["dataset", "model"])
def test_a_plan_lets_no_code_run(pieces: Path, name: str) -> None:
    file = pieces / "plan.json"
    plan = json.loads(file.read_text())
    plan["config"][name] = "antigravity:fly"
    file.write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="names code"):
        merge_run(pieces, allow_missing=True)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "change",
    [
        {"facets": [1]},
        {"config": None},
        {"samples": "x"},
        {"shard_size": 0},
        {"samples": 10**15},
        {"fingerprint": 3},
        {"another": 1},
    ],
)
def test_a_damaged_plan_is_no_run(pieces: Path, change: dict[str, Any]) -> None:
    file = pieces / "plan.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UsageError, match="there is no run"):
        merge_run(pieces)
