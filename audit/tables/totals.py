"""Numbers for the whole split, and the ranking of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.tables.bootstrap import bca_intervals, macro_intervals
from audit.tables.classes import area_correlation, confident
from audit.tables.clusters import count_duplicates, find_clusters
from audit.tables.verdicts import VERDICTS

# An object over more of the image's border than this is cut off by it, or is background.
MUCH_OF_BORDER = 0.25
# The score that ranks classes by how much they rely on background. Shares of a map depend on the
# grid and on the mask; moving the background under other objects asks what it does.
RANKED_BY = "transplant_rate"
ENOUGH_TO_RANK = 5
# Classes that feature space names, and the rate from which on it is more than "0%".
_SCREENED = 5
_LEAST_RATE = 0.005
# Scores whose means over the split have intervals.
WITH_INTERVALS = ("background_share", "transplant_rate", "kappa")


def rank_classes(classes: pd.DataFrame) -> pd.DataFrame:
    """Classes by reliance on background, strongest first.

    By verdict, then by reliance as pixels show it, then by transplant rate. Those of which fewer
    than five images could be scored come after the others: one image can have any rate. Those
    without a score are last.

    Args:
        classes: The rows of ``classes.parquet``.

    Returns:
        The same rows in order; ties by background share.
    """
    severity = classes["verdict"].map({name: place for place, name in enumerate(VERDICTS)})
    ordered = classes.assign(_severity=severity).sort_values(
        ["_severity", "reliance", RANKED_BY, "background_share"],
        ascending=[True, False, False, False],
        na_position="last",
        kind="stable",
    )
    ordered = ordered.drop(columns="_severity")
    few = (ordered["n_scored"] < ENOUGH_TO_RANK) & ordered[RANKED_BY].notna()
    none = ordered[RANKED_BY].isna()
    return pd.concat([ordered[~few & ~none], ordered[few], ordered[none]])


def highest_in_features(rates: Sequence[Any], scored: Sequence[int]) -> tuple[list[int], list[int]]:
    """Which classes feature space names, for a run that tested too little in pixels.

    Args:
        rates: ``transplant_highest`` of each class; undefined in whichever way.
        scored: Of how many images, ``n_scored``.

    Returns:
        Places in ``rates``, highest first and at most five: of classes with enough images to be
        ranked, and of the others, whose one or two images can have any rate.

    Example:
        >>> highest_in_features([0.0, 0.14, 0.69, None, 0.5], [9, 9, 3, 0, 5])
        ([4, 1], [2])
    """
    ordered = sorted(
        (-rate, place) for place, rate in enumerate(rates) if pd.notna(rate) and rate > _LEAST_RATE
    )
    enough = [place for _, place in ordered if scored[place] >= ENOUGH_TO_RANK]
    few = [place for _, place in ordered if scored[place] < ENOUGH_TO_RANK]
    return enough[:_SCREENED], few[:_SCREENED]


def summarise_split(
    samples: pd.DataFrame,
    classes: pd.DataFrame,
    sidecars: Sequence[dict[str, Any]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Totals for the manifest.

    Args:
        samples: The rows of all parts.
        classes: The rows of ``classes.parquet``.
        sidecars: Of all parts.
        seed: Draws the bootstrap resamples.

    Returns:
        JSON-serialisable numbers. Means are over samples; those called ``_macro`` over classes;
        ``_low`` and ``_high`` are the ends of their 95% intervals (BCa over clusters of
        near-duplicates).
    """
    histogram = np.sum([sidecar["histogram"] for sidecar in sidecars], axis=0)
    clusters = find_clusters(samples)
    duplicates = count_duplicates(clusters, samples["label"])
    return {
        "samples": len(samples),
        "statuses": count_statuses(sidecars),
        "problems": first_problems(sidecars),
        "accuracy": _mean(samples["correct"].dropna().astype(float)),
        "accuracy_macro": _mean(classes["accuracy"]),
        **{name: _mean(samples[name]) for name in WITH_INTERVALS},
        **{f"{name}_macro": _mean(classes[name]) for name in WITH_INTERVALS},
        **_intervals(samples, clusters, seed),
        "background_share_mask_low": _mean(samples["background_share_low"]),
        "background_share_mask_high": _mean(samples["background_share_high"]),
        "mask_confidence": _mean(samples["mask_confidence"]),
        "mask_confident": int(confident(samples).sum()),
        "mask_sources": samples["mask_source"].value_counts().loc[lambda n: n > 0].to_dict(),
        "object_area": _mean(samples["object_area"]),
        "unknown_area": _mean(samples["unknown_area"]),
        "border_touch": _mean((samples["border_touch"] > MUCH_OF_BORDER).astype(float)),
        "area_correlation": area_correlation(samples),
        "duplicates": duplicates.repeated,
        "conflicting_labels": duplicates.conflicting,
        "pixel_average_precision": pixel_average_precision(histogram),
    }


def _intervals(
    samples: pd.DataFrame, clusters: NDArray[np.int64], seed: int
) -> dict[str, float | None]:
    """Ends of the intervals of the means over samples and over classes."""
    values = samples[list(WITH_INTERVALS)].to_numpy(np.float64, na_value=np.nan)
    known = samples["label"].notna().to_numpy()
    labels = samples.loc[known, "label"].to_numpy(np.int64)
    rng = np.random.default_rng(seed)
    micro = bca_intervals(values, rng, clusters=clusters).means
    macro = macro_intervals(values[known], labels, rng, clusters=clusters[known])
    return {
        f"{name}{kind}_{end}": None if np.isnan(value) else float(value)
        for kind, ends in (("", micro), ("_macro", macro))
        for name, both in zip(WITH_INTERVALS, ends, strict=True)
        for end, value in zip(("low", "high"), both, strict=True)
    }


def count_statuses(sidecars: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many samples of all parts have each status."""
    statuses: dict[str, int] = {}
    for sidecar in sidecars:
        for status, count in sidecar["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
    return statuses


def first_problems(sidecars: Sequence[dict[str, Any]], most: int = 5) -> list[str]:
    """The first problems with images, masks and labels, in words."""
    return [text for sidecar in sidecars for text in sidecar["problems"]][:most]


def pixel_average_precision(histogram: np.ndarray[Any, Any]) -> float | None:
    """Average precision of "this pixel is object" by the map's level, over all pixels.

    Args:
        histogram: 2×B: background and object pixels at each level, lowest first.

    Returns:
        In [0, 1]; ``None`` without object pixels.

    Source:
        PxAP, Choe et al. 2020, section 3.3.

    Example:
        >>> pixel_average_precision(np.array([[2, 0], [0, 2]]))
        1.0
    """
    background, inside = np.cumsum(histogram[:, ::-1], axis=1)
    if inside[-1] == 0:
        return None
    precision = inside / np.maximum(background + inside, 1)
    gained = np.diff(inside, prepend=0) / inside[-1]
    return float(np.sum(precision * gained))


def _mean(values: pd.Series[Any]) -> float | None:
    value = float(values.mean())
    return None if np.isnan(value) else value
