"""A network that costs next to nothing, so that what is measured is the audit."""

from __future__ import annotations

import torch
from torch import nn


def tiny(classes: int) -> nn.Module:
    """Two convolutions, pooling and a linear layer, for 32×32."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 64, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes),
    )  # fmt: skip


# What `--model benchmarks.tiny:NAME` audits.
def ten_classes() -> nn.Module:
    """With 10 outputs."""
    return tiny(10)


def thousand_classes() -> nn.Module:
    """With 1,000 outputs."""
    return tiny(1000)
