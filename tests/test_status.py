"""How far a run is: which parts are done, by whom, how fast, and what is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from audit.engines.pieces import Piece
from audit.errors import UsageError
from audit.job import merge_run, run_piece
from audit.redraw import redraw
from audit.run.store import this_process
from audit.status import as_json, describe_status, run_status
from audit.tables import load_run
from tests.storage.servers import BUCKET, object_server

# Ten o'clock, in UTC.
NOW = datetime(2026, 1, 2, 10, tzinfo=UTC).timestamp()
FINGERPRINT = "f" * 64
QUICK: dict[str, Any] = {"dataset": "demo", "limit": 40, "shard_size": 10, "edits": "none",
                         "grids": False}  # fmt: skip


def at(seconds_ago: float) -> str:
    return datetime.fromtimestamp(NOW - seconds_ago, UTC).isoformat(timespec="milliseconds")


def plan(folder: Path, *, samples: int = 95, shard_size: int = 10, **config: Any) -> Path:
    """A run that was begun; its last part is half as large."""
    content = {
        "fingerprint": FINGERPRINT, "facets": {"architecture": "cnn"}, "samples": samples,
        "shard_size": shard_size, "config": {"dataset": "demo", **config}, "given": False,
    }  # fmt: skip
    (folder / "samples").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(content))
    return folder


def part(folder: Path, shard: int, worker: object = None, **changed: Any) -> None:
    """A part of so many bytes as its number, and its sidecar."""
    (folder / f"samples/part-{shard:06d}.parquet").write_bytes(bytes(shard))
    sidecar = {
        "start": shard * 10, "stop": min(95, shard * 10 + 10), "bytes": shard,
        "fingerprint": FINGERPRINT, "extras": {}, "worker": worker,
    }  # fmt: skip
    content = json.dumps(sidecar | changed)
    (folder / f"samples/_part-{shard:06d}.json").write_text(content)


def claim(folder: Path, shard: int, **changed: Any) -> None:
    content = {**this_process(), "started": at(60), "attempt": 1, **changed}
    (folder / f"samples/_part-{shard:06d}.claim").write_text(json.dumps(content))


def by(rank: str, ago: float, seconds: float = 10.0, host: str = "a") -> dict[str, Any]:
    return {"host": host, "pid": 7, "rank": rank, "seconds": seconds, "finished": at(ago)}


def test_every_shard_is_in_one_state(tmp_path: Path) -> None:
    folder = plan(tmp_path)
    for shard in (0, 1, 2, 9):
        part(folder, shard, by("0/2", 5))
    part(folder, 3, bytes=99)
    part(folder, 4, fingerprint="0" * 64)
    (folder / "samples/part-000005.parquet").write_bytes(b"x")
    part(folder, 6, extras={"sums": {"bytes": 4, "sha256": ""}})
    claim(folder, 7)
    # Being made anew, and a claim that its process left when it was done.
    claim(folder, 5)
    claim(folder, 0)
    found = run_status(tmp_path, now=NOW)
    assert found.done == (0, 1, 2, 9)
    assert [each.shard for each in found.begun] == [5, 7]
    reasons = {each.shard: each.reason for each in found.damaged}
    assert reasons == {
        3: "it has 3 bytes, its sidecar says 99",
        4: "it is of another run",
        6: "its sums are missing or damaged",
    }
    assert found.missing == (8,)
    assert (found.samples, found.samples_done, found.shards) == (95, 35, 10)
    text = describe_status(found)
    assert "done      4 of 10 parts, 35 of 95 images (36.8%): 0–2, 9\n" in text
    assert "missing   1 part: 8\n" in text
    content = json.loads(as_json(found))
    assert (content["done"], content["missing"]) == ([[0, 2], [9, 9]], [[8, 8]])
    assert content["begun"][0]["life"] == "running"


def test_whether_a_claimant_lives_is_told_where_it_can_be(tmp_path: Path) -> None:
    folder = plan(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    claim(folder, 0)
    claim(folder, 1, pid=gone.pid, attempt=3)
    claim(folder, 2, host="elsewhere")
    claim(folder, 3, boot="0000-before")
    claim(folder, 4, pid="no number", boot=None, started=None, attempt=None)
    claim(folder, 5, pid=2**70)
    (folder / "samples/_part-000006.claim").write_text("{")
    found = run_status(folder, now=NOW)
    lives = [(each.shard, each.life) for each in found.begun]
    assert lives == [
        (0, "running"), (1, "died"), (2, "unknown"), (3, "died"), (4, "unknown"), (5, "died")
    ]  # fmt: skip
    text = describe_status(found)
    assert "begun     6 parts (1 running, 3 died, 2 on another machine)\n" in text
    assert f"part 1: process {gone.pid} on {this_process()['host']} since 2026-01-02T09:59" in text
    assert "died, attempt 3\n" in text


def test_the_rate_is_that_of_processes_that_finished_something_lately(tmp_path: Path) -> None:
    folder = plan(tmp_path)
    # One process makes 1 image a second, another 2.5; a third ended an hour ago.
    part(folder, 1, by("0/3", 100))
    part(folder, 2, by("0/3", 50))
    part(folder, 3, by("1/3", 20, seconds=4))
    part(folder, 4, by("2/3", 3600, seconds=90))
    pace = run_status(folder, now=NOW).pace
    assert (pace.lately, pace.active, pace.window) == (3.5, 2, 600)
    assert pace.left == pytest.approx(55 / 3.5)
    assert pace.overall == pytest.approx(40 / (3690 - 20))
    first, *_, last = run_status(folder, now=NOW).processes
    assert (first.rank, first.parts, first.samples, first.rate) == ("1/3", 1, 10, 2.5)
    assert (last.rank, last.last) == ("2/3", "2026-01-02T09:00:00+00:00")
    text = describe_status(run_status(folder, now=NOW))
    assert "rate      3.5 images a second by 2 processes that finished a part in the last" in text
    assert "left      about 16 s if it goes on like this" in text
    # Much later nobody is at it.
    later = run_status(folder, now=NOW + 86_400)
    assert (later.pace.lately, later.pace.left, later.pace.active) == (None, None, 0)
    assert "nobody finished a part in the last 10 min" in describe_status(later)
    # A part that takes an hour is lately for two.
    part(folder, 5, by("3/3", 5000, seconds=3600))
    assert run_status(folder, now=NOW).pace.window == 7200


@pytest.mark.parametrize(
    "worker",
    [
        None, {}, [], "x", {"host": "a"}, by("0", 0, seconds=0), by("0", 0, seconds=-3),
        by("0", 0, seconds=float("nan")), by("0", -86_400), by("0", 1e9, seconds=1e300),
        {**by("0", 0), "finished": "yesterday"}, {**by("0", 0), "finished": 12},
        {**by("0", 0), "pid": "x"}, {**by("0", 0), "finished": "9999-12-31T23:59:59-23:59"},
        {**by("0", 0), "finished": "2026-01-02T09:00:00"}, {**by("0", 0), "seconds": True},
    ],
)  # fmt: skip
def test_times_that_make_no_sense_break_nothing(tmp_path: Path, worker: object) -> None:
    folder = plan(tmp_path)
    part(folder, 2, worker)
    found = run_status(folder, now=NOW)
    assert found.done == (2,)
    describe_status(found)
    assert "NaN" not in as_json(found)


def test_a_clock_that_is_ahead_is_told(tmp_path: Path) -> None:
    folder = plan(tmp_path)
    part(folder, 1, by("0", 10))
    part(folder, 2, by("1", -30, host="b"))
    part(folder, 3, by("2", -3600, host="c"))
    found = run_status(folder, now=NOW)
    assert (found.pace.ahead, found.pace.active) == (1, 2)
    assert "1 part finished in the future" in describe_status(found)


def test_settings_and_names_are_told_as_text(tmp_path: Path) -> None:
    folder = plan(tmp_path, partners=2, method=["cam", "gradcam"], lang="en", seed=0, old="x",
                  data_root="a\x1b[31mb")  # fmt: skip
    found = run_status(folder)
    assert found.settings == {
        "partners": 2, "method": ["cam", "gradcam"], "data_root": "a\x1b[31mb"
    }  # fmt: skip
    text = describe_status(found)
    assert r"settings  partners = 2, method = cam, gradcam, data_root = a\x1b[31mb" in text
    assert f"run {folder.name}: cnn on demo, 95 images in 10 parts of up to 10\n" in text


def test_many_of_a_kind_are_cut(tmp_path: Path) -> None:
    folder = plan(tmp_path)
    for shard in range(9):
        part(folder, shard, by(str(shard), 1), start=-1)
    for shard in range(9, 10):
        claim(folder, shard)
    (folder / "samples/part-000099.parquet").write_bytes(b"")
    text = describe_status(folder)
    assert "damaged   9 parts" in text and "99" not in text.partition("damaged")[2]


def test_where_there_is_no_run(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="there is no run") as refused:
            run_status(place)
        assert refused.value.exit_code == 2
    plan(tmp_path / "demo" / "cnn" / "one")
    assert run_status(tmp_path).run_id == "one"
    plan(tmp_path / "demo" / "cnn" / "two")
    with pytest.raises(UsageError, match="several runs"):
        run_status(tmp_path)
    (tmp_path / "demo" / "cnn" / "one" / "plan.json").write_text("{")
    assert run_status(tmp_path / "demo" / "cnn" / "two").run_id == "two"
    with pytest.raises(UsageError):
        run_status(tmp_path / "demo" / "cnn" / "one")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of which the first half is computed."""
    out = tmp_path_factory.mktemp("half")
    return Path(run_piece(Piece(0, 2), **QUICK, out=out).place)


