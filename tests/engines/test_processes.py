"""Several processes of this machine: the same as one, also where they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audit.engines import Piece
from audit.errors import OutputError, UsageError
from audit.job import merge_run, run_audit, run_piece
from tests.engines.conftest import run_in
from tests.engines.faulty import COUNT, network
from tests.engines.running import (
    BATCH,
    CODE,
    SETTINGS,
    SHARD,
    claimants,
    parts,
    poison,
    same_run,
    some_claimant,
    wait_for,
    without_times,
)

Fault = Callable[[str], object]


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_killed_child_changes_nothing(
    undisturbed: Path, tmp_path: Path, fault: Fault, capfd: pytest.CaptureFixture[str]
) -> None:
    fault("slow 0.1")

    def kill_one() -> None:
        os.kill(wait_for(some_claimant(run_in(tmp_path))), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run_audit(out=tmp_path, processes=2, **SETTINGS)
    killer.join()
    same_run(run_in(tmp_path), undisturbed)
    assert "its process ended (SIGKILL)" in capfd.readouterr().err


def test_pieces_and_merge(undisturbed: Path, tmp_path: Path) -> None:
    for index in (3, 1, 0, 2):
        run_piece(Piece(index, 4), out=tmp_path, **SETTINGS)
    merge_run(run_in(tmp_path), **CODE)
    same_run(run_in(tmp_path), undisturbed)


def test_a_part_that_kills_its_process_costs_only_itself(
    undisturbed: Path, tmp_path: Path, fault: Fault
) -> None:
    sample = poison()
    number = sample // SHARD
    first = sample // BATCH * BATCH  # parts begin with a batch
    fault(f"kill {sample}")
    with pytest.raises(OutputError) as caught:
        run_audit(out=tmp_path, processes=2, **SETTINGS)
    run = run_in(tmp_path)
    assert caught.value.exit_code == 1
    assert str(caught.value.found) == (
        f"part {number} (samples {number * SHARD} to {number * SHARD + SHARD - 1}): its process "
        f"ended 3 times (SIGKILL), the last time in samples {first} to {first + BATCH - 1} "
        f"(picture-{first:03d} … picture-{first + BATCH - 1:03d})"
    )
    expected = parts(undisturbed)
    del expected[f"part-{number:06d}.parquet"]
    assert parts(run) == expected
    assert not (run / "manifest.json").exists()
    merge_run(run, allow_missing=True, **CODE)
    missing = without_times(run)["missing"]
    assert [(m["shard"], m["start"], m["stop"]) for m in missing] == [
        (number, number * SHARD, number * SHARD + SHARD)
    ]
    # Once its cause is gone, the same command completes the run.
    fault("")
    run_audit(out=tmp_path, **SETTINGS)
    same_run(run, undisturbed)


def test_in_one_process_what_killed_one_comes_last(
    undisturbed: Path, tmp_path: Path, fault: Fault
) -> None:
    sample = poison(1)
    number = sample // SHARD
    assert number == 1
    fault(f"hang {sample}")
    command = [sys.executable, "-m", "audit", "run", *flags(tmp_path)]
    run = run_in(tmp_path)
    claim = run / "samples" / f"_part-{number:06d}.claim"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: (claim.exists() and parts(run)) or process.poll() is not None)
            assert process.poll() is None
        finally:
            process.kill()
    fault("")
    kept = parts(run)
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert f"part {number} (samples 40 to 79) was begun once by a process that died" in said
    assert len(kept) == 1
    same_run(run, undisturbed)
    order = sorted((run / "samples").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    assert order[-1].name == f"part-{number:06d}.parquet"


def test_signals_to_the_driver(undisturbed: Path, tmp_path: Path, fault: Fault) -> None:
    fault("slow 0.5")
    run = run_in(tmp_path)
    command = [sys.executable, "-m", "audit", "run", "--processes", "2", *flags(tmp_path)]
    # Killed, it leaves no child.
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(lambda: claimants(run))
    children = children_of(driver.pid)
    assert len(children) == 2
    driver.kill()
    driver.wait()
    wait_for(lambda: not any(map(alive, children)), 60)
    # Asked to end, with its children as Slurm does it, it keeps what is finished meanwhile.
    before = len(parts(run))
    driver = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    at_work = wait_for(lambda: [pid for pid in claimants(run) if alive(pid)])
    children = children_of(driver.pid)
    os.killpg(driver.pid, signal.SIGTERM)
    said = driver.communicate(timeout=240)[1].decode()
    assert driver.returncode == 143, said
    assert not any(map(alive, children))
    assert len(parts(run)) >= before + len(at_work)
    assert not (run / "manifest.json").exists()
    fault("")
    run_audit(out=tmp_path, **SETTINGS)
    same_run(run, undisturbed)


def test_a_network_in_memory_cannot_be_sent(place: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "model": None}
    for asked in ({"processes": 2}, {"engine": "ray"}):
        with pytest.raises(UsageError, match="given in memory"):
            run_audit(out=tmp_path, network=network(), **settings, **asked)


def test_the_usual_is_one_process(place: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    finished = run_audit(out=tmp_path, network=network(), **{**SETTINGS, "model": None})
    assert len(finished.samples) == COUNT
    assert torch.get_num_threads() == threads


def flags(out: Path) -> list[str]:
    given = []
    for name, value in SETTINGS.items():
        if name != "grids":
            values = value if isinstance(value, tuple) else (value,)
            given += [f"--{name.replace('_', '-')}", *map(str, values)]
    return [*given, "--no-grids", "--out", str(out)]
