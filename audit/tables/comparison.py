"""``compare.parquet`` and ``changes.parquet``: two runs on the same images, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, schema_of
from audit.tables.changes import list_changes
from audit.tables.clusters import find_clusters
from audit.tables.comparable import check_comparable, same_targets
from audit.tables.frames import read_edits
from audit.tables.nulls import adjusted_p
from audit.tables.paired_groups import (
    Grouping,
    GroupMeans,
    bootstrap,
    equivalence,
    pooled,
    score_equivalence,
    score_interval,
    sign_test,
    t_interval,
    t_test,
)
from audit.tables.power import ALPHA, detectable_mean
from audit.tables.reading import AuditRun
from audit.tables.scored import (
    METRIC_NAMES,
    METRICS,
    Metric,
    Scores,
    edits_by_row,
    logit_margin,
    pair_edits,
    same_donors,
    scores_of_edits,
    scores_of_rows,
)
from audit.tables.thresholds import THRESHOLDS

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Bools = NDArray[np.bool_]

BETTER, WORSE, SAME, UNDECIDED = "better", "worse", "no change", "undecided"
COMPARISONS = (WORSE, BETTER, UNDECIDED, SAME)
PAIRED, OTHER_DONORS, UNPAIRED = "paired", "paired, other objects", "unpaired"
# The whole split among the labels.
SPLIT = -1
# Fewer different pictures decide nothing.
LEAST_PAIRS = 10
# McNemar's test needs so many changed samples, all to one side, for p ≤ .05.
_LEAST_SIGNS = 6
# Clusters and samples tell the same change where they differ by less than this share of its error.
_LEVEL_WITH = 0.1
_ROUNDING = 1e-12
# A family of masks that is usable for fewer than this share of the pairs is left aside.
_LEAST_USABLE = THRESHOLDS.least_usable

_F64 = pa.float64()
_FEW = "fewer than two different pictures have both values"
COMPARE_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K), or −1",
           meaning="The class; −1 for the whole split."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name.",
           null_when="it is a row of the split"),
    Column(name="metric", type=pa.string(), range=", ".join(METRIC_NAMES),
           meaning="What is compared: means of the columns of that name in samples, with maps and "
           "contributions of the labelled class; transplant_highest under the masks that show "
           "most in either run; reliance, decided_share and bg_gap of edited samples as in classes "
           "(rows of the split: the mean over classes). A metric that no pair has has no row."),
    Column(name="better_if", type=pa.string(), range="higher, lower", meaning="Its direction."),
    Column(name="family", type=pa.string(), range="as in mask_source",
           meaning="The masks that the numbers rest on.", null_when="masks play no part"),
    Column(name="pairing", type=pa.string(), range=f"{PAIRED}; {OTHER_DONORS}; {UNPAIRED}",
           meaning="Whether the same samples are compared; edited ones with objects of the same "
           "images put on their backgrounds, or of others; unpaired where fewer than "
           f"{THRESHOLDS.least_edited} samples of the class were edited in both runs."),
    Column(name="n", type=pa.int64(), range="≥ 1",
           meaning="Samples with a value in both runs; of unpaired rows those of the run with "
           "fewer."),
    Column(name="n_clusters", type=pa.int64(), range="≥ 1",
           meaning="Different pictures among them, by image_hash; intervals and tests rest on "
           "them."),
    Column(name="a", type=_F64, range="as the metric", meaning="The first run's mean over them."),
    Column(name="b", type=_F64, range="as the metric", meaning="The second run's."),
    Column(name="change", type=_F64, range="as the metric", meaning="b − a."),
    Column(name="low", type=_F64, range="as the metric",
           meaning="Lower end of the change's 95% interval (Tango's score for accuracy, "
           "pointing_hit, right_for_wrong_reason and decided_share of classes; BCa bootstrap of "
           "pairs else, and where near-duplicates differ; Student's t for unpaired rows, means "
           "over classes, and where nothing differs).", null_when=_FEW),
    Column(name="high", type=_F64, range="as the metric", meaning="Upper end of it.",
           null_when=_FEW),
    Column(name="p", type=_F64, range="[0, 1]",
           meaning="Two-sided p of no change: McNemar for accuracy, pointing_hit and "
           "right_for_wrong_reason, else a t test of the paired differences; times the number of "
           "families of masks that were chosen from.", null_when=_FEW),
    Column(name="q", type=_F64, range="[0, 1]",
           meaning="The same after Benjamini and Hochberg over the classes; for rows of the split "
           "over the metrics.", null_when="p is null"),
    Column(name="margin", type=_F64, range="> 0",
           meaning="Changes up to this count as none: .02; .01 for accuracy; .05 for reliance, "
           "decided_share and bg_gap; for contributions 2% of the mean target_logit of both runs.",
           null_when="no sample has a target_logit"),
    Column(name="equivalent", type=pa.bool_(), range="true, false",
           meaning="Whether the change is surely within the margin: two one-sided tests (TOST; "
           "Tango's where low is) at .05, under every family of masks."),
    Column(name="equivalence_p", type=_F64, range="[0, 1]", meaning="The p of these tests.",
           null_when=_FEW),
    Column(name="detectable", type=_F64, range="> 0",
           meaning="The smallest change that this many pairs would show (chance .8, two-sided test "
           "at .05).", null_when=_FEW + ", or no change that is possible would be seen"),
    Column(name="verdict", type=pa.string(), range=f"{BETTER}, {WORSE}, {SAME}, {UNDECIDED}",
           meaning="no change where equivalent; else better or worse where q ≤ .05 and the "
           "interval leaves out 0, unless other masks surely show the opposite; else undecided. "
           f"With fewer than {LEAST_PAIRS} different pictures ({THRESHOLDS.least_edited} edited "
           "ones) undecided. One and the same model: no change everywhere."),
)  # fmt: skip


def compare_runs_tables(a: AuditRun, b: AuditRun, seed: int = 0) -> dict[str, pa.Table]:
    """Compare two runs over the same images.

    Args:
        a: The first run, for example last month's model.
        b: The second.
        seed: Draws bootstrap resamples.

    Returns:
        ``compare`` with :data:`COMPARE_COLUMNS`, the split's rows first, and ``changes`` with
        :data:`audit.tables.changes.CHANGE_COLUMNS`, the most telling sample first.

    Raises:
        UsageError: If the runs cannot be compared; it names all that differs.
    """
    check_comparable(a, b)
    sides = Sides.of(a, b)
    return {"compare": compare_rows(sides, seed), "changes": list_changes(*sides.samples)}


@dataclass(frozen=True, kw_only=True)
class Sides:
    """The rows of two runs over the same samples in one order.

    Attributes:
        samples: All rows of each.
        edits: Rows of edits of each, by place in ``samples``; ``None`` where a run has none.
        families: Names of the families of masks, the main one first.
        classes: Class names.
        one_model: Whether both runs are of the same weights.
    """

    samples: tuple[pd.DataFrame, pd.DataFrame]
    edits: tuple[pd.DataFrame | None, pd.DataFrame | None]
    families: Sequence[str]
    classes: Sequence[str]
    one_model: bool

    @classmethod
    def of(cls, a: AuditRun, b: AuditRun) -> Sides:
        """Read what is compared."""
        facts, other = a.manifest, b.manifest
        known = facts.get("weights_sha256") is not None
        same = known and facts["weights_sha256"] == other["weights_sha256"]
        return cls(
            samples=(a.samples, b.samples),
            edits=(
                edits_by_row(read_edits(a.path), a.samples),
                edits_by_row(read_edits(b.path), b.samples),
            ),
            families=families_of(facts),
            classes=facts["classes"],
            one_model=(same and facts["model"] == other["model"])
            or facts["fingerprint"] == other["fingerprint"],
        )


def families_of(manifest: Mapping[str, Any]) -> list[str]:
    """Names of a run's families of masks as its columns have them, the main one first."""
    return [str(name).partition(":")[0] for name in manifest["mask_families"]]


