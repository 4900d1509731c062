"""``backgrounds.parquet``: the kinds of background that speak for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, table_of
from audit.tables.channels import Floats, read_channels, unpack
from audit.tables.grouping import (
    COMPONENTS,
    LEAST_POINTS,
    LEAST_SHARE,
    MOST_GROUPS,
    MOST_POINTS,
    find_groups,
)
from audit.tables.nulls import adjusted_p
from audit.tables.power import wilson_interval
from audit.tables.spuriosity import (
    END_SHARE,
    FOLDS,
    LEAST_AT_END,
    accuracy_gap,
    channel_weights,
    crossfitted_evidence,
)

Positions = NDArray[np.int64]

PROTOTYPES = 8
TOP_CHANNELS = 5
# What low and high values of a property look like; a group whose median lies in the split's lowest
# or highest third is called so.
WORDS: Mapping[str, tuple[str, str]] = {
    "brightness": ("dark", "bright"),
    "saturation": ("pale", "colourful"),
    "red_green": ("green", "red"),
    "yellow_blue": ("blue", "yellow"),
    "sharpness": ("smooth", "detailed"),
}
# The two whose words are colours.
COLOURS = ("red_green", "yellow_blue")
# What is said of the samples of a kind, beside WORDS.
_OF_KINDS = (
    "sample_id", "label", "target", "alt_target", "correct", "target_logit", "far_logit",
    "alt_far_logit", "transplant_rate",
)  # fmt: skip
_F64 = pa.float64()
_ALONE = "the class has one kind of background"
_FEW = f"fewer than {LEAST_AT_END} samples at either end, or no sample is explained as the class"

BACKGROUND_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)",
           meaning="The class. Classes without far background to look at (no sample whose vectors "
           "were kept, or none that is explained as the class) have no row."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="cluster", type=pa.int32(), range=f"[0, {MOST_GROUPS})",
           meaning="Kind of background, by far_logit: 0 speaks most for the class. Found by Ward's "
           f"tree over the {COMPONENTS} principal components of what the channels' mean "
           "far-background features say for the class (of at most "
           f"{MOST_POINTS:,} samples; the others join the nearest); as many as are clearest apart, "
           "and one where they are no clearer than chance makes them."),
    Column(name="n", type=pa.int64(), range="≥ 1",
           meaning="Samples with this label and this kind of background. A kind holds at least "
           f"{LEAST_POINTS} samples and {LEAST_SHARE:.0%} of those compared, unless it is the only "
           "one."),
    Column(name="share", type=_F64, range="(0, 1]",
           meaning="n over the class's samples whose far_features were kept."),
    Column(name="silhouette", type=_F64, range="[−1, 1]",
           meaning="How clearly the class's kinds are apart; the same in all rows of a class.",
           null_when=_ALONE),
    Column(name="far_logit", type=_F64, range="logits",
           meaning="Mean of what far background contributes to this class, whatever was "
           "predicted.", null_when="neither map of any of these samples explains the class"),
    Column(name="class_logit", type=_F64, range="logits",
           meaning="Mean target_logit of those that are explained as the class.",
           null_when="none is"),
    Column(name="logit_share", type=_F64, range="a share where background and rest agree in sign",
           meaning="Sum of far_logit over sum of target_logit of those that are explained as the "
           "class.", null_when="none is, or the second sum is not positive"),
    Column(name="transplant_rate", type=_F64, range="[0, 1]",
           meaning="Mean of their transplant_rate.", null_when="none has it"),
    *(
        Column(name=f"accuracy{where}{end}", type=_F64, range="[0, 1]",
               meaning=meaning if not end else f"{side} end of its 95% interval (Wilson).",
               null_when=null)
        for where, meaning, null in (
            ("", "Share of them that are predicted as labelled.", "none has a prediction"),
            ("_outside", "The same of the class's samples with other kinds.", _ALONE),
        )
        for end, side in (("", ""), ("_low", "Lower"), ("_high", "Upper"))
    ),
    Column(name="spuriosity_gap", type=_F64, range="[−1, 1]",
           meaning=f"Of the class, the same in all its rows: accuracy of the {END_SHARE:.0%} with "
           f"the most far evidence minus that of the {END_SHARE:.0%} with the least. A sample's "
           "evidence is weighed by channel weights that other samples gave (cross-fitted, "
           f"{FOLDS} folds).", null_when=_FEW),
    Column(name="spuriosity_low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95% interval (Newcombe).", null_when=_FEW),
    Column(name="spuriosity_high", type=_F64, range="[−1, 1]", meaning="Upper end.",
           null_when=_FEW),
    Column(name="spuriosity_p", type=_F64, range="[0, 1]",
           meaning="Probability of such a gap by chance (Fisher's exact test, two-sided).",
           null_when=_FEW),
    Column(name="spuriosity_q", type=_F64, range="[0, 1]",
           meaning="The same, adjusted for looking at all classes (Benjamini–Hochberg).",
           null_when=_FEW),
    Column(name="spuriosity_n", type=pa.int64(), range=f"≥ {LEAST_AT_END}",
           meaning="Samples at either end.", null_when=_FEW),
    Column(name="prototypes", type=pa.list_(pa.string()), range=f"up to {PROTOTYPES} sample_ids",
           meaning="Of the half to which far background adds most, the samples nearest to the "
           "middle of the kind, nearest first."),
    Column(name="top_channels", type=pa.list_(pa.int32()), range=f"up to {TOP_CHANNELS} channels",
           meaning="Channels through which this background speaks most for the class."),
    Column(name="description", type=pa.string(), range="words",
           meaning="What these images have in common: properties whose median lies in the lowest "
           "or highest third of the split's; of two colours, the one further out. Of whole images, "
           "objects included.",
           null_when="nothing stands out, or the samples have no image properties"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class FarBackground:
    """Far background of the samples whose vectors were kept; n samples, C channels.

    Attributes:
        place: Where the samples stand among all rows, n.
        label: Their labels, -1 for none, n.
        target: The classes that their maps explain, n.
        supplied: What far background contributes to the target through each channel, n×C.
        look: Mean features of far background, n×C.
        area: Share of the image that is far background, n.
        fold: For cross-fitting, n.
    """

    place: Positions
    label: Positions
    target: Positions
    supplied: Floats
    look: Floats
    area: Floats
    fold: Positions

    def amount(self, members: Positions) -> Floats:
        """Features summed over far background, over the number of all cells, members×C."""
        return self.look[members] * self.area[members, None]


def summarise_backgrounds(
    samples: pd.DataFrame, classes: Sequence[str], grid: tuple[int, int], seed: int
) -> pa.Table:
    """One row for each class and kind of background.

    The evidence that a sample's far background holds for a class is, channel by channel, its
    features there times what a unit of the channel supplies to the class
    (:func:`audit.tables.spuriosity.channel_weights`). For a pooled linear head it sums to the far
    logit of the class, whatever the sample's prediction.

    Args:
        samples: The rows of all parts.
        classes: Class names.
        grid: h and w of the maps.
        seed: Draws folds, and the points without groups that groups are compared with.

    Returns:
        A table with :data:`BACKGROUND_COLUMNS`, by class and kind; empty without kept vectors.
    """
    far = read_far(samples, grid, seed)
    thirds = _thirds(samples)
    # Rows are taken for each kind; all their columns would be most of the work of small classes.
    samples = samples[[name for name in (*_OF_KINDS, *WORDS) if name in samples]]
    rows: list[dict[str, object]] = []
    for label, name in enumerate(classes):
        members = np.flatnonzero(far.label == label)
        explained = np.flatnonzero(far.target == label)
        if len(members) and len(explained):
            rng = np.random.default_rng((seed, label))
            gap = _gap(samples, far, members, explained)
            for row in _kinds(samples, far, members, explained, rng, thirds):
                rows.append({"label": label, "label_name": name} | row | gap)
    _adjust(rows)
    return table_of(rows, BACKGROUND_COLUMNS)


def read_far(samples: pd.DataFrame, grid: tuple[int, int], seed: int) -> FarBackground:
    """Unpack what is stored of far background.

    Args:
        samples: All rows, with ``channel_logits`` and ``far_features`` or without.
        grid: h and w of the maps.
        seed: Draws the folds.

    Returns:
        The samples with status ok that have both.
    """
    kept = (samples["status"] == "ok").to_numpy(bool) & samples["target"].notna().to_numpy(bool)
    evidence = read_channels(samples, kept)
    both = np.zeros(len(samples), bool)
    both[evidence.place] = True
    place, look = unpack(samples, "far_features", both)
    folds = np.random.default_rng(seed).permutation(len(place)) % FOLDS
    return FarBackground(
        place=place,
        label=samples["label"].iloc[place].fillna(-1).to_numpy(np.int64),
        target=samples["target"].iloc[place].to_numpy(np.int64),
        supplied=evidence.far[np.searchsorted(evidence.place, place)],
        look=look,
        area=_far_area(samples, place, grid),
        fold=folds,
    )


def _far_area(samples: pd.DataFrame, place: Positions, grid: tuple[int, int]) -> Floats:
    """The share of the image more than a cell from the object, n; the unknown counts as far."""
    if not len(place):
        return np.zeros(0, np.float32)
    masks = np.stack(samples["grid_mask"].iloc[place].tolist()).astype(np.float32)
    cells = masks.reshape(-1, *grid)
    # The largest of a cell and its eight neighbours, first down, then across.
    for axis in (1, 2):
        cells = _with_neighbours(cells, axis)
    return np.asarray((1 - cells).mean(axis=(1, 2)), np.float32)


def _with_neighbours(cells: Floats, axis: int) -> Floats:
    """The largest of each cell and the two beside it along an axis of n×h×w."""
    grown = cells.copy()
    before: list[slice] = [slice(None)] * 3
    after = before.copy()
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    one, other = tuple(before), tuple(after)
    np.maximum(grown[one], cells[other], out=grown[one])
    np.maximum(grown[other], cells[one], out=grown[other])
    return grown


def _kinds(
    samples: pd.DataFrame,
    far: FarBackground,
    members: Positions,
    explained: Positions,
    rng: np.random.Generator,
    thirds: pd.DataFrame,
) -> list[dict[str, Any]]:
    """The rows of one class, without what is the same in all of them."""
    weights = channel_weights(far.supplied[explained], far.amount(explained)).astype(np.float32)
    evidence = far.amount(members) * weights
    # By what the background is, not by how much of it the object leaves to be seen.
    groups = find_groups(far.look[members] * weights, rng)
    rows: list[dict[str, Any]] = []
    for group in range(groups.count):
        inside = groups.of == group
        of_kind = samples.iloc[far.place[members[inside]]]
        outside = samples.iloc[far.place[members[~inside]]]
        rows.append(
            {
                "n": len(of_kind),
                "share": len(of_kind) / len(members),
                "silhouette": _or_none(groups.silhouette),
                **_logits(of_kind),
                "transplant_rate": _or_none(of_kind["transplant_rate"].mean()),
                **_accuracy(of_kind, "accuracy"),
                **_accuracy(outside, "accuracy_outside"),
                "prototypes": _prototypes(of_kind, groups.place[inside]),
                "top_channels": _top_channels(evidence[inside]),
                "description": _describe(of_kind, thirds),
            }
        )
    # A kind without a far logit comes last.
    rows.sort(key=lambda row: np.inf if row["far_logit"] is None else -row["far_logit"])
    return [{"cluster": cluster} | row for cluster, row in enumerate(rows)]


def _logits(rows: pd.DataFrame) -> dict[str, float | None]:
    """What far background supplies to the labelled class, alone and of the whole."""
    own = (rows["target"] == rows["label"]).fillna(False).to_numpy(bool)
    supplied = _supplied(rows)
    whole = float(rows["target_logit"][own].sum())
    return {
        "far_logit": _or_none(float(pd.Series(supplied).mean())),
        "class_logit": whole / int(own.sum()) if own.any() else None,
        "logit_share": float(rows["far_logit"][own].sum()) / whole if whole > 0 else None,
    }


def _accuracy(rows: pd.DataFrame, name: str) -> dict[str, float | None]:
    known = rows["correct"].dropna().astype(bool)
    share = float(known.mean()) if len(known) else float("nan")
    low, high = wilson_interval(share, len(known))
    return {
        name: _or_none(share),
        f"{name}_low": _or_none(float(low)),
        f"{name}_high": _or_none(float(high)),
    }


def _supplied(rows: pd.DataFrame) -> NDArray[np.float64]:
    """What far background supplies to each sample's label; NaN where no map explains it."""
    own = (rows["target"] == rows["label"]).fillna(False).to_numpy(bool)
    # The second map of a wrong prediction explains the label.
    other = (rows["alt_target"] == rows["label"]).fillna(False).to_numpy(bool)
    supplied = np.where(own, rows["far_logit"], np.where(other, rows["alt_far_logit"], np.nan))
    return np.asarray(supplied, np.float64)


