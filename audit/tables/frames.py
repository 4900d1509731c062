"""The rows of a run as typed pandas frames, and joined on their samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audit.tables.evidence import LEAST_COUNTED, Transplants

# The folder of the edited samples' rows.
EDITS = "edits"

_CLASSES = ("label", "predicted", "target", "alt_target", "object_pred", "background_pred")
# Whole numbers below 2⁵³, which float64 has held exactly where some are null.
_WHOLE = ("image_hash", "stored_height", "stored_width", "file_bytes")
_FLAGS = ("correct", "right_for_wrong_reason", "wrong_because_of_background", "context_driven")
_NAMES = ("status", "label_name", "predicted_name", "mask_source", "reason")

# What `joined` takes from the label suspects, and what it calls it.
_OF_SUSPECTS = {
    "kind": "suspect_kind", "label_score": "suspect_score", "suggested": "suggested",
    "suggested_name": "suggested_name", "suggested_probability": "suggested_probability",
}  # fmt: skip
# What it takes from the edits, under the same names.
_OF_EDITS = ("p_object_only", "p_background_only", "p_mixed_same", "p_mixed_rand")


def read_samples(folder: Path, parts: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of all parts of a run, in the split's order.

    Args:
        folder: The run's folder.
        parts: The files of the parts, relative to it; ``None`` for all that are there.

    Returns:
        One row a sample: classes and whole numbers as nullable integers, flags as nullable
        booleans, names as categories, scores as floats with NaN where they are undefined.
    """
    files = sorted(
        (folder / "samples").glob("part-*.parquet")
        if parts is None
        else map(folder.joinpath, parts)
    )
    # No partitioning: a folder above may be called something like lr=0.1.
    return typed_samples(pq.ParquetDataset(files, partitioning=None).read())


def sample_files(manifest: Mapping[str, Any]) -> list[str] | None:
    """The parts of a complete run; beside them may lie one that is damaged and was left out.

    Args:
        manifest: Of the run.

    Returns:
        Names relative to its folder; ``None`` where the manifest lists no files.

    Example:
        >>> names = ("samples/_part-000000.json", "samples/part-000000.parquet", "index.html")
        >>> sample_files({"files": dict.fromkeys(names)})
        ['samples/part-000000.parquet']
    """
    names = [name for name in manifest.get("files", ()) if name.startswith("samples/part-")]
    return sorted(names) or None


def typed_samples(rows: pa.Table) -> pd.DataFrame:
    """Stored rows as :func:`read_samples` gives them."""
    frame: pd.DataFrame = rows.to_pandas()
    types = {
        **dict.fromkeys(_CLASSES, "Int32"),
        **dict.fromkeys(_WHOLE, "Int64"),
        **dict.fromkeys(_FLAGS, "boolean"),
        **dict.fromkeys(_NAMES, "category"),
    }
    return frame.astype({name: types[name] for name in frame.columns.intersection(list(types))})


def read_edits(folder: Path) -> pd.DataFrame | None:
    """The rows of a run's edited samples; ``None`` where nothing was edited."""
    parts = sorted((folder / EDITS).glob("part-*.parquet"))
    if not parts:
        return None
    frame: pd.DataFrame = pq.ParquetDataset(parts, partitioning=None).read().to_pandas()
    for name in ("predicted", "noise_object_prediction", "noise_background_prediction"):
        frame[name] = frame[name].astype("Int32")
    return frame


def read_table(file: Path) -> pd.DataFrame:
    """A table of a run, all of its columns nullable."""
    return pd.read_parquet(file, dtype_backend="numpy_nullable", partitioning=None)


def join_samples(
    samples: pd.DataFrame, labels: pd.DataFrame, edits: pd.DataFrame | None, classes: int
) -> pd.DataFrame:
    """The samples with what other tables say of each.

    Args:
        samples: As :func:`read_samples` gives them.
        labels: The rows of ``labels.parquet``.
        edits: As :func:`read_edits` gives them.
        classes: How many classes there are.

    Returns:
        One row a sample in the same order, by ``sample_id``. Beside the columns of the samples:
        ``suspect_kind``, ``suspect_score``, ``suggested``, ``suggested_name`` and
        ``suggested_probability`` (null where the label is no suspect); ``p_object_only``,
        ``p_background_only``, ``p_mixed_same``, ``p_mixed_rand`` (the label's probability after
        these edits), ``edit_effect`` and ``background_decides`` (null where the sample was not
        edited, or too few of its transplants count).
    """
    suspects = labels.set_index("sample_id")[list(_OF_SUSPECTS)].rename(columns=_OF_SUSPECTS)
    joined = samples.set_index("sample_id").join(suspects)
    joined["suspect_kind"] = joined["suspect_kind"].astype("category")
    return joined.join(_edited(edits, classes)).astype({"background_decides": "boolean"})


def _edited(edits: pd.DataFrame | None, classes: int) -> pd.DataFrame:
    """For each edited sample what its edits say of it."""
    if edits is None or not len(edits):
        nothing = pd.DataFrame(columns=[*_OF_EDITS, "edit_effect"], dtype=np.float64)
        return nothing.assign(background_decides=pd.Series(dtype="boolean"))
    found = Transplants.of(edits, "")
    effects = found.effects(classes)
    # Without anything to compare with a transplant tells nothing.
    counted = found.counted & np.isfinite(effects)
    number = counted.sum(axis=1)
    enough = number >= LEAST_COUNTED
    effect = np.where(counted, effects, 0).sum(axis=1) / np.maximum(number, 1)
    decides = pd.array(found.decided_alone(effects), dtype="boolean")
    decides[~enough] = pd.NA
    return (
        edits.set_index("sample_id")[list(_OF_EDITS)]
        .assign(edit_effect=np.where(enough, effect, np.nan))
        .assign(background_decides=decides)
    )
