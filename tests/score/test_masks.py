from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from audit.score.contributions import cell_contributions, contributions, regions
from audit.score.masks import LEAST_LEFT, CellMasker, Family, Masks, border_touch, overlap
from tests.conftest import ARCHITECTURES, random_cut


def soft_masks(count: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Object and unknown shares of pixels that add to at most 1."""
    torch.manual_seed(0)
    parts = torch.rand(3, count, *size).pow(3)
    parts = parts / parts.sum(dim=0)
    return parts[0], parts[1]


@pytest.mark.parametrize(
    ("size", "grid"), [((32, 32), (8, 8)), ((30, 46), (7, 5)), ((8, 8), (8, 8))]
)
def test_shares_equal_those_of_upsampled_maps(size: tuple[int, int], grid: tuple[int, int]) -> None:
    main, unknown = soft_masks(4, size)
    other = soft_masks(4, size)[0].flip(1)
    maps = torch.rand(4, *grid)
    others = {"other": Family(mask=other)}
    cells = CellMasker(size, grid)(Masks(main=main, unknown=unknown, others=others))
    found = cells.shares(maps)
    up = F.interpolate(maps[:, None].double(), size=size, mode="bilinear")[:, 0]
    for n in range(4):
        inside = outside = of_other = every = 0.0
        for y in range(size[0]):
            for x in range(size[1]):
                value = up[n, y, x].item()
                inside += value * main[n, y, x].item()
                outside += value * (1 - main[n, y, x].item() - unknown[n, y, x].item())
                known = value * (1 - unknown[n, y, x].item())
                of_other += known * other[n, y, x].item()
                every += known
        assert found[n, 0].item() == pytest.approx(inside / (inside + outside), rel=1e-5)
        assert found[n, 3].item() == pytest.approx(of_other / every, rel=1e-5)
    area = main.mean(dim=(1, 2)) / (1 - unknown.mean(dim=(1, 2)))
    torch.testing.assert_close(cells.areas()[:, 0], area)
    torch.testing.assert_close(Masks(main=main, unknown=unknown).area, area)


def test_two_by_two_by_hand() -> None:
    main = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    unknown = torch.tensor([[[0.0, 0.0], [0.0, 1.0]]])
    cells = CellMasker((2, 2), (2, 2))(Masks(main=main, unknown=unknown))
    share = cells.shares(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))[0, 0]
    assert share.item() == pytest.approx(1 / (1 + 2 + 3))
    assert cells.areas()[0, 0].item() == pytest.approx(1 / 3)
    weights = regions(cells.object[:, 0], cells.unknown[:, 0])[:, 0]
    assert weights.tolist() == [
        [[1, 0], [0, 0]],
        [[0, 1], [1, 0]],
        [[0, 0], [0, 0]],
        [[0, 0], [0, 1]],
    ]


def octagon(radius: int) -> np.ndarray:  # type: ignore[type-arg]
    shape = np.ones((1, 1))
    for step in range(radius):
        grown = np.pad(shape, 1)
        shape = ndimage.grey_dilation(
            grown, footprint=ndimage.generate_binary_structure(2, 2 if step % 2 else 1)
        )
    return shape > 0


def test_the_border_moves_by_one_cell() -> None:
    """Against SciPy's grey morphology, where enough is left on both sides."""
    grid, size = (16, 16), (64, 64)
    y, x = np.mgrid[:64, :64]
    discs = [((y - cy) ** 2 + (x - cx) ** 2 < r * r) * 1.0 for cy, cx, r in
             [(32, 32, 16), (20, 40, 14), (0, 30, 18)]]  # fmt: skip
    main = torch.tensor(np.stack(discs), dtype=torch.float32)
    cells = CellMasker(size, grid)(Masks(main=main))
    fine = F.avg_pool2d(main, 2).numpy()  # two steps to a cell of four pixels
    masker = CellMasker((32, 32), grid)
    for n in range(3):
        shrunk = ndimage.grey_erosion(fine[n], footprint=octagon(2), mode="constant", cval=1)
        grown = ndimage.grey_dilation(fine[n], footprint=octagon(2), mode="constant", cval=0)
        for plane, expected in ((1, shrunk), (2, grown)):
            on_grid = masker.to_grid(torch.tensor(expected)[None])[0]
            torch.testing.assert_close(cells.object[n, plane], on_grid, rtol=0, atol=1e-6)
    width = cells.areas()[0].mul(64 * 64 / np.pi).sqrt()  # the radius of an equal disc
    assert width[0] - width[1] == pytest.approx(4, abs=0.7)
    assert width[2] - width[0] == pytest.approx(4, abs=0.7)


def test_a_quarter_of_object_and_background_is_always_left() -> None:
    torch.manual_seed(1)
    main = (F.interpolate(torch.rand(40, 1, 6, 6), (32, 32), mode="bicubic")[:, 0] > 0.6).float()
    main[0] = 0
    main[0, 15, 15] = 1  # nothing can be taken off a single pixel
    main[1] = 1 - main[0]
    areas = CellMasker((32, 32), (8, 8))(Masks(main=main)).areas()
    assert (areas[:, 1] <= areas[:, 0] + 1e-6).all()
    assert (areas[:, 2] >= areas[:, 0] - 1e-6).all()
    assert (areas[:, 1] >= LEAST_LEFT * areas[:, 0] - 1e-6).all()
    assert (1 - areas[:, 2] >= LEAST_LEFT * (1 - areas[:, 0]) - 1e-6).all()
    assert areas[0, 1] == pytest.approx(areas[0, 0].item())
    assert areas[1, 2] == pytest.approx(areas[1, 0].item())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cells_sum_to_the_contributions_of_regions(architecture: str) -> None:
    parts = random_cut(architecture)
    torch.manual_seed(0)
    features = parts.backbone(torch.randn(5, 3, 32, 32) * 2)[0]
    logits = parts.head(features)
    main, unknown = soft_masks(5, parts.grid)
    weights = regions(main, unknown)
    found = contributions(parts.head, features, logits, weights, biases=parts.biases)
    targets = torch.tensor([0, 3, 1, 9, 4])
    cells = cell_contributions(parts.head, features, targets)
    for weight, part in zip(
        weights, (found.object, found.near, found.far, found.unknown), strict=True
    ):
        expected = part.gather(1, targets[:, None])[:, 0]
        torch.testing.assert_close((weight * cells).sum(dim=(1, 2)), expected, rtol=1e-4, atol=1e-5)


def test_regions_with_unknown_cells_sum_to_one() -> None:
    main, unknown = soft_masks(6, (7, 7))
    weights = regions(main, unknown)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(6, 7, 7))


