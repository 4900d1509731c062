from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

from audit.tables.changes import CHANGE_COLUMNS, list_changes
from audit.tables.comparison import (
    BETTER,
    COMPARE_COLUMNS,
    OTHER_DONORS,
    PAIRED,
    SAME,
    SPLIT,
    UNDECIDED,
    UNPAIRED,
    WORSE,
    Sides,
    compare_rows,
)
from audit.tables.paired import mcnemar, paired_interval, tost
from audit.tables.paired_groups import (
    Grouping,
    bootstrap,
    equivalence,
    pooled,
    score_equivalence,
    score_interval,
    sign_test,
    t_interval,
    t_test,
)
from audit.tables.power import mean_error
from audit.tables.scored import logit_margin, scores_of_rows

ANSWERS = {"better": "worse", "worse": "better"}


def rows(rng: np.random.Generator, labels: np.ndarray, accuracy: float = 0.8) -> pd.DataFrame:
    """Rows of a model that answers this share of the images rightly."""
    count, classes = len(labels), int(labels.max()) + 1
    right = rng.random(count) < accuracy
    predicted = np.where(right, labels, (labels + 1) % max(2, classes))
    names = np.array([f"class {label}" for label in range(max(2, classes))], dtype=object)
    share, area = rng.uniform(0.1, 0.6, count), rng.uniform(0.2, 0.7, count)
    return pd.DataFrame(
        {
            "index": np.arange(count),
            "sample_id": [f"s{place}" for place in range(count)],
            "status": "ok",
            "label": pd.array(labels, "Int32"),
            "label_name": pd.Categorical(names[labels]),
            "predicted": pd.array(predicted, "Int32"),
            "predicted_name": pd.Categorical(names[predicted]),
            "correct": pd.array(right, "boolean"),
            "confidence": rng.uniform(0.4, 1, count).astype(np.float32),
            "target": pd.array(predicted, "Int32"),
            "alt_target": pd.array(np.where(right, pd.NA, labels), "Int32"),
            "target_logit": rng.normal(10, 1, count).astype(np.float32),
            "object_area": area,
            "background_share": share,
            "alt_background_share": np.where(right, np.nan, share),
            "pointing_hit": (rng.random(count) < 0.7).astype(float),
            "object_logit": rng.normal(8, 1, count),
            "alt_object_logit": np.where(right, np.nan, rng.normal(2, 1, count)),
            "far_logit": rng.normal(1, 1, count),
            "alt_far_logit": np.where(right, np.nan, rng.normal(0, 1, count)),
            "transplant_rate": rng.choice([0, 0.25, 0.5], count),
            "reason": pd.Categorical(rng.choice(["object", "background", "both"], count)),
            **{
                name: pd.array(rng.random(count) < 0.1, "boolean")
                for name in (
                    "right_for_wrong_reason", "wrong_because_of_background", "context_driven",
                )
            },
            "image_hash": pd.array(rng.permutation(10 * count)[:count], "Int64"),
        }
    )  # fmt: skip


def edits_of(
    samples: pd.DataFrame,
    pull: dict[int, float],
    rng: np.random.Generator,
    donors: int = 0,
) -> pd.DataFrame:
    """Edits of all samples: a class's background takes this share of other objects' answers."""
    labels = samples["label"].to_numpy(np.int64)
    classes = int(labels.max()) + 1
    draw = np.random.default_rng(donors)
    objects = (labels[:, None] + draw.integers(1, classes, (len(labels), 6))) % classes
    share = np.array([pull.get(int(label), 0.0) for label in labels])
    follows = rng.random(objects.shape) < share[:, None]
    three = np.repeat(labels[:, None], 3, axis=1)
    return pd.DataFrame(
        {
            "index": samples["index"],
            "sample_id": samples["sample_id"],
            "label": samples["label"],
            "predicted": samples["predicted"],
            "transplant_objects": list(objects),
            "transplant_predictions": list(np.where(follows, labels[:, None], objects)),
            **{
                f"{name}_predictions": list(three)
                for name in ("object_only", "background_only", "mixed_same", "mixed_rand")
            },
            "noise_object_prediction": samples["label"],
            "noise_background_prediction": samples["label"],
        }
    )


