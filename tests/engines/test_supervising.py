"""Who computes what, and when it is given up; with processes that do as a script says."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import pytest

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
from audit.engines.supervising import Manner, Supervisor
from audit.errors import AuditError, UsageError
from audit.run.store import Shard, plan_shards
from audit.stopping import Stopped, Stopping

SHARDS = plan_shards(60, 10)


class Scripted:
    """Does each part in two batches; at a sick one it dies in the second."""

    def __init__(self, team: Team, sick: set[int], how: Message) -> None:
        self.name = "scripted"
        self.said: deque[Message] = deque([Ready()])
        self.given: list[list[int]] = []
        self.ended = ""
        self._team = team
        self._sick = sick
        self._how = how

    def give(self, shards: Sequence[Shard]) -> None:
        self.given.append([shard.number for shard in shards])
        for shard in shards:
            self._team.tried.append(shard.number)
            self.said += [Busy(), Counted(0), Counted(len(shard) // 2)]
            if shard.number in self._sick:
                self.said.append(self._how)
                return
            self.said += [Counted(len(shard) // 2), Done(0.1)]

    def stop(self) -> None:
        self.ended += "stopped "

    def dismiss(self) -> None:
        self.ended += "dismissed "

    def kill(self) -> None:
        self.ended += "killed"


class Team:
    def __init__(self, sick: set[int] | None = None, how: Message | None = None) -> None:
        self.tried: list[int] = []
        self.hired: list[Scripted] = []
        self._sick = sick or set()
        self._how = how or Died("SIGSEGV")

    def hire(self) -> Scripted:
        self.hired.append(Scripted(self, self._sick, self._how))
        return self.hired[-1]

    def listen(
        self, hands: Sequence[Scripted], seconds: float
    ) -> Sequence[tuple[Scripted, Message]]:
        return [(hand, hand.said.popleft()) for hand in hands if hand.said]


class Stillborn(Team):
    def hire(self) -> Scripted:
        hand = super().hire()
        hand.said = deque([Died("SIGKILL")])
        return hand


class Silent(Team):
    def listen(
        self, hands: Sequence[Scripted], seconds: float
    ) -> Sequence[tuple[Scripted, Message]]:
        return [(hand, hand.said.popleft()) for hand in hands if hand.said and not hand.given]


class Count:
    def __init__(self) -> None:
        self.done = 0

    def __call__(self, more: int) -> None:
        self.done += more


def supervise(team: Team, stopping: Stopping | None = None, **manner: object) -> dict[int, str]:
    count = Count()
    settings = Manner(**{"size": 2, "reach": 5, **manner})  # type: ignore[arg-type]
    supervisor = Supervisor(
        team,
        settings,
        progress=count,
        stopping=stopping or Stopping(0),
        name=lambda i: f"picture {i}",
    )
    reasons = supervisor.run(SHARDS)
    assert count.done == sum(len(shard) for shard in SHARDS if shard.number not in reasons)
    return reasons


def test_all_parts_are_computed_once() -> None:
    team = Team()
    assert supervise(team) == {}
    assert sorted(team.tried) == [0, 1, 2, 3, 4, 5]
    assert [hand.ended for hand in team.hired] == ["dismissed killed"] * 2


def test_a_part_is_tried_three_times_the_last_two_after_the_others() -> None:
    team = Team({3})
    assert supervise(team) == {
        3: "its process ended 3 times (SIGSEGV), the last time in samples 35 to 39 "
        "(picture 35 … picture 39)"
    }
    assert team.tried.count(3) == 3
    assert team.tried[-2:] == [3, 3]
    assert sorted(set(team.tried)) == [0, 1, 2, 3, 4, 5]
    assert len(team.hired) <= 2 + 3


def test_ways_of_dying_are_told_apart() -> None:
    team = Team({3})
    ways = iter((Failed("ValueError: x"), Died("SIGKILL"), Failed("ValueError: x")))
    hire = team.hire

    def hire_one() -> Scripted:
        hand = hire()
        give = hand.give

        def give_on(shards: Sequence[Shard]) -> None:
            if shards[0].number == 3:
                hand._how = next(ways)
            give(shards)

        hand.give = give_on  # type: ignore[method-assign]
        return hand

    team.hire = hire_one  # type: ignore[method-assign]
    assert supervise(team)[3].startswith(
        "its process ended 3 times (ValueError: x, SIGKILL), the last"
    )


def test_neighbours_of_a_sick_part_in_its_lot_are_not_blamed() -> None:
    team = Team({1})
    reasons = supervise(team, size=1, lots=True, tries=2)
    assert list(reasons) == [1]
    assert team.hired[0].given[0] == [0, 1]  # 6 // (3 * 1) together
    assert team.tried.count(1) == 2
    assert [2] in [lot for hand in team.hired for lot in hand.given] or team.tried.count(2) == 1


def test_where_every_part_kills_its_process_the_run_ends_early() -> None:
    team = Team(set(range(6)))
    reasons = supervise(team, size=1)
    assert set(reasons) == set(range(6))
    # 12, and 3 for the one process at a time
    assert len(team.tried) == 15
    assert "never computed: 15 processes ended one after the other, lastly: SIGSEGV" in (
        reasons.values()
    )


def test_processes_that_never_begin_end_the_run() -> None:
    team = Stillborn()
    with pytest.raises(AuditError, match=r"3 processes ended .* before they had begun"):
        supervise(team)
    assert all(hand.ended.endswith("killed") for hand in team.hired)
    assert len(team.hired) <= 4


def test_what_the_user_can_mend_ends_the_run_as_it_is() -> None:
    error = UsageError("the disk is full")
    team = Team({0}, Refused(error))
    with pytest.raises(UsageError) as caught:
        supervise(team)
    assert caught.value is error
    assert all(hand.ended == "killed" for hand in team.hired)


def test_a_hung_process_is_killed_and_counts() -> None:
    team = Silent()
    reasons = supervise(team, patience=0.0, tries=1)
    assert set(reasons) == set(range(6))
    assert "there was no sign of life for 0 s" in reasons[0]
    assert all(hand.ended == "killed" for hand in team.hired)


def test_after_a_wish_to_end_nothing_new_is_begun() -> None:
    stopping = Stopping(60)
    team = Team()
    listen = team.listen

    def asking(hands: Sequence[Scripted], seconds: float) -> Sequence[tuple[Scripted, Message]]:
        if len(team.tried) == 2:
            stopping.ask()
        return listen(hands, seconds)

    team.listen = asking  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        supervise(team, stopping)
    assert sorted(team.tried) == [0, 1]
    # The parts at hand were finished: both processes had nothing left to say.
    assert [list(hand.said) for hand in team.hired] == [[], []]
    assert all(hand.ended == "stopped killed" for hand in team.hired)


def test_without_grace_the_end_comes_at_once() -> None:
    stopping = Stopping(0)
    stopping.ask()
    team = Team()
    with pytest.raises(Stopped):
        supervise(team, stopping)
    assert team.hired == []
