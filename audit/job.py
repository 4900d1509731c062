"""One audit from beginning to end: open, compute what is missing, summarise, draw, commit."""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import nn

from audit.config import AuditConfig, load_config
from audit.errors import AuditError, OutputError, TooManyBadSamples, UsageError
from audit.explaining import explainer_of
from audit.files import remove_unfinished, write_atomically
from audit.inputs import Opened, open_inputs
from audit.masks.alignment import check_alignment, reduced_to_check
from audit.models import describe, evaluation, plain_kernels
from audit.pixels import look_again
from audit.report.grids import Grids
from audit.report.masktrust import MISFITS
from audit.report.page import write_page
from audit.report.prototypes import background_sheets, choose_backgrounds
from audit.report.selection import choose_samples
from audit.report.thumbs import UNKNOWN, build_thumbs
from audit.run.engine import Auditor, evidence_share
from audit.run.manifest import (
    CODE_OF_REPORTS,
    COMPLETE,
    NAME,
    checksums,
    code_fingerprint,
    read_manifest,
    versions,
    write_manifest,
)
from audit.run.progress import Progress
from audit.run.rows import SCHEMA_VERSION, columns_of
from audit.run.store import PartStore, Shard, plan_shards
from audit.sanity import cascade, count_stages
from audit.score.masks import Masks
from audit.step import AuditStep, prefix_of, rehearse, status_code
from audit.tables.assembly import Setting, assemble
from audit.tables.labels import label_totals
from audit.tables.methods import tabulate_sanity
from audit.tables.reading import AuditRun, read_edits, read_samples
from audit.tables.strata import worst_group
from audit.tables.totals import count_statuses, first_problems, summarise_split
from audit.tables.trust import agreement
from audit.tables.verdicts import MaskTrust, count_verdicts

# The samples that tell of bad data, not of what the model does.
BAD_STATUSES = (
    "unreadable", "nonfinite", "mask_missing", "mask_unreadable", "mask_mismatch", "bad_label",
)  # fmt: skip
_LARGEST_BATCH = 256
# Images whose masks are compared with their edges.
_CHECKED_MASKS = 256
# Images whose maps are compared between trained and drawn weights.
_SANITY_IMAGES = 64
# Pixels of a batch: 256 images of 64×64, 16 of 224×224.
_BATCH_PIXELS = 256 * 64 * 64


def run_audit(
    config: AuditConfig | None = None,
    *,
    network: nn.Module | None = None,
    say: Callable[[str], object] | None = None,
    **settings: Any,
) -> AuditRun:
    """Audit a classifier over a split and leave a complete run.

    What an earlier, interrupted audit with the same settings has finished is kept.

    Args:
        config: The settings; or give them by name.
        network: The network to audit, where you hold it already; it is afterwards as it was
            before. Otherwise the setting ``model`` names it.
        say: Is told in a few lines what was opened, and how.
        **settings: See :class:`audit.config.AuditConfig`.

    Returns:
        The run.

    Raises:
        AuditError: If something cannot be opened, computed or written.

    Example:
        >>> run = run_audit(dataset="demo", limit=20, out=tmp)
        >>> len(run.samples)
        20
    """
    if config is not None and settings:
        raise TypeError("give the settings either as config or by name, not both")
    opened = open_inputs(config or load_config(None, settings), network)
    if say is not None:
        say(describe(opened.classifier, opened.parts))
    with _sole_writer(opened.folder), evaluation(opened.classifier.module), plain_kernels():
        manifest = read_manifest(opened.folder)
        if manifest is None or _is_stale(manifest, opened.config):
            manifest = _compute(opened)
        totals = manifest["totals"]
        _refuse_bad_data(totals["statuses"], totals["problems"], opened)
    return AuditRun(opened.folder, manifest)