def _prototypes(rows: pd.DataFrame, place: Floats) -> list[str]:
    supplied = np.nan_to_num(_supplied(rows), nan=-np.inf)
    distance = ((place - place.mean(axis=0)) ** 2).sum(axis=1)
    distance[supplied < np.median(supplied)] = np.inf
    nearest = np.argsort(distance, kind="stable")[:PROTOTYPES]
    return [str(rows["sample_id"].iloc[n]) for n in nearest if np.isfinite(distance[n])]


def _top_channels(evidence: Floats) -> list[int]:
    means = evidence.mean(axis=0)
    strongest = np.argsort(-means, kind="stable")[:TOP_CHANNELS]
    return [int(channel) for channel in strongest if means[channel] > 0]


def _thirds(samples: pd.DataFrame) -> pd.DataFrame:
    """Where the lowest third of the split ends and the highest begins, by property."""
    names = [name for name in WORDS if name in samples and samples[name].notna().any()]
    return samples[names].astype(float).quantile([1 / 3, 2 / 3])


def _describe(rows: pd.DataFrame, thirds: pd.DataFrame) -> str | None:
    words = {}
    beyond = {}
    for name in thirds:
        low, high = thirds[name]
        middle = float(rows[name].median())
        if low < high and not low < middle < high:
            words[str(name)] = WORDS[str(name)][int(middle >= high)]
            beyond[str(name)] = max(low - middle, middle - high)
    # A blue sky is a little greenish too; the word is for the colour that stands out more.
    for hue, other in (COLOURS, COLOURS[::-1]):
        if hue in words and beyond.get(other, -1.0) > beyond[hue]:
            del words[hue]
    return ", ".join(words.values()) or None


def _gap(
    samples: pd.DataFrame, far: FarBackground, members: Positions, explained: Positions
) -> dict[str, object]:
    """How accuracy differs between the most and the least far evidence for the class."""
    evidence = crossfitted_evidence(
        far.amount(members),
        far.fold[members],
        far.supplied[explained],
        far.amount(explained),
        far.fold[explained],
    )
    correct = samples["correct"].iloc[far.place[members]].fillna(False).to_numpy(bool)
    found = accuracy_gap(evidence, correct)
    if found is None:
        return {}
    return {
        "spuriosity_gap": found.gap,
        "spuriosity_low": found.low,
        "spuriosity_high": found.high,
        "spuriosity_p": found.p,
        "spuriosity_n": found.n,
    }


def _adjust(rows: list[dict[str, object]]) -> None:
    """Add to every row its class's p, adjusted for the number of classes."""
    tested = {row["label"]: row["spuriosity_p"] for row in rows if "spuriosity_p" in row}
    if not tested:
        return
    p_values = np.array(list(tested.values()), np.float64)
    adjusted = dict(zip(tested, adjusted_p(p_values).tolist(), strict=True))
    for row in rows:
        row["spuriosity_q"] = adjusted.get(row["label"])


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
