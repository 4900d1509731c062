"""A run that was begun, opened by its plan alone: its settings, but none of its code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from audit.config import load_config
from audit.data import is_code
from audit.errors import UsageError
from audit.inputs import Opened, open_inputs
from audit.run.manifest import NAME
from audit.run.plan import NAME as PLAN
from audit.run.plan import Plan, read_plan, settle_plan
from audit.storage import Storage, is_remote, open_storage
from audit.usercode import is_spec

# Settings of whoever concludes a run, not of those who began it.
_OF_THE_MACHINE = frozenset({"out", "run", "cache", "download", "metrics", "log_json"})
# Those that say how a run is concluded, and may have changed since it was begun.
_OF_THE_END = ("edits", "sanity", "max_bad", "lang", "colours", "grids")
# Runs that a message names where a folder holds several.
_NAMED = 5
_BUCKET = re.compile(r"[^:/]+://[^/]")


def open_again(place: str, changes: Mapping[str, Any], network: nn.Module | None) -> Opened:
    """Open what a run reads.

    Args:
        place: The run's folder or address, or a folder with one run at any depth.
        changes: Settings that the caller gives; ``None`` for those that the plan gives.
        network: The network, where the run's was given in memory.

    Raises:
        UsageError: If there is no run or several, if its plan names code that the caller does not
            name, or if what it reads is not what it was.
    """
    place = _of_one_run(place)
    storage = open_storage(place)
    plan = read_plan(storage)
    if plan is None:
        raise no_run(place)
    if plan.given and network is None:
        raise UsageError(
            f"the run in {place} is of a network that was given in memory",
            remedy="call merge_run(…, network=…) with it",
        )
    given = {name: value for name, value in changes.items() if value is not None}
    _refuse_code(place, plan, given)
    config = load_config(None, {**_of_plan(storage, plan), **_around(place), **given})
    opened = open_inputs(config, network, rows_by=plan.facets.get("device"), place=place)
    settle_plan(storage, opened.plan)
    return opened


def _of_one_run(place: str) -> str:
    """The folder of the only run below a folder; what is a run itself, or nothing, stays.

    Raises:
        UsageError: If there are several.
    """
    storage = open_storage(place)
    if is_remote(storage.place) or read_plan(storage) is not None:
        return place
    below = sorted(str(file.parent) for file in Path(storage.place).glob(f"**/{PLAN}"))
    if len(below) > 1:
        raise UsageError(
            f"there are several runs in {place}",
            expected=f"the folder or address of a run, with its {PLAN}",
            found=f"{len(below):,}: {', '.join(below[:_NAMED])}"
            + (", …" if len(below) > _NAMED else ""),
            remedy="name one of them",
        )
    return below[0] if below else place


def _refuse_code(place: str, plan: Plan, given: Mapping[str, Any]) -> None:
    """Run no code that somebody else's file names, unless the user names it too."""
    named = {name: str(plan.config.get(name)) for name in ("dataset", "model")}
    named = {
        name: spec
        for name, spec in named.items()
        if (is_code(spec) if name == "dataset" else is_spec(spec.removeprefix("timm:")))
    }
    for name, spec in named.items():
        if given.get(name) != spec:
            raise UsageError(
                f"the plan of the run in {place} names code: {name} {spec}",
                expected=f"--{name} {spec}, so that it is you who lets it run",
                remedy=f"audit merge {place} "
                + " ".join(f"--{other} {its}" for other, its in named.items()),
            )


def _of_plan(storage: Storage, plan: Plan) -> dict[str, Any]:
    """The settings that a run was begun with, or was last concluded with."""
    settings = {name: v for name, v in plan.config.items() if name not in _OF_THE_MACHINE}
    try:
        manifest = json.loads(storage.read(NAME))
        if manifest["fingerprint"] == plan.fingerprint:
            settings |= {name: manifest["config"][name] for name in _OF_THE_END}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return settings


def _around(place: str) -> dict[str, Any]:
    """Where caches go: beside the run, whatever its plan says."""
    storage = open_storage(place)
    if is_remote(storage.place):
        # OUT/dataset/model/RUN, unless somebody has put it elsewhere.
        out = storage.place.rstrip("/").rsplit("/", 3)[0]
        return {"out": out if _BUCKET.match(out) else storage.place}
    folders = Path(storage.place).resolve().parents
    return {"out": folders[min(2, len(folders) - 1)]}


def no_run(place: str) -> UsageError:
    """What to say where no run was begun."""
    return UsageError(
        f"there is no run in {place}",
        expected="the folder or address of a run that was begun, with its plan.json",
        remedy="begin it: audit run --shard 0/4 …",
    )
