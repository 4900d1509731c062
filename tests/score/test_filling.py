"""What stands where pixels were removed holds nothing of them."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, maximum_filter

from audit.run.edit_rows import FILLS as FILLS_OF_ROWS
from audit.score.filling import FILLS, blurred, clouds, hole, pyramid, without


def test_rows_name_the_same_fills() -> None:
    assert FILLS == FILLS_OF_ROWS


def test_blur_is_scipys_far_from_the_border() -> None:
    images = torch.rand(1, 1, 41, 41, dtype=torch.float64)
    expected = gaussian_filter(images[0, 0].numpy(), 2.0, truncate=8)
    assert blurred(images, 2.0)[0, 0, 17:24, 17:24].numpy() == pytest.approx(
        expected[17:24, 17:24], abs=1e-9
    )


def test_a_constant_image_is_filled_with_itself() -> None:
    images = torch.full((2, 3, 9, 13), 77.0)
    gap = torch.zeros(2, 9, 13, dtype=torch.bool)
    gap[:, 2:7, 3:11] = True
    assert torch.allclose(without(images, gap), images)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (32, 32)])
def test_the_fill_does_not_depend_on_what_was_removed(size: tuple[int, int]) -> None:
    images = 255 * torch.rand(3, 3, *size)
    gap = torch.rand(3, *size) < 0.4
    other = torch.where(gap[:, None], torch.rand_like(images), images)
    assert torch.equal(without(images, gap), without(other, gap))
    kept = (~gap)[:, None].expand_as(images)
    assert torch.equal(without(images, gap)[kept], images[kept])


def test_nothing_but_a_hole_is_grey() -> None:
    gap = torch.ones(1, 4, 4, dtype=torch.bool)
    assert without(torch.rand(1, 3, 4, 4), gap).unique().tolist() == [127.5]


@pytest.mark.parametrize(("side", "reach"), [(32, 1), (64, 1), (224, 4)])
def test_a_hole_is_the_mask_and_its_rim(side: int, reach: int) -> None:
    removed = (torch.rand(2, side, side) < 0.02).float()
    expected = np.stack(
        [maximum_filter(m, 2 * reach + 1, mode="constant") for m in removed.numpy()]
    )
    assert np.array_equal(hole(removed).numpy(), expected >= 0.5)


def test_clouds_span_the_range_and_differ() -> None:
    first, again, other = clouds(4, (16, 24), 1), clouds(4, (16, 24), 1), clouds(4, (16, 24), 2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.allclose(first.amin(dim=(2, 3)), torch.zeros(4, 3), atol=1e-3)
    assert torch.allclose(first.amax(dim=(2, 3)), torch.full((4, 3), 255.0), atol=1e-3)


def test_pyramid_takes_the_mean_of_what_surrounds() -> None:
    known = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]])
    values = torch.tensor([[[[2.0, 4.0, 9.0, 9.0], [2.0, 4.0, 9.0, 9.0]]]])
    filled = pyramid(values * known, known)
    assert filled[..., :2].tolist() == values[..., :2].tolist()
    assert filled[..., 2:].unique().tolist() == [3.0]
