"""``classes.parquet`` and ``confusion.parquet``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, table_of
from audit.tables.bootstrap import bca_intervals
from audit.tables.clusters import find_clusters
from audit.tables.correlation import rank_correlation
from audit.tables.nulls import LEAST_TO_SHUFFLE, Shuffle, adjusted_p, area_null_p, shuffle_of_rows
from audit.tables.power import detectable_mean, detectable_rate, mean_error, wilson_interval

# Scores that are summed up for each class.
SCORES = (
    "transplant_rate",
    "background_share",
    "background_lift",
    "kappa",
    "kappa_res",
    "object_logit",
    "near_logit",
    "far_logit",
    "pointing_hit",
    "rank_accuracy",
    "iou_50",
    "mask_confidence",
)
_NUMBERS = {
    "": "mean",
    "_low": "lower end of the mean's 95% bootstrap interval (BCa, 2,000 resamples of "
    "near-duplicate clusters)",
    "_high": "upper end of it",
    "_median": "median",
    "_p10": "10th percentile",
    "_p90": "90th percentile",
}
_QUANTILES = {"_median": 0.5, "_p10": 0.1, "_p90": 0.9}
# Scores whose quantiles have intervals too.
QUANTILE_SCORES = ("transplant_rate", "background_share", "kappa", "far_logit")
# Scores that are summed up by whether the prediction was right.
ANSWER_SCORES = ("kappa", "background_share", "transplant_rate")
# Means of further transplants, where the rows have them.
_TRANSPLANTS = {
    "transplant_far_rate": "Mean of transplant_far_rate: far background only.",
    "transplant_additive_rate": "Mean of transplant_additive_rate: in closed form.",
}
# Scores that a sample has with its mask's border moved too; their means are `…_mask_low`, `…_high`.
MOVED_SCORES = ("background_share", "kappa", "object_logit", "near_logit", "far_logit")
# Scores that are summed up over confident masks too.
CONFIDENT_SCORES = ("transplant_rate", "background_share", "kappa", "object_logit", "far_logit")
# An estimated mask is confident from this expected overlap (IoU) with the object on: of crops of
# photographs above it 3% of the masks miss the object (IoU below .3), of those below it 18%
# (benchmarks/masks.py).
CONFIDENT_MASK = 0.5
# A class with fewer scored samples says nothing about score and area.
_LEAST_FOR_AREA = 10
_F64 = pa.float64()
_UNKNOWN = (np.nan,) * len(_QUANTILES)

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
# The numbers of some samples by name.
Group = dict[str, Floats]

CLASS_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="The class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="n", type=pa.int64(), range="≥ 0", meaning="Samples with this label."),
    Column(name="n_scored", type=pa.int64(), range="≥ 0",
           meaning="Of them, samples whose background_share is defined."),
    Column(name="undefined_share", type=_F64, range="[0, 1]", meaning="1 − n_scored/n.",
           null_when="n is 0"),
    Column(name="accuracy", type=_F64, range="[0, 1]",
           meaning="Share predicted as labelled, of those with a prediction.",
           null_when="there is none"),
    Column(name="accuracy_low", type=_F64, range="[0, 1]", meaning="Lower end of accuracy's 95% "
           "interval (Wilson; near-duplicates count less).", null_when="accuracy is null"),
    Column(name="accuracy_high", type=_F64, range="[0, 1]", meaning="Upper end of it.",
           null_when="accuracy is null"),
    Column(name="n_clusters", type=pa.int64(), range="≥ 0",
           meaning="Different images among the samples, by image_hash; intervals and tests rest on "
           "them."),
    Column(name="n_duplicates", type=pa.int64(), range="≥ 0", meaning="n − n_clusters."),
    Column(name="background_agrees", type=_F64, range="[0, 1]",
           meaning="Share whose background contributions alone point to the label.",
           null_when="no sample is scored"),
    Column(name="object_agrees", type=_F64, range="[0, 1]",
           meaning="Share whose object contributions alone point to the label.",
           null_when="no sample is scored"),
    *(
        Column(name=f"{score}{suffix}", type=_F64, range=f"as {score}",
               meaning=f"{score}: {meaning}.",
               null_when="fewer than two different images have this score"
               if suffix in ("_low", "_high")
               else "no sample has this score")
        for score in SCORES
        for suffix, meaning in _NUMBERS.items()
    ),
    *(
        Column(name=f"{score}{suffix}_{end}", type=_F64, range=f"as {score}",
               meaning=f"{extreme} end of the 95% bootstrap interval of {score}{suffix}.",
               null_when="fewer than two different images have this score")
        for score in QUANTILE_SCORES
        for suffix in _QUANTILES
        for end, extreme in (("low", "Lower"), ("high", "Upper"))
    ),
    *(
        Column(name=f"{score}_{answer}", type=_F64, range=f"as {score}",
               meaning=f"Mean of {score} over {answer} predictions.",
               null_when="none of them has this score")
        for score in ANSWER_SCORES
        for answer in ("correct", "incorrect")
    ),
    *(
        Column(name=name, type=_F64, range="[0, 1]", meaning=meaning,
               null_when="no sample has it, or the run's rows do not have the column")
        for name, meaning in _TRANSPLANTS.items()
    ),
    Column(name="transplant_highest", type=_F64, range="[0, 1]",
           meaning="The highest of the class's mean transplant rates over families of masks: masks "
           "fail towards missing a cue, so the highest is what was found. The more families, the "
           "higher by chance alone.", null_when="no sample has a transplant rate"),
    Column(name="transplant_family", type=pa.string(), range="as in mask_source",
           meaning="The family of masks that transplant_highest rests on; of equal ones the first.",
           null_when="no sample has a transplant rate"),
    Column(name="kappa_p", type=_F64, range="[0, 1]",
           meaning="Two-sided p of a t test that mean kappa is 0: that evidence falls on the "
           "object as by its area. Near-duplicates count as one cluster.",
           null_when="fewer than two different images have kappa, or all values are equal"),
    Column(name="kappa_q", type=_F64, range="[0, 1]",
           meaning="kappa_p after Benjamini–Hochberg over the classes.",
           null_when="kappa_p is null"),
    Column(name="shuffle_z", type=_F64, range="0 = chance",
           meaning="Mean object_share of maps on their own masks, against all ways to deal the "
           "class's masks to its maps, in standard deviations. High: maps follow the object. One "
           "sample of each cluster of near-duplicates, cells weighted equally.",
           null_when="fewer than two samples have map and grid_mask, or all maps or masks are "
           "equal, or the run's rows have no grid_mask"),
    Column(name="shuffle_p", type=_F64, range="[0, 1]",
           meaning="Two-sided p of it, by the normal approximation.",
           null_when=f"shuffle_z is null, or fewer than {LEAST_TO_SHUFFLE} samples"),
    Column(name="shuffle_q", type=_F64, range="[0, 1]",
           meaning="shuffle_p after Benjamini–Hochberg over the classes.",
           null_when="shuffle_p is null"),
    Column(name="detectable_kappa", type=_F64, range="> 0",
           meaning="The smallest distance of mean kappa from 0 that this many samples would show "
           "(chance .8, two-sided test at .05).",
           null_when="fewer than two different images have kappa, or all values are equal"),
    Column(name="detectable_transplant_rate", type=_F64, range="[0, 1]",
           meaning="The lowest mean transplant rate that this many samples would tell from the "
           "other classes' mean (chance .8, two-sided test at .05; each sample counted as one "
           "trial, which is on the safe side).",
           null_when="no rate up to 1 would be told from it, no sample of the class has a rate, or "
           "no other class has one"),
    *(
        Column(name=f"{score}_mask_{end}", type=_F64, range=f"as {score}",
               meaning=f"Mean of the samples' {score}_{end}: with the masks' borders moved.",
               null_when="no sample has this score")
        for score in MOVED_SCORES
        for end in ("low", "high")
    ),
    Column(name="n_confident", type=pa.int64(), range="≥ 0",
           meaning="Scored samples with a mask to trust: the dataset's own, or an estimated one "
           f"with mask_confidence of at least {CONFIDENT_MASK}."),
    *(
        Column(name=f"{score}_confident", type=_F64, range=f"as {score}",
               meaning=f"Mean of {score} over these samples.",
               null_when="none of them has this score")
        for score in CONFIDENT_SCORES
    ),
    Column(name="area_correlation", type=_F64, range="[−1, 1]",
           meaning="Rank correlation over samples of background_share with object_area; far from "
           "0, the share tells of the object's size as well.",
           null_when=f"fewer than {_LEAST_FOR_AREA} scored samples, or one is constant"),
)  # fmt: skip

CONFUSION_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Labelled class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="predicted", type=pa.int32(), range="[0, K)", meaning="Predicted class."),
    Column(name="predicted_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="n", type=pa.int64(), range="≥ 1", meaning="Samples."),
    Column(name="share_of_label", type=_F64, range="(0, 1]", meaning="n over the label's samples "
           "with a prediction."),
    Column(name="background_share", type=_F64, range="[0, 1]",
           meaning="Mean background_share of these samples.", null_when="none is scored"),
)  # fmt: skip


def summarise_classes(samples: pd.DataFrame, classes: Sequence[str], seed: int) -> pa.Table:
    """One row a class, classes without samples included.

    Args:
        samples: The rows of all parts; ``image_hash``, ``grid_mask`` and further transplant rates
            are used where they are there.
        classes: Class names.
        seed: Draws the bootstrap resamples.

    Returns:
        A table with :data:`CLASS_COLUMNS`.
    """
    clusters = find_clusters(samples)
    places = samples.groupby("label", observed=True).indices
    families = _transplant_columns(samples)
    numbers = _numbers(samples, families.values())
    maps = samples[[n for n in ("background_share", "map", "grid_mask") if n in samples]]
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(classes):
        own = places.get(label, np.arange(0))
        group = {column: values[own] for column, values in numbers.items()}
        rng = np.random.default_rng((seed, label))
        rows.append(
            {"label": label, "label_name": name}
            | _summary(group, clusters[own], rng)
            | _chance(group, clusters[own], shuffle_of_rows(maps.iloc[own], clusters[own]))
            | _highest(group, families)
            | _doubt(group)
        )
    compare_classes(rows)
    return table_of(rows, CLASS_COLUMNS)


def count_confusions(samples: pd.DataFrame) -> pa.Table:
    """One row for each pair of label and prediction that occurs.

    Args:
        samples: The rows of all parts.

    Returns:
        A table with :data:`CONFUSION_COLUMNS`, sorted by label and prediction.
    """
    known = samples.dropna(subset=["label", "predicted"])
    of_label = known.groupby("label", observed=True).size().to_dict()
    keys = ["label", "label_name", "predicted", "predicted_name"]
    rows = []
    for key, group in known.groupby(keys, observed=True):
        assert isinstance(key, tuple)
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "n": len(group),
                "share_of_label": len(group) / int(of_label[key[0]]),
                "background_share": _or_none(group["background_share"].mean()),
            }
        )
    return table_of(rows, CONFUSION_COLUMNS)


def _numbers(samples: pd.DataFrame, transplants: Iterable[str]) -> Group:
    """Columns as float64 with NaN for null, and which masks are to be trusted."""
    names = {
        *SCORES, *transplants, *_TRANSPLANTS,
        "label", "correct", "background_pred", "object_pred", "object_area",
        *(f"{score}_{end}" for score in MOVED_SCORES for end in ("low", "high")),
    }  # fmt: skip
    columns = {
        name: samples[name].to_numpy(np.float64, na_value=np.nan)
        for name in names
        if name in samples
    }
    return columns | {"trusted": confident(samples).to_numpy(np.float64)}


def _summary(group: Group, clusters: Ids, rng: np.random.Generator) -> dict[str, Any]:
    size, different = len(clusters), len(np.unique(clusters))
    scored = int(np.isfinite(group["background_share"]).sum())
    return {
        "n": size,
        "n_scored": scored,
        "undefined_share": 1 - scored / size if size else None,
        "n_clusters": different,
        "n_duplicates": size - different,
        "background_agrees": _agreement(group, "background_pred"),
        "object_agrees": _agreement(group, "object_pred"),
        **_accuracy(group["correct"], clusters),
        **_scores(group, clusters, rng),
        **_by_answer(group),
        **{name: _mean(group[name]) for name in _TRANSPLANTS if name in group},
    }


def _accuracy(correct: Floats, clusters: Ids) -> dict[str, float | None]:
    known = np.isfinite(correct)
    right = mean_error(correct[known], clusters[known])
    low, high = wilson_interval(right.mean, right.effective)
    return {
        "accuracy": _or_none(right.mean),
        "accuracy_low": _or_none(low),
        "accuracy_high": _or_none(high),
    }


def _by_answer(group: Group) -> dict[str, float | None]:
    return {
        f"{score}_{answer}": _mean(group[score][group["correct"] == truth])
        for score in ANSWER_SCORES
        for answer, truth in (("correct", 1), ("incorrect", 0))
    }


def _chance(group: Group, clusters: Ids, shuffle: Shuffle) -> dict[str, Any]:
    """What chance would do, and what this many samples can show."""
    known = np.isfinite(group["kappa"])
    kappas = group["kappa"][known]
    kappa = mean_error(kappas, clusters[known])
    smallest = np.nan
    if kappa.error > 0:
        smallest = float(detectable_mean(kappas.std(ddof=1), kappa.effective))
    tried = np.isfinite(group["transplant_rate"])
    return {
        "kappa_p": _or_none(area_null_p(kappas, clusters[known])),
        "shuffle_z": _or_none(shuffle.z),
        "shuffle_p": _or_none(shuffle.p),
        "detectable_kappa": _or_none(smallest),
        "trials": mean_error(group["transplant_rate"][tried], clusters[tried]).effective,
    }


def compare_classes(rows: list[dict[str, Any]]) -> None:
    """Add what depends on the other classes, in place.

    Args:
        rows: One a class; ``trials``, by how many transplant rates a class's mean rests, is taken
            out.
    """
    for name in ("kappa", "shuffle"):
        p_values = np.array([row[f"{name}_p"] for row in rows], np.float64)
        for row, q in zip(rows, adjusted_p(p_values), strict=True):
            row[f"{name}_q"] = _or_none(q)
    rates = np.array([row["transplant_rate"] for row in rows], np.float64)
    has = np.isfinite(rates)
    others = np.nansum(rates) - np.where(has, rates, 0)
    count = has.sum() - has
    # Rounding may leave a sum of zeros just below 0.
    reference = np.clip(others / np.where(count > 0, count, 1), 0, 1)
    trials = np.array([row.pop("trials") for row in rows])
    lowest = np.where(has & (count > 0), detectable_rate(reference, trials), np.nan)
    for row, rate in zip(rows, lowest, strict=True):
        row["detectable_transplant_rate"] = _or_none(rate)


def _transplant_columns(samples: pd.DataFrame) -> dict[str, str]:
    """The families of masks and their columns of transplant rates, the main one first."""
    ending = "_transplant_rate"
    sources = samples["mask_source"].value_counts()
    main = str(sources.index[0]) if len(sources) else "main"
    others = [name for name in samples.columns if name.endswith(ending)]
    return {main: "transplant_rate"} | {name.removesuffix(ending): name for name in others}


def _highest(group: Group, families: dict[str, str]) -> dict[str, Any]:
    means = {family: _mean(group[column]) for family, column in families.items()}
    known = {family: mean for family, mean in means.items() if mean is not None}
    family = max(known, key=known.__getitem__, default=None)
    return {
        "transplant_highest": known[family] if family is not None else None,
        "transplant_family": family,
    }


def confident(samples: pd.DataFrame) -> pd.Series:
    """Which scored samples have a mask to trust."""
    trusted = (samples["mask_source"] == "dataset") | (samples["mask_confidence"] >= CONFIDENT_MASK)
    return trusted & samples["background_share"].notna()


def area_correlation(samples: pd.DataFrame) -> float | None:
    """How far the background share goes with the object's size; ``None`` if that is unknown."""
    scored = samples[samples["background_share"].notna()]
    if len(scored) < _LEAST_FOR_AREA:
        return None
    return _or_none(rank_correlation(scored["background_share"], scored["object_area"]))