def sides(
    one: pd.DataFrame,
    other: pd.DataFrame,
    edits: tuple[pd.DataFrame | None, pd.DataFrame | None] = (None, None),
    **changed: Any,
) -> Sides:
    classes = [f"class {label}" for label in range(int(one["label"].max()) + 1)]
    made = Sides(
        samples=(one, other), edits=edits, families=["dataset"], classes=classes, one_model=False
    )
    return replace(made, **changed)


def compared(both: Sides, seed: int = 0) -> pd.DataFrame:
    table = compare_rows(both, seed)
    assert table.schema.names == [column.name for column in COMPARE_COLUMNS]
    return table.to_pandas()


def row_of(table: pd.DataFrame, metric: str, label: int) -> pd.Series:
    found = table[(table["metric"] == metric) & (table["label"] == label)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def pair() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 60)
    one, other = rows(rng, labels), rows(rng, labels, 0.9)
    other["image_hash"] = one["image_hash"]
    return one, other


def test_numbers_are_those_of_the_tests_for_one_pair(
    pair: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    one, other = pair
    table = compared(sides(one, other))
    margin = logit_margin({"a": one["target_logit"].to_numpy(np.float64),
                           "b": other["target_logit"].to_numpy(np.float64)})  # fmt: skip
    scores = [scores_of_rows(each, ["dataset"]) for each in pair]
    for label in (SPLIT, 0, 3):
        own = np.ones(len(one), bool) if label == SPLIT else (one["label"] == label).to_numpy(bool)
        right = [each["correct"].to_numpy(bool)[own] for each in pair]
        accuracy = row_of(table, "accuracy", label)
        assert accuracy["p"] == pytest.approx(mcnemar(*right).p)
        assert (accuracy["a"], accuracy["b"]) == pytest.approx([r.mean() for r in right])
        far = [each["far_logit"]["dataset"][own] for each in scores]
        row = row_of(table, "far_logit", label)
        assert row["n"] == row["n_clusters"] == own.sum()
        assert row["p"] == pytest.approx(scipy.stats.ttest_rel(far[1], far[0]).pvalue)
        expected = tost(far[0], far[1], margin=margin)
        assert row["equivalence_p"] == pytest.approx(expected.p)
        assert row["equivalent"] == expected.equivalent
        assert row["change"] == pytest.approx(row["b"] - row["a"])
        low, high = paired_interval(far[0], far[1], np.random.default_rng(5))
        np.testing.assert_allclose((row["low"], row["high"]), (low, high), atol=0.1 * (high - low))
    for metric, group in table[table["label"] >= 0].groupby("metric"):
        q = scipy.stats.false_discovery_control(group["p"])
        np.testing.assert_allclose(group["q"], q, err_msg=str(metric))
    split = table[table["label"] == SPLIT]
    np.testing.assert_allclose(split["q"], scipy.stats.false_discovery_control(split["p"]))


def test_scores_are_of_the_label_whatever_was_predicted() -> None:
    frame = pd.DataFrame(
        {
            "label": pd.array([1, 1, None], "Int32"),
            "target": pd.array([1, 0, 0], "Int32"),
            "alt_target": pd.array([None, 1, None], "Int32"),
            "object_area": [0.5, 0.5, 0.5],
            "correct": pd.array([True, False, None], "boolean"),
            **{
                name: [0.2, 0.9, 0.4]
                for name in ("background_share", "object_logit", "far_logit")
            },
            **{
                f"alt_{name}": [np.nan, 0.3, np.nan]
                for name in ("background_share", "object_logit", "far_logit")
            },
            **{
                name: [0.0, 1.0, 0.0]
                for name in ("pointing_hit", "transplant_rate", "ellipse_transplant_rate")
            },
            "right_for_wrong_reason": pd.array([False, True, None], "boolean"),
        }
    )  # fmt: skip
    found = scores_of_rows(frame, ["estimated", "ellipse"])
    np.testing.assert_array_equal(found["far_logit"]["estimated"], [0.2, 0.3, np.nan])
    np.testing.assert_allclose(found["kappa"]["estimated"], [0.6, 0.4, np.nan])
    assert list(found["transplant_highest"]) == ["estimated", "ellipse"]
    assert np.isnan(found["accuracy"][""][2])


def test_heatmap_peaks_are_compared_where_both_explain_one_class(
    pair: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    table = compared(sides(*pair))
    same = (pair[0]["target"] == pair[1]["target"]).sum()
    assert 0 < same < len(pair[0])
    assert row_of(table, "pointing_hit", SPLIT)["n"] == same


def test_a_model_against_itself_does_not_change(
    pair: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    one = pair[0]
    tiny = one.groupby("label").head(2).reset_index(drop=True)
    tiny["index"] = np.arange(len(tiny))
    for samples in (one, tiny):
        edits = edits_of(samples, {1: 0.5}, np.random.default_rng(3))
        both = sides(samples, samples, (edits, edits), one_model=True)
        table = compared(both)
        assert set(table["verdict"]) == {SAME}
        assert (table["change"] == 0).all()
        assert (table[["low", "high"]] == 0).all(axis=None)
        assert set(table["p"]) == {1.0}
        assert list_changes(samples, samples).num_rows == 0
    # Two networks that agree on few images may differ on the next.
    unsure = compared(sides(tiny, tiny))
    assert set(unsure.loc[unsure["label"] != SPLIT, "verdict"]) == {UNDECIDED}
    assert (row_of(unsure, "accuracy", 0)[["low", "high"]].abs() > 0).all()


def test_swapped_runs_give_the_opposite(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    edits = tuple(
        edits_of(each, {1: share}, np.random.default_rng(seed))
        for seed, (each, share) in enumerate(zip(pair, (0.1, 0.7), strict=True))
    )
    there = compared(sides(*pair, (edits[0], edits[1])))
    back = compared(sides(pair[1], pair[0], (edits[1], edits[0])))
    np.testing.assert_allclose(back["change"], -there["change"], atol=1e-12)
    np.testing.assert_allclose(back["low"], -there["high"], atol=1e-9)
    np.testing.assert_allclose(back["high"], -there["low"], atol=1e-9)
    for same in ("p", "q", "n", "equivalence_p", "detectable"):
        np.testing.assert_allclose(back[same], there[same], atol=1e-9)
    assert (back["verdict"] == there["verdict"].replace(ANSWERS)).all()


def test_a_change_is_found_where_it_is_and_nowhere_else() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(30), 80)
    one = rows(rng, labels)
    other = one.copy()
    for name in ("far_logit", "background_share"):
        other[name] = one[name] + rng.normal(0, 0.05, len(one))
    changed = (labels == 7) & one["correct"].to_numpy(bool)
    other.loc[changed, "far_logit"] += 1.0
    right = other["correct"].to_numpy(bool).copy()
    right[(labels == 3) & (rng.random(len(one)) < 0.5)] = False
    other["correct"] = pd.array(right, "boolean")
    edits = [edits_of(one, {9: share}, np.random.default_rng(1)) for share in (0.0, 0.6)]
    table = compared(sides(one, other, (edits[0], edits[1])))
    found = {
        (str(row["metric"]), int(row["label"]))
        for row in table.to_dict("records")
        if row["verdict"] in (WORSE, BETTER) and row["label"] != SPLIT
    }
    # Background shares are noise in every class.
    assert {("far_logit", 7), ("accuracy", 3), ("reliance", 9)} <= found
    metrics = {"far_logit", "accuracy", "reliance", "transplant_rate", "bg_gap", "kappa"}
    assert {each for each in found if each[0] in metrics} == {
        ("far_logit", 7), ("accuracy", 3), ("reliance", 9),
    }  # fmt: skip
    assert row_of(table, "far_logit", 7)["verdict"] == WORSE
    quiet = table[(table["metric"] == "far_logit") & (table["label"] == 11)]
    assert quiet["verdict"].item() == SAME


def test_noise_alone_is_rarely_called_a_change() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(200), 40)
    one, other = rows(rng, labels), rows(rng, labels)
    other["image_hash"] = one["image_hash"]
    table = compared(sides(one, other))
    table = table[table["label"] != SPLIT]
    called = table[table["verdict"].isin([BETTER, WORSE])]
    # Benjamini–Hochberg with nothing to find calls anything at all in 5% of the metrics.
    assert len(called) <= 2
    covered = (table["low"] <= 0) & (table["high"] >= 0)
    assert 0.92 < covered[table["metric"] == "far_logit"].mean() < 0.985


def test_copies_make_nothing_surer(pair: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    once = compared(sides(*pair))
    copies = [
        pd.concat([each] * 4, ignore_index=True).assign(
            index=np.arange(4 * len(each)), sample_id=[f"c{n}" for n in range(4 * len(each))]
        )
        for each in pair
    ]
    four = compared(sides(copies[0], copies[1]))
    assert (four["n"] == 4 * once["n"]).all()
    assert (four["n_clusters"] == once["n_clusters"]).all()
    for name in ("a", "b", "change", "p", "equivalence_p"):
        np.testing.assert_allclose(four[name], once[name], atol=1e-9, err_msg=name)
    width = [(each["high"] - each["low"]).to_numpy() for each in (once, four)]
    np.testing.assert_allclose(width[1], width[0], rtol=0.2)


def test_few_images_decide_nothing_but_say_what_they_could_show() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [6, 60])
    one = rows(rng, labels, 1.0)
    other = rows(rng, labels, 0.0)
    table = compared(sides(one, other))
    few, many = (row_of(table, "accuracy", label) for label in (0, 1))
    assert few["change"] == many["change"] == -1
    assert (few["verdict"], many["verdict"]) == (UNDECIDED, WORSE)
    assert few["p"] == pytest.approx(2 * 0.5**6)
    assert few["detectable"] == 1
    assert 0.1 <= many["detectable"] < 0.4
    alone = compared(sides(one.iloc[5:].reset_index(drop=True),
                           other.iloc[5:].reset_index(drop=True)))  # fmt: skip
    single = row_of(alone, "far_logit", 0)
    assert single["n"] == 1
    assert single[["low", "high", "p", "q", "detectable"]].isna().all()
    assert single["verdict"] == UNDECIDED


def test_edits_are_paired_as_far_as_runs_share_them() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 80)
    one, other = rows(rng, labels), rows(rng, labels)
    first = edits_of(one, {1: 0.1}, np.random.default_rng(1))
    second = edits_of(one, {1: 0.6}, np.random.default_rng(2))
    table = compared(sides(one, other, (first, second)))
    row = row_of(table, "reliance", 1)
    assert (row["pairing"], row["n"], row["verdict"]) == (PAIRED, 80, WORSE)
    assert row_of(table, "reliance", SPLIT)["change"] == pytest.approx(
        table.loc[(table["metric"] == "reliance") & (table["label"] >= 0), "change"].mean()
    )
    others = compared(
        sides(one, other, (first, edits_of(one, {1: 0.6}, np.random.default_rng(2), donors=9)))
    )
    assert row_of(others, "reliance", 1)["pairing"] == OTHER_DONORS
    apart = compared(sides(one, other, (first.iloc[::2], second.iloc[1::2])))
    row = row_of(apart, "reliance", 1)
    assert (row["pairing"], row["n"], row["verdict"]) == (UNPAIRED, 40, WORSE)
    assert row["change"] == pytest.approx(row["b"] - row["a"])
    assert row["low"] < row["change"] < row["high"]
    back = row_of(compared(sides(other, one, (second.iloc[1::2], first.iloc[::2]))), "reliance", 1)
    assert (back["low"], back["high"]) == pytest.approx((-row["high"], -row["low"]))
    nothing = compared(sides(one, other, (first, None)))
    assert "reliance" not in set(nothing["metric"])


def test_unpaired_differences_are_welchs() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 80)
    one, other = rows(rng, labels), rows(rng, labels)
    first = edits_of(one, {1: 0.3}, np.random.default_rng(1)).iloc[::2]
    second = edits_of(one, {1: 0.5}, np.random.default_rng(2)).iloc[1::2]
    row = row_of(compared(sides(one, other, (first, second))), "reliance", 1)
    # With every object kept or lost to class 1, effects are the shares that follow less a constant.
    shares = [
        np.array([(p == 1).mean() for p in each.loc[each["label"] == 1, "transplant_predictions"]])
        for each in (first, second)
    ]
    expected = scipy.stats.ttest_ind(shares[1], shares[0], equal_var=False)
    assert row["change"] == pytest.approx(shares[1].mean() - shares[0].mean(), abs=1e-6)
    assert row["p"] == pytest.approx(expected.pvalue, rel=1e-3)
    interval = expected.confidence_interval()
    np.testing.assert_allclose((row["low"], row["high"]), interval, atol=1e-3)


