"""One audit from beginning to end: open, compute what is missing, summarise, draw, commit."""

from __future__ import annotations

import fcntl
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from audit.config import NOT_IN_FINGERPRINT, AuditConfig
from audit.data import Split, open_split
from audit.data.loader import workers_for
from audit.errors import ModelError, OutputError, TooManyBadSamples, UsageError
from audit.files import make_folder, remove_unfinished, write_atomically
from audit.masks import MaskCache
from audit.models import Classifier, Cut, cut, open_classifier
from audit.report.grids import Grids
from audit.report.page import write_page
from audit.report.selection import choose_samples
from audit.report.thumbs import build_thumbs
from audit.run.engine import Auditor
from audit.run.manifest import (
    COMPLETE,
    NAME,
    checksums,
    code_fingerprint,
    fingerprint_of,
    read_manifest,
    versions,
    write_manifest,
)
from audit.run.progress import Progress
from audit.run.rows import SCHEMA_VERSION
from audit.run.store import PartStore, Shard, plan_shards
from audit.step import AuditStep
from audit.tables.classes import count_confusions, summarise_classes
from audit.tables.reading import AuditRun, read_samples
from audit.tables.totals import summarise_split

# The samples that tell of bad data, not of what the model does.
BAD_STATUSES = ("unreadable", "nonfinite", "mask_missing", "mask_mismatch", "bad_label")
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Everything that a run reads, opened and checked."""

    config: AuditConfig
    split: Split
    classifier: Classifier
    parts: Cut
    masks: str
    device: torch.device
    data_fingerprint: str
    fingerprint: str
    folder: Path

    @property
    def run_id(self) -> str:
        """The run's name: equal settings on equal data give the same."""
        return self.folder.name


def run_audit(config: AuditConfig | None = None, **settings: Any) -> AuditRun:
    """Audit a classifier over a split and leave a complete run.

    What an earlier, interrupted audit with the same settings has finished is kept.

    Args:
        config: The settings; or give them by name.
        **settings: See :class:`audit.config.AuditConfig`.

    Returns:
        The run.

    Raises:
        AuditError: If something cannot be opened, computed or written.

    Example:
        >>> run = run_audit(dataset="demo", limit=20, out="/tmp/audit-doctest")
        >>> len(run.samples)
        20
    """
    opened = _open(config or AuditConfig(**settings))
    with _sole_writer(opened.folder):
        manifest = read_manifest(opened.folder)
        if manifest is None:
            manifest = _compute(opened)
    return AuditRun(opened.folder, manifest)


def _open(config: AuditConfig) -> Opened:
    split = open_split(
        config.dataset,
        config.split,
        root=config.data_root,
        mask_root=config.mask_root,
        image_size=config.image_size,
        limit=config.limit,
        download=config.download,
    )
    classifier = open_classifier(
        config.model,
        config.checkpoint,
        dataset=split.name,
        classes=split.classes,
        mean=config.mean,
        std=config.std,
    )
    parts = cut(classifier.module, split.image_size)
    if config.method == "cam" and parts.linear is None:
        raise ModelError(
            f"the method cam does not fit '{classifier.architecture}'",
            expected="global average pooling and one linear layer after the target layer",
            found="another head",
            remedy="use --method hirescam, which equals cam where cam applies",
        )
    masks = _mask_source(config.masks, split)
    device = _device(config.device)
    data_fingerprint = split.fingerprint()
    fingerprint = fingerprint_of(
        config.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT))
        | {
            "data": data_fingerprint,
            "weights": classifier.sha256,
            "architecture": classifier.architecture,
            "mean": classifier.mean,
            "std": classifier.std,
            "masks": masks,
            "code": code_fingerprint(),
            "schema": SCHEMA_VERSION,
            "device": device.type,
            "torch": torch.__version__,
        }
    )
    folder = config.out / split.name / classifier.architecture / fingerprint[:12]
    return Opened(
        config=config,
        split=split,
        classifier=classifier,
        parts=parts,
        masks=masks,
        device=device,
        data_fingerprint=data_fingerprint,
        fingerprint=fingerprint,
        folder=make_folder(folder),
    )


def _mask_source(wanted: str, split: Split) -> str:
    if wanted == "dataset" and not split.has_masks:
        raise UsageError(
            f"{split.name} has no object masks",
            expected="a dataset with masks for --masks dataset",
            remedy="use --masks estimated, or give a folder of masks with --mask-root",
        )
    if wanted == "auto":
        return "dataset" if split.has_masks else "estimated"
    return wanted


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"the device '{name}' cannot be used",
            expected="auto, cpu, or an accelerator of this machine such as cuda",
            found=str(error).splitlines()[0],
        ) from error
    return device


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
    _refuse_bad_data(sidecars, opened)
    facts = _summarise(opened, auditor, sidecars)
    facts["seconds"] = {
        "parts": round(computed - started, 2),
        "tables_and_report": round(time.monotonic() - computed, 2),
    }
    written = [
        str(path.relative_to(opened.folder))
        for path in sorted(opened.folder.rglob("*"))
        if path.is_file()
    ]
    facts["files"] = checksums(opened.folder, written)
    write_manifest(opened.folder, facts)
    return facts


