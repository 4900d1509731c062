"""The same rows whatever the batch size, the shard size or the order of work."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from audit import load_run, run_audit
from audit.run.rows import SAMPLE_COLUMNS
from audit.tables import AuditRun
from tests.conftest import random_model, real_data
from tests.data.making import image_folder

# One step of half precision just below 1: a rounding that falls the other way.
HALF_STEP = 2.0**-11
# Images of the runs that are compared.
LIMIT = 160


def assert_same_rows(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert len(one) == len(other)
    for column in SAMPLE_COLUMNS:
        kind, a, b = str(column.type), one[column.name], other[column.name]
        assert (a.isna() == b.isna()).all(), column.name
        a, b = a.dropna(), b.dropna()
        if "list" in kind and len(a):
            x, y = np.stack(a.to_list()), np.stack(b.to_list())
            if x.dtype.kind == "f":
                bound = HALF_STEP if x.dtype == np.float16 else 1e-5
                worst = np.abs(x.astype(np.float64) - y.astype(np.float64)).max()
                assert worst <= bound, (column.name, worst)
            else:
                assert (x == y).all(), column.name
        elif kind == "float":
            x, y = a.to_numpy(np.float64), b.to_numpy(np.float64)
            worst = (np.abs(x - y) / np.maximum(1, np.abs(x))).max(initial=0)
            assert worst <= 1e-5, (column.name, worst)
        else:
            assert (a.astype(str) == b.astype(str)).all(), column.name


def digests(run: AuditRun, pattern: str) -> dict[str, str]:
    return {
        str(path.relative_to(run.path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.path.rglob(pattern))
    }


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("invariance")


@pytest.fixture(scope="module")
def baseline(out: Path) -> AuditRun:
    return run_audit(dataset="demo", limit=LIMIT, out=out, masks="estimated")


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1, "limit": 40},
        {"batch_size": 7},
        {"shard_size": 37},
        {"shard_size": 1, "limit": 40},
    ],
)
def test_rows_do_not_depend_on_batches_or_shards(
    settings: dict[str, int], baseline: AuditRun, out: Path
) -> None:
    expected = baseline
    if "limit" in settings:
        wanted = {"masks": "estimated", "edits": "none", "grids": False, "limit": settings["limit"]}
        expected = run_audit(dataset="demo", out=out, **wanted)
    same = {
        "dataset": "demo",
        "limit": LIMIT,
        "masks": "estimated",
        "edits": "none",
        "grids": False,
    }
    run = run_audit(**(same | settings), out=out)
    assert run.path != expected.path
    assert_same_rows(expected.samples, run.samples)


@pytest.mark.parametrize("model", ["cnn", "cnn-se"])
def test_rows_of_cifar10_do_not_depend_on_batches(model: str, out: Path) -> None:
    settings = {
        "dataset": "cifar10",
        "data_root": real_data("cifar10"),
        "model": model,
        "limit": 300,
        "edits": "none",
        "grids": False,
        "out": out,
    }
    runs = [run_audit(**settings, batch_size=size) for size in (7, 256)]
    assert_same_rows(runs[0].samples, runs[1].samples)


def test_nothing_changed_gives_the_same_bytes(baseline: AuditRun, tmp_path: Path) -> None:
    again = run_audit(dataset="demo", limit=LIMIT, out=tmp_path, masks="estimated")
    assert again.path.name == baseline.path.name
    assert digests(again, "*.parquet") == digests(baseline, "*.parquet")
    assert digests(again, "*.png") == digests(baseline, "*.png")


def test_a_finished_run_is_not_computed_again(baseline: AuditRun, out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in baseline.path.rglob("*")}
    again = run_audit(dataset="demo", limit=LIMIT, out=out, masks="estimated")
    assert again.path == baseline.path
    assert {path: path.stat().st_mtime_ns for path in baseline.path.rglob("*")} == before


def test_a_damaged_part_is_found_and_mended(out: Path) -> None:
    settings = {"dataset": "demo", "limit": 120, "shard_size": 40, "grids": False, "out": out}
    run = run_audit(**settings)
    expected = digests(run, "*.parquet")
    part = run.path / "samples" / "part-000001.parquet"
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    part.write_bytes(damaged)
    (run.path / "samples" / "_part-000002.json").unlink()
    untouched = run.path / "samples" / "part-000000.parquet"
    before = untouched.stat().st_mtime_ns
    assert digests(run_audit(**settings), "*.parquet") == expected
    assert untouched.stat().st_mtime_ns == before


def test_tables_and_pictures_are_made_anew_when_their_code_changes(
    baseline: AuditRun, tmp_path: Path
) -> None:
    settings = {"dataset": "demo", "limit": LIMIT, "masks": "estimated", "out": tmp_path}
    place = baseline.path.relative_to(baseline.path.parents[2])
    run = load_run(shutil.copytree(baseline.path, tmp_path / place))
    part = run.path / "samples" / "part-000000.parquet"
    before = part.stat().st_mtime_ns
    manifest = json.loads((run.path / "manifest.json").read_text())
    manifest["report_code"] = "of another version"
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    (run.path / "grids" / "stale.png").write_bytes(b"")
    again = run_audit(**settings)
    assert again.path == run.path
    assert again.manifest["report_code"] == baseline.manifest["report_code"]
    assert not (run.path / "grids" / "stale.png").exists()
    assert part.stat().st_mtime_ns == before


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    image_folder(tmp_path / "images", {f"class-{k}": 4 for k in range(10)})
    torch.save(random_model("cnn").state_dict(), tmp_path / "model.pth")
    settings = {
        "dataset": f"folder:{tmp_path}/images",
        "checkpoint": tmp_path / "model.pth",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
        "shard_size": 15,
        "grids": False,
    }
    runs = [run_audit(**settings, workers=w, out=tmp_path / str(w)) for w in (0, 2)]
    assert digests(runs[0], "*.parquet") == digests(runs[1], "*.parquet")


@pytest.mark.parametrize(("method", "target"), [("gradcam", "predicted"), ("channels", "label")])
def test_every_method_and_target_makes_a_run(method: str, target: str, out: Path) -> None:
    run = run_audit(
        dataset="demo", limit=40, method=method, target=target, edits="none", grids=False, out=out
    )
    assert run.samples["background_share"].notna().any()
    if target == "label":
        assert (run.samples["target"] == run.samples["label"]).all()


def test_cam_on_a_pooled_linear_head(tmp_path: Path, out: Path) -> None:
    torch.save(random_model("resnet20").state_dict(), tmp_path / "model.pth")
    settings = {
        "dataset": "demo",
        "model": "resnet20",
        "limit": 40,
        "edits": "none",
        "grids": False,
        "out": out,
    }
    settings |= {"checkpoint": tmp_path / "model.pth", "mean": (0.5,) * 3, "std": (0.2,) * 3}
    by_cam, by_hirescam = (run_audit(**settings, method=m) for m in ("cam", "hirescam"))
    np.testing.assert_allclose(
        by_cam.samples["background_share"], by_hirescam.samples["background_share"], atol=1e-5
    )
