"""What a run is to be, told to every process that takes part in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from audit.errors import OutputError, UsageError
from audit.storage import Storage

NAME = "plan.json"
# How many images at a time, where that was tried out.
BATCH = "batch.json"
# Splits up to so many samples have parts of the least size; larger ones up to so many parts.
_LEAST, _MOST, _PARTS = 1000, 50_000, 2000
_FACETS_SAID = 5
# More than this is no plan but damage.
_MOST_PARTS = 10_000_000
_DIGEST = re.compile(r"[0-9a-f]{13,}")


def shard_size_of(wanted: int | str, count: int) -> int:
    """Samples a part.

    Args:
        wanted: A number, or ``auto``: a pure function of the split's size.
        count: Samples of the split.

    Example:
        >>> [shard_size_of("auto", n) for n in (100, 2_000_000, 10_000_000, 10**9)]
        [1000, 1000, 5000, 50000]
    """
    if isinstance(wanted, int):
        return wanted
    fair = -(-count // (_PARTS * _LEAST)) * _LEAST
    return max(_LEAST, min(_MOST, fair))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all processes of a run agree on.

    Attributes:
        fingerprint: Of everything that decides what the rows are.
        facets: What it was made of.
        samples: In the split.
        shard_size: Samples a part.
        config: The settings of the process that came first.
        given: Whether the network was given in memory, so that no setting names it.
    """

    fingerprint: str
    facets: Mapping[str, Any]
    samples: int
    shard_size: int
    config: Mapping[str, Any] = field(default_factory=dict)
    given: bool = False


def settle_plan(storage: Storage, plan: Plan) -> None:
    """Write a run's plan, or find that it is the one that is there.

    Args:
        storage: Of the run.
        plan: This process's.

    Raises:
        UsageError: If the run there is another; the facets that differ are named.
        OutputError: If the plan there cannot be read.
    """
    content = json.dumps(asdict(plan), indent=2, ensure_ascii=False, default=str) + "\n"
    if storage.create(NAME, content.encode()):
        return
    there = read_plan(storage)
    if there is None:
        raise OutputError(
            f"the plan of the run in {storage.place} cannot be read",
            remedy=f"remove {NAME} there, or name another run with --run",
        )
    if there.fingerprint != plan.fingerprint:
        refuse_other(f"the run in {storage.place}", there, plan)


def settle_batch_size(storage: Storage, choose: Callable[[], int]) -> int:
    """The batch size that all processes of a run use: the first one's choice.

    Args:
        storage: Of the run.
        choose: Tries which suits; asked where nobody has chosen.

    Raises:
        OutputError: If what was chosen cannot be read.
    """
    try:
        return _batch_size_of(storage)
    except FileNotFoundError:
        storage.create(BATCH, (json.dumps({"batch_size": choose()}) + "\n").encode())
    return _batch_size_of(storage)


def _batch_size_of(storage: Storage) -> int:
    try:
        size = json.loads(storage.read(BATCH))["batch_size"]
    except (ValueError, TypeError, KeyError):
        size = None
    if type(size) is not int or size < 1:
        raise OutputError(
            f"the batch size of the run in {storage.place} cannot be read",
            remedy=f"remove {BATCH} there",
        )
    return size


def read_plan(storage: Storage) -> Plan | None:
    """A run's plan; ``None`` where there is none, or it cannot be read."""
    try:
        plan = Plan(**json.loads(storage.read(NAME)))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    numbers = (plan.samples, plan.shard_size)
    whole = (
        isinstance(plan.fingerprint, str)
        and isinstance(plan.facets, dict)
        and isinstance(plan.config, dict)
        and all(type(number) is int for number in numbers)
        and plan.samples >= 0
        and plan.shard_size >= 1
        and plan.samples // plan.shard_size <= _MOST_PARTS
    )
    return plan if whole else None


def refuse_other(what: str, there: Plan, plan: Plan) -> None:
    """Name the facets in which two plans differ.

    Args:
        what: Is another one, in words.
        there: The plan that was expected.
        plan: The other.

    Raises:
        UsageError: Always.
    """
    # As they are read back: tuples are lists by then.
    before, now = (json.loads(json.dumps(each.facets, default=str)) for each in (there, plan))
    names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    said = [f"{name}: {before.get(name)} there, {now.get(name)} here" for name in names]
    # Settings tell a reader more than digests.
    said = [_DIGEST.sub(lambda m: f"{m[0][:12]}…", text) for text in sorted(said, key=_is_digest)]
    more = f" and {len(said) - _FACETS_SAID} more" if len(said) > _FACETS_SAID else ""
    raise UsageError(
        f"{what} is another one",
        expected="the same data, model, settings, code and libraries in all of its processes",
        found="; ".join(said[:_FACETS_SAID]) + more,
        remedy="give every process the same, or name another run with --run",
    )


def _is_digest(said: str) -> bool:
    return _DIGEST.search(said) is not None
