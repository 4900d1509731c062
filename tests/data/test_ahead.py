"""Items made ahead in another thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from audit.data.ahead import ahead


def _noted(made: list[int], count: int) -> Iterator[int]:
    for number in range(count):
        made.append(number)
        yield number


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_all_items_come_in_order(depth: int) -> None:
    assert list(ahead(iter(range(20)), depth)) == list(range(20))


def test_items_are_made_before_they_are_asked_for_but_no_more_than_allowed() -> None:
    made: list[int] = []
    reached = threading.Event()

    def items() -> Iterator[int]:
        for number in _noted(made, 10):
            if number == 3:
                reached.set()
            yield number

    with closing(ahead(items(), depth=2)) as found:
        assert next(found) == 0
        # One taken, two that wait and one that is made: numbers 0 to 3.
        assert reached.wait(10)
        assert made == [0, 1, 2, 3]


def test_without_depth_everything_happens_in_the_callers_thread() -> None:
    threads: list[threading.Thread] = []

    def items() -> Iterator[int]:
        threads.append(threading.current_thread())
        yield 1

    assert list(ahead(items(), 0)) == [1]
    assert threads == [threading.current_thread()]
    assert list(ahead(items(), 1)) == [1]
    assert threads[1] is not threading.current_thread()


def test_what_an_item_raises_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    found = ahead(items(), depth=4)
    assert next(found) == 1
    with pytest.raises(KeyError, match="two"):
        next(found)


def test_closing_early_ends_the_thread() -> None:
    made: list[int] = []
    before = threading.active_count()
    with closing(ahead(_noted(made, 1000), depth=2)) as found:
        assert next(found) == 0
    assert threading.active_count() == before
    assert len(made) < 10
