"""``--method a,b``, ``--faithfulness`` and ``--sanity`` through whole runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audit import load_run, run_audit
from audit.errors import UsageError
from audit.run.rows import FAITHFULNESS_COLUMNS
from audit.tables import AuditRun

LIMIT = 24
METHODS = ("hirescam", "gradcam++", "eigencam", "scorecam")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    return run_audit(
        dataset="demo",
        limit=LIMIT,
        method=METHODS,
        faithfulness=True,
        sanity=True,
        edits="none",
        grids=False,
        out=tmp_path_factory.mktemp("reports"),
    )


def test_a_second_method_fills_the_columns_that_it_would_fill_alone(
    run: AuditRun, tmp_path: Path
) -> None:
    alone = run_audit(
        dataset="demo", limit=LIMIT, method="gradcam++", edits="none", grids=False, out=tmp_path
    ).samples
    for name in ("object_share", "kappa", "pointing_hit", "iou_50", "effective_cells"):
        np.testing.assert_allclose(run.samples[f"gradcampp_{name}"], alone[name], atol=1e-5)
    ours = np.stack(list(run.samples["gradcampp_map"])).astype(float)
    np.testing.assert_allclose(ours, np.stack(list(alone["map"])).astype(float), atol=1e-3)
    main = run_audit(dataset="demo", limit=LIMIT, edits="none", grids=False, out=tmp_path).samples
    pd.testing.assert_frame_equal(run.samples[list(main.columns)], main, rtol=1e-4, atol=1e-5)


def test_the_table_of_methods(run: AuditRun) -> None:
    methods = run.methods.set_index("method")
    assert list(methods.index) == list(METHODS)
    assert (methods["n"] > 18).all()
    assert methods.loc["hirescam", "share_correlation"] == pytest.approx(1)
    assert methods.loc["hirescam", "map_correlation"] == pytest.approx(1)
    assert methods.loc["scorecam", "map_correlation"] < 0.999
    expected = run.samples["eigencam_background_share"].mean()
    assert methods.loc["eigencam", "background_share"] == pytest.approx(expected)
    # A classifier's own gradients tell more of it than the channels' first component.
    assert methods.loc["hirescam", "road"] > methods.loc["eigencam", "road"]


def test_faithfulness_is_scored_for_every_method(run: AuditRun) -> None:
    for prefix in ("", "gradcampp_", "eigencam_", "scorecam_"):
        for column in FAITHFULNESS_COLUMNS:
            values = run.samples[prefix + column.name].dropna()
            assert len(values) > 18
            low = -1 if column.name == "road" else 0
            assert values.between(low, 1).all(), column.name


def test_sanity_is_added_to_a_run_that_is_complete(run: AuditRun, tmp_path: Path) -> None:
    sanity = pd.read_parquet(run.path / "sanity.parquet")
    assert set(sanity["method"]) == set(METHODS)
    assert sanity.groupby("method")["share"].last().eq(1).all()
    settings = {"dataset": "demo", "limit": 30, "edits": "none", "grids": False, "out": tmp_path}
    plain = run_audit(**settings)
    assert not (plain.path / "sanity.parquet").exists()
    part = plain.path / "samples" / "part-000000.parquet"
    before = part.stat().st_mtime_ns
    checked = run_audit(**settings, sanity=True)
    assert checked.path == plain.path
    assert (plain.path / "sanity.parquet").exists()
    assert part.stat().st_mtime_ns == before
    assert not load_run(plain.path).sanity.empty
    with pytest.raises(UsageError, match="has no methods"):
        _ = checked.methods


def test_the_page_compares_methods(run: AuditRun) -> None:
    page = (run.path / "index.html").read_text(encoding="utf-8")
    assert "Ways of making heatmaps" in page
    assert "Do the heatmaps follow the model?" in page
    assert all(method in page for method in METHODS)


def test_batches_change_no_method(run: AuditRun, tmp_path: Path) -> None:
    small = run_audit(
        dataset="demo",
        limit=LIMIT,
        method=METHODS,
        faithfulness=True,
        batch_size=7,
        edits="none",
        grids=False,
        out=tmp_path,
    )
    for name in run.samples.columns:
        ours, theirs = run.samples[name], small.samples[name]
        if ours.dtype.kind == "f":
            # Curves of probabilities pass through fifty rounded operations more than a share.
            np.testing.assert_allclose(ours, theirs, atol=2e-4, err_msg=name)


def test_layers_are_fused_and_smoothed_through_a_run(tmp_path: Path) -> None:
    run = run_audit(
        dataset="demo",
        limit=30,
        method="layercam",
        target_layer="features.1.2,features.2.2",
        smooth="flip",
        edits="none",
        grids=False,
        out=tmp_path,
    )
    assert run.manifest["grid"] == [16, 16]
    assert run.manifest["layer"] == "features.1.2 + features.2.2"
    assert run.samples["map"].dropna().map(len).eq(256).all()
    assert run.samples["background_share"].between(0, 1).all()
    total = run.samples[[f"{p}_logit" for p in ("object", "near", "far", "bias")]].sum(axis=1)
    np.testing.assert_allclose(total, run.samples["target_logit"], atol=1e-2)
    assert run.heatmap(run.samples["sample_id"][0]).shape == (32, 32)