def test_a_real_run_from_its_first_half_to_all_parts(
    half: Path, audit_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    found = run_status(half)
    assert (found.done, found.missing, found.manifest) == ((0, 1), (2, 3), "none")
    assert (found.dataset, found.model, found.samples_done) == ("demo", "cnn", 20)
    (process,) = found.processes
    assert (process.pid, process.rank, process.parts) == (os.getpid(), "0/2", 2)
    assert process.rate is not None and process.rate > 0
    assert found.pace.overall is not None and found.pace.left is not None
    said = audit_here("status", half)
    assert said.returncode == 0
    assert "manifest  none yet: the run is not complete" in said.stdout

    (half / "samples/part-000002.parquet").write_bytes(b"no part")
    run = merge_run(half, allow_missing=True)
    gone = run_status(run.path)
    assert (gone.manifest, gone.manifest_missing) == ("complete", (2, 3))
    assert [(each.shard, each.reason) for each in gone.damaged] == [
        (2, "nothing vouches for it yet")
    ]
    assert "manifest  complete without parts 2–3" in describe_status(gone)
    # What is damaged lies there still, and is no part of the run.
    assert len(load_run(half).samples) == 20
    page = redraw(half, lang="zh").read_text(encoding="utf-8")
    assert "40 张图像中有 20 张未被审计：缺少分片 2–3。" in page

    with (half / "classes.parquet").open("ab") as file:
        file.write(b"x")
    told = audit_here("status", half, "--json")
    assert json.loads(told.stdout)["files_damaged"] == ["classes.parquet"]
    shown = audit_here("status", half).stdout
    assert "manifest  complete without parts 2–3, but it does not match files" in shown
    assert "damaged   1 file beside the parts" in shown
    part = half / "samples/part-000001.parquet"
    kept = part.read_bytes()
    part.unlink()
    assert "2–3, but it does not match part 1: run the same" in audit_here("status", half).stdout
    part.write_bytes(kept)
    assert audit_here("status", half / "samples").returncode == 2

    (half / "manifest.json").write_text("no JSON")
    assert run_status(half).manifest == "unreadable"
    (half / "manifest.json").unlink()
    run_piece(Piece(1, 2), **QUICK, out=half.parents[2])
    whole = run_status(half)
    assert (whole.done, whole.damaged, whole.pace.left) == ((0, 1, 2, 3), (), 0)
    assert "all parts are there, conclude the run with audit merge" in describe_status(whole)


def test_a_run_in_an_object_store(tmp_path: Path) -> None:
    from audit.storage import open_storage

    folder = plan(tmp_path)
    part(folder, 1, by("0/2", 10))
    claim(folder, 2, host="elsewhere")
    here = run_status(folder, now=NOW)
    with object_server():
        place = f"s3://{BUCKET}/demo/cnn/{tmp_path.name}"
        storage = open_storage(place)
        for file in sorted(folder.rglob("*.*")):
            storage.create(file.relative_to(folder).as_posix(), file.read_bytes())
        there = run_status(place, now=NOW)
        with pytest.raises(UsageError, match="there is no run"):
            run_status(f"s3://{BUCKET}/demo/cnn/absent")
    shutil.rmtree(folder)
    assert there.place == place
    assert (there.done, there.begun, there.missing) == (here.done, here.begun, here.missing)
    assert there.pace == here.pace
