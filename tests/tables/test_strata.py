from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from audit.tables.bootstrap import bca_interval
from audit.tables.classes import CONFIDENT_MASK
from audit.tables.strata import ENOUGH, STRATA_COLUMNS, summarise_strata, worst_group


def some_samples(count: int = 600) -> pd.DataFrame:
    """Two classes; the model fails on dark images of the second."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, count)
    brightness = rng.uniform(size=count)
    failing = (label == 1) & (brightness < 1 / 3)
    rows = pd.DataFrame(
        {
            "label": pd.array(label, "Int32"),
            "correct": pd.array(rng.uniform(size=count) < np.where(failing, 0.4, 0.9), "boolean"),
            "mask_confidence": rng.uniform(size=count),
            "object_area": rng.uniform(size=count).astype(np.float32),
            "brightness": brightness.astype(np.float32),
            "transplant_rate": rng.integers(0, 5, count) / 4,
            "background_share": rng.uniform(size=count),
            "kappa": rng.normal(0.2, 0.3, count),
            "reason": pd.Categorical(rng.choice(["object", "both"], count)),
        }
    )
    rows.loc[5, ["correct", "brightness", "kappa", "reason"]] = None
    return rows


def table_of(samples: pd.DataFrame, classes: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    table = summarise_strata(samples, classes, seed=3)
    assert table.schema.names == [column.name for column in STRATA_COLUMNS]
    return table.to_pandas()


def row_of(table: pd.DataFrame, *key: object) -> pd.Series:
    found = table[(table[["label", "stratum", "value"]] == list(key)).all(axis=1)]
    assert len(found) == 1
    return found.iloc[0]


def test_each_stratum_is_summed_up_over_its_rows() -> None:
    samples = some_samples()
    table = table_of(samples)
    inside = (samples["label"] == 0) & (samples["mask_confidence"] >= CONFIDENT_MASK)
    rows = samples[inside]
    row = row_of(table, 0, "mask_confidence", "high")
    assert (row["n"], row["label_name"]) == (len(rows), "a")
    right = rows["correct"].dropna().astype(bool)
    assert row["accuracy"] == pytest.approx(right.mean())
    low, high = proportion_confint(int(right.sum()), len(right), method="wilson")
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx((low, high))
    for name in ("transplant_rate", "background_share", "kappa"):
        assert row[name] == pytest.approx(rows[name].mean())
    expected = bca_interval(
        rows["kappa"].dropna().to_numpy(), np.random.default_rng(1), resamples=20_000
    )
    found = row["kappa_low"], row["kappa_high"]
    np.testing.assert_allclose(found, expected, atol=0.06 * np.ptp(expected))


def test_strata_divide_the_samples_that_have_what_they_ask() -> None:
    samples = some_samples()
    table = table_of(samples)
    sums = table.groupby("stratum")["n"].sum().to_dict()
    assert sums == {
        "correct": 599, "mask_confidence": 600, "object_area": 600, "brightness": 599,
        "reason": 599,
    }  # fmt: skip
    thirds = table[table["stratum"] == "brightness"].groupby("value")["n"].sum()
    assert all(abs(n - 600 / 3) <= 1 for n in thirds)
    edges = np.quantile(samples["brightness"].dropna(), [1 / 3, 2 / 3])
    dark = samples["brightness"] <= edges[0]
    assert row_of(table, 1, "brightness", "low")["n"] == (dark & (samples["label"] == 1)).sum()
    assert row_of(table, 0, "correct", "no")["accuracy"] == 0
    assert (table.groupby(["label", "stratum", "value"]).size() == 1).all()


def test_the_worst_group_is_found() -> None:
    samples = some_samples()
    table = table_of(samples)
    assert table["is_worst"].sum() == 1
    worst = worst_group(table)
    assert worst is not None
    assert (worst["label_name"], worst["stratum"], worst["value"]) == ("b", "brightness", "low")
    row = table[table["is_worst"]].iloc[0]
    assert (worst["n"], worst["accuracy"]) == (row["n"], row["accuracy"])
    competing = table[(table["n"] >= ENOUGH) & ~table["stratum"].isin(["correct", "reason"])]
    assert worst["accuracy"] == competing["accuracy"].min()


def test_small_groups_have_no_interval_and_are_not_the_worst() -> None:
    samples = some_samples(40)
    table = table_of(samples)
    assert (table["n"] < ENOUGH).all()
    assert table["kappa_low"].isna().all()
    assert not table["is_worst"].any()
    assert worst_group(table) is None


def test_columns_that_are_missing_or_constant_make_no_strata() -> None:
    samples = some_samples().drop(columns=["brightness", "reason"])
    samples["mask_confidence"] = np.nan
    samples["object_area"] = np.float32(0.3)
    table = table_of(samples)
    assert set(table["stratum"]) == {"correct"}
    assert len(table_of(samples.iloc[:0])) == 0
    assert worst_group(table_of(samples.iloc[:0])) is None


def test_rows_without_a_label_and_classes_without_rows() -> None:
    samples = some_samples()
    samples.loc[:9, "label"] = None
    table = table_of(samples, ("a", "b", "c"))
    assert set(table["label_name"]) == {"a", "b"}
    assert table.loc[table["stratum"] == "object_area", "n"].sum() == 590


def test_copies_of_images_make_nothing_surer() -> None:
    samples = some_samples()
    # Terciles of more rows lie elsewhere.
    samples = samples.drop(columns=["object_area", "brightness"])
    samples["image_hash"] = pd.array(np.arange(600), "Int64")
    copies = pd.concat([samples] * 4, ignore_index=True)
    once, more = table_of(samples), table_of(copies)
    assert (more["n"] == 4 * once["n"]).all()
    many = once["kappa_low"].notna()
    for name in ("kappa_low", "kappa_high"):
        np.testing.assert_allclose(more.loc[many, name], once.loc[many, name], rtol=1e-6)
    mixed = once["accuracy"].between(0.01, 0.99) & (once["n"] >= ENOUGH)
    for name in ("accuracy_low", "accuracy_high"):
        np.testing.assert_allclose(more.loc[mixed, name], once.loc[mixed, name], rtol=0.02)
