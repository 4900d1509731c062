"""How far the object masks of a run are to be trusted, for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.report.wording import number
from audit.tables.classes import CONFIDENT_MASK


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a kind of mask does to the audit's numbers, where true masks are known.

    Attributes:
        bias: Mean background share with these masks minus that with true ones.
        rank_correlation: Of the background share over images.
        bad: Share of masks that overlap the true one by less than .3 (IoU).
    """

    bias: float
    rank_correlation: float
    bad: float


# benchmarks/masks.py: EfficientNet-Lite0 at 224 px on those crops of COCO photographs that had no
# part in making the estimator.
MEASURED = {
    "estimated": Measured(bias=-0.043, rank_correlation=0.59, bad=0.08),
    "component": Measured(bias=-0.039, rank_correlation=0.58, bad=0.10),
    "ellipse": Measured(bias=-0.086, rank_correlation=0.37, bad=0.15),
}

# Verdicts of the check whether masks lie where the images' edges are.
MISFITS = ("other placement fits better", "no fit")

# From this median |rank correlation| within classes on, the background share depends on the size.
DEPENDS = 0.25

CAUTIONS = {
    "box": "A box is no outline: how much of it is object is known on average only, and whether "
    "boxes fit their images cannot be checked. Read shares as rough.",
    "rembg": "Such a network looks for what stands out, which need not be the labelled object.",
    "ellipse": "It knows nothing of the images.",
}
WORDS = {
    "dataset": "came with the dataset",
    "box": "are soft shapes in the dataset's bounding boxes",
    "estimated": "were estimated from each image's colours and borders, without the model",
    "component": "are the central part of estimated ones",
    "ellipse": "are the same ellipse in the centre of every image, a baseline and not a finding",
    "rembg": "were made by a background removal network",
}


def mask_view(facts: dict[str, Any], masks: pd.DataFrame) -> dict[str, Any]:
    """What the page says of masks.

    Args:
        facts: The manifest's content.
        masks: The rows of ``masks.parquet``.

    Returns:
        Values for the template.
    """
    totals, family = facts["totals"], facts["masks"].partition(":")[0]
    scored = int(masks["n"].iloc[0]) if len(masks) else 0
    return {
        "family": family,
        "words": WORDS[family],
        "caution": CAUTIONS.get(family),
        "network": facts["mask_network"],
        "misfit": facts["mask_check"] is not None and facts["mask_check"]["verdict"] in MISFITS,
        "estimated": family in ("estimated", "component", "rembg"),
        "measured": MEASURED.get(family),
        "confident": totals["mask_confident"],
        "scored": scored,
        "threshold": CONFIDENT_MASK,
        "rows": masks.to_dict("records"),
        "within_classes": within_classes,
        "check": facts["mask_check"],
        "fallbacks": {
            name: count for name, count in totals["mask_sources"].items() if name != family
        },
    }


def within_classes(classes: Sequence[Mapping[Any, Any]]) -> dict[str, Any] | None:
    """How far the background share depends on the object's size within single classes.

    Over all images this can be hidden: classes of small objects may have small shares.

    Args:
        classes: Rows of ``classes.parquet``.

    Returns:
        ``range``, the least and the largest ``area_correlation`` as text; ``depends``, whether the
        median of their magnitudes is at least :data:`DEPENDS`; ``falls``, whether all are below 0.
        ``None`` where no class has one.

    Example:
        >>> found = within_classes([{"area_correlation": -0.3}, {"area_correlation": -0.68}])
        >>> found["range"], found["depends"], found["falls"]
        ('-0.68 to -0.30', True, True)
    """
    given = [row["area_correlation"] for row in classes]
    known = [float(value) for value in given if pd.notna(value)]
    if not known:
        return None
    low, high = number(min(known)), number(max(known))
    return {
        "range": low if low == high else f"{low} to {high}",
        "depends": bool(np.median(np.abs(known)) >= DEPENDS),
        "falls": max(known) < 0,
    }
