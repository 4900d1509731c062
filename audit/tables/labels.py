"""``labels.parquet``: the labels that are probably wrong, and what speaks against each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, schema_of
from audit.tables.confident_learning import (
    Classes,
    Floats,
    Inspection,
    Predictions,
    inspect_labels,
)
from audit.tables.say import Say, in_english

# A lower score makes a label suspect too, if another class is predicted confidently.
SUSPECT_SCORE = 0.01
# The table holds at most this share of the judged samples, and this many rows.
MOST_SHARE = 0.2
MOST_ROWS = 100_000

LABEL_ERROR = "likely label error"
CONTEXT_DRIVEN = "context-driven"
BACKGROUND_SUGGESTS = "suggested by background"
DISAGREEMENT = "model and label disagree"
KINDS = (LABEL_ERROR, CONTEXT_DRIVEN, BACKGROUND_SUGGESTS, DISAGREEMENT)

_NAME = pa.string()
_F64 = pa.float64()
_NO_REGIONS = "the sample has no usable mask"
_NO_PIXELS = "the sample was not edited, or the fills do not agree"

LABEL_COLUMNS: tuple[Column, ...] = (
    Column(name="label_rank", type=pa.int64(), range="≥ 1", meaning="1 = most likely wrong."),
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(name="sample_id", type=_NAME, range="unique", meaning="As in samples."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Labelled class."),
    Column(name="label_name", type=_NAME, range="class names", meaning="Its name."),
    Column(name="suggested", type=pa.int32(), range="[0, K)",
           meaning="Most probable class other than the label."),
    Column(name="suggested_name", type=_NAME, range="class names", meaning="Its name."),
    Column(name="kind", type=_NAME, range=", ".join(KINDS),
           meaning="What the regions of the picture say: the object alone points to the suggested "
           "class, which is predicted confidently, and the background does not point to the label "
           "(likely label error); the same, but the background does (context-driven); the "
           "background points to the suggested class and the object does not (suggested by "
           "background); anything else. Where most fills predict the label for the object's pixels "
           "alone, it is never one of the first two, whatever evidence says."),
    Column(name="reason", type=_NAME, range="text", meaning="The same as a sentence."),
    Column(name="label_score", type=_F64, range="[0, 1]; low = more likely wrong",
           meaning="cleanlab's self-confidence: the label's softmax probability. Ranks the table; "
           "object and background do not change it, for that ranks no better."),
    Column(name="is_label_issue", type=pa.bool_(), range="true, false",
           meaning="Whether cleanlab's confident learning calls the label wrong."),
    Column(name="suggested_probability", type=_F64, range="[0, 1]",
           meaning="Softmax probability of the suggested class."),
    Column(name="is_confident", type=pa.bool_(), range="true, false",
           meaning="Whether that is at least the class's mean probability over the samples "
           "labelled so (cleanlab's threshold)."),
    Column(name="confidence", type=_F64, range="[0, 1]",
           meaning="Softmax probability of the predicted class."),
    Column(name="object_pred", type=pa.int32(), range="[0, K)",
           meaning="Class with the largest contribution from the object.", null_when=_NO_REGIONS),
    Column(name="object_pred_name", type=_NAME, range="class names", meaning="Its name.",
           null_when=_NO_REGIONS),
    Column(name="background_pred", type=pa.int32(), range="[0, K)",
           meaning="Class with the largest contribution from the background.",
           null_when=_NO_REGIONS),
    Column(name="background_pred_name", type=_NAME, range="class names", meaning="Its name.",
           null_when=_NO_REGIONS),
    Column(name="object_only_pred", type=pa.int32(), range="[0, K)",
           meaning="Prediction for the object's pixels alone, by most fills.",
           null_when=_NO_PIXELS),
    Column(name="object_only_pred_name", type=_NAME, range="class names", meaning="Its name.",
           null_when=_NO_PIXELS),
    Column(name="background_only_pred", type=pa.int32(), range="[0, K)",
           meaning="Prediction for the background's pixels alone, by most fills.",
           null_when=_NO_PIXELS),
    Column(name="background_only_pred_name", type=_NAME, range="class names", meaning="Its name.",
           null_when=_NO_PIXELS),
    Column(name="evidence", type=_NAME, range="pixels, contributions",
           meaning="What kind rests on: object_only_pred and background_only_pred where both are "
           "known, else object_pred and background_pred. An object_only_pred that is the label "
           "counts in either case (see kind).",
           null_when="neither is known"),
    Column(name="object_agrees_with_suggestion", type=pa.bool_(), range="true, false",
           meaning="Whether the object points to the suggested class, by that evidence.",
           null_when="evidence is null"),
)  # fmt: skip

_NEEDED = ("label", "predicted", "label_probability", "top_classes", "top_probabilities")
_NOBODY = -1


def label_scores(samples: pd.DataFrame, classes: Sequence[str]) -> pd.Series:
    """How well each label fits, for all samples: the ranking behind ``labels.parquet``.

    Self-confidence alone. Weighing in what object and background point to, entropy, margins, or
    recalibrating by any of them ranked flipped labels no better (benchmarks/labels.py); regions
    tell what kind of error a suspect is.

    Args:
        samples: The rows of all parts, N.
        classes: Class names, K.

    Returns:
        float64 in [0, 1] with the index of ``samples``, low = more likely wrong; NaN for samples
        without label or prediction, and for all where there are fewer than two classes.

    Source:
        Northcutt et al. 2021, "Confident Learning", section 3.

    Example:
        >>> samples = pd.DataFrame({
        ...     "label": [0, None], "predicted": [1, 1], "label_probability": [0.25, None],
        ...     "top_classes": [[1, 0], [1, 0]], "top_probabilities": [[0.75, 0.25]] * 2,
        ... })
        >>> label_scores(samples, ["cat", "dog"]).tolist()
        [0.25, nan]
    """
    found = pd.Series(np.nan, samples.index, name="label_score")
    judged = _judged(samples, classes)
    found[judged] = inspect_labels(_predictions(samples[judged], classes)).scores
    return found


def find_suspects(
    samples: pd.DataFrame, classes: Sequence[str], pixels: pd.DataFrame | None = None
) -> pa.Table:
    """The labels to look at, most likely wrong first.

    A label is suspect if cleanlab calls it an issue, or if its score is below
    :data:`SUSPECT_SCORE` and another class is predicted, confidently. At most a share of
    :data:`MOST_SHARE` of the judged samples is kept, the most suspect ones.

    Args:
        samples: The rows of all parts.
        classes: Class names, K.
        pixels: From :func:`majority_predictions`, where pictures were edited.

    Returns:
        A table with :data:`LABEL_COLUMNS`; without rows if there is nothing to judge. Its metadata
        hold the counts for :func:`label_totals`.
    """
    known, inspection = inspect_rows(samples, classes)
    return list_suspects(
        known,
        classes,
        inspection,
        pixels,
        most=min(MOST_ROWS, int(np.ceil(MOST_SHARE * len(known)))),
        judged=len(known),
        issues=int(inspection.is_issue.sum()),
    )


def inspect_rows(samples: pd.DataFrame, classes: Sequence[str]) -> tuple[pd.DataFrame, Inspection]:
    """What confident learning says of those rows that have label and prediction.

    Args:
        samples: Rows.
        classes: Class names, K.

    Returns:
        These rows, and what is said of them in the same order.
    """
    known = judged_rows(samples, classes)
    return known, inspect_labels(_predictions(known, classes))


def judged_rows(samples: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """The rows that have label and prediction.

    Args:
        samples: Rows.
        classes: Class names; fewer than two leave nothing to judge.
    """
    return samples[_judged(samples, classes)]


def list_suspects(
    known: pd.DataFrame,
    classes: Sequence[str],
    inspection: Inspection,
    pixels: pd.DataFrame | None,
    *,
    most: int,
    judged: int,
    issues: int,
) -> pa.Table:
    """The table of suspects among rows that were inspected.

    Args:
        known: Rows with label and prediction.
        classes: Class names, K.
        inspection: What confident learning says of them.
        pixels: From :func:`majority_predictions`, where pictures were edited.
        most: Rows of the table at most.
        judged: Samples of the split with label and prediction.
        issues: How many of their labels confident learning calls wrong.

    Returns:
        As :func:`find_suspects`.
    """
    predictions = _predictions(known, classes)
    scores = inspection.scores
    suggested, probability = _suggestions(predictions)
    confident = probability >= inspection.thresholds[suggested]
    disagree = predictions.labels != known["predicted"].to_numpy(np.int64)
    suspect = inspection.is_issue | ((scores < SUSPECT_SCORE) & confident & disagree)
    ranked = np.argsort(scores, kind="stable")
    chosen = ranked[suspect[ranked]][:most]
    found = pd.DataFrame(
        {
            "label_rank": np.arange(1, len(chosen) + 1),
            "index": known["index"].to_numpy()[chosen],
            "sample_id": known["sample_id"].to_numpy()[chosen],
            "label": predictions.labels[chosen],
            "suggested": suggested[chosen],
            "label_score": scores[chosen],
            "is_label_issue": inspection.is_issue[chosen],
            "suggested_probability": probability[chosen],
            "is_confident": confident[chosen],
            "confidence": known["confidence"].to_numpy(np.float64)[chosen],
            "object_pred": _codes(known["object_pred"])[chosen],
            "background_pred": _codes(known["background_pred"])[chosen],
        }
    )
    _add_pixels(found, pixels)
    _add_names(found, classes)
    _add_kind(found)
    return _table(found, judged=judged, issues=issues)


def majority_predictions(edits: pd.DataFrame | None) -> pd.DataFrame | None:
    """What most fills predict for object and background alone.

    Args:
        edits: One row an edited sample with ``sample_id`` and the lists
            ``object_only_predictions`` and ``background_only_predictions``, one class a fill; −1
            where a mask is unusable. ``None`` where nothing was edited.

    Returns:
        ``None`` then; else, indexed by ``sample_id``, ``object_only_pred`` and
        ``background_only_pred``: −1 where no class has more than half of the fills.

    Example:
        >>> majority_predictions(pd.DataFrame({
        ...     "sample_id": ["a"], "object_only_predictions": [[3, 3, 1]],
        ...     "background_only_predictions": [[0, 1, 2]],
        ... })).loc["a"].tolist()
        [3, -1]
    """
    if edits is None:
        return None
    return pd.DataFrame(
        {
            f"{region}_only_pred": [
                _majority(fills) for fills in edits[f"{region}_only_predictions"]
            ]
            for region in ("object", "background")
        },
        index=pd.Index(edits["sample_id"], name="sample_id"),
        dtype=np.int64,
    )


def label_totals(labels: pa.Table) -> dict[str, int | float | None]:
    """Totals for the manifest.

    Args:
        labels: From :func:`find_suspects`.

    Returns:
        ``labels_judged``, samples with label and prediction; ``label_issues``, how many labels
        cleanlab calls wrong, rows cut off included; ``label_issue_share``, their share, ``None``
        if nothing was judged; ``label_suspects``, rows; ``likely_label_errors``, rows of that kind.
    """
    counts = labels.schema.metadata
    judged, issues = int(counts[b"labels_judged"]), int(counts[b"label_issues"])
    return {
        "labels_judged": judged,
        "label_issues": issues,
        "label_issue_share": issues / judged if judged else None,
        "label_suspects": labels.num_rows,
        "likely_label_errors": labels["kind"].to_pylist().count(LABEL_ERROR),
    }


def _judged(samples: pd.DataFrame, classes: Sequence[str]) -> pd.Series:
    """Which samples have label and prediction."""
    if len(classes) < 2:
        return pd.Series(False, samples.index)
    return samples[list(_NEEDED)].notna().all(axis=1)


def _predictions(known: pd.DataFrame, classes: Sequence[str]) -> Predictions:
    kept = min(len(known["top_classes"].iloc[0]), len(classes)) if len(known) else 0
    rows = (len(known), kept)
    return Predictions(
        labels=known["label"].to_numpy(np.int64),
        label_probability=known["label_probability"].to_numpy(np.float64),
        top_classes=np.array(known["top_classes"].to_list(), np.int64).reshape(rows),
        top_probabilities=np.array(known["top_probabilities"].to_list(), np.float64).reshape(rows),
        classes=len(classes),
    )


def _suggestions(predictions: Predictions) -> tuple[Classes, Floats]:
    """The most probable class other than the label, and its probability."""
    if not len(predictions):
        return np.empty(0, np.int64), np.empty(0)
    place = (predictions.top_classes[:, 0] == predictions.labels).astype(np.int64)[:, None]
    classes = np.take_along_axis(predictions.top_classes, place, axis=1)
    probabilities = np.take_along_axis(predictions.top_probabilities, place, axis=1)
    return classes[:, 0], probabilities[:, 0]


def _codes(values: pd.Series) -> Classes:
    """Classes as numbers, −1 for null."""
    codes: Classes = values.astype("Float64").fillna(_NOBODY).to_numpy(np.float64).astype(np.int64)
    return codes


def _majority(fills: Sequence[int]) -> int:
    values, counts = np.unique(np.asarray(fills), return_counts=True)
    most = int(counts.argmax()) if len(counts) else 0
    return int(values[most]) if len(counts) and 2 * counts[most] > len(fills) else _NOBODY


def _add_pixels(found: pd.DataFrame, pixels: pd.DataFrame | None) -> None:
    for column in ("object_only_pred", "background_only_pred"):
        known = pd.Series(dtype=np.float64) if pixels is None else pixels[column]
        found[column] = _codes(found["sample_id"].map(known))


def _add_names(found: pd.DataFrame, classes: Sequence[str]) -> None:
    names = np.array([*classes, None], object)
    for column in ("label", "suggested", *_REGIONS["contributions"], *_REGIONS["pixels"]):
        found[f"{column}_name"] = names[found[column].to_numpy(np.int64)]


_REGIONS = {
    "contributions": ("object_pred", "background_pred"),
    "pixels": ("object_only_pred", "background_only_pred"),
}


def _add_kind(found: pd.DataFrame) -> None:
    """What the regions say: by pixels where these are known, else by contributions."""
    pointed, behind, evidence = (np.full(len(found), value, object) for value in (-1, -1, None))
    for name, (inside, outside) in _REGIONS.items():
        both = ((found[inside] != _NOBODY) & (found[outside] != _NOBODY)).to_numpy()
        pointed = np.where(both, found[inside], pointed)
        behind = np.where(both, found[outside], behind)
        evidence[both] = name
    label, suggested = found["label"].to_numpy(), found["suggested"].to_numpy()
    agrees = pointed == suggested
    # Contributions do not accuse a label that the object's pixels alone speak for.
    cleared = found["object_only_pred"].to_numpy() == label
    against = agrees & found["is_confident"].to_numpy() & ~cleared
    of_label, of_suggestion = behind == label, behind == suggested
    kinds = np.select(
        [against & ~of_label, against & of_label, ~agrees & of_suggestion],
        [LABEL_ERROR, CONTEXT_DRIVEN, BACKGROUND_SUGGESTS],
        DISAGREEMENT,
    )
    found["evidence"] = evidence
    found["object_agrees_with_suggestion"] = [
        None if name is None else bool(value) for name, value in zip(evidence, agrees, strict=True)
    ]
    found["kind"] = kinds
    found["reason"] = [label_reason(row) for row in found.to_dict("records")]


def label_reason(row: Mapping[Any, Any], say: Say = in_english) -> str:
    """What speaks against a label, as a sentence.

    Args:
        row: A row of ``labels.parquet``.
        say: The language.

    Example:
        >>> label_reason({"kind": LABEL_ERROR, "label_name": "cat", "suggested_name": "dog"})
        'The object points to dog, and the background not to cat.'
    """
    return _sentence(row, say).format(label=row["label_name"], suggested=row["suggested_name"])


def _sentence(row: Mapping[Any, Any], say: Say) -> str:
    if row["kind"] == LABEL_ERROR:
        return say("The object points to {suggested}, and the background not to {label}.")
    if row["kind"] == CONTEXT_DRIVEN:
        return say("The object points to {suggested}, only the background to {label}.")
    if row["kind"] == BACKGROUND_SUGGESTS:
        return say("{suggested} comes from the background, not from the object.")
    agrees = row["object_agrees_with_suggestion"]
    if pd.notna(agrees) and agrees and row["object_only_pred"] == row["label"]:
        return say(
            "The model says {suggested} rather than {label}, but of the object's pixels alone it "
            "says {label}."
        )
    return say("The model says {suggested} rather than {label}.")


def _table(found: pd.DataFrame, *, judged: int, issues: int) -> pa.Table:
    arrays = [_array(found[column.name], column) for column in LABEL_COLUMNS]
    counts = {"labels_judged": str(judged), "label_issues": str(issues)}
    schema = schema_of(LABEL_COLUMNS).with_metadata(counts)
    return pa.Table.from_arrays(arrays, schema=schema)


def _array(values: pd.Series, column: Column) -> pa.Array:
    missing: NDArray[np.bool_] = values.isna().to_numpy()
    if pa.types.is_integer(column.type):
        missing = missing | (values == _NOBODY).to_numpy()
    return pa.array(values.to_numpy(object), column.type, mask=missing)
