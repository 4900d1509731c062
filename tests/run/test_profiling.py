"""Where the time goes: sums of phases, what a run leaves, and what it does not tell."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from audit.job import run_audit
from audit.telemetry import profiling
from audit.telemetry.profiling import Profile, as_markdown, files_of, span, spanned, without_paths


class Clock:
    """Nanoseconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


def _seconds(report: dict[str, list[dict[str, float]]], which: str = "phases") -> dict[str, float]:
    return {str(row["phase"]): row["seconds"] for row in report[which]}


def test_phases_add_up_to_the_whole_and_inner_ones_count_for_themselves() -> None:
    clock = Clock()
    profile = Profile(clock)
    with profile.span("tables"):
        clock.wait(1)
        with profile.span("report"):
            clock.wait(3)
        with profile.span("report"):
            clock.wait(4)
        clock.wait(2)
    clock.wait(5)
    report = profile.report()
    assert _seconds(report) == {"report": 7.0, "tables": 3.0, "other": 5.0}
    assert report["seconds"] == 15.0
    assert [row["times"] for row in report["phases"]] == [2, 1, 1]
    assert [row["share"] for row in report["phases"]] == pytest.approx([7 / 15, 3 / 15, 5 / 15])


def test_what_other_threads_do_stands_beside() -> None:
    clock = Clock()
    profile = Profile(clock)

    def work() -> None:
        with profile.span("encode"):
            clock.wait(2)

    with profile.span("step"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        clock.wait(1)
    report = profile.report()
    assert _seconds(report) == {"step": 3.0, "other": 0.0}
    assert _seconds(report, "beside") == {"encode": 2.0}


def test_images_a_second_count_where_all_images_pass() -> None:
    clock = Clock()
    profile = Profile(clock)
    with profile.step(30):
        clock.wait(2)
    with profile.span("tables"):
        clock.wait(1)
    report = profile.report()
    rates = {row["phase"]: row["images_per_second"] for row in report["phases"]}
    assert rates == {"step": 15.0, "tables": None, "other": None}


def test_a_phase_that_fails_counts_too() -> None:
    clock = Clock()
    profile = Profile(clock)
    with pytest.raises(ValueError, match="bad"), profile.span("fetch"):
        clock.wait(1)
        raise ValueError("bad")
    with profile.span("step"):
        clock.wait(1)
    assert _seconds(profile.report()) == {"fetch": 1.0, "step": 1.0, "other": 0.0}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "MOST_SPANS", 3)
    profile = Profile(Clock())
    for _ in range(10):
        with profile.span("step"):
            pass
    assert len(profile.trace()["traceEvents"]) == 3
    report = profile.report()
    assert report["spans_left_out"] == 7
    assert report["phases"][0]["times"] == 10


def test_without_a_profile_nothing_is_counted() -> None:
    assert span("step") is span("fetch")
    assert list(spanned("ab", "fetch")) == ["a", "b"]
    with profiling.profiling(wanted=False) as profile:
        assert profile is None


def test_items_are_counted_while_they_are_made_only() -> None:
    clock = Clock()

    def items() -> object:
        for _ in range(2):
            clock.wait(1)
            yield None

    with profiling.profiling() as profile:
        assert profile is not None
        profile._clock = clock
        profile._began = 0
        for _ in spanned(items(), "fetch"):  # type: ignore[arg-type]  # a generator
            clock.wait(5)
    assert _seconds(profile.report())["fetch"] == 2.0


def test_paths_and_names_of_machines_are_left_out() -> None:
    about = {
        "settings": {
            "dataset": "manifest:/home/me/list.csv",
            "out": "s3://secret/runs",
            "data_root": "/home/me",
            "cache": None,
            "masks": ["auto", "rembg:u2net"],
        }
    }
    with profiling.profiling() as profile:
        assert profile is not None
    files = {name: content.decode() for name, content in files_of(profile, about).items()}
    for content in files.values():
        assert "secret" not in content
        assert "/home" not in content
    kept = json.loads(files["profile.json"])["run"]["settings"]
    assert kept == {
        "dataset": "manifest:…",
        "out": "s3:…",
        "data_root": "…",
        "cache": None,
        "masks": ["auto", "rembg:u2net"],
    }
    assert without_paths(3) == 3


def test_files_of_several_processes_have_names_of_their_own() -> None:
    with profiling.profiling() as profile:
        assert profile is not None
    names = set(files_of(profile, {}, "0/2 1"))
    assert names == {"profile-0-2-1.md", "profile-0-2-1.json", "trace-0-2-1.json"}


def test_a_run_leaves_a_table_and_a_trace(tmp_path: Path) -> None:
    run = run_audit(
        dataset="demo", limit=120, batch_size=12, shard_size=60, edits="none", grids=False,
        device="cpu", profile=True, out=tmp_path,
    )  # fmt: skip
    folder = run.path / "profile"
    report = json.loads((folder / "profile.json").read_text(encoding="utf-8"))
    assert report["images"] == 120
    assert report["steps"] == 10
    here = {row["phase"]: row for row in report["phases"]}
    beside = {row["phase"]: row for row in report["beside"]}
    assert {"open", "start-up", "donors", "fetch", "masks", "step", "to host", "tables", "report",
            "other"} <= set(here)  # fmt: skip
    assert {"rows", "encode", "commit"} <= set(beside)
    assert beside["encode"]["times"] == 2
    assert here["step"]["times"] == 10
    assert sum(row["seconds"] for row in report["phases"]) == pytest.approx(report["seconds"])
    assert any("conv" in row["operator"] for row in report["operators"])
    trace = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    named = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "phase"]
    assert named.count("step") == 10
    # Phases and operators are on one clock: operators lie inside steps.
    steps = [e for e in trace["traceEvents"] if e["name"] == "step" and e["cat"] == "phase"]
    looked = [e for e in trace["traceEvents"] if e.get("cat") == "cpu_op"]
    first, last = steps[profiling.WARM_UP], steps[profiling.WARM_UP + profiling.LOOKED_AT - 1]
    inside = [first["ts"] <= e["ts"] <= last["ts"] + last["dur"] for e in looked]
    assert sum(inside) > 0.95 * len(inside)
    for file in folder.iterdir():
        assert str(tmp_path) not in file.read_text(encoding="utf-8")
    shown = (folder / "profile.md").read_text(encoding="utf-8")
    assert shown == as_markdown(report)
    # It is no setting that makes another run.
    again = run_audit(
        dataset="demo", limit=120, batch_size=12, shard_size=60, edits="none", grids=False,
        device="cpu", out=tmp_path,
    )  # fmt: skip
    assert again.path == run.path
