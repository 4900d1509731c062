"""How far the object masks of a run are to be trusted, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

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
        "check": facts["mask_check"],
        "fallbacks": {
            name: count for name, count in totals["mask_sources"].items() if name != family
        },
    }
