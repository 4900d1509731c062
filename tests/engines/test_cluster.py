"""Ray's actors: the same as one process, also where they die; one Ray for all tests."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.engines.cluster import cluster
from audit.errors import OutputError
from audit.job import merge_run, run_audit
from tests.engines.conftest import run_in
from tests.engines.running import (
    CODE,
    SETTINGS,
    SHARD,
    parts,
    poison,
    same_run,
    some_claimant,
    wait_for,
    without_times,
)

ray = pytest.importorskip("ray")
Fault = Callable[[str], object]


@pytest.fixture(scope="module", autouse=True)
def two_cores(place: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Whatever clusters there are on this machine.
        patch.setenv("RAY_ADDRESS", "local")
        before = signal.getsignal(signal.SIGTERM)
        with cluster(2):
            assert signal.getsignal(signal.SIGTERM) is before
            yield
        assert not ray.is_initialized()
    logging.getLogger("ray").handlers.clear()


def test_a_killed_actor_changes_nothing(
    undisturbed: Path, tmp_path: Path, fault: Fault, capfd: pytest.CaptureFixture[str]
) -> None:
    fault("slow 0.1")
    killed = []

    def kill_one() -> None:
        killed.append(wait_for(some_claimant(run_in(tmp_path))))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    run_audit(out=tmp_path, engine="ray", processes=2, **SETTINGS)
    killer.join()
    assert killed != [os.getpid()]
    same_run(run_in(tmp_path), undisturbed)
    assert "its process ended (its actor's process died)" in capfd.readouterr().err
    # A cluster that was there before is left alone.
    assert ray.is_initialized()


def test_a_part_that_kills_its_actor_costs_only_itself(
    undisturbed: Path, tmp_path: Path, fault: Fault
) -> None:
    sample = poison()
    number = sample // SHARD
    fault(f"kill {sample}")
    with pytest.raises(OutputError) as caught:
        run_audit(out=tmp_path, engine="ray", processes=2, **SETTINGS)
    run = run_in(tmp_path)
    assert caught.value.exit_code == 1
    said = str(caught.value.found)
    assert said.startswith(f"part {number} (samples {number * SHARD} to")
    assert "its process ended 3 times (its actor's process died), the last time in" in said
    expected = parts(undisturbed)
    del expected[f"part-{number:06d}.parquet"]
    assert parts(run) == expected
    merge_run(run, allow_missing=True, **CODE)
    missing = without_times(run)["missing"]
    assert [(m["shard"], m["samples"]) for m in missing] == [(number, SHARD)]
