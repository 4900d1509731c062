"""How good and how fast the default mask estimator is, beside simple alternatives.

    python benchmarks/masks.py --data FOLDER     # holds images/<class>/* and masks/<class>/*

Without --data only the speed is measured. Every figure comes from one run of one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from audit.data import MaskFiles, open_split
from audit.data.demo import open_demo
from audit.masks import enlarge, estimate_masks
from audit.masks.barrier import barrier_saliency
from audit.masks.colour import rgb_to_lab
from audit.masks.estimate import WORKING_SIZE, centre_ellipse

Estimator = Callable[[Tensor], Tensor]
SIZES = (32, 224)
BAD = 0.3


def default(images: Tensor) -> Tensor:
    """The product's estimate, with its confidence."""
    return enlarge(estimate_masks(images).variants[:, 0], _size(images)).bool()


def ellipse(images: Tensor) -> Tensor:
    """A centred ellipse, whatever the image shows."""
    grid = (centre_ellipse(0.75) > 0.5).expand(len(images), -1, -1)
    return enlarge(grid, _size(images)).bool()


def barrier(images: Tensor) -> Tensor:
    """Minimum barrier distance above its mean."""
    small = torch.nn.functional.interpolate(
        images.float() / 255, (WORKING_SIZE, WORKING_SIZE), mode="bilinear", antialias=True
    )
    saliency = barrier_saliency(rgb_to_lab(small.clamp(0, 1)))
    return enlarge(saliency > saliency.mean(dim=(1, 2), keepdim=True), _size(images)).bool()


def grabcut(images: Tensor) -> Tensor:
    """OpenCV's GrabCut from a centred rectangle, one image at a time."""
    masks = []
    for image in images.permute(0, 2, 3, 1).numpy():
        height, width = image.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        inside = (width // 8, height // 8, width - width // 4, height - height // 4)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        cv2.grabCut(np.ascontiguousarray(image), mask, inside, *models, 3, cv2.GC_INIT_WITH_RECT)
        masks.append((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD))
    return torch.from_numpy(np.stack(masks))


ESTIMATORS: dict[str, Estimator] = {
    "centre ellipse": ellipse,
    "minimum barrier distance": barrier,
    "GrabCut, centre rectangle": grabcut,
    "**the default**": default,
}


def _size(images: Tensor) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


def overlaps(masks: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union, N."""
    either = (masks | truth).flatten(1).sum(dim=1).clamp_min(1)
    return (masks & truth).flatten(1).sum(dim=1) / either


def quality(data: Path, size: int, estimate: Estimator) -> str:
    """Mean IoU and the share of bad masks, as a table cell."""
    masks = MaskFiles(root=data / "masks")
    split = open_split(f"folder:{data}/images", masks=masks, image_size=size)
    batch = split.__getitems__(range(len(split)))
    assert batch.object_mask is not None
    iou = overlaps(estimate(batch.images), batch.object_mask >= 0.5)
    return f"{iou.mean():.3f} / {(iou < BAD).float().mean():.2f}"


def speed(estimate: Estimator, repeats: int = 5) -> float:
    """Images a second on one core at 32×32, the median of several passes over 512 images."""
    images = open_demo("test").images[:512]
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    estimate(images[:32])
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        estimate(images)
        times.append(time.perf_counter() - started)
    return len(images) / statistics.median(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with images/ and masks/")
    data = parser.parse_args().data
    cells = [f"IoU mean / share below {BAD}, {size} px" for size in SIZES] if data else []
    print("| estimator |", " | ".join([*cells, "images per core-second, 32 px"]), "|")
    print("| --- |", " | ".join(["---"] * (len(cells) + 1)), "|")
    for name, estimate in ESTIMATORS.items():
        found = [quality(data, size, estimate) for size in SIZES] if data else []
        print(f"| {name} |", " | ".join([*found, f"{speed(estimate):,.0f}"]), "|", flush=True)


if __name__ == "__main__":
    main()
