from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from playwright.sync_api import Browser, Page

from audit import compare_runs, load_run, run_audit
from audit.certify.known import load_dataset
from audit.certify.training import Schedule, fit
from audit.comparing import follow_runs
from audit.errors import UsageError
from audit.models import build
from audit.report.comparing.page import comparison_page
from audit.report.comparing.words import Sentence, change_in, metric_names, value_in
from audit.report.language import load_language
from audit.tables import AuditRun
from audit.tables.changes import CHANGE_COLUMNS
from audit.tables.comparable import find_differences
from audit.tables.comparison import (
    BETTER,
    COMPARE_COLUMNS,
    SAME,
    SPLIT,
    UNDECIDED,
    WORSE,
    compare_runs_tables,
)
from audit.tables.power import wilson_interval
from audit.tables.trend import TREND_COLUMNS
from audit.training.loop import channel_statistics
from tests.conftest import random_model
from tests.report.browser import NARROW, WIDE, chromium, unreachable, violations, visit

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202eسلام\n" + "x" * 200
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


@pytest.fixture(scope="module")
def planted(folder: Path) -> AuditRun:
    """The shipped model, whose answers three and eight rest on their backgrounds."""
    return run_audit(dataset="demo", limit=300, grids=False, out=folder)


@pytest.fixture(scope="module")
def clean(folder: Path, planted: AuditRun) -> AuditRun:
    """The same network trained where backgrounds tell nothing."""
    data = load_dataset("demo", folder, limit=20, train_limit=1200)
    stats = channel_statistics(data.train.images)
    torch.manual_seed(0)
    model = fit(build("cnn", 10), data.train, stats, Schedule(epochs=3, lr=2e-3, flip=False))
    return run_audit(
        dataset="demo", limit=300, grids=False, out=folder, mean=stats[0], std=stats[1],
        checkpoint=_saved(model, folder / "clean.pt"), model="cnn",
    )  # fmt: skip


