"""Accuracies under edits, BG-Gap and relative foreground sensitivity by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from audit.tables.edited import EDITED_COLUMNS, accuracies, relative_sensitivity, summarise_edits


def edits() -> pd.DataFrame:
    """Two samples of class 0, one of class 1."""
    return pd.DataFrame(
        {
            "label": [0, 0, 1],
            "predicted": pd.array([0, 1, 1], "Int32"),
            "noise_object_prediction": pd.array([1, 1, None], "Int32"),
            "noise_background_prediction": pd.array([0, 1, None], "Int32"),
            "object_only_predictions": [[0, 0, 1], [0, -1, 1], [-1, -1, -1]],
            "background_only_predictions": [[1, 1, 1], [0, 1, 1], [1, 1, 1]],
            "mixed_same_predictions": [[0, 0, 0], [0, 0, 1], [1, 1, 1]],
            "mixed_rand_predictions": [[0, 1, 1], [1, 1, 1], [1, 1, 1]],
        }
    )


def test_accuracies_by_hand() -> None:
    found = accuracies(edits())
    assert found["acc_unedited"].tolist() == [1, 0, 1]
    assert found["acc_object_only"][:2].tolist() == pytest.approx([2 / 3, 1 / 2])
    assert np.isnan(found["acc_object_only"][2]), "no edit of the third means anything"
    assert np.isnan(found["acc_fg"][2])
    assert found["acc_mixed_same"].tolist() == pytest.approx([1, 2 / 3, 1])


def test_classes_by_hand() -> None:
    first, second, third = summarise_edits(edits(), ["a", "b", "c"], 0)
    assert first["n_edited"] == 2 and first["acc_unedited"] == 0.5
    assert first["bg_gap"] == pytest.approx(((1 - 1 / 3) + (2 / 3 - 0)) / 2)
    assert (first["acc_fg"], first["acc_bg"]) == (0.0, 0.5)
    assert first["rfs"] == pytest.approx(1.0)
    assert second["n_edited"] == 1 and np.isnan(second["bg_gap_low"])
    assert third == {"n_edited": 0}
    named = {column.name for column in EDITED_COLUMNS}
    assert set(first) <= named and set(second) <= named


def test_no_edits_at_all() -> None:
    assert summarise_edits(None, ["a"], 0) == [{"n_edited": 0}]


@pytest.mark.parametrize(
    ("fg", "bg", "expected"),
    [(0.5, 0.5, 0.0), (0.2, 0.6, 0.5), (0.6, 0.2, -0.5), (0.8, 1.0, 1.0), (0.0, 0.4, 1.0)],
)
def test_sensitivity_by_hand(fg: float, bg: float, expected: float) -> None:
    assert relative_sensitivity(fg, bg) == pytest.approx(expected)


def test_sensitivity_is_undefined_where_noise_changes_nothing() -> None:
    assert np.isnan(relative_sensitivity(1.0, 1.0)) and np.isnan(relative_sensitivity(0.0, 0.0))


def test_sensitivity_stays_in_range() -> None:
    fg, bg = np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21))
    found = relative_sensitivity(fg, bg)
    assert np.nanmin(found) >= -1 and np.nanmax(found) <= 1
    np.testing.assert_allclose(found, -relative_sensitivity(bg, fg))


def test_the_gaps_interval_covers() -> None:
    hits = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        same, other = rng.random((80, 3)) < 0.8, rng.random((80, 3)) < 0.5
        frame = pd.concat([edits().iloc[:1]] * 80, ignore_index=True)
        frame["mixed_same_predictions"] = list(np.where(same, 0, 1))
        frame["mixed_rand_predictions"] = list(np.where(other, 0, 1))
        row = summarise_edits(frame, ["a"], seed)[0]
        hits += row["bg_gap_low"] <= 0.3 <= row["bg_gap_high"]
    assert hits >= 88
