"""Resident memory over a long run: the same step, many batches."""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

import torch

from audit.explaining import Explainer
from audit.models import build, cut, evaluation, plain_kernels
from audit.models.tap import Way
from audit.score.masks import Masks
from audit.step import AuditStep, status_code

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


def main() -> None:
    """Print the growth for either way of cutting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=10_000)
    settings = parser.parse_args()
    ways: tuple[Way, ...] = ("graph", "hooks")
    for way in ways:
        measured = run(settings.batches, way=way)
        growth = measured[-1] / measured[0] - 1
        span = max(measured) / min(measured) - 1
        print(
            f"{way}: {settings.batches:,} batches, {measured[0] / 2**20:.0f} MiB at first, "
            f"{measured[-1] / 2**20:.0f} MiB at last ({growth:+.2%}; span {span:.2%})"
        )


if __name__ == "__main__":
    main()
