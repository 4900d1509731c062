"""What is made of a finished pass: tables, thumbnails, grids and the page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from audit.config import AuditConfig
from audit.files import write_parquet
from audit.inputs import Opened
from audit.masks.alignment import check_alignment, reduced_to_check
from audit.report.editpictures import build_pictures, choose_pictured
from audit.report.gallery import Flags, choose_flagged, flag_samples
from audit.report.page.masktrust import MISFITS
from audit.report.pictures.prototypes import choose_backgrounds
from audit.report.selection import MOST_CLASSES, choose_samples
from audit.report.stored import Stored
from audit.report.thumbs import UNKNOWN, build_thumbs, encode_mask, encode_picture
from audit.report.writing import write_report
from audit.run.edits import PixelEditor
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
from audit.tables.scale import (
    KEPT_ROWS,
    Gathered,
    assemble_summed,
    kept_table,
    shown_rows,
    summed_totals,
)
from audit.tables.strata import worst_group
from audit.tables.totals import summarise_split
from audit.tables.trust import agreement
from audit.tables.verdicts import MaskTrust, count_verdicts
from audit.telemetry import Telemetry
from audit.telemetry.profiling import span

# Images whose masks are compared with their edges.
_CHECKED_MASKS = 256
# Images whose maps are compared between trained and drawn weights.
_SANITY_IMAGES = 64
# Pixels that one process decodes while others would start: some 320 images of 224×224.
_PIXELS_HERE = 2**24


def prefixes_of(config: AuditConfig) -> list[str]:
    """The prefixes of the methods after the first."""
    return [prefix_of(method) for method in config.method[1:]]


def conclude(
    opened: Opened,
    auditor: Auditor,
    editor: PixelEditor,
    samples: pd.DataFrame,
    sidecars: Sequence[dict[str, Any]],
    missing: Sequence[dict[str, Any]] = (),
    telemetry: Telemetry | None = None,
    gathered: Gathered | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Tables, pictures, grids and page; returns the manifest's content and what was written.

    Of a run whose tables are summed, ``gathered`` is what the parts' digests hold, and ``samples``
    are its kept rows.
    """
    folder, config = opened.folder, opened.config
    map_grid = auditor.step.explainer.map_grid
    edits = read_edits(folder)
    check = _check_masks(opened, auditor, missing)
    setting = _setting(opened, map_grid, check)
    tables = (
        assemble(samples, edits, setting)
        if gathered is None
        else assemble_summed(gathered, edits, setting)
    )
    if config.sanity:
        tables["sanity"] = _check_sanity(opened, auditor, missing, telemetry)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    every = samples

    def total() -> dict[str, Any]:
        for name, table in tables.items():
            write_parquet(folder / f"{name}.parquet", table)
        return {
            **(
                summarise_split(every, frames["classes"], sidecars, seed=config.seed)
                if gathered is None
                else summed_totals(gathered, frames["classes"], sidecars, seed=config.seed)
            ),
            "missing": sum(shard["samples"] for shard in missing),
            **label_totals(tables["labels"]),
            "worst_group": worst_group(frames["strata"]),
            "verdicts": count_verdicts(frames["classes"]),
            "trust": agreement(edits, every, frames["evidence"], config.seed),
        }

    # Meanwhile pictures are chosen and fetched, which needs no totals.
    kept = []
    with ThreadPoolExecutor(1) as beside:
        totals = beside.submit(total)
        if gathered is not None:
            # The report shows samples that come first on some list beside the kept ones.
            samples = shown_rows(gathered, frames["classes"], MOST_CLASSES)
            write_parquet(folder / KEPT_ROWS, kept_table(gathered, samples))
            kept.append(KEPT_ROWS)
        families = [opened.families.main, *opened.families.others]
        flags = flag_samples(samples, frames["labels"], edits, frames["classes"], families)
        thumbs = _fetch_thumbs(auditor, _choose(samples, frames, flags, config.seed))
        pictures = {"thumbs": thumbs}
        if edits is not None and len(edits):
            pictures["edited"] = _fetch_edited(editor, edits, samples, frames["classes"], families)
        for name, table in pictures.items():
            write_parquet(folder / f"{name}.parquet", table)
    facts = _facts(opened, totals.result(), map_grid, check) | {"missing": list(missing)}
    stored = Stored(
        facts=facts,
        tables=frames,
        samples=samples,
        edits=edits,
        thumbs=thumbs.to_pandas(),
        edited=pictures["edited"].to_pandas() if "edited" in pictures else None,
    )
    with span("report"):
        written = write_report(folder, stored)
    return facts, [*kept, *(f"{name}.parquet" for name in (*frames, *pictures)), *written]