def test_masks_that_show_most_count_and_are_paid_for() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 100)
    one, other = rows(rng, labels), rows(rng, labels)
    for frame, low in ((one, 0.0), (other, 0.25)):
        frame["ellipse_transplant_rate"] = np.clip(rng.choice([0.5, 0.75], len(labels)) + low, 0, 1)
    table = compared(sides(one, other, families=["estimated", "ellipse"]))
    row = row_of(table, "transplant_highest", 0)
    own = labels == 0
    assert row["family"] == "ellipse"
    assert row["a"] == pytest.approx(one.loc[own, "ellipse_transplant_rate"].mean())
    values = [frame.loc[own, "ellipse_transplant_rate"] for frame in (one, other)]
    assert row["p"] == pytest.approx(2 * scipy.stats.ttest_rel(*values).pvalue, rel=1e-6)
    assert row_of(table, "transplant_rate", 0)["family"] == "estimated"


def test_nothing_is_better_where_other_masks_surely_show_the_opposite() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 100)
    one, other = rows(rng, labels), rows(rng, labels)
    one["ellipse_transplant_rate"] = rng.choice([0.75, 1.0], len(labels))
    other["ellipse_transplant_rate"] = rng.choice([0.25, 0.5], len(labels))
    for frame, rates in ((one, [0, 0.25]), (other, [0.25, 0.5])):
        frame["transplant_rate"] = rng.choice(rates, len(labels))
    both = {"families": ["estimated", "ellipse"]}
    row = row_of(compared(sides(one, other, **both)), "transplant_highest", 0)
    assert (row["family"], row["verdict"]) == ("ellipse", UNDECIDED)
    assert row["high"] < 0
    assert row_of(compared(sides(other, one, **both)), "transplant_highest", 0)["verdict"] == (
        UNDECIDED
    )
    other["transplant_rate"] = one["transplant_rate"]
    row = row_of(compared(sides(one, other, **both)), "transplant_highest", 0)
    assert row["verdict"] == BETTER


