"""How far the free scores of feature space agree with edited pixels: the audit's own trust."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.tables.evidence import Transplants

Floats = NDArray[np.float64]
_RESAMPLES = 2000
# Draws held in memory at a time.
_DRAWS = 4_000_000
# Fewer samples (classes) tell nothing of an agreement.
_LEAST = 10
_LEAST_CLASSES = 4


def agreement(
    edits: pd.DataFrame | None, samples: pd.DataFrame, evidence: pd.DataFrame, seed: int
) -> dict[str, Any] | None:
    """Regress what pixels show on what feature space says, over edited samples and over classes.

    Args:
        edits: Rows of edits; ``None`` where nothing was edited.
        samples: All rows.
        evidence: Rows of ``evidence.parquet``, the main family first.
        seed: Draws bootstrap resamples.

    Returns:
        JSON-serialisable numbers; ``None`` where there are fewer than ten edited samples with both
        scores: ``n``, Spearman's ``rank_correlation`` with its interval, the line's ``slope`` and
        ``intercept`` (pixel rate on feature-space rate, least squares), its ``r_squared``, and
        ``class_correlation``, the rank correlation of the classes' mean rates.
    """
    if edits is None:
        return None
    found = Transplants.of(edits, "")
    counted = found.counted.sum(axis=1)
    pixel = np.where(counted > 0, found.hits.sum(axis=1) / np.maximum(counted, 1), np.nan)
    rates = samples.set_index("index")["transplant_rate"]
    feature = rates.reindex(edits["index"]).to_numpy(np.float64)
    known = np.isfinite(pixel) & np.isfinite(feature)
    pixel, feature = pixel[known], feature[known]
    if len(pixel) < _LEAST or np.ptp(pixel) == 0 or np.ptp(feature) == 0:
        return None
    from scipy import stats

    low, high = _interval(feature, pixel, np.random.default_rng((seed, len(pixel))))
    line = stats.linregress(feature, pixel)
    return {
        "n": len(pixel),
        "rank_correlation": float(stats.spearmanr(feature, pixel).statistic),
        "rank_correlation_low": low,
        "rank_correlation_high": high,
        "slope": float(line.slope),
        "intercept": float(line.intercept),
        "r_squared": float(line.rvalue**2),
        "class_correlation": _of_classes(evidence),
    }


def _interval(feature: Floats, pixel: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """The rank correlation's 95% percentile interval, by resampling pairs of ranks."""
    from scipy import stats

    ranks = np.stack([stats.rankdata(feature), stats.rankdata(pixel)])
    at_once = max(1, _DRAWS // len(feature))
    found = [
        _correlations(ranks, rng.integers(0, len(feature), (rows, len(feature))))
        for rows in (min(at_once, _RESAMPLES - done) for done in range(0, _RESAMPLES, at_once))
    ]
    low, high = np.nanquantile(np.concatenate(found), (0.025, 0.975))
    return float(low), float(high)


def _correlations(ranks: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Pearson's correlation of two rows of numbers in each resample; NaN where one is constant."""
    one, other = ranks[0][drawn], ranks[1][drawn]
    one = one - one.mean(axis=1, keepdims=True)
    other = other - other.mean(axis=1, keepdims=True)
    spread = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.where(spread > 0, (one * other).sum(axis=1) / np.where(spread > 0, spread, 1), np.nan)


def _of_classes(evidence: pd.DataFrame) -> float | None:
    main = evidence[evidence["family"] == evidence["family"].iloc[0]]
    both = main.dropna(subset=["pixel_transplant_rate", "feature_transplant_rate"])
    rates = both["feature_transplant_rate"], both["pixel_transplant_rate"]
    if len(both) < _LEAST_CLASSES or any(rate.nunique() < 2 for rate in rates):
        return None
    from scipy import stats

    return float(stats.spearmanr(*rates).statistic)
