"""Who made the parts of a run, and how fast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# What counts as lately: so many seconds, or times the longest part, but no more than a week.
_LATELY, _LONGEST, _WEEK = 600.0, 2.0, 7 * 86_400.0
# Clocks of two machines may differ by this.
_AHEAD = 60.0

Worker = tuple[str, int, str]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A part that is done.

    Attributes:
        shard: Its number.
        samples: How many.
        worker: Host, process and rank of who made it; ``None`` where nobody says.
        seconds: That it took; ``None`` where that is not known or makes no sense.
        finished: When, in seconds since 1970 by its maker's clock; ``None`` likewise.
    """

    shard: int
    samples: int
    worker: Worker | None
    seconds: float | None
    finished: float | None


@dataclass(frozen=True, kw_only=True)
class Process:
    """What one process did.

    Attributes:
        host: Its machine.
        pid: Its number there.
        rank: What it was called, such as its piece of the run.
        parts: That it made.
        samples: Of these.
        rate: Samples a second while it computed; ``None`` where that is not known.
        last: When it finished its last part, ISO 8601, by its clock; empty where not known.
    """

    host: str
    pid: int
    rank: str
    parts: int
    samples: int
    rate: float | None
    last: str


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a run goes.

    Attributes:
        lately: Samples a second of all processes that finished a part lately; ``None`` for none.
        window: How many seconds lately is.
        active: How many processes that were.
        overall: Samples a second from the first part's beginning to the last one's end, with all
            pauses; ``None`` where clocks make no sense.
        left: Seconds until the rest is done, if it goes on as lately; ``None`` where nobody knows.
        ahead: Parts whose end is in the future by this machine's clock.
    """

    lately: float | None
    window: float
    active: int
    overall: float | None
    left: float | None
    ahead: int


def made_of(shard: int, samples: int, worker: Any) -> Made:
    """What a sidecar says of who made its part.

    Args:
        shard: The part's number.
        samples: How many it holds.
        worker: The sidecar's ``worker``; anything.

    Example:
        >>> made_of(3, 10, {"host": "a", "pid": 7, "seconds": 2.0, "finished": "no time"})
        Made(shard=3, samples=10, worker=('a', 7, ''), seconds=2.0, finished=None)
    """
    told = worker if isinstance(worker, Mapping) else {}
    pid = told.get("pid")
    who = (str(told.get("host", "")), pid, str(told.get("rank", ""))) if told else None
    return Made(
        shard=shard,
        samples=samples,
        worker=who if who is not None and isinstance(pid, int) else None,  # type: ignore[arg-type]
        seconds=_positive(told.get("seconds")),
        finished=_moment(told.get("finished")),
    )


def processes_of(parts: Iterable[Made]) -> tuple[Process, ...]:
    """Sum up what each process did.

    Args:
        parts: Those that are done.

    Returns:
        The process that finished a part last comes first.
    """
    groups: dict[Worker, list[Made]] = {}
    for part in parts:
        if part.worker is not None:
            groups.setdefault(part.worker, []).append(part)
    ends = {worker: max(part.finished or 0.0 for part in own) for worker, own in groups.items()}
    order = sorted(groups, key=lambda worker: (-ends[worker], worker))
    return tuple(
        Process(
            host=worker[0],
            pid=worker[1],
            rank=worker[2],
            parts=len(groups[worker]),
            samples=sum(part.samples for part in groups[worker]),
            rate=_rate(groups[worker]),
            last=_told(ends[worker]),
        )
        for worker in order
    )


def pace_of(parts: Sequence[Made], total: int, now: float) -> Pace:
    """How fast a run goes, by the clocks of those who made its parts.

    Args:
        parts: Those that are done.
        total: Samples of all parts.
        now: Seconds since 1970.

    Example:
        >>> part = Made(shard=0, samples=100, worker=("a", 1, ""), seconds=10.0, finished=990.0)
        >>> found = pace_of([part], 300, now=1000.0)
        >>> found.lately, found.overall, found.left
        (10.0, 10.0, 20.0)
    """
    timed = [part for part in parts if part.finished is not None]
    past = [part for part in timed if _end(part) <= now + _AHEAD]
    longest = max((part.seconds for part in past if part.seconds), default=0.0)
    window = min(_WEEK, max(_LATELY, _LONGEST * longest))
    active: dict[Worker, list[Made]] = {}
    for part in past:
        if part.worker is not None and _end(part) >= now - window and part.seconds:
            active.setdefault(part.worker, []).append(part)
    lately = sum(rate for own in active.values() if (rate := _rate(own))) or None
    left = total - sum(part.samples for part in parts)
    seconds_left = None if lately is None else left / lately
    return Pace(
        lately=lately,
        window=window,
        active=len(active),
        overall=_overall(past),
        left=seconds_left if left > 0 else 0.0,
        ahead=len(timed) - len(past),
    )


def _overall(parts: Sequence[Made]) -> float | None:
    if not parts:
        return None
    began = min(_end(part) - (part.seconds or 0.0) for part in parts)
    span = max(_end(part) for part in parts) - began
    return sum(part.samples for part in parts) / span if span > 0 else None


def _end(part: Made) -> float:
    assert part.finished is not None
    return part.finished


def _rate(parts: Iterable[Made]) -> float | None:
    timed = [(part.samples, part.seconds) for part in parts if part.seconds]
    seconds = sum(each for _, each in timed)
    return sum(samples for samples, _ in timed) / seconds if seconds > 0 else None


def _positive(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None


def _moment(value: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(value)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _told(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds") if moment else ""
