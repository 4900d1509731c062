"""Rows as workers store them, with copies, gaps and a rare class; and what is gathered of them."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa

from audit.masks.families import SOURCES
from audit.run.rows import build_table, columns_of
from audit.step import STATUSES
from audit.tables.assembly import Setting
from audit.tables.frames import typed_samples
from audit.tables.scale import Digesting, Gathered, Gathering, PartRows, digest_part
from audit.tables.verdicts import MaskTrust
from tests.report.generated import GRID, Plan, draw_rows

COUNT, CLASSES, RARE = 6000, 6, 5
NAMES = [f"class {number}" for number in range(CLASSES)]
# As if these rows began a split of 240,000: 16% of them are kept.
SETTING = Digesting(count=240_000, classes=NAMES, seed=3)


def make_rows() -> pa.Table:
    """Rows of which the rare class has 60, some have no label, no mask or no map."""
    plan = Plan(classes=NAMES, samples=COUNT)
    rows = draw_rows(plan)
    rng = np.random.default_rng(5)
    label, index = rows["label"], rows["index"]
    label[label == RARE] = 0
    label[index % 100 == 17] = RARE
    rows["correct"] = (rows["predicted"] == label).astype(np.int64)
    unlabelled = index % 211 == 3
    rows["label"] = np.where(unlabelled, -1, label)
    for name in ("correct", "label_probability"):
        rows[name] = np.where(unlabelled, [-1, np.nan][name != "correct"], rows[name])
    for name in ("background_share", "kappa", "background_lift", "transplant_rate"):
        rows[name] = np.where(rng.random(COUNT) < 0.05, np.nan, rows[name])
    rows["mask_source"] = np.where(index % 3 == 0, SOURCES.index("dataset"), rows["mask_source"])
    # Every tenth picture is the one before; forty show the same slide.
    hashes = rows["image_hash"]
    hashes[10::10] = hashes[9:-1:10]
    hashes[np.flatnonzero(index % 150 == 33)] = 77
    hashes[index % 97 == 5] = -1
    return build_table(
        rows,
        sample_ids=[plan.sample_id(place) for place in range(COUNT)],
        classes=NAMES,
        problems=[""] * COUNT,
        statuses=STATUSES,
        mask_sources=SOURCES,
        columns=columns_of(families=["ellipse"]),
    )


def in_parts(rows: pa.Table, number: int) -> list[pa.Table]:
    """Rows cut into so many parts."""
    ends = np.linspace(0, rows.num_rows, number + 1).astype(int)
    return [rows.slice(a, b - a) for a, b in itertools.pairwise(ends)]


def gather(parts: list[pa.Table], setting: Digesting = SETTING) -> Gathered:
    """What the merging driver makes of these parts."""
    starts = [part["index"][0].as_py() for part in parts]
    gathering = Gathering(setting, PartRows(starts=starts, read=parts.__getitem__))
    for number, part in enumerate(parts):
        gathering.add(number, digest_part(part, setting))
    return gathering.result()


def told(classes: list[str] = NAMES) -> Setting:
    """What rows do not say."""
    return Setting(
        classes=classes,
        families=["estimated", "ellipse"],
        methods={},
        grid=GRID,
        trust=MaskTrust(misfit=False, estimated=True),
        seed=3,
    )


def typed(rows: pa.Table) -> pd.DataFrame:
    """As the exact tables take them."""
    return typed_samples(rows)
