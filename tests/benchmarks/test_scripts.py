"""Every script runs, with little to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import parts, step
from benchmarks.command import audit_run
from benchmarks.growth import figures
from benchmarks.job import parts_of
from benchmarks.results import load

pytestmark = pytest.mark.filterwarnings("ignore")
Script = Callable[[Sequence[str]], None]


@pytest.mark.parametrize(
    ("script", "options", "section", "least"),
    [
        (step.main, ["--subjects", "cnn", "--batches", "16"], "step", 11),
        (parts.main, ["--only", "decoding"], "parts", 5),
    ],
    ids=["step", "parts"],
)
def test_quick_runs_keep_figures(
    script: Script, options: list[str], section: str, least: int, tmp_path: Path
) -> None:
    file = tmp_path / "results.parquet"
    script(["--quick", "--no-compile", "--threads", "1", "--keep", str(file), *options])
    rows = load(file)
    assert len(rows) >= least
    assert {row.section for row in rows} == {section}
    assert all(row.seconds or row.value for row in rows)


def test_a_watched_command_tells_its_stages_and_memory(tmp_path: Path) -> None:
    watched = audit_run(
        tmp_path, "--dataset", "demo", "--limit", "40", "--edits", "none", "--no-grids", threads=1
    )
    stages = parts_of(watched)
    assert all(seconds >= 0 for seconds in stages.values())
    assert stages["start-up to the first batch"] + stages[
        "from the first batch to the end"
    ] == pytest.approx(stages["whole command"])
    found = figures(watched, 40)
    computing, whole = (
        found[name][0] for name in ("memory until all parts are written", "memory of the whole job")
    )
    assert 100 < computing <= whole * 1.01
    assert (watched.run / "index.html").exists()


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-data"):
        audit_run(tmp_path, "--dataset", "no-such-data")
