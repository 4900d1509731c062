"""A dataset and a network for runs that go wrong on demand; copied to where tests work.

The file ``fault`` beside it says what happens: ``kill 137`` kills the process that fetches sample
137, ``raise 137`` raises, ``hang 137`` waits until the fault is taken away, ``slow 0.1`` takes a
while for each batch. Without it all is well.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audit.data.geometry import Geometry
from audit.data.split import ArraySplit, Batch

COUNT = 200
FAULT = Path(__file__).with_name("fault")


class Faulty:
    def __init__(self, split: ArraySplit) -> None:
        self._split = split

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_split"], name)

    def __len__(self) -> int:
        return len(self._split)

    def framed(self, geometry: Geometry) -> Faulty:
        assert geometry.keeps(*self._split.image_size)
        return self

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        what, _, which = FAULT.read_text().partition(" ") if FAULT.exists() else ("", "", "")
        if what == "slow":
            time.sleep(float(which))
        elif what and int(which) in indices:
            if what == "raise":
                raise RuntimeError("a picture of a unicorn")
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            while FAULT.exists():
                time.sleep(0.02)
        return self._split.__getitems__(indices)


def data() -> Faulty:
    draw = torch.Generator().manual_seed(7)
    masks = torch.zeros(COUNT, 16, 16, dtype=torch.uint8)
    masks[:, 4:11, 5:12] = 1
    images = torch.randint(0, 256, (COUNT, 3, 16, 16), generator=draw, dtype=torch.uint8)
    return Faulty(
        ArraySplit(
            name="faulty",
            part="test",
            classes=("left", "right"),
            sample_ids=tuple(f"picture-{i:03d}" for i in range(COUNT)),
            images=images,
            labels=torch.randint(0, 2, (COUNT,), generator=draw),
            masks=masks,
        )
    )


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


class Picky(nn.Module):
    """Fails on more images than it is tried on when it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > 9:
            raise ValueError("ten are one too many")
        logits: torch.Tensor = self.body(images)
        return logits
