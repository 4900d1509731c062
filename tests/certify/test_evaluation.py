from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from audit.certify.evaluation import (
    SUMMARY_COLUMNS,
    auroc,
    auroc_interval,
    clopper_pearson,
    figure_of,
    relied_on,
    spearman,
    summarise,
)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_sklearns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, 40).astype(float)
    positive = rng.random(40) < 0.3
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_auroc_needs_both_kinds() -> None:
    for positive in (np.zeros(3, bool), np.ones(3, bool), np.zeros(0, bool)):
        assert auroc(np.zeros(len(positive)), positive) is None
    nobody = np.zeros(3, bool)
    assert auroc_interval(np.zeros(3), nobody, np.arange(3)) == (None, None)
    one_model = np.zeros(2, np.int64)
    assert auroc_interval(np.arange(2.0), np.array([False, True]), one_model) == (None, None)


def test_auroc_interval_is_that_of_drawn_models() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 5)
    positive = rng.random(30) < 0.35
    scores = np.round(positive + rng.normal(0, 1, 30), 1)
    drawn = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), 2000)
    values = []
    for counts in drawn:
        rows = np.concatenate([np.flatnonzero(groups == g) for g in np.repeat(range(6), counts)])
        value = auroc(scores[rows], positive[rows])
        if value is not None:
            values.append(value)
    found = auroc_interval(scores, positive, groups)
    assert found == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=1e-12)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 20), (3, 20), (20, 20), (1, 1000)])
def test_clopper_pearson_is_statsmodels(hits: int, n: int) -> None:
    expected = proportion_confint(hits, n, alpha=0.05, method="beta")
    assert clopper_pearson(hits, n) == pytest.approx(np.nan_to_num(expected, nan=0.0), abs=1e-9)


def test_spearman_is_scipys() -> None:
    rng = np.random.default_rng(3)
    left = rng.integers(0, 10, 50).astype(float)
    right = left + rng.normal(0, 5, 50)
    found = spearman(left, right)
    assert found is not None
    assert found[0] == pytest.approx(stats.spearmanr(left, right).statistic, abs=1e-9)
    assert found[1] < found[0] < found[2]


def test_spearmans_interval_covers() -> None:
    rng = np.random.default_rng(0)
    rho = 0.5
    # Of a bivariate normal, Spearman's is 6/π · asin(ρ/2).
    true = 6 / np.pi * np.arcsin(rho / 2)
    inside = 0
    for _ in range(600):
        x, y = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], 60).T
        found = spearman(x, y)
        assert found is not None
        inside += found[1] <= true <= found[2]
    assert 0.92 <= inside / 600 <= 0.98


def test_spearman_needs_ten_pairs_that_vary() -> None:
    assert spearman(np.arange(9.0), np.arange(9.0)) is None
    assert spearman(np.zeros(20), np.arange(20.0)) is None
    assert spearman(np.arange(10.0), -np.arange(10.0)) == (-1, -1, -1)


def row(case: str, label: int, **told: Any) -> dict[str, Any]:
    kind = "clean" if case == "clean" else "planted"
    return {
        "case": case, "kind": kind, "strength": 0.0 if kind == "clean" else 0.95, "label": label,
        "label_name": str(label), "cue": None, "place": None, "pull": None, "verdict":
        "no evidence", "reliance": 0.0, "transplant_rate": 0.1, "background_share": 0.5,
        "far_logit": 0.0, "told_by": "",
    } | told  # fmt: skip


RELIES = "relies on background"
CLASSES = pd.DataFrame(
    [
        row("clean", 0, cue="frame", place="background", pull=0.01),
        row("clean", 1, reliance=0.2),
        row("A", 0, cue="frame", place="background", pull=0.9, reliance=0.8, verdict=RELIES),
        row("A", 1, cue="watermark", place="both", pull=0.9, reliance=0.9, verdict=RELIES)
        | {"told_by": "contrast"},
        row("A", 2, cue="object_colour", place="object", pull=0.9, reliance=0.05),
        row("A", 3, reliance=0.1, verdict=RELIES),
        row("B", 0, cue="patch", place="background", pull=0.5, reliance=0.1),
        row("B", 1, cue="texture", place="background", pull=0.1, reliance=0.15),
        row("B", 2, reliance=None, verdict="too few samples"),
        row("random-0", 0, kind="random", reliance=0.7, verdict=RELIES),
    ]
)
SAMPLES = pd.DataFrame(
    {
        "case": ["A"] * 6,
        "kind": ["planted"] * 6,
        "place": ["background", "background", "background", None, "object", None],
        "reliant": [True, True, False, False, True, False],
        "transplant_rate": [1.0, 0.75, 0.5, 0.75, 0.0, np.nan],
        "confidence": [0.9] * 6,
        "correct": [True] * 6,
        "object_area": [0.3] * 6,
        "brightness": [0.5] * 6,
        "contrast": [0.5] * 6,
    }
)


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return summarise(CLASSES, SAMPLES).to_pandas()