def test_a_thousand_classes_at_once() -> None:
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(1000), 30)
    one, other = rows(rng, labels), rows(rng, labels)
    table = compared(sides(one, other))
    counts = table.groupby("metric").size()
    assert set(counts) == {1001}
    assert (table.groupby("label").size() == len(counts)).all()
    assert table["label"].is_monotonic_increasing
    row, right = row_of(table, "accuracy", 517), labels == 517
    assert row["a"] == one.loc[right, "correct"].astype(float).mean()


def test_groups_have_the_errors_of_their_clusters() -> None:
    rng = np.random.default_rng(0)
    group, clusters = rng.integers(0, 5, 300), rng.integers(0, 60, 300)
    values = np.where(rng.random(300) < 0.1, np.nan, rng.normal(size=300))
    group[:20] = -1
    found = Grouping.of(group, 6, clusters).means(values)
    for label in range(5):
        own = (group == label) & np.isfinite(values)
        expected = mean_error(values[own], clusters[own])
        assert found.mean[label] == pytest.approx(expected.mean)
        assert found.error[label] == pytest.approx(expected.error)
        assert found.degrees[label] == expected.degrees
        assert found.effective[label] == pytest.approx(expected.effective)
    assert found.n[5] == 0
    assert np.isnan([found.mean[5], found.error[5]]).all()
    assert np.isnan(t_test(found)[5])
    assert np.isnan(equivalence(found, 0.02)[5])


