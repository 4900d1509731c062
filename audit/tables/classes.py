"""``classes.parquet`` and ``confusion.parquet``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from audit.run.rows import Column
from audit.tables.bootstrap import bca_interval
from audit.tables.correlation import rank_correlation

# Scores that are summed up for each class.
SCORES = (
    "transplant_rate",
    "background_share",
    "background_lift",
    "kappa",
    "kappa_res",
    "object_logit",
    "near_logit",
    "far_logit",
    "pointing_hit",
    "rank_accuracy",
    "iou_50",
    "mask_confidence",
)
_NUMBERS = {
    "": "mean",
    "_low": "lower end of the mean's 95 % bootstrap interval (BCa, 2,000 resamples)",
    "_high": "upper end of it",
    "_median": "median",
    "_p10": "10th percentile",
    "_p90": "90th percentile",
}
# Scores that a sample has with its mask's border moved too; their means are `…_mask_low`, `…_high`.
MOVED_SCORES = ("background_share", "kappa", "object_logit", "near_logit", "far_logit")
# Scores that are summed up over confident masks too.
CONFIDENT_SCORES = ("transplant_rate", "background_share", "kappa", "object_logit", "far_logit")
# An estimated mask is confident from this expected overlap (IoU) with the object on: of crops of
# photographs above it 3 % of the masks miss the object (IoU below .3), of those below it 18 %
# (benchmarks/masks.py).
CONFIDENT_MASK = 0.5
# A class with fewer scored samples says nothing about score and area.
_LEAST_FOR_AREA = 10
_F64 = pa.float64()

CLASS_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="The class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="n", type=pa.int64(), range="≥ 0", meaning="Samples with this label."),
    Column(name="n_scored", type=pa.int64(), range="≥ 0",
           meaning="Of them, samples whose background_share is defined."),
    Column(name="undefined_share", type=_F64, range="[0, 1]", meaning="1 − n_scored/n.",
           null_when="n is 0"),
    Column(name="accuracy", type=_F64, range="[0, 1]",
           meaning="Share predicted as labelled, of those with a prediction.",
           null_when="there is none"),
    Column(name="background_agrees", type=_F64, range="[0, 1]",
           meaning="Share whose background contributions alone point to the label.",
           null_when="no sample is scored"),
    Column(name="object_agrees", type=_F64, range="[0, 1]",
           meaning="Share whose object contributions alone point to the label.",
           null_when="no sample is scored"),
    *(
        Column(name=f"{score}{suffix}", type=_F64, range=f"as {score}",
               meaning=f"{score}: {meaning}.",
               null_when="n_scored is below 2" if suffix in ("_low", "_high")
               else "no sample has this score")
        for score in SCORES
        for suffix, meaning in _NUMBERS.items()
    ),
    *(
        Column(name=f"{score}_mask_{end}", type=_F64, range=f"as {score}",
               meaning=f"Mean of the samples' {score}_{end}: with the masks' borders moved.",
               null_when="no sample has this score")
        for score in MOVED_SCORES
        for end in ("low", "high")
    ),
    Column(name="n_confident", type=pa.int64(), range="≥ 0",
           meaning="Scored samples with a mask to trust: the dataset's own, or an estimated one "
           f"with mask_confidence of at least {CONFIDENT_MASK}."),
    *(
        Column(name=f"{score}_confident", type=_F64, range=f"as {score}",
               meaning=f"Mean of {score} over these samples.",
               null_when="none of them has this score")
        for score in CONFIDENT_SCORES
    ),
    Column(name="area_correlation", type=_F64, range="[−1, 1]",
           meaning="Rank correlation over samples of background_share with object_area; far from "
           "0, the share tells of the object's size as well.",
           null_when=f"fewer than {_LEAST_FOR_AREA} scored samples, or one is constant"),
)  # fmt: skip

CONFUSION_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Labelled class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="predicted", type=pa.int32(), range="[0, K)", meaning="Predicted class."),
    Column(name="predicted_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="n", type=pa.int64(), range="≥ 1", meaning="Samples."),
    Column(name="share_of_label", type=_F64, range="(0, 1]", meaning="n over the label's samples "
           "with a prediction."),
    Column(name="background_share", type=_F64, range="[0, 1]",
           meaning="Mean background_share of these samples.", null_when="none is scored"),
)  # fmt: skip


def summarise_classes(samples: pd.DataFrame, classes: Sequence[str], seed: int) -> pa.Table:
    """One row a class, classes without samples included.

    Args:
        samples: The rows of all parts.
        classes: Class names.
        seed: Draws the bootstrap resamples.

    Returns:
        A table with :data:`CLASS_COLUMNS`.
    """
    groups = dict(tuple(samples.groupby("label", observed=True)))
    nothing = samples.iloc[:0]
    rows = [
        {"label": label, "label_name": name}
        | _summary(groups.get(label, nothing), np.random.default_rng((seed, label)))
        for label, name in enumerate(classes)
    ]
    return _table(rows, CLASS_COLUMNS)


def count_confusions(samples: pd.DataFrame) -> pa.Table:
    """One row for each pair of label and prediction that occurs.

    Args:
        samples: The rows of all parts.

    Returns:
        A table with :data:`CONFUSION_COLUMNS`, sorted by label and prediction.
    """
    known = samples.dropna(subset=["label", "predicted"])
    of_label = known.groupby("label", observed=True).size().to_dict()
    keys = ["label", "label_name", "predicted", "predicted_name"]
    rows = []
    for key, group in known.groupby(keys, observed=True):
        assert isinstance(key, tuple)
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "n": len(group),
                "share_of_label": len(group) / int(of_label[key[0]]),
                "background_share": _or_none(group["background_share"].mean()),
            }
        )
    return _table(rows, CONFUSION_COLUMNS)


def _summary(group: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    scored = int(group["background_share"].notna().sum())
    summary: dict[str, object] = {
        "n": len(group),
        "n_scored": scored,
        "undefined_share": 1 - scored / len(group) if len(group) else None,
        "accuracy": _or_none(group["correct"].dropna().astype(float).mean()),
        "background_agrees": _agreement(group, "background_pred"),
        "object_agrees": _agreement(group, "object_pred"),
    }
    for score in SCORES:
        values = group[score].dropna().to_numpy(np.float64)
        summary |= {f"{score}{suffix}": value for suffix, value in _numbers(values, rng).items()}
    return summary | _doubt(group)


def confident(samples: pd.DataFrame) -> pd.Series:
    """Which scored samples have a mask to trust."""
    trusted = (samples["mask_source"] == "dataset") | (samples["mask_confidence"] >= CONFIDENT_MASK)
    return trusted & samples["background_share"].notna()


def area_correlation(samples: pd.DataFrame) -> float | None:
    """How far the background share goes with the object's size; ``None`` if that is unknown."""
    scored = samples[samples["background_share"].notna()]
    if len(scored) < _LEAST_FOR_AREA:
        return None
    return _or_none(rank_correlation(scored["background_share"], scored["object_area"]))


