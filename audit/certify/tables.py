"""``certify.parquet`` and ``samples.parquet``: what was planted, measured and found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from audit.certify.plan import Case
from audit.certify.plants import CUES
from audit.run.columns import Column, schema_of, table_of
from audit.tables import AuditRun

_F64 = pa.float64()
_NO_CUE = "no cue is tied to the class in this model"
_AS_FOUND = "as in classes.parquet of the run"

CERTIFY_COLUMNS: tuple[Column, ...] = (
    Column(name="case", type=pa.string(), range="text", meaning="The model."),
    Column(name="kind", type=pa.string(),
           range="planted, clean, random, shuffled_labels, shuffled_masks",
           meaning="What was done to it; the last three are checks that know nothing."),
    Column(name="seed", type=pa.int32(), range="≥ 0",
           meaning="Of its fresh weights, order and cues."),
    Column(name="strength", type=_F64, range="[0, 1]",
           meaning="Share of a planted class's images that carry the cue."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="The class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="cue", type=pa.string(), range=", ".join(CUES), meaning="The cue tied to it.",
           null_when=_NO_CUE),
    Column(name="place", type=pa.string(), range="background, object, both",
           meaning="Where the cue lies.", null_when=_NO_CUE),
    Column(name="accuracy_with", type=_F64, range="[0, 1]",
           meaning="Measured: accuracy on the class's test images when all carry the cue.",
           null_when=_NO_CUE),
    Column(name="accuracy_without", type=_F64, range="[0, 1]",
           meaning="Measured: when none does.", null_when=_NO_CUE),
    Column(name="pull", type=_F64, range="[−1, 1]",
           meaning="Measured reliance: how much more often test images of other classes are given "
           "this class when they carry the cue.", null_when=_NO_CUE),
    Column(name="n", type=pa.int64(), range="≥ 0", meaning="Audited test images of the class."),
    Column(name="accuracy", type=_F64, range="[0, 1]", meaning="Their accuracy, as audited.",
           null_when="n is 0"),
    Column(name="verdict", type=pa.string(), range=_AS_FOUND, meaning="What the audit says."),
    Column(name="reliance", type=_F64, range="[−1, 1]", meaning="Its score.",
           null_when=_AS_FOUND),
    Column(name="transplant_rate", type=_F64, range="[0, 1]",
           meaning="Its screen in feature space.", null_when=_AS_FOUND),
    Column(name="background_share", type=_F64, range="[0, 1]",
           meaning="For comparison: the heatmap's share on background.", null_when=_AS_FOUND),
    Column(name="far_logit", type=_F64, range="logits",
           meaning="For comparison: what the far background adds.", null_when=_AS_FOUND),
    Column(name="told_by", type=pa.string(), range="names in properties.parquet, with commas",
           meaning="Image properties that the audit names as telling this class from the others; "
           "empty for none."),
    Column(name="run", type=pa.string(), range="folder", meaning="The audit's run."),
)  # fmt: skip

SAMPLE_COLUMNS: tuple[Column, ...] = (
    Column(name="case", type=pa.string(), range="text", meaning="The model."),
    Column(name="kind", type=pa.string(), range="planted, clean", meaning="See certify.parquet."),
    Column(name="sample_id", type=pa.string(), range="unique in a case", meaning="The image."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Its class.",
           null_when="see samples"),
    Column(name="cue", type=pa.string(), range=", ".join(CUES),
           meaning="The cue tied to its class.", null_when=_NO_CUE),
    Column(name="place", type=pa.string(), range="background, object, both",
           meaning="Where the cue lies.", null_when=_NO_CUE),
    Column(name="carried", type=pa.bool_(), range="true, false",
           meaning="Whether this image carries it."),
    Column(name="reliant", type=pa.bool_(), range="true, false",
           meaning="Measured: answered with its class with the cue, with another without."),
    Column(name="correct", type=pa.bool_(), range="true, false", meaning="As audited.",
           null_when="see samples"),
    *(
        Column(name=name, type=pa.float32(), range="as in the run's samples",
               meaning=f"{name} of the run's samples.", null_when="see samples")
        for name in ("confidence", "object_area", "brightness", "contrast", "transplant_rate")
    ),
)  # fmt: skip

_FOUND = ("n", "accuracy", "verdict", "reliance", "transplant_rate", "background_share",
          "far_logit")  # fmt: skip
_OF_SAMPLES = ("sample_id", "label", "correct", "confidence", "object_area", "brightness",
               "contrast", "transplant_rate")  # fmt: skip


def class_rows(
    case: Case, measured: dict[str, Any], run: AuditRun, folder: Path
) -> list[dict[str, Any]]:
    """The rows of one model, one a class.

    Args:
        case: The model.
        measured: What :func:`audit.certify.cases.measure` gave.
        run: Its audit.
        folder: Of the benchmark; the run's place is told from there.

    Returns:
        Rows of :data:`CERTIFY_COLUMNS`.
    """
    plants, told = _by_label(measured), _telling_properties(run)
    common = {
        "case": case.name,
        "kind": case.kind,
        "seed": case.seed,
        "strength": case.strength,
        "run": run.path.relative_to(folder).as_posix(),
    }
    rows = []
    for found in run.classes.to_dict("records"):
        plant = plants.get(int(found["label"]), {})
        rows.append(
            common
            | {"label": int(found["label"]), "label_name": found["label_name"]}
            | {"told_by": ", ".join(told.get(int(found["label"]), []))}
            | {name: _known(found.get(name)) for name in _FOUND}
            | _cue_of(plant)
            | {name: plant.get(name) for name in ("accuracy_with", "accuracy_without", "pull")}
        )
    return rows


def sample_rows(case: Case, measured: dict[str, Any], run: AuditRun) -> pd.DataFrame:
    """The rows of one planted or clean model, one an audited image."""
    frame = run.samples[list(_OF_SAMPLES)].copy()
    plants = _by_label(measured)
    told = [_cue_of(plants.get(-1 if pd.isna(k) else int(k), {})) for k in frame["label"]]
    frame["cue"] = [each["cue"] for each in told]
    frame["place"] = [each["place"] for each in told]
    index = run.samples["index"].to_numpy()
    for name in ("carried", "reliant"):
        frame[name] = [bool(measured[name][i]) for i in index]
    return frame.assign(case=case.name, kind=case.kind)


def as_table(rows: list[dict[str, Any]] | pd.DataFrame, columns: tuple[Column, ...]) -> pa.Table:
    """Rows as a table with exactly these columns."""
    if isinstance(rows, pd.DataFrame):
        names = [column.name for column in columns]
        return pa.Table.from_pandas(rows[names], schema=schema_of(columns), preserve_index=False)
    return table_of(rows, columns)


def _telling_properties(run: AuditRun) -> dict[int, list[str]]:
    """For each class the image properties that tell it from the others."""
    rows = run.properties
    rows = rows[rows["label"].notna() & rows["predicts_label"].fillna(False).astype(bool)]
    told: dict[int, list[str]] = {}
    for name, label in zip(rows["property"], rows["label"], strict=True):
        told.setdefault(int(label), []).append(str(name))
    return told


def _by_label(measured: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The plants by class; of several measured in a clean model the first."""
    plants: dict[int, dict[str, Any]] = {}
    for plant in measured["plants"]:
        plants.setdefault(plant["label"], plant)
    return plants


def _cue_of(plant: dict[str, Any]) -> dict[str, str | None]:
    cue = plant.get("cue")
    return {"cue": cue, "place": None if cue is None else CUES[cue].place}


def _known(value: Any) -> Any:
    """Pandas' several kinds of nothing as ``None``."""
    return None if pd.isna(value) else value