def _doubt(group: Group) -> dict[str, Any]:
    """What the numbers would be under other masks."""
    trusted = group["trusted"] == 1
    sizes = pd.DataFrame({name: group[name] for name in ("background_share", "object_area")})
    return {
        **{
            f"{score}_mask_{end}": _mean(group[f"{score}_{end}"])
            for score in MOVED_SCORES
            for end in ("low", "high")
        },
        "n_confident": int(trusted.sum()),
        **{f"{score}_confident": _mean(group[score][trusted]) for score in CONFIDENT_SCORES},
        "area_correlation": area_correlation(sizes),
    }


def _scores(group: Group, clusters: Ids, rng: np.random.Generator) -> dict[str, float | None]:
    """Means, quantiles and their intervals; one draw of resamples serves them all."""
    values = np.stack([group[score] for score in SCORES], axis=1)
    asked = [(score, suffix) for score in QUANTILE_SCORES for suffix in _QUANTILES]
    found = bca_intervals(
        values,
        rng,
        clusters=clusters,
        quantiles=[(SCORES.index(score), _QUANTILES[suffix]) for score, suffix in asked],
    )
    numbers: dict[str, float | None] = {}
    for score, column, (low, high) in zip(SCORES, values.T, found.means, strict=True):
        known = column[np.isfinite(column)]
        points = np.quantile(known, list(_QUANTILES.values())) if len(known) else _UNKNOWN
        numbers |= {
            score: _mean(known),
            f"{score}_low": _or_none(low),
            f"{score}_high": _or_none(high),
            **{f"{score}{s}": _or_none(p) for s, p in zip(_QUANTILES, points, strict=True)},
        }
    for (score, suffix), (low, high) in zip(asked, found.quantiles, strict=True):
        numbers |= {f"{score}{suffix}_low": _or_none(low), f"{score}{suffix}_high": _or_none(high)}
    return numbers


def _agreement(group: Group, column: str) -> float | None:
    known = np.isfinite(group[column])
    return _mean((group[column] == group["label"])[known].astype(np.float64))


def _mean(values: Floats) -> float | None:
    """The mean of the values that are there."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
