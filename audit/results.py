"""What is made of a finished pass: tables, thumbnails, grids and the page."""

from __future__ import annotations

import io
from collections.abc import Mapping
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

from audit.config import AuditConfig
from audit.files import write_atomically
from audit.inputs import Opened
from audit.masks.alignment import check_alignment, reduced_to_check
from audit.report.grids import Grids
from audit.report.masktrust import MISFITS
from audit.report.page import write_page
from audit.report.prototypes import background_sheets, choose_backgrounds
from audit.report.selection import choose_samples
from audit.report.thumbs import UNKNOWN, build_thumbs
from audit.run.engine import Auditor
from audit.run.manifest import (
    CODE_OF_REPORTS,
    COMPLETE,
    code_fingerprint,
    versions,
)
from audit.run.progress import Progress
from audit.run.rows import SCHEMA_VERSION
from audit.sanity import cascade, count_stages
from audit.score.masks import Masks
from audit.step import prefix_of, status_code
from audit.tables.assembly import Setting, assemble
from audit.tables.labels import label_totals
from audit.tables.methods import tabulate_sanity
from audit.tables.reading import read_edits
from audit.tables.strata import worst_group
from audit.tables.totals import summarise_split
from audit.tables.trust import agreement
from audit.tables.verdicts import MaskTrust, count_verdicts

# Images whose masks are compared with their edges.
_CHECKED_MASKS = 256
# Images whose maps are compared between trained and drawn weights.
_SANITY_IMAGES = 64


def prefixes_of(config: AuditConfig) -> list[str]:
    """The prefixes of the methods after the first."""
    return [prefix_of(method) for method in config.method[1:]]


def conclude(
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
