"""``strata.parquet``: each class by what its images are like, and where the model is worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, table_of
from audit.tables.bootstrap import bca_intervals
from audit.tables.classes import CONFIDENT_MASK
from audit.tables.clusters import find_clusters
from audit.tables.power import mean_error, wilson_interval

# A smaller stratum has no interval of kappa and is not called the worst.
ENOUGH = 30
# Cut into thirds, at the split's terciles.
_IN_THIRDS = ("object_area", "brightness", "contrast", "sharpness")
# Strata that are made of the model's answers: their accuracy says nothing about groups of images.
_OF_ANSWERS = ("correct", "reason")
_F64 = pa.float64()

STRATA_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="The class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="stratum", type=pa.string(),
           range="correct, mask_confidence, " + ", ".join(_IN_THIRDS) + ", reason",
           meaning="What its samples are divided by. Strata whose column the run does not have, or "
           "that are constant over the split, have no rows."),
    Column(name="value", type=pa.string(), range="yes, no; low, middle, high; or a reason",
           meaning="Which of them. mask_confidence is high from "
           f"{CONFIDENT_MASK} on; numbers are cut into thirds at the whole split's terciles."),
    Column(name="n", type=pa.int64(), range="≥ 1", meaning="Samples of the class in the stratum."),
    Column(name="accuracy", type=_F64, range="[0, 1]",
           meaning="Share predicted as labelled, of those with a prediction.",
           null_when="there is none"),
    Column(name="accuracy_low", type=_F64, range="[0, 1]", meaning="Lower end of accuracy's 95% "
           "interval (Wilson; near-duplicates count less).", null_when="accuracy is null"),
    Column(name="accuracy_high", type=_F64, range="[0, 1]", meaning="Upper end of it.",
           null_when="accuracy is null"),
    Column(name="transplant_rate", type=_F64, range="[0, 1]", meaning="Mean of transplant_rate.",
           null_when="no sample has it"),
    Column(name="background_share", type=_F64, range="[0, 1]",
           meaning="Mean of background_share.", null_when="no sample has it"),
    Column(name="kappa", type=_F64, range="≤ 1; 0 = chance", meaning="Mean of kappa.",
           null_when="no sample has it"),
    Column(name="kappa_low", type=_F64, range="as kappa", meaning="Lower end of the mean's 95% "
           "bootstrap interval (BCa, 2,000 resamples of near-duplicate clusters).",
           null_when=f"fewer than {ENOUGH} samples have kappa"),
    Column(name="kappa_high", type=_F64, range="as kappa", meaning="Upper end of it.",
           null_when=f"fewer than {ENOUGH} samples have kappa"),
    Column(name="is_worst", type=pa.bool_(), range="true, false; one row at most",
           meaning=f"The lowest accuracy of all classes and strata with {ENOUGH} predictions or "
           "more; correct and reason, which the model's answers make, do not compete."),
)  # fmt: skip


def summarise_strata(samples: pd.DataFrame, classes: Sequence[str], seed: int) -> pa.Table:
    """One row for each class and stratum that has samples.

    Args:
        samples: The rows of all parts; ``brightness``, ``contrast``, ``sharpness`` and ``reason``
            are used where they are there.
        classes: Class names.
        seed: Draws the bootstrap resamples.

    Returns:
        A table with :data:`STRATA_COLUMNS`.
    """
    clusters = find_clusters(samples)
    strata = _strata(samples)
    labels = samples["label"].to_numpy(np.float64, na_value=np.nan)
    columns = {
        name: samples[name].to_numpy(np.float64, na_value=np.nan)
        for name in ("correct", "transplant_rate", "background_share", "kappa")
    }
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(classes):
        own = np.flatnonzero(labels == label)
        rng = np.random.default_rng((seed, label))
        values = {column: numbers[own] for column, numbers in columns.items()}
        within = [
            (stratum, value, inside)
            for stratum, value, member in strata
            if (inside := member[own]).any()
        ]
        rows += [
            {"label": label, "label_name": name, "stratum": stratum, "value": value} | summary
            for (stratum, value, _), summary in zip(
                within,
                _summaries(values, [inside for *_, inside in within], clusters[own], rng),
                strict=True,
            )
        ]
    _mark_worst(rows)
    return table_of(rows, STRATA_COLUMNS)


def worst_group(strata: pd.DataFrame) -> dict[str, Any] | None:
    """The class and stratum with the lowest accuracy.

    Args:
        strata: The rows of ``strata.parquet``.

    Returns:
        Its label, label_name, stratum, value, n, accuracy, accuracy_low and accuracy_high, ready
        for JSON; ``None`` where no stratum has enough samples.
    """
    worst = strata[strata["is_worst"].astype(bool)]
    if worst.empty:
        return None
    row = worst.iloc[0]
    return {
        **{name: str(row[name]) for name in ("label_name", "stratum", "value")},
        **{name: int(row[name]) for name in ("label", "n")},
        **{name: float(row[name]) for name in ("accuracy", "accuracy_low", "accuracy_high")},
    }


def _strata(samples: pd.DataFrame) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Each stratum, value and which samples are in it."""
    found: list[tuple[str, str, NDArray[np.bool_]]] = []
    correct = samples["correct"].astype("boolean")
    for value, truth in (("yes", True), ("no", False)):
        found.append(("correct", value, (correct == truth).fillna(False).to_numpy(bool)))
    trust = samples["mask_confidence"].to_numpy(np.float64, na_value=np.nan)
    found.append(("mask_confidence", "low", trust < CONFIDENT_MASK))
    found.append(("mask_confidence", "high", trust >= CONFIDENT_MASK))
    for name in _IN_THIRDS:
        if name in samples:
            found += [(name, *third) for third in _thirds(samples[name])]
    if "reason" in samples:
        reasons = samples["reason"].astype("string")
        for value in sorted(reasons.dropna().unique()):
            found.append(("reason", value, (reasons == value).fillna(False).to_numpy(bool)))
    return found