def compare_rows(sides: Sides, seed: int) -> pa.Table:
    """The table ``compare``.

    Args:
        sides: The rows of both runs.
        seed: Draws bootstrap resamples.

    Returns:
        A table with :data:`COMPARE_COLUMNS`.
    """
    pairs = _Pairs.of(sides)
    equal = sides.one_model and pairs.equal()
    compared = {
        metric.name: _compare(metric, pairs, equal=equal)
        for metric in METRICS
        if pairs.differences.get(metric.name)
    }
    _draw_intervals(compared, pairs, seed)
    rows = [_columns(name, each, pairs) for name, each in compared.items()]
    if not rows:
        return schema_of(COMPARE_COLUMNS).empty_table()
    frame = pd.concat(rows, ignore_index=True)
    frame = frame[frame["n"] > 0]
    frame["q"] = _adjusted(frame)
    frame["verdict"] = _verdicts(frame, equal=equal)
    order = np.lexsort((frame["metric"].map(METRIC_NAMES.index), frame["label"]))
    frame = frame.iloc[order]
    arrays = [pa.array(frame[c.name], c.type, from_pandas=True) for c in COMPARE_COLUMNS]
    return pa.Table.from_arrays(arrays, schema=schema_of(COMPARE_COLUMNS))


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Values of both runs by metric and family of masks; NaN where either lacks one."""

    first: Scores
    second: Scores
    differences: Scores
    alone: tuple[Scores, Scores]
    donors: Bools
    margin: float
    classes: Sequence[str]
    clusters: Ids
    by_class: Grouping
    whole: Grouping

    @classmethod
    def of(cls, sides: Sides) -> _Pairs:
        samples, classes = sides.samples, sides.classes
        scores = [scores_of_rows(rows, sides.families) for rows in samples]
        same = same_targets(*samples)
        for each in scores:
            hits = each["pointing_hit"].items()
            each["pointing_hit"] = {f: np.where(same, values, np.nan) for f, values in hits}
        donors, alone = _add_edits(scores, sides)
        differences = {
            name: {
                family: scores[1][name][family] - values
                for family, values in families.items()
                if family in scores[1].get(name, {})
            }
            for name, families in scores[0].items()
        }
        clusters = find_clusters(samples[0])
        labels = samples[0]["label"].fillna(-1).to_numpy(np.int64)
        labelled = np.where(labels >= 0, 0, -1)
        logits = {
            side: rows["target_logit"].to_numpy(np.float64, na_value=np.nan)
            for side, rows in zip("ab", samples, strict=True)
        }
        return cls(
            first=scores[0],
            second=scores[1],
            differences=differences,
            alone=alone,
            donors=donors,
            margin=logit_margin(logits),
            classes=classes,
            clusters=clusters,
            by_class=Grouping.of(labels, len(classes), clusters),
            whole=Grouping.of(labelled, 1, clusters),
        )

    def equal(self) -> bool:
        """Whether no value differs."""
        return all(
            not np.nan_to_num(values).any()
            for families in self.differences.values()
            for values in families.values()
        )


def _add_edits(scores: list[Scores], sides: Sides) -> tuple[Bools, tuple[Scores, Scores]]:
    """Add what edits say of samples that both runs edited; and, apart, of all that each did.

    Returns:
        Which samples had objects of the same images put on their backgrounds, N; and each run's
        own scores.
    """
    count, classes = len(sides.samples[0]), len(sides.classes)
    donors = np.ones(count, np.bool_)
    one, other = sides.edits
    if one is None or other is None or not len(one) or not len(other):
        return donors, ({}, {})
    pair = pair_edits(one, other)
    if len(pair[0]):
        places = pair[0]["index"].to_numpy(np.int64)
        donors[places] = same_donors(*pair)
        for each, rows in zip(scores, pair, strict=True):
            each.update(scores_of_edits(rows, sides.families, classes, count))
    alone = [scores_of_edits(rows, sides.families, classes, count) for rows in (one, other)]
    if not len(pair[0]):
        nothing = {
            name: {family: np.full(count, np.nan) for family in families}
            for name, families in alone[0].items()
        }
        for each in scores:
            each.update(nothing)
    return donors, (alone[0], alone[1])


@dataclass
class _Compared:
    """One metric over all scopes, S = K + 1: the classes, then the split."""

    metric: Metric
    margin: float
    families: list[str]
    chosen: Ids
    n: Ids
    clusters: Ids
    first: Floats
    second: Floats
    change: GroupMeans
    p: Floats
    equivalence_p: Floats
    unpaired: Bools
    drawn: Bools
    ends: Floats
    # Whether other masks surely show the opposite.
    opposed: Bools

    def family(self, scope: int) -> str:
        return self.families[int(self.chosen[scope])]


def _compare(metric: Metric, pairs: _Pairs, *, equal: bool) -> _Compared:
    """One metric under the masks that show most in either run."""
    margin = pairs.margin if metric.margin is None else metric.margin
    families = list(pairs.differences[metric.name])
    found = [_under(metric, family, pairs, margin, equal=equal) for family in families]
    n = np.stack([each.n for each in found])
    highest = np.stack([np.fmax(each.first, each.second) for each in found])
    usable = n >= np.maximum(1, _LEAST_USABLE * n.max(axis=0))
    chosen = np.where(usable & np.isfinite(highest), highest, -np.inf).argmax(axis=0)
    result = _picked(found, chosen)
    result.families = families
    # Whatever picks one of several families, their number times p holds.
    number = usable.sum(axis=0).clip(1)
    sure = usable & (np.stack([each.p for each in found]) * number <= ALPHA)
    changes = np.stack([each.change.mean for each in found])
    result.opposed = (sure & (changes * result.change.mean < 0)).any(axis=0)
    result.p = np.minimum(1.0, result.p * number)
    every = np.stack([each.equivalence_p for each in found])
    result.equivalence_p = np.where(usable & np.isfinite(every), every, -np.inf).max(axis=0)
    result.equivalence_p[~np.isfinite(result.equivalence_p)] = np.nan
    return result


def _under(metric: Metric, family: str, pairs: _Pairs, margin: float, *, equal: bool) -> _Compared:
    """One metric under one family of masks."""
    differences = pairs.differences[metric.name][family]
    both = np.where(np.isfinite(differences), 1.0, np.nan)
    sides = [each[metric.name][family] * both for each in (pairs.first, pairs.second)]
    groups = [pairs.by_class.means(values) for values in (differences, *sides)]
    unpaired = np.zeros(len(pairs.classes), np.bool_)
    if metric.edited:
        groups, unpaired = _unpaired(metric, family, pairs, groups)
        wholes = [_over_classes(each, groups[0]) for each in groups]
    else:
        wholes = [pairs.whole.means(values) for values in (differences, *sides)]
    change, first, second = (_joined(g, w) for g, w in zip(groups, wholes, strict=True))
    if wholes[0] is not groups[0] and metric.edited and not wholes[0].n[0]:
        wholes = [pairs.whole.means(values) for values in (differences, *sides)]
        change, first, second = (_joined(g, w) for g, w in zip(groups, wholes, strict=True))
    flat = np.zeros(len(change.n), np.bool_)
    tested = change
    if metric.counted and not equal:
        # Where all samples agree one more might differ.
        flat = change.error == 0
        tested = change.floored(np.where(change.clusters > 0, 1 / (change.clusters + 1.0), 0))
    p = t_test(tested)
    ends, equivalence_p = t_interval(tested), equivalence(tested, margin)
    not_pairs = np.append(unpaired, metric.edited)
    by_score = np.zeros(len(p), np.bool_)
    if metric.yes_or_no:
        lost, gained = _signs(pairs, differences)
        if metric.by_sign:
            p = np.where(np.isfinite(change.error), sign_test(lost, gained), np.nan)
        if not equal:
            by_score = _are_outcomes(pairs, differences, change) & ~not_pairs
        score = score_equivalence(lost, gained, change.clusters, margin)
        equivalence_p = np.where(by_score, score, equivalence_p)
        ends[by_score] = score_interval(lost, gained, change.clusters)[by_score]
    return _Compared(
        metric=metric, margin=margin, families=[family], chosen=np.zeros(len(p), np.int64),
        n=change.n, clusters=change.clusters, first=first.mean, second=second.mean,
        change=tested, p=p, equivalence_p=equivalence_p, ends=ends,
        unpaired=np.append(unpaired, unpaired.any()), drawn=~(not_pairs | flat | by_score),
        opposed=np.zeros(len(p), np.bool_),
    )  # fmt: skip


def _signs(pairs: _Pairs, differences: Floats) -> tuple[Ids, Ids]:
    """How many clusters each scope lost and gained, S each."""
    counts = zip(pairs.by_class.signs(differences), pairs.whole.signs(differences), strict=True)
    lost, gained = (np.concatenate(each) for each in counts)
    return lost, gained


def _are_outcomes(pairs: _Pairs, differences: Floats, change: GroupMeans) -> Bools:
    """Scopes whose change is that of the number of clusters lost and gained, S."""
    lost, gained = _signs(pairs, differences)
    scopes = (pairs.by_class, pairs.whole)
    found = np.concatenate([each.are_outcomes(differences) for each in scopes])
    # Where large clusters changed, their number is not what the mean rests on.
    moved = (gained - lost) / np.maximum(change.clusters, 1) - change.mean
    return np.asarray(found & (abs(moved) <= _LEVEL_WITH * change.error + _ROUNDING))


def _unpaired(
    metric: Metric, family: str, pairs: _Pairs, groups: list[GroupMeans]
) -> tuple[list[GroupMeans], Bools]:
    """Difference of means for classes of which too few samples were edited in both runs."""
    nothing = np.full(len(pairs.donors), np.nan)
    values = (each.get(metric.name, {}).get(family, nothing) for each in pairs.alone)
    sides = [pairs.by_class.means(each) for each in values]
    least = THRESHOLDS.least_edited
    apart = (groups[0].clusters < least) & (sides[0].clusters >= least)
    apart &= sides[1].clusters >= least
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = [each.error**2 for each in sides]
        error = np.sqrt(squares[0] + squares[1])
        fourth = sum(s**2 / each.degrees for s, each in zip(squares, sides, strict=True))
        degrees = np.where(error > 0, error**4 / fourth, sides[0].degrees + sides[1].degrees)
    fewer = [np.minimum(getattr(sides[0], name), getattr(sides[1], name))
             for name in ("n", "clusters")]  # fmt: skip
    difference = GroupMeans(
        fewer[0], fewer[1], sides[1].mean - sides[0].mean, error, degrees,
        np.sqrt(sides[0].spread ** 2 + sides[1].spread ** 2),
    )  # fmt: skip
    made = [_where(apart, new, old) for new, old in zip((difference, *sides), groups, strict=True)]
    return made, apart


_PARTS = ("n", "clusters", "mean", "error", "degrees", "spread")


def _where(chosen: Bools, one: GroupMeans, other: GroupMeans) -> GroupMeans:
    return GroupMeans(*(np.where(chosen, getattr(one, p), getattr(other, p)) for p in _PARTS))


def _joined(one: GroupMeans, other: GroupMeans) -> GroupMeans:
    return GroupMeans(*(np.append(getattr(one, p), getattr(other, p)) for p in _PARTS))


def _over_classes(found: GroupMeans, change: GroupMeans) -> GroupMeans:
    """The mean over classes: edits take as many samples of one class as of another, or not."""
    kept = np.isfinite(change.error)
    # Classes of one sample each tell of the split only together.
    enough = change.n[kept].sum() * 2 >= change.n.sum()
    return pooled(found, kept & enough)


def _picked(found: Sequence[_Compared], chosen: Ids) -> _Compared:
    """Of each scope the family that was chosen."""
    scopes = np.arange(len(chosen))

    def pick(name: str) -> NDArray[Any]:
        return np.stack([getattr(each, name) for each in found])[chosen, scopes]

    change = GroupMeans(
        *(np.stack([getattr(each.change, p) for each in found])[chosen, scopes] for p in _PARTS)
    )
    return _Compared(
        metric=found[0].metric, margin=found[0].margin, families=[], chosen=chosen, change=change,
        **{name: pick(name) for name in ("n", "clusters", "first", "second", "p", "equivalence_p",
                                         "unpaired", "drawn", "ends", "opposed")},
    )  # fmt: skip


def _draw_intervals(compared: Mapping[str, _Compared], pairs: _Pairs, seed: int) -> None:
    """Replace the ends by those of the bootstrap, wherever pairs can be drawn."""
    group = pairs.by_class.group
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(len(pairs.classes) + 1))
    for scope in range(len(pairs.classes) + 1):
        of_split = scope == len(pairs.classes)
        rows = order[ends[0] :] if of_split else order[ends[scope] : ends[scope + 1]]
        asked = [each for each in compared.values() if each.drawn[scope]]
        if not len(rows) or not asked:
            continue
        values = np.stack(
            [pairs.differences[each.metric.name][each.family(scope)][rows] for each in asked],
            axis=1,
        )
        drawn = bootstrap(values, pairs.clusters[rows], (seed, scope))
        for each, own in zip(asked, drawn, strict=True):
            each.ends[scope] = own


def _columns(name: str, each: _Compared, pairs: _Pairs) -> pd.DataFrame:
    """The rows of one metric, without what depends on other rows."""
    labels = np.append(np.arange(len(pairs.classes)), SPLIT)
    metric, change = each.metric, each.change
    detectable = detectable_mean(
        np.nan_to_num(change.error) * np.sqrt(change.degrees + 1), change.degrees + 1
    )
    detectable = np.where(change.error > 0, detectable, np.nan)
    if metric.by_sign:
        signs = _LEAST_SIGNS / np.maximum(each.clusters, 1)
        detectable = np.where(signs <= 1, np.fmax(detectable, signs), np.nan)
    return pd.DataFrame(
        {
            "label": labels,
            "label_name": [*pairs.classes, None],
            "metric": name,
            "better_if": "higher" if metric.higher else "lower",
            "family": [each.family(scope) or None for scope in range(len(labels))],
            "pairing": _pairing(each, pairs),
            "n": each.n,
            "n_clusters": each.clusters,
            "a": each.first,
            "b": each.second,
            "change": change.mean,
            "low": each.ends[:, 0],
            "high": each.ends[:, 1],
            "p": each.p,
            "margin": each.margin,
            "equivalence_p": each.equivalence_p,
            "equivalent": each.equivalence_p <= ALPHA,
            "detectable": detectable,
            "edited": metric.edited,
            "opposed": each.opposed,
        }
    )


def _pairing(each: _Compared, pairs: _Pairs) -> NDArray[Any]:
    """How the samples of each scope are paired."""
    found = np.full(len(each.n), PAIRED, dtype=object)
    if each.metric.edited:
        known = np.isfinite(pairs.differences[each.metric.name][each.families[0]])
        other = np.bincount(
            pairs.by_class.group[known & ~pairs.donors & (pairs.by_class.group >= 0)],
            minlength=len(pairs.classes),
        )
        found[np.append(other, other.sum()) > 0] = OTHER_DONORS
        found[each.unpaired] = UNPAIRED
    return found


def _adjusted(frame: pd.DataFrame) -> Floats:
    """The q over the classes of each metric, and over the metrics of the split."""
    keys = np.where(frame["label"] == SPLIT, "", frame["metric"])
    q = np.full(len(frame), np.nan)
    p = frame["p"].to_numpy(np.float64)
    for key in np.unique(keys):
        q[keys == key] = adjusted_p(p[keys == key])
    return q


def _verdicts(frame: pd.DataFrame, *, equal: bool) -> NDArray[Any]:
    if equal:
        return np.full(len(frame), SAME, dtype=object)
    least = np.where(frame["edited"], THRESHOLDS.least_edited, LEAST_PAIRS)
    enough = frame["n_clusters"].to_numpy() >= least
    moved = (frame["low"] > 0) | (frame["high"] < 0)
    sure = (frame["q"] <= ALPHA) & moved & ~frame["opposed"]
    rises = (frame["change"] > 0) == (frame["better_if"] == "higher")
    found = np.where(sure, np.where(rises, BETTER, WORSE), UNDECIDED)
    found = np.where(frame["equivalent"], SAME, found)
    return np.where(enough, found, UNDECIDED)
