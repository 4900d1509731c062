from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from audit.tables.classes import MOVED_SCORES, SCORES, count_confusions, summarise_classes
from audit.tables.totals import rank_classes


def some_samples() -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "label": pd.array([0, 0, 0, 1, 1, None], "Int32"),
            "label_name": ["a", "a", "a", "b", "b", None],
            "predicted": pd.array([0, 1, 0, 1, None, 0], "Int32"),
            "predicted_name": ["a", "b", "a", "b", None, "a"],
            "correct": pd.array([True, False, True, True, None, None], "boolean"),
            "background_pred": pd.array([0, 1, None, 0, None, 0], "Int32"),
            "object_pred": pd.array([0, 0, None, 1, None, 0], "Int32"),
            "mask_source": ["dataset", "estimated", "dataset", "box", "dataset", "dataset"],
            "object_area": [0.5] * 6,
        }
    )
    for score in SCORES:
        rows[score] = np.array([0.1, 0.3, np.nan, 0.5, np.nan, 0.9], np.float32)
    rows["mask_confidence"] = 0.45
    for score in MOVED_SCORES:
        rows[f"{score}_low"] = rows[score] - 0.1
        rows[f"{score}_high"] = rows[score] + 0.3
    return rows


def test_every_class_has_a_row_by_hand() -> None:
    table = summarise_classes(some_samples(), ["a", "b", "c"], seed=0).to_pandas()
    a, b, c = (table.loc[n] for n in range(3))
    assert (a["n"], a["n_scored"]) == (3, 2)
    assert a["undefined_share"] == pytest.approx(1 / 3)
    assert a["accuracy"] == 2 / 3
    assert a["background_share"] == np.float32([0.1, 0.3]).astype(float).mean()
    assert a["background_agrees"] == 0.5
    assert a["object_agrees"] == 1.0
    assert a["background_share_low"] <= a["background_share"] <= a["background_share_high"]
    assert (b["n"], b["n_scored"], b["accuracy"]) == (2, 1, 1.0)
    assert np.isnan(b["background_share_low"])
    assert a["kappa_mask_low"] == pytest.approx(0.1, abs=1e-6)
    assert a["far_logit_mask_high"] == pytest.approx(0.5, abs=1e-6)
    # Of the two scored, one mask is the dataset's and one is estimated with little confidence.
    assert (a["n_confident"], b["n_confident"]) == (1, 0)
    assert a["kappa_confident"] == pytest.approx(0.1, abs=1e-6)
    assert np.isnan(b["kappa_confident"])
    assert np.isnan(a["area_correlation"])
    assert (c["n"], c["n_scored"], c["n_confident"]) == (0, 0, 0)
    counts = ["label", "label_name", "n", "n_scored", "n_confident"]
    assert table.loc[2].drop(counts).isna().all()


def test_the_same_seed_gives_the_same_table() -> None:
    samples = some_samples()
    first = summarise_classes(samples, ["a", "b"], seed=1)
    assert first.equals(summarise_classes(samples, ["a", "b"], seed=1))


def test_confusions_by_hand() -> None:
    table = count_confusions(some_samples()).to_pandas()
    found = [tuple(row) for row in table[["label_name", "predicted_name", "n"]].to_numpy()]
    assert found == [("a", "a", 2), ("a", "b", 1), ("b", "b", 1)]
    assert table["share_of_label"].tolist() == [2 / 3, 1 / 3, 1.0]


def test_ranking_puts_classes_without_a_score_last() -> None:
    table = pd.DataFrame(
        {
            "label_name": ["a", "b", "c", "d"],
            "transplant_rate": [0.2, np.nan, 0.9, 0.2],
            "background_share": [0.5, 0.9, 0.1, 0.6],
            "n_scored": [9, 0, 9, 9],
        }
    )
    assert rank_classes(table)["label_name"].tolist() == ["c", "d", "a", "b"]
    table.loc[2, "n_scored"] = 1
    assert rank_classes(table)["label_name"].tolist() == ["d", "a", "c", "b"], "one image is luck"
