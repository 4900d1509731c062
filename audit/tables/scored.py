"""The scores of each sample that runs are compared by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.tables.edited import accuracies
from audit.tables.evidence import DECIDES, LEAST_COUNTED, LEAST_OWN, Transplants
from audit.tables.paired import MARGIN

Floats = NDArray[np.float64]

# Two accuracies this close count as equal.
ACCURACY_MARGIN = 0.01
# What pixels show of two runs this close: a clean class may show as much (thresholds.py).
EDIT_MARGIN = 0.05
# Of contributions: this share of the mean target logit.
LOGIT_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Something that two runs are compared by.

    Attributes:
        name: As in the tables.
        higher: Whether more of it is better.
        margin: Changes up to this count as none; ``None`` for contributions, whose margin is
            :data:`LOGIT_SHARE` of the mean target logit.
        counted: Whether it counts outcomes, so that equal samples do not prove equal models.
        by_sign: Whether it is tested by McNemar's test.
        yes_or_no: Whether each sample is yes or no: what is rare may not have occurred yet.
        of_masks: Whether it has a value under each family of masks.
        edited: Whether it comes from edited pixels, of some samples.
    """

    name: str
    higher: bool
    margin: float | None = MARGIN
    counted: bool = False
    by_sign: bool = False
    yes_or_no: bool = False
    of_masks: bool = False
    edited: bool = False


METRICS: tuple[Metric, ...] = (
    Metric(name="accuracy", higher=True, margin=ACCURACY_MARGIN, counted=True, by_sign=True,
           yes_or_no=True),
    Metric(name="reliance", higher=False, margin=EDIT_MARGIN, counted=True, of_masks=True,
           edited=True),
    Metric(name="decided_share", higher=False, margin=EDIT_MARGIN, counted=True, of_masks=True,
           edited=True, yes_or_no=True),
    Metric(name="bg_gap", higher=False, margin=EDIT_MARGIN, counted=True, edited=True),
    Metric(name="transplant_rate", higher=False, counted=True),
    Metric(name="transplant_highest", higher=False, counted=True, of_masks=True),
    Metric(name="right_for_wrong_reason", higher=False, counted=True, by_sign=True,
           yes_or_no=True),
    Metric(name="background_share", higher=False),
    Metric(name="kappa", higher=True),
    Metric(name="pointing_hit", higher=True, counted=True, by_sign=True, yes_or_no=True),
    Metric(name="object_logit", higher=True, margin=None),
    Metric(name="far_logit", higher=False, margin=None),
)  # fmt: skip
METRIC_NAMES = tuple(metric.name for metric in METRICS)

# For each metric its values by family of masks, one a sample; NaN where undefined.
Scores = dict[str, dict[str, Floats]]


def scores_of_rows(samples: pd.DataFrame, families: Sequence[str]) -> Scores:
    """What the rows say of each sample.

    Maps and contributions are those of the labelled class, whatever was predicted, so that two
    models are asked about the same class; ``pointing_hit`` is known for the explained class only.

    Args:
        samples: All rows.
        families: Names of the families of masks, the main one first.

    Returns:
        For each metric that is not of edits its values by family, N each.

    Example:
        >>> rows = pd.DataFrame({"label": [1, 1], "target": [1, 0], "alt_target": [None, 1],
        ...     "far_logit": [0.5, 3.0], "alt_far_logit": [None, 0.25]})
        >>> of_label(rows, "far_logit").tolist()
        [0.5, 0.25]
    """
    main = families[0]
    share = of_label(samples, "background_share")
    area = _numbers(samples, "object_area")
    found: Scores = {
        "accuracy": {"": _numbers(samples, "correct")},
        "right_for_wrong_reason": {main: _numbers(samples, "right_for_wrong_reason")},
        "background_share": {main: share},
        "kappa": {main: (1 - share - area) / np.where(area < 1, 1 - area, np.nan)},
        "pointing_hit": {main: _numbers(samples, "pointing_hit")},
        "object_logit": {main: of_label(samples, "object_logit")},
        "far_logit": {main: of_label(samples, "far_logit")},
        "transplant_rate": {main: _numbers(samples, "transplant_rate")},
        "transplant_highest": {
            family: _numbers(samples, column)
            for place, family in enumerate(families)
            if (column := f"{family}_transplant_rate" if place else "transplant_rate") in samples
        },
    }
    return found