def test_groups_are_tested_like_one() -> None:
    lost, gained = (np.array(each) for each in ([0, 3, 2, 30, 5], [1, 3, 9, 60, 90]))
    for p, down, up in zip(sign_test(lost, gained), lost, gained, strict=True):
        first, second = np.repeat([True, False], [down, up]), np.repeat([False, True], [down, up])
        assert p == pytest.approx(mcnemar(first, second).p)
    rng = np.random.default_rng(0)
    values = rng.normal(0.1, 1, 50)
    found = Grouping.of(np.zeros(50, np.int64), 1, np.arange(50)).means(values)
    expected = scipy.stats.ttest_1samp(values, 0)
    assert t_test(found)[0] == pytest.approx(expected.pvalue)
    np.testing.assert_allclose(t_interval(found)[0], expected.confidence_interval())
    assert equivalence(found, 0.2)[0] == pytest.approx(tost(0 * values, values, margin=0.2).p)


def test_mean_over_classes_of_equal_size_and_spread() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 25)
    values = rng.normal(group, 1)
    groups = Grouping.of(group, 4, np.arange(100)).means(values)
    both = pooled(groups, np.ones(4, bool))
    assert both.mean[0] == pytest.approx(values.mean())
    assert both.error[0] == pytest.approx(np.sqrt((groups.error**2).sum()) / 4)
    assert 24 < both.degrees[0] <= 96
    none = pooled(groups, np.zeros(4, bool))
    assert none.n[0] == 0
    assert np.isnan(none.mean[0])


