"""Tables of millions of rows: time and memory of merging, cost and size of what workers leave.

python benchmarks/scale.py FOLDER --rows 10000000 --classes 100
makes parts of 5,000 generated rows with their digests, then summarises them in a fresh process, and
compares counts and means with those of all rows. No model takes part.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audit.masks.families import SOURCES
from audit.run.engine import evidence_share
from audit.run.rows import KEPT, build_table, columns_of
from audit.step import STATUSES
from audit.tables.assembly import Setting
from audit.tables.bootstrap import bca_interval
from audit.tables.scale import (
    Digesting,
    Gathering,
    PartRows,
    assemble_summed,
    digest_part,
    shown_rows,
    summed_totals,
)
from audit.tables.scale.jackknife import grouped_means
from audit.tables.scale.sampling import group_of, is_drawn
from audit.tables.verdicts import MaskTrust

GRID = (7, 7)
_CHANNELS = 512
_TRANSPLANTS = 8
_PATTERNS = 512
# Columns that no table reads; they would only fill the disk.
_LEFT_OUT = frozenset(
    ("alt_map", "alt_map_scale", "channel_maps", "channel_maps_scale", "top_channels",
     "focus_entropy", "effective_cells", "residual_logit", "bias_logit")
)  # fmt: skip
_COLUMNS = tuple(column for column in columns_of() if column.name not in _LEFT_OUT)
_SHOWN_CLASSES = 50

Numbers = NDArray[Any]


def draw_part(start: int, stop: int, rows: int, classes: int) -> dict[str, Numbers]:
    """Columns of one part, as the step would give them; any part can be drawn alone."""
    rng = np.random.default_rng((start, rows, classes))
    count, index = stop - start, np.arange(start, stop)
    # The last class is rare: one sample in 20,000.
    label = rng.integers(0, classes - 1, count)
    label[index % 20_000 == 7] = classes - 1
    follows = np.where(label % 20 == 3, 0.9, 0.03 + 0.1 * (label % 5) / 5)
    right = rng.random(count) < np.where(label % 7 == 2, 0.6, 0.93)
    other, wrong = (label + 1) % classes, (label + rng.integers(1, 4, count)) % classes
    predicted = np.where(right, label, wrong)
    correct = predicted == label
    confidence = np.where(correct, rng.beta(8, 1.5, count), rng.beta(4, 3, count)).clip(0.1, 0.999)
    by_background = rng.random(count) < follows
    reason = np.where(by_background, 1, rng.choice([0, 2, 3], count, p=[0.7, 0.2, 0.1]))
    object_pred = np.where(reason == 1, other, np.where(reason == 3, wrong, predicted))
    background_pred = np.where((reason == 1) | (reason == 2), predicted, other)
    share, area = rng.beta(2 + 8 * follows, 4), rng.uniform(0.15, 0.6, count)
    objects = (label[:, None] + rng.integers(1, classes, (count, _TRANSPLANTS))) % classes
    moved = rng.random((count, _TRANSPLANTS)) < follows[:, None]
    logits = rng.normal([4, 1, 0], 1.5, (count, 3)) + 5 * by_background[:, None] * [-1, 0, 1]
    # Two pictures in a hundred are copies of the one before.
    copied = np.where(index % 50 == 1, index - 1, index)
    hashes = (copied * 0x9E3779B97F4A7 + 12345) % 2**52
    # One sample in 200 has no usable mask.
    unusable = index % 200 == 11
    kappa = (1 - share - area) / (1 - area)
    columns: dict[str, Numbers] = {
        "index": index,
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
        "mask_confidence": rng.uniform(0.2, 0.95, count),
        "object_area": area,
        "object_share": 1 - share,
        "unknown_area": np.zeros(count),
        "unknown_logit": np.zeros(count),
        "border_touch": rng.uniform(0, 0.4, count),
        "reason": reason,
        "right_for_wrong_reason": (correct & (reason == 1)).astype(np.int64),
        "wrong_because_of_background": (~correct & (reason == 1)).astype(np.int64),
        "context_driven": ((background_pred == label) & (object_pred != label)).astype(np.int64),
        "object_pred": object_pred,
        "background_pred": background_pred,
        "transplant_rate": moved.mean(axis=1),
        "transplant_far_rate": moved.mean(axis=1) / 2,
        "transplant_objects": objects,
        "transplant_predictions": np.where(moved, label[:, None], objects),
        "image_hash": hashes,
        "stored_height": np.full(count, 224),
        "stored_width": np.full(count, 224),
        "file_bytes": rng.integers(7_000, 30_000, count),
        "status": np.where(unusable, STATUSES.index("empty_mask"), STATUSES.index("ok")),
        "background_share": share,
        "background_lift": share / (1 - area),
        "kappa": kappa,
        "kappa_res": kappa / 0.9,
        "alt_far_logit": np.where(correct, np.nan, logits[:, 2] - 1),
    }
    columns |= {f"{r}_logit": logits[:, n] for n, r in enumerate(("object", "near", "far"))}
    for name in ("background_share", "kappa", "object_logit", "near_logit", "far_logit"):
        columns[f"{name}_low"] = columns[name] - 0.05
        columns[f"{name}_high"] = columns[name] + 0.05
    for name in (n for n in columns if n.startswith(("background_share", "kappa", "background_l"))):
        columns[name] = np.where(unusable, np.nan, columns[name])
    columns |= _pictured(rng, index, rows)
    for column in _COLUMNS:
        if column.name not in columns:
            columns[column.name] = rng.random(count)
    return columns


def _pictured(rng: np.random.Generator, index: Numbers, rows: int) -> dict[str, Numbers]:
    """Maps and masks, taken from a few patterns, and channels of the share that keeps them."""
    patterns = np.random.default_rng(0)
    cells = GRID[0] * GRID[1]
    spots = patterns.uniform(-0.1, 1, (_PATTERNS, cells))
    inside = (patterns.random((_PATTERNS, cells)) < 0.3).astype(np.float64)
    kept = is_drawn(index, evidence_share(rows, _CHANNELS))
    channels = rng.normal(size=(int(kept.sum()), 3 * _CHANNELS))
    looks = abs(rng.normal(size=(int(kept.sum()), _CHANNELS)))
    return {
        "map": spots[rng.integers(0, _PATTERNS, len(index))],
        "map_scale": rng.uniform(0.5, 3, len(index)),
        "grid_mask": inside[rng.integers(0, _PATTERNS, len(index))],
        "channel_logits": channels / abs(channels).max(axis=1, keepdims=True, initial=1e-9),
        "channel_logits_scale": np.where(kept, 1.0, np.nan),
        "far_features": looks / abs(looks).max(axis=1, keepdims=True, initial=1e-9),
        "far_features_scale": np.where(kept, 1.0, np.nan),
        KEPT: kept,
    }


def make_parts(folder: Path, rows: int, part: int, classes: int) -> dict[str, float]:
    """Write parts and digests; says what digests cost and how large they are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"class {number:04d}" for number in range(classes)]
    setting = Digesting(count=rows, classes=names, seed=0)
    (folder / "setting.json").write_text(json.dumps({**asdict(setting), "part": part}))
    took, sizes, digests = [], [], []
    for number, start in enumerate(range(0, rows, part)):
        stop = min(start + part, rows)
        table = build_table(
            draw_part(start, stop, rows, classes),
            sample_ids=[f"train/{index:010d}.jpg" for index in range(start, stop)],
            classes=names,
            problems=[""] * (stop - start),
            statuses=STATUSES,
            mask_sources=SOURCES,
            columns=_COLUMNS,
        )
        began = time.process_time()
        digest = digest_part(table, setting)
        took.append((time.process_time() - began) / len(table))
        pq.write_table(table, _part(folder, number), compression="zstd")
        _sums(folder, number).write_bytes(digest)
        sizes.append(_part(folder, number).stat().st_size)
        digests.append(len(digest))
    return {
        "digest, microseconds of one core a row (median)": statistics.median(took) * 1e6,
        "digest, bytes a part (mean)": statistics.mean(digests),
        "part, bytes (mean)": statistics.mean(sizes),
    }