def _doubt(group: pd.DataFrame) -> dict[str, object]:
    """What the numbers would be under other masks."""
    trusted = group[confident(group)]
    return {
        **{
            f"{score}_mask_{end}": _or_none(group[f"{score}_{end}"].mean())
            for score in MOVED_SCORES
            for end in ("low", "high")
        },
        "n_confident": len(trusted),
        **{f"{score}_confident": _or_none(trusted[score].mean()) for score in CONFIDENT_SCORES},
        "area_correlation": area_correlation(group),
    }


def _numbers(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], rng: np.random.Generator
) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(_NUMBERS)
    low, high = bca_interval(values, rng)
    p10, median, p90 = np.quantile(values, (0.1, 0.5, 0.9))
    return {
        "": float(values.mean()),
        "_low": _or_none(low),
        "_high": _or_none(high),
        "_median": float(median),
        "_p10": float(p10),
        "_p90": float(p90),
    }


def _agreement(group: pd.DataFrame, column: str) -> float | None:
    known = group.dropna(subset=[column])
    return _or_none((known[column] == known["label"]).mean()) if len(known) else None


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _table(rows: list[dict[str, object]], columns: tuple[Column, ...]) -> pa.Table:
    return pa.Table.from_pylist(rows, pa.schema([(c.name, c.type) for c in columns]))
