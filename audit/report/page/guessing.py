"""Whether a model is right more often than a guess would be."""

from __future__ import annotations

import pandas as pd


def guess_that_does_as_well(classes: pd.DataFrame, accuracy: float | None) -> float | None:
    """How often always naming the most frequent class is right, where the model is no better.

    A model that is no better most likely has other weights, other preprocessing or another order of
    classes than was meant, and what is found of it says nothing.

    Args:
        classes: The rows of ``classes.parquet``; ``n`` counts.
        accuracy: Share of right answers in [0, 1], ``None`` where nothing is labelled.

    Returns:
        The share of the most frequent class, in [0, 1]; ``None`` where the model is better, or
        where fewer than two classes have images.

    Example:
        >>> guess_that_does_as_well(pd.DataFrame({"n": [30, 10]}), 0.5)
        0.75
        >>> guess_that_does_as_well(pd.DataFrame({"n": [30, 10]}), 0.8)
    """
    counts = classes["n"][classes["n"] > 0]
    if accuracy is None or len(counts) < 2:
        return None
    share = float(counts.max() / counts.sum())
    return share if accuracy <= share else None
