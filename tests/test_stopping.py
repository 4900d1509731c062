"""A wish to stop: the shard at hand may be finished for a while, tables end at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from audit.stopping import Stopped, Stopping, ended_by_terminate, on_terminate


def test_nothing_stops_unasked() -> None:
    stopping = Stopping(grace=0)
    stopping.check()
    stopping.check_between()
    with stopping.at_once():
        pass
    assert not stopping.asked


def test_a_shard_may_be_finished_within_the_grace() -> None:
    stopping = Stopping(grace=1000)
    stopping.ask()
    stopping.check()
    with pytest.raises(Stopped):
        stopping.check_between()


def test_without_grace_the_shard_is_dropped() -> None:
    stopping = Stopping(grace=0)
    stopping.ask()
    with pytest.raises(Stopped):
        stopping.check()


def test_some_work_ends_where_it_is() -> None:
    stopping = Stopping(grace=1000)
    with pytest.raises(Stopped), stopping.at_once():
        stopping.ask()
    with pytest.raises(Stopped), stopping.at_once():
        pytest.fail("it was asked before")


def test_it_passes_through_what_catches_failures() -> None:
    assert not issubclass(Stopped, Exception)


def test_sigterm_asks_and_is_heard_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_terminate(grace=1000) as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.asked
        assert not stopping.over
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_ends_where_it_is_unless_work_says_otherwise() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), ended_by_terminate():
        with on_terminate(grace=1000) as stopping:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.asked
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_the_main_thread_no_signal_is_touched() -> None:
    found: list[bool] = []

    def work() -> None:
        with on_terminate(grace=0) as stopping:
            found.append(stopping.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
