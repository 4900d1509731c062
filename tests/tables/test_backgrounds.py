from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binomtest
from sklearn.metrics import adjusted_rand_score
from statsmodels.stats.multitest import multipletests

from audit.tables.backgrounds import (
    BACKGROUND_COLUMNS,
    PROTOTYPES,
    TOP_CHANNELS,
    read_far,
    summarise_backgrounds,
)
from audit.tables.spuriosity import channel_weights
from tests.tables.making import LinearHead, random_head

GRID = (4, 4)


def two_skies(count: int = 200, *, seed: int = 0) -> tuple[LinearHead, np.ndarray]:
    """Two classes; class 0 stands before one of two backgrounds, each of which feeds it.

    Background 0 lights up channel 0, background 1 channel 1 and less so; class 1 is fed by
    channel 2, which its object lights up. The object of class 0 lights up nothing of use.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], count // 2)
    kind = np.where(labels == 0, rng.integers(0, 2, count), -1)
    masks = np.zeros((count, *GRID))
    masks[:, 1, 1] = 1
    features = 0.1 * rng.random((count, 5, *GRID))
    for sky, height in enumerate((4.0, 2.0)):
        features[kind == sky, sky] += height * (1 - masks[kind == sky])
    features[labels == 1, 2] += 20 * masks[labels == 1]
    weights = np.array([[2.0, 2.0, -1.0, 0.0, 0.3], [-1.0, -1.0, 3.0, 0.0, 0.1]])
    return LinearHead(features=features, weights=weights, masks=masks, labels=labels), kind


def test_evidence_sums_to_the_far_logit_of_a_pooled_linear_head() -> None:
    """Of the label, also where something else was predicted."""
    rng = np.random.default_rng(0)
    head = random_head(rng, n=300, channels=7, classes=4)
    samples = head.rows()
    wrong = ~samples["correct"].to_numpy(bool)
    assert wrong.sum() > 50
    far = read_far(samples, GRID, seed=0)
    exact = head.supplied(head.labels)[2].sum(axis=1)
    tried = 0
    for label in range(4):
        members = np.flatnonzero(far.label == label)
        explained = np.flatnonzero(far.target == label)
        weights = channel_weights(far.supplied[explained], far.amount(explained))
        assert_allclose(weights, head.centred[label], atol=2e-3)
        found = far.amount(members) @ weights
        assert_allclose(found, exact[far.place[members]], rtol=1e-3, atol=5e-3)
        tried += len(members)
    assert tried == samples["far_features"].notna().sum()


def test_two_backgrounds_of_a_class_are_told_apart() -> None:
    head, kind = two_skies()
    samples = head.rows()
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    assert table.columns.tolist() == [column.name for column in BACKGROUND_COLUMNS]
    planes = table[table["label"] == 0]
    assert planes["cluster"].tolist() == [0, 1]
    assert planes["n"].tolist() == [(kind == 0).sum(), (kind == 1).sum()]
    assert planes["share"].sum() == pytest.approx(1)
    assert (planes["silhouette"] > 0.8).all()
    # The stronger sky comes first, and each is fed through its own channel.
    assert [channels[0] for channels in planes["top_channels"]] == [0, 1]
    exact = head.supplied(head.labels)[2].sum(axis=1)
    for sky, row in enumerate(planes.to_dict("records")):
        of_kind = kind == sky
        assert row["far_logit"] == pytest.approx(exact[of_kind].mean(), rel=1e-5)
        rows = samples[of_kind]
        share = rows["far_logit"].sum() / rows["target_logit"].sum()
        assert row["logit_share"] == pytest.approx(share, rel=1e-5)
        assert row["class_logit"] == pytest.approx(rows["target_logit"].mean(), rel=1e-5)
        assert {kind[int(name[1:])] for name in row["prototypes"]} == {sky}
        assert len(row["prototypes"]) == PROTOTYPES
        assert len(row["top_channels"]) <= TOP_CHANNELS
        assert row["transplant_rate"] == 0.25
    cars = table[table["label"] == 1]
    assert cars["cluster"].tolist() == [0]
    assert cars["silhouette"].isna().all()
    assert cars["accuracy_outside"].isna().all()
    assert cars["accuracy_outside_low"].isna().all()


def test_groups_are_those_of_the_evidence_not_of_the_features() -> None:
    """A channel that the class does not read may split the images as it likes."""
    head, kind = two_skies()
    odd = np.arange(200) % 2 == 0
    head.features[odd, 3] += 50
    samples = head.rows()
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    planes = table[table["label"] == 0]
    assert planes["n"].tolist() == [(kind == 0).sum(), (kind == 1).sum()]


def test_prototypes_are_strong_and_typical() -> None:
    head, kind = two_skies()
    samples = head.rows()
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    exact = pd.Series(head.supplied(head.labels)[2].sum(axis=1), samples["sample_id"])
    first = table.iloc[0]
    assert (exact[first["prototypes"]] >= exact[kind == 0].median() - 1e-2).all()


def test_accuracy_inside_and_outside_by_hand() -> None:
    head, kind = two_skies()
    samples = head.rows()
    right = np.arange(200) % 10 != 0
    right[kind == 1] = np.arange((kind == 1).sum()) % 2 == 0
    samples["correct"] = pd.array(right, "boolean")
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    for sky in (0, 1):
        row = table[table["label"] == 0].iloc[sky]
        for name, of_kind in (("accuracy", kind == sky), ("accuracy_outside", kind == 1 - sky)):
            hits, count = int(right[of_kind].sum()), int(of_kind.sum())
            assert row[name] == hits / count
            wanted = binomtest(hits, count).proportion_ci(method="wilson")
            assert_allclose((row[f"{name}_low"], row[f"{name}_high"]), (wanted.low, wanted.high))


def test_the_gap_shows_a_class_that_needs_its_background() -> None:
    """The fewer far logits, the more often it is wrong; in the other class there is no such tie."""
    rng = np.random.default_rng(3)
    head, _ = two_skies(400)
    samples = head.rows()
    strength = rng.random(400)
    head.features[:200, :2] *= strength[:200, None, None, None]
    samples = head.rows()
    samples["target"] = pd.array(head.labels, "Int32")
    samples["alt_target"] = pd.array([None] * 400, "Int32")
    right = np.ones(400, bool)
    right[:200] = strength[:200] > 0.4
    right[200:] = rng.random(200) < 0.7
    samples["correct"] = pd.array(right, "boolean")
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    gaps = table.groupby("label").first()
    assert gaps.loc[0, "spuriosity_gap"] > 0.7
    assert gaps.loc[0, "spuriosity_low"] > 0.4
    assert gaps.loc[0, "spuriosity_q"] < 0.001
    assert gaps.loc[0, "spuriosity_n"] == 40
    assert gaps.loc[1, "spuriosity_low"] < 0 < gaps.loc[1, "spuriosity_high"]
    assert gaps.loc[1, "spuriosity_p"] > 0.05
    _, wanted, _, _ = multipletests(gaps["spuriosity_p"], method="fdr_bh")
    assert_allclose(gaps["spuriosity_q"], wanted)
    assert table.groupby("label")["spuriosity_gap"].nunique().eq(1).all()


def test_small_classes_have_one_kind_and_no_gap() -> None:
    head, _ = two_skies()
    keep = np.r_[0:8, 100:101]
    samples = head.rows().iloc[keep].reset_index(drop=True)
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    assert table["label"].tolist() == [0, 1]
    assert table["n"].tolist() == [8, 1]
    assert table["cluster"].tolist() == [0, 0]
    gap = [name for name in table if name.startswith("spuriosity")]
    assert table[gap].isna().all(axis=None)
    assert len(table["prototypes"][1]) == 1


def test_classes_without_evidence_are_absent() -> None:
    head, _ = two_skies()
    samples = head.rows()
    # Nothing is explained as class 1, and class 2 has no samples.
    samples["target"] = pd.array([0] * 200, "Int32")
    table = summarise_backgrounds(samples, ["plane", "car", "bus"], GRID, seed=0).to_pandas()
    assert set(table["label"]) == {0}


@pytest.mark.parametrize("case", ["no columns", "no rows", "all null", "not ok", "no labels"])
def test_nothing_to_see_is_an_empty_table(case: str) -> None:
    samples = two_skies()[0].rows()
    if case == "no columns":
        samples = samples.drop(columns=["channel_logits", "far_features"])
    elif case == "no rows":
        samples = samples.iloc[:0]
    elif case == "all null":
        samples["far_features"] = None
    elif case == "not ok":
        samples["status"] = "empty_mask"
    else:
        samples["label"] = pd.array([None] * len(samples), "Int32")
        samples["label"] = samples["label"].astype("Int32")
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0)
    assert table.num_rows == 0
    assert table.column_names == [column.name for column in BACKGROUND_COLUMNS]


def test_samples_without_far_background_do_not_count() -> None:
    head, _ = two_skies()
    head.masks[:10] = 1
    table = summarise_backgrounds(head.rows(), ["plane", "car"], GRID, seed=0).to_pandas()
    assert table.loc[table["label"] == 0, "n"].sum() == 90


def test_silent_background_is_one_kind() -> None:
    head, _ = two_skies()
    head.features[:] = head.features * head.masks[:, None]
    table = summarise_backgrounds(head.rows(), ["plane", "car"], GRID, seed=0).to_pandas()
    assert (table["cluster"] == 0).all()
    assert table["far_logit"].tolist() == pytest.approx([0] * len(table), abs=1e-6)
    assert all(len(channels) == 0 for channels in table["top_channels"])


def test_one_class_alone() -> None:
    samples = two_skies()[0].rows().iloc[:100].copy()
    # Centred, the only class has no logit: nothing supplies anything.
    samples["channel_logits"] = [np.zeros(15, np.float16)] * 100
    samples["target_logit"] = np.float32(0)
    samples["far_logit"] = np.float32(0)
    table = summarise_backgrounds(samples, ["plane"], GRID, seed=0).to_pandas()
    assert len(table) == 1
    assert table["logit_share"].isna().all()


def test_words_say_what_stands_out() -> None:
    head, kind = two_skies()
    samples = head.rows()
    rng = np.random.default_rng(0)
    samples["brightness"] = rng.random(200) * 0.5
    samples.loc[kind == 0, "brightness"] += 0.5
    samples["yellow_blue"] = np.where(kind == 0, -0.5, rng.random(200) - 0.2)
    samples["red_green"] = 0.0
    samples["sharpness"] = np.nan
    table = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=0).to_pandas()
    assert table.loc[0, "description"] == "bright, blue"
    assert table["description"][1:].isna().all()


def test_the_same_seed_gives_the_same_table() -> None:
    samples = two_skies()[0].rows()
    first = summarise_backgrounds(samples, ["plane", "car"], GRID, seed=1)
    assert first.equals(summarise_backgrounds(samples, ["plane", "car"], GRID, seed=1))


def test_kinds_do_not_hang_on_how_much_background_there_is() -> None:
    """Large and small objects before the same two skies: still two kinds."""
    head, kind = two_skies()
    rng = np.random.default_rng(5)
    head.masks[:] = 0
    for n in range(200):
        head.masks[n, : rng.integers(1, 3), : rng.integers(1, 3)] = 1
    table = summarise_backgrounds(head.rows(), ["plane", "car"], GRID, seed=0).to_pandas()
    planes = table[table["label"] == 0]
    assert len(planes) == 2
    names = [(name, row["cluster"]) for _, row in planes.iterrows() for name in row["prototypes"]]
    truth = [kind[int(name[1:])] for name, _ in names]
    assert adjusted_rand_score(truth, [cluster for _, cluster in names]) == 1
