"""The end of a run: every part verified, then tables, pictures and page, and the manifest last."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.config import AuditConfig
from audit.errors import AuditError, OutputError, TooManyBadSamples
from audit.files import sole_writer
from audit.inputs import Opened
from audit.run.copies import copy_run
from audit.run.manifest import (
    CODE_OF_REPORTS,
    NAME,
    checksums,
    checksums_in,
    code_fingerprint,
    read_manifest,
    write_manifest,
)
from audit.run.store import Shard
from audit.run.summing import is_summed
from audit.stopping import Stopping
from audit.storage.mirror import pull, push
from audit.telemetry.profiling import span
from audit.work import SAMPLES, SUMS, Worker, digesting_of, shards_of

if TYPE_CHECKING:
    import pandas as pd

    from audit.tables.scale import Gathered

# Tables and pages are imported where they are made: a run begins to compute a second earlier.

# The samples that tell of bad data, not of what the model does.
BAD_STATUSES = (
    "unreadable", "nonfinite", "mask_missing", "mask_unreadable", "mask_mismatch", "bad_label",
)  # fmt: skip
_SAID = 10
# Tables that not every run has.
_OPTIONAL = ("methods.parquet", "sanity.parquet", "edited.parquet")


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What there is of a run's parts.

    Attributes:
        shards: Whose parts are whole, in order.
        sidecars: Theirs.
        missing: The others.
    """

    shards: Sequence[Shard]
    sidecars: Sequence[dict[str, Any]]
    missing: Sequence[Shard]


@contextmanager
def held(opened: Opened) -> Iterator[None]:
    """Hold a run's folder, so that no other process of this file system concludes it meanwhile.

    In an object store nothing is held but the copy on this machine: parts are never replaced, and
    whoever concludes a run makes the same files of them.
    """
    with sole_writer(opened.folder):
        yield


def finished_manifest(opened: Opened) -> dict[str, Any] | None:
    """The manifest of a run that is complete, its files at hand; else ``None``."""
    if opened.remote:
        copy_run(opened.storage, opened.folder)
    found = read_manifest(opened.folder)
    return found if found is not None and found.get("fingerprint") == opened.fingerprint else None


def is_stale(manifest: Mapping[str, Any], config: AuditConfig) -> bool:
    """Whether a complete run lacks what is made of its rows, or some of the rows."""
    other_code = manifest.get("report_code") != code_fingerprint(CODE_OF_REPORTS)
    # To ask for no edits is to be content with those that are there.
    other_edits = config.edits not in ("none", manifest["config"].get("edits"))
    no_sanity = config.sanity and "sanity.parquet" not in manifest["files"]
    return other_code or other_edits or no_sanity or bool(manifest.get("missing"))


def verify(worker: Worker) -> Verified:
    """Look at every part of a run: rows, range, digest, schema and fingerprint."""
    shards = shards_of(worker.opened)
    found = worker.store.verified_all(shards)
    return Verified(
        shards=[s for s, sidecar in zip(shards, found, strict=True) if sidecar is not None],
        sidecars=[sidecar for sidecar in found if sidecar is not None],
        missing=[s for s, sidecar in zip(shards, found, strict=True) if sidecar is None],
    )


def merge(
    worker: Worker,
    *,
    allow_missing: bool = False,
    reasons: Mapping[int, str] | None = None,
    stopping: Stopping | None = None,
    seconds: float = 0.0,
) -> dict[str, Any]:
    """Make of a run's parts what a reader looks at, and declare it complete.

    Args:
        worker: Of the run.
        allow_missing: Whether parts may be missing; the manifest and the page then say which.
        reasons: Why parts are missing, by shard, where that is known.
        stopping: An end that is wished for meanwhile comes at once.
        seconds: What the parts took, for the manifest.

    Returns:
        The manifest.

    Raises:
        OutputError: If parts are missing and may not be, or if there are none.
        TooManyBadSamples: If more of the data is bad than the settings allow.
    """
    with (stopping or Stopping(0)).at_once():
        found = verify(worker)
        known = {**_damaged(worker, found.missing), **_begun(worker, found.shards)}
        known |= reasons or {}
        if not found.shards or (found.missing and not allow_missing):
            place, planned = worker.opened.storage.place, len(found.shards) + len(found.missing)
            raise incomplete(place, found.missing, planned, known)
        _take_back(worker.opened)
        return _conclude(worker, found, known, seconds)


def _take_back(opened: Opened) -> None:
    """No longer call a run complete; from here on its tables are made anew."""
    (opened.folder / NAME).unlink(missing_ok=True)
    opened.storage.delete(NAME)


def _damaged(worker: Worker, missing: Sequence[Shard]) -> dict[int, str]:
    """Which of the missing parts are there, but not whole."""
    there = {entry.name for entry in worker.opened.storage.entries(SAMPLES)} if missing else set()
    return {s.number: "its part is damaged" for s in missing if worker.store.part(s) in there}


def _begun(worker: Worker, done: Sequence[Shard]) -> dict[int, str]:
    """Which shards somebody began and did not finish, by number, and who that was.

    Of those that somebody else finished nothing is left to tell.
    """
    claims = worker.store.claims()
    for shard in done:
        if claims.pop(shard.number, None) is not None:
            worker.store.release(shard)
    return {
        number: f"begun by process {claim.get('pid')} on {claim.get('host')}, but not finished"
        for number, claim in claims.items()
    }


