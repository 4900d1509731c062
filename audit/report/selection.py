"""Which samples the report shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from audit.tables.totals import rank_classes

TILES = 6
WIDE_TILES = 12
# Classes that get pictures; the tables hold all of them.
MOST_CLASSES = 50

_LOOKED_AT = (
    "index", "label", "background_share", "correct", "confidence", "right_for_wrong_reason",
    "mask_confidence",
)  # fmt: skip
CLASS_SECTIONS = ("worst", "median", "best", "random")
SPLIT_SECTIONS = (
    "right_for_the_wrong_reason", "wrong_but_confident", "least_trusted_masks",
    "most_trusted_masks",
)  # fmt: skip


def choose_samples(samples: pd.DataFrame, classes: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Choose the samples to draw.

    Args:
        samples: All rows.
        classes: The rows of ``classes.parquet``.
        seed: Draws the random ones.

    Returns:
        One row a picture: ``section``, ``label`` (-1 for sections of the whole split), ``rank``
        and ``index``.
    """
    # Rows of a hundred columns would be sorted and cut many times.
    there = samples["map"].notna()
    samples = samples[list(_LOOKED_AT)]
    scored = samples[samples["background_share"].notna()]
    groups = dict(tuple(scored.groupby("label", observed=True)))
    chosen: list[dict[str, object]] = []
    for label in rank_classes(classes)["label"][:MOST_CLASSES].astype(int):
        if label in groups:
            for section, rows in _of_class(groups[label], np.random.default_rng((seed, label))):
                chosen += _entries(section, label, rows)
    correct = scored["correct"].fillna(False).astype(bool)
    wrong_reason = scored[scored["right_for_wrong_reason"].fillna(False).astype(bool)]
    wrong = scored[~correct & scored["label"].notna()]
    confident = [_most(rows, "confidence", WIDE_TILES) for rows in (wrong_reason, wrong)]
    masked = samples[samples["mask_confidence"].notna() & there]
    trusted = _most(masked, "mask_confidence", len(masked))
    extremes = [trusted[::-1][:WIDE_TILES], trusted[:WIDE_TILES]]
    for section, rows in zip(SPLIT_SECTIONS, (*confident, *extremes), strict=True):
        chosen += _entries(section, -1, rows)
    return pd.DataFrame(chosen, columns=["section", "label", "rank", "index"])


def _of_class(rows: pd.DataFrame, rng: np.random.Generator) -> Sequence[tuple[str, pd.DataFrame]]:
    ordered = _most(rows, "background_share", len(rows))
    middle = max(0, (len(ordered) - TILES) // 2)
    some = rng.choice(len(ordered), min(TILES, len(ordered)), replace=False)
    return (
        ("worst", ordered[:TILES]),
        ("median", ordered[middle : middle + TILES]),
        ("best", ordered[::-1][:TILES]),
        ("random", ordered.iloc[some]),
    )


def _most(rows: pd.DataFrame, column: str, count: int) -> pd.DataFrame:
    return rows.sort_values([column, "index"], ascending=[False, True])[:count]


def _entries(section: str, label: int, rows: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {"section": section, "label": label, "rank": rank, "index": int(index)}
        for rank, index in enumerate(rows["index"])
    ]
