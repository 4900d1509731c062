from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from audit import load_run, run_audit
from audit.errors import UsageError
from audit.report.columns import refresh
from audit.report.pictures.grids import Grids, class_sheet
from audit.report.pictures.tiles import WIDTH, jet, outline
from audit.report.selection import TILES
from audit.tables import AuditRun
from audit.tables.reading import enlarge_map


@pytest.fixture(scope="module")
def run(demo_run: AuditRun) -> AuditRun:
    return demo_run


def test_a_run_leaves_what_the_readme_says(run: AuditRun) -> None:
    found = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    expected = (
        "manifest.json index.html classes.parquet confusion.parquet thumbs.parquet edited.parquet"
    )
    assert {*expected.split(), "samples/part-000000.parquet", "samples/_part-000000.json"} <= found
    # The plan was there before all others: what is computed, and in which pieces.
    assert set(run.manifest["files"]) == found - {"manifest.json", "plan.json"}
    assert sum(name.startswith("grids/class-") for name in found) == 10
    assert sum(name.startswith("grids/channels-") for name in found) == 10


def test_the_planted_classes_come_first(run: AuditRun) -> None:
    ranked = run.classes.sort_values("transplant_rate", ascending=False)
    assert set(ranked["label_name"][:2]) == set(run.manifest["known_answer"]["planted_classes"])


def test_every_picture_is_redrawn_from_the_tables_alone(run: AuditRun) -> None:
    thumbs = pd.read_parquet(run.path / "thumbs.parquet")
    grids = Grids(
        run.samples, thumbs, pd.read_parquet(run.path / "classes.parquet"),
        tuple(run.manifest["grid"]),
    )  # fmt: skip
    drawn = dict(grids.sheets())
    assert len(drawn) >= 20
    for name, content in drawn.items():
        assert (run.path / "grids" / name).read_bytes() == content
        with Image.open(io.BytesIO(content)) as image:
            assert image.width == WIDTH


def test_slides_are_there(run: AuditRun) -> None:
    names = {f"grids/{name}.png" for name in ("classes", "transplants", "shares")}
    assert names <= set(run.manifest["files"])


def test_whether_the_background_decides_agrees_with_the_evidence(run: AuditRun) -> None:
    found = run.joined.groupby("label", observed=True)["background_decides"].agg(["mean", "count"])
    main = run.evidence.query("family == 'dataset' and n == n_images and n > 0").set_index("label")
    assert len(main) >= 2
    assert main["decided_share"].max() > 0.2
    expected = main["decided_share"].to_numpy(np.float64)
    np.testing.assert_allclose(found.loc[main.index, "mean"].to_numpy(np.float64), expected)
    assert (found.loc[main.index, "count"] == main["n"]).all()


def test_worst_and_best_are_what_they_say(run: AuditRun) -> None:
    thumbs = pd.read_parquet(run.path / "thumbs.parquet")
    shares = run.samples.set_index("sample_id")["background_share"]
    for label, chosen in thumbs[thumbs["label"] >= 0].groupby("label"):
        of_class = run.samples.loc[run.samples["label"] == label, "background_share"].dropna()
        worst = chosen[chosen["section"] == "worst"].sort_values("rank")["sample_id"]
        best = chosen[chosen["section"] == "best"].sort_values("rank")["sample_id"]
        assert shares[worst].tolist() == sorted(of_class, reverse=True)[:TILES]
        assert shares[best].tolist() == sorted(of_class)[:TILES]


def test_heatmap_is_the_stored_map_at_image_size(run: AuditRun) -> None:
    sample = run.samples.iloc[7]
    heatmap = run.heatmap(sample["sample_id"])
    assert heatmap.shape == (32, 32)
    assert heatmap.min() >= 0
    assert heatmap.max() == 1
    expected = enlarge_map(sample["map"], (8, 8), (32, 32))
    np.testing.assert_array_equal(heatmap, expected)
    with pytest.raises(UsageError, match="no sample 'nobody'"):
        run.heatmap("nobody")


def test_load_run_finds_the_newest_complete_run(run: AuditRun, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no complete run"):
        load_run(tmp_path)
    older = shutil.copytree(run.path, tmp_path / run.path.relative_to(run.path.parents[2]))
    assert load_run(tmp_path).path == older
    assert load_run(str(older)).manifest == run.manifest
    newer = run_audit(dataset="demo", limit=30, edits="none", grids=False, out=tmp_path)
    assert load_run(tmp_path).path == newer.path
    (newer.path / "classes.parquet").unlink()
    assert load_run(tmp_path).path == older
    with pytest.raises(UsageError, match="not whole"):
        load_run(newer.path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b\\c", "", "日本語", "x" * 300, "a\0b\n"])
def test_any_class_name_gives_a_safe_file_name(name: str) -> None:
    file = class_sheet(3, name)
    assert file.startswith("class-0003-")
    assert set(file) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
    assert len(file) < 80


def test_column_documentation_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "reports" / "README.md"
    text = path.read_text(encoding="utf-8")
    assert refresh(text) == text, "run: make docs"


def test_colours_and_outlines() -> None:
    ends = jet(np.array([[0.0, 1.0]], np.float32))
    assert ends[0, 0].argmax() == 2  # blue
    assert ends[0, 1].argmax() == 0  # red
    grey = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[3:6, 3:6] = 255
    drawn = outline(grey, mask)
    assert (drawn[3, 3] == 255).all()
    assert (drawn[0, 0] == 100).all()
