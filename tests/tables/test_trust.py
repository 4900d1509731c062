"""The audit's own trust figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audit.tables.trust import agreement


def frames(n: int, agree: float, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    feature = rng.random(n)
    chance = agree * feature + (1 - agree) * rng.random(n)
    hits = rng.random((n, 6)) < chance[:, None]
    edits = pd.DataFrame(
        {
            "index": np.arange(n),
            "label": 0,
            "transplant_objects": list(np.ones((n, 6), np.int64)),
            "transplant_predictions": list(np.where(hits, 0, 1)),
            "mixed_same_predictions": list(np.zeros((n, 3), np.int64)),
        }
    )
    return edits, pd.DataFrame({"index": np.arange(n), "transplant_rate": feature})


def evidence(pixel: list[float], feature: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"family": "x", "pixel_transplant_rate": pixel, "feature_transplant_rate": feature}
    )


FIVE = evidence([0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.1, 0.2, 0.3, 0.9])


def test_it_is_scipys_regression() -> None:
    edits, samples = frames(300, 0.8)
    found = agreement(edits, samples, FIVE, 0)
    assert found is not None
    pixel = np.stack(list(edits["transplant_predictions"])) == 0
    rates = pixel.mean(axis=1), samples["transplant_rate"].to_numpy()
    line = stats.linregress(rates[1], rates[0])
    assert found["slope"] == pytest.approx(line.slope)
    assert found["r_squared"] == pytest.approx(line.rvalue**2)
    assert found["rank_correlation"] == pytest.approx(stats.spearmanr(*rates).statistic)
    assert found["rank_correlation_low"] < found["rank_correlation"]
    assert found["rank_correlation"] < found["rank_correlation_high"]
    assert found["class_correlation"] == pytest.approx(0.4)  # 1 − 6·12/(5·24)


def test_no_relation_is_none() -> None:
    found = agreement(*frames(300, 0.0), FIVE, 0)
    assert found is not None
    assert found["rank_correlation_low"] < 0 < found["rank_correlation_high"]


def test_too_little_says_nothing() -> None:
    assert agreement(None, pd.DataFrame(), FIVE, 0) is None
    assert agreement(*frames(9, 0.8), FIVE, 0) is None
    edits, samples = frames(50, 0.8)
    assert agreement(edits, samples.assign(transplant_rate=0.3), FIVE, 0) is None
    found = agreement(edits, samples, FIVE[:3], 0)
    assert found is not None and found["class_correlation"] is None
