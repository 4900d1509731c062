"""How far a run is, for people and for machines."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from audit.errors import visible
from audit.run.gaps import compressed, ranges_of
from audit.status.reading import Claim, Life, RunStatus, run_status

# Lines of a kind at most.
_MOST = 10
_LIFE: dict[Life, str] = {"running": "running", "died": "died", "unknown": "on another machine"}


def describe_status(place: str | Path | RunStatus) -> str:
    """How far a run is, in some lines.

    Args:
        place: Its folder or address; or what :func:`audit.status.run_status` found.

    Raises:
        UsageError: If there is no run.
        OutputError: If the store refuses or does not answer.
    """
    status = place if isinstance(place, RunStatus) else run_status(place)
    lines = [
        f"run {status.run_id}: {status.model} on {status.dataset}, {status.samples:,} images in "
        f"{_counted(status.shards)} of up to {status.shard_size:,}",
        f"{'at':<10}{status.place}",
    ]
    if status.settings:
        said = ", ".join(f"{name} = {_value(value)}" for name, value in status.settings.items())
        lines.append(f"{'settings':<10}{said}")
    lines += ["", *_parts(status), *_pace(status), *_processes(status), *_manifest(status)]
    return "\n".join(map(visible, lines))


def as_json(status: RunStatus) -> str:
    """The same as JSON.

    Args:
        status: From :func:`audit.status.run_status`.

    Returns:
        An object on several lines. Shards that are done or missing are pairs of first and last.
    """
    content: dict[str, Any] = dataclasses.asdict(status)
    for name in ("done", "missing", "manifest_missing"):
        content[name] = ranges_of(getattr(status, name))
    return json.dumps(content, indent=2, allow_nan=False)


def _parts(status: RunStatus) -> Iterator[str]:
    share = status.samples_done / status.samples if status.samples else 1.0
    done = f": {compressed(status.done)}" if status.done else ""
    yield (
        f"{'done':<10}{len(status.done):,} of {_counted(status.shards)}, "
        f"{status.samples_done:,} of {status.samples:,} images ({share:.1%}){done}"
    )
    if status.begun:
        lives = Counter(claim.life for claim in status.begun)
        said = ", ".join(f"{lives[life]:,} {words}" for life, words in _LIFE.items() if lives[life])
        yield f"{'begun':<10}{_parts_of(status.begun)} ({said})"
        yield from _some([_begun(claim) for claim in status.begun])
    if status.damaged:
        yield f"{'damaged':<10}{_parts_of(status.damaged)}"
        yield from _some([f"part {each.shard}: {each.reason}" for each in status.damaged])
    if status.missing:
        yield f"{'missing':<10}{_parts_of(status.missing)}: {compressed(status.missing)}"


def _begun(claim: Claim) -> str:
    again = f", attempt {claim.attempt}" if claim.attempt > 1 else ""
    return (
        f"part {claim.shard}: process {claim.pid} on {claim.host} since {claim.started}, "
        f"{_LIFE[claim.life]}{again}"
    )


def _pace(status: RunStatus) -> Iterator[str]:
    pace = status.pace
    open_parts = len(status.done) < status.shards
    if pace.lately is not None and open_parts:
        yield (
            f"{'rate':<10}{pace.lately:,.1f} images a second by {pace.active:,} "
            f"process{'' if pace.active == 1 else 'es'} that finished a part in the last "
            f"{_duration(pace.window)}"
        )
    elif open_parts:
        yield f"{'rate':<10}nobody finished a part in the last {_duration(pace.window)}"
    if pace.overall is not None:
        yield f"{'overall':<10}{pace.overall:,.1f} images a second from first to last, with pauses"
    if pace.left is not None and open_parts:
        yield f"{'left':<10}about {_duration(pace.left)} if it goes on like this"
    if pace.ahead:
        yield (
            f"{'clocks':<10}{_counted(pace.ahead)} finished in the future by this machine's clock, "
            "left out of rates"
        )


def _processes(status: RunStatus) -> Iterator[str]:
    if not status.processes:
        return
    count = len(status.processes)
    yield f"{'made by':<10}{count:,} process{'' if count == 1 else 'es'}, the last to finish first"
    lines = []
    for each in status.processes:
        rank = f" ({each.rank})" if each.rank else ""
        rate = "" if each.rate is None else f", {each.rate:,.1f} a second"
        last = f", last at {each.last}" if each.last else ""
        lines.append(
            f"{each.host}:{each.pid}{rank}: {_counted(each.parts)}, {each.samples:,} images"
            f"{rate}{last}"
        )
    yield from _some(lines)


def _manifest(status: RunStatus) -> Iterator[str]:
    said = {
        "none": "none yet: the run is not complete",
        "unreadable": "cannot be read: run the same command again",
        "another run": "of another run than the plan: run the same command again",
        "complete": "complete",
    }[status.manifest]
    if status.manifest_missing:
        said = f"complete without parts {compressed(status.manifest_missing)}"
    if status.manifest == "none" and len(status.done) == status.shards:
        said = "none yet: all parts are there, conclude the run with audit merge"
    # A part that is begun anew, damaged or gone since the manifest was written.
    lost = set(range(status.shards)) - {*status.done, *status.manifest_missing}
    if status.manifest == "complete" and (lost or status.files_damaged):
        what = "files beside the parts"
        if lost:
            what = f"part{'' if len(lost) == 1 else 's'} {compressed(sorted(lost))}"
        said += f", but it does not match {what}: run the same command again"
    yield f"{'manifest':<10}{said}"
    if status.files_damaged:
        count = len(status.files_damaged)
        yield f"{'damaged':<10}{count:,} file{'' if count == 1 else 's'} beside the parts"
        yield from _some(status.files_damaged)


def _some(lines: Sequence[str]) -> Iterator[str]:
    yield from (f"{'':<10}{line}" for line in lines[:_MOST])
    if len(lines) > _MOST:
        yield f"{'':<10}and {len(lines) - _MOST:,} more (--json has all)"


def _parts_of(shards: Sequence[object]) -> str:
    return _counted(len(shards))


def _counted(parts: int) -> str:
    return f"{parts:,} part{'' if parts == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