def _thirds(column: pd.Series[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Low, middle and high by the terciles; nothing for a constant."""
    values = column.to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(values)
    if not known.any() or np.ptp(values[known]) == 0:
        return
    places = np.searchsorted(np.quantile(values[known], (1 / 3, 2 / 3)), values)
    for place, value in enumerate(("low", "middle", "high")):
        yield value, known & (places == place)


def _summaries(
    values: dict[str, NDArray[np.float64]],
    members: list[NDArray[np.bool_]],
    clusters: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Numbers of one class's strata; one draw of resamples serves them all."""
    inside = np.stack(members, axis=1) if members else np.zeros((len(clusters), 0), bool)
    kappas = np.where(inside, values["kappa"][:, None], np.nan)
    many = np.flatnonzero(np.isfinite(kappas).sum(axis=0) >= ENOUGH)
    ends = np.full((len(members), 2), np.nan)
    if len(many):
        ends[many] = bca_intervals(kappas[:, many], rng, clusters=clusters).means
    found = []
    for member, (low, high) in zip(members, ends, strict=True):
        known = member & np.isfinite(values["correct"])
        right = mean_error(values["correct"][known], clusters[known])
        accuracy = wilson_interval(right.mean, right.effective)
        found.append(
            {
                "n": int(member.sum()),
                "accuracy": _or_none(right.mean),
                "accuracy_low": _or_none(accuracy[0]),
                "accuracy_high": _or_none(accuracy[1]),
                **{
                    name: _mean(values[name][member])
                    for name in ("transplant_rate", "background_share", "kappa")
                },
                "kappa_low": _or_none(low),
                "kappa_high": _or_none(high),
                "enough": int(known.sum()) >= ENOUGH,
            }
        )
    return found


def _mark_worst(rows: list[dict[str, Any]]) -> None:
    """Say of each row whether it is the worst; of equal ones, the surest."""
    compete = [row for row in rows if row.pop("enough") and row["stratum"] not in _OF_ANSWERS]
    worst = min(compete, key=lambda row: (row["accuracy"], row["accuracy_high"]), default=None)
    for row in rows:
        row["is_worst"] = row is worst


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
