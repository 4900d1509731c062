from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from audit.cam import Resampler, bilinear_matrix, to_image

SIZES = [
    ((32, 32), (8, 8)),
    ((32, 48), (4, 6)),
    ((224, 224), (7, 7)),
    ((33, 50), (7, 9)),
    ((8, 8), (8, 8)),
]


@pytest.mark.parametrize(("image", "grid"), SIZES)
def test_sums_on_the_grid_equal_sums_over_upsampled_pixels(
    image: tuple[int, int], grid: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    maps, masks = torch.rand(5, *grid), (torch.rand(5, *image) > 0.6).float()
    resampler = Resampler.between(image, grid)
    on_grid = (resampler.weight * maps * resampler.to_grid(masks)).sum(dim=(1, 2))
    exact = F.interpolate(maps.double()[:, None], size=image, mode="bilinear", align_corners=False)[
        :, 0
    ]
    torch.testing.assert_close(on_grid.double(), (exact * masks).sum(dim=(1, 2)), rtol=2e-6, atol=0)


def test_whole_ratios_give_every_cell_the_same_weight() -> None:
    weight = Resampler.between((32, 32), (8, 8)).weight
    torch.testing.assert_close(weight, torch.full((8, 8), 16.0))


def test_matrix_equals_upsampling() -> None:
    values = torch.rand(7)
    up = F.interpolate(values[None, None], size=33, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(bilinear_matrix(33, 7) @ values, up)


def test_upsampling_equals_opencv() -> None:
    grid = torch.rand(1, 8, 8)
    ours = to_image(grid, (32, 32))[0].numpy()
    theirs = cv2.resize(grid[0].numpy(), (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_full_mask_fills_every_cell() -> None:
    on_grid = Resampler.between((33, 50), (7, 9)).to_grid(torch.ones(1, 33, 50))
    torch.testing.assert_close(on_grid, torch.ones(1, 7, 9))