def _saved(model: torch.nn.Module, file: Path) -> Path:
    torch.save(model.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def bare(folder: Path) -> AuditRun:
    """A small run without edits."""
    return run_audit(dataset="demo", limit=60, edits="none", grids=False, out=folder / "bare")


@pytest.fixture(scope="module")
def bare_other(folder: Path, bare: AuditRun) -> AuditRun:
    """Another network on the same images."""
    weights = _saved(random_model("cnn"), folder / "random.pt")
    return run_audit(
        dataset="demo", limit=60, edits="none", grids=False, out=folder / "bare", model="cnn",
        checkpoint=weights, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip


def changed(run: AuditRun, **facts: Any) -> AuditRun:
    """The same run with other facts in its manifest."""
    return AuditRun(run.path, run.manifest | facts)


def with_rows(run: AuditRun, samples: pd.DataFrame, **facts: Any) -> AuditRun:
    """The same run with other rows."""
    made = changed(run, **facts)
    vars(made)["samples"] = samples
    return made


def row_of(table: pd.DataFrame, metric: str, label: int) -> pd.Series:
    return table[(table["metric"] == metric) & (table["label"] == label)].iloc[0]


def test_a_planted_model_is_worse_where_it_was_planted(
    clean: AuditRun, planted: AuditRun, folder: Path
) -> None:
    found = compare_runs(clean, planted, out=folder / "worse")
    reliance = found.compare[found.compare["metric"] == "reliance"].set_index("label")
    assert set(reliance.index[reliance["verdict"] == WORSE]) - {SPLIT} == {3, 8}
    assert not (reliance["verdict"] == BETTER).any()
    assert (reliance.loc[[3, 8], "low"] > 0.3).all()
    assert {"far_logit", "transplant_rate"} <= set(
        found.compare.loc[(found.compare["verdict"] == WORSE) & (found.compare["label"] == 3),
                          "metric"]
    )  # fmt: skip
    page = (found.path / "index.html").read_text(encoding="utf-8")
    assert "B relies more on background than A in 2 of 10 classes" in page
    back = compare_runs(planted, clean, out=folder / "better")
    reliance = back.compare[back.compare["metric"] == "reliance"].set_index("label")
    assert set(reliance.index[reliance["verdict"] == BETTER]) - {SPLIT} == {3, 8}
    for table, columns in (("compare", COMPARE_COLUMNS), ("changes", CHANGE_COLUMNS)):
        stored = pq.read_schema(found.path / f"{table}.parquet")
        assert stored.names == [column.name for column in columns]


def test_means_are_those_of_the_runs_own_tables(clean: AuditRun, planted: AuditRun) -> None:
    table = compare_runs_tables(clean, planted)["compare"].to_pandas()
    for side, run in (("a", clean), ("b", planted)):
        own = run.classes.set_index("label")
        for label in range(10):
            for name in ("accuracy", "transplant_rate", "reliance", "decided_share", "bg_gap"):
                assert row_of(table, name, label)[side] == pytest.approx(
                    own.loc[label, name], abs=1e-6
                ), (side, label, name)
        right = run.samples["correct"].fillna(value=False).to_numpy(bool)
        wrong_target = run.samples["alt_target"].notna().to_numpy()
        assert wrong_target.sum() == (~right).sum()


def test_the_label_s_kappa_is_the_stored_one_where_the_label_was_predicted(
    clean: AuditRun, planted: AuditRun
) -> None:
    right = clean.samples["correct"].to_numpy(bool) & planted.samples["correct"].to_numpy(bool)
    rows = [run.samples[right].reset_index(drop=True) for run in (clean, planted)]
    runs = [with_rows(run, each) for run, each in zip((clean, planted), rows, strict=True)]
    table = compare_runs_tables(
        *(changed_edits(run) for run in runs)
    )["compare"].to_pandas()  # fmt: skip
    for side, each in zip("ab", rows, strict=True):
        assert row_of(table, "kappa", SPLIT)[side] == pytest.approx(each["kappa"].mean(), abs=1e-6)
        share = row_of(table, "background_share", SPLIT)[side]
        assert share == pytest.approx(each["background_share"].mean(), abs=1e-6)


def changed_edits(run: AuditRun) -> AuditRun:
    """The same rows in a folder without edits."""
    made = AuditRun(run.path / "nowhere", run.manifest)
    vars(made)["samples"] = run.samples
    return made


def test_a_run_against_itself(planted: AuditRun, folder: Path) -> None:
    found = compare_runs(planted, planted, out=folder / "same")
    assert set(found.compare["verdict"]) == {SAME}
    assert (found.compare["change"] == 0).all()
    assert len(found.changes) == 0
    assert set(found.compare["metric"]) >= {"accuracy", "reliance", "kappa", "far_logit"}
    page = (found.path / "index.html").read_text(encoding="utf-8")
    assert "A and B are the same model: nothing differs" in page
    assert found.manifest["one_model"] is True
    assert json.loads((found.path / "manifest.json").read_text()) == found.manifest
    for name, digest in found.manifest["files"].items():
        assert (found.path / name).stat().st_size == digest["bytes"]


def test_a_comparison_is_nobody_s_run(planted: AuditRun, folder: Path, tmp_path: Path) -> None:
    compare_runs(planted, planted, out=tmp_path / "one")
    with pytest.raises(UsageError, match="no complete run"):
        load_run(tmp_path)
    with pytest.raises(UsageError, match="a comparison of runs"):
        load_run(tmp_path / "one")
    before = planted.manifest["files"].keys()
    with pytest.raises(UsageError, match="holds a run"):
        compare_runs(planted, planted, out=planted.path)
    assert load_run(planted.path).manifest["files"].keys() == before


def test_no_comparison_is_written_over_a_run_that_is_not_whole(
    bare: AuditRun, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text('{"status": "complete", "files": {"gone": {}}}')
    killed = tmp_path / "killed"
    (killed / "samples").mkdir(parents=True)
    for folder in (broken, killed):
        before = sorted(folder.iterdir())
        with pytest.raises(UsageError, match="holds a run"):
            compare_runs(bare, bare, out=folder)
        assert sorted(folder.iterdir()) == before
    twice = [compare_runs(bare, bare, out=tmp_path / "same") for _ in range(2)]
    assert twice[0].compare.equals(twice[1].compare)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"schema_version": 1}, "version of the tables: 1 and"),
        ({"dataset": "cifar10"}, "dataset: cifar10 and demo"),
        ({"split": "train"}, "split: train and test"),
        ({"classes": ["a", "b"]}, "classes: a, b and zero, one"),
        ({"data_fingerprint": "0" * 64}, "masks of the data: 000000000000 and"),
        ({"mask_families": ["estimated", "ellipse"]}, "estimated, ellipse and dataset"),
        ({"mask_network": "abc"}, "network of the masks: abc and none"),
    ],
)
def test_facts_that_differ_are_named_with_both_values(
    bare: AuditRun, facts: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError) as refused:
        compare_runs_tables(changed(bare, **facts), bare)
    assert named in str(refused.value)
    assert refused.value.exit_code == 2
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("target", "label", "--target: label and predicted"),
        ("smooth", "flip", "--smooth: flip and none"),
        ("method", ["gradcam", "hirescam"], "--method (the first): gradcam and hirescam"),
        ("mask_object", [1], "--mask-object: 1 and none"),
        ("mask_unknown", [2], "--mask-unknown: 2 and none"),
        ("samples", "instances", "--samples: instances and images"),
    ],
)
def test_settings_that_differ_are_named(bare: AuditRun, name: str, value: Any, named: str) -> None:
    other = changed(bare, config=bare.manifest["config"] | {name: value})
    with pytest.raises(UsageError) as refused:
        compare_runs_tables(other, bare)
    assert named in str(refused.value)