def of_label(samples: pd.DataFrame, name: str) -> Floats:
    """A score of the labelled class's map: the main one, or the other of prediction and label."""
    label = _numbers(samples, "label")
    found = np.full(len(samples), np.nan)
    for target, column in (("target", name), ("alt_target", f"alt_{name}")):
        own = _numbers(samples, target) == label
        found[own] = _numbers(samples, column)[own]
    return found


def _numbers(samples: pd.DataFrame, name: str) -> Floats:
    """A column as float64 with NaN for null."""
    return samples[name].to_numpy(np.float64, na_value=np.nan)


def scores_of_edits(
    edits: pd.DataFrame, families: Sequence[str], classes: int, count: int
) -> Scores:
    """What edited pixels say of each sample.

    Args:
        edits: Rows of edits.
        families: Names of the families of masks, the main one first.
        classes: K.
        count: Samples in the split, N.

    Returns:
        ``reliance`` (the mean effect over a sample's transplants), ``decided_share`` (whether its
        background decides alone) and ``bg_gap``, as defined for ``evidence`` and ``classes``; N
        each, NaN for samples that were not edited or say nothing.
    """
    places = edits["index"].to_numpy(np.int64)

    def spread(values: Floats) -> Floats:
        every = np.full(count, np.nan)
        every[places] = values
        return every

    right = accuracies(edits)
    gaps = right["acc_mixed_same"] - right["acc_mixed_rand"]
    found: Scores = {"reliance": {}, "decided_share": {}, "bg_gap": {families[0]: spread(gaps)}}
    for place, family in enumerate(families):
        prefix = f"{family}_" if place else ""
        if f"{prefix}transplant_predictions" not in edits:
            continue
        effect, decided = effects_of_samples(Transplants.of(edits, prefix), classes)
        found["reliance"][family] = spread(effect)
        found["decided_share"][family] = spread(decided)
    return found


def effects_of_samples(found: Transplants, classes: int) -> tuple[Floats, Floats]:
    """For each edited sample its mean effect, and whether its background decides alone.

    Args:
        found: The transplants.
        classes: K.

    Returns:
        Two of N; NaN where fewer than three transplants count.
    """
    effects = found.effects(classes)
    counted = found.counted & np.isfinite(effects)
    number = counted.sum(axis=1)
    enough = number >= LEAST_COUNTED
    mean = np.where(counted, effects, 0).sum(axis=1) / np.maximum(number, 1)
    alone = (found.hits & counted).sum(axis=1) >= DECIDES * number
    decided = (alone & (mean >= LEAST_OWN)).astype(np.float64)
    return np.where(enough, mean, np.nan), np.where(enough, decided, np.nan)


def edits_by_row(edits: pd.DataFrame | None, samples: pd.DataFrame) -> pd.DataFrame | None:
    """Rows of edits with their samples' places among some rows, in place of those in the split.

    They differ where parts are missing, or where rows were drawn from a large split.

    Args:
        edits: Rows of edits.
        samples: Rows in the split's order; edits of samples beyond these are left out.

    Example:
        >>> samples = pd.DataFrame({"index": [4, 7, 9]})
        >>> edits_by_row(pd.DataFrame({"index": [7, 8, 9]}), samples)["index"].tolist()
        [1, 2]
    """
    if edits is None:
        return None
    index, wanted = (rows["index"].to_numpy(np.int64) for rows in (samples, edits))
    there = np.isin(wanted, index)
    return edits[there].assign(index=np.searchsorted(index, wanted[there]))


def pair_edits(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of samples that both runs edited, in one order."""
    both = np.intersect1d(one["index"], other["index"])
    first, second = (rows.set_index("index").loc[both].reset_index() for rows in (one, other))
    return first, second


def same_donors(one: pd.DataFrame, other: pd.DataFrame) -> NDArray[np.bool_]:
    """Paired rows whose backgrounds were put under objects of the same classes.

    Donors follow from position, seed and which samples are usable; the rows keep their classes.
    """
    objects = [np.stack(list(rows["transplant_objects"])) for rows in (one, other)]
    return np.asarray((objects[0] == objects[1]).all(axis=1))


def logit_margin(logits: Mapping[str, Floats]) -> float:
    """What counts as no change of a contribution: a share of the mean target logit of both runs.

    Example:
        >>> logit_margin({"a": np.array([8.0, 12.0]), "b": np.array([np.nan, 20.0])})
        0.3
    """
    means = [np.nanmean(each) for each in logits.values() if np.isfinite(each).any()]
    return float(LOGIT_SHARE * abs(np.mean(means))) if means else np.nan
