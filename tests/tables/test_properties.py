from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu, spearmanr
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from audit.tables.properties import (
    PROPERTIES,
    PROPERTY_COLUMNS,
    compared,
    confounders,
    in_words,
    label_skill,
    property_values,
    relate_properties,
)

NAMES = [f"class {k}" for k in range(5)]
MEASURED = ("brightness", "contrast", "saturation", "red_green", "yellow_blue", "sharpness")


def some_samples(count: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Rows whose properties have nothing to do with label or error."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(
        rng.normal(size=(count, len(MEASURED))).astype(np.float32), columns=MEASURED
    )
    rows["entropy"] = rng.integers(0, 9, count).astype(np.float32)  # with ties
    rows["label"] = pd.array(np.arange(count) % 5, "Int32")
    rows["correct"] = pd.array(rng.random(count) < 0.8, "boolean")
    rows["transplant_rate"] = rng.integers(0, 5, count) / 4
    rows["image_hash"] = pd.array(rng.permutation(count), "Int64")
    for name in ("stored_height", "stored_width", "file_bytes"):
        rows[name] = pd.array([None] * count, "Int64")
    return rows


def related(samples: pd.DataFrame) -> pd.DataFrame:
    table = relate_properties(samples, NAMES, seed=0)
    assert table.schema.names == [column.name for column in PROPERTY_COLUMNS]
    return table.to_pandas()


def row_of(table: pd.DataFrame, name: str, label: int | None = None) -> pd.Series:
    rows = table[table["property"] == name]
    rows = rows[rows["label"].isna()] if label is None else rows[rows["label"] == label]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_planted_property_is_found_and_no_other() -> None:
    samples = some_samples()
    samples.loc[samples["label"] == 2, "brightness"] += 1.5
    samples.loc[samples["label"] == 3, "brightness"] -= 1.5
    table = related(samples)
    flagged = table[table["is_confounder"].fillna(value=False)]
    assert set(flagged["property"]) == {"brightness"}
    assert flagged["label_name"].fillna("split").tolist() == ["split", "class 2", "class 3"]
    brighter, darker = row_of(table, "brightness", 2), row_of(table, "brightness", 3)
    assert brighter["label_auc"] > 0.75
    assert darker["label_auc"] < 0.25
    first, second, third = confounders(table)
    assert {second["class"], third["class"], first["class"]} == {None, "class 2", "class 3"}
    said = {entry["class"]: entry for entry in (first, second, third)}
    assert said["class 2"]["direction"] == "higher"
    assert (
        "Images of class 2 are brighter than those of other classes in"
        in said["class 2"]["sentence"]
    )
    assert "Images of class 3 are darker" in said["class 3"]["sentence"]
    skill = row_of(table, "brightness")["label_skill"]
    assert said[None]["skill"] == pytest.approx(skill)
    assert said[None]["sentence"] == (
        f"By brightness alone the classes can be told apart a little: {skill:.0%} of the way from "
        "guessing to the best that a single number could do."
    )
    auc, low, high = (round(100 * brighter[f"label_{end}"]) for end in ("auc", "low", "high"))
    assert f"in {auc}% of pairs (95% interval {low}% to {high}%)" in said["class 2"]["sentence"]


@pytest.mark.parametrize("name", PROPERTIES)
@pytest.mark.parametrize(("skill", "how"), [(0.12, "a little"), (0.3, "in part"), (0.9, "well")])
def test_sentences_use_plain_words(name: str, skill: float, how: str) -> None:
    row = dict.fromkeys([column.name for column in PROPERTY_COLUMNS])
    row |= {"property": name, "label_skill": skill, "predicts_label": True, "n": 99}
    (entry,) = confounders(pd.DataFrame([row]))
    assert entry["sentence"].startswith(f"By {in_words(name)} alone ")
    assert f" apart {how}: {skill:.0%} of " in entry["sentence"]
    assert "_" not in entry["sentence"]


def test_every_property_has_words_of_its_own() -> None:
    words = [in_words(name) for name in PROPERTIES]
    assert len(set(words)) == len(words)
    assert all(word == word.lower() and "_" not in word for word in words)
    with pytest.raises(KeyError):
        in_words("unknown")


