"""Parts that a process was at when it died: they may do it again, so they come last."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from audit.run.store import PartStore, Shard, this_process

_SAID = 5


def suspects_last(
    store: PartStore, shards: Sequence[Shard], tell: Callable[[str], object]
) -> list[Shard]:
    """Order parts so that those which processes of this machine died at come last.

    A part that kills its process then costs nothing but itself. None is left out, since a kill
    from outside looks the same.

    Args:
        store: Of the run.
        shards: Those that are missing, in order.
        tell: Is told which are suspected, in a few lines.
    """
    here = this_process()
    claims = store.claims()
    begun = {
        shard.number: int(claims[shard.number].get("attempt", 1))
        for shard in shards
        if shard.number in claims and _left_behind(claims[shard.number], here)
    }
    suspected = [shard for shard in shards if shard.number in begun]
    for shard in suspected[:_SAID]:
        times = begun[shard.number]
        by = "once by a process" if times == 1 else f"{times} times by processes"
        tell(
            f"part {shard.number} (samples {shard.start} to {shard.stop - 1}) was begun {by} that "
            "died; it comes last"
        )
    if len(suspected) > _SAID:
        tell(f"so do {len(suspected) - _SAID} other parts")
    return [shard for shard in shards if shard.number not in begun] + suspected


def _left_behind(claim: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether it is of a process of this machine, since it was started, that is no more."""
    if claim.get("host") != here["host"] or claim.get("boot") != here["boot"]:
        return False
    pid = claim.get("pid")
    if not isinstance(pid, int) or pid == here["pid"]:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
