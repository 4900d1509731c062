from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from audit import load_run, run_audit
from audit.errors import UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(dataset="demo", limit=20, out=tmp_path_factory.mktemp("run")).path


def copied(run: Path, folder: Path, seconds: int) -> Path:
    shutil.copytree(run, folder)
    os.utime(folder / "manifest.json", (seconds, seconds))
    return folder


def test_runs_of_benchmarks_are_nobodys(run: Path, tmp_path: Path) -> None:
    reports = tmp_path / "certify" / "reports"
    audited = copied(run, reports / "demo" / "cnn" / "a", 1000)
    planted = copied(run, reports / "certify" / "demo" / "cnn" / "b" / "runs" / "p" / "c", 2000)
    assert load_run(reports).path == audited
    # Asked for by name, or from inside, they open.
    assert load_run(planted).path == planted
    assert load_run(reports / "certify").path == planted
    assert load_run(planted.parents[1]).path == planted
    shutil.rmtree(audited)
    with pytest.raises(UsageError, match="no complete run") as caught:
        load_run(reports)
    assert "certify" in str(caught.value.expected)
