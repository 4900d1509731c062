"""One audit from beginning to end: open, compute what is missing, summarise, draw, commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from audit.config import AuditConfig, load_config
from audit.data.labels import ODD_LABELS
from audit.engines import compute
from audit.engines.pieces import Piece
from audit.files import shared_writer
from audit.inputs import Opened, open_inputs
from audit.merging import (
    finished_manifest,
    held,
    incomplete,
    is_stale,
    merge,
    publish,
    refuse_bad_data,
    verify,
)
from audit.models import describe
from audit.reopening import no_run, open_again
from audit.run.plan import read_plan, settle_plan
from audit.run.store import Shard
from audit.stopping import Stopping
from audit.telemetry import Telemetry
from audit.telemetry.profiling import span
from audit.work import Worker, open_worker, profiled, ready_network, shards_of

if TYPE_CHECKING:
    from audit.viewing import Run


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What a process with a piece of a run did.

    Attributes:
        place: Where the run lives.
        shards: How many shards the piece has.
        computed: How many of them this process computed.
        samples: How many samples those were.
    """

    place: str
    shards: int
    computed: int
    samples: int


def run_audit(
    config: AuditConfig | None = None,
    *,
    network: nn.Module | None = None,
    say: Callable[[str], object] | None = None,
    stopping: Stopping | None = None,
    **settings: Any,
) -> Run:
    """Audit a classifier over a split and leave a complete run.

    What an earlier, interrupted audit with the same settings has finished is kept.

    Args:
        config: The settings; or give them by name.
        network: The network to audit, where you hold it already; it is afterwards as it was
            before. Otherwise the setting ``model`` names it.
        say: Is told in a few lines what was opened, and how.
        stopping: Is asked after every batch whether to stop.
        **settings: See :class:`audit.config.AuditConfig`.

    Returns:
        The run.

    Raises:
        AuditError: If something cannot be opened, computed or written.

    Example:
        >>> run = run_audit(dataset="demo", limit=20, grids=False, out=tmp)
        >>> len(run.samples)
        20
    """
    settled = _settled(config, settings)
    with _telling(settled) as telemetry, profiled(settled) as profile:
        with span("open"):
            opened = open_inputs(settled, network)
        profile.opened(opened)
        _tell_opened(telemetry, opened, shards_of(opened), say)
        with held(opened), ready_network(opened):
            # A run with a name may be another one.
            settle_plan(opened.storage, opened.plan)
            manifest = _finished(opened, telemetry)
            if manifest is None or is_stale(manifest, opened.config):
                opened = _continued(opened, manifest)
                manifest = _compute(opened, stopping or Stopping(0), telemetry)
            return _shown(opened, manifest, telemetry)


def run_piece(
    piece: Piece,
    config: AuditConfig | None = None,
    *,
    say: Callable[[str], object] | None = None,
    stopping: Stopping | None = None,
    **settings: Any,
) -> Committed:
    """Compute one piece of a run's shards; :func:`merge_run` makes a run of all of them.

    Args:
        piece: Which.
        config: The settings, the same for every piece; or give them by name.
        say: Is told in a few lines what was opened, and how.
        stopping: Is asked after every batch whether to stop.
        **settings: See :class:`audit.config.AuditConfig`.

    Returns:
        What was done.

    Raises:
        UsageError: If the run's other processes have other settings, data or code.
        AuditError: If something cannot be opened, computed or written.
    """
    settled = _settled(config, settings)
    with _telling(settled) as telemetry, profiled(settled, f"piece {piece}") as profile:
        with span("open"):
            opened = open_inputs(settled)
        profile.opened(opened)
        mine = piece.of(shards_of(opened))
        _tell_opened(telemetry, opened, mine, say)
        with shared_writer(opened.folder), ready_network(opened):
            settle_plan(opened.storage, opened.plan)
            worker = open_worker(opened, str(piece), telemetry)
            found = worker.store.verified_all(mine)
            missing = [s for s, sidecar in zip(mine, found, strict=True) if sidecar is None]
            _tell_found(telemetry, mine, missing)
            reasons = compute(
                worker, missing, sum(map(len, mine)), stopping=stopping or Stopping(0)
            )
        if lost := [shard for shard in missing if shard.number in reasons]:
            raise incomplete(opened.storage.place, lost, len(mine), reasons)
        telemetry.finished()
    return Committed(
        place=opened.storage.place,
        shards=len(mine),
        computed=len(missing),
        samples=sum(map(len, missing)),
    )


