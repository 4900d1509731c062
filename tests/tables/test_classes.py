from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from audit.tables.bootstrap import bca_interval, bca_intervals
from audit.tables.classes import (
    CLASS_COLUMNS,
    MOVED_SCORES,
    QUANTILE_SCORES,
    SCORES,
    count_confusions,
    summarise_classes,
)
from audit.tables.nulls import area_null_p, mask_shuffle_null
from audit.tables.power import detectable_mean, detectable_rate
from audit.tables.totals import rank_classes, summarise_split


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
    assert (c["n_clusters"], c["n_duplicates"]) == (0, 0)
    counts = ["label", "label_name", "n", "n_scored", "n_confident", "n_clusters", "n_duplicates"]
    assert table.loc[2].drop(counts).isna().all()


def many_samples(count: int = 240, classes: int = 3) -> pd.DataFrame:
    """Rows as a run leaves them, with everything that classes are summed up by."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, classes, count)
    rows = pd.DataFrame(
        {
            "label": pd.array(label, "Int32"),
            "predicted": pd.array(np.where(rng.uniform(size=count) < 0.7, label, 0), "Int32"),
            "background_pred": pd.array(rng.integers(0, classes, count), "Int32"),
            "object_pred": pd.array(rng.integers(0, classes, count), "Int32"),
            "mask_source": pd.Categorical(["estimated"] * count),
            "object_area": rng.uniform(0.2, 0.6, count).astype(np.float32),
            "unknown_area": 0.0,
            "border_touch": 0.0,
        }
    )
    rows["correct"] = (rows["label"] == rows["predicted"]).astype("boolean")
    for score in SCORES:
        rows[score] = rng.uniform(0, 1, count).astype(np.float32)
    # The first class's maps follow the object.
    rows["kappa"] += np.where(label == 0, 0.4, -0.5).astype(np.float32)
    for score in MOVED_SCORES:
        rows[f"{score}_low"] = rows[f"{score}_high"] = rows[score]
    masks = rng.uniform(size=(count, 16))
    maps = rng.exponential(1, (count, 16)) + np.where(label == 0, 2, 0)[:, None] * masks
    rows["map"] = list((maps / maps.max(axis=1, keepdims=True)).astype(np.float16))
    rows["grid_mask"] = list(masks.astype(np.float16))
    rows["image_hash"] = pd.array(np.arange(count), "Int64")
    rows["component_transplant_rate"] = rows["transplant_rate"] * 0.5
    rows["ellipse_transplant_rate"] = np.where(label == 1, 0.9, 0.1)
    rows["transplant_far_rate"] = np.float32(0.25)
    return rows


def test_tests_and_powers_are_those_of_the_rows() -> None:
    samples = many_samples()
    table = summarise_classes(samples, ["a", "b", "c", "none"], seed=0).to_pandas()
    assert list(table.columns) == [column.name for column in CLASS_COLUMNS]
    for label in range(3):
        rows, row = samples[samples["label"] == label], table.loc[label]
        kappas = rows["kappa"].to_numpy(np.float64)
        assert row["kappa_p"] == pytest.approx(area_null_p(kappas))
        assert row["detectable_kappa"] == pytest.approx(
            float(detectable_mean(kappas.std(ddof=1), len(kappas)))
        )
        shuffle = mask_shuffle_null(
            *(np.stack(list(rows[name])).astype(np.float64) for name in ("map", "grid_mask"))
        )
        assert (row["shuffle_z"], row["shuffle_p"]) == pytest.approx((shuffle.z, shuffle.p))
        others = table["transplant_rate"].drop(index=[label, 3]).mean()
        assert row["detectable_transplant_rate"] == pytest.approx(
            float(detectable_rate(others, len(rows)))
        )
        low, high = proportion_confint(int(rows["correct"].sum()), len(rows), method="wilson")
        assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((low, high))
    for name in ("kappa", "shuffle"):
        expected = multipletests(table[f"{name}_p"][:3], method="fdr_bh")[1]
        np.testing.assert_allclose(table[f"{name}_q"][:3], expected)
        assert np.isnan(table.loc[3, f"{name}_q"])
    assert table.loc[0, "kappa_q"] < 1e-6
    assert table.loc[0, "shuffle_q"] < 0.01 < table.loc[1, "shuffle_p"]
    assert np.isnan(table.loc[3, "detectable_transplant_rate"])


def test_intervals_are_those_of_one_bootstrap() -> None:
    samples = many_samples()
    row = summarise_classes(samples, ["a", "b", "c"], seed=4).to_pandas().loc[1]
    rows = samples[samples["label"] == 1]
    values = rows[list(SCORES)].to_numpy(np.float64)
    shares = {"_median": 0.5, "_p10": 0.1, "_p90": 0.9}
    asked = [(SCORES.index(score), share) for score in QUANTILE_SCORES for share in shares.values()]
    found = bca_intervals(values, np.random.default_rng((4, 1)), quantiles=asked)
    for score, ends in zip(SCORES, found.means, strict=True):
        np.testing.assert_allclose([row[f"{score}_low"], row[f"{score}_high"]], ends)
    names = [f"{score}{suffix}" for score in QUANTILE_SCORES for suffix in shares]
    for name, ends in zip(names, found.quantiles, strict=True):
        np.testing.assert_allclose([row[f"{name}_low"], row[f"{name}_high"]], ends)
        assert ends[0] < row[name] < ends[1]


def test_by_answer_and_the_highest_family() -> None:
    samples = many_samples()
    table = summarise_classes(samples, ["a", "b", "c"], seed=0).to_pandas()
    for label in range(3):
        rows, row = samples[samples["label"] == label], table.loc[label]
        for answer, truth in (("correct", True), ("incorrect", False)):
            expected = rows.loc[rows["correct"] == truth, "kappa"].astype(float).mean()
            assert row[f"kappa_{answer}"] == pytest.approx(expected, nan_ok=True)
        assert row["transplant_far_rate"] == 0.25
        assert np.isnan(row["transplant_additive_rate"])
    assert table["transplant_family"].tolist() == ["estimated", "ellipse", "estimated"]
    assert table.loc[1, "transplant_highest"] == pytest.approx(0.9)
    assert table.loc[0, "transplant_highest"] == table.loc[0, "transplant_rate"]


def test_copies_of_images_make_nothing_surer() -> None:
    samples = many_samples()
    copies = pd.concat([samples] * 4, ignore_index=True)
    once, more = (
        summarise_classes(rows, ["a", "b", "c"], seed=0).to_pandas() for rows in (samples, copies)
    )
    assert more["n_clusters"].tolist() == once["n"].tolist()
    assert more["n_duplicates"].tolist() == (3 * once["n"]).tolist()
    same = [
        *(f"{name}_{end}" for name in ("kappa", "transplant_rate") for end in ("low", "high")),
        "kappa_p", "kappa_q", "shuffle_z", "shuffle_q",
    ]  # fmt: skip
    for name in same:
        np.testing.assert_allclose(more[name], once[name], rtol=1e-6, err_msg=name)
    nearly = ["accuracy_low", "accuracy_high", "detectable_kappa", "detectable_transplant_rate"]
    for name in nearly:
        np.testing.assert_allclose(more[name], once[name], rtol=0.02, err_msg=name)
    naive = summarise_classes(copies.drop(columns="image_hash"), ["a", "b", "c"], 0).to_pandas()
    assert (naive["kappa_high"] - naive["kappa_low"]).mean() < 0.6 * (
        once["kappa_high"] - once["kappa_low"]
    ).mean()


def test_columns_that_a_run_does_not_have_give_null() -> None:
    samples = many_samples().drop(
        columns=["grid_mask", "map", "image_hash", "transplant_far_rate",
                 "component_transplant_rate", "ellipse_transplant_rate"]
    )  # fmt: skip
    table = summarise_classes(samples, ["a", "b", "c"], seed=0).to_pandas()
    for name in ("shuffle_z", "shuffle_p", "shuffle_q", "transplant_far_rate"):
        assert table[name].isna().all(), name
    assert (table["n_duplicates"] == 0).all()
    assert (table["transplant_family"] == "estimated").all()


def test_one_class_and_a_thousand() -> None:
    samples = many_samples(classes=1)
    one = summarise_classes(samples, ["a"], seed=0).to_pandas().loc[0]
    assert one["kappa_q"] == one["kappa_p"]
    assert np.isnan(one["detectable_transplant_rate"]), "there is no other class"
    names = [f"class {n}" for n in range(1000)]
    many = summarise_classes(many_samples(1500, 1000), names, seed=0).to_pandas()
    assert len(many) == 1000
    assert many["n"].sum() == 1500
    assert many.loc[many["n"] < 2, "kappa_p"].isna().all()
    assert many.loc[many["n"] > 1, "kappa_q"].between(0, 1).all()


def test_totals_have_intervals_over_samples_and_over_classes() -> None:
    samples = many_samples(600)
    samples.loc[samples["label"] == 2, "kappa"] -= 0.3
    samples["image_hash"] = pd.array(np.arange(600) // 2 * 2, "Int64")
    classes = summarise_classes(samples, ["a", "b", "c", "none"], seed=0).to_pandas()
    sidecars = [{"histogram": np.ones((2, 4)), "statuses": {"ok": 600}, "problems": []}]
    totals = summarise_split(samples, classes, sidecars, seed=3)
    for score in ("background_share", "transplant_rate", "kappa"):
        values = samples[score].to_numpy(np.float64)
        assert totals[score] == pytest.approx(values.mean())
        assert totals[f"{score}_macro"] == pytest.approx(classes[score].mean())
        expected = bca_interval(
            values, np.random.default_rng(9), clusters=np.arange(600) // 2, resamples=20_000
        )
        ends = totals[f"{score}_low"], totals[f"{score}_high"]
        np.testing.assert_allclose(ends, expected, atol=0.06 * np.ptp(expected))
        assert (
            totals[f"{score}_macro_low"] < totals[f"{score}_macro"] < totals[f"{score}_macro_high"]
        )
    # Between the classes kappa differs more than within: strata take that out.
    assert totals["kappa_macro_high"] - totals["kappa_macro_low"] < 0.9 * (
        totals["kappa_high"] - totals["kappa_low"]
    )
    assert totals["duplicates"] == 300
    labels = samples["label"].to_numpy()
    assert totals["conflicting_labels"] == int((labels[::2] != labels[1::2]).sum()) > 0


def test_totals_of_a_split_without_scores_are_null() -> None:
    samples = many_samples(6)
    samples[list(SCORES)] = np.nan
    samples["label"] = pd.array([None] * 6, "Int32")
    classes = summarise_classes(samples, ["a", "b"], seed=0).to_pandas()
    sidecars = [{"histogram": np.ones((2, 4)), "statuses": {"ok": 6}, "problems": []}]
    totals = summarise_split(samples, classes, sidecars)
    names = [f"{s}{k}_{e}" for s in ("kappa",) for k in ("", "_macro") for e in ("low", "high")]
    assert [totals[name] for name in names] == [None] * 4
    assert totals["kappa"] is None and totals["kappa_macro"] is None


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
            "verdict": "no evidence",
            "reliance": np.nan,
        }
    )
    assert rank_classes(table)["label_name"].tolist() == ["c", "d", "a", "b"]
    table.loc[2, "n_scored"] = 1
    assert rank_classes(table)["label_name"].tolist() == ["d", "a", "c", "b"], "one image is luck"


def test_ranking_follows_verdicts_then_pixels_then_feature_space() -> None:
    table = pd.DataFrame(
        {
            "label_name": ["a", "b", "c", "d"],
            "transplant_rate": [0.9, 0.1, 0.2, 0.3],
            "background_share": 0.5,
            "n_scored": 9,
            "verdict": ["no evidence", "relies on background", "suspect", "no evidence"],
            "reliance": [0.1, 0.4, 0.9, 0.2],
        }
    )
    assert rank_classes(table)["label_name"].tolist() == ["b", "c", "d", "a"]
