"""Work in another thread: its order, its errors, and what is kept when the caller fails."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from audit.run.behind import Behind
from audit.stopping import Stopped


def test_results_are_told_in_order_in_the_callers_thread() -> None:
    told: list[tuple[int, threading.Thread]] = []
    worked: list[threading.Thread] = []

    def work(number: int) -> int:
        worked.append(threading.current_thread())
        return number

    with Behind[int](lambda number: told.append((number, threading.current_thread()))) as behind:
        for number in range(5):
            behind.put(partial(work, number))
    assert told == [(number, threading.current_thread()) for number in range(5)]
    assert set(worked).isdisjoint({threading.current_thread()})


def test_one_piece_at_a_time() -> None:
    told: list[str] = []
    go = threading.Event()

    def slow() -> str:
        assert go.wait(10)
        return "slow"

    with Behind(told.append) as behind:
        behind.put(slow)
        behind.look()
        assert behind.busy
        assert told == []
        go.set()
        behind.put(lambda: "next")
        assert told == ["slow"]
    assert told == ["slow", "next"]


def test_an_error_is_raised_before_more_is_begun() -> None:
    begun: list[int] = []

    def fail() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"), Behind[None](lambda _: None) as behind:
        behind.put(fail)
        behind.put(partial(begun.append, 1))
    assert begun == []


@pytest.mark.parametrize("error", [Stopped(), RuntimeError("the next shard")])
def test_what_is_at_hand_is_kept_whatever_ends_the_block(error: BaseException) -> None:
    told: list[str] = []
    go = threading.Event()

    def slow() -> str:
        assert go.wait(10)
        return "kept"

    with pytest.raises(type(error)), Behind(told.append) as behind:
        behind.put(slow)
        threading.Timer(0.05, go.set).start()
        raise error
    assert told == ["kept"]


def test_an_earlier_error_is_told_in_place_of_a_later_one() -> None:
    def fail() -> None:
        raise OSError("earlier")

    with pytest.raises(OSError, match="earlier") as raised, Behind[None](lambda _: None) as behind:
        behind.put(fail)
        raise RuntimeError("later")
    assert isinstance(raised.value.__context__, RuntimeError)
