from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from audit import load_run
from audit.errors import OutputError, UsageError
from audit.report.language import load_language
from audit.report.pictures.show import Seen, Shown, describe_sample, draw_sample
from audit.report.pictures.tiles import WIDTH
from audit.report.records import OBJECT, UNKNOWN, record_of
from audit.tables.reading import enlarge_map
from audit.viewing import Run

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run(small_run: Run) -> Run:
    return small_run


@pytest.fixture(scope="module")
def without_pictures(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, which keeps no picture."""
    folder = tmp_path_factory.mktemp("bare") / "run"
    shutil.copytree(run.path, folder)
    thumbs = pq.read_table(run.path / "thumbs.parquet")
    pq.write_table(thumbs.slice(0, 0), folder / "thumbs.parquet")
    return Run(folder, run.manifest)


def size_of(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def test_a_sample_is_shown_with_what_is_known_of_it(run: Run) -> None:
    sample_id = run.pictured[0]
    row, shown = run.sample(sample_id), run.show(sample_id)
    assert size_of(shown.png)[0] == WIDTH
    text = str(shown)
    assert text.startswith(sample_id)
    assert f"Label: {row['label_name']}, probability {row['label_probability']:.0%}." in text
    assert f"Prediction: {row['predicted_name']} (" in text
    assert f"The heatmap explains {row['predicted_name']}." in text
    assert f"{row['background_share']:.0%} of the heatmap lies on background." in text
    assert shown._repr_png_() == shown.png
    assert shown.png == run.show(sample_id).png


@pytest.mark.parametrize("reason", ["object", "background", "both", "neither"])
def test_reasons_are_words(run: Run, reason: str) -> None:
    row = run.sample(run.pictured[0]).copy()
    row["reason"], row["target"] = reason, 3
    said = describe_sample(
        row, run.manifest["classes"], target="main", language=load_language("en")
    )
    sentence = {
        "object": "The object alone points to three; the background does not.",
        "background": "The background alone points to three; the object does not.",
        "both": "Object and background each point to three by themselves.",
        "neither": "Neither object nor background points to three by itself.",
    }[reason]
    assert sum(sentence in line for line in said) == 1


def test_colours_and_pictures_can_be_chosen(run: Run) -> None:
    sample_id = run.pictured[0]
    assert run.show(sample_id, colours="inferno").png != run.show(sample_id).png
    black = np.zeros((32, 32, 3), np.uint8)
    assert run.show(sample_id, image=black).png != run.show(sample_id).png
    with pytest.raises(UsageError, match="no picture"):
        run.show(sample_id, image=np.zeros((32, 32), np.uint8))


def test_the_dataset_is_asked_for_what_the_run_does_not_keep(
    run: Run, without_pictures: Run
) -> None:
    """Its masks are the dataset's, so both pictures are the same to the byte."""
    for sample_id in run.pictured[:3]:
        assert without_pictures.show(sample_id).png == run.show(sample_id).png
    assert without_pictures.pictured == []


def changed(run: Run, **config: object) -> Run:
    return Run(run.path, run.manifest | {"config": run.manifest["config"] | config})


def test_a_dataset_that_is_gone_is_told(without_pictures: Run, tmp_path: Path) -> None:
    sample_id = without_pictures.samples["sample_id"].iloc[5]
    gone = changed(without_pictures, dataset=f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="cannot be opened") as caught:
        gone.show(sample_id)
    assert "image=" in str(caught.value.remedy)
    image = np.full((32, 32, 3), 90, np.uint8)
    assert gone.show(sample_id, image=image).sample_id == sample_id
    with pytest.raises(UsageError, match="not the one that was audited"):
        changed(without_pictures, limit=20).show(sample_id)


def test_what_is_not_there_is_told(run: Run) -> None:
    with pytest.raises(UsageError, match="no sample 'nobody'"):
        run.show("nobody")
    right = run.samples.query("correct")["sample_id"].iloc[0]
    with pytest.raises(UsageError, match="has no alt map"):
        run.show(right, target="alt")
    wrong = run.samples.query("not correct")["sample_id"].iloc[0]
    row = run.sample(wrong)
    assert f"The heatmap explains {row['label_name']}." in str(run.show(wrong, target="alt"))


def test_samples_without_scores_are_shown(run: Run) -> None:
    row = run.sample(run.pictured[0]).copy()
    for name in row.index:
        if name not in ("index", "status"):
            row[name] = None
    row["status"], row["problem"] = "unreadable", "cut off at byte 7"
    seen = Seen(image=np.zeros((32, 32, 3), np.uint8), mask=None)
    shown = draw_sample(row, seen, classes=run.manifest["classes"], grid=(8, 8))
    assert list(shown.lines) == ["Not all scores are defined (unreadable): cut off at byte 7."]


def test_names_are_text_in_html(tmp_path: Path) -> None:
    shown = Shown(sample_id=EVIL, lines=[EVIL], png=b"png")
    shown.save(tmp_path / "sample.html")
    for text in (shown._repr_html_(), (tmp_path / "sample.html").read_text(encoding="utf-8")):
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "&lt;script&gt;" in text


def test_pictures_are_saved(run: Run, tmp_path: Path) -> None:
    shown = run.show(run.pictured[0])
    assert shown.save(tmp_path / "a.png").read_bytes() == shown.png
    with pytest.raises(OutputError, match="cannot write") as caught:
        shown.save("/proc/a.png")
    assert "--out" not in str(caught.value)
    assert "another path" in str(caught.value.remedy)
    with pytest.raises(UsageError, match=r"picture or as a page"):
        shown.save(tmp_path / "a.bmp")


def test_records_hold_what_is_defined(run: Run) -> None:
    row = run.sample(run.pictured[0]).copy()
    row["right_for_wrong_reason"], row["reason"], row["transplant_rate"] = True, "both", np.nan
    mask = np.zeros((32, 32), np.uint8)
    mask[:8], mask[8:16] = 255, 128
    seen = Seen(image=np.zeros((32, 32, 3), np.uint8), mask=mask)
    record = record_of(row, seen, (8, 8))
    assert record.label == (row["label_name"], pytest.approx(row["label_probability"]))
    assert record.prediction == (row["predicted_name"], pytest.approx(row["confidence"]))
    assert record.tags == ("right_for_wrong_reason",)
    assert record.fields["reason"] == "both"
    assert "transplant_rate" not in record.fields
    assert "suspect_kind" not in record.fields
    assert {type(value) for value in record.fields.values()} <= {str, int, float, bool}
    assert record.mask is not None
    assert (record.mask == OBJECT).sum() == (record.mask == UNKNOWN).sum() == 8 * 32
    np.testing.assert_array_equal(record.heatmap, enlarge_map(row["map"], (8, 8), (32, 32)))


HAS_FIFTYONE = importlib.util.find_spec("fiftyone") is not None


@pytest.mark.skipif(HAS_FIFTYONE, reason="FiftyOne is installed")
def test_fiftyone_that_is_not_installed_is_told(run: Run) -> None:
    with pytest.raises(UsageError, match="FiftyOne is not installed") as caught:
        run.to_fiftyone()
    assert "audit[fiftyone]" in str(caught.value.remedy)


_SAMPLES = """
import sys
from audit import load_run

run = load_run(sys.argv[1])
for sample in run.fiftyone_samples(run.pictured[:2], sys.argv[2]):
    row = run.sample(sample.sample_id)
    assert sample.ground_truth.label == row["label_name"]
    assert abs(sample.prediction.confidence - row["confidence"]) < 1e-6
    assert sample.heatmap.get_map().shape == (32, 32)
    assert set(sample.object_mask.get_mask().ravel().tolist()) <= {0, 1, 2}
    assert sample.background_share == row["background_share"]
    assert type(sample).from_dict(sample.to_dict()).filepath == sample.filepath
"""


@pytest.mark.skipif(not HAS_FIFTYONE, reason="needs FiftyOne, which brings a database of its own")
def test_samples_are_fiftyone_s(run: Run, tmp_path: Path) -> None:
    """Without its database, which samples do not need; datasets do."""
    settings = os.environ | {"FIFTYONE_DISABLE_SERVICES": "1", "FIFTYONE_DO_NOT_TRACK": "1"}
    command = [sys.executable, "-c", _SAMPLES, str(run.path), str(tmp_path)]
    subprocess.run(command, env=settings, check=True)
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_loaded_run_shows_what_the_audited_one_does(run: Run) -> None:
    loaded = load_run(run.path)
    assert loaded.show(run.pictured[0]).png == run.show(run.pictured[0]).png
    assert loaded.pictured == run.pictured
    assert isinstance(loaded.samples, pd.DataFrame)
