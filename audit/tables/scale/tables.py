"""All tables and totals of a large run: sums where they suffice, the rest of kept rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import schema_of
from audit.tables.assembly import Setting, add_verdicts, assemble
from audit.tables.channels import (
    CHANNEL_COLUMNS,
    MOST_ROWS,
    REGIONS,
    lean,
    strongest,
)
from audit.tables.classes import CONFUSION_COLUMNS
from audit.tables.confident_learning import Inspection
from audit.tables.labels import (
    MOST_ROWS as MOST_SUSPECTS,
)
from audit.tables.labels import (
    inspect_rows,
    judged_rows,
    list_suspects,
    majority_predictions,
)
from audit.tables.masks import compare_masks
from audit.tables.methods import compare_methods
from audit.tables.scale.class_rows import interval_counts, kept_of_classes, summed_classes
from audit.tables.scale.gathering import Gathered
from audit.tables.scale.jackknife import grouped_means, macro_mean
from audit.tables.scale.numbers import GROUPED, Floats
from audit.tables.scale.quantiles import BOUNDED_ERROR, LARGEST, RELATIVE_ERROR, SMALLEST
from audit.tables.totals import WITH_INTERVALS, summarise_split

# Tables that rest on kept rows, and those of the split as a whole, which rest on its sample alone.
KEPT_TABLES = ("backgrounds", "evidence", "properties", "strata", "transplants")
UNIFORM_TABLES = ("masks", "methods")


def assemble_summed(
    gathered: Gathered, edits: pd.DataFrame | None, setting: Setting
) -> dict[str, pa.Table]:
    """Make every table.

    Args:
        gathered: From the digests of all parts.
        edits: Rows of edited samples; ``None`` where nothing was edited.
        setting: What the rows do not say.

    Returns:
        Tables by the names of their files, as :func:`audit.tables.assembly.assemble`;
        ``classes`` has one column more, ``n_kept``.
    """
    kept = gathered.kept
    tables = assemble(kept, edits, setting)
    uniform = kept[gathered.uniform.to_numpy()]
    tables["masks"] = compare_masks(uniform, setting.families)
    if setting.methods:
        tables["methods"] = compare_methods(uniform, setting.methods)
    classes = summed_classes(tables["classes"], gathered)
    judged = add_verdicts(classes, tables["evidence"], tables["properties"], edits, setting)
    of_class = pa.array(kept_of_classes(gathered), pa.int64())
    return tables | {
        "classes": judged.append_column("n_kept", of_class),
        "confusion": summed_confusions(gathered),
        "channels": summed_channels(gathered),
        "labels": summed_suspects(gathered, uniform, edits),
    }


def summed_confusions(gathered: Gathered) -> pa.Table:
    """``confusion.parquet``, exact."""
    exact, names = gathered.exact, np.array(gathered.setting.classes, object)
    label, predicted = exact.pairs >> 32, exact.pairs & 0xFFFFFFFF
    count, scored, share = exact.pair_sums.T
    of_label = np.bincount(label, count, len(names))
    values = {
        "label": label,
        "label_name": names[label],
        "predicted": predicted,
        "predicted_name": names[predicted],
        "n": count.astype(np.int64),
        "share_of_label": count / of_label[label],
        "background_share": np.where(scored > 0, share / np.maximum(scored, 1), np.nan),
    }
    return _table(values, schema_of(CONFUSION_COLUMNS))


def summed_channels(gathered: Gathered) -> pa.Table:
    """``channels.parquet``, of all samples whose channels were kept."""
    exact, schema = gathered.exact, schema_of(CHANNEL_COLUMNS)
    targets = np.flatnonzero(exact.channel_counts)
    if exact.channel_sums is None or not len(targets):
        return schema.empty_table()
    few = len(targets) * exact.channels > MOST_ROWS
    parts = []
    for target in targets.tolist():
        keys = target * exact.channels + np.arange(exact.channels)
        sums = exact.channel_sums.of(keys).astype(np.float64)
        parts.append(_of_target(target, int(exact.channel_counts[target]), sums, few=few))
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    values["target_name"] = np.array(gathered.setting.classes, object)[values["target"]]
    return _table(values, schema)


def _of_target(target: int, count: int, sums: Floats, *, few: bool) -> dict[str, NDArray[Any]]:
    """The rows of one class; sums C×7 as :mod:`audit.tables.scale.digest` has them."""
    regions = len(REGIONS)
    means = sums[:, :regions].T / count
    squares = np.maximum(sums[:, regions : 2 * regions].T - count * means**2, 0)
    error = (
        np.sqrt(squares / max(count - 1, 1) / count) if count > 1 else np.full_like(means, np.nan)
    )
    in_object, near, far = means
    rank = np.empty(len(far), np.int64)
    rank[np.argsort(-far, kind="stable")] = np.arange(1, len(far) + 1)
    columns = {
        "target": np.full(len(far), target),
        "channel": np.arange(len(far)),
        "n": np.full(len(far), count),
        **{f"{name}_logit": mean for name, mean in zip(REGIONS, means, strict=True)},
        **{f"{name}_error": each for name, each in zip(REGIONS, error, strict=True)},
        "far_positive": sums[:, -1] / count,
        "background_rank": rank,
        "lean": lean(in_object, near, far),
    }
    if not few:
        return columns
    chosen = strongest(far) | strongest(in_object)
    return {name: values[chosen] for name, values in columns.items()}


def summed_suspects(
    gathered: Gathered, uniform: pd.DataFrame, edits: pd.DataFrame | None
) -> pa.Table:
    """``labels.parquet``: ranked exactly, as far as candidates of each class were kept.

    From which probability on a class is predicted confidently is exact. How many labels are wrong
    by confident learning takes a second look at all rows: their share, and the score below which
    they lie, come from the sample of the split.

    Args:
        gathered: Candidates and sums.
        uniform: The sample of the split.
        edits: Rows of edited samples.
    """
    classes, exact = gathered.setting.classes, gathered.exact
    known, inspection = inspect_rows(uniform, classes)
    wrong = inspection.is_issue
    cutoff = float(inspection.scores[wrong].max()) if wrong.any() else -np.inf
    judged = int(exact.counts[:-1, exact.names.index("label_probability")].sum())
    candidates = judged_rows(gathered.suspects, classes)
    scores = candidates["label_probability"].to_numpy(np.float64)
    means = exact.means("label_probability")
    return list_suspects(
        candidates,
        classes,
        Inspection(
            scores=scores,
            is_issue=scores <= cutoff,
            thresholds=np.where(np.isnan(means), np.inf, means),
        ),
        majority_predictions(edits),
        most=MOST_SUSPECTS,
        judged=judged,
        issues=round(judged * float(wrong.mean())) if len(known) else 0,
    )


def summed_totals(
    gathered: Gathered, classes: pd.DataFrame, sidecars: Sequence[dict[str, Any]], *, seed: int
) -> dict[str, Any]:
    """Totals for the manifest, as :func:`audit.tables.totals.summarise_split` gives them.

    Args:
        gathered: From the digests of all parts.
        classes: The rows of ``classes.parquet``.
        sidecars: Of all parts.
        seed: Draws the bootstrap resamples of what rests on kept rows.

    Returns:
        The same names, and ``basis``: what rests on sums, on histograms and on kept rows.
    """
    exact = gathered.exact
    found = summarise_split(gathered.kept, classes, sidecars, seed=seed)
    means = {
        "accuracy": "correct",
        **{name: name for name in WITH_INTERVALS},
        "background_share_mask_low": "background_share_low",
        "background_share_mask_high": "background_share_high",
        "border_touch": "much_of_border",
        **{name: name for name in ("mask_confidence", "object_area", "unknown_area")},
    }
    found |= {name: exact.mean(summed) for name, summed in means.items()}
    found |= _split_intervals(gathered)
    return found | {
        "samples": exact.rows,
        "mask_confident": int(exact.total("trusted")),
        "mask_sources": exact.mask_sources,
        "duplicates": round(exact.repeats.repeated / exact.repeats.share),
        "conflicting_labels": round(exact.repeats.conflicting / exact.repeats.share),
        "basis": basis(gathered),
    }


def _split_intervals(gathered: Gathered) -> dict[str, float | None]:
    """Ends of the intervals of means over samples and over classes, as far as groups tell them."""
    exact = gathered.exact
    found: dict[str, float | None] = {}
    for name in WITH_INTERVALS:
        place = GROUPED.index(name)
        counts, sums = exact.cell_counts[:, :, place], exact.cell_sums[:, :, place]
        micro = grouped_means(counts.sum(axis=0), sums.sum(axis=0))
        for kind, means in (("", micro), ("_macro", macro_mean(counts[:-1], sums[:-1]))):
            for end, value in zip(("low", "high"), means.ends(), strict=True):
                if np.isfinite(value):
                    found[f"{name}{kind}_{end}"] = float(value)
    return found


def basis(gathered: Gathered) -> dict[str, Any]:
    """What the numbers of a large run rest on, for the manifest."""
    setting, exact = gathered.setting, gathered.exact
    limit = gathered.suspects["label"].value_counts()
    return {
        "how": "summed",
        "parts": exact.parts,
        "exact": "counts, means and shares of totals, classes and confusion; channels; the ranking "
        "of label suspects and of galleries among the candidates",
        "intervals": f"delete-a-group jackknife, {setting.groups} groups of pictures; of quantiles "
        "by Woodruff's method",
        "sketched": {
            "what": "medians, 10th and 90th percentiles of classes",
            "absolute_error_bounded_scores": BOUNDED_ERROR,
            "relative_error_other_scores": RELATIVE_ERROR,
            "magnitudes_told_apart": [SMALLEST, LARGEST],
        },
        "estimated": {
            "what": "n_clusters, n_duplicates, duplicates, conflicting_labels",
            "share_of_pictures": exact.repeats.share,
        },
        "kept_rows": {
            "tables": [*KEPT_TABLES, *UNIFORM_TABLES],
            "columns": "area_correlation, shuffle_*, label_issues and what rests on edits; "
            "n_kept of classes says of how many rows",
            "rows": len(gathered.kept),
            "of_the_split": int(gathered.uniform.sum()),
        },
        "label_suspects": {
            "candidates_a_class": setting.suspects,
            "classes_with_more": int((limit >= setting.suspects).sum()),
        },
        "classes": interval_counts(gathered),
    }


def _table(values: Mapping[str, NDArray[Any]], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array(values[field.name], from_pandas=True).cast(field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
