"""Runs made of generated rows: whole, with a manifest, as large as one likes, without a model.

The rows of a large run repeat those of a small one with other classes, so that the product's own
tables of the small one, repeated likewise, are those of the large one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audit.config import AuditConfig
from audit.masks.families import SOURCES
from audit.report.editpictures import build_pictures, choose_pictured
from audit.report.gallery import choose_flagged
from audit.report.language import load_language
from audit.report.page.render import write_page
from audit.report.pictures.prototypes import choose_backgrounds
from audit.report.selection import choose_samples
from audit.report.stored import Stored
from audit.report.thumbs import THUMB_COLUMNS, build_thumbs, encode_mask, encode_picture
from audit.run.columns import array_of, schema_of
from audit.run.edit_rows import edit_columns
from audit.run.edits import EditedPicture
from audit.run.manifest import (
    CODE_OF_REPORTS,
    COMPLETE,
    checksums,
    code_fingerprint,
    versions,
    write_manifest,
)
from audit.run.rows import KEPT, SCHEMA_VERSION, build_table, columns_of
from audit.run.store import PartStore, plan_shards
from audit.step import STATUSES
from audit.storage import open_storage
from audit.tables.allocation import ENOUGH
from audit.tables.assembly import Setting, assemble
from audit.tables.labels import label_totals
from audit.tables.reading import EDITS, AuditRun, load_run, read_edits, read_samples
from audit.tables.strata import worst_group
from audit.tables.totals import summarise_split
from audit.tables.transplants import tabulate_transplants
from audit.tables.trust import agreement
from audit.tables.verdicts import MaskTrust, count_verdicts

GRID = (8, 8)
_CELLS = GRID[0] * GRID[1]
_CHANNELS = 16
_TRANSPLANTS = 4
# Maps, masks and pictures are taken from so many patterns.
_PATTERNS = 512
_SHARD = 10_000
_SHOWN_EDITS = (
    "original", "object_only", "background_only", "mixed_same", "mixed_rand", "transplant",
)  # fmt: skip
_OTHER_FAMILY = "ellipse"
_OTHER_PREDICTIONS = f"{_OTHER_FAMILY}_transplant_predictions"
# Columns of samples and edits that hold numbers of classes.
_CLASS_NUMBERS = (
    "label", "predicted", "target", "alt_target", "object_pred", "background_pred", "top_classes",
    "transplant_predictions", _OTHER_PREDICTIONS,
)  # fmt: skip

Numbers = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to generate.

    Attributes:
        classes: Class names; as many for each block.
        samples: How many rows, likewise.
        blocks: How often the rows are repeated, each time with the next classes.
        sample_id: Name of a row by its position.
        problem: What is wrong with a row in words, by its position; empty for nothing.
        edited: How many samples of a block were edited.
        image_size: H and W.
        seed: Draws other rows.
    """

    classes: Sequence[str]
    samples: int
    blocks: int = 1
    sample_id: Callable[[int], str] = "test/{:06d}".format
    problem: Callable[[int], str] = lambda index: ""
    edited: int = 1000
    image_size: tuple[int, int] = (32, 32)
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """Of the run; another seed makes another."""
        return f"9e4e7a7ed{self.seed:03d}".ljust(64, "0")

    @property
    def block(self) -> Plan:
        """The plan of the first block alone."""
        classes = self.classes[: len(self.classes) // self.blocks]
        return replace(self, classes=classes, samples=self.samples // self.blocks, blocks=1)


def draw_rows(plan: Plan) -> dict[str, Numbers]:
    """All columns of the samples but names, as the step would give them."""
    block = _draw_block(plan.block)
    rows = {name: np.concatenate([values] * plan.blocks) for name, values in block.items()}
    number = np.repeat(np.arange(plan.blocks), plan.block.samples)
    for name in _CLASS_NUMBERS:
        rows[name] = _shifted(rows[name], number * len(plan.block.classes))
    rng, images = np.random.default_rng((plan.seed, 2)), np.random.default_rng((0, 2))
    rows["index"] = np.arange(plan.samples)
    rows["image_hash"] = images.integers(0, 2**52, plan.samples)
    # Objects of all classes are put on a background, not of those of its block alone.
    followed = rows["transplant_predictions"] == rows["label"][:, None]
    away = rng.integers(1, len(plan.classes), followed.shape)
    objects = (rows["label"][:, None] + away) % len(plan.classes)
    rows["transplant_objects"] = objects
    rows["transplant_predictions"] = np.where(followed, rows["label"][:, None], objects)
    return rows


def _shifted(numbers: Numbers, by: Numbers) -> Numbers:
    """Class numbers of a later block; -1 stays."""
    aligned = by.reshape(-1, *[1] * (numbers.ndim - 1))
    return np.where(numbers >= 0, numbers + aligned, numbers)


def _draw_block(plan: Plan) -> dict[str, Numbers]:
    # What the model says depends on the seed, what the images are like does not.
    rng, images = np.random.default_rng(plan.seed), np.random.default_rng(0)
    count, classes = plan.samples, len(plan.classes)
    label = np.arange(count) % classes
    # Every twentieth class follows its background, and every seventh is hard.
    follows = np.where(label % 20 == 3, 0.9, 0.03 + 0.1 * (label % 5) / 5)
    right = rng.random(count) < np.where(label % 7 == 2, 0.6, 0.93)
    wrong = (label + rng.choice([1, 2, max(3, classes // 2)], count)) % classes
    predicted = np.where(right, label, wrong)
    correct = predicted == label
    confidence = np.where(correct, rng.beta(8, 1.5, count), rng.beta(4, 3, count)).clip(0.1, 0.999)
    by_background = rng.random(count) < follows
    reason = np.where(by_background, 1, rng.choice([0, 2, 3], count, p=[0.7, 0.2, 0.1]))
    other = (label + 1) % classes
    object_pred = np.where(reason == 1, other, np.where(reason == 3, wrong, predicted))
    background_pred = np.where((reason == 1) | (reason == 2), predicted, other)
    share = rng.beta(2 + 8 * follows, 4, count)
    area = images.uniform(0.15, 0.6, count)
    objects = (label[:, None] + rng.integers(1, max(2, classes), (count, _TRANSPLANTS))) % classes
    moved = rng.random((count, _TRANSPLANTS)) < follows[:, None]
    transplants = np.where(moved, label[:, None], objects)
    logits = rng.normal([4, 1, 0], 1.5, (count, 3)) + 5 * by_background[:, None] * [-1, 0, 1]
    status = np.full(count, STATUSES.index("ok"))
    columns: dict[str, Numbers] = {
        "index": np.arange(count),
        "label": label,
        "predicted": predicted,
        "correct": correct.astype(np.int64),
        "confidence": confidence,
        "label_probability": np.where(correct, confidence, (1 - confidence) * 0.6),
        "margin": (2 * confidence - 1).clip(0, 1),
        "top_classes": np.stack([predicted, np.where(correct, other, label)], axis=1),
        "top_probabilities": np.stack([confidence, (1 - confidence) * 0.6], axis=1),
        "target": predicted,
        "alt_target": np.where(correct, -1, label),
        "target_logit": logits.sum(axis=1),
        "mask_source": np.full(count, SOURCES.index("estimated")),
        "mask_confidence": images.uniform(0.2, 0.95, count),
        "object_area": area,
        "object_share": 1 - share,
        "unknown_area": np.zeros(count),
        "unknown_logit": np.zeros(count),
        "border_touch": np.zeros(count),
        "reason": reason,
        "right_for_wrong_reason": (correct & (reason == 1)).astype(np.int64),
        "wrong_because_of_background": (~correct & (reason == 1)).astype(np.int64),
        "context_driven": ((background_pred == label) & (object_pred != label)).astype(np.int64),
        "object_pred": object_pred,
        "background_pred": background_pred,
        "transplant_rate": moved.mean(axis=1),
        "transplant_far_rate": moved.mean(axis=1) / 2,
        "transplant_objects": objects,
        "transplant_predictions": transplants,
        "ellipse_transplant_rate": moved[:, :2].mean(axis=1),
        "ellipse_transplant_predictions": np.where(np.arange(_TRANSPLANTS) < 2, transplants, -1),
        "ellipse_mask_iou": images.uniform(0.3, 0.9, count),
        "stored_height": np.full(count, plan.image_size[0]),
        "stored_width": np.full(count, plan.image_size[1]),
        "file_bytes": images.integers(700, 3000, count),
        "status": status,
        KEPT: np.ones(count, bool),
    }
    kappa = (1 - share - area) / (1 - area)
    for prefix in ("", f"{_OTHER_FAMILY}_"):
        columns |= {
            f"{prefix}object_area": area,
            f"{prefix}background_share": share,
            f"{prefix}kappa": kappa,
        }
        for place, region in enumerate(("object", "near", "far")):
            columns[f"{prefix}{region}_logit"] = logits[:, place]
    for name in ("background_share", "kappa", "object_logit", "near_logit", "far_logit"):
        columns[f"{name}_low"] = columns[name] - 0.05
        columns[f"{name}_high"] = columns[name] + 0.05
    columns["background_share_low"] = columns["background_share_low"].clip(0)
    columns["background_share_high"] = columns["background_share_high"].clip(max=1)
    columns |= {
        "background_lift": share / (1 - area),
        "kappa_res": kappa / 0.9,
        "alt_far_logit": np.where(correct, np.nan, logits[:, 2] - 1),
    }
    columns |= _pictured(rng, images, count)
    nowhere = {"alt_map": np.full((count, 1), np.nan), "alt_map_scale": np.full(count, np.nan)}
    for column in columns_of(families=[_OTHER_FAMILY]):
        if column.name not in columns:
            columns[column.name] = nowhere.get(column.name, images.random(count))
    return columns


def _pictured(
    rng: np.random.Generator, images: np.random.Generator, count: int
) -> dict[str, Numbers]:
    """What has a value for each cell or channel, taken from a few patterns."""
    which, masked = rng.integers(0, _PATTERNS, count), images.integers(0, _PATTERNS, count)
    spots = patterns(rng, GRID)
    inside = patterns(images, GRID) > 0.4
    channels = rng.normal(size=(_PATTERNS, 3 * _CHANNELS))
    looks = rng.normal(size=(_PATTERNS, _CHANNELS))
    return {
        "map": spots.reshape(_PATTERNS, _CELLS)[which],
        "map_scale": rng.uniform(0.5, 3, count),
        "grid_mask": inside.reshape(_PATTERNS, _CELLS)[masked].astype(np.float64),
        "top_channels": np.tile(np.arange(3), (count, 1)),
        "channel_maps": spots[np.arange(_PATTERNS)[:, None] - [0, 1, 2]].reshape(_PATTERNS, -1)[
            which
        ],
        "channel_maps_scale": np.ones(count),
        "channel_logits": (channels / abs(channels).max(axis=1, keepdims=True))[which],
        "channel_logits_scale": np.ones(count),
        "far_features": (looks / abs(looks).max(axis=1, keepdims=True))[which],
        "far_features_scale": np.ones(count),
    }


def patterns(rng: np.random.Generator, size: tuple[int, int]) -> Numbers:
    """Round spots, one a pattern, with a negative surrounding; peaks are 1."""
    rows, columns = np.indices(size)
    centre = rng.uniform(0.2, 0.8, (2, _PATTERNS, 1, 1)) * np.reshape(size, (2, 1, 1, 1))
    away = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2
    spots = np.exp(-away / (0.05 * size[0] * size[1])) - 0.1
    return spots / spots.max(axis=(1, 2), keepdims=True)


def draw_edits(plan: Plan, rows: dict[str, Numbers]) -> dict[str, Numbers]:
    """Answers to edits of some samples that agree with what feature space says of them."""
    rng = np.random.default_rng((plan.seed, 1))
    classes = len(plan.classes)
    label = rows["label"]
    follows = (rows["transplant_rate"] > 0.5)[:, None]
    objects = (label[:, None] + rng.integers(1, max(2, classes), (len(label), 6))) % classes
    fallen = (label[:, None] + 1) % classes

    def answers(right: Numbers, otherwise: Numbers, size: int = 3) -> Numbers:
        kept = right ^ (rng.random((len(label), size)) < 0.1)
        return np.where(kept, label[:, None], otherwise)

    found: dict[str, Numbers] = {
        "index": rows["index"],
        "label": label,
        "predicted": rows["predicted"],
        "transplant_objects": objects,
        "noise_object_prediction": rows["predicted"],
        "noise_background_prediction": rows["predicted"],
        "object_only_predictions": answers(~follows, fallen),
        "mixed_same_predictions": answers(follows | ~follows, fallen),
        "mixed_rand_predictions": answers(~follows, fallen),
    }
    for prefix in ("", f"{_OTHER_FAMILY}_"):
        found[f"{prefix}transplant_predictions"] = answers(follows, objects, 6)
        found[f"{prefix}background_only_predictions"] = answers(follows, fallen)
    drawn = {c.name: rng.random(len(label)) for c in edit_columns([_OTHER_FAMILY])}
    return drawn | found


def write_run(folder: Path, plan: Plan) -> AuditRun:
    """Make a whole run but for its contact sheets.

    Args:
        folder: Is created.
        plan: What to generate.
    """
    rows, edited = draw_rows(plan), _choose_edited(plan)
    written = _write_rows(folder, plan, rows) + _write_edits(folder, plan, rows, edited)
    samples, edits = read_samples(folder), read_edits(folder)
    assert edits is not None
    first = plan.block
    setting = Setting(
        classes=first.classes,
        families=["estimated", _OTHER_FAMILY],
        methods={},
        grid=GRID,
        trust=MaskTrust(misfit=False, estimated=True),
        seed=plan.seed,
    )
    # Objects come from all classes; that table is made of all rows.
    own = samples.iloc[: first.samples].drop(columns=["transplant_predictions", _OTHER_PREDICTIONS])
    of_first = own, edits[edits["index"] < first.samples]
    small = assemble(*of_first, setting)
    tables = {
        name: table if name == "masks" else _repeated(table, plan) for name, table in small.items()
    }
    tables["transplants"] = tabulate_transplants(samples, setting.families, plan.classes)
    totals = summarise_split(own, small["classes"].to_pandas(), _sidecar(first), seed=plan.seed)
    totals |= {
        **{name: totals[name] * plan.blocks for name in ("samples", "mask_confident")},
        "statuses": {"ok": plan.samples},
        "mask_sources": {"estimated": plan.samples},
        **label_totals(tables["labels"]),
        "worst_group": worst_group(tables["strata"].to_pandas()),
        "verdicts": count_verdicts(tables["classes"].to_pandas()),
        "trust": agreement(of_first[1], own, small["evidence"].to_pandas(), plan.seed),
    }
    facts = _facts(plan, totals)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    nothing = pd.DataFrame({c.name: [] for c in THUMB_COLUMNS})
    stored = Stored(
        facts=facts, tables=frames, samples=samples, edits=edits, thumbs=nothing, edited=None
    )
    pictures = _picture(plan, stored)
    for name, table in (tables | pictures).items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        written.append(f"{name}.parquet")
    thumbs, edited = pictures["thumbs"].to_pandas(), pictures["edited"].to_pandas()
    write_page(folder, replace(stored, thumbs=thumbs, edited=edited), load_language("en"))
    written.append("index.html")
    write_manifest(folder, facts | {"files": checksums(folder, sorted(written))})
    return load_run(folder)


def _choose_edited(plan: Plan) -> Numbers:
    """Positions of edited samples: as many of each class as a verdict needs, in every block."""
    first = plan.block
    classes = min(len(first.classes), first.edited // ENOUGH)
    of_class = np.arange(first.samples) % len(first.classes)
    chosen = np.flatnonzero(of_class < classes)[: classes * ENOUGH]
    starts = np.arange(plan.blocks)[:, None] * first.samples
    return (starts + chosen).ravel()


def _sidecar(plan: Plan) -> list[dict[str, Any]]:
    histogram = np.random.default_rng(plan.seed).integers(0, 1000, (2, 256)).tolist()
    return [{"statuses": {"ok": plan.samples}, "histogram": histogram, "problems": []}]


def _write_rows(folder: Path, plan: Plan, rows: dict[str, Numbers]) -> list[str]:
    store = PartStore(open_storage(folder), "samples", plan.fingerprint)
    shards = plan_shards(plan.samples, _SHARD)
    for shard in shards:
        places = range(shard.start, shard.stop)
        table = build_table(
            {name: values[shard.start : shard.stop] for name, values in rows.items()},
            sample_ids=[plan.sample_id(index) for index in places],
            classes=plan.classes,
            problems=[plan.problem(index) for index in places],
            statuses=STATUSES,
            mask_sources=SOURCES,
            columns=columns_of(families=[_OTHER_FAMILY]),
        )
        (summary,) = _sidecar(replace(plan, samples=len(shard)))
        store.commit(shard, table, summary, {})
    return store.names(shards)


def _write_edits(folder: Path, plan: Plan, rows: dict[str, Numbers], chosen: Numbers) -> list[str]:
    first = plan.block
    own = chosen[chosen < first.samples]
    block = draw_edits(first, {name: values[own] for name, values in rows.items()})
    number = chosen // first.samples
    columns: list[pa.Array] = []
    for column in edit_columns([_OTHER_FAMILY]):
        values = np.concatenate([block[column.name]] * plan.blocks)
        if column.name == "index":
            columns.append(pa.array(chosen))
        elif column.name == "sample_id":
            columns.append(pa.array([plan.sample_id(index) for index in chosen.tolist()]))
        elif values.dtype.kind == "i":
            shifted = _shifted(values, number * len(first.classes))
            columns.append(array_of(shifted, column.type))
        else:
            columns.append(array_of(values, column.type))
    store = PartStore(open_storage(folder), EDITS, plan.fingerprint)
    (whole,) = plan_shards(len(chosen), len(chosen))
    schema = schema_of(edit_columns([_OTHER_FAMILY]))
    store.commit(whole, pa.Table.from_arrays(columns, schema=schema), {}, {})
    return store.names([whole])


def _repeated(table: pa.Table, plan: Plan) -> pa.Table:
    """The rows of a table of the first block for all blocks, each with its own classes."""
    tables = [_moved(table, plan, number) for number in range(plan.blocks)]
    # What is said of the split as a whole is said once.
    of_class = "label" if "label" in table.schema.names else "target"
    tables[1:] = [each.filter(pc.is_valid(each[of_class])) for each in tables[1:]]
    whole = pa.concat_tables(tables)
    return whole.sort_by("label_score") if "label_score" in whole.schema.names else whole


def _moved(table: pa.Table, plan: Plan, number: int) -> pa.Table:
    first, names = plan.block, pa.array(list(plan.classes))
    index_of = {first.sample_id(index): index for index in range(first.samples)}

    def name_of(sample: str) -> str:
        return plan.sample_id(index_of[sample] + number * first.samples)

    classes = {
        name: pc.add(table[name].combine_chunks(), pa.scalar(number * len(first.classes)))
        for name in table.schema.names
        if name in _CLASS_NUMBERS or name == "suggested" or name.endswith("_pred")
    }
    columns = []
    for field in table.schema:
        column, of_class = table[field.name], field.name.removesuffix("_name")
        if field.name in classes:
            column = classes[field.name]
        elif of_class in classes:
            column = names.take(classes[of_class])
        elif field.name == "index":
            column = pc.add(column, number * first.samples)
        elif field.name == "sample_id":
            column = pa.array([name_of(sample) for sample in column.to_pylist()])
        elif field.name == "prototypes":
            column = pa.array([list(map(name_of, samples)) for samples in column.to_pylist()])
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=table.schema)


def _picture(plan: Plan, stored: Stored) -> dict[str, pa.Table]:
    """Thumbnails and edited pictures of the samples that the report shows."""
    samples, tables = stored.samples, stored.tables
    chosen = choose_samples(samples, tables["classes"], plan.seed)
    shown = chosen.loc[chosen["label"] >= 0, "label"]
    kinds = choose_backgrounds(samples, tables["backgrounds"], tables["channels"], shown)
    flagged = choose_flagged(samples, stored.flags())
    chosen = pd.concat([chosen, kinds, flagged], ignore_index=True)
    drawn = _Drawn.of(plan)
    images, masks, names = {}, {}, {}
    for index in chosen["index"].unique().tolist():
        images[index] = encode_picture(drawn.image(index))
        masks[index] = encode_mask(drawn.inside(index).astype(np.uint8) * 255)
        names[index] = plan.sample_id(index)
    found = {"thumbs": build_thumbs(chosen, images, masks, names)}
    if stored.edits is not None:
        pictured = choose_pictured(stored.edits, tables["classes"], stored.families)
        pictures = _edited_pictures(plan, stored, pictured, drawn)
        ids = samples.set_index("index")["sample_id"]
        found["edited"] = build_pictures(pictured, pictures, ids)
    return found


@dataclass(frozen=True)
class _Drawn:
    """Pictures of round objects, noise over both sides."""

    spots: Numbers
    colours: Numbers
    noise: Numbers

    @classmethod
    def of(cls, plan: Plan) -> _Drawn:
        rng = np.random.default_rng((0, 3))
        return cls(
            patterns(rng, plan.image_size),
            rng.integers(0, 255, (_PATTERNS, 2, 1, 1, 3)),
            rng.normal(0, 12, (_PATTERNS, *plan.image_size, 3)),
        )

    def inside(self, index: int) -> Numbers:
        return self.spots[index % _PATTERNS] > 0.4

    def image(self, index: int) -> NDArray[np.uint8]:
        # Neighbours share a colour or a noise, not both.
        colours = self.colours[index * 7 % _PATTERNS]
        painted = np.where(self.inside(index)[..., None], *colours)
        noise = self.noise[(index // 3) % _PATTERNS]
        return (painted + noise).clip(0, 255).astype(np.uint8)


def _edited_pictures(
    plan: Plan, stored: Stored, pictured: pd.DataFrame, drawn: _Drawn
) -> Iterator[EditedPicture]:
    predicted = stored.samples.set_index("index")["predicted"]
    for index, label in zip(pictured["index"], pictured["label"], strict=True):
        for number, edit in enumerate(_SHOWN_EDITS):
            other = (int(label) + number) % len(plan.classes)
            yield EditedPicture(
                index=int(index),
                edit=edit,
                family="estimated",
                fill=None if edit == "original" else "noise",
                object=None if edit == "background_only" else other,
                background=None if edit == "object_only" else int(label),
                predicted=int(predicted[index]),
                p_label=0.5,
                image=drawn.image(int(index) + number),
            )


def _facts(plan: Plan, totals: dict[str, Any]) -> dict[str, Any]:
    """The manifest's content but for the files."""
    config = AuditConfig(dataset="folder:generated", seed=plan.seed)
    return {
        "status": COMPLETE,
        "schema_version": SCHEMA_VERSION,
        "run_id": plan.fingerprint[:12],
        "fingerprint": plan.fingerprint,
        "dataset": config.dataset,
        "split": config.split,
        "classes": list(plan.classes),
        "known_answer": {},
        "data_facts": {},
        "data_fingerprint": "0" * 64,
        "model": "cnn",
        "weights": "generated",
        "weights_sha256": plan.fingerprint,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "preprocessing": {},
        "class_map": None,
        "layer": "features",
        "cut_by": "fx",
        "grid": list(GRID),
        "image_size": list(plan.image_size),
        "masks": "estimated",
        "mask_families": ["estimated", _OTHER_FAMILY],
        "mask_network": None,
        "mask_check": None,
        "config": config.model_dump(mode="json"),
        "code_fingerprint": code_fingerprint(),
        "report_code": code_fingerprint(CODE_OF_REPORTS),
        "device": "cpu",
        "versions": versions(),
        "finished": "2026-01-01T00:00:00+00:00",
        "totals": totals,
        "seconds": {"parts": 0.0, "edits": 0.0, "tables_and_report": 0.0},
    }


def main() -> None:
    """Write a run: ``python -m tests.report.generated FOLDER --classes 1000 --samples 100000``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100_000)
    asked = parser.parse_args()
    names = [f"class {number}" for number in range(asked.classes)]
    blocks = math.gcd(10, math.gcd(asked.classes, asked.samples)) if asked.classes >= 100 else 1
    plan = Plan(classes=names, samples=asked.samples, blocks=blocks)
    print(write_run(asked.folder, plan).path / "index.html")


if __name__ == "__main__":
    main()
