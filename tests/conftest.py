from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import audit.models.sources
from audit import run_audit
from audit.cli import main
from audit.data.demo import open_demo
from audit.explaining import Explainer
from audit.models import Cut, Request, Wanted, build, cut, open_classifier
from audit.step import AuditStep
from audit.viewing import Run

# Ray would turn its tokens on in the process that starts a cluster, and leave them on for the next.
os.environ["RAY_AUTH_MODE"] = "disabled"

REAL_DATA = Path(os.environ.get("AUDIT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def real_data(name: str) -> Path:
    """A folder of real data; skips the test where it is not at hand."""
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"needs the real data '{name}': set AUDIT_TEST_DATA to a folder that holds it")
    return path


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    # Two processes of one thread, or one of two.
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture(scope="session")
def demo_step() -> AuditStep:
    """The shipped demo model as a step, without donors."""
    return make_step("cnn", "demo")


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """200 images of the demo, audited once for all who only look at the run."""
    with _for_all(tmp_path_factory) as out:
        return run_audit(dataset="demo", limit=200, out=out)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Likewise 80 images without edits."""
    with _for_all(tmp_path_factory) as out:
        return run_audit(dataset="demo", limit=80, edits="none", out=out)


@contextmanager
def _for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all processes of these tests share; each waits for what another makes."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield out


def make_step(architecture: str, dataset: str, **settings: Any) -> AuditStep:
    classes = open_demo("test").classes if dataset == "demo" else CIFAR10
    classifier = open_classifier(
        Request(model=architecture, dataset=dataset, num_classes=len(classes)),
        Wanted(classes=classes, native_size=(32, 32)),
    )
    explainer = Explainer(
        cut(classifier.module, (32, 32)), mean=classifier.mean, std=classifier.std
    )
    return AuditStep(explainer, image_size=(32, 32), **settings)


CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
)  # fmt: skip

ARCHITECTURES = ("cnn", "cnn-se", "resnet20")


def random_model(architecture: str, seed: int = 0) -> torch.nn.Module:
    """Random weights with batch-norm statistics that are not the identity."""
    torch.manual_seed(seed)
    model = build(architecture, 10)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("bias", "running_mean")):
                tensor.normal_(0, 0.2)
    return model.eval().requires_grad_(False)


def random_cut(architecture: str) -> Cut:
    return cut(random_model(architecture), (32, 32))


@pytest.fixture
def no_shipped_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(audit.models.sources, "WEIGHTS", tmp_path)


@pytest.fixture
def audit_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same command in this process, which spares the start of a new one."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["audit", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(left.value.code or 0), said.out, said.err)

    return run