def slow_score(lost: int, gained: int, size: int, change: float) -> float:
    """The score statistic, with what is not known found by maximising the likelihood."""
    same = size - lost - gained

    def unlikely(losses: float) -> float:
        shares = (losses, losses + change, 1 - 2 * losses - change)
        counts = (lost, gained, same)
        return -sum(n * np.log(max(p, 1e-300)) for n, p in zip(counts, shares, strict=True) if n)

    bounds = (max(0.0, -change), (1 - change) / 2)
    found = scipy.optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded",
                                           options={"xatol": 1e-12})  # fmt: skip
    losses = min([*bounds, found.x], key=unlikely)
    return (gained - lost - size * change) / np.sqrt(size * (2 * losses + change - change**2))


@pytest.mark.parametrize("counts", [(0, 0, 40), (0, 3, 80), (5, 1, 90), (40, 60, 1000)])
def test_score_intervals_end_where_the_score_test_turns(counts: tuple[int, int, int]) -> None:
    lost, gained, size = (np.array([number]) for number in counts)
    low, high = score_interval(lost, gained, size)[0]
    assert slow_score(*counts, low) == pytest.approx(1.959964, abs=1e-4)
    assert slow_score(*counts, high) == pytest.approx(-1.959964, abs=1e-4)
    sides = (slow_score(*counts, -0.02), -slow_score(*counts, 0.02))
    p = score_equivalence(lost, gained, size, 0.02)[0]
    assert p == pytest.approx(scipy.stats.norm.sf(min(sides)), abs=1e-4)
    back = score_interval(gained, lost, size)[0]
    np.testing.assert_allclose(back, (-high, -low), atol=1e-9)
    assert np.isnan(score_interval(lost, gained, 0 * size)).all()


