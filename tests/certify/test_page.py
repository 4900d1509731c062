from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audit.certify.evaluation import summarise
from audit.certify.known import KnownData, load_dataset
from audit.certify.page import Story, describe, write_page
from audit.certify.plots import draw_scores
from audit.certify.settings import load_settings
from audit.certify.tables import CERTIFY_COLUMNS, SAMPLE_COLUMNS
from audit.tables.verdicts import CLEAR, RELIES, TOO_FEW

NOTHING_LEARNT = (
    "No cue in the background was learnt (pull above 0.2), so nothing could be found or missed."
)
NO_SAMPLES = pd.DataFrame({column.name: pd.Series(dtype=object) for column in SAMPLE_COLUMNS})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> KnownData:
    return load_dataset("demo", tmp_path_factory.mktemp("data"), limit=20, train_limit=100)


def row(label: int, **told: Any) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys(column.name for column in CERTIFY_COLUMNS)
    return known | {
        "case": "seed0-A095", "kind": "planted", "seed": 0, "strength": 0.95, "label": label,
        "label_name": str(label), "n": 20, "verdict": CLEAR, "reliance": 0.0, "told_by": "",
        "transplant_rate": 0.1, "background_share": 0.5, "far_logit": 0.0, "run": "runs/x",
    } | told  # fmt: skip


def cue(name: str, place: str, pull: float) -> dict[str, Any]:
    told = {"cue": name, "place": place, "pull": pull, "accuracy_with": 1.0}
    return told | {"accuracy_without": 0.5}


def untested() -> dict[str, Any]:
    return {"verdict": TOO_FEW, "reliance": None}


def told(
    folder: Path, data: KnownData, rows: list[dict[str, Any]], accuracy: float = 0.9
) -> tuple[str, str, str]:
    """Page, short form and terminal."""
    classes = pd.DataFrame(rows, columns=[column.name for column in CERTIFY_COLUMNS])
    for name in ("pull", "reliance", "accuracy_with", "accuracy_without", "strength"):
        classes[name] = classes[name].astype(float)
    summary = summarise(classes, NO_SAMPLES).to_pandas()
    story = Story(
        settings=load_settings({"cues": "frame,object_colour"}), data=data, test=data.test,
        base="trained here: 1 epochs, batch 128", recipe="1 epochs, batch 128",
        accuracies={"seed0-A095": accuracy, "random-0": 0.1},
    )  # fmt: skip
    write_page(folder, story, classes=classes, summary=summary)
    page = (folder / "index.html").read_text(encoding="utf-8")
    short = (folder / "results.md").read_text(encoding="utf-8")
    return page, short, describe(folder, classes, summary, 1.0)


def test_an_untested_control_is_not_spared(data: KnownData, tmp_path: Path) -> None:
    rows = [
        row(0, **cue("frame", "background", 0.9), verdict=RELIES, reliance=0.8),
        row(1, **cue("object_colour", "object", 0.9), **untested()),
        row(2),
        row(3, **untested()),
    ]
    texts = told(tmp_path, data, rows)
    for text in texts:
        assert "Found: 1 of 1 such class." in text
        assert (
            "Not one class whose cue lies on the object could be tested (too few samples in 1 of 1)"
        ) in text
        assert (
            "Accused wrongly: 0 of 1 tested class without a cue in planted models (at most 97.5%, "
            "95% bound); 1 more could not be tested."
        ) in text
        assert "0 of 1 class " not in text
    page, short, _ = texts
    assert "cue on the object (the negative control, could not be tested)" in page
    assert "| object_colour | object | 95% | 100% / 50% | 0.90 | – | not tested |" in short
    assert "There is none." not in page
    assert "No class that is relied on through its background was missed." in page


def test_a_missing_control_is_told(data: KnownData, tmp_path: Path) -> None:
    rows = [row(0, **cue("frame", "background", 0.9)), row(1)]
    page, short, _ = told(tmp_path, data, rows)
    assert "cue on the object (the negative control, none was planted)" in page
    assert "there is no negative control" in short


@pytest.mark.parametrize("verdict", [CLEAR, TOO_FEW])
def test_no_cue_learnt_is_no_success(data: KnownData, tmp_path: Path, verdict: str) -> None:
    rows = [row(0, **cue("frame", "background", 0.2), verdict=verdict), row(1)]
    for text in told(tmp_path, data, rows):
        assert NOTHING_LEARNT in text
        assert "was missed." not in text
        assert "Found:" not in text


def test_a_learnt_cue_that_could_not_be_tested(data: KnownData, tmp_path: Path) -> None:
    rows = [
        row(0, **cue("frame", "background", 0.9), **untested()),
        row(1, **cue("frame", "background", 0.9)),
    ]
    page, short, terminal = told(tmp_path, data, rows)
    for text in (page, short, terminal):
        assert "Found: 0 of 1 such class; 1 more could not be tested." in text
        assert NOTHING_LEARNT not in text
    assert "0 of 1 (1 not tested)" in short
    assert "too few images of the class could be edited" in page


def test_a_short_training_is_warned_of(data: KnownData, tmp_path: Path) -> None:
    rows = [row(0, **cue("frame", "background", 0.9)), row(1), row(2, case="random-0")]
    rows[2] |= {"kind": "random"}
    page, short, _ = told(tmp_path, data, rows, accuracy=0.18)
    warning = (
        "Short training: accuracy 18% on clean images (seed0-A095), below 50% in 1 of 1 model."
    )
    assert warning in page
    assert warning in short
    page, short, _ = told(tmp_path, data, rows, accuracy=0.5)
    assert "Short training" not in page + short


def test_one_is_not_several(data: KnownData, tmp_path: Path) -> None:
    page, short, terminal = told(tmp_path, data, [row(0, **cue("frame", "background", 0.9))])
    assert "1 epoch, batch 128" in page
    assert "trained here: 1 epoch, batch 128" in short
    assert "1 model, 1 s" in terminal
    for text in (page, short, terminal):
        for wrong in ("1 epochs", "1 models", " 1 classes"):
            assert wrong not in text


def test_a_picture_without_points_is_left_out(data: KnownData, tmp_path: Path) -> None:
    rows = [row(0, **cue("frame", "background", 0.9), **untested()), row(1)]
    page, _, _ = told(tmp_path, data, rows)
    assert page.count("<img") == 1
    assert "No class with a cue has a score" in page
    assert "Nothing could be computed" in page
    page, _, _ = told(tmp_path, data, [row(0, **cue("frame", "background", 0.9)), row(1)])
    assert page.count("<img") == 2
    assert draw_scores(pd.DataFrame(rows).iloc[:0]) is None