def digest_again(folder: Path) -> dict[str, float]:
    """Make the digests of parts that are there anew; what that takes."""
    facts = json.loads((folder / "setting.json").read_text())
    part = facts.pop("part")
    setting = Digesting(**facts)
    took, sizes = [], []
    for place in range(-(-setting.count // part)):
        rows = pq.read_table(_part(folder, place), partitioning=None)
        began = time.process_time()
        digest = digest_part(rows, setting)
        took.append((time.process_time() - began) / len(rows))
        _sums(folder, place).write_bytes(digest)
        sizes.append(len(digest))
    return {
        "digest, microseconds of one core a row (median)": statistics.median(took) * 1e6,
        "digest, bytes a part (mean)": statistics.mean(sizes),
    }


def summarise(folder: Path, *, foreign: bool) -> dict[str, float]:
    """All tables of the parts; seconds of each step, and the most memory of the process."""
    facts = json.loads((folder / "setting.json").read_text())
    part = facts.pop("part")
    setting = Digesting(**facts)
    number = -(-setting.count // part)
    read: list[int] = []

    def rows_of(place: int) -> pa.Table:
        read.append(place)
        # One thread: parts are small, and handing columns to others costs more than it saves.
        return pq.read_table(_part(folder, place), partitioning=None, use_threads=False)

    moments, cores = [time.perf_counter()], time.process_time()
    gathering = Gathering(setting, PartRows(starts=range(0, setting.count, part), read=rows_of))
    for place in range(number):
        if foreign:
            rows = pq.read_table(_part(folder, place), partitioning=None, columns=_read_columns())
            gathering.add(place, digest_part(rows, setting))
        else:
            gathering.add(place, _sums(folder, place).read_bytes())
    moments.append(time.perf_counter())
    gathered = gathering.result()
    moments.append(time.perf_counter())
    trust = MaskTrust(misfit=False, estimated=True)
    methods: dict[str, str] = {}
    told = Setting(
        classes=setting.classes, families=["estimated"], methods=methods, grid=GRID, trust=trust,
        seed=0,
    )  # fmt: skip
    tables = assemble_summed(gathered, None, told)
    classes = tables["classes"].to_pandas()
    sidecar = {"statuses": {"ok": setting.count}, "histogram": [[1, 2], [2, 1]], "problems": []}
    totals = summed_totals(gathered, classes, [sidecar], seed=0)
    moments.append(time.perf_counter())
    shown = shown_rows(gathered, classes, _SHOWN_CLASSES)
    moments.append(time.perf_counter())
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    (folder / "totals.json").write_text(json.dumps(totals, indent=1))
    steps = dict(zip(("gather", "result", "tables", "fetch"), np.diff(moments), strict=True))
    return {
        **{f"{name}, s": float(seconds) for name, seconds in steps.items()},
        "all, s": time.perf_counter() - moments[0],
        "all, s of one core": time.process_time() - cores,
        "most memory, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "rows kept": len(gathered.kept),
        "rows with those shown": len(shown),
        "parts read again": len(read),
    }


def compare(folder: Path) -> dict[str, float]:
    """Counts and means of the tables against those that pyarrow makes of all rows."""
    facts = json.loads((folder / "setting.json").read_text())
    number = -(-facts["count"] // facts["part"])
    groups = []
    for place in range(number):
        columns = ["label", "correct", "background_share", "transplant_rate", "kappa", "far_logit"]
        rows = pq.read_table(_part(folder, place), partitioning=None, columns=columns)
        rows = rows.set_column(1, "correct", pc.cast(rows["correct"], pa.int64()))
        sums = rows.group_by("label", use_threads=False).aggregate(
            [("label", "count"), *((n, f) for n in columns[1:] for f in ("sum", "count"))]
        )
        groups.append(sums)
    whole = pa.concat_tables(groups)
    wanted = [(name, "sum") for name in whole.column_names if name != "label"]
    every = whole.group_by("label").aggregate(wanted).sort_by("label").to_pandas()
    found = pq.read_table(folder / "classes.parquet").to_pandas()
    worst = 0.0
    for name, column in (("correct", "accuracy"), *((n, n) for n in columns[2:])):
        mean = every[f"{name}_sum_sum"] / every[f"{name}_count_sum"]
        worst = max(worst, float((abs(found[column] - mean) / abs(mean)).max()))
    return {
        "classes whose count differs": int((found["n"] != every["label_count_sum"]).sum()),
        "largest relative difference of a mean": worst,
    }


def cover(runs: int = 1000) -> dict[str, float]:
    """How often 95% intervals hold the truth: by sums of groups, and by the bootstrap of all rows.

    Every fifth picture is there twice; the bootstrap, which is slow, has a fifth of the runs.
    """
    rng = np.random.default_rng(0)
    truths = {"normal": 1.0, "5% hits": 0.05, "exponential": 1.0}
    found = {}
    for size, groups in ((320, 32), (3000, 32), (3000, 64), (3000, 256)):
        index = np.arange(size)
        pictures = np.where(index % 5 == 1, index - 1, index)
        dealt = group_of(pictures, index, groups, 0)
        counts: Numbers = np.bincount(dealt, minlength=groups).astype(np.float64)
        for kind, truth in truths.items():
            held, wide, exact, exact_wide = 0, 0.0, 0, 0.0
            for run in range(runs):
                drawn = {
                    "normal": rng.normal(1, 2, size),
                    "5% hits": np.less(rng.random(size), 0.05).astype(np.float64),
                    "exponential": rng.exponential(1, size),
                }[kind]
                values = drawn[pictures]
                sums = np.bincount(dealt, values, groups).astype(np.float64)
                low, high = grouped_means(counts, sums).ends()
                held += bool(low <= truth <= high)
                wide += float(high - low)
                if run < runs // 5:
                    ends = bca_interval(values, rng, clusters=pictures)
                    exact += ends[0] <= truth <= ends[1]
                    exact_wide += ends[1] - ends[0]
            name = f"{kind}, n = {size}, {groups} groups"
            found[f"{name}: coverage"] = held / runs
            found[f"{name}: coverage of the bootstrap"] = exact / (runs // 5)
            found[f"{name}: width over the bootstrap's"] = wide / runs / (exact_wide / (runs // 5))
    return found


def _read_columns() -> list[str]:
    return [column.name for column in _COLUMNS]


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def _sums(folder: Path, number: int) -> Path:
    return folder / f"_part-{number:06d}.sums"


def main() -> None:
    """Make parts where they are not there, and print what summarising them takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part", type=int, default=5_000, help="rows a part")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--foreign", action="store_true", help="make digests while merging")
    parser.add_argument("--only", choices=("make", "digest", "summarise", "compare", "cover"))
    wishes = parser.parse_args()
    if wishes.only == "summarise":
        print(json.dumps(summarise(wishes.folder, foreign=wishes.foreign)))
        return
    if wishes.only == "cover":
        _say(cover())
        return
    if wishes.only == "digest":
        _say(digest_again(wishes.folder))
        return
    if wishes.only != "compare" and not (wishes.folder / "setting.json").is_file():
        _say(make_parts(wishes.folder, wishes.rows, wishes.part, wishes.classes))
    if wishes.only == "make":
        return
    if wishes.only is None:
        command = [sys.executable, __file__, str(wishes.folder), "--only", "summarise"]
        # A process of its own, so that its memory is that of merging alone.
        foreign = ["--foreign"] if wishes.foreign else []
        found = subprocess.run([*command, *foreign], check=True, stdout=subprocess.PIPE, text=True)
        _say(json.loads(found.stdout))
    _say(compare(wishes.folder))


def _say(figures: dict[str, float]) -> None:
    for name, value in figures.items():
        print(f"{name}: {value:,.4g}" if isinstance(value, float) else f"{name}: {value:,}")


if __name__ == "__main__":
    main()
