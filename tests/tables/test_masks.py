from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from audit.tables.classes import CONFIDENT_MASK, area_correlation, confident
from audit.tables.correlation import rank_correlation
from audit.tables.masks import compare_masks


def rows(count: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    share = rng.uniform(size=count)
    frame = pd.DataFrame(
        {
            "background_share": share,
            "kappa": 1 - share,
            "object_area": np.round(rng.uniform(size=count), 1),  # with ties
            "object_logit": 1.0,
            "near_logit": 2.0,
            "far_logit": 3.0,
            "mask_source": ["dataset", "estimated"] * (count // 2),
            "mask_confidence": rng.uniform(size=count),
        }
    )
    for name in ("background_share", "kappa", "object_area", "object_logit"):
        frame[f"ellipse_{name}"] = frame[name] * 0.5
    frame["ellipse_near_logit"] = frame["ellipse_far_logit"] = np.nan
    frame["ellipse_mask_iou"] = 0.25
    frame.loc[3, "ellipse_background_share"] = np.nan
    return frame


def test_families_are_compared_over_the_samples_that_have_both() -> None:
    samples = rows()
    main, ellipse = compare_masks(samples, ["dataset", "ellipse"]).to_pylist()
    assert (main["family"], ellipse["family"]) == ("dataset", "ellipse")
    assert (main["n"], ellipse["n"]) == (40, 39)
    assert (main["bias"], main["rank_correlation"], main["mask_iou"]) == (0, 1, None)
    both = samples.drop(index=3)["background_share"]
    assert ellipse["bias"] == pytest.approx(float((both * -0.5).mean()))
    assert ellipse["rank_correlation"] == pytest.approx(1)
    assert ellipse["mask_iou"] == 0.25
    assert ellipse["far_logit"] is None


def test_rank_correlation_equals_scipy_and_knows_what_it_cannot_tell() -> None:
    samples = rows()
    expected = spearmanr(samples["background_share"], samples["object_area"])[0]
    assert area_correlation(samples) == pytest.approx(expected)
    assert area_correlation(samples[:9]) is None
    constant = pd.Series([1.0, 1.0, 1.0])
    assert np.isnan(rank_correlation(constant, pd.Series([1.0, 2.0, 3.0])))


def test_confident_are_the_datasets_masks_and_good_estimates() -> None:
    samples = rows()
    samples.loc[0, "background_share"] = np.nan
    good = (samples["mask_source"] == "dataset") | (samples["mask_confidence"] >= CONFIDENT_MASK)
    good[0] = False
    assert confident(samples).tolist() == good.tolist()
