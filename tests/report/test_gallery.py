from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit.report import thumbs
from audit.report.gallery import (
    CONFIDENT,
    FLAGS,
    choose_flagged,
    decided_by_background,
    flag_names,
    flag_samples,
)
from audit.report.language import load_language
from audit.report.thumbs import (
    EXACT_SIDE,
    LARGEST_SIDE,
    UNKNOWN,
    build_thumbs,
    encode_mask,
    encode_picture,
    picture,
    silhouette,
)

NO_LABELS = pd.DataFrame({"index": pd.Series(dtype=np.int64), "label_rank": []})


def rows(count: int, **columns: Any) -> pd.DataFrame:
    """Right answers without any flag, but for what is given."""
    frame = pd.DataFrame(
        {
            "index": np.arange(count),
            "label": pd.array([0] * count, "Int32"),
            "correct": pd.array([True] * count, "boolean"),
            "confidence": 0.5,
            "object_logit": 1.0,
            "near_logit": 0.0,
            "far_logit": 0.0,
        }
    )
    for name in ("right_for_wrong_reason", "wrong_because_of_background", "context_driven"):
        frame[name] = pd.array([False] * count, "boolean")
    for name, values in columns.items():
        frame[name] = pd.array(values, frame[name].dtype)
    return frame


def test_flags_are_told_apart_by_bits() -> None:
    samples = rows(
        5,
        right_for_wrong_reason=[True, None, False, False, False],
        correct=[True, None, False, False, True],
        confidence=[0.5, 0.99, CONFIDENT, 0.89, 0.99],
    )
    labels = pd.DataFrame({"index": [2, 4], "label_rank": [1, 2]})
    flags = flag_samples(samples, labels)
    assert [name for name in FLAGS if flags.raised[name].any()] == [
        "right_for_wrong_reason", "label_suspect", "wrong_but_confident"
    ]  # fmt: skip
    assert flags.bits().tolist() == [1, 0, 8 + 16, 0, 8]
    assert flags.any.tolist() == [True, False, True, False, True]
    assert set(flag_names(load_language("zh"))) == set(FLAGS)


def edited(transplants: list[list[int]], labels: list[int]) -> pd.DataFrame:
    """Six transplants a sample onto objects of class 1 (of 2 for samples of class 1)."""
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)) * 2,
            "label": labels,
            "transplant_objects": [[2 if label == 1 else 1] * 6 for label in labels],
            "transplant_predictions": transplants,
            "ellipse_transplant_predictions": [[1, 1, 1, 1, 1, 1]] * len(labels),
            "mixed_same_predictions": [[label] * 3 for label in labels],
        }
    )


def test_background_decides_as_the_evidence_counts() -> None:
    edits = edited(
        # Five of six follow class 0; four do; too few count; of class 2 none.
        [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1], [0, 0, -1, -1, -1, -1], [1] * 6],
        [0, 0, 0, 2],
    )
    classes = pd.DataFrame({"label": [0, 1, 2], "reliance_family": ["estimated", None, None]})
    found = decided_by_background(edits, classes, ["estimated", "ellipse"])
    assert found.tolist() == [True, False, False, False]
    # Under the masks that the class's reliance rests on: there every answer is the object's.
    classes["reliance_family"] = ["ellipse", None, None]
    assert not decided_by_background(edits, classes, ["estimated", "ellipse"]).any()
    # Without a family to rest on, the main one counts; edits are joined by their position.
    edits["index"] = [4, 0, 2, 6]
    classes["reliance_family"] = None
    flags = flag_samples(rows(8), NO_LABELS, edits, classes, ["estimated", "ellipse"])
    assert np.flatnonzero(flags.raised["background_decides"]).tolist() == [4]


def test_flags_and_classes_take_turns_and_the_most_telling_come_first() -> None:
    samples = rows(
        6,
        label=[0, 0, 0, 1, 1, None],
        right_for_wrong_reason=[True, True, True, True, False, False],
        far_logit=[1.0, 3.0, 2.0, 0.5, 0.0, 0.0],
        correct=[True, True, True, True, False, None],
        confidence=[0.5, 0.5, 0.5, 0.5, 0.95, 0.9],
    )
    flags = flag_samples(samples, pd.DataFrame({"index": [1], "label_rank": [1]}))
    chosen = choose_flagged(samples, flags)
    # The reasons give 1 (class 0) before 3 (class 1), then 2 and 0; the suspect is 1; 4 is wrong.
    assert chosen["index"].tolist() == [1, 4, 3, 2, 0]
    assert chosen["rank"].tolist() == [0, 1, 2, 3, 4]
    assert set(chosen["section"]) == {"flagged"} and set(chosen["label"]) == {-1}
    assert choose_flagged(samples, flags, 2)["index"].tolist() == [1, 4]
    assert choose_flagged(samples, flags, 0).empty


def test_a_large_class_does_not_crowd_out_the_others() -> None:
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(5000) < 4990, 0, 1)
    samples = rows(
        5000,
        label=labels,
        right_for_wrong_reason=np.ones(5000, bool),
        far_logit=np.where(labels == 0, 5.0, 0.0) + rng.random(5000),
    )
    chosen = choose_flagged(samples, flag_samples(samples, NO_LABELS), 100)
    assert len(chosen) == 100
    assert (labels[chosen["index"]] == 1).sum() == 10


def test_small_pictures_are_exact_and_large_ones_reduced() -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (EXACT_SIDE, 40, 3)).astype(np.uint8)
    assert (picture(encode_picture(small)) == small).all()
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    large = np.repeat(np.broadcast_to(ramp, (480, 640))[..., None], 3, axis=2)
    content = encode_picture(np.ascontiguousarray(large))
    assert picture(content).shape == (168, LARGEST_SIDE, 3)
    assert len(content) < 8000
    assert abs(picture(content)[80, ::50, 0].astype(int) - ramp[::143][:5]).max() < 4
    mask = np.zeros((480, 640), np.uint8)
    mask[100:300, 200:400], mask[300:, :] = 255, UNKNOWN
    reduced = silhouette(encode_mask(mask))
    assert reduced.shape == (168, 224) and set(np.unique(reduced)) == {0, UNKNOWN, 255}


def test_flagged_pictures_keep_to_their_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"x" * 100
    chosen = pd.DataFrame(
        {
            "section": ["worst", "flagged", "flagged", "flagged"],
            "label": [0, -1, -1, -1],
            "rank": [0, 2, 0, 1],
            "index": [7, 1, 2, 3],
        }
    )
    given = dict.fromkeys([7, 1, 2, 3], content)
    monkeypatch.setattr(thumbs, "FLAGGED_BYTES", 250)
    table = build_thumbs(chosen, given, given, {index: f"s{index}" for index in given})
    assert table["index"].to_pylist() == [7, 2, 3], "the first two of the flagged"
    assert table["sample_id"].to_pylist() == ["s7", "s2", "s3"]
