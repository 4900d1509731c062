"""Parts are written beside the computing of the next one; who listens hears them one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit.config import AuditConfig
from audit.errors import OutputError
from audit.inputs import open_inputs
from audit.run.store import PartStore, Shard
from audit.stopping import Stopped, Stopping
from audit.work import Worker, open_worker, shards_of

COUNT, SHARD, BATCH = 120, 40, 20


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    config = AuditConfig(
        dataset="demo", limit=COUNT, shard_size=SHARD, batch_size=BATCH, edits="none",
        device="cpu", out=tmp_path,
    )  # fmt: skip
    made = open_worker(open_inputs(config))
    made.prepare()
    return made


def _claims(worker: Worker) -> set[int]:
    return set(worker.store.claims())


def test_it_is_told_as_if_each_part_were_committed_before_the_next_is_begun(
    worker: Worker,
) -> None:
    told: list[object] = []

    def done(shard: Shard) -> None:
        assert worker.store.verified(shard) is not None
        assert _claims(worker) <= {shard.number + 1}
        told.append(shard.number)

    worker.compute(shards_of(worker.opened), told.append, done=done)
    assert told == [BATCH, BATCH, 0, BATCH, BATCH, 1, BATCH, BATCH, 2]
    assert _claims(worker) == set()


def test_a_part_is_claimed_before_it_is_computed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where the one before is still being written: whatever kills the process is then known.
    seen: list[bool] = []
    run_shards = type(worker.auditor).run_shards

    def watched(self: Any, shards: Any, progress: Any) -> Iterator[Any]:
        found = run_shards(self, shards, progress)
        for shard in shards:
            seen.append(shard.number in _claims(worker))
            yield next(found)

    monkeypatch.setattr(type(worker.auditor), "run_shards", watched)
    worker.compute(shards_of(worker.opened), lambda _: None)
    assert seen == [True] * 3
    assert _claims(worker) == set()


def test_what_was_computed_is_kept_where_the_next_part_fails(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Exception):
        pass

    run_shards = type(worker.auditor).run_shards

    def breaking(self: Any, *given: Any) -> Iterator[Any]:
        for place, found in enumerate(run_shards(self, *given)):
            if place == 1:
                raise Broken
            yield found

    monkeypatch.setattr(type(worker.auditor), "run_shards", breaking)
    shards, done = shards_of(worker.opened), list[Shard]()
    with pytest.raises(Broken):
        worker.compute(shards, lambda _: None, done=done.append)
    assert done == shards[:1]
    assert worker.store.verified(shards[0]) is not None
    assert worker.store.look(shards) == {0: "done", 1: "missing", 2: "missing"}


def test_a_part_that_cannot_be_written_ends_the_work_and_leaves_no_claim(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise OutputError("no space left")

    monkeypatch.setattr(PartStore, "commit", full)
    with pytest.raises(OutputError, match="no space left"):
        worker.compute(shards_of(worker.opened), lambda _: None)
    assert _claims(worker) == set()


def test_a_wish_to_stop_keeps_what_was_computed(worker: Worker) -> None:
    stopping, shards, counted = Stopping(1000), shards_of(worker.opened), list[int]()

    def count(samples: int) -> None:
        counted.append(samples)
        if len(counted) == 2:
            stopping.ask()

    with pytest.raises(Stopped):
        worker.compute(shards, count, stopping=stopping)
    assert worker.store.look(shards) == {0: "done", 1: "missing", 2: "missing"}


def test_what_a_process_was_at_when_it_died_goes_alone(worker: Worker) -> None:
    shards = shards_of(worker.opened)
    assert list(worker._lots(shards)) == [shards]
    worker.store.claim(shards[0])
    worker.store.claim(shards[1])
    assert list(worker._lots(shards)) == [[shards[0]], [shards[1]], [shards[2]]]
    assert list(worker._lots(shards[:1])) == [shards[:1]]