def _auditor(opened: Opened) -> Auditor:
    config = opened.config
    step = AuditStep(
        opened.parts,
        mean=opened.classifier.mean,
        std=opened.classifier.std,
        image_size=opened.split.image_size,
        method=config.method,
        target=config.target,
        channels=config.channels,
        partners=config.partners,
    ).to_device(opened.device)
    estimated = None
    if opened.masks == "estimated":
        cache = config.out / ".cache" / "masks"
        estimated = MaskCache(opened.split, opened.data_fingerprint, cache, opened.device)
    return Auditor(
        split=opened.split,
        step=step,
        estimated=estimated,
        device=opened.device,
        batch_size=_BATCH if config.batch_size == "auto" else config.batch_size,
        workers=workers_for(
            opened.split,
            None if config.workers == "auto" else config.workers,
            os.cpu_count() or 1,
        ),
    )


def _compute_parts(auditor: Auditor, store: PartStore, shards: list[Shard], opened: Opened) -> None:
    missing = [shard for shard in shards if store.verified(shard) is None]
    if not missing:
        return
    total = len(opened.split)
    if auditor.estimated is not None and (todo := auditor.estimated.missing(0, total)):
        with Progress("masks", total, total - todo) as progress:
            auditor.estimated.fill(0, total, progress)
    auditor.choose_donors(opened.config.seed)
    done = total - sum(map(len, missing))
    with Progress("audit", total, done) as progress:
        for shard in missing:
            table, summary = auditor.run_shard(shard, progress)
            store.write(shard, table, summary)


def _refuse_bad_data(sidecars: list[dict[str, Any]], opened: Opened) -> None:
    counts = {
        status: sum(sidecar["statuses"].get(status, 0) for sidecar in sidecars)
        for status in BAD_STATUSES
    }
    bad, total = sum(counts.values()), len(opened.split)
    if bad > opened.config.max_bad * total:
        raise TooManyBadSamples(
            f"{bad:,} of {total:,} samples cannot be audited",
            expected=f"at most {opened.config.max_bad:.1%} (--max-bad)",
            found=", ".join(f"{count:,} {status}" for status, count in counts.items() if count),
            remedy=f"look up which: the column status in {opened.folder / 'samples'}; then mend "
            "the data, or allow more with --max-bad",
        )


def _summarise(opened: Opened, auditor: Auditor, sidecars: list[dict[str, Any]]) -> dict[str, Any]:
    """Tables, thumbnails, grids and page; returns the manifest's content."""
    folder, config = opened.folder, opened.config
    samples = read_samples(folder)
    tables = {
        "classes": summarise_classes(samples, opened.split.classes, config.seed),
        "confusion": count_confusions(samples),
    }
    frames = {name: table.to_pandas() for name, table in tables.items()}
    for name, table in tables.items():
        _write_parquet(folder / f"{name}.parquet", table)
    chosen = choose_samples(samples, frames["classes"], config.seed)
    thumbs = _fetch_thumbs(auditor, chosen)
    _write_parquet(folder / "thumbs.parquet", thumbs)
    Grids(samples, thumbs.to_pandas(), frames["classes"], opened.parts.grid).draw_all(folder)
    totals = summarise_split(samples, frames["classes"], sidecars)
    facts = _facts(opened, totals)
    write_page(folder, facts=facts, classes=frames["classes"], confusion=frames["confusion"])
    return facts


def _fetch_thumbs(auditor: Auditor, chosen: pd.DataFrame) -> pa.Table:
    """Ask the split once more for the chosen pictures."""
    images, masks, sample_ids = {}, {}, {}
    for masked in auditor.batches(sorted(set(chosen["index"].tolist()))):
        for row, index in enumerate(masked.batch.index.tolist()):
            images[index] = masked.batch.images[row].permute(1, 2, 0).contiguous().numpy()
            masks[index] = (masked.mask[row].cpu().numpy() >= 0.5).astype(np.uint8) * 255
            sample_ids[index] = masked.batch.sample_id[row]
    return build_thumbs(chosen, images, masks, sample_ids)


def _facts(opened: Opened, totals: dict[str, Any]) -> dict[str, Any]:
    return {
        "status": COMPLETE,
        "schema_version": SCHEMA_VERSION,
        "run_id": opened.run_id,
        "fingerprint": opened.fingerprint,
        "dataset": opened.split.name,
        "split": opened.split.part,
        "classes": list(opened.split.classes),
        "known_answer": dict(opened.split.facts),
        "data_fingerprint": opened.data_fingerprint,
        "model": opened.classifier.architecture,
        "weights": opened.classifier.weights,
        "weights_sha256": opened.classifier.sha256,
        "mean": list(opened.classifier.mean),
        "std": list(opened.classifier.std),
        "layer": opened.parts.layer,
        "grid": list(opened.parts.grid),
        "image_size": list(opened.split.image_size),
        "masks": opened.masks,
        "config": opened.config.model_dump(mode="json"),
        "code_fingerprint": code_fingerprint(),
        "device": str(opened.device),
        "versions": versions(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "totals": totals,
    }


def _write_parquet(path: Path, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(path, buffer.getvalue())
