"""``changes.parquet``: the samples that two models answer, or decide, differently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, schema_of

# Kinds of change, the most telling first.
REASON, LOST, GAINED, OTHER, FLAGS = "reason", "lost", "gained", "other answer", "flags"
KINDS = (REASON, LOST, GAINED, OTHER, FLAGS)
CHANGED_FLAGS = ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")

_F32 = pa.float32()
_SIDES = {"a": "first", "b": "second"}
CHANGE_COLUMNS: tuple[Column, ...] = (
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(name="sample_id", type=pa.string(), range="as in samples", meaning="The sample."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Labelled class.",
           null_when="as in samples"),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name.",
           null_when="label is null"),
    Column(name="kind", type=pa.string(), range=", ".join(KINDS),
           meaning="What changed: the reason behind the same prediction; a right prediction lost, "
           "or gained; another wrong prediction; only flags."),
    *(
        column
        for side, run in _SIDES.items()
        for column in (
            Column(name=f"{side}_predicted", type=pa.int32(), range="[0, K)",
                   meaning=f"The {run} run's prediction.", null_when="as in samples"),
            Column(name=f"{side}_predicted_name", type=pa.string(), range="class names",
                   meaning="Its name.", null_when=f"{side}_predicted is null"),
            Column(name=f"{side}_confidence", type=_F32, range="[0, 1]",
                   meaning="Its probability.", null_when=f"{side}_predicted is null"),
            Column(name=f"{side}_reason", type=pa.string(),
                   range="object, background, both, neither",
                   meaning=f"What points to the explained class in the {run} run.",
                   null_when="as in samples"),
            Column(name=f"{side}_background_share", type=_F32, range="[0, 1]",
                   meaning=f"The {run} run's background_share.", null_when="as in samples"),
            Column(name=f"{side}_far_logit", type=_F32, range="logits",
                   meaning=f"The {run} run's far_logit.", null_when="as in samples"),
            Column(name=f"{side}_transplant_rate", type=_F32, range="[0, 1]",
                   meaning=f"The {run} run's transplant_rate.", null_when="as in samples"),
            Column(name=f"{side}_flags", type=pa.string(),
                   range=", ".join(CHANGED_FLAGS),
                   meaning=f"The {run} run's flags that are raised, with commas; empty for none."),
        )
    ),
)  # fmt: skip


def list_changes(first: pd.DataFrame, second: pd.DataFrame) -> pa.Table:
    """The samples whose prediction, reason or flags differ.

    A prediction, a reason or a flag that is undefined in either run has not changed.

    Args:
        first: All rows of one run.
        second: All rows of the other, of the same samples in the same order.

    Returns:
        A table with :data:`CHANGE_COLUMNS`: by kind, then those where background came or went,
        then by how far background_share moved.
    """
    kind = _kinds(first, second)
    changed = np.flatnonzero(kind >= 0)
    sides = {"a": first.iloc[changed], "b": second.iloc[changed]}
    columns: dict[str, Any] = {
        name: sides["a"][name].to_numpy() for name in ("index", "sample_id", "label")
    }
    columns["label"] = sides["a"]["label"].astype("Int32").array
    columns["label_name"] = _texts(sides["a"]["label_name"])
    columns["kind"] = np.array(KINDS, dtype=object)[kind[changed]]
    for side, rows in sides.items():
        columns[f"{side}_predicted"] = rows["predicted"].astype("Int32").array
        columns[f"{side}_predicted_name"] = _texts(rows["predicted_name"])
        columns[f"{side}_reason"] = _texts(rows["reason"])
        for name in ("confidence", "background_share", "far_logit", "transplant_rate"):
            columns[f"{side}_{name}"] = rows[name].to_numpy(np.float32, na_value=np.nan)
        columns[f"{side}_flags"] = _raised(rows)
    frame = pd.DataFrame(columns).iloc[_order(kind[changed], sides["a"], sides["b"])]
    arrays = [pa.array(frame[c.name], c.type, from_pandas=True) for c in CHANGE_COLUMNS]
    return pa.Table.from_arrays(arrays, schema=schema_of(CHANGE_COLUMNS))


def _kinds(first: pd.DataFrame, second: pd.DataFrame) -> NDArray[np.int64]:
    """Place in :data:`KINDS` of what changed, N; −1 for nothing."""
    answers = [rows["predicted"].fillna(-1).to_numpy(np.int64) for rows in (first, second)]
    label = first["label"].fillna(-2).to_numpy(np.int64)
    other = (answers[0] != answers[1]) & (answers[0] >= 0) & (answers[1] >= 0)
    right = [answer == label for answer in answers]
    reasons = [_texts(rows["reason"]) for rows in (first, second)]
    known = np.array([a is not None and b is not None for a, b in zip(*reasons, strict=True)], bool)
    moved = known & (reasons[0] != reasons[1]) & (answers[0] == answers[1])
    flags = np.zeros(len(first), np.bool_)
    for name in CHANGED_FLAGS:
        a, b = (rows[name].astype("boolean") for rows in (first, second))
        flags |= (a != b).fillna(value=False).to_numpy(np.bool_)
    flags &= answers[0] == answers[1]
    conditions = [moved, other & right[0], other & right[1], other, flags]
    return np.select(conditions, list(range(len(KINDS))), default=-1)


def _texts(values: pd.Series) -> NDArray[Any]:
    """Texts with ``None`` for null."""
    texts: NDArray[Any] = values.astype(object).to_numpy(copy=True)
    texts[values.isna().to_numpy()] = None
    return texts


def _raised(rows: pd.DataFrame) -> list[str]:
    """The names of each row's flags."""
    raised = [rows[name].fillna(value=False).to_numpy(np.bool_) for name in CHANGED_FLAGS]
    return [
        ", ".join(name for name, own in zip(CHANGED_FLAGS, flags, strict=True) if own)
        for flags in zip(*raised, strict=True)
    ]


def _order(kind: NDArray[np.int64], first: pd.DataFrame, second: pd.DataFrame) -> NDArray[np.int64]:
    """Places of the rows, the most telling first."""
    background = [(rows["reason"] == "background").to_numpy(np.bool_) for rows in (first, second)]
    came = background[0] != background[1]
    shares = [rows["background_share"].to_numpy(np.float64, na_value=np.nan)
              for rows in (first, second)]  # fmt: skip
    moved = np.nan_to_num(abs(shares[1] - shares[0]))
    return np.lexsort((first["index"].to_numpy(), -moved, ~came, kind))
