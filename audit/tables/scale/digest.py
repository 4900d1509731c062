"""The digest of a part: everything that the tables of a large run need of its rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audit.errors import OutputError
from audit.run.manifest import code_fingerprint
from audit.tables.channels import REGIONS
from audit.tables.scale.extremes import list_extremes
from audit.tables.scale.numbers import (
    GROUPED,
    Floats,
    Ids,
    column,
    of_names,
    read_numbers,
    summed_names,
    whole,
)
from audit.tables.scale.packing import pack, read_facts
from audit.tables.scale.quantiles import bin_keys
from audit.tables.scale.sampling import first_of_each, group_of, is_counted, is_drawn, scramble
from audit.tables.scale.setting import Digesting
from audit.tables.scale.sums import sum_by_key

SUSPECT_COLUMNS = (
    "index", "sample_id", "label", "predicted", "label_probability", "top_classes",
    "top_probabilities", "confidence", "object_pred", "background_pred",
)  # fmt: skip
# Of each channel: sums from object, near and far, sums of squares of them, and how often far adds.
CHANNEL_NUMBERS = 2 * len(REGIONS) + 1


# The code that decides what a digest holds.
_CODE = tuple(
    f"tables/scale/{name}.py"
    for name in (
        "digest", "extremes", "numbers", "packing", "quantiles", "sampling", "setting", "sums"
    )
)  # fmt: skip


def made_by(setting: Digesting) -> str:
    """What tells digests by other code, or of other settings, apart: 16 hexadecimal digits."""
    told = f"{code_fingerprint(_CODE)} {json.dumps(asdict(setting), sort_keys=True)}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def fits(digest: bytes, setting: Digesting) -> bool:
    """Whether a digest can be gathered: it was made by this code, with these settings.

    Where it does not, :func:`digest_part` makes another of the part's rows.
    """
    try:
        return bool(read_facts(digest)["made_by"] == made_by(setting))
    except OutputError:
        return False


def digest_part(rows: pa.Table, setting: Digesting) -> bytes:
    """Summarise the rows of one part.

    Args:
        rows: The table of the part, as it is stored; columns that it lacks count as unknown.
        setting: What the rows do not say; the same for all parts.

    Returns:
        Compressed sums, histograms, kept rows and candidates, for :class:`Gathering`. The same
        table gives the same bytes, whoever digests it.
    """
    index, label = whole(rows, "index"), whole(rows, "label")
    # Samples without a label are summed as a class of their own.
    of = np.where(label < 0, len(setting.classes), label)
    numbers = read_numbers(rows)
    names = summed_names(rows.column_names)
    drawn = is_drawn(index, setting.share)
    return pack(
        {
            "facts": _facts(rows, names) | {"made_by": made_by(setting)},
            **_by_class(of, numbers, names),
            **_by_cell(of, group_of(_pictures(rows), index, setting.groups, setting.seed),
                       numbers, setting.groups),
            **_histograms(of, numbers),
            **_confusion(rows, label, numbers["background_share"]),
            **_channels(rows),
            **_repeats(rows, label, setting),
            **_firsts(index, label, drawn, setting),
            **{f"extreme_{name}": v for name, v in list_extremes(rows, setting).items()},
            "suspects": _suspects(rows, label, setting),
            "kept": rows.filter(pa.array(drawn)),
        }
    )  # fmt: skip


def _facts(rows: pa.Table, names: list[str]) -> dict[str, Any]:
    sources = Counter(of_names(rows, "mask_source").tolist())
    sources.pop(None, None)
    return {"rows": rows.num_rows, "names": names, "mask_sources": dict(sources)}


def _pictures(rows: pa.Table) -> Ids:
    """Hashes of the pictures, N; −1 where unknown."""
    return whole(rows, "image_hash")


def _by_class(of: Ids, numbers: dict[str, Floats], names: list[str]) -> dict[str, Any]:
    """How many values each class has, their sums, and sums of squares of the first ones."""
    values = np.stack([numbers[name] for name in names], axis=1)
    there = np.isfinite(values)
    known = np.where(there, values, 0)
    keys, counts = sum_by_key(of, there.astype(np.uint32))
    grouped = known[:, : len(GROUPED)]
    return {
        "class_keys": keys,
        "class_counts": counts,
        "class_sums": sum_by_key(of, known)[1],
        "class_squares": sum_by_key(of, grouped**2)[1],
    }


def _by_cell(of: Ids, group: Ids, numbers: dict[str, Floats], groups: int) -> dict[str, Any]:
    """Counts and sums of each class and group of pictures."""
    values = np.stack([numbers[name] for name in GROUPED], axis=1)
    there = np.isfinite(values)
    keys, counts = sum_by_key(of * groups + group, there.astype(np.uint32))
    sums = sum_by_key(of * groups + group, np.where(there, values, 0))[1]
    # Column by column, which compresses better.
    return {
        "cell_keys": np.diff(keys, prepend=0),
        "cell_counts": np.ascontiguousarray(counts.T),
        "cell_sums": np.ascontiguousarray(sums.T),
    }


def _histograms(of: Ids, numbers: dict[str, Floats]) -> dict[str, Any]:
    keys, counts = bin_keys(of, numbers)
    return {"bin_keys": np.diff(keys, prepend=0), "bin_counts": counts}


def _confusion(rows: pa.Table, label: Ids, share: Floats) -> dict[str, Any]:
    """Of each pair of label and prediction: samples, scored ones, and the sum of their shares."""
    predicted = whole(rows, "predicted")
    known = (label >= 0) & (predicted >= 0)
    scored = np.isfinite(share)
    values = np.stack([known, scored, np.where(scored, share, 0)], axis=1).astype(np.float64)
    keys, sums = sum_by_key((label << 32 | predicted)[known], values[known])
    return {"pair_keys": keys, "pair_sums": sums}


def _channels(rows: pa.Table) -> dict[str, Any]:
    """Of each class that is a target, by channel, the samples whose channels were kept."""
    target, vectors = _vectors(rows)
    if not len(target):
        return {}
    count = len(target)
    regions = vectors.reshape(count, len(REGIONS), -1).astype(np.float64)
    far_adds = (regions[:, -1:] > 0).astype(np.float64)
    parts = np.concatenate([regions, regions**2, far_adds], axis=1)
    keys, sums = sum_by_key(target, parts)
    found, counts = np.unique(target, return_counts=True)
    assert (keys == found).all()
    return {"channel_targets": keys, "channel_counts": counts, "channel_sums": sums}


def _vectors(rows: pa.Table) -> tuple[Ids, NDArray[np.float32]]:
    """The targets, n, and contributions of the channels, n×3C, of samples that have them."""
    name = "channel_logits"
    nothing = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    if name not in rows.column_names:
        return nothing
    target = whole(rows, "target")
    kept = np.asarray(rows[name].is_valid().to_numpy(), bool) & (target >= 0)
    if not kept.any():
        return nothing
    lists = rows[name].filter(pa.array(kept)).combine_chunks()
    flat = np.asarray(lists.flatten().to_numpy(zero_copy_only=False), np.float32)
    scale = column(rows, f"{name}_scale")[kept].astype(np.float32)
    return target[kept], flat.reshape(len(scale), -1) * scale[:, None]


def _repeats(rows: pa.Table, label: Ids, setting: Digesting) -> dict[str, Any]:
    """How often each picture of a share of all pictures occurs with each label."""
    pictures = _pictures(rows)
    counted = is_counted(pictures, setting.pictures)
    both = np.stack([pictures[counted], label[counted]], axis=1)
    found, counts = np.unique(both, axis=0, return_counts=True)
    return {"picture_keys": found.reshape(-1, 2), "picture_counts": counts}


def _firsts(index: Ids, label: Ids, drawn: NDArray[np.bool_], setting: Digesting) -> dict[str, Any]:
    """Positions of the first of each class by their scrambled places, as far as not drawn."""
    rows = np.flatnonzero(label >= 0)
    most = np.full(len(rows), setting.least)
    kept = rows[first_of_each(label[rows], (scramble(index[rows]), index[rows]), most)]
    kept = kept[~drawn[kept]]
    return {"first_labels": label[kept].astype(np.int32), "first_index": index[kept]}


def _suspects(rows: pa.Table, label: Ids, setting: Digesting) -> pa.Table:
    """What label suspects need of the least probable labels of each class."""
    names = [name for name in SUSPECT_COLUMNS if name in rows.column_names]
    probability = column(rows, "label_probability")
    predicted = whole(rows, "predicted")
    judged = np.isfinite(probability) & (label >= 0) & (predicted >= 0) & (predicted != label)
    if len(names) < len(SUSPECT_COLUMNS) or len(setting.classes) < 2:
        judged[:] = False
    places = np.flatnonzero(judged)
    kept = first_suspects(label[places], probability[places], whole(rows, "index")[places], setting)
    return rows.select(names).take(pa.array(np.sort(places[kept])))


def first_suspects(label: Ids, probability: Floats, index: Ids, setting: Digesting) -> Ids:
    """Places of the least probable labels of each class; of equal ones the first in the split."""
    return first_of_each(label, (probability, index), np.full(len(label), setting.suspects))
