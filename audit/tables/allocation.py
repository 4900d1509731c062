"""Which samples are looked at in pixels, when there are too many to edit them all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Counts = NDArray[np.integer[Any]]

# By default at least so many samples in all, or this share of the split …
LEAST_IN_ALL = 1000
SHARE = 0.1
# What a verdict needs of each class, and some that masks may make unusable.
ENOUGH = 25
# The budget reaches for all classes, up to so many samples in all or that share.
MOST_FOR_ALL = 5000
# … and not more of one class: enough to tell a rate of 50% from one of 30%.
MOST_A_CLASS = 100


def feature_space_rates(samples: pd.DataFrame) -> pd.Series:
    """For each labelled class the highest mean transplant rate under any family of masks.

    Args:
        samples: All rows.

    Returns:
        Rates by label, NaN where no sample has one.

    Example:
        >>> feature_space_rates(pd.DataFrame({"label": [0, 0, 1], "transplant_rate": [0.0, 0.5, 0],
        ...     "ellipse_transplant_rate": [1.0, 1.0, np.nan]})).tolist()
        [1.0, 0.0]
    """
    columns = [name for name in samples.columns if is_rate(name)]
    means = samples.groupby("label", observed=True)[columns].mean()
    return means.max(axis=1)


def is_rate(name: str) -> bool:
    """Whether a column of samples is the whole-background transplant rate under some masks."""
    return name == "transplant_rate" or (
        name.endswith("_transplant_rate") and not name.startswith("alt_")
    )


def choose_edited(samples: pd.DataFrame, edits: str | int, seed: int) -> NDArray[np.int64]:
    """Stratify: what a verdict needs of each class, then more where feature space is highest.

    Within a class samples are drawn at random, so a class's share stands for the class.

    Args:
        samples: All rows.
        edits: ``auto``, ``all``, ``none`` or how many in all.
        seed: Draws others.

    Returns:
        Positions in the split, ascending.

    Example:
        >>> rows = pd.DataFrame({"index": range(8), "label": [0, 1] * 4, "status": "ok",
        ...     "transplant_rate": [0.0, 1.0] * 4})
        >>> chosen = choose_edited(rows, 5, 0)
        >>> [int((chosen % 2 == label).sum()) for label in (0, 1)]
        [1, 4]
    """
    usable = samples[(samples["status"] == "ok") & samples["label"].notna()]
    if edits == "none" or usable.empty:
        return np.empty(0, np.int64)
    if edits == "all":
        return np.sort(usable["index"].to_numpy(np.int64))
    automatic = not isinstance(edits, int)
    sizes = usable.groupby("label", observed=True).size()
    budget = _automatic(len(samples), len(sizes)) if automatic else int(edits)
    ranked = (
        feature_space_rates(usable)
        .reindex(sizes.index)
        .sort_values(ascending=False, na_position="last", kind="stable")
    )
    most = MOST_A_CLASS if automatic else max(MOST_A_CLASS, 2 * budget // len(sizes))
    wanted = _allot(sizes.reindex(ranked.index).to_numpy(), budget, most)
    share: dict[int, int] = dict(zip(ranked.index.tolist(), wanted.tolist(), strict=True))
    chosen = [
        np.random.default_rng((seed, label)).permutation(
            usable.loc[usable["label"] == label, "index"].to_numpy(np.int64)
        )[:number]
        for label, number in share.items()
    ]
    return np.sort(np.concatenate(chosen))


def _automatic(samples: int, classes: int) -> int:
    """The default budget."""
    return max(LEAST_IN_ALL, int(SHARE * samples), min(MOST_FOR_ALL, ENOUGH * classes))


def _allot(sizes: Counts, budget: int, most: int) -> Counts:
    """Samples of each class; classes come with the highest rate first.

    Each gets what a verdict needs, as long as the budget lasts; what is left goes to the first.
    """
    needed = np.minimum(sizes, ENOUGH)
    before = np.cumsum(needed) - needed
    given = np.clip(budget - before, 0, needed)
    room = np.minimum(sizes, most) - given
    left = budget - int(given.sum())
    return given + np.clip(left - (np.cumsum(room) - room), 0, room)


def choose_bank(samples: pd.DataFrame, a_class: int, seed: int) -> NDArray[np.int64]:
    """Samples whose objects and backgrounds edits are made with.

    Args:
        samples: All rows.
        a_class: At most so many of each class.
        seed: Draws others.

    Returns:
        Positions in the split, ascending.
    """
    usable = samples[(samples["status"] == "ok") & samples["label"].notna()]
    order = np.random.default_rng((seed, len(samples))).permutation(len(usable))
    taken = usable.iloc[order].groupby("label", observed=True).head(a_class)
    return np.sort(taken["index"].to_numpy(np.int64))
