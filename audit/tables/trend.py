"""``trend.parquet``: many runs of one line of models, and what changed from each to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.errors import ConfigError
from audit.run.columns import Column, schema_of
from audit.tables.clusters import find_clusters
from audit.tables.comparable import find_differences
from audit.tables.comparison import (
    BETTER,
    SAME,
    SPLIT,
    UNDECIDED,
    WORSE,
    Sides,
    compare_rows,
    families_of,
)
from audit.tables.frames import read_edits
from audit.tables.paired_groups import Grouping, GroupMeans, pooled, t_interval
from audit.tables.power import wilson_interval
from audit.tables.reading import AuditRun
from audit.tables.scored import (
    METRIC_NAMES,
    METRICS,
    Metric,
    Scores,
    edits_by_row,
    scores_of_edits,
    scores_of_rows,
)

Floats = NDArray[np.float64]

ORDERS = ("finished", "name")
_F64 = pa.float64()
_FIRST = "it is the first run"
_NOT_LAST = "it is not the last run"
_NO_PAIR = ", or no sample has the metric in both runs"
TREND_COLUMNS: tuple[Column, ...] = (
    Column(name="place", type=pa.int32(), range="≥ 0", meaning="The run's place in the line."),
    Column(name="run_id", type=pa.string(), range="as in the manifest", meaning="The run."),
    Column(name="model", type=pa.string(), range="as in the manifest", meaning="Its model."),
    Column(name="finished", type=pa.string(), range="ISO 8601", meaning="When it was finished."),
    Column(name="label", type=pa.int32(), range="[0, K), or −1",
           meaning="The class; −1 for the whole split."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name.",
           null_when="it is a row of the split"),
    Column(name="metric", type=pa.string(), range=", ".join(METRIC_NAMES),
           meaning="As in compare. A metric that no sample has has no row."),
    Column(name="family", type=pa.string(), range="as in mask_source",
           meaning="The masks that the value rests on: those that show most in any run.",
           null_when="masks play no part"),
    Column(name="n", type=pa.int64(), range="≥ 1", meaning="Samples with a value in this run."),
    Column(name="value", type=_F64, range="as the metric",
           meaning="Their mean; of edited samples over the split the mean over classes."),
    Column(name="low", type=_F64, range="as the metric",
           meaning="Lower end of its 95% interval (over different pictures: Wilson's for accuracy, "
           "pointing_hit and right_for_wrong_reason, else Student's t).",
           null_when="fewer than two different pictures have a value"),
    Column(name="high", type=_F64, range="as the metric", meaning="Upper end of it.",
           null_when="low is null"),
    *(
        Column(name=f"{since}{name}", type=kind, range=allowed, meaning=meaning.format(run=run),
               null_when=null + _NO_PAIR)
        for since, run, null in (("", "the run before", _FIRST), ("first_", "the first", _NOT_LAST))
        for name, kind, allowed, meaning in (
            ("change", _F64, "as the metric", "Paired change against {run}, as in compare."),
            ("change_low", _F64, "as the metric", "Lower end of its 95% interval."),
            ("change_high", _F64, "as the metric", "Upper end of it."),
            ("verdict", pa.string(), f"{BETTER}, {WORSE}, {SAME}, {UNDECIDED}",
             "What compare says of it."),
        )
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """Runs that can be compared, in their order.

    Attributes:
        runs: The runs.
        left_out: Others, each with the reason.
    """

    runs: Sequence[AuditRun]
    left_out: Sequence[tuple[AuditRun, str]]


def line_of(runs: Sequence[AuditRun], order: str) -> Line:
    """Order runs, and leave out what cannot be compared with the one finished last.

    Args:
        runs: Complete runs.
        order: One of :data:`ORDERS`.

    Returns:
        The line; empty where there are no runs.

    Raises:
        ConfigError: The order is unknown.
    """
    if order not in ORDERS:
        raise ConfigError("runs have no such order", expected=" or ".join(ORDERS), found=order)
    newest_first = sorted(runs, key=_finished, reverse=True)
    kept: list[AuditRun] = []
    left_out: list[tuple[AuditRun, str]] = []
    for run in newest_first:
        same = [one for one in kept if one.manifest["fingerprint"] == run.manifest["fingerprint"]]
        found = find_differences(kept[0], run) if kept and not same else []
        if same:
            left_out.append((run, f"the same run as the one in {same[0].path}"))
        elif found:
            reasons = [f"{one.what}: {one.second}, not {one.first}" for one in found]
            left_out.append((run, "; ".join(reasons)))
        else:
            kept.append(run)
    key = _finished if order == "finished" else _name
    return Line(runs=sorted(kept, key=key), left_out=left_out)


def _finished(run: AuditRun) -> tuple[str, str]:
    return str(run.manifest.get("finished")), str(run.path)


def _name(run: AuditRun) -> tuple[str, str]:
    return run.path.name, str(run.path)


def trend_tables(line: Line, seed: int = 0) -> dict[str, pa.Table]:
    """The table ``trend`` of a line of runs.

    Args:
        line: At least one run.
        seed: Draws bootstrap resamples of the changes.

    Returns:
        ``trend`` with :data:`TREND_COLUMNS`: run after run, in each the split's rows first.
    """
    valued = _with_families([_scores(run) for run in line.runs], line.runs[0])
    frames = []
    for place, (run, rows) in enumerate(zip(line.runs, valued, strict=True)):
        rows["place"] = place
        for name in ("run_id", "model", "finished"):
            rows[name] = str(run.manifest[name])
        before = _changes(line.runs[place - 1], run, "", seed) if place else None
        last = place == len(line.runs) - 1 and place > 0
        first = _changes(line.runs[0], run, "first_", seed) if last else None
        for changes in (before, first):
            if changes is not None:
                rows = rows.merge(changes, how="left", on=["label", "metric"])  # noqa: PLW2901
        frames.append(rows)
    frame = pd.concat(frames, ignore_index=True)
    order = frame["metric"].map(METRIC_NAMES.index)
    frame = frame.iloc[np.lexsort((order, frame["label"], frame["place"]))]
    names = [column.name for column in TREND_COLUMNS]
    frame = frame.reindex(columns=names)
    arrays = [pa.array(frame[c.name], c.type, from_pandas=True) for c in TREND_COLUMNS]
    return {"trend": pa.Table.from_arrays(arrays, schema=schema_of(TREND_COLUMNS))}


def _changes(one: AuditRun, other: AuditRun, prefix: str, seed: int) -> pd.DataFrame:
    """What compare says of two runs, in the trend's columns."""
    rows = compare_rows(Sides.of(one, other), seed).to_pandas()
    renamed = {"change": "change", "low": "change_low", "high": "change_high", "verdict": "verdict"}
    return rows[["label", "metric", *renamed]].rename(
        columns={name: prefix + new for name, new in renamed.items()}
    )