@pytest.mark.parametrize(
    ("size", "lost", "gained"), [(80, 0.02, 0.02), (80, 0.0, 0.03), (265, 0.0, 0.01)]
)
def test_rare_changes_are_covered_and_never_taken_for_none(
    size: int, lost: float, gained: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(size, [lost, gained, 1 - lost - gained], 4000)
    sizes = np.full(len(drawn), size)
    ends = score_interval(drawn[:, 0], drawn[:, 1], sizes)
    change = gained - lost
    assert ((ends[:, 0] <= change) & (change <= ends[:, 1])).mean() > 0.94
    if change == 0.01:
        same = score_equivalence(drawn[:, 0], drawn[:, 1], sizes, 0.01) <= 0.05
        assert same.mean() < 0.06


def test_few_pictures_without_a_change_do_not_prove_equal_accuracy() -> None:
    labels = np.zeros(200, np.int64)
    one = rows(np.random.default_rng(0), labels, 1.0)
    row = row_of(compared(sides(one, one.assign(confidence=0.5))), "accuracy", 0)
    # Of 1 in 100 that change, 200 pictures show none in one of seven draws.
    assert (row["change"], row["verdict"]) == (0, UNDECIDED)
    assert row["high"] == -row["low"] == pytest.approx(0.0188, abs=1e-4)
    many = rows(np.random.default_rng(0), np.zeros(400, np.int64), 1.0)
    row = row_of(compared(sides(many, many.assign(confidence=0.5))), "accuracy", 0)
    assert row["verdict"] == SAME


def test_many_clusters_are_drawn_in_groups() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(size=(4000, 1))
    alone = bootstrap(values, np.arange(4000), (0,))
    grouped = bootstrap(values, np.arange(4000), (0,), most=800)
    width = np.ptp(alone)
    np.testing.assert_allclose(grouped, alone, atol=0.12 * width)


def test_changes_by_hand() -> None:
    labels = np.zeros(8, np.int64)
    one = rows(np.random.default_rng(0), labels, 1.0)
    other = one.copy()
    flags = ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")
    for frame in (one, other):
        frame["reason"] = pd.Categorical(["object"] * 8, ["object", "background", "both"])
        for name in flags:
            frame[name] = pd.array([False] * 8, "boolean")
        frame["background_share"] = 0.2
    # 0 lost, 1 gained, 2 other reason, 3 background came in, 4 a flag, 5 undefined, 6 nothing,
    # 7 no answer.
    other.loc[0, "predicted"] = 1
    one.loc[1, "predicted"] = 1
    other.loc[2, "reason"] = "both"
    other.loc[2, "background_share"] = 0.9
    other.loc[3, "reason"] = "background"
    other.loc[3, "right_for_wrong_reason"] = True
    other.loc[4, "context_driven"] = True
    other.loc[5, ["reason", "context_driven"]] = None
    other.loc[7, ["predicted", "reason", "context_driven"]] = None
    table = list_changes(one, other)
    assert table.schema.names == [column.name for column in CHANGE_COLUMNS]
    frame = table.to_pandas()
    assert frame["sample_id"].tolist() == ["s3", "s2", "s0", "s1", "s4"]
    assert frame["kind"].tolist() == ["reason", "reason", "lost", "gained", "flags"]
    assert frame["b_flags"].tolist() == ["right_for_wrong_reason", "", "", "", "context_driven"]
    first = frame.iloc[0]
    assert (first["a_reason"], first["b_reason"]) == ("object", "background")
    back = list_changes(other, one).to_pandas()
    assert back["kind"].tolist() == ["reason", "reason", "lost", "gained", "flags"]
    assert back["sample_id"].tolist() == ["s3", "s2", "s1", "s0", "s4"]
