"""What a listing of a run's folder, and the sidecars of its parts, tell."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from audit.config import AuditConfig
from audit.errors import UsageError
from audit.run.manifest import COMPLETE
from audit.run.manifest import NAME as MANIFEST
from audit.run.plan import NAME as PLAN
from audit.run.plan import Plan, read_plan, shard_size_of
from audit.run.store import Shard, plan_shards, this_process
from audit.status.pace import Made, Pace, Process, made_of, pace_of, processes_of
from audit.storage import Storage, is_remote, open_storage

__all__ = ["Claim", "Damage", "Pace", "Process", "RunStatus", "run_status"]

_PART = re.compile(r"samples/part-(\d{6,})\.parquet")
_BESIDE = re.compile(r"samples/_part-(\d{6,})\.([^/]+)")
_THREADS = 16
# Settings that say what is audited, which is told anyway, and where it goes.
_TOLD = {"dataset", "model", "split", "out", "run"}
# Runs that a message names where a folder holds several.
_NAMED = 5

Life = Literal["running", "died", "unknown"]
End = Literal["none", "complete", "unreadable", "another run"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A shard that somebody has begun.

    Attributes:
        shard: Its number.
        host: The machine's name.
        pid: The process's number there.
        started: When, as that machine told it: ISO 8601, UTC.
        attempt: How many processes have begun it without an end, this one included.
        life: Whether the process runs; ``unknown`` where it is on another machine.
    """

    shard: int
    host: str
    pid: int
    started: str
    attempt: int
    life: Life


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A part that is there but does not fit, or that nothing vouches for.

    Attributes:
        shard: Its number.
        reason: In words.
    """

    shard: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """How far a run is. Every shard is in exactly one of done, begun, damaged and missing.

    Attributes:
        place: Folder or address.
        run_id: What the run is called.
        dataset: What is audited.
        model: Likewise.
        fingerprint: Of everything that decides its rows.
        settings: Those that differ from what is usual, by name.
        samples: In the split.
        shard_size: Samples a part.
        shards: How many there are.
        done: Shards with a part whose size its sidecar confirms.
        begun: Shards that somebody has begun, and not finished.
        damaged: Shards whose part does not fit.
        missing: The other shards.
        samples_done: Of the parts that are done.
        pace: How fast it went.
        processes: Who made the parts, the last one first.
        manifest: Whether the run is complete.
        manifest_missing: Shards that a complete run goes without.
        files_damaged: Other files whose size is not what the manifest says.
    """

    place: str
    run_id: str
    dataset: str
    model: str
    fingerprint: str
    settings: Mapping[str, Any]
    samples: int
    shard_size: int
    shards: int
    done: Sequence[int]
    begun: Sequence[Claim]
    damaged: Sequence[Damage]
    missing: Sequence[int]
    samples_done: int
    pace: Pace
    processes: Sequence[Process]
    manifest: End
    manifest_missing: Sequence[int]
    files_damaged: Sequence[str]


def run_status(place: str | Path, *, now: float | None = None) -> RunStatus:
    """Look how far a run is, from one listing and the sidecars of its parts.

    Parts are not read: that sizes fit does not prove what is in them; the merge proves it.

    Args:
        place: The run's folder, or its address in an object store. A folder with one run at any
            depth will do.
        now: Seconds since 1970; the clock's by default.

    Returns:
        What is known.

    Raises:
        UsageError: If there is no run.
        OutputError: If the store refuses or does not answer.

    Example:
        >>> from audit import run_audit
        >>> run = run_audit(dataset="demo", limit=20, edits="none", grids=False, out=tmp)
        >>> found = run_status(run.path)
        >>> found.done, found.samples_done, found.manifest
        ((0,), 20, 'complete')
    """
    storage, plan, manifest = _open(place)
    sizes = {entry.name: entry.bytes for entry in storage.entries()}
    shards = plan_shards(plan.samples, plan.shard_size)
    parts = _look(storage, sizes, shards, plan.fingerprint)
    claims = _claims(storage, sizes, {made.shard for made in parts.made})
    claimed = {claim.shard for claim in claims}
    damaged = tuple(each for each in parts.damaged if each.shard not in claimed)
    known = claimed | {made.shard for made in parts.made} | {each.shard for each in damaged}
    pace = pace_of(parts.made, plan.samples, time.time() if now is None else now)
    return RunStatus(
        place=storage.place,
        run_id=storage.place.rstrip("/").rpartition("/")[2],
        dataset=_first(manifest, plan.config, "dataset", "dataset"),
        model=_first(manifest, plan.facets, "model", "architecture"),
        fingerprint=plan.fingerprint,
        settings=_unusual(plan.config),
        samples=plan.samples,
        shard_size=plan.shard_size,
        shards=len(shards),
        done=tuple(made.shard for made in parts.made),
        begun=claims,
        damaged=damaged,
        missing=tuple(shard.number for shard in shards if shard.number not in known),
        samples_done=sum(made.samples for made in parts.made),
        pace=pace,
        processes=processes_of(parts.made),
        **_end(manifest, plan, sizes),
    )


_Opened = tuple[Storage, Plan, dict[str, Any] | None]


def _open(place: str | Path) -> _Opened:
    """The run at a place, or the only one below it; its manifest, ``{}`` if that is no JSON."""
    own = _opened(open_storage(place))
    if own is not None:
        return own
    below = [] if is_remote(str(place)) else _runs_below(Path(place))
    if len(below) == 1:
        return below[0]
    names = ", ".join(storage.place for storage, _, _ in below[:_NAMED])
    raise UsageError(
        f"there is no run in {place}" if not below else f"there are several runs in {place}",
        expected=f"the folder or address of a run, with its {PLAN}",
        found=f"{len(below):,}: {names}{', …' if len(below) > _NAMED else ''}" if below else None,
        remedy="name one of them" if below else "begin one: audit run --dataset demo",
    )


def _opened(storage: Storage) -> _Opened | None:
    plan, manifest = read_plan(storage), _read_manifest(storage)
    if plan is None and manifest:
        plan = _plan_of(manifest)
    return None if plan is None else (storage, plan, manifest)


def _runs_below(folder: Path) -> list[_Opened]:
    files = [file for name in (PLAN, MANIFEST) for file in folder.glob(f"**/{name}")]
    found = (_opened(open_storage(parent)) for parent in sorted({file.parent for file in files}))
    return [run for run in found if run is not None]


def _read_manifest(storage: Storage) -> dict[str, Any] | None:
    try:
        content = json.loads(storage.read(MANIFEST))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _plan_of(manifest: Mapping[str, Any]) -> Plan | None:
    """What the manifest of an older run, which left no plan, tells of it."""
    try:
        totals, config = manifest["totals"], manifest["config"]
        samples = int(totals["samples"]) + int(totals.get("missing", 0))
        return Plan(
            fingerprint=manifest["fingerprint"],
            facets={},
            samples=samples,
            shard_size=shard_size_of(config["shard_size"], samples),
            config=config,
        )
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _Parts:
    made: Sequence[Made]
    damaged: Sequence[Damage]


def _look(
    storage: Storage, sizes: Mapping[str, int], shards: Sequence[Shard], fingerprint: str
) -> _Parts:
    """Hold the size of every part against its sidecar."""
    by_number = {shard.number: shard for shard in shards}
    numbers = (int(match[1]) for name in sizes if (match := _PART.fullmatch(name)))
    there = sorted(number for number in numbers if number in by_number)

    def judge(number: int) -> Made | Damage:
        return _judge(storage, sizes, by_number[number], fingerprint)

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(judge, there))
    return _Parts(
        [each for each in found if isinstance(each, Made)],
        [each for each in found if isinstance(each, Damage)],
    )


def _judge(
    storage: Storage, sizes: Mapping[str, int], shard: Shard, fingerprint: str
) -> Made | Damage:
    name = f"samples/_part-{shard.number:06d}.json"
    if name not in sizes:
        return Damage(shard=shard.number, reason="nothing vouches for it yet")
    sidecar = _read_json(storage, name)
    if sidecar is None:
        return Damage(shard=shard.number, reason="its sidecar cannot be read")
    misfit = _misfit(sidecar, sizes, shard, fingerprint)
    if misfit is not None:
        return Damage(shard=shard.number, reason=misfit)
    return made_of(shard.number, len(shard), sidecar.get("worker"))


def _misfit(
    sidecar: Mapping[str, Any], sizes: Mapping[str, int], shard: Shard, fingerprint: str
) -> str | None:
    """What keeps a sidecar from being that of the part that is there."""
    size = sizes[f"samples/part-{shard.number:06d}.parquet"]
    if sidecar.get("fingerprint") != fingerprint:
        return "it is of another run"
    if (sidecar.get("start"), sidecar.get("stop")) != (shard.start, shard.stop):
        return "it holds other samples"
    if sidecar.get("bytes") != size:
        return f"it has {size:,} bytes, its sidecar says {sidecar.get('bytes')}"
    extras = sidecar.get("extras")
    for suffix, proof in extras.items() if isinstance(extras, dict) else ():
        there = sizes.get(f"samples/_part-{shard.number:06d}.{suffix}")
        if not isinstance(proof, dict) or there != proof.get("bytes"):
            return f"its {suffix} are missing or damaged"
    return None


def _claims(storage: Storage, sizes: Mapping[str, int], done: Iterable[int]) -> tuple[Claim, ...]:
    finished, here = set(done), this_process()
    found = []
    for name in sizes:
        match = _BESIDE.fullmatch(name)
        if match is None or match[2] != "claim" or int(match[1]) in finished:
            continue
        content = _read_json(storage, name)
        # It may be released since the listing.
        if content is not None:
            found.append(_claim(int(match[1]), content, here))
    return tuple(sorted(found, key=lambda claim: claim.shard))


def _claim(shard: int, content: Mapping[str, Any], here: Mapping[str, Any]) -> Claim:
    pid, attempt = content.get("pid"), content.get("attempt")
    return Claim(
        shard=shard,
        host=str(content.get("host", "")),
        pid=pid if isinstance(pid, int) else 0,
        started=str(content.get("started", "")),
        attempt=attempt if isinstance(attempt, int) else 1,
        life=_life(content, here),
    )


def _life(claim: Mapping[str, Any], here: Mapping[str, Any]) -> Life:
    """Whether a process runs, where this machine can tell."""
    pid = claim.get("pid")
    if claim.get("host") != here["host"] or not isinstance(pid, int) or pid <= 0:
        return "unknown"
    if claim.get("boot") != here["boot"]:
        # The same name: it was started anew, or it is another container.
        return "unknown" if not (claim.get("boot") and here["boot"]) else "died"
    with contextlib.suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return "died"
    return "running"


def _end(
    manifest: Mapping[str, Any] | None, plan: Plan, sizes: Mapping[str, int]
) -> dict[str, Any]:
    """What the manifest says of the whole run."""
    state: End = "complete"
    if manifest is None:
        state = "none"
    elif manifest.get("status") != COMPLETE or not isinstance(manifest.get("files"), dict):
        state = "unreadable"
    elif manifest.get("fingerprint") != plan.fingerprint:
        state = "another run"
    if manifest is None or state != "complete":
        return {"manifest": state, "manifest_missing": (), "files_damaged": ()}
    return {
        "manifest": state,
        "manifest_missing": tuple(each["shard"] for each in manifest.get("missing") or ()),
        "files_damaged": tuple(
            name
            for name, proof in manifest["files"].items()
            if sizes.get(name) != proof["bytes"] and not name.startswith("samples/")
        ),
    }


def _read_json(storage: Storage, name: str) -> dict[str, Any] | None:
    try:
        content = json.loads(storage.read(name))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _first(
    manifest: Mapping[str, Any] | None, plan: Mapping[str, Any], name: str, other: str
) -> str:
    found = (manifest or {}).get(name) or plan.get(other)
    return str(found) if found else "unknown"


def _unusual(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that somebody gave."""
    usual = AuditConfig().model_dump(mode="json")
    return {
        name: value
        for name, value in config.items()
        if name not in _TOLD and name in usual and usual[name] != value
    }
