"""The effect of a background against brute force, and what it is blind to on purpose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audit.tables.evidence import EVIDENCE_COLUMNS, Transplants, weigh_evidence

CLASSES = ["a", "b", "c"]


def edits_of(labels: np.ndarray, objects: np.ndarray, predictions: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": labels,
            "transplant_objects": list(objects),
            "transplant_predictions": list(predictions),
            "background_only_predictions": list(np.tile(labels[:, None], 3)),
            "mixed_same_predictions": list(np.tile(labels[:, None], 3)),
        }
    )


def drawn(rng: np.random.Generator, n: int, pull: float, label: int = 0) -> pd.DataFrame:
    """Random answers with objects' own classes, and class ``label``'s backgrounds pulling."""
    labels = rng.integers(0, 3, n)
    objects = (labels[:, None] + rng.integers(1, 3, (n, 6))) % 3
    noise = rng.integers(0, 3, (n, 6))
    predictions = np.where(rng.random((n, 6)) < 0.8, objects, noise)
    pulled = (rng.random((n, 6)) < pull) & (labels[:, None] == label)
    return edits_of(labels, objects, np.where(pulled, labels[:, None], predictions))


def brute_force(edits: pd.DataFrame) -> np.ndarray:
    rows = [
        (label, obj, answer)
        for label, objects, answers in zip(
            edits["label"], edits["transplant_objects"], edits["transplant_predictions"],
            strict=True,
        )
        for obj, answer in zip(objects, answers, strict=True)
    ]  # fmt: skip
    found = []
    for label, obj, answer in rows:
        if answer < 0 or obj < 0:
            found.append(np.nan)
            continue
        elsewhere = [a == label for la, o, a in rows if la != label and o == obj and a >= 0]
        found.append((answer == label) - (np.mean(elsewhere) if elsewhere else 0.0))
    return np.array(found).reshape(len(edits), -1)


def test_effects_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    edits = drawn(rng, 60, 0.4)
    holes = rng.random((60, 6)) < 0.2
    predictions = np.where(holes, -1, np.stack(list(edits["transplant_predictions"])))
    edits["transplant_predictions"] = list(predictions)
    np.testing.assert_allclose(Transplants.of(edits, "").effects(3), brute_force(edits))


def test_an_object_that_is_taken_for_the_class_anywhere_is_no_effect() -> None:
    # Objects of class b are called a on whatever background: no background does that.
    labels = np.repeat([0, 2], 30)
    objects = np.ones((60, 6), np.int64)
    table = weigh_evidence(
        edits_of(labels, objects, np.zeros((60, 6), np.int64)),
        _no_samples(),
        CLASSES,
        ["x"],
        seed=0,
    ).to_pandas()
    row = table[table["label"] == 0].iloc[0]
    assert row["pixel_transplant_rate"] == 1.0 and row["effect"] == 0.0
    assert row["decided_share"] == 0.0, "nor do such backgrounds decide anything"


def test_a_pull_is_measured_and_its_interval_holds_it() -> None:
    pull = 0.6
    hits = 0
    for seed in range(40):
        edits = drawn(np.random.default_rng(seed), 150, pull)
        table = weigh_evidence(edits, _no_samples(), CLASSES, ["x"], seed=seed).to_pandas()
        row = table[table["label"] == 0].iloc[0]
        # A pulled answer was 'a' already in a fifteenth of the cases.
        hits += row["effect_low"] <= pull * (1 - 0.2 / 3) <= row["effect_high"]
        others = table[table["label"] != 0]["effect"]
        assert others.abs().max() < 0.25
    assert hits >= 34


def test_all_columns_by_hand() -> None:
    labels = np.array([0, 0, 1])
    objects = np.array([[1] * 6, [1] * 6, [0] * 6])
    answers = np.array([[0, 0, 0, 0, 0, 1], [1, 1, 1, 0, -1, -1], [0] * 6])
    row = (
        weigh_evidence(edits_of(labels, objects, answers), _no_samples(), CLASSES, ["x"], seed=0)
        .to_pandas()
        .iloc[0]
    )
    assert row["n"] == row["n_images"] == 2
    assert row["pixel_transplant_rate"] == pytest.approx(6 / 10)
    # On the only other background an object of class b there is none: at home it is never 'a'.
    assert row["effect"] == pytest.approx((5 / 6 + 1 / 4) / 2)
    assert np.isnan(row["decided_elsewhere"]), "no other image has objects but those of class a"
    assert row["decided_share"] == 0.5
    low, high = stats.binomtest(1, 2).proportion_ci(method="exact")
    assert (row["decided_share_low"], row["decided_share_high"]) == pytest.approx((low, high))
    # Fills in turn: places 0 and 3, 1 and 4, 2 and 5.
    fills = [row[f"effect_{fill}"] for fill in ("noise", "mean", "other")]
    assert fills == pytest.approx([3 / 4, 2 / 3, 1 / 3])
    assert row["background_only_rate"] == 1.0


def test_classes_without_edits_are_rows_without_numbers() -> None:
    for edits in (None, drawn(np.random.default_rng(0), 40, 0.0).query("label != 2")):
        table = weigh_evidence(edits, _no_samples(), CLASSES, ["x", "y"][:1], seed=0).to_pandas()
        row = table[table["label"] == 2].iloc[0]
        assert row["n"] == 0 and np.isnan(row["effect"])
        assert list(table.columns) == [column.name for column in EVIDENCE_COLUMNS]


def test_two_classes_compare_with_objects_at_home() -> None:
    labels = np.repeat([0, 1], 50)
    objects = np.tile(1 - labels[:, None], 6)
    # Whatever is asked, the answer is 'a': no background does that.
    edits = edits_of(labels, objects, np.zeros((100, 6), np.int64))
    edits["mixed_same_predictions"] = list(np.zeros((100, 3), np.int64))
    table = weigh_evidence(edits, _no_samples(), CLASSES[:2], ["x"], seed=0).to_pandas()
    assert table["effect"].tolist() == [0.0, 0.0]
    assert table["decided_share"].tolist() == [0.0, 0.0]
    # Nothing to compare with at all: no number, not a large one.
    edits["mixed_same_predictions"] = list(np.full((100, 3), -1))
    table = weigh_evidence(edits, _no_samples(), CLASSES[:2], ["x"], seed=0).to_pandas()
    assert table["n"].tolist() == [0, 0] and table["effect"].isna().all()


def test_copies_count_as_one() -> None:
    rng = np.random.default_rng(1)
    edits = drawn(rng, 60, 0.5)
    first = edits[edits["label"] == 0]
    copied = pd.concat([edits, *[first.iloc[:1]] * 11], ignore_index=True)
    clusters = np.concatenate([np.arange(60), np.full(11, first.index[0])])
    table = weigh_evidence(copied, _no_samples(), CLASSES, ["x"], seed=0, clusters=clusters)
    row = table.to_pandas().query("label == 0").iloc[0]
    assert (row["n"], row["n_images"]) == (len(first), len(first) + 11)
    plain = weigh_evidence(edits, _no_samples(), CLASSES, ["x"], seed=0).to_pandas()
    assert row["effect"] == pytest.approx(plain.query("label == 0").iloc[0]["effect"])


def test_what_other_backgrounds_decide_is_told() -> None:
    # Half of the other classes' backgrounds make anything 'a' as well.
    labels = np.repeat([0, 1, 1], 20)
    objects = np.full((60, 6), 2)
    answers = np.repeat([0, 0, 2], 20)[:, None] * np.ones(6, np.int64)
    table = weigh_evidence(
        edits_of(labels, objects, answers), _no_samples(), CLASSES, ["x"], seed=0
    ).to_pandas()
    assert table.query("label == 0").iloc[0]["decided_elsewhere"] == 0.5


def test_families_have_rows_of_their_own() -> None:
    edits = drawn(np.random.default_rng(0), 60, 0.0)
    pulled = drawn(np.random.default_rng(0), 60, 0.9)
    edits["y_transplant_predictions"] = pulled["transplant_predictions"]
    edits["y_background_only_predictions"] = pulled["background_only_predictions"]
    samples = pd.DataFrame({"label": [0, 0, 1], "transplant_rate": [0.0, 0.5, 1.0]})
    table = weigh_evidence(edits, samples, CLASSES, ["x", "y"], seed=0).to_pandas()
    first = table[table["label"] == 0]
    assert first["family"].tolist() == ["x", "y"]
    assert first["effect"].iloc[1] > first["effect"].iloc[0] + 0.5
    assert first["feature_transplant_rate"].iloc[0] == 0.25


def _no_samples() -> pd.DataFrame:
    return pd.DataFrame({"label": pd.array([], "Int32"), "transplant_rate": []})