def _choose(
    samples: pd.DataFrame, tables: Mapping[str, pd.DataFrame], flags: Flags, seed: int
) -> pd.DataFrame:
    """The samples that the report shows: sections, kinds of background, flagged ones."""
    chosen = choose_samples(samples, tables["classes"], seed)
    shown = chosen.loc[chosen["label"] >= 0, "label"]
    kinds = choose_backgrounds(samples, tables["backgrounds"], tables["channels"], shown)
    return pd.concat([chosen, kinds, choose_flagged(samples, flags)], ignore_index=True)


def _fetch_edited(
    editor: PixelEditor,
    edits: pd.DataFrame,
    samples: pd.DataFrame,
    classes: pd.DataFrame,
    families: Sequence[str],
) -> pa.Table:
    """Make edited pictures of a few samples again, this time to keep them."""
    pictured = choose_pictured(edits, classes, families)
    pictures = itertools.chain.from_iterable(
        editor.pictures(str(family), sorted(own["index"]))
        for family, own in pictured.groupby("family", sort=True)
    )
    return build_pictures(pictured, pictures, samples.set_index("index")["sample_id"])


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


def _spread(opened: Opened, most: int, missing: Sequence[Mapping[str, Any]]) -> list[int]:
    """Some samples from all over a split; none of a missing part, which may kill who opens it."""
    total = len(opened.split)
    kept = min(total, most)
    places = [place * total // kept for place in range(kept)]
    return [i for i in places if not any(part["start"] <= i < part["stop"] for part in missing)]


def _check_sanity(
    opened: Opened,
    auditor: Auditor,
    missing: Sequence[Mapping[str, Any]],
    telemetry: Telemetry | None,
) -> pa.Table:
    """Draw the network's weights anew and compare the maps of some images."""
    chosen = _spread(opened, _SANITY_IMAGES, missing)
    if not chosen:
        return tabulate_sanity([])
    batches = auditor.batches(chosen)
    readable = [masked.images[masked.given > status_code("nonfinite")] for masked in batches]
    images = torch.cat(readable)
    if not len(images):
        return tabulate_sanity([])
    explainer = auditor.step.explainer
    total = len(images) * count_stages(explainer)
    with Progress("sanity", total, telemetry=telemetry) as progress:
        stages: list[tuple[str, float, Mapping[str, NDArray[np.float64]]]] = []
        for stage in cascade(explainer, images, opened.config.seed, auditor.batch_size):
            found = {str(method): each for method, each in stage.correlations.items()}
            stages.append((stage.layer, stage.share, found))
            progress(len(images))
    return tabulate_sanity(stages)


def _nearby(auditor: Auditor, count: int) -> Auditor:
    """Who fetches some samples: this process alone, where others would take longer to start."""
    height, width = auditor.split.image_size
    return replace(auditor, workers=0) if count * height * width <= _PIXELS_HERE else auditor


def _fetch_thumbs(auditor: Auditor, chosen: pd.DataFrame) -> pa.Table:
    """Ask the split once more for the chosen pictures."""
    images, masks, sample_ids = {}, {}, {}
    wanted = sorted(set(chosen["index"].tolist()))
    for masked in _nearby(auditor, len(wanted)).batches(wanted):
        silhouettes = _silhouettes(masked.masks)
        for row, index in enumerate(masked.batch.index.tolist()):
            image = masked.batch.images[row].permute(1, 2, 0).contiguous().numpy()
            images[index] = encode_picture(image)
            masks[index] = encode_mask(silhouettes[row])
            sample_ids[index] = masked.batch.sample_id[row]
    return build_thumbs(chosen, images, masks, sample_ids)


def _check_masks(
    opened: Opened, auditor: Auditor, missing: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Whether the dataset's masks lie where the images' edges are; ``None`` for other masks."""
    chosen = _spread(opened, _CHECKED_MASKS, missing)
    if auditor.families.main != "dataset" or not chosen:
        return None
    kept_small: list[tuple[torch.Tensor, ...]] = []
    for masked in _nearby(auditor, len(chosen)).batches(chosen):
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


def _silhouettes(masks: Masks) -> NDArray[np.uint8]:
    """A batch's masks as grey values: object 255, background 0, unknown between."""
    drawn = masks.inside.to(torch.uint8) * 255
    if masks.known is not None:
        drawn = torch.where(masks.known, drawn, UNKNOWN)
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