def test_border_touch_and_overlap_by_hand() -> None:
    mask = torch.zeros(1, 4, 5).bool()
    mask[0, 0, 1:3] = True  # 2 of 14 border pixels
    assert border_touch(mask).item() == pytest.approx(2 / 14)
    other = torch.zeros(1, 4, 5).bool()
    other[0, 0:2, 2] = True
    assert overlap(mask, other).item() == pytest.approx(1 / 3)
    assert overlap(mask & ~mask, mask & ~mask).isnan().item()


@pytest.mark.parametrize(("side", "cells"), [(30, 7), (48, 5), (32, 8), (224, 7)])
def test_mass_on_unknown_cells_alone_has_no_share(side: int, cells: int) -> None:
    """What resampling rounds must not pass for knowledge."""
    main, unknown = torch.zeros(1, side, side), torch.zeros(1, side, side)
    main[:, -side // 4 :, -side // 4 :] = 1
    unknown[:, : side // 2, : side // 2] = 1
    maps = torch.zeros(1, cells, cells)
    maps[0, 0, 0] = 7.0
    found = CellMasker((side, side), (cells, cells))(Masks(main=main, unknown=unknown))
    assert found.shares(maps)[0, 0].isnan().item()


def test_a_border_that_must_not_move_leaves_the_mask_as_it_is() -> None:
    torch.manual_seed(2)
    main = (torch.rand(20, 12, 12) > 0.97).float()  # single pixels
    cells = CellMasker((12, 12), (8, 8))(Masks(main=main)).object
    still = (cells[:, 1] - cells[:, 0]).abs().amax(dim=(1, 2)) == 0
    assert still.float().mean() > 0.8
    assert (cells[:, 1].sum(dim=(1, 2)) <= cells[:, 0].sum(dim=(1, 2)) * (1 + 1e-5)).all()


def test_overlap_of_families_with_objects_beyond_what_the_main_one_knows() -> None:
    main, unknown = soft_masks(3, (8, 8))
    family = Family(mask=torch.ones(3, 8, 8), unknown=main * 0)
    beside = family.beside(unknown)
    assert beside.unknown is not None
    torch.testing.assert_close(beside.mask + beside.unknown, torch.ones(3, 8, 8))
    assert family.beside(None) is family
