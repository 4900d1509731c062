"""Memory and hooks over many batches."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor, nn

from audit.explaining import Explainer
from audit.models import cut
from audit.models.tap import Way
from benchmarks.memory import run
from tests.conftest import random_model


@pytest.mark.parametrize("way", ["graph", "hooks"])
def test_resident_memory_is_flat(way: Way) -> None:
    measured = run(100, way=way, samples=10)
    assert max(measured) / measured[0] < 1.01


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("way", ["graph", "hooks"])
def test_no_hook_stays_after_use_or_after_an_exception(way: Way) -> None:
    model = random_model("resnet20")
    parts = cut(model, (32, 32), way=way)
    explainer = Explainer(parts, mean=(0.5,) * 3, std=(0.2,) * 3, methods=("gradcam",))
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    explainer(images, lambda logits: logits.argmax(dim=1, keepdim=True))
    assert hooks_of(model) == 0

    def fail(logits: Tensor) -> Tensor:
        raise ValueError("no class")

    with pytest.raises(ValueError, match="no class"):
        explainer(images, fail)
    with pytest.raises(RuntimeError):
        explainer.network(torch.zeros(2, 1, 32, 32))
    with pytest.raises(RuntimeError):
        parts.head(torch.zeros(2, 7, 8, 8))
    assert hooks_of(model) == 0
    gc.collect()
    assert all(p.grad is None for p in model.parameters())
