"""Precisions: what is offered where, and how little they change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from audit import run_audit
from audit.config import load_config
from audit.errors import ConfigError, UsageError
from audit.inference.deciding import operations, pays_to_compile
from audit.inference.precision import can_compute, computing, settle_precision
from audit.inputs import open_inputs
from audit.models import build, cut
from audit.viewing import Run
from tests.conftest import real_data

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"edits": "none", "grids": False, "workers": 0, "device": "cpu"}
# Largest differences to float32 that are allowed: bounds of docs/inference.md.
LEAST_EQUAL = 0.99
MOST = {"background_share": 0.05, "kappa": 0.1}
MEAN_MOST = {"background_share": 0.005, "kappa": 0.008}
LOGITS = ("object_logit", "near_logit", "far_logit", "bias_logit")


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_audit(dataset="demo", limit=120, out=tmp_path_factory.mktemp("a"), **SMALL)


def check_near(lower: pd.DataFrame, exact: pd.DataFrame) -> None:
    same = lower["predicted"].to_numpy() == exact["predicted"].to_numpy()
    assert same.mean() >= LEAST_EQUAL
    assert not np.array_equal(lower["kappa"].to_numpy(), exact["kappa"].to_numpy())
    for name, most in MOST.items():
        gaps = (lower[name] - exact[name]).abs()[same]
        assert gaps.max() <= most and gaps.mean() <= MEAN_MOST[name], (name, gaps.describe())
    scale = exact[list(LOGITS)].abs().to_numpy()
    scale = np.nanmax(scale, axis=1)
    for name in LOGITS:
        gaps = ((lower[name] - exact[name]).abs() / scale)[same]
        assert gaps.max() <= 0.25 and gaps.mean() <= 0.02, (name, gaps.describe())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_changes_little(precision: str, exact: Run, tmp_path: Path) -> None:
    lower = run_audit(dataset="demo", limit=120, out=tmp_path, precision=precision, **SMALL)
    assert lower.manifest["config"]["precision"] == precision
    assert lower.manifest["run_id"] != exact.manifest["run_id"]
    check_near(lower.samples, exact.samples)


@pytest.mark.data
def test_bf16_changes_little_on_cifar(tmp_path: Path) -> None:
    given = SMALL | {"dataset": "cifar10", "data_root": real_data("cifar10").parent, "limit": 300}
    frames = [
        run_audit(out=tmp_path, precision=each, **given).samples for each in ("bf16", "float32")
    ]
    check_near(*frames)


def test_bf16_rows_depend_on_batches_and_parts_as_little(tmp_path: Path) -> None:
    given = SMALL | {"dataset": "demo", "limit": 60, "precision": "bf16", "out": tmp_path}
    first = run_audit(**given, batch_size=20).samples
    for other in ({"batch_size": 33}, {"batch_size": 20, "shard_size": 25}):
        again = run_audit(**given, **other).samples
        assert (again["predicted"] == first["predicted"]).all()
        for name in ("background_share", "kappa", *LOGITS):
            np.testing.assert_allclose(again[name], first[name], rtol=1e-5, atol=1e-5)


def test_what_a_device_lacks_is_refused(tmp_path: Path) -> None:
    assert not can_compute("tf32", CPU)
    with pytest.raises(UsageError, match="tf32") as refused:
        open_inputs(load_config(None, {"precision": "tf32", "device": "cpu", "out": tmp_path}))
    assert refused.value.exit_code == 2 and "--precision auto" in (refused.value.remedy or "")
    with pytest.raises(ConfigError, match="precision"):
        load_config(None, {"precision": "double"})


def test_auto_is_settled_once_by_what_the_device_is(tmp_path: Path) -> None:
    known = settle_precision("auto", CPU)
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert known == ("bf16" if fast else "float32")
    settings = {"dataset": "demo", "limit": 20, "device": "cpu", "out": tmp_path}
    opened = open_inputs(load_config(None, settings | {"precision": "auto"}))
    plain = open_inputs(load_config(None, settings | {"precision": known}))
    assert opened.config.precision == opened.plan.config["precision"] == known
    assert opened.run_id == plain.run_id


def test_the_callers_modes_are_as_before() -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with computing("tf32", CPU):
        assert torch.backends.cudnn.allow_tf32 and torch.backends.cuda.matmul.allow_tf32
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    with computing("bf16", CPU):
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_compiling_is_for_long_runs() -> None:
    backbone = cut(build("cnn", 10), (32, 32)).backbone

    def pays(wanted: Any, samples: int, device: str = "cuda") -> bool:
        return pays_to_compile(
            wanted, backbone, samples=samples, image_size=(32, 32), device=torch.device(device)
        )

    assert [pays("auto", n) for n in (200, 10_000, 10**10)] == [False, False, True]
    assert not pays("auto", 10**10, "cpu")
    assert pays("always", 1, "cpu") and not pays("never", 10**10)


def test_operations_are_counted() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
    # Each of 16×16×8 sums has 27 products.
    assert operations(network, (16, 16)) == 2 * 16 * 16 * 8 * 27
