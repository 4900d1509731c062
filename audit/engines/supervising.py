"""Parts handed out to processes that may die: what is retried, what is given up, and when."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from audit.engines.messages import (
    Busy,
    Counted,
    Died,
    Done,
    Failed,
    Message,
    Ready,
    Refused,
)
from audit.errors import AuditError
from audit.run.store import Shard
from audit.stopping import Stopped, Stopping
from audit.telemetry import Telemetry

# A part whose process died so often is given up; so is a run of which so many processes died
# before they had begun.
TRIES = 3
# Seconds without a word after which a process is taken for hung; twice that while it opens things.
PATIENCE = 1800.0
# Processes that died one after the other with no part finished in between: all parts are hopeless.
# This many, and TRIES for each process that computes at a time.
_DEATHS_IN_A_ROW = 12
# How many neighbouring parts are handed out together, where processes decode: reading ahead over
# their borders saves starting those anew.
_LARGEST_LOT = 16
_SECONDS_BETWEEN_LOOKS = 0.5


class Hand(Protocol):
    """A process that computes, as the one that hands out the work sees it."""

    @property
    def name(self) -> str:
        """What it is called."""

    def give(self, shards: Sequence[Shard]) -> None:
        """Let it compute these; it is idle."""

    def stop(self) -> None:
        """Let it finish the part at hand, for a while."""

    def dismiss(self) -> None:
        """Let it end; it is idle."""

    def kill(self) -> None:
        """End it; it may be dead."""


H = TypeVar("H", bound=Hand)


class Team(Protocol[H]):
    """Processes of one kind."""

    def hire(self) -> H:
        """Start a process."""

    def listen(self, hands: Sequence[H], seconds: float) -> Sequence[tuple[H, Message]]:
        """What processes say, once one says anything, or when the time is over."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How the work is handed out.

    Attributes:
        size: Processes at a time.
        lots: Whether to hand out several neighbouring parts together.
        reach: Samples that a process may be at, at a time.
        tries: How often a part is tried.
        patience: Seconds without a sign of life after which a process is killed.
    """

    size: int
    lots: bool = False
    reach: int = 1
    tries: int = TRIES
    patience: float = PATIENCE


@dataclass
class _Task:
    """A part that is not done yet."""

    shard: Shard
    failures: list[str] = field(default_factory=list)


@dataclass
class _State:
    """What is known of a process."""

    tasks: deque[_Task] = field(default_factory=deque)
    ready: bool = False
    samples: int = 0
    masking: bool = False
    heard: float = field(default_factory=time.monotonic)


class Supervisor(Generic[H]):
    """Hands out parts, and starts processes in place of those that die.

    Args:
        team: Starts them.
        manner: How.
        progress: Is told how many samples were done; fewer than none, where they are lost again.
        stopping: Is asked whether to go on.
        name: Of a sample, by its position; empty where that is unknown.
        telemetry: Is told of parts that are done, of deaths, and of parts that are given up.
    """

    def __init__(
        self,
        team: Team[H],
        manner: Manner,
        *,
        progress: Callable[[int], object],
        stopping: Stopping,
        name: Callable[[int], str] = lambda index: "",
        telemetry: Telemetry | None = None,
    ) -> None:
        self._team = team
        self._manner = manner
        self._progress = progress
        self._stopping = stopping
        self._name = name
        self._telemetry = telemetry or Telemetry()
        self._hands: dict[H, _State] = {}
        self._queue: deque[_Task] = deque()
        self._given_up: dict[int, str] = {}
        self._deaths = 0  # since a part was finished
        self._stillborn = 0  # since a process began
        self._told_to_stop = False

    def run(self, shards: Sequence[Shard]) -> dict[int, str]:
        """Have parts computed.

        Args:
            shards: Those that are missing, in the order in which to begin them.

        Returns:
            Why parts were given up, by number; the others are committed.

        Raises:
            Stopped: If an end was wished for.
            AuditError: If the processes cannot work at all.
        """
        self._queue.extend(map(_Task, shards))
        try:
            while self._queue or self._at_work():
                self._obey()
                self._hire()
                self._hand_out()
                for hand, message in self._team.listen(list(self._hands), _SECONDS_BETWEEN_LOOKS):
                    if hand in self._hands:
                        self._hear(hand, message)
                self._end_hung()
            for hand in self._hands:
                hand.dismiss()
        finally:
            for hand in self._hands:
                hand.kill()
        return self._given_up

    def _at_work(self) -> list[H]:
        return [hand for hand, state in self._hands.items() if state.tasks]

    def _obey(self) -> None:
        if not self._stopping.asked:
            return
        if not self._at_work() or self._stopping.over:
            raise Stopped
        if not self._told_to_stop:
            self._told_to_stop = True
            for hand in self._at_work():
                hand.stop()

    def _hire(self) -> None:
        wanted = min(self._manner.size, len(self._queue) + len(self._at_work()))
        while len(self._hands) < wanted and not self._stopping.asked:
            self._hands[self._team.hire()] = _State()

    def _hand_out(self) -> None:
        for hand, state in self._hands.items():
            if state.ready and not state.tasks and self._queue and not self._stopping.asked:
                state.tasks.extend(self._lot())
                state.heard = time.monotonic()
                hand.give([task.shard for task in state.tasks])

    def _lot(self) -> list[_Task]:
        """The next parts to hand out together; one that was tried before goes alone."""
        most = len(self._queue) // (3 * self._manner.size) if self._manner.lots else 1
        lot = [self._queue.popleft()]
        while self._queue and len(lot) < min(most, _LARGEST_LOT):
            before, task = lot[-1], self._queue[0]
            if before.failures or task.failures or task.shard.start != before.shard.stop:
                break
            lot.append(self._queue.popleft())
        return lot

    def _hear(self, hand: H, message: Message) -> None:
        state = self._hands[hand]
        state.heard = time.monotonic()
        match message:
            case Ready():
                state.ready = True
                self._stillborn = 0
            case Busy():
                state.masking = True
            case Counted(samples):
                state.masking = False
                state.samples += samples
                self._progress(samples)
            case Done(seconds=seconds):
                shard = state.tasks.popleft().shard
                state.samples = 0
                self._telemetry.part_committed(shard.number, len(shard), seconds)
                self._deaths = 0
            case Refused(error):
                raise error
            case Failed(how) | Died(how):
                self._lose(hand, how)

    def _lose(self, hand: H, how: str) -> None:
        """A process is gone, or is no longer of use."""
        state = self._hands.pop(hand)
        hand.kill()
        if self._stopping.asked:
            return
        self._deaths += 1
        self._telemetry.worker_died(hand.name, how)
        if state.tasks:
            task, *others = state.tasks
            self._queue.extendleft(reversed(others))
            self._progress(-state.samples)
            where = self._where(task.shard, state)
            self._try_again(task, how, where)
        elif not state.ready:
            self._bury(how)
        if self._deaths >= _DEATHS_IN_A_ROW + self._manner.tries * self._manner.size:
            self._give_up_all(how)

    def _try_again(self, task: _Task, how: str, where: str) -> None:
        task.failures.append(how)
        shard = task.shard
        part = f"part {shard.number} (samples {shard.start} to {shard.stop - 1})"
        if len(task.failures) < self._manner.tries:
            self._queue.append(task)
            self._say(f"{part} is to be tried again: its process ended ({how}) in {where}")
            return
        ways = ", ".join(dict.fromkeys(task.failures))
        times = len(task.failures)
        self._give_up(shard, f"its process ended {times} times ({ways}), the last time in {where}")

    def _give_up(self, shard: Shard, reason: str) -> None:
        self._given_up[shard.number] = reason
        self._telemetry.part_failed(shard.number, reason)

    def _say(self, text: str) -> None:
        if self._telemetry.human:
            print(f"warning: {text}", file=sys.stderr, flush=True)

    def _where(self, shard: Shard, state: _State) -> str:
        """The batch after those that are done."""
        if state.masking:
            return "the estimation of its masks"
        first = min(shard.start + state.samples, shard.stop - 1)
        last = min(first + self._manner.reach, shard.stop) - 1
        names = [name for name in (self._name(first), self._name(last)) if name]
        return f"samples {first} to {last}" + (f" ({' … '.join(names)})" if names else "")

    def _bury(self, how: str) -> None:
        """A process died before it had begun.

        Raises:
            AuditError: If that is the rule.
        """
        self._stillborn += 1
        if self._stillborn >= self._manner.tries:
            raise AuditError(
                f"{self._stillborn} processes ended one after the other before they had begun "
                "to compute",
                found=how,
                remedy="run it in one process (--engine local --processes 1) to see more",
            )

    def _give_up_all(self, how: str) -> None:
        """So many deaths in a row are not the parts' fault; the queue would see more of them."""
        reason = (
            f"never computed: {self._deaths} processes ended one after the other, lastly: {how}"
        )
        for task in self._queue:
            self._give_up(task.shard, reason)
        self._queue.clear()

    def _end_hung(self) -> None:
        now = time.monotonic()
        for hand, state in list(self._hands.items()):
            allowed = self._manner.patience * (1 if state.ready else 2)
            if now - state.heard < allowed or (state.ready and not state.tasks):
                continue
            self._lose(hand, f"there was no sign of life for {allowed:,.0f} s")