def test_errors_of_one_class_are_found_with_their_direction() -> None:
    samples = some_samples(2000)
    of_class = samples["label"] == 1
    wrong = of_class & ~samples["correct"]
    samples.loc[wrong, "sharpness"] -= 1.5
    table = related(samples)
    flagged = table[table["is_confounder"].fillna(value=False)]
    assert flagged[["property", "label_name"]].to_numpy().tolist() == [["sharpness", "class 1"]]
    (entry,) = confounders(table)
    assert (entry["predicts"], entry["direction"], entry["n"]) == ("error", "lower", 400)
    assert entry["sentence"].startswith("Images of class 1 answered wrongly are smoother than")
    assert not row_of(table, "sharpness", 1)["is_followed"]
    # The class itself is sharp: then the wrong ones are those that are less like it.
    samples.loc[of_class, "sharpness"] += 2.5
    table = related(samples)
    assert row_of(table, "sharpness", 1)["is_followed"]
    entry = confounders(table)[0]
    assert (entry["predicts"], entry["class"], entry["direction"]) == ("both", "class 1", "higher")
    assert "finer in detail" in entry["sentence"]
    assert "smoother" in entry["sentence"]
    # And where the class is smooth, the wrong ones are more like it.
    samples.loc[of_class, "sharpness"] -= 5.0
    row = row_of(related(samples), "sharpness", 1)
    assert (row["predicts_label"], row["predicts_error"], row["is_followed"]) == (True, True, False)


def test_numbers_are_those_of_scipy() -> None:
    samples = some_samples(600)
    samples.loc[5, "correct"] = pd.NA
    samples.loc[7, "contrast"] = np.nan
    samples.loc[8, "label"] = pd.NA
    samples.loc[9, "transplant_rate"] = np.nan
    table = related(samples)
    kept = samples.drop(index=[7, 8])
    row = row_of(table, "contrast", 2)
    own = kept[kept["label"] == 2]
    right = own[own["correct"].fillna(value=False)]
    wrong = own[~own["correct"].fillna(value=True)]
    assert (row["n"], row["n_wrong"]) == (len(own), len(wrong))
    assert row["median"] == pytest.approx(own["contrast"].median())
    rest = kept[kept["label"] != 2]["contrast"]
    assert row["label_p"] == pytest.approx(
        mannwhitneyu(own["contrast"], rest, method="asymptotic").pvalue
    )
    assert row["error_p"] == pytest.approx(
        mannwhitneyu(wrong["contrast"], right["contrast"], method="asymptotic").pvalue
    )
    both = own.dropna(subset=["transplant_rate"])
    assert row["transplant_correlation"] == pytest.approx(
        spearmanr(both["contrast"], both["transplant_rate"])[0]
    )
    for kind in ("label", "error"):
        known = table[table[f"{kind}_p"].notna()]
        assert known[f"{kind}_q"].to_numpy() == pytest.approx(
            false_discovery_control(known[f"{kind}_p"])
        )
        assert table.loc[table[f"{kind}_p"].isna(), f"{kind}_q"].isna().all()
    whole = row_of(table, "contrast")
    assert np.isnan(whole["label_auc"])
    assert whole["n"] == len(kept)
    assert whole["n_wrong"] == int((~kept["correct"].fillna(value=True)).sum())


def test_copies_count_once_unless_their_labels_differ() -> None:
    samples = some_samples(200)
    table = related(pd.concat([samples, samples.iloc[:50]], ignore_index=True))
    expected = related(samples)
    pd.testing.assert_frame_equal(table, expected)
    relabelled = samples.iloc[:50].assign(label=pd.array([4] * 50, "Int32"))
    table = related(pd.concat([samples, relabelled], ignore_index=True))
    assert row_of(table, "brightness")["n"] == 200 + 40
    without = samples.assign(image_hash=pd.array([None] * 200, "Int64"))
    assert row_of(related(pd.concat([without, without])), "brightness")["n"] == 400
    pd.testing.assert_frame_equal(related(samples.drop(columns="image_hash")), expected)


def test_nothing_is_said_of_few_constant_or_unknown_values() -> None:
    samples = some_samples(60)
    samples["contrast"] = np.float32(0.3)
    samples["saturation"] = np.float32(np.nan)
    samples = samples[samples["label"] < 4]
    table = related(samples)
    assert "saturation" not in set(table["property"])
    assert not {"pixels", "aspect_ratio", "file_bytes"} & set(table["property"])
    constant = table[table["property"] == "contrast"]
    assert len(constant) == 6
    undefined = [c.name for c in PROPERTY_COLUMNS if c.null_when and c.name != "median"]
    undefined = [name for name in undefined if not name.startswith("label") or "_" in name]
    undefined.remove("label_name")
    assert constant[undefined].isna().all().all()
    empty = row_of(table, "brightness", 4)
    assert (empty["n"], empty["n_wrong"]) == (0, 0)
    assert pd.isna(empty[["median", *undefined]]).all()
    assert related(samples.iloc[:0]).empty
    one = related(samples.iloc[:1])
    assert one.loc[one["label"].isna(), "n"].tolist() == [1] * (len(MEASURED))
    assert one["is_confounder"].isna().all()
    assert confounders(one) == []