def _is_stale(manifest: dict[str, Any], config: AuditConfig) -> bool:
    """Whether a whole run lacks what is made of its rows."""
    other_code = manifest.get("report_code") != code_fingerprint(CODE_OF_REPORTS)
    other_edits = manifest["config"].get("edits") != config.edits
    no_sanity = config.sanity and "sanity.parquet" not in manifest["files"]
    return other_code or other_edits or no_sanity


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Hold the run's folder; a second audit of the same run must not write into it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(
                f"another audit is writing {folder}",
                remedy="wait for it to end: it computes the same run",
            ) from error
        yield
    finally:
        os.close(handle)


def _compute(opened: Opened) -> dict[str, Any]:
    started = time.monotonic()
    (opened.folder / NAME).unlink(missing_ok=True)
    remove_unfinished(opened.folder)
    auditor = _auditor(opened)
    shards = plan_shards(len(opened.split), opened.config.shard_size)
    store = PartStore(opened.folder / "samples", opened.fingerprint)
    _compute_parts(auditor, store, shards, opened)
    computed = time.monotonic()
    sidecars = store.verify_all(shards)
    _refuse_bad_data(count_statuses(sidecars), first_problems(sidecars), opened)
    samples = read_samples(opened.folder)
    edited = look_again(opened, auditor, samples)
    looked = time.monotonic()
    facts, written = _summarise(opened, auditor, samples, sidecars)
    facts["seconds"] = {
        "parts": round(computed - started, 2),
        "edits": round(looked - computed, 2),
        "tables_and_report": round(time.monotonic() - looked, 2),
    }
    facts["files"] = checksums(opened.folder, sorted(store.names(shards) + edited + written))
    write_manifest(opened.folder, facts)
    return facts


def _auditor(opened: Opened) -> Auditor:
    config = opened.config
    explainer = explainer_of(config, opened.classifier, opened.parts)
    step = AuditStep(
        explainer,
        image_size=opened.split.image_size,
        target=config.target,
        partners=config.partners,
        faithful=config.faithfulness,
        evidence_share=evidence_share(len(opened.split), opened.parts.channels),
    ).to_device(opened.device)
    rehearse(step, opened.classifier.architecture)
    if config.sanity and not count_stages(explainer):
        raise UsageError(
            f"--sanity cannot draw the weights of '{opened.classifier.architecture}' anew",
            expected="a network with parameters",
            found="a program whose weights are constants",
            remedy="leave --sanity, or audit the network from its Python code",
        )
    return Auditor(
        split=opened.split,
        step=step,
        families=opened.families,
        device=opened.device,
        batch_size=_batch_size(config.batch_size, opened.split.image_size),
        workers=opened.workers,
        columns=columns_of(
            prefixes_of(config), faithful=config.faithfulness, families=opened.families.others
        ),
    )


def prefixes_of(config: AuditConfig) -> list[str]:
    """The prefixes of the methods after the first."""
    return [prefix_of(method) for method in config.method[1:]]


def _batch_size(wanted: int | str, image_size: tuple[int, int]) -> int:
    """A size that does not depend on the machine, so that a run can go on anywhere."""
    if isinstance(wanted, int):
        return wanted
    fit = _BATCH_PIXELS // (image_size[0] * image_size[1])
    return max(1, min(_LARGEST_BATCH, 2 ** max(0, fit.bit_length() - 1)))


def _compute_parts(auditor: Auditor, store: PartStore, shards: list[Shard], opened: Opened) -> None:
    missing = [shard for shard in shards if store.verified(shard) is None]
    if not missing:
        return
    total = len(opened.split)
    if todo := auditor.families.missing(0, total):
        every = total * len(auditor.families.caches)
        with Progress("masks", every, every - todo) as progress:
            auditor.families.fill(0, total, progress)
    done = total - sum(map(len, missing))
    with Progress("audit", total, done) as progress:
        try:
            auditor.choose_donors(opened.config.seed)
            for shard, table, summary in auditor.run_shards(missing, progress):
                store.write(shard, table, summary)
        except torch.OutOfMemoryError as error:
            raise AuditError(
                f"the device {opened.device} has too little memory for {auditor.batch_size} "
                f"images of {opened.split.image_size[0]}×{opened.split.image_size[1]} at a time",
                remedy="give a smaller --batch-size",
            ) from error


