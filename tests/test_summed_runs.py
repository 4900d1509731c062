"""A run over a split that counts as large: tables of sums, the page, and all that reads a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit import compare_runs, load_run, merge_run, run_audit, run_piece
from audit.engines.pieces import Piece
from audit.redraw import redraw
from audit.viewing import Run

SETTINGS: dict[str, Any] = {
    "dataset": "demo", "limit": 240, "shard_size": 60, "edits": 20, "grids": False,
}  # fmt: skip
# Means that are sums; others of classes.parquet rest on kept rows.
EXACT = ("label", "n", "accuracy", "background_share", "transplant_rate", "kappa")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_audit(**SETTINGS, out=tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def summed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("summed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.run.summing.EXACT_ROWS", 100)
        patch.setattr("audit.tables.scale.setting.UNIFORM_ROWS", 150)
        patch.setattr("audit.tables.scale.setting.LEAST_A_CLASS", 5)
        for index in range(2):
            run_piece(Piece(index, 2), **SETTINGS, out=out)
        return merge_run(**SETTINGS, out=out)


def test_sums_are_those_of_all_rows(whole: Run, summed: Run) -> None:
    assert summed.manifest["totals"]["basis"]["how"] == "summed"
    assert "basis" not in whole.manifest["totals"]
    expected, found = whole.classes, summed.classes
    for name in EXACT:
        np.testing.assert_allclose(
            found[name].astype(float).to_numpy(), expected[name].astype(float).to_numpy(), 1e-6
        )
    counted = ["label", "predicted", "n"]
    pd.testing.assert_frame_equal(summed.confusion[counted], whole.confusion[counted])
    for name in ("samples", "accuracy", "statuses", "background_share"):
        assert summed.manifest["totals"][name] == pytest.approx(whole.manifest["totals"][name])


def test_its_rows_are_those_that_were_drawn(whole: Run, summed: Run) -> None:
    read = load_run(summed.path)
    assert 100 < len(read.samples) < len(read.kept) < 240
    assert set(read.kept["kept_as"]) <= {"split", "class", "list"}
    same = whole.samples.set_index("index").loc[read.samples["index"]]
    assert same["confidence"].to_numpy() == pytest.approx(read.samples["confidence"].to_numpy())
    listed = read.kept.loc[read.kept["kept_as"] != "split", "sample_id"]
    assert read.sample(listed.iloc[0])["index"] in set(whole.samples["index"])
    assert read.heatmap(listed.iloc[0]).shape == (32, 32)


def test_every_part_and_its_sums_are_in_the_manifest(summed: Run) -> None:
    for number in range(4):
        for name in (
            f"part-{number:06d}.parquet", f"_part-{number:06d}.json", f"_part-{number:06d}.sums"
        ):  # fmt: skip
            assert f"samples/{name}" in summed.manifest["files"]


def test_it_is_drawn_again_and_compared(summed: Run, tmp_path: Path) -> None:
    said = (summed.path / "index.html").read_text(encoding="utf-8")
    # On the first screen, and where the method is told.
    assert said.count("too many to hold all rows at once") == 2
    assert 'href="#basis"' in said
    page = redraw(summed.path, out=tmp_path / "page", lang="zh")
    assert page.stat().st_size > 100_000
    found = compare_runs(summed.path, summed.path, out=tmp_path / "compared")
    assert set(found.compare["verdict"]) == {"no change"}
