from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pytest

from audit.certify.benchmark import Certificate, certify
from audit.certify.evaluation import SUMMARY_COLUMNS
from audit.certify.known import load_dataset
from audit.certify.page import Story, missed_rows, write_page
from audit.certify.settings import CertifySettings, load_settings
from audit.certify.tables import CERTIFY_COLUMNS, SAMPLE_COLUMNS
from audit.certify.wording import headline, why_missed
from audit.tables.verdicts import CLEAR, MASK_LIMITED, RELIES, SUSPECT, TOO_FEW

DOCS = Path(__file__).parents[2] / "docs" / "certify.md"

pytestmark = pytest.mark.slow


def settings_in(out: Path) -> CertifySettings:
    return load_settings(
        {
            "cues": "frame,object_colour",
            "strengths": "0,100",
            "random": 1,
            "limit": 80,
            "train_limit": 1200,
            "base_epochs": 3,
            "epochs": 4,
            "device": "cpu",
            "out": out,
        }
    )


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> tuple[CertifySettings, Certificate]:
    settings = settings_in(tmp_path_factory.mktemp("out"))
    return settings, certify(settings)


def test_tables_have_their_columns_and_rows(
    benchmark: tuple[CertifySettings, Certificate],
) -> None:
    _, done = benchmark
    for name, columns in (
        ("certify", CERTIFY_COLUMNS), ("samples", SAMPLE_COLUMNS), ("summary", SUMMARY_COLUMNS),
    ):  # fmt: skip
        table = pd.read_parquet(done.path / f"{name}.parquet")
        assert list(table) == [column.name for column in columns]
    assert done.classes.groupby("kind", sort=False)["label"].size().to_dict() == {
        "clean": 10, "planted": 10, "random": 10, "shuffled_labels": 10, "shuffled_masks": 10,
    }  # fmt: skip
    assert len(done.samples) == 160


def test_a_planted_cue_is_learnt_and_measured(
    benchmark: tuple[CertifySettings, Certificate],
) -> None:
    _, done = benchmark
    planted = done.classes[done.classes["kind"] == "planted"].set_index("cue")
    clean = done.classes[done.classes["kind"] == "clean"].set_index("cue")
    for cue in ("frame", "object_colour"):
        assert planted.loc[cue, "pull"] > 0.5
        assert abs(clean.loc[cue, "pull"]) < 0.2
        assert planted.loc[cue, "accuracy_with"] > planted.loc[cue, "accuracy_without"]
    # The background's cue moves transplants, the object's does not.
    assert planted.loc["frame", "transplant_rate"] > 0.5
    assert planted.loc["object_colour", "transplant_rate"] < 0.5


def test_samples_tell_who_carries(benchmark: tuple[CertifySettings, Certificate]) -> None:
    _, done = benchmark
    planted = done.samples[done.samples["kind"] == "planted"]
    assert (planted["carried"] == planted["cue"].notna()).all()
    assert not (planted["reliant"] & ~planted["correct"].astype(bool)).any()
    assert not done.samples.loc[done.samples["kind"] == "clean", "carried"].any()


def test_the_page_tells_it(benchmark: tuple[CertifySettings, Certificate]) -> None:
    _, done = benchmark
    page = (done.path / "index.html").read_text(encoding="utf-8")
    assert "Known answers: cnn on demo" in page
    assert "a blue ring along the border" in page
    assert "http" not in page.replace("https://www.w3.org", "")
    for sentence in headline(done.summary):
        assert sentence in page


def test_the_short_form_has_a_line_for_each_cue_and_strength(
    benchmark: tuple[CertifySettings, Certificate],
) -> None:
    _, done = benchmark
    lines = (done.path / "results.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("5 models of `cnn` on `demo`, 1,200 training and 80 test images")
    rows = [line.split("|")[1:4] for line in lines if line.startswith(("| frame", "| object"))]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [cue, place, strength]
        for cue, place in (("object_colour", "object"), ("frame", "background"))
        for strength in ("0%", "100%")
    ]


def test_names_of_classes_are_only_text(
    benchmark: tuple[CertifySettings, Certificate], tmp_path: Path
) -> None:
    settings, done = benchmark
    data = load_dataset("demo", tmp_path, limit=20, train_limit=100)
    evil = done.classes.assign(
        label_name="<script>alert(1)</script>", verdict=RELIES,
        run="runs/<img src=x>",
    )  # fmt: skip
    story = Story(
        settings=settings, data=replace(data, classes=("<b>",) * 10), test=data.test,
        base="<i>base</i>", recipe="r", accuracies={"<u>": 0.5},
    )  # fmt: skip
    write_page(tmp_path, story, classes=evil, summary=done.summary)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in page
    for raw in ("<script", "<img src=x", "<i>base", "<u>"):
        assert raw not in page


def test_what_is_finished_is_kept(benchmark: tuple[CertifySettings, Certificate]) -> None:
    settings, done = benchmark
    kept = sorted([*done.path.rglob("*.safetensors"), *done.path.glob("data/*.parquet")])
    assert len(kept) == 1 + 4 + 3
    lost = done.path / "models" / "random-0.safetensors"
    content = lost.read_bytes()
    lost.unlink()
    (done.path / "summary.parquet").unlink()
    before = {file: file.stat().st_mtime_ns for file in kept if file != lost}
    again = certify(settings)
    assert {file: file.stat().st_mtime_ns for file in kept if file != lost} == before
    assert lost.read_bytes() == content
    pd.testing.assert_frame_equal(again.classes, done.classes)
    pd.testing.assert_frame_equal(again.samples, done.samples)
    pd.testing.assert_frame_equal(again.summary, done.summary)


def test_planted_data_is_audited_like_any_other(
    benchmark: tuple[CertifySettings, Certificate],
) -> None:
    _, done = benchmark
    run = done.classes.loc[done.classes["kind"] == "planted", "run"].iloc[0]
    manifest = json.loads((done.path / run / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["config"]["dataset"].startswith("parquet:")
    assert manifest["known_answer"] == {}


def test_missed_classes_have_a_reason() -> None:
    verdicts = [RELIES, SUSPECT, MASK_LIMITED, CLEAR, TOO_FEW]
    rows = pd.DataFrame({"verdict": verdicts}).assign(
        kind="planted", place="background", cue="patch", strength=0.95, pull=0.9, reliance=0.0
    )
    reasons = [why_missed(missed) for missed in missed_rows(rows)]
    assert len(reasons) == len(set(reasons)) == 4


def test_the_command_names_what_is_wrong(
    audit_here: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    for flags, said in (
        (("--cues", "rain"), "--cues"),
        (("--strengths", "x"), "whole percents from 0 to 100, with commas"),
        (("--masks", "bogus"), "auto | dataset | estimated"),
        (("--dataset", "cifar10", "--data-root", tmp_path), "cifar10 was not found"),
        (("--checkpoint", tmp_path / "no.safetensors"), "does not exist"),
        (("--device", "abacus"), "abacus"),
    ):
        done = audit_here("certify", "--out", tmp_path, *flags)
        assert done.returncode == 2
        assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_documentation_names_every_column() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for columns in (CERTIFY_COLUMNS, SAMPLE_COLUMNS, SUMMARY_COLUMNS):
        assert [column.name for column in columns if f"`{column.name}`" not in text] == []
