"""Compiled where that works, as it is where it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.inference import FastBackbone, compiled
from audit.inference.compiling import Compiled, difference
from tests.conftest import random_cut


def work(x: Tensor) -> dict[str, Tensor]:
    return {"sum": x.sum(dim=1), "best": x.argmax(dim=1)}


def test_it_gives_the_same_once_and_again() -> None:
    told: list[str] = []
    fast = compiled(work, name="sums", tell=told.append)
    for seed in range(2):
        x = torch.randn(8, 100, generator=torch.Generator().manual_seed(seed))
        assert difference(fast(x), work(x)) < 1e-5  # type: ignore[operator]
    assert isinstance(fast, Compiled)
    assert told == [] or "no C++ compiler" in told[0]


def test_other_shapes_are_computed_as_they_are() -> None:
    calls: list[int] = []

    def counted(x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            calls.append(len(x))
        return x * 2

    fast = compiled(counted, name="double", tell=lambda _: None)
    fast(torch.ones(4))
    calls.clear()
    assert fast(torch.ones(5)).tolist() == [2.0] * 5
    assert calls == [5]


def test_what_cannot_be_compiled_is_told_once() -> None:
    def dynamic(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    told: list[str] = []
    fast = compiled(dynamic, name="size", tell=told.append)
    for _ in range(3):
        assert fast(torch.ones(3)).tolist() == [1.0] * 3
    assert len(told) == 1 and told[0].startswith("the size is computed without being compiled: ")
    assert "\n" not in told[0]


def test_wrong_results_are_never_used() -> None:
    def depends(x: Tensor) -> Tensor:
        return x + 1 if torch.compiler.is_compiling() else x

    told: list[str] = []
    fast = compiled(depends, name="sum", tell=told.append)
    for _ in range(2):
        assert fast(torch.ones(3)).tolist() == [1.0] * 3
    assert len(told) == 1
    assert "off by" in told[0] or "no C++ compiler" in told[0]


_ALONE = """
import torch
from audit.inference import compiled
told = []
fast = compiled(lambda x: x.sin() + 1, name="sines", tell=told.append)
assert torch.equal(fast(torch.zeros(3)), torch.ones(3))
assert torch.equal(fast(torch.zeros(3)), torch.ones(3))
print(told)
"""


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"CXX": "/nowhere/g++"}, "no C++ compiler that works"),
        ({"TORCHINDUCTOR_CACHE_DIR": "/proc/nowhere"}, "cannot be kept"),
    ],
)
def test_a_machine_that_cannot_compile(settings: dict[str, str], why: str, tmp_path: Path) -> None:
    folder = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _ALONE],
        env=folder | settings,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert why in done.stdout


def test_compilers_are_loaded_only_when_they_are_wanted() -> None:
    code = (
        "import sys, audit.work, audit.inference; "
        "sys.exit(any(m.startswith(('torch._inductor', 'torch._dynamo')) for m in sys.modules))"
    )
    loaded = "import sys, torch, torchvision; sys.exit('torch._dynamo' in sys.modules)"
    if subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0:
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_compiled_backbone_takes_smaller_and_larger_batches() -> None:
    parts = random_cut("cnn")
    told: list[str] = []
    mean, std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    plain = FastBackbone(parts.backbone, mean=mean, std=std)
    fast = FastBackbone(parts.backbone, mean=mean, std=std, compiled=True, tell=told.append)
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    for size in (12, 5, 20):
        (found,), (wanted,) = fast(images[:size]), plain(images[:size])
        assert found.shape == wanted.shape
        assert difference(found, wanted) < 1e-4  # type: ignore[operator]
    assert told == [] or "no C++ compiler" in told[0]


@pytest.mark.parametrize(
    ("found", "wanted", "gap"),
    [
        ((torch.ones(2), torch.tensor([1])), (torch.ones(2), torch.tensor([1])), 0.0),
        ([torch.tensor([3])], [torch.tensor([2])], float("inf")),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, torch.nan]), 0.0),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, torch.nan]), float("inf")),
        (torch.ones(2), torch.ones(3), None),
        ({"a": torch.ones(1)}, {"b": torch.ones(1)}, None),
        (torch.tensor([1.0, 4.0]), torch.tensor([2.0, 4.0]), 0.25),
        (torch.zeros(2), torch.zeros(2), 0.0),
    ],
)
def test_difference(found: object, wanted: object, gap: float | None) -> None:
    assert difference(found, wanted) == gap