def _refuse_bad_data(statuses: dict[str, int], problems: list[str], opened: Opened) -> None:
    counts = {status: statuses.get(status, 0) for status in BAD_STATUSES}
    bad, total = sum(counts.values()), len(opened.split)
    if bad > opened.config.max_bad * total:
        raise TooManyBadSamples(
            f"{bad:,} of {total:,} samples cannot be audited",
            expected=f"at most {opened.config.max_bad:.1%} (--max-bad)",
            found=", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
            + (f"; for example: {problems[0]}" if problems else ""),
            remedy="look up which: the columns status and problem in "
            f"{opened.folder / 'samples'}; then mend the data, or allow more with --max-bad",
        )


def _summarise(
    opened: Opened, auditor: Auditor, samples: pd.DataFrame, sidecars: list[dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Tables, thumbnails, grids and page; returns the manifest's content and what was written."""
    folder, config = opened.folder, opened.config
    map_grid = auditor.step.explainer.map_grid
    edits = read_edits(folder)
    check = _check_masks(opened, auditor)
    tables = assemble(samples, edits, _setting(opened, map_grid, check))
    if config.sanity:
        tables["sanity"] = _check_sanity(opened, auditor)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    for name, table in tables.items():
        _write_parquet(folder / f"{name}.parquet", table)
    chosen = choose_samples(samples, frames["classes"], config.seed)
    kinds = frames["backgrounds"], frames["channels"]
    shown = chosen.loc[chosen["label"] >= 0, "label"]
    chosen = pd.concat([chosen, choose_backgrounds(samples, *kinds, shown)], ignore_index=True)
    thumbs = _fetch_thumbs(auditor, chosen)
    _write_parquet(folder / "thumbs.parquet", thumbs)
    pictures = thumbs.to_pandas()
    grids = Grids(samples, pictures, frames["classes"], map_grid)
    drawn = grids.draw_all(folder, background_sheets(samples, pictures, *kinds, map_grid))
    totals = {
        **summarise_split(samples, frames["classes"], sidecars, seed=config.seed),
        **label_totals(tables["labels"]),
        "worst_group": worst_group(frames["strata"]),
        "verdicts": count_verdicts(frames["classes"]),
        "trust": agreement(edits, samples, frames["evidence"], config.seed),
    }
    facts = _facts(opened, totals, map_grid, check)
    write_page(folder, facts=facts, tables=frames)
    return facts, [*(f"{name}.parquet" for name in (*tables, "thumbs")), *drawn, "index.html"]


def _setting(opened: Opened, grid: tuple[int, int], check: dict[str, Any] | None) -> Setting:
    config, families = opened.config, opened.families
    compared = len(config.method) > 1 or config.faithfulness
    prefixes = ["", *prefixes_of(config)]
    return Setting(
        classes=opened.split.classes,
        families=[families.main, *families.others],
        methods=dict(zip(config.method, prefixes, strict=True)) if compared else {},
        grid=grid,
        trust=MaskTrust(
            misfit=check is not None and check["verdict"] in MISFITS,
            estimated=families.main not in ("dataset", "box"),
        ),
        seed=config.seed,
    )


def _check_sanity(opened: Opened, auditor: Auditor) -> pa.Table:
    """Draw the network's weights anew and compare the maps of some images."""
    total = len(opened.split)
    kept = min(total, _SANITY_IMAGES)
    batches = auditor.batches([place * total // kept for place in range(kept)])
    readable = [masked.images[masked.given > status_code("nonfinite")] for masked in batches]
    images = torch.cat(readable)
    if not len(images):
        return tabulate_sanity([])
    explainer = auditor.step.explainer
    total = len(images) * count_stages(explainer)
    with Progress("sanity", total) as progress:
        stages: list[tuple[str, float, Mapping[str, NDArray[np.float64]]]] = []
        for stage in cascade(explainer, images, opened.config.seed, auditor.batch_size):
            found = {str(method): each for method, each in stage.correlations.items()}
            stages.append((stage.layer, stage.share, found))
            progress(len(images))
    return tabulate_sanity(stages)


def _fetch_thumbs(auditor: Auditor, chosen: pd.DataFrame) -> pa.Table:
    """Ask the split once more for the chosen pictures."""
    images, masks, sample_ids = {}, {}, {}
    for masked in auditor.batches(sorted(set(chosen["index"].tolist()))):
        for row, index in enumerate(masked.batch.index.tolist()):
            images[index] = masked.batch.images[row].permute(1, 2, 0).contiguous().numpy()
            masks[index] = _silhouette(masked.masks, row)
            sample_ids[index] = masked.batch.sample_id[row]
    return build_thumbs(chosen, images, masks, sample_ids)


def _check_masks(opened: Opened, auditor: Auditor) -> dict[str, Any] | None:
    """Whether the dataset's masks lie where the images' edges are; ``None`` for other masks."""
    if auditor.families.main != "dataset":
        return None
    total = len(opened.split)
    kept = min(total, _CHECKED_MASKS)
    kept_small: list[tuple[torch.Tensor, ...]] = []
    for masked in auditor.batches([place * total // kept for place in range(kept)]):
        usable = masked.given > status_code("mask_mismatch")
        masks = masked.masks
        unknown = torch.zeros_like(masks.main) if masks.unknown is None else masks.unknown
        parts = (masked.images, masks.main, unknown)
        # Reduced at once: hundreds of large pictures are too many for a device.
        kept_small.append(tuple(reduced_to_check(part[usable]) for part in parts))
    images, objects, unknown = (torch.cat(parts) for parts in zip(*kept_small, strict=True))
    found = asdict(check_alignment(images, objects, unknown, size=opened.split.image_size))
    del found["scores"]
    return found


def _silhouette(masks: Masks, row: int) -> NDArray[np.uint8]:
    """One sample's mask as grey values: object 255, background 0, unknown between."""
    drawn = masks.inside[row].to(torch.uint8) * 255
    if masks.known is not None:
        drawn = torch.where(masks.known[row], drawn, UNKNOWN)
    return drawn.cpu().numpy()


def _facts(
    opened: Opened,
    totals: dict[str, Any],
    map_grid: tuple[int, int],
    mask_check: dict[str, Any] | None,
) -> dict[str, Any]:
    split_facts = dict(opened.split.facts)
    planted = "planted_classes" in split_facts
    return {
        "status": COMPLETE,
        "schema_version": SCHEMA_VERSION,
        "run_id": opened.run_id,
        "fingerprint": opened.fingerprint,
        "dataset": opened.split.name,
        "split": opened.split.part,
        "classes": list(opened.split.classes),
        "known_answer": split_facts if planted else {},
        "data_facts": {} if planted else split_facts,
        "data_fingerprint": opened.data_fingerprint,
        "model": opened.classifier.architecture,
        "weights": opened.classifier.weights,
        "weights_sha256": opened.classifier.sha256,
        "mean": list(opened.classifier.mean),
        "std": list(opened.classifier.std),
        "preprocessing": opened.classifier.preprocessing.facts(),
        "class_map": opened.classifier.classmap.identity() if opened.classifier.classmap else None,
        "layer": opened.parts.layer,
        "cut_by": opened.parts.how,
        "grid": list(map_grid),
        "image_size": list(opened.split.image_size),
        "masks": opened.families.names[0],
        "mask_families": list(opened.families.names),
        "mask_network": opened.families.network,
        "mask_check": mask_check,
        "config": opened.config.model_dump(mode="json"),
        "code_fingerprint": code_fingerprint(),
        "report_code": code_fingerprint(CODE_OF_REPORTS),
        "device": str(opened.device),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "totals": totals,
    }


def _write_parquet(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
