"""Disturbed and started again, a run ends as if nothing had happened.

The long campaign: ``AUDIT_FAULTS=60 make test ARGS=tests/faults``, or see docs/faults.md.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults.bench import Bench, Job, play
from tests.faults.campaign import campaign, order
from tests.faults.kinds import KINDS
from tests.faults.outcome import compare, is_complete, whole_parts

RUNS = int(os.environ.get("AUDIT_FAULTS", "0"))
# One fault of each kind that is cheap to make; workers and actors that die have other tests.
SHORT = (
    "driver", "decoding process", "another machine", "merge", "two full runs", "zombie", "SIGTERM",
    "disk full", "damaged files",
)  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    scratch = tmp_path_factory.mktemp("faults")
    with Bench(scratch, Job(limit=48, shard_size=8, edits=0, masks="dataset")) as bench:
        yield bench


def plays(bench: Bench, kind: str, out: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    scene = play(bench, kind, KINDS[kind][0], out, str(seed))
    if scene.skipped:
        pytest.skip(scene.skipped)
    context = f"{kind}, seed {seed}: {scene.moment}; exit {scene.codes}; {scene.problems}"
    assert not scene.difference, f"{context}\n{scene.difference}"
    assert not scene.problems, context


@pytest.mark.parametrize("kind", SHORT)
def test_nothing_is_lost(bench: Bench, kind: str, tmp_path: Path) -> None:
    plays(bench, kind, tmp_path / "out")


@pytest.mark.slow
def test_nothing_is_lost_with_a_node(bench: Bench, tmp_path: Path) -> None:
    plays(bench, "Ray node", tmp_path / "out")


@pytest.mark.skipif(not RUNS, reason="the long campaign: AUDIT_FAULTS=60")
def test_campaign(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    sums = campaign(RUNS, seed, (), tmp_path / "scratch", tmp_path / "log")
    assert all(each.fine for each in sums.values()), (tmp_path / "log").read_text()


def test_the_comparison_sees_what_is_wrong(bench: Bench, tmp_path: Path) -> None:
    def copied() -> tuple[Path, Path]:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(bench.undisturbed, tmp_path / "copy")
        return tmp_path / "copy", bench.folder(tmp_path / "copy")

    out, folder = copied()
    assert not compare(bench.undisturbed, out)
    assert is_complete(folder)

    (folder / "samples" / "part-000001.parquet").unlink()
    found = compare(bench.undisturbed, out)
    assert found.lost[1:3] == ["sample 8", "sample 9"]
    assert len(found.lost) == 1 + 2 * bench.job.shard_size
    assert not (found.doubled or found.orphans or found.changed)
    assert not is_complete(folder)
    assert len(whole_parts(folder)) == bench.job.parts - 1

    out, folder = copied()
    first, second = (folder / "samples" / f"part-00000{n}.parquet" for n in (0, 1))
    pq.write_table(pq.read_table(first), second)
    found = compare(bench.undisturbed, out)
    assert found.doubled[:2] == ["sample 0", "sample 1"]
    assert found.lost[:2] == ["sample 8", "sample 9"]
    assert len(found.changed) == 1

    out, folder = copied()
    (folder / "classes.parquet.host.1.writing").touch()
    (folder / "samples" / "_part-000000.claim").touch()
    assert len(compare(bench.undisturbed, out).orphans) == 2

    out, folder = copied()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["finished"], manifest["seconds"] = "another time", {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert not compare(bench.undisturbed, out)
    manifest["totals"]["missing"] = 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert [Path(name).name for name in compare(bench.undisturbed, out).changed] == [
        "manifest.json"
    ]


def test_every_kind_has_its_turn() -> None:
    chosen = list(order(60, 0, ()))
    assert len(chosen) == 60
    assert set(chosen) == set(KINDS)
    assert list(order(60, 0, ())) == chosen
    assert set(order(5, 0, ("driver",))) == {"driver"}