def merge_run(
    place: str | Path | None = None,
    config: AuditConfig | None = None,
    *,
    allow_missing: bool = False,
    network: nn.Module | None = None,
    say: Callable[[str], object] | None = None,
    stopping: Stopping | None = None,
    **settings: Any,
) -> Run:
    """Make a complete run of the parts that several processes left.

    Args:
        place: The run's folder or address, whose plan has the settings; or give those instead.
        config: The settings of the pieces; or give them by name. Beside ``place`` settings change
            how the run is concluded, such as ``device`` or ``data_root``.
        allow_missing: Whether parts may be missing; the manifest and the page then say which.
        network: The network, where the pieces' was given in memory.
        say: Is told in a few lines what was opened, and how.
        stopping: An end that is wished for comes at once.
        **settings: See :class:`audit.config.AuditConfig`.

    Returns:
        The run.

    Raises:
        UsageError: If there is no such run, or what it reads is not what it was.
        OutputError: If parts are missing and may not be.
    """
    # What is told, and where to, is no setting of the run that its pieces could have left.
    with _telling(_settled(config, settings)) as telemetry:
        if place is None:
            opened = open_inputs(_settled(config, settings), network)
        else:
            opened = open_again(str(place), settings, network)
        _tell_opened(telemetry, opened, shards_of(opened), say)
        with held(opened), ready_network(opened):
            _refuse_none(opened)
            manifest = _finished(opened, telemetry)
            if manifest is None or is_stale(manifest, opened.config):
                opened = _continued(opened, manifest)
                worker = _begin(opened, telemetry)
                manifest = merge(worker, allow_missing=allow_missing, stopping=stopping)
            return _shown(opened, manifest, telemetry)


def _refuse_none(opened: Opened) -> None:
    """Refuse to conclude a run that nobody has begun.

    Raises:
        UsageError: If there is none, or it is another one.
    """
    if read_plan(opened.storage) is None:
        raise no_run(opened.storage.place)
    settle_plan(opened.storage, opened.plan)


def _settled(config: AuditConfig | None, settings: dict[str, Any]) -> AuditConfig:
    if config is not None and settings:
        raise TypeError("give the settings either as config or by name, not both")
    return config or load_config(None, settings)


def _telling(config: AuditConfig) -> Telemetry:
    return Telemetry(as_json=config.log_json, metrics=config.metrics)


def _tell_opened(
    telemetry: Telemetry,
    opened: Opened,
    shards: Sequence[Shard],
    say: Callable[[str], object] | None,
) -> None:
    odd = opened.split.facts.get(ODD_LABELS)
    described = describe(opened.classifier, opened.parts, [str(odd)] if odd else ())
    if say is not None and telemetry.human:
        say(described)
    telemetry.opened(
        run=opened.run_id,
        dataset=opened.split.name,
        model=opened.classifier.architecture,
        samples=sum(map(len, shards)),
        shards=len(shards),
        message=described,
    )


def _tell_found(telemetry: Telemetry, shards: Sequence[Shard], missing: Sequence[Shard]) -> None:
    """Tell what earlier processes have left of these shards."""
    telemetry.found(
        shards=len(shards) - len(missing),
        samples=sum(map(len, shards)) - sum(map(len, missing)),
    )


def _finished(opened: Opened, telemetry: Telemetry) -> dict[str, Any] | None:
    """The manifest of a run that is complete, if it is; of edits that it keeps is told."""
    manifest = finished_manifest(opened)
    if manifest is not None and opened.config.edits == "none" != manifest["config"]["edits"]:
        # Here, not above: a run begins to compute earlier without tables.
        from audit.pixels import tell_kept

        tell_kept(opened, telemetry)
    return manifest


def _continued(opened: Opened, manifest: Mapping[str, Any] | None) -> Opened:
    """The same, so that a run keeps the edits and checks that it has and is not asked for."""
    if manifest is None:
        return opened
    before, config = manifest["config"], opened.config
    edits = before["edits"] if config.edits == "none" else config.edits
    kept = {"edits": edits, "sanity": config.sanity or before["sanity"]}
    return replace(opened, config=config.model_copy(update=kept))


def _compute(opened: Opened, stopping: Stopping, telemetry: Telemetry) -> dict[str, Any]:
    started = time.monotonic()
    worker = _begin(opened, telemetry)
    with span("verify"):
        missing = verify(worker).missing
    _tell_found(telemetry, shards_of(opened), missing)
    reasons = compute(worker, missing, len(opened.split), stopping=stopping)
    seconds = time.monotonic() - started
    with span("merge"):
        return merge(worker, reasons=reasons, stopping=stopping, seconds=seconds)


def _begin(opened: Opened, telemetry: Telemetry) -> Worker:
    """Remove what killed processes left, and make ready to compute."""
    opened.storage.clean()
    return open_worker(opened, telemetry=telemetry)


def _shown(opened: Opened, manifest: dict[str, Any], telemetry: Telemetry) -> Run:
    """The run in the language and the colours of the settings, unless its data is too bad."""
    # Here, not above: a run begins to compute earlier without what draws.
    from audit.redraw import redrawn
    from audit.viewing import Run

    before = manifest
    with span("report"):
        manifest = redrawn(Run(opened.folder, manifest), opened.config)
    if opened.remote and manifest != before:
        publish(opened, manifest)
    totals = manifest["totals"]
    refuse_bad_data(totals["statuses"], totals["problems"], totals["samples"], opened)
    telemetry.finished(manifest)
    return Run(opened.folder, manifest)