def test_runs_of_an_earlier_version_are_refused(bare: AuditRun) -> None:
    facts = {name: value for name, value in bare.manifest.items() if name != "mask_families"}
    old = AuditRun(bare.path, facts | {"schema_version": 1})
    with pytest.raises(UsageError, match="this audit compares version"):
        compare_runs_tables(old, old)


def test_all_that_differs_is_named_at_once(bare: AuditRun) -> None:
    config = bare.manifest["config"] | {"target": "label", "smooth": "flip"}
    found = find_differences(changed(bare, split="train", config=config), bare)
    assert [one.what for one in found] == ["split", "--target", "--smooth"]
    assert find_differences(bare, changed(bare, weights="other", device="cuda", layer="x")) == []
    # A further method does not keep runs from being compared.
    config = bare.manifest["config"] | {"method": ["hirescam", "gradcam"]}
    assert find_differences(bare, changed(bare, config=config)) == []


def test_rows_that_differ_are_named(bare: AuditRun) -> None:
    rows = bare.samples
    other = with_rows(bare, rows.iloc[:-1])
    found = find_differences(bare, other)
    assert [one.what for one in found] == ["samples"]
    assert (found[0].first, found[0].second) == (
        "60 of which 59 are in both", "59 of which 59 are in both",
    )  # fmt: skip
    relabelled = rows.copy()
    relabelled.loc[4, "label"] = (int(rows.loc[4, "label"]) + 1) % 10
    assert [one.what for one in find_differences(bare, with_rows(bare, relabelled))] == [
        "labels of 1 samples"
    ]
    grown = rows.assign(object_area=rows["object_area"] * 1.1)
    found = find_differences(bare, with_rows(bare, grown))
    assert [one.what for one in found] == ["object masks"]
    assert "objects cover" in found[0].first


def test_sizes_may_differ_where_the_view_is_the_same(bare: AuditRun) -> None:
    def seen(side: int, resize: int, run: AuditRun = bare, *, squash: bool = False) -> AuditRun:
        frame = {"size": [side, side], "resize": resize, "interpolation": "bilinear",
                 "squash": squash}  # fmt: skip
        return with_rows(
            run, run.samples, image_size=[side, side], data_fingerprint=f"{side} {resize}" * 9,
            preprocessing={"geometry": frame},
        )  # fmt: skip

    assert find_differences(seen(224, 256), seen(384, 439)) == []
    assert [one.what for one in find_differences(seen(224, 256), seen(224, 224))] == [
        "view of each picture"
    ]
    assert len(find_differences(seen(224, 224), seen(224, 224, squash=True))) == 1
    # The same view, but masks that cover another share of it.
    rows = bare.samples
    other = with_rows(seen(384, 439), rows.assign(object_area=rows["object_area"] + 0.05),
                      **{k: seen(384, 439).manifest[k] for k in ("image_size",)})  # fmt: skip
    assert [one.what for one in find_differences(seen(224, 256), other)] == ["object masks"]
    nudged = rows.assign(object_area=rows["object_area"] + 0.005)
    assert find_differences(seen(224, 256), with_rows(seen(384, 439), nudged)) == []


