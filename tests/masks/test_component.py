from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import label

from audit.masks.component import central_component


def slow(mask: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The component with the pixel nearest to the centre, but for rings; one by one."""
    size = len(mask)
    parts, count = label(mask)
    y, x = np.mgrid[:size, :size]
    away = (2 * y + 1 - size) ** 2 + (2 * x + 1 - size) ** 2
    middle = slice(size // 2 - 1, size // 2 + 1)
    best = np.zeros_like(mask)
    least = np.inf
    for number in range(1, count + 1):
        part = parts == number
        touches = part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
        if touches and not part[middle, middle].any():
            continue
        here = (away * size * size + y * size + x)[part].min()
        if here < least:
            best, least = part, here
    return best


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.6, 0.8])
@pytest.mark.parametrize("size", [32, 6])
def test_equals_scipy(share: float, size: int) -> None:
    torch.manual_seed(0)
    masks = torch.rand(100, size, size) < share
    found = central_component(masks)
    for mask, part in zip(masks, found, strict=True):
        np.testing.assert_array_equal(part.numpy(), slow(mask.numpy()))


def serpentine() -> torch.Tensor:
    mask = torch.zeros(32, 32).bool()
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    return mask


def spiral() -> torch.Tensor:
    mask = torch.zeros(32, 32).bool()
    y, x, dy, dx = 0, 0, 0, 1
    mask[y, x] = True
    for length in [31, 31, *(n for k in range(29, 0, -2) for n in (k, k))]:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
    return mask


@pytest.mark.parametrize("winding", [serpentine, spiral])
def test_follows_winding_paths_to_their_end(winding: object) -> None:
    mask = winding()  # type: ignore[operator]
    assert label(mask.numpy())[1] == 1
    for turned in (mask, mask.T, mask.flip(0), mask.flip(1)):
        np.testing.assert_array_equal(central_component(turned[None])[0], slow(turned.numpy()))


def test_a_ring_is_background() -> None:
    mask = torch.ones(1, 32, 32).bool()
    mask[:, 2:-2, 2:-2] = False
    assert not central_component(mask).any()
    mask[:, 5:9, 5:9] = True
    assert central_component(mask).sum() == 16


def test_an_object_that_fills_the_picture_is_none() -> None:
    mask = torch.ones(1, 32, 32).bool()
    assert central_component(mask).all()


def test_empty_masks_stay_empty() -> None:
    assert not central_component(torch.zeros(3, 32, 32).bool()).any()
