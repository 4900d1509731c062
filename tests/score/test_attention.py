from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from audit.cam import Resampler, to_image
from audit.score import attention
from audit.tables.totals import pixel_average_precision
from tests.score import reference


def all_scores(raw: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Every attention score of a batch, as the step computes them."""
    size = (mask.shape[1], mask.shape[2])
    resampler = Resampler.between(size, (raw.shape[1], raw.shape[2]))
    positive, inside = raw.clamp_min(0), mask >= 0.5
    share = attention.object_share(positive, resampler.to_grid(mask), resampler.weight)
    area, up = mask.mean(dim=(1, 2)), to_image(positive, size)
    entropy, cells = attention.focus(positive)
    return {
        "object_area": area,
        "object_share": share,
        "background_share": 1 - share,
        "background_lift": attention.background_lift(share, area),
        "kappa": attention.kappa(share, area),
        "pointing_hit": attention.pointing_hit(up, inside, attention.pointing_tolerance(size[0])),
        "rank_accuracy": attention.rank_accuracy(up, inside),
        "iou_50": attention.iou_at_half(up, inside),
        "focus_entropy": entropy,
        "effective_cells": cells,
    }


@pytest.mark.parametrize(
    ("size", "grid"),
    [((32, 32), (8, 8)), ((24, 40), (3, 5)), ((30, 30), (7, 7)), ((80, 80), (5, 5))],
)
def test_equal_to_a_slow_float64_reference(size: tuple[int, int], grid: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    raw = generator.normal(0.3, 1, (6, *grid))
    mask = np.zeros((6, *size))
    for n in range(6):
        top, left = generator.integers(0, size[0] // 2), generator.integers(0, size[1] // 2)
        mask[n, top : top + size[0] // 3, left : left + size[1] // 3] = 1
    ours = all_scores(torch.tensor(raw, dtype=torch.float32), torch.tensor(mask).float())
    for n in range(6):
        # The reference sees the float32 values, so that ties and thresholds are the same.
        expected = reference.scores(
            raw[n].astype(np.float32).astype(np.float64),
            mask[n],
            attention.pointing_tolerance(size[0]),
        )
        # Two pixels that differ by less than float32 resolves may swap ranks.
        loose = {"rank_accuracy": 1.01 / mask[n].sum()}
        for name, value in expected.items():
            bound = loose.get(name, 2e-6)
            assert ours[name][n].item() == pytest.approx(value, rel=2e-5, abs=bound), name


def test_hand_computed_two_by_two() -> None:
    raw = torch.tensor([[[4.0, 2.0], [1.0, -3.0]]])
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    scores = all_scores(raw, mask)
    expected = {
        "object_area": 1 / 4,
        "object_share": 4 / 7,
        "background_share": 3 / 7,
        "background_lift": (3 / 7) / (3 / 4),
        "kappa": (4 / 7 - 1 / 4) / (3 / 4),
        "pointing_hit": 1.0,
        "rank_accuracy": 1.0,
        "iou_50": 1 / 2,  # 4 and 2 are at or above half of 4
    }
    for name, value in expected.items():
        assert scores[name].item() == pytest.approx(value, abs=1e-6), name
    p = torch.tensor([4.0, 2.0, 1.0]) / 7
    entropy = -(p * p.log()).sum().item()
    assert scores["focus_entropy"].item() == pytest.approx(entropy / math.log(4))
    assert scores["effective_cells"].item() == pytest.approx(math.exp(entropy))


def test_share_of_an_object_shaped_map_is_the_ceiling() -> None:
    mask = torch.zeros(1, 32, 32)
    mask[:, 5:18, 9:20] = 1
    resampler = Resampler.between((32, 32), (8, 8))
    on_grid = resampler.to_grid(mask)
    ceiling = attention.share_ceiling(on_grid, resampler.weight)
    share = attention.object_share(on_grid, on_grid, resampler.weight)
    torch.testing.assert_close(ceiling, share)
    area = mask.mean(dim=(1, 2))
    torch.testing.assert_close(attention.kappa(share, area, ceiling), torch.ones(1))
    torch.testing.assert_close(
        attention.object_share(torch.ones(1, 8, 8), on_grid, resampler.weight), area
    )


def test_tied_peaks_count_by_fraction() -> None:
    up = torch.zeros(1, 9, 9)
    up[0, 0, 0] = up[0, 8, 8] = 1
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 0, 1] = True
    assert attention.pointing_hit(up, mask, 1).item() == 0.5


def test_undefined_is_nan_never_zero() -> None:
    nothing, mask = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    weight = torch.ones(4, 4)
    assert attention.object_share(nothing, mask, weight).isnan().all()
    assert attention.share_ceiling(nothing, weight).isnan().all()
    assert attention.rank_accuracy(nothing, nothing.bool()).isnan().all()
    assert attention.iou_at_half(nothing, mask.bool()).isnan().all()
    assert all(value.isnan().all() for value in attention.focus(nothing))
    assert attention.background_lift(torch.ones(1), torch.ones(1)).isnan().all()
    assert attention.kappa(torch.ones(1), torch.ones(1)).isnan().all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 50))
def test_scores_do_not_depend_on_the_maps_scale(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    raw = torch.randn(2, 8, 8) + 0.5
    mask = (torch.rand(2, 32, 32) > 0.7).float()
    one, other = all_scores(raw, mask), all_scores(raw * scale, mask)
    for name in ("object_share", "kappa", "focus_entropy", "effective_cells"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_pixel_average_precision_equals_scikit_learn() -> None:
    torch.manual_seed(0)
    up, mask = torch.rand(4, 32, 32), torch.rand(4, 32, 32) > 0.6
    up[mask] += 0.3
    histogram = attention.pixel_histogram(up, mask, torch.tensor([True, True, False, True]))
    assert histogram.sum() == 3 * 32 * 32
    level = (up / up.amax(dim=(1, 2), keepdim=True) * 256).long().clamp_max(255)
    use = [0, 1, 3]
    expected = average_precision_score(mask[use].flatten(), level[use].flatten())
    assert pixel_average_precision(histogram.numpy()) == pytest.approx(expected, abs=1e-9)


def test_unknown_pixels_take_no_part_by_hand() -> None:
    def row(*values: float) -> Tensor:
        return torch.tensor([[values]])

    up, known = row(4.0, 3.0, 1.0, 0.0), row(0, 1, 1, 1).bool()
    mask = row(0, 1, 0, 0).bool()
    assert attention.iou_at_half(up, mask).item() == pytest.approx(1 / 2)
    assert attention.iou_at_half(up, mask, known).item() == 1
    assert attention.rank_accuracy(up, mask).item() == 0
    assert attention.rank_accuracy(up, mask, known).item() == 1
    far = row(0, 0, 1, 0).bool()
    assert attention.pointing_hit(up, far, 1).item() == 0
    assert attention.pointing_hit(up, far, 1, known).item() == 1  # the highest known pixel is near
    assert attention.pointing_hit(up, far, 0, known).item() == 0
    assert attention.pointing_hit(up, far, 1, ~known & False).isnan().item()
    counts = attention.pixel_histogram(up, mask, torch.tensor([True]), known)
    assert counts.sum() == 3
    assert counts[1].nonzero().flatten().tolist() == [192]


@pytest.mark.parametrize("radius", [1, 3])
def test_peaks_found_one_by_one_are_those_of_the_whole_picture(
    radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(7)
    # Few values, and so many peaks; one map is the same everywhere.
    maps = torch.randint(0, 4, (20, 9, 11), generator=generator).float()
    maps[3] = 2.0
    masks = torch.rand(20, 9, 11, generator=generator) > 0.9
    masks[4] = False
    known = torch.rand(20, 9, 11, generator=generator) > 0.3
    known[5] = False
    for seen in (None, known):
        one_by_one = attention.pointing_hit(maps, masks, radius, seen)
        with monkeypatch.context() as patch:
            patch.setattr(attention, "_MOST_LOOKUPS", 0)
            whole = attention.pointing_hit(maps, masks.float(), radius, seen)
        torch.testing.assert_close(one_by_one, whole, equal_nan=True)
        for n in range(20):
            allowed = torch.ones(9, 11).bool() if seen is None else seen[n]
            peaks = (
                (maps[n] == maps[n][allowed].max()) & allowed
                if allowed.any()
                else ~maps[n].isfinite()
            )
            rows, columns = masks[n].nonzero().unbind(dim=1)
            near = [
                bool((((rows - r) ** 2 + (columns - c) ** 2) <= radius**2).any())
                for r, c in peaks.nonzero().tolist()
            ]
            expected = sum(near) / len(near) if near else float("nan")
            assert one_by_one[n].item() == pytest.approx(expected, nan_ok=True)
