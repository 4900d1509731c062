"""Every verdict, what tips it over, and how often clean classes are accused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import stats

from audit.tables.thresholds import THRESHOLDS
from audit.tables.verdicts import (
    CLEAR,
    MASK_LIMITED,
    RELIES,
    SUSPECT,
    TOO_FEW,
    MaskTrust,
    chance,
    count_verdicts,
    judge_classes,
)

SURE = MaskTrust(misfit=False, estimated=False)


def evidence_of(label: int, effect: float, decided: float, n: int = 100, **others: object) -> dict:
    half = 1.96 * np.sqrt(max(effect * (1 - effect), 0.01) / n)
    return {
        "label": label, "family": "estimated", "n": n, "n_images": n, "effect": effect,
        "effect_low": effect - half, "effect_high": effect + half, "decided_share": decided,
        "decided_elsewhere": 0.0, "effect_noise": effect, "effect_mean": effect,
        "effect_other": effect,
        "feature_transplant_rate": 0.1, **others,
    }  # fmt: skip


def judge(
    rows: list[dict], trust: MaskTrust = SURE, confidence: float | None = 0.6,
    n_edited: int | None = None,
) -> list[dict]:  # fmt: skip
    classes = 1 + max(row["label"] for row in rows)
    table = pa.table(
        {
            "label_name": [f"c{c}" for c in range(classes)],
            "mask_confidence": pa.array([confidence] * classes, pa.float64()),
        }
    )
    numbers = {row["label"]: row["n"] for row in rows}
    edited = [{"n_edited": numbers[c] if n_edited is None else n_edited} for c in range(classes)]
    return judge_classes(table, pd.DataFrame(rows), edited, trust)


CLEAN = [evidence_of(label, 0.04, 0.0) for label in range(5)]


def test_a_class_that_stands_out_is_accused_and_the_others_are_not() -> None:
    found = judge([evidence_of(0, 0.6, 0.5), *CLEAN[1:]])
    assert [row["verdict"] for row in found] == [RELIES] + [CLEAR] * 4
    assert found[0]["reliance"] == 0.6 and found[0]["reliance_family"] == "estimated"
    assert "60 more" in found[0]["verdict_text"] and "'c0'" in found[0]["verdict_text"]


def test_a_cue_in_few_images_is_found_by_those_it_decides() -> None:
    # The mean effect is that of a clean class.
    assert judge([evidence_of(0, 0.18, 0.18), *CLEAN[1:]])[0]["verdict"] == RELIES


def test_between_the_clean_reference_and_an_accusation_lies_suspicion() -> None:
    assert judge([evidence_of(0, 0.22, 0.02), *CLEAN[1:]])[0]["verdict"] == SUSPECT


def test_sureness_without_size_accuses_nobody() -> None:
    large = [evidence_of(0, 0.24, 0.09, n=5000), *CLEAN[1:]]
    found = judge(large)[0]
    assert found["reliance_q"] < 0.001 and found["verdict"] == SUSPECT


def test_feature_space_alone_is_a_suspicion_unless_pixels_clear_it() -> None:
    loud = {"feature_transplant_rate": 0.5}
    assert judge([evidence_of(0, 0.05, 0.0, **loud), *CLEAN[1:]])[0]["verdict"] == CLEAR
    vague = evidence_of(0, 0.12, 0.0, n=25, effect_high=0.3, **loud)
    found = judge([vague, *CLEAN[1:]])[0]
    assert found["verdict"] == SUSPECT and "feature space only" in found["verdict_text"]


def test_an_object_that_needs_its_background_is_a_suspicion() -> None:
    table = pa.table({"label_name": ["c0"], "mask_confidence": pa.array([0.6])})
    edited = {"n_edited": 100, "bg_gap": 0.3, "bg_gap_high": 0.4, "acc_mixed_same": 0.8,
              "acc_mixed_rand": 0.5}  # fmt: skip
    for low, expected in ((0.22, SUSPECT), (0.18, CLEAR)):
        (found,) = judge_classes(
            table, pd.DataFrame(CLEAN[:1]), [edited | {"bg_gap_low": low}], SURE
        )
        assert found["verdict"] == expected
        assert "80%" in found["verdict_text"] and "50%" in found["verdict_text"]


def test_exact_masks_leave_less_to_doubt() -> None:
    few = evidence_of(0, 0.16, 0.0)
    assert judge([few, *CLEAN[1:]])[0]["verdict"] == CLEAR
    assert judge([few | {"family": "dataset"}, *CLEAN[1:]])[0]["verdict"] == RELIES
    slight = evidence_of(0, 0.08, 0.0, n=2000) | {"family": "dataset"}
    assert judge([slight, *CLEAN[1:]])[0]["verdict"] == SUSPECT


def test_one_fill_that_does_not_show_it_breaks_an_accusation() -> None:
    row = evidence_of(0, 0.6, 0.5, effect_mean=0.1)
    assert judge([row, *CLEAN[1:]])[0]["verdict"] == SUSPECT


def test_the_family_that_shows_it_is_named() -> None:
    other = evidence_of(0, 0.7, 0.6) | {"family": "ellipse"}
    found = judge([evidence_of(0, 0.02, 0.0), other, *CLEAN[1:]])[0]
    assert found["verdict"] == RELIES and found["reliance_family"] == "ellipse"
    assert "centre-ellipse" in found["verdict_text"]


def test_what_other_backgrounds_decide_too_accuses_nobody() -> None:
    lonely = evidence_of(0, 0.15, 0.3)
    assert judge([lonely, *CLEAN[1:]])[0]["verdict"] == RELIES
    common = lonely | {"decided_elsewhere": 0.28}
    assert judge([common, *CLEAN[1:]])[0]["verdict"] == CLEAR
    unsure = evidence_of(0, 0.1, 0.4, effect_low=-0.02)
    assert judge([unsure, *CLEAN[1:]])[0]["verdict"] == SUSPECT


def test_objects_that_cutting_destroys_cannot_be_cleared() -> None:
    table = pa.table({"label_name": ["c0"], "mask_confidence": pa.array([0.6])})
    edited = {"n_edited": 100, "acc_unedited": 0.8, "bg_gap": 0.1, "bg_gap_low": 0.0,
              "bg_gap_high": 0.2, "acc_mixed_rand": 0.2}  # fmt: skip
    for kept, expected in ((0.3, MASK_LIMITED), (0.5, CLEAR)):
        (found,) = judge_classes(
            table, pd.DataFrame(CLEAN[:1]), [edited | {"acc_mixed_same": kept}], SURE
        )
        assert found["verdict"] == expected
    assert judge([evidence_of(0, 0.6, 0.5), *CLEAN[1:]])[0]["verdict"] == RELIES


def test_too_few_and_unusable_masks_are_told_apart() -> None:
    few = judge([evidence_of(0, 0.9, 0.9, n=10), *CLEAN[1:]])[0]
    assert few["verdict"] == TOO_FEW and few.get("reliance") is None
    unusable = judge([evidence_of(0, 0.9, 0.9, n=30), *CLEAN[1:]], n_edited=100)[0]
    assert unusable["verdict"] == MASK_LIMITED


def test_bad_masks_neither_accuse_nor_clear() -> None:
    misfit = replace(SURE, misfit=True)
    found = judge([evidence_of(0, 0.9, 0.9), *CLEAN[1:]], misfit)
    assert {row["verdict"] for row in found} == {MASK_LIMITED}
    poor = judge(CLEAN, replace(SURE, estimated=True), confidence=0.3)
    assert {row["verdict"] for row in poor} == {MASK_LIMITED}
    assert {row["verdict"] for row in judge(CLEAN, replace(SURE, estimated=True))} == {CLEAR}


def test_chance_is_that_of_scipys_tests() -> None:
    row = evidence_of(0, 0.3, 0.12)
    by_share = stats.binomtest(12, 100, THRESHOLDS.clean_decided, alternative="greater").pvalue
    error = (row["effect_high"] - row["effect_low"]) / (2 * stats.norm.ppf(0.975))
    by_effect = stats.t.sf((0.3 - THRESHOLDS.clean_effect) / error, 99)
    assert chance(pd.DataFrame([row]))[0] == pytest.approx(2 * min(by_share, by_effect))


def test_clean_classes_at_the_reference_are_rarely_accused() -> None:
    rng = np.random.default_rng(0)
    accused = 0
    for _ in range(200):
        decided = rng.binomial(100, THRESHOLDS.clean_decided, (10, 3)) / 100
        rows = [
            evidence_of(label, float(rng.normal(0.1, 0.03)), share) | {"family": family}
            for label in range(10)
            for family, share in zip("xyz", decided[label], strict=True)
        ]
        accused += sum(row["verdict"] == RELIES for row in judge(rows))
    assert accused / 2000 <= 0.05


def test_a_property_that_tells_the_class_apart_is_named() -> None:
    table = pa.table({"label_name": ["c0", "c1"], "mask_confidence": pa.array([0.6, 0.6])})
    properties = pd.DataFrame(
        {
            "label": [None, 0, 0, 1],
            "property": ["sharpness", "brightness", "sharpness", "sharpness"],
            "label_auc": [np.nan, 0.87, 0.04, 0.6],
        }
    )
    first, second = judge_classes(
        table, pd.DataFrame(CLEAN[:2]), [{"n_edited": 100}] * 2, SURE, properties=properties
    )
    assert "fineness of detail" in first["verdict_limits"] and "0.96" in first["verdict_limits"]
    assert "AUC" not in second["verdict_limits"]


def test_verdicts_are_counted_gravest_first() -> None:
    frame = pd.DataFrame({"label_name": list("abc"), "verdict": [CLEAR, RELIES, CLEAR]})
    assert list(count_verdicts(frame).items()) == [(RELIES, ["b"]), (CLEAR, ["a", "c"])]
