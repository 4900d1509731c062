"""How accuracy changes when objects and backgrounds are exchanged, removed and disturbed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column
from audit.tables.bootstrap import bca_intervals

Floats = NDArray[np.float64]
_F64 = pa.float64()
_NONE = "no sample of the class was edited with a usable mask"
_RESAMPLES = 2000

_ACCURACIES = {
    "acc_unedited": "as they are",
    "acc_object_only": "with everything but the object filled, mean over three fills",
    "acc_background_only": "with the object filled, mean over three fills",
    "acc_mixed_same": "with the background of another image of the same class",
    "acc_mixed_rand": "with the background of an image of another class",
    "acc_fg": "with noise on the object",
    "acc_bg": "with the same noise on the background",
}

EDITED_COLUMNS: tuple[Column, ...] = (
    Column(name="n_edited", type=pa.int64(), range="≥ 0",
           meaning="Samples of the class that were edited in pixels (--edits)."),
    *(
        Column(name=name, type=_F64, range="[0, 1]", meaning=f"Accuracy on these {words}.",
               null_when=_NONE)
        for name, words in _ACCURACIES.items()
    ),
    Column(name="bg_gap", type=_F64, range="[−1, 1]",
           meaning="acc_mixed_same − acc_mixed_rand: what the background's class is worth "
           "(BG-Gap, Xiao et al. 2020).", null_when=_NONE),
    Column(name="bg_gap_low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95% interval (BCa).", null_when="below 2 samples have both"),
    Column(name="bg_gap_high", type=_F64, range="[−1, 1]", meaning="Upper end.",
           null_when="below 2 samples have both"),
    Column(name="rfs", type=_F64, range="[−1, 1]; above 0 = the object matters more",
           meaning="Relative foreground sensitivity, (acc_bg − acc_fg)/(2·min(ā, 1 − ā)) with ā "
           "their mean (Moayeri et al. 2022, equation 1).",
           null_when=_NONE + ", or both accuracies are 0 or 1"),
    Column(name="rfs_low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95% bootstrap interval (percentile).",
           null_when="rfs is null, or below 2 samples"),
    Column(name="rfs_high", type=_F64, range="[−1, 1]", meaning="Upper end.",
           null_when="rfs is null, or below 2 samples"),
)  # fmt: skip


def summarise_edits(
    edits: pd.DataFrame | None, classes: Sequence[str], seed: int
) -> list[dict[str, object]]:
    """What the edits do to each class's accuracy.

    Args:
        edits: Rows of all edits; ``None`` where nothing was edited.
        classes: Class names.
        seed: Draws bootstrap resamples.

    Returns:
        For each class the values of :data:`EDITED_COLUMNS`.
    """
    rows: list[dict[str, object]] = [{"n_edited": 0} for _ in classes]
    if edits is None or not len(edits):
        return rows
    right = accuracies(edits)
    labels = edits["label"].to_numpy()
    for label in np.unique(labels).tolist():
        own = {name: values[labels == label] for name, values in right.items()}
        rng = np.random.default_rng((seed, label))
        rows[label] = (
            {"n_edited": len(own["acc_unedited"])}
            | {name: _mean(values) for name, values in own.items()}
            | _gap(own["acc_mixed_same"], own["acc_mixed_rand"], rng)
            | _sensitivity(own["acc_fg"], own["acc_bg"], rng)
        )
    return rows


def accuracies(edits: pd.DataFrame) -> dict[str, Floats]:
    """For each sample the share of right answers to each kind of edit, NaN where undefined.

    Args:
        edits: Rows of edits.

    Returns:
        By the names of the accuracies in :data:`EDITED_COLUMNS`, each N.
    """
    labels = edits["label"].to_numpy(np.int64)
    single = {
        "acc_unedited": "predicted",
        "acc_fg": "noise_object_prediction",
        "acc_bg": "noise_background_prediction",
    }
    found = {
        name: _right(edits[column].to_numpy(np.int64, na_value=-1)[:, None], labels)
        for name, column in single.items()
    }
    for edit in ("object_only", "background_only", "mixed_same", "mixed_rand"):
        predictions = np.stack(list(edits[f"{edit}_predictions"])).astype(np.int64)
        found[f"acc_{edit}"] = _right(predictions, labels)
    return {name: found[name] for name in _ACCURACIES}


def _right(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> Floats:
    counted = predictions >= 0
    number = counted.sum(axis=1)
    right = ((predictions == labels[:, None]) & counted).sum(axis=1)
    return np.where(number > 0, right / np.maximum(number, 1), np.nan)


def _gap(same: Floats, other: Floats, rng: np.random.Generator) -> dict[str, object]:
    gaps = same - other
    low, high = bca_intervals(gaps[:, None], rng).means[0]
    return {"bg_gap": _mean(gaps), "bg_gap_low": float(low), "bg_gap_high": float(high)}


def _sensitivity(fg: Floats, bg: Floats, rng: np.random.Generator) -> dict[str, object]:
    known = np.isfinite(fg) & np.isfinite(bg)
    fg, bg = fg[known], bg[known]
    if not len(fg):
        return {}
    value = float(relative_sensitivity(fg.mean(), bg.mean()))
    if len(fg) < 2 or np.isnan(value):
        return {"rfs": value}
    drawn = rng.integers(0, len(fg), (_RESAMPLES, len(fg)))
    found = relative_sensitivity(fg[drawn].mean(axis=1), bg[drawn].mean(axis=1))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return {"rfs": value, "rfs_low": float(low), "rfs_high": float(high)}


def relative_sensitivity(fg: Floats | float, bg: Floats | float) -> Floats:
    """How much more noise on the object hurts than noise on the background.

    Args:
        fg: Accuracy with noise on the object.
        bg: Accuracy with noise on the background.

    Returns:
        In [−1, 1]; NaN where both are 0 or both are 1: there is nothing to compare.

    Source:
        Moayeri et al. 2022, "A Comprehensive Study of Image Classification Model Sensitivity to
        Foregrounds, Backgrounds, and Visual Attributes", equation 1.

    Example:
        >>> relative_sensitivity(0.2, 0.6).round(3)
        np.float64(0.5)
    """
    mean = (np.asarray(fg) + np.asarray(bg)) / 2
    room = 2 * np.minimum(mean, 1 - mean)
    ratio = (bg - np.asarray(fg)) / np.where(room > 0, room, 1)
    return np.where(room > 0, np.clip(ratio, -1, 1), np.nan)[()]


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
