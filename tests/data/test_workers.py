"""How many processes decode."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from audit.data import Batch
from audit.data.demo import open_demo
from audit.data.loader import seconds_to_fetch, workers_for, workers_needed
from audit.data.split import LimitedSplit


class Slow(LimitedSplit):
    """A split on a clock, whose samples take as long as is said; the first one longer."""

    now = 0.0

    def __init__(self, count: int, seconds: float, *, any_thread: bool) -> None:
        super().__init__(open_demo("test"), 4)
        self.count = count
        self.seconds = seconds
        self.in_memory = False
        self.any_thread = any_thread
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        Slow.now += self.seconds if self.asked else 100.0
        self.asked += indices
        return super().__getitems__([0])


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: Slow.now)


def test_a_sample_takes_what_it_takes_after_the_first_one() -> None:
    split = Slow(1000, 0.25, any_thread=True)
    assert seconds_to_fetch(split) == pytest.approx(0.25)
    assert split.asked == list(range(9))
    assert seconds_to_fetch(Slow(1, 0.25, any_thread=True)) == pytest.approx(100)


def test_a_wish_is_obeyed_and_nothing_is_fetched() -> None:
    split = Slow(10**6, 1.0, any_thread=True)
    assert workers_for(split, 0, 16) == 0
    assert workers_for(split, 3, 2) == 3
    assert split.asked == []


def test_what_is_in_memory_or_small_needs_none() -> None:
    assert workers_for(open_demo("test"), None, 16) == 0
    few = Slow(200, 1.0, any_thread=True)
    assert workers_for(few, None, 16) == 0
    assert few.asked == []


def test_what_is_soon_done_needs_none() -> None:
    # 10,000 samples at 1 ms are done before processes have started; at 2 ms they are not.
    assert workers_for(Slow(10_000, 0.001, any_thread=True), None, 16, gpu=True) == 0
    assert workers_for(Slow(10_000, 0.002, any_thread=True), None, 16, gpu=True) == 8


@pytest.mark.parametrize(
    ("seconds", "cores", "gpu", "thread", "needed"),
    [
        # 4 ms for what 2 cores compute in 6.3 ms: the thread keeps up.
        (0.004, 2, False, True, 0),
        # Without one a process does, beside the computing.
        (0.004, 2, False, False, 1),
        # 16 cores compute it in 0.8 ms: five times as many are needed, and a bit.
        (0.004, 16, False, True, 6),
        # Large photographs on a small machine: no more than the other core.
        (0.1, 2, False, True, 1),
        (0.1, 1, False, True, 1),
        (0.001, 64, True, True, 4),
        (0.1, 64, True, True, 8),
    ],
)
def test_as_many_as_keep_up(
    seconds: float, cores: int, gpu: bool, thread: bool, needed: int
) -> None:
    found = workers_needed(seconds, 10**6, (224, 224), cores, gpu=gpu, thread=thread)
    assert found == needed