def _scores(run: AuditRun) -> Scores:
    """All of a run's values."""
    families, samples = families_of(run.manifest), run.samples
    scores = scores_of_rows(samples, families)
    edits = edits_by_row(read_edits(run.path), samples)
    if edits is not None and len(edits):
        classes = len(run.manifest["classes"])
        scores |= scores_of_edits(edits, families, classes, len(samples))
    return scores


def _with_families(scores: Sequence[Scores], first: AuditRun) -> list[pd.DataFrame]:
    """Each run's rows, under the masks that show most in any run."""
    samples, classes = first.samples, list(first.manifest["classes"])
    labels = samples["label"].fillna(-1).to_numpy(np.int64)
    clusters = find_clusters(samples)
    groupings = (
        Grouping.of(labels, len(classes), clusters),
        Grouping.of(np.where(labels >= 0, 0, -1), 1, clusters),
    )
    frames: list[list[pd.DataFrame]] = [[] for _ in scores]
    for metric in METRICS:
        families = [f for each in scores for f in each.get(metric.name, {})]
        if not families:
            continue
        families = list(dict.fromkeys(families))
        found = [_means(metric, each.get(metric.name, {}), families, groupings) for each in scores]
        means = np.stack([np.stack([group.mean for group in run]) for run in found])
        highest = np.where(np.isfinite(means), means, -np.inf).max(axis=0).argmax(axis=0)
        for rows, run in zip(frames, found, strict=True):
            rows.append(_rows(metric, run, families, highest, classes))
    return [pd.concat(rows, ignore_index=True) for rows in frames]


def _means(
    metric: Metric,
    values: Mapping[str, Floats],
    families: Sequence[str],
    groupings: tuple[Grouping, Grouping],
) -> list[GroupMeans]:
    """Means of the classes, then of the split, under each family."""
    found = []
    for family in families:
        own = values.get(family, np.full(len(groupings[0].group), np.nan))
        classes = groupings[0].means(own)
        whole = groupings[1].means(own)
        if metric.edited:
            kept = np.isfinite(classes.error)
            if classes.n[kept].sum() * 2 >= classes.n.sum() > 0:
                whole = pooled(classes, kept)
        names = ("n", "clusters", "mean", "error", "degrees", "spread")
        found.append(
            GroupMeans(*(np.append(getattr(classes, n), getattr(whole, n)) for n in names))
        )
    return found


def _ends(metric: Metric, found: GroupMeans) -> Floats:
    """95% intervals of each scope's mean, S×2."""
    if metric.yes_or_no and not metric.edited:
        size = np.where(np.isfinite(found.error), found.effective, 0)
        return np.stack(wilson_interval(found.mean, size), axis=1)
    if metric.counted:
        found = found.floored(np.where(found.clusters > 0, 1 / (found.clusters + 1.0), 0))
    ends = t_interval(found)
    return ends.clip(0, 1) if metric.counted and not metric.edited else ends


def _rows(
    metric: Metric,
    found: Sequence[GroupMeans],
    families: Sequence[str],
    highest: NDArray[np.int64],
    classes: Sequence[str],
) -> pd.DataFrame:
    """One run's rows of one metric."""
    scopes = np.arange(len(classes) + 1)
    ends = np.stack([_ends(metric, each) for each in found])[highest, scopes]
    pick: dict[str, NDArray[Any]] = {
        name: np.stack([getattr(each, part) for each in found])[highest, scopes]
        for name, part in (("n", "n"), ("value", "mean"))
    }
    rows = pd.DataFrame(
        {
            "label": np.append(np.arange(len(classes)), SPLIT),
            "label_name": [*classes, None],
            "metric": metric.name,
            "family": [families[place] or None for place in highest],
            **pick,
            "low": ends[:, 0],
            "high": ends[:, 1],
        }
    )
    return rows[rows["n"] > 0]