def _conclude(
    worker: Worker, found: Verified, reasons: Mapping[int, str], seconds: float
) -> dict[str, Any]:
    from threadpoolctl import threadpool_limits

    from audit.pixels import look_again
    from audit.results import conclude
    from audit.tables.totals import count_statuses, first_problems

    opened, auditor, store = worker.opened, worker.auditor, worker.store
    started = time.monotonic()
    total = sum(map(len, found.shards))
    refuse_bad_data(
        count_statuses(found.sidecars), first_problems(found.sidecars), total, opened
    )  # fmt: skip
    parts = store.names(found.shards, [SUMS] if is_summed(len(opened.split)) else [])
    samples, gathered = _rows(worker, found)
    with span("edits"):
        edited, editor = look_again(opened, auditor, samples, worker.telemetry)
    looked = time.monotonic()
    missing = [_described(shard, reasons) for shard in found.missing]
    telling = worker.telemetry.phase("tables", "tables, pictures and page are made")
    # Tables are made several at a time; threads of each product would only wait for one another.
    with telling, threadpool_limits(limits=1, user_api="blas"):
        facts, written = conclude(
            opened,
            auditor,
            editor,
            samples,
            found.sidecars,
            missing,
            worker.telemetry,
            gathered=gathered,
        )
    facts["seconds"] = {
        "parts": round(seconds, 2),
        "edits": round(looked - started, 2),
        "tables_and_report": round(time.monotonic() - looked, 2),
    }
    made = checksums(opened.folder, edited + written)
    files = made | checksums_in(opened.storage, parts)
    facts["files"] = {name: files[name] for name in sorted(files)}
    _remove_others(opened, files)
    # Of processes that were killed while this run went on, here or on other machines.
    opened.storage.clean()
    write_manifest(opened.folder, facts)
    if opened.remote:
        publish(opened, facts)
    return facts


def _remove_others(opened: Opened, kept: Collection[str]) -> None:
    """Remove tables that an earlier conclusion with other settings made and this one does not."""
    from audit.tables.scale import KEPT_ROWS

    for name in (*_OPTIONAL, KEPT_ROWS):
        if name not in kept:
            (opened.folder / name).unlink(missing_ok=True)
            opened.storage.delete(name)


def _rows(worker: Worker, found: Verified) -> tuple[pd.DataFrame, Gathered | None]:
    """The rows that tables are made of: all of them, or of a large split those that are kept."""
    from audit.tables.reading import read_samples
    from audit.tables.scale import Gathering, PartRows, digest_part, fits

    opened, store = worker.opened, worker.store
    if not is_summed(len(opened.split)):
        names = [store.part(shard) for shard in found.shards]
        if opened.remote:
            pull(opened.storage, names, opened.folder)
        return read_samples(opened.folder, names), None
    setting = digesting_of(opened)
    rows = PartRows(
        starts=[shard.start for shard in found.shards],
        read=lambda place: store.read_part(found.shards[place]),
    )
    gathering = Gathering(setting, rows)
    for shard in found.shards:
        sums = store.read_extra(shard, SUMS)
        if not fits(sums, setting):
            # Another version's. The rows are the same, since the run's fingerprint holds its code.
            sums = digest_part(store.read_part(shard), setting)
        gathering.add(shard.number, sums)
    gathered = gathering.result()
    return gathered.kept, gathered


def publish(opened: Opened, manifest: Mapping[str, Any]) -> None:
    """Bring to an object store what was made of a run's rows, the manifest last."""
    from audit.tables.reading import EDITS

    made = [name for name in manifest["files"] if not name.startswith((SAMPLES, EDITS))]
    push(opened.folder, opened.storage, made)
    opened.storage.write(NAME, (opened.folder / NAME).read_bytes())


def _described(shard: Shard, reasons: Mapping[int, str]) -> dict[str, Any]:
    """A missing shard, for the manifest and the page."""
    return {
        "shard": shard.number,
        "start": shard.start,
        "stop": shard.stop,
        "samples": len(shard),
        "reason": reasons.get(shard.number, "never computed"),
    }


def incomplete(
    place: str, missing: Sequence[Shard], planned: int, reasons: Mapping[int, str]
) -> AuditError:
    """What to say of a run, or a piece of one, that lacks parts.

    Args:
        place: Where the run lives.
        missing: Shards whose parts are missing.
        planned: How many there should be.
        reasons: Why, by shard, where that is known.
    """
    said = [
        f"part {shard.number} (samples {shard.start} to {shard.stop - 1})"
        + (f": {reasons[shard.number]}" if shard.number in reasons else "")
        for shard in missing
    ]
    more = f" and {len(said) - _SAID} more" if len(said) > _SAID else ""
    return OutputError(
        f"{len(missing):,} of {planned:,} parts of the run in {place} are missing",
        found="; ".join(said[:_SAID]) + more,
        remedy="compute them with audit run and the same settings: only these are computed"
        + ("; or go without them: audit merge --allow-missing" if len(missing) < planned else ""),
    )


def refuse_bad_data(
    statuses: Mapping[str, int], problems: Sequence[str], total: int, opened: Opened
) -> None:
    """Refuse a run of which too much is bad.

    Args:
        statuses: How many samples have each status.
        problems: Some problems in words.
        total: How many samples there are.
        opened: The run.

    Raises:
        TooManyBadSamples: If the share is above ``max_bad``.
    """
    counts = {status: statuses.get(status, 0) for status in BAD_STATUSES}
    bad = sum(counts.values())
    if bad > opened.config.max_bad * total:
        raise TooManyBadSamples(
            f"{bad:,} of {total:,} samples cannot be audited",
            expected=f"at most {opened.config.max_bad:.1%} (--max-bad)",
            found=", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
            + (f"; for example: {problems[0]}" if problems else ""),
            remedy="look up which: the columns status and problem in "
            f"{opened.storage.place}/{SAMPLES}; then mend the data, or allow more with --max-bad",
        )
