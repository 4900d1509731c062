"""The plan of a run: whoever comes first writes it, and others are refused where they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from audit.errors import OutputError, UsageError
from audit.run.plan import NAME, Plan, read_plan, settle_plan, shard_size_of
from audit.run.store import plan_shards
from audit.storage import LocalStorage

PLAN = Plan(
    fingerprint="f1",
    facets={"weights": "w1", "mean": (0.5, 0.5, 0.5), "seed": 0},
    samples=10,
    shard_size=4,
    config={"dataset": "demo"},
)


def test_the_first_plan_stays(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    settle_plan(storage, PLAN)
    first = (tmp_path / NAME).read_bytes()
    settle_plan(storage, replace(PLAN, config={"dataset": "demo", "lang": "zh"}))
    assert (tmp_path / NAME).read_bytes() == first
    read = read_plan(storage)
    assert read is not None
    assert (read.fingerprint, read.samples, read.given) == ("f1", 10, False)


def test_another_run_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    settle_plan(storage, PLAN)
    other = replace(PLAN, fingerprint="f2", facets={**PLAN.facets, "weights": "w2"})
    with pytest.raises(UsageError, match="is another one") as raised:
        settle_plan(storage, other)
    # The mean is a list there and a tuple here, which is no difference.
    assert raised.value.found == "weights: w1 there, w2 here"
    assert raised.value.exit_code == 2


def test_a_damaged_plan_is_not_taken_for_another_run(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("{")
    assert read_plan(LocalStorage(tmp_path)) is None
    with pytest.raises(OutputError, match="cannot be read"):
        settle_plan(LocalStorage(tmp_path), PLAN)


@pytest.mark.parametrize(
    ("count", "size"), [(1, 1000), (2_000_000, 1000), (2_000_001, 2000), (10**9, 50_000)]
)
def test_parts_grow_with_the_split(count: int, size: int) -> None:
    assert shard_size_of("auto", count) == size
    assert shard_size_of(7, count) == 7
    if count <= 2_000_001:
        assert len(plan_shards(count, size)) <= 2000
