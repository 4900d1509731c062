"""Resident memory over a long run: the same step, many batches.

python -m benchmarks.memory [--batches 3000]
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from audit.explaining import Explainer
from audit.models import build, cut, evaluation, plain_kernels
from audit.models.tap import Way
from audit.score.masks import Masks
from audit.step import AuditStep, status_code
from benchmarks.asking import about, parser, settled
from benchmarks.results import keep

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def run(batches: int, *, way: Way, samples: int = 20) -> list[int]:
    """Resident memory at evenly spaced moments of a run, after a tenth of it to warm up.

    Args:
        batches: How many.
        way: How the network is cut.
        samples: How many moments.
    """
    model = build("resnet20", 10)
    measured: list[int] = []
    with evaluation(model), plain_kernels():
        parts = cut(model, (32, 32), way=way)
        explainer = Explainer(parts, mean=(0.5,) * 3, std=(0.2,) * 3, methods=("hirescam",))
        step = AuditStep(explainer, image_size=(32, 32))
        warm = batches // 10
        every = max(1, (batches - warm) // samples)
        images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        labels, index = torch.arange(8), torch.arange(8)
        mask = torch.zeros(8, 32, 32)
        mask[:, 8:20, 8:20] = 1
        given = torch.full((8,), status_code("ok"))
        for batch in range(batches):
            step(images, labels, Masks(main=mask), given, index)
            if batch >= warm and (batch - warm) % every == 0:
                gc.collect()
                measured.append(resident())
    return measured


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the growth for either way of cutting."""
    made = parser(__doc__)
    made.add_argument("--batches", type=int, default=3000)
    asked = settled(made, arguments)
    count = 60 if asked.quick else asked.batches
    shared = about(asked, "growth", "batches", f"resnet20, {count:,} batches of 8")
    ways: tuple[Way, ...] = ("graph", "hooks")
    rows = []
    for way in ways:
        measured = run(count, way=way)
        for when, size in (("at first", measured[0]), ("at last", measured[-1])):
            over = size / measured[0]
            rows.append(
                shared.row(
                    f"cut by {way}: memory {when}", value=size / 2**20, unit="MiB", ratio=over,
                    ratio_low=over, ratio_high=over,
                )
            )  # fmt: skip
    keep(rows, asked.keep)


if __name__ == "__main__":
    main()
