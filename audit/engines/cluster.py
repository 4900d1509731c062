"""Actors of Ray, on this machine or on a cluster's."""

from __future__ import annotations

import logging
import queue
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from audit.engines.messages import Died, Message, Order
from audit.engines.serving import serve
from audit.errors import AuditError, UsageError
from audit.run.store import Shard
from audit.stopping import Stopping

# Calls at a time: the messages, and the work or the end.
_CALLS = 3
_HOST_AND_PORT = re.compile(r"(?P<host>[^:/]+):(?P<port>[0-9]{1,5})")
_SECONDS_TO_ANSWER = 10.0


class Actor:
    """What Ray runs: a thread that computes, and its messages.

    The process itself stays free to answer, so that its parts can be counted while they are made.

    Args:
        order: What to open.
    """

    def __init__(self, order: Order) -> None:
        self._inbox: queue.SimpleQueue[Sequence[Shard]] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._stopping = Stopping(order.config.grace)
        threading.Thread(target=self._work, args=(order,), daemon=True).start()

    def messages(self) -> Iterator[Message]:
        """All that is told, from beginning to end."""
        while (message := self._outbox.get()) is not None:
            yield message

    def give(self, shards: Sequence[Shard]) -> None:
        """Take work; none ends it."""
        self._inbox.put(shards)

    def stop(self) -> None:
        """Finish the part at hand, for a while."""
        self._stopping.ask()

    def receive(self) -> Sequence[Shard]:
        """See :class:`audit.engines.messages.Channel`."""
        return self._inbox.get()

    def send(self, message: Message) -> None:
        """See :class:`audit.engines.messages.Channel`."""
        self._outbox.put(message)

    def _work(self, order: Order) -> None:
        try:
            serve(order, self, self._stopping)
        finally:
            self._outbox.put(None)


class ActorHand:
    """An actor, as the driver sees it.

    Args:
        kind: The actor's class as Ray has it.
        order: What it is to open.
    """

    def __init__(self, kind: Any, order: Order) -> None:
        self.name = f"actor {order.rank}"
        self._actor = kind.remote(order)
        self.messages = self._actor.messages.options(num_returns="streaming").remote()

    def give(self, shards: Sequence[Shard]) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        self._actor.give.remote(shards)

    def stop(self) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        self._actor.stop.remote()

    def dismiss(self) -> None:
        """See :class:`audit.engines.supervising.Hand`."""

    def kill(self) -> None:
        """See :class:`audit.engines.supervising.Hand`."""
        import ray

        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self._actor)

    def hear(self) -> Message:
        """The next message, which is there, or that there will be none."""
        import ray

        try:
            message: Message = ray.get(next(self.messages))
        except StopIteration:
            return Died("it ended")
        except ray.exceptions.RayError as error:
            return Died(_how(error))
        return message


class ActorTeam:
    """Starts actors.

    Args:
        order_for: What each is to open, by its number.
        gpus: Of each.
    """

    def __init__(self, order_for: Callable[[int], Order], gpus: int) -> None:
        import ray

        # Ray is not to start anything anew by itself: it cannot know which part was to blame.
        self._kind = ray.remote(Actor).options(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=_CALLS,
        )
        self._order_for = order_for
        self._hired = 0

    def hire(self) -> ActorHand:
        """See :class:`audit.engines.supervising.Team`."""
        self._hired += 1
        return ActorHand(self._kind, self._order_for(self._hired - 1))

    def listen(
        self, hands: Sequence[ActorHand], seconds: float
    ) -> Sequence[tuple[ActorHand, Message]]:
        """See :class:`audit.engines.supervising.Team`."""
        import ray

        whose = {hand.messages: hand for hand in hands}
        ready, _ = ray.wait(list(whose), num_returns=1, timeout=seconds)
        # Others may have something to say as well.
        more, _ = ray.wait(list(whose), num_returns=len(whose), timeout=0)
        return [(whose[each], whose[each].hear()) for each in dict.fromkeys([*ready, *more])]


def require_cluster(address: str | None) -> None:
    """Refuse an address of Ray's at which nothing listens; Ray itself would wait for minutes.

    Args:
        address: Of ``RAY_ADDRESS``; others than ``host:port`` are left to Ray.

    Raises:
        AuditError: If nothing answers there.
    """
    match = _HOST_AND_PORT.fullmatch(address or "")
    if match is None:
        return
    try:
        socket.create_connection((match["host"], int(match["port"])), _SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise AuditError(
            f"no Ray cluster answers at {address} (RAY_ADDRESS)",
            found=str(error),
            remedy="start it, or leave RAY_ADDRESS unset for a cluster on this machine alone",
        ) from error


@contextmanager
def cluster(processes: int | None) -> Iterator[None]:
    """Be part of a Ray cluster: of the one at hand, else of one that is started on this machine.

    Args:
        processes: How many are to compute, for a cluster of this machine.

    Raises:
        UsageError: If Ray is not installed, or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "the engine ray needs the package ray", remedy="pip install 'audit[ray]'"
        ) from error
    if ray.is_initialized():
        yield
        return
    with _own_signals():
        _join(processes)
    try:
        yield
    finally:
        # Leaves a cluster that was joined, and ends one that was started.
        with _own_signals():
            ray.shutdown()


def room(gpus: int) -> int:
    """How many actors the cluster has room for by now, at least one."""
    import ray

    found = ray.cluster_resources()
    return max(1, int(found.get("GPU", 0) / gpus if gpus else found.get("CPU", 0)))


def _join(processes: int | None) -> None:
    import ray

    with suppress(ImportError, AttributeError):
        from ray._common.usage import usage_lib

        usage_lib.set_usage_stats_enabled_via_env_var(False)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            ray.init(**quiet, num_cpus=processes, include_dashboard=False)
        except ValueError:
            # There is a cluster, whose size is not ours to settle.
            ray.init(**quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UsageError(
            "the Ray cluster cannot be joined",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            remedy="set RAY_ADDRESS to its address (host:6379), or leave it unset for a cluster "
            "on this machine alone",
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does at SIGTERM; Ray would end it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _how(error: Exception) -> str:
    """In a few words, what became of an actor, as far as Ray tells."""
    import ray

    said = str(error)
    if isinstance(error, ray.exceptions.OutOfMemoryError) or "OutOfMemory" in said:
        return "its machine ran out of memory"
    if "node" in said and re.search(r"node .{0,40}(died|dead|terminated|preempted)", said):
        return "its machine was lost"
    if "creation task" in said or isinstance(error, ray.exceptions.RuntimeEnvSetupError):
        return said.strip().splitlines()[-1][:200]
    return "its actor's process died"
