from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from audit.data import MaskFiles, open_split
from audit.data.demo import open_demo
from audit.masks import agreement, enlarge, estimate_masks
from audit.masks.barrier import barrier_saliency
from audit.masks.colour import rgb_to_lab
from tests.conftest import real_data


def blob(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """A red disc on green noise, and where it is."""
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = (y - size * 0.55) ** 2 + (x - size * 0.45) ** 2 < (size * 0.25) ** 2
    image = torch.randint(0, 40, (3, size, size)).float()
    image[1] += 150
    image[:, disc] = torch.tensor([[200.0], [30.0], [30.0]])
    return image.to(torch.uint8), disc


def overlap(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", [32, 64, 224])
def test_finds_a_plain_object_at_any_size(size: int) -> None:
    image, disc = blob(size)
    estimate = estimate_masks(image[None])
    mask = enlarge(estimate.variants[:, 0], (size, size))[0].bool()
    assert overlap(mask, disc) > 0.85
    assert estimate.confidence.item() > 0.8


def test_is_better_than_an_ellipse_on_real_crops() -> None:
    root = real_data("coco-crops")
    split = open_split(f"folder:{root}/images", masks=MaskFiles(root=root / "masks"), image_size=32)
    batch = split.__getitems__(range(len(split)))
    assert batch.object_mask is not None
    truth = batch.object_mask >= 0.5
    variants = estimate_masks(batch.images).variants
    shared = (variants[:, 0] & truth).sum(dim=(1, 2))
    iou = shared / (variants[:, 0] | truth).sum(dim=(1, 2)).clamp_min(1)
    assert iou.mean() >= 0.52


def test_does_not_depend_on_the_batch() -> None:
    images = open_demo("test").images[:24]
    together = estimate_masks(images)
    alone = torch.cat([estimate_masks(images[n : n + 1]).variants for n in range(24)])
    assert torch.equal(together.variants, alone)
    assert torch.equal(together.variants, estimate_masks(images).variants)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_constant_image_gives_a_mask_and_finite_confidence(value: int) -> None:
    estimate = estimate_masks(torch.full((2, 3, 32, 32), value, dtype=torch.uint8))
    assert torch.isfinite(estimate.confidence).all()


def test_lab_equals_opencv() -> None:
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 16, 16)
    theirs = cv2.cvtColor(rgb[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
    ours = rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.5)  # OpenCV interpolates a table


def slow_barrier(image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """One sweep down, up, right and left, pixel by pixel, for one channel."""
    height, width = image.shape
    distance = np.full((height, width), np.inf)
    distance[[0, -1], :] = distance[:, [0, -1]] = 0
    high, low = image.copy(), image.copy()

    def visit(y: int, x: int, v: int, u: int) -> None:
        highest, lowest = max(high[v, u], image[y, x]), min(low[v, u], image[y, x])
        if highest - lowest < distance[y, x]:
            distance[y, x], high[y, x], low[y, x] = highest - lowest, highest, lowest

    for y in range(1, height):
        for x in range(width):
            visit(y, x, y - 1, x)
    for y in range(height - 2, -1, -1):
        for x in range(width):
            visit(y, x, y + 1, x)
    for x in range(1, width):
        for y in range(height):
            visit(y, x, y, x - 1)
    for x in range(width - 2, -1, -1):
        for y in range(height):
            visit(y, x, y, x + 1)
    return distance


def test_barrier_equals_a_slow_sweep() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 2, 9, 13, dtype=torch.float64)
    ours = barrier_saliency(images)
    for n in range(3):
        expected = np.mean([slow_barrier(images[n, c].numpy()) for c in range(2)], axis=0)
        np.testing.assert_allclose(ours[n].numpy(), expected / expected.max(), atol=1e-12)


def test_agreement_by_hand() -> None:
    full, half = torch.ones(1, 1, 2, 2).bool(), torch.tensor([[[[1, 1], [0, 0]]]]).bool()
    empty = torch.zeros(1, 1, 2, 2).bool()
    assert agreement(torch.cat([full, half, full], dim=1)).item() == pytest.approx(0.75)
    assert agreement(torch.cat([empty, empty], dim=1)).item() == 1.0
    assert agreement(torch.cat([empty, full], dim=1)).item() == 0.0