def told(summary: pd.DataFrame, measure: str, of: str) -> dict[str, Any]:
    found = figure_of(summary, measure, of)
    assert found is not None
    return found


def test_relied_on_needs_place_and_pull() -> None:
    assert relied_on(CLASSES).tolist() == [False, False, True] + [False] * 3 + [True] + [False] * 3


def test_ranking_leaves_out_cues_on_both_and_checks(summary: pd.DataFrame) -> None:
    figure = told(summary, "class AUROC", "reliance")
    # Positive .8 and .1; negative 0, .2, .05, .1, .15.
    assert (figure["n"], figure["positive"]) == (7, 2)
    assert figure["value"] == pytest.approx((5 + 2.5) / 10)
    by_cue = told(summary, "class AUROC by cue", "patch")
    assert by_cue["value"] == pytest.approx(2.5 / 5)
    assert told(summary, "class AUROC by cue", "texture")["n"] == 5


def test_accusations_are_counted_by_what_was_done(summary: pd.DataFrame) -> None:
    counts = {
        figure["of"]: (figure["positive"], figure["n"])
        for figure in summary[summary["measure"] == "accused"].to_dict("records")
    }
    assert counts == {
        "clean models": (0, 2),
        "classes without cue in planted models": (1, 1),
        "cue on the object": (0, 1),
        "cue on object and background": (1, 1),
        "cue in the background, not relied on": (0, 1),
        "random": (1, 1),
    }
    assert told(summary, "accused", "clean models")["high"] == pytest.approx(0.8419, abs=1e-4)


def test_what_could_not_be_tested_is_neither_accused_nor_spared() -> None:
    few = CLASSES.assign(verdict="too few samples")
    figures = summarise(few, SAMPLES).to_pandas().set_index(["measure", "of"])
    verdicts = figures[figures["not_tested"].notna()]
    assert verdicts["value"].isna().all()
    assert (verdicts["n"] == 0).all()
    assert verdicts.loc["accused", "not_tested"].to_dict() == {
        "clean models": 2, "classes without cue in planted models": 2, "cue on the object": 1,
        "cue on object and background": 1, "cue in the background, not relied on": 1, "random": 1,
    }  # fmt: skip
    assert told(figures.reset_index(), "found", "all cues")["not_tested"] == 2
    one = CLASSES.assign(verdict=CLASSES["verdict"].where(CLASSES["case"] == "A", few["verdict"]))
    found = told(summarise(one, SAMPLES).to_pandas(), "found", "all cues")
    assert (found["positive"], found["n"], found["not_tested"]) == (1, 1, 1)


def test_that_there_is_no_negative_control_is_told() -> None:
    bare = summarise(CLASSES[CLASSES["place"] != "object"], SAMPLES).to_pandas()
    control = told(bare, "accused", "cue on the object")
    assert (control["n"], control["not_tested"]) == (0, 0)


def test_what_is_found_is_told_by_cue_and_strength(summary: pd.DataFrame) -> None:
    figure = told(summary, "found", "all cues")
    assert (figure["positive"], figure["n"]) == (1, 2)
    by_cue = summary[(summary["measure"] == "found") & summary["strength"].notna()]
    assert by_cue.set_index("of")["value"].to_dict() == {"frame": 1, "patch": 0}


def test_samples_of_cues_elsewhere_are_left_out(summary: pd.DataFrame) -> None:
    everyone = told(summary, "sample AUROC, all", "transplant_rate")
    assert (everyone["n"], everyone["positive"]) == (4, 2)
    assert everyone["value"] == pytest.approx((2 + 1.5) / 4)
    within = told(summary, "sample AUROC, within planted classes", "transplant_rate")
    assert (within["n"], within["value"]) == (3, 1)
    assert told(summary, "sample AUROC, all", "1 − confidence")["value"] == 0.5


def test_summary_has_its_columns(summary: pd.DataFrame) -> None:
    assert list(summary) == [column.name for column in SUMMARY_COLUMNS]


def test_nothing_to_sum_up() -> None:
    empty = summarise(CLASSES.iloc[:0], SAMPLES.iloc[:0]).to_pandas()
    assert empty["value"].isna().all()
    assert (empty["n"] == 0).all()


def test_properties_tell_some_classes(summary: pd.DataFrame) -> None:
    rows = summary[summary["measure"] == "told by a property"]
    assert {row["of"]: (row["positive"], row["n"]) for row in rows.to_dict("records")} == {
        "frame": (0, 1), "watermark": (1, 1), "object_colour": (0, 1), "patch": (0, 1),
        "classes without cue": (0, 4),
    }  # fmt: skip


def test_a_cue_that_a_model_never_saw_is_not_relied_on() -> None:
    seen = CLASSES[CLASSES["cue"] == "frame"].assign(pull=0.9)
    assert relied_on(seen).tolist() == [False, True], "the clean model's, the planted one's"