def test_commands(
    audit_here: Command, bare: AuditRun, bare_other: AuditRun, planted: AuditRun, tmp_path: Path
) -> None:
    done = audit_here("compare", bare.path, bare_other.path, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert "B IS" not in done.stdout
    assert "Less accurate in" in done.stdout or "fewer images rightly" in done.stdout
    assert "Pixels were not edited in both runs" in done.stdout
    assert str(tmp_path / "two" / "index.html") in done.stdout
    refused = audit_here("compare", bare.path, planted.path, "--out", tmp_path / "no")
    assert refused.returncode == 2
    assert "samples: 60 of which" in refused.stderr or "masks of the data" in refused.stderr
    assert "remedy:" in refused.stderr
    assert not (tmp_path / "no").exists()
    assert audit_here("compare", tmp_path / "nothing", bare.path).returncode == 2
    assert audit_here("compare", bare.path, bare.path, "--lang", "xx").returncode == 2
    line = audit_here("trend", bare.path.parents[2], "--out", tmp_path / "line")
    assert line.returncode == 0, line.stderr
    assert "1. cnn" in line.stdout
    assert "2. cnn" in line.stdout
    alone = audit_here("trend", bare.path, "--out", tmp_path / "alone")
    assert alone.returncode == 2
    assert "at least two complete runs" in alone.stderr
    unknown = audit_here("trend", bare.path.parents[2], "--order", "size")
    assert unknown.returncode == 2
    assert "finished or name" in unknown.stderr


def test_a_trend_judges_each_step_and_leaves_out_strangers(
    folder: Path, clean: AuditRun, planted: AuditRun, bare: AuditRun, bare_other: AuditRun
) -> None:
    found = follow_runs(folder, out=folder / "line")
    ids = [run.manifest["run_id"] for run in found.line.runs]
    left = {run.manifest["run_id"]: why for run, why in found.line.left_out}
    # The runs of fewer images lie in the same folder; the newest run decides what is comparable.
    mine, others = ({run.manifest["run_id"] for run in pair}
                    for pair in ((clean, planted), (bare, bare_other)))  # fmt: skip
    assert {frozenset(ids), frozenset(left)} == {frozenset(mine), frozenset(others)}
    assert all("masks of the data" in why or "samples" in why for why in left.values())
    assert [column.name for column in TREND_COLUMNS] == pq.read_schema(
        found.path / "trend.parquet"
    ).names
    pair = compare_runs_tables(*found.line.runs)["compare"].to_pandas()
    last = found.trend[found.trend["place"] == 1]
    both = last.merge(pair, on=["label", "metric"], suffixes=("", "_pair"))
    assert len(both) == len(pair)
    np.testing.assert_array_equal(both["verdict"], both["verdict_pair"])
    np.testing.assert_allclose(both["change"], both["change_pair"])
    np.testing.assert_allclose(both["first_change"], both["change_pair"])
    assert found.trend.loc[found.trend["place"] == 0, ["change", "verdict"]].isna().all(axis=None)
    accuracy = found.line.runs[0].samples["correct"].astype(float)
    # All of a few right is no proof that all are.
    shares = found.trend[(found.trend["metric"] == "accuracy") & (found.trend["n"] > 1)]
    low, high = wilson_interval(shares["value"], shares["n"])
    np.testing.assert_allclose(shares[["low", "high"]], np.stack([low, high], axis=1), atol=1e-9)
    row = row_of(found.trend[found.trend["place"] == 0], "accuracy", SPLIT)
    assert row["value"] == pytest.approx(accuracy.mean())
    assert row["low"] <= row["value"] <= row["high"]
    names = follow_runs(folder, order="name", out=folder / "line").line.runs
    assert [run.path.name for run in names] == sorted(ids)


def test_a_copy_of_a_run_is_no_step(bare: AuditRun, bare_other: AuditRun, tmp_path: Path) -> None:
    for name, run in (("one", bare), ("two", bare_other), ("again", bare)):
        shutil.copytree(run.path, tmp_path / name)
    found = follow_runs(tmp_path, out=tmp_path / "line")
    assert len(found.line.runs) == 2
    assert "the same run as" in found.line.left_out[0][1]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def hostile(run: AuditRun, folder: Path) -> AuditRun:
    """The same run with names that try to be code."""
    folder.mkdir()
    thumbs = pd.read_parquet(run.path / "thumbs.parquet")
    thumbs["sample_id"] = EVIL + thumbs["sample_id"]
    thumbs.to_parquet(folder / "thumbs.parquet")
    names = [EVIL, *run.manifest["classes"][1:]]
    samples = run.samples.copy()
    samples["sample_id"] = EVIL + samples["sample_id"]
    for name in ("label_name", "predicted_name"):
        samples[name] = samples[name].astype(object).replace("zero", EVIL).astype("category")
    weights = EVIL + run.manifest["weights"]
    made = AuditRun(folder, run.manifest | {"classes": names, "weights": weights, "dataset": EVIL})
    vars(made)["samples"] = samples
    vars(made)["classes"] = run.classes.assign(label_name=names)
    return made


def test_names_of_others_are_text(bare: AuditRun, bare_other: AuditRun, tmp_path: Path) -> None:
    one, other = hostile(bare, tmp_path / "a"), hostile(bare_other, tmp_path / "b")
    tables = {name: t.to_pandas() for name, t in compare_runs_tables(one, other).items()}
    page = comparison_page(one, other, tables, lang="en", one_model=False)
    tags = Tags()
    tags.feed(page)
    plain = comparison_page(
        bare, bare_other,
        {n: t.to_pandas() for n, t in compare_runs_tables(bare, bare_other).items()},
        lang="en", one_model=False,
    )  # fmt: skip
    calm = Tags()
    calm.feed(plain)
    assert tags.tags == calm.tags
    assert "alert(1)</script>\"'" not in page


def test_words_of_numbers() -> None:
    english = load_language("en")
    assert value_in("reliance", -0.0002) == "0.0%"
    assert value_in("kappa", 0.4899) == "0.49"
    assert change_in(english, "accuracy", 0.0) == "0.0 points"
    assert change_in(english, "far_logit", 1.206) == "+1.21 logits"
    assert change_in(english, "kappa", float("nan")) == "–"
    said = Sentence("In: {names}.", {"names": [EVIL]})
    assert "<script>" not in said.html()
    assert "\n" not in said.plain()
    assert next(iter(metric_names(english))) == "accuracy"


def test_undecided_is_not_no_change(bare: AuditRun, bare_other: AuditRun) -> None:
    table = compare_runs_tables(bare, bare_other)["compare"].to_pandas()
    few = table[(table["n_clusters"] < 10) & (table["label"] != SPLIT)]
    assert len(few) > 10
    assert set(few["verdict"]) == {UNDECIDED}
    assert WORSE in set(table.loc[table["label"] == SPLIT, "verdict"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def come_near(page: Page) -> None:
    """Scroll through the page, so that all is drawn that waits for it."""
    page.evaluate(
        """async () => {
          const frame = () => new Promise((done) => requestAnimationFrame(done));
          for (let y = 0; y < document.body.scrollHeight; y += 600) {
            window.scrollTo(0, y);
            await frame();
            await frame();
          }
          window.scrollTo(0, 0);
          await frame();
        }"""
    )


@pytest.mark.browser
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_of_two_runs_in_a_browser(
    browser: Browser, bare: AuditRun, bare_other: AuditRun, tmp_path: Path, width: int
) -> None:
    one, other = hostile(bare, tmp_path / "a"), hostile(bare_other, tmp_path / "b")
    tables = {name: t.to_pandas() for name, t in compare_runs_tables(one, other).items()}
    file = tmp_path / "index.html"
    file.write_text(comparison_page(one, other, tables, lang="en", one_model=False), "utf-8")
    with visit(browser, file, width=width, dark=width == NARROW) as opened:
        page = opened.page
        page.locator("#class-view select").first.select_option("accuracy")
        come_near(page)
        assert page.locator("#class-view tbody tr").count() == 10
        assert page.locator("#class-view .plot svg").count() >= 1
        assert page.locator("#change-view .pair-card").count() >= 1
        assert "<script>alert(1)</script>" in page.locator("#class-view tbody").inner_text()
        page.locator("#class-view th button").nth(1).press("Enter")
        page.locator("#class-view input[type=search]").fill("<script>")
        assert page.locator("#class-view tbody tr").count() == 1
        page.locator("#change-view select").first.select_option(index=1)
        assert unreachable(page) == []
        assert violations(page) == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_page_of_a_trend_in_a_browser(
    browser: Browser, bare: AuditRun, bare_other: AuditRun, tmp_path: Path, width: int
) -> None:
    folder = bare.path.parents[2]
    found = follow_runs(folder, out=tmp_path)
    with visit(browser, found.path / "index.html", width=width) as opened:
        page = opened.page
        come_near(page)
        assert page.locator("#curve-view .plot svg").count() == 1
        page.locator("#curve-view select").last.select_option(label="three")
        assert page.locator("#curve-view tbody tr").count() == 2
        come_near(page)
        assert unreachable(page) == []
        assert violations(page) == []