def test_sizes_of_files_are_compared_where_they_differ() -> None:
    samples = some_samples(300)
    rng = np.random.default_rng(1)
    samples["stored_height"] = pd.array([100] * 300, "Int64")
    samples["stored_width"] = pd.array([150] * 300, "Int64")
    samples["file_bytes"] = pd.array(rng.integers(1000, 9000, 300), "Int64")
    samples.loc[samples["label"] == 0, "file_bytes"] += 6000
    table = related(samples)
    assert row_of(table, "file_bytes", 0)["predicts_label"]
    assert "bytes_per_pixel" not in set(table["property"]), "all pictures have one size"
    assert row_of(table, "aspect_ratio")["median"] == 1.5
    samples.loc[3, "stored_height"] = 50
    samples.loc[4, "file_bytes"] = pd.NA
    per_pixel = property_values(samples, "bytes_per_pixel")
    assert per_pixel[3] == samples.loc[3, "file_bytes"] / 7500
    assert np.isnan(per_pixel[4])
    assert row_of(related(samples), "bytes_per_pixel")["n"] == 299


@pytest.mark.parametrize("classes", [2, 5])
def test_skill_is_about_that_of_a_decision_tree(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.choice(classes, 3000, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    values = rng.normal(size=3000) * 0.8 + np.array([0, 2, -1, 0.5, 5])[labels]
    skill, p = label_skill(values, labels, rng)
    tree = DecisionTreeClassifier(max_leaf_nodes=20, class_weight="balanced", min_samples_leaf=20)
    answers = cross_val_predict(tree, values[:, None], labels, cv=5)
    accuracy = balanced_accuracy_score(labels, answers)
    assert skill == pytest.approx((classes * accuracy - 1) / (classes - 1), abs=0.04)
    assert p < 1e-20


def test_skill_finds_a_class_between_two_others() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 2
    values = np.where(labels, rng.normal(size=1000) * 0.3, rng.choice([-2.0, 2.0], 1000))
    assert label_skill(values, labels, rng)[0] > 0.9


def test_skill_of_nothing() -> None:
    rng = np.random.default_rng(0)
    few = np.repeat([0, 1], [100, 9])
    for values, labels in (
        (np.arange(109.0), few),
        (np.ones(100), np.arange(100) % 2),
        (np.zeros(0), np.zeros(0, np.int64)),
        (np.arange(20.0), np.zeros(20, np.int64)),
    ):
        assert np.isnan(label_skill(values, labels, rng)).all()


def test_a_frequent_class_is_no_skill() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(2000) < 0.95).astype(np.int64)
    skill, p = label_skill(rng.normal(size=2000), labels, rng)
    assert abs(skill) < 0.15
    assert p > 0.05


@pytest.mark.parametrize(("count", "classes"), [(300, 3), (1000, 10), (2000, 100)])
def test_false_alarms_of_the_skill_are_rare(count: int, classes: int) -> None:
    p = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        p.append(label_skill(rng.normal(size=count), rng.integers(0, classes, count), rng)[1])
    assert np.mean(np.array(p) <= 0.05) <= 0.05


def test_false_alarms_of_the_table_are_rare() -> None:
    alarms, label_p, error_p = [], [], []
    for seed in range(40):
        table = related(some_samples(500, seed))
        alarms.append(bool(table["is_confounder"].fillna(value=False).any()))
        of_classes = table[table["label"].notna()]
        label_p += of_classes["label_p"].tolist()
        error_p += table["error_p"].tolist()
    assert np.mean(alarms) <= 0.05
    assert np.mean(np.array(label_p) <= 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(np.array(error_p) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_every_property_has_its_two_words() -> None:
    pairs = [{compared(name, more=more) for more in (True, False)} for name in PROPERTIES]
    assert all(len(pair) == 2 for pair in pairs)


def test_a_thousand_classes() -> None:
    rng = np.random.default_rng(0)
    samples = some_samples(12_000)
    labels = rng.integers(0, 1000, 12_000)
    samples["label"] = pd.array(labels, "Int32")
    samples.loc[labels == 17, "brightness"] += 9
    table = relate_properties(samples, [str(k) for k in range(1000)], seed=0).to_pandas()
    assert len(table) == 7 * 1001
    assert row_of(table, "brightness", 17)["predicts_label"]
    assert table["predicts_label"].fillna(value=False).sum() == 1
