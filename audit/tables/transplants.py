"""``transplants.parquet``: which class a background makes of another class's object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, schema_of

_F64 = pa.float64()

TRANSPLANT_COLUMNS: tuple[Column, ...] = (
    Column(name="family", type=pa.string(), range="as in mask_source",
           meaning="Where the masks come from that say what is background and what is object; "
           "the first rows' are the main ones."),
    Column(name="label", type=pa.int32(), range="[0, K)",
           meaning="Class of the samples whose background is carried over."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="object", type=pa.int32(), range="[0, K), not label",
           meaning="Class of the objects that the background is put under."),
    Column(name="object_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="n", type=pa.int64(), range="≥ 1", meaning="Transplants, in feature space."),
    Column(name="n_samples", type=pa.int64(), range="≥ 1",
           meaning="Samples whose background is in them."),
    Column(name="predicted_label", type=_F64, range="[0, 1]",
           meaning="Share that is predicted as the background's class, label."),
    Column(name="predicted_object", type=_F64, range="[0, 1]",
           meaning="Share that is predicted as the object's class."),
    Column(name="predicted_neither", type=_F64, range="[0, 1]",
           meaning="Share that is predicted as a third class."),
)  # fmt: skip


def tabulate_transplants(
    samples: pd.DataFrame, families: Sequence[str], classes: Sequence[str]
) -> pa.Table:
    """One row for each family of masks and pair of background's and object's class that occurs.

    Args:
        samples: All rows.
        families: Their names, the main one first.
        classes: Class names.

    Returns:
        A table with :data:`TRANSPLANT_COLUMNS`, sorted by the families' order and the two classes.

    Example:
        >>> samples = pd.DataFrame({"label": [0], "transplant_objects": [[1, 1]],
        ...     "transplant_predictions": [[0, 1]]})
        >>> table = tabulate_transplants(samples, ["dataset"], ["cat", "dog"]).to_pylist()
        >>> table[0]["object_name"], table[0]["n"], table[0]["predicted_label"]
        ('dog', 2, 0.5)
    """
    schema = schema_of(TRANSPLANT_COLUMNS)
    tables = [schema.empty_table()]
    for place, family in enumerate(families):
        column = ("" if place == 0 else f"{family}_") + "transplant_predictions"
        counts = _counted(_exploded(samples, column), len(classes))
        names = np.asarray(classes, object)
        counts |= {
            "family": [family] * len(counts["n"]),
            "label_name": names[counts["label"]],
            "object_name": names[counts["object"]],
        }
        arrays = [pa.array(counts[field.name], field.type) for field in schema]
        tables.append(pa.Table.from_arrays(arrays, schema=schema))
    return pa.concat_tables(tables)


def _exploded(samples: pd.DataFrame, column: str) -> tuple[NDArray[np.int64], ...]:
    """Sample, label, object and prediction of every transplant."""
    nothing = np.zeros(0, np.int64)
    if column not in samples:
        return (nothing,) * 4
    labels, objects, predictions = (
        samples[name] for name in ("label", "transplant_objects", column)
    )
    known = (labels.notna() & objects.notna() & predictions.notna()).to_numpy(bool)
    if not known.any():
        return (nothing,) * 4
    found = np.concatenate(predictions[known].to_numpy()).astype(np.int64)
    lengths = predictions[known].map(len).to_numpy(np.int64)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    exploded = (
        rows,
        labels[known].to_numpy(np.int64)[rows],
        np.concatenate(objects[known].to_numpy()).astype(np.int64),
        found,
    )
    return tuple(values[found >= 0] for values in exploded)


def _counted(
    transplants: tuple[NDArray[np.int64], ...], classes: int
) -> dict[str, NDArray[Any] | list[str]]:
    """For each pair of classes that occurs, how many there are and what they are predicted as."""
    rows, labels, objects, predictions = transplants
    pairs, place = np.unique(labels * classes + objects, return_inverse=True)
    n = np.bincount(place, minlength=len(pairs))
    # A sample may have several donors of one class.
    samples = rows.max(initial=0) + 1
    of_samples = np.unique(place.astype(np.int64) * samples + rows) // samples
    as_label, as_object = predictions == labels, predictions == objects

    def share(which: NDArray[np.bool_]) -> NDArray[np.float64]:
        return np.bincount(place, weights=which, minlength=len(pairs)) / n

    return {
        "label": pairs // classes,
        "object": pairs % classes,
        "n": n,
        "n_samples": np.bincount(of_samples, minlength=len(pairs)),
        "predicted_label": share(as_label),
        "predicted_object": share(as_object),
        "predicted_neither": share(~(as_label | as_object)),
    }
