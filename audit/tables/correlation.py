"""Do two scores put samples into the same order?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from audit.tables.separation import ranks_within

# Fewer samples than this say nothing.
LEAST = 3


def rank_correlation(first: pd.Series, second: pd.Series) -> float:
    """Spearman's correlation over the samples that have both.

    Args:
        first: One score.
        second: Another, of the same samples.

    Returns:
        In [−1, 1], ties at their mean rank; NaN for fewer than three samples or a constant.

    Example:
        >>> rank_correlation(pd.Series([1.0, 2.0, 9.0]), pd.Series([0.1, 0.2, 0.3]))
        1.0
    """
    both = first.notna() & second.notna()
    if both.sum() < LEAST:
        return np.nan
    alone = np.zeros(int(both.sum()), np.int64)
    ranks = [ranks_within(values[both].to_numpy(np.float64), alone) for values in (first, second)]
    one, other = (values - values.mean() for values in ranks)
    spread = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum() / spread) if spread > 0 else np.nan
