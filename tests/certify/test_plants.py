from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from audit.certify.plants import CUES, Plant, carriers, draw_uniform, paint, plant_all
from audit.errors import ConfigError

WORD = 2**64 - 1


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (12, 3, 32, 32), generator=torch.manual_seed(0)).to(torch.uint8)


@pytest.fixture
def masks() -> Tensor:
    masks = torch.zeros(12, 32, 32)
    masks[:, 8:24, 10:22] = 1
    return masks


def changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).any(dim=1)


@pytest.mark.parametrize("cue", CUES)
def test_a_sample_looks_the_same_in_every_batch(cue: str, images: Tensor, masks: Tensor) -> None:
    index = torch.arange(100, 112)
    whole = paint(cue, images, masks, index, seed=3)
    some = torch.tensor([7, 2])
    assert torch.equal(paint(cue, images[some], masks[some], index[some], seed=3), whole[some])
    assert not torch.equal(whole, images)


@pytest.mark.parametrize("cue", sorted(set(CUES) - {"blur"}))
def test_samples_and_seeds_differ(cue: str, masks: Tensor) -> None:
    grey = torch.full((12, 3, 32, 32), 100, dtype=torch.uint8)
    one, other = (paint(cue, grey, masks, torch.arange(12), seed=seed) for seed in (0, 1))
    assert len({image.numpy().tobytes() for image in one}) > 6
    assert not torch.equal(one, other)


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (224, 224)])
@pytest.mark.parametrize("cue", CUES)
def test_any_size(cue: str, size: tuple[int, int]) -> None:
    grey = torch.full((3, 3, *size), 100, dtype=torch.uint8)
    grey[:, :, : size[0] // 2] = 180
    painted = paint(cue, grey, torch.ones(3, *size) * 0.5, torch.arange(3))
    assert painted.shape == grey.shape
    assert bool(changed(grey, painted).flatten(1).any(dim=1).all())


def test_patch_is_a_magenta_square_near_the_lower_right_corner(images: Tensor) -> None:
    painted = paint("patch", images, None, torch.arange(12))
    for row, image in zip(changed(images, painted), painted, strict=True):
        y, x = row.nonzero(as_tuple=True)
        top, bottom, left, right = y.min(), y.max() + 1, x.min(), x.max() + 1
        assert bottom > 32 * 0.85
        assert right > 32 * 0.85
        assert 4 <= bottom - top <= 8
        assert 4 <= right - left <= 8
        square = image[:, top:bottom, left:right].float()
        assert square[[0, 2]].min() > 170
        assert square[1].max() < 60


def test_frame_is_a_ring(images: Tensor) -> None:
    painted = paint("frame", images, None, torch.arange(12))
    ring = torch.ones(32, 32, dtype=torch.bool)
    ring[4:28, 4:28] = False
    sure = torch.ones(32, 32, dtype=torch.bool)
    sure[2:30, 2:30] = False
    for row, image in zip(changed(images, painted), painted, strict=True):
        assert not bool((row & ~ring).any())
        assert image[2][sure].float().min() > 200
        assert image[0][sure].float().max() < 60


def test_texture_spares_the_object_and_object_colour_the_background(
    images: Tensor, masks: Tensor
) -> None:
    inside = masks.bool()
    striped = changed(images, paint("texture", images, masks, torch.arange(12)))
    assert not bool((striped & inside).any())
    assert (striped & ~inside).sum() > 0.95 * (~inside).sum()
    tinted = paint("object_colour", images, masks, torch.arange(12))
    assert not bool((changed(images, tinted) & ~inside).any())
    mean = tinted.permute(0, 2, 3, 1)[inside].float().mean(dim=0)
    assert mean[1] > 1.5 * mean[[0, 2]].max()


def test_half_of_a_pixel_is_tinted_half() -> None:
    grey = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    none, half, full = (
        paint("object_colour", grey, torch.full((1, 8, 8), share), torch.arange(1)).float()
        for share in (0.0, 0.5, 1.0)
    )
    assert torch.equal(none, grey.float())
    assert (half - (none + full) / 2).abs().max() <= 1


def test_watermark_crosses_the_middle_and_leaves_the_corners(images: Tensor) -> None:
    rows = changed(images, paint("watermark", images, None, torch.arange(12)))
    assert rows[:, 13:19, 13:19].float().mean() > 0.5
    for corner in (rows[:, :6, :6], rows[:, :5, -5:], rows[:, -6:, -6:], rows[:, -5:, :5]):
        assert not bool(corner.any())


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_blur_is_scipys(size: tuple[int, int]) -> None:
    noise = torch.randint(0, 256, (2, 3, *size), generator=torch.manual_seed(1)).to(torch.uint8)
    sigma = min(size) * 0.045
    expected = ndimage.gaussian_filter(
        noise.double().numpy(),
        sigma=(0, 0, sigma, sigma),
        mode="mirror",
        radius=(0, 0, round(3 * sigma), round(3 * sigma)),
    )
    assert np.abs(paint("blur", noise, None, torch.arange(2)).numpy() - expected).max() < 0.51


def test_cues_that_need_an_object_say_so(images: Tensor) -> None:
    for name, cue in CUES.items():
        if cue.needs_object:
            with pytest.raises(ValueError, match="needs object masks"):
                paint(name, images, None, torch.arange(12))
    with pytest.raises(ConfigError, match="unknown cue 'rain'"):
        paint("rain", images, None, torch.arange(12))


def test_nothing_to_paint() -> None:
    nothing = torch.zeros(0, 3, 8, 8, dtype=torch.uint8)
    assert paint("frame", nothing, None, torch.arange(0)).shape == (0, 3, 8, 8)


def test_carriers_are_the_share_asked_for_and_nested() -> None:
    labels = torch.arange(20_000) % 2
    index = torch.arange(20_000)
    before = torch.zeros(20_000, dtype=torch.bool)
    for strength in (0.0, 0.2, 0.5, 0.95, 1.0):
        here = carriers(Plant(cue="patch", label=1, strength=strength), labels, index)
        assert not bool(here[labels == 0].any())
        assert bool(here[before].all())
        share = float(here[labels == 1].float().mean())
        assert share == pytest.approx(strength, abs=0.015)
        before = here
    assert bool(before[labels == 1].all())


def test_plants_touch_their_class_alone(images: Tensor, masks: Tensor) -> None:
    labels = torch.arange(12) % 3
    plants = [
        Plant(cue="frame", label=0, strength=1.0),
        Plant(cue="texture", label=2, strength=1.0),
    ]
    planted, carried = plant_all(images, labels, masks, plants, torch.arange(12), seed=5)
    assert torch.equal(carried, labels != 1)
    assert torch.equal(planted[labels == 1], images[labels == 1])
    for label, cue in ((0, "frame"), (2, "texture")):
        rows = labels == label
        own = paint(cue, images[rows], masks[rows], torch.arange(12)[rows], seed=5)
        assert torch.equal(planted[rows], own)


def test_one_cue_a_class(images: Tensor) -> None:
    plants = [Plant(cue=cue, label=0, strength=1.0) for cue in ("frame", "patch")]
    with pytest.raises(ValueError, match="one cue at most"):
        plant_all(images, torch.zeros(12).long(), None, plants, torch.arange(12))


def split_mix(value: int) -> int:
    """SplitMix64 in Python's unbounded numbers."""
    value = (value + 0x9E3779B97F4A7C15) & WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & WORD
    return value ^ (value >> 31)


def test_draws_are_split_mix() -> None:
    assert split_mix(0) == 0xE220A8397B1DCDAF  # the published first number of seed 0
    found = draw_uniform(torch.tensor([0, 1, 12345]), seed=7)
    for row, index in enumerate((0, 1, 12345)):
        state = split_mix((index + split_mix(7)) & WORD)
        expected = [(split_mix((state + n) & WORD) >> 40) / 2**24 for n in range(8)]
        assert found[row].tolist() == expected


def test_draws_are_uniform_and_independent() -> None:
    draws = draw_uniform(torch.arange(20_000), seed=1).double().numpy()
    assert min(stats.kstest(column, "uniform").pvalue for column in draws.T) > 1e-3
    others = draw_uniform(torch.arange(20_000), seed=2).double().numpy()
    together = np.corrcoef(np.concatenate([draws, others, draws[np.r_[1:20_000, 0]]], axis=1).T)
    assert np.abs(together - np.eye(24)).max() < 0.03
