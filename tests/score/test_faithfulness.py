from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam.metrics.cam_mult_image import (
    CamMultImageConfidenceChange,
    DropInConfidence,
    IncreaseInConfidence,
)
from pytorch_grad_cam.metrics.perturbation_confidence import (
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined, ROADMostRelevantFirst
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torchcam.metrics import ClassificationMetric, DeletionInsertionMetric

from audit.cam import to_image
from audit.score import faithfulness as module
from audit.score.faithfulness import Faithfulness, faithfulness, linear_imputation
from tests.conftest import random_model

NAMES = ("deletion_auc", "insertion_auc", "average_drop", "increase", "road")


class Reads(nn.Module):
    """Two classes: the logit of the first is the mean over some pixels, the other's is 0."""

    def __init__(self, where: Tensor, factor: float = 1.0) -> None:
        super().__init__()
        self.where, self.factor = where.float(), factor
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        total = (images.mean(dim=1) * self.where).sum(dim=(1, 2)) / self.where.sum()
        return torch.stack([self.factor * total, torch.zeros_like(total)], dim=1)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def first_class(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


def one_pixel(height: int, width: int, y: int, x: int) -> Tensor:
    where = torch.zeros(height, width)
    where[y, x] = 1
    return where


@pytest.fixture
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOISE", 0.0)


@pytest.fixture
def region() -> tuple[Reads, Tensor, Tensor]:
    """A model that reads a square, images that are bright there, and the square."""
    torch.manual_seed(0)
    square = torch.zeros(24, 24)
    square[4:12, 9:17] = 1
    images = torch.randn(12, 3, 24, 24) + 3 * square
    return Reads(square, 2.0), images, square


def trapezoid(curve: list[float]) -> float:
    return float((sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1))


# --- by hand ---------------------------------------------------------------------------------


def test_deletion_of_the_one_pixel_that_counts() -> None:
    image = torch.arange(10.0).view(1, 1, 2, 5) - 4
    values = torch.tensor([[[3.0, 9.0, 4.0, 8.0, 1.0], [7.0, 2.0, 6.0, 0.0, 5.0]]])
    model = Reads(one_pixel(2, 5, 1, 0))  # the third highest of the map, with the value 1
    found = faithfulness(model, image, values, first_class(image))
    # Two tenths gone, it is still there; three tenths gone, it is the image's mean of 0.5.
    assert found.deletion_auc.item() == pytest.approx(
        trapezoid([sigmoid(1.0)] * 3 + [sigmoid(0.5)] * 8)
    )


def test_insertion_of_the_one_pixel_that_counts() -> None:
    image = torch.arange(10.0).view(1, 1, 2, 5) - 4
    values = torch.tensor([[[3.0, 9.0, 4.0, 8.0, 1.0], [7.0, 2.0, 6.0, 0.0, 5.0]]])
    found = faithfulness(Reads(one_pixel(2, 5, 1, 0)), image, values, first_class(image))
    sigma = 0.1 * math.sqrt(10)
    weight = np.exp(-((np.arange(5)[:, None] - np.arange(5)) ** 2) / (2 * sigma**2))
    across = weight[0] / weight[0].sum()
    down = weight[1, :2] / weight[1, :2].sum()
    blurred = down @ (np.arange(10).reshape(2, 5) - 4) @ across
    assert found.insertion_auc.item() == pytest.approx(
        trapezoid([sigmoid(blurred)] * 3 + [sigmoid(1.0)] * 8)
    )


@pytest.mark.usefixtures("no_noise")
def test_road_of_a_ramp() -> None:
    # A hole at the ramp's end is filled with the last known value: the end reads 9 - k after the
    # k highest pixels are gone, and 9 as long as it is there.
    image = torch.arange(10.0).view(1, 1, 1, 10)
    found = faithfulness(Reads(one_pixel(1, 10, 0, 9)), image, image[:, 0], first_class(image))
    expected = sum(sigmoid(9) - sigmoid(9 - k) for k in range(1, 10)) / 9
    assert found.road.item() == pytest.approx(expected, abs=1e-4)


def test_average_drop_and_increase_by_hand() -> None:
    image = torch.tensor([2.0, -2.0]).view(2, 1, 1, 1).repeat(1, 1, 4, 4)
    maps = torch.full((2, 4, 4), 1.0)
    maps[:, 0, 0] = 2.0  # the pixels that count are at half of the peak
    found = faithfulness(Reads(one_pixel(4, 4, 1, 1)), image, maps, first_class(image))
    # 2 becomes 1, a loss; -2 becomes -1, a gain.
    torch.testing.assert_close(
        found.average_drop, torch.tensor([1 - sigmoid(1.0) / sigmoid(2.0), 0.0])
    )
    assert found.increase.tolist() == [0, 1]


def test_average_drop_of_a_probability_that_underflows() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, :2] = torch.tensor([-600.0, 300.0])
    where = one_pixel(4, 4, 0, 0) + one_pixel(4, 4, 0, 1)
    model = Reads(where)
    assert model(image).softmax(dim=1)[0, 0] == 0
    # The logit falls from -150 to -300 where the map leaves only the pixel of -600.
    found = faithfulness(model, image, one_pixel(4, 4, 0, 0)[None], first_class(image))
    assert (found.average_drop.item(), found.increase.item()) == (1, 0)


# --- what it must tell apart ------------------------------------------------------------------


def test_true_evidence_beats_its_inverse_and_chance(region: tuple[Reads, Tensor, Tensor]) -> None:
    model, images, square = region
    smooth = to_image(F.avg_pool2d(square[None, None], 4)[:, 0], (24, 24)).expand(12, -1, -1)
    random = to_image(torch.rand(12, 6, 6), (24, 24))
    target = first_class(images)
    true, inverse, chance = (
        faithfulness(model, images, maps, target) for maps in (smooth, 1 - smooth, random)
    )
    for worse in (inverse, chance):
        assert (true.deletion_auc < worse.deletion_auc).all()
        assert (true.insertion_auc > worse.insertion_auc).all()
        assert (true.average_drop < worse.average_drop).all()
        assert (true.road > worse.road).all()
    assert (true.road > 0.1).all()
    assert (inverse.road < -0.1).all()
    assert abs(chance.road.mean().item()) < 0.1


def test_a_map_that_tells_nothing_apart_scores_zero_on_road(
    region: tuple[Reads, Tensor, Tensor],
) -> None:
    model, images, _ = region
    found = faithfulness(model, images, torch.ones(12, 24, 24), first_class(images))
    assert (found.road == 0).all()
    assert (found.average_drop == 0).all()
    assert (found.increase == 0).all()


# --- invariance -------------------------------------------------------------------------------


def scores(found: Faithfulness) -> dict[str, Tensor]:
    return {name: getattr(found, name) for name in NAMES}


@pytest.fixture(scope="module")
def network() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    model = random_model("cnn")
    torch.manual_seed(1)
    images = F.interpolate(torch.randn(9, 3, 8, 8), size=32, mode="bicubic")
    maps = to_image(torch.randn(9, 8, 8).clamp_min(0), (32, 32))
    return model, images, maps, torch.arange(9)


def test_a_sample_does_not_depend_on_its_batch(
    network: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, images, maps, target = network
    together = scores(faithfulness(model, images, maps, target))
    turned = scores(faithfulness(model, images.flip(0), maps.flip(0), target.flip(0)))
    torch.manual_seed(99)  # the global generator must not matter
    for n in (0, 4):
        alone = scores(faithfulness(model, images[[n]], maps[[n]], target[[n]]))
        for name in NAMES:
            torch.testing.assert_close(alone[name][0], together[name][n], rtol=0, atol=2e-5)
            torch.testing.assert_close(turned[name][8 - n], together[name][n], rtol=0, atol=2e-5)


def test_neither_unit_nor_rounding_of_the_map_matters(
    network: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, images, _, target = network
    levels = torch.randint(0, 4, (9, 8, 8)).float()
    levels[:, 0, 0] = 4
    plain = F.interpolate(levels[:, None], size=32)[:, 0]
    rounded = 0.003 * plain * (1 + 1e-6 * torch.rand_like(plain))
    one = scores(faithfulness(model, images, plain, target))
    other = scores(faithfulness(model, images, rounded, target))
    for name in NAMES:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=2e-5)


def test_scores_do_not_depend_on_how_images_are_normalised() -> None:
    torch.manual_seed(0)
    images, maps = torch.rand(4, 3, 16, 16), torch.rand(4, 16, 16)
    model = Reads(one_pixel(16, 16, 5, 5), 8.0)
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.1])
    std = std[:, None, None]
    one = faithfulness(model, images, maps, first_class(images))
    other = faithfulness(
        lambda x: model(x * std + mean), (images - mean) / std, maps, first_class(images)
    )
    for name in ("deletion_auc", "insertion_auc", "road"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=1e-4)


def test_seeds_differ_and_repeat(network: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, images, maps, target = network
    first, again, other = (
        faithfulness(model, images, maps, target, seed=seed).road for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_half_precision_in_half_precision_to_the_model() -> None:
    images, maps = torch.rand(2, 3, 16, 16), torch.rand(2, 16, 16)
    model = Reads(torch.ones(16, 16))
    found = faithfulness(model, images.half(), maps.half(), first_class(images))
    assert {seen.dtype for seen in model.seen} == {torch.float16}
    assert found.road.dtype == torch.float32


# --- the order of removal ---------------------------------------------------------------------


def removed_first(maps: Tensor, fraction: float, seed: int = 0) -> Tensor:
    """Which pixels deletion takes, seen from what reaches the model."""
    images = torch.linspace(-1, 1, maps[0].numel()).view(1, 1, *maps.shape[1:])
    model = Reads(torch.ones(maps.shape[1:]))
    faithfulness(model, images, maps, first_class(images), fractions=(fraction,), seed=seed)
    # Passes: whole, kept, blurred, then one of each curve.
    return (model.seen[3] != images)[0, 0]


def test_ties_favour_no_part_of_the_image() -> None:
    share = torch.stack([removed_first(torch.ones(1, 12, 12), 0.5, s) for s in range(300)])
    share = share.float().mean(dim=0)
    # Half a point five standard errors, at every pixel.
    assert (share - 0.5).abs().max() < 5 * 0.5 / math.sqrt(300)
    assert (share.mean(dim=0) - 0.5).abs().max() < 0.1
    assert (share.mean(dim=1) - 0.5).abs().max() < 0.1


def test_ties_go_in_patches() -> None:
    taken = removed_first(torch.ones(1, 32, 32), 0.5)
    neighbours_agree = (taken[1:] == taken[:-1]).float().mean()
    assert neighbours_agree > 0.8  # 0.5 for single pixels by lot


def test_only_ties_go_by_lot() -> None:
    torch.manual_seed(0)
    maps = to_image(torch.randn(1, 8, 8).clamp_min(0), (32, 32))
    count = int((maps > 0.01).sum())
    taken = removed_first(maps, count / 1024)
    assert taken.sum() == count
    assert torch.equal(taken, maps[0] > 0.01)


def test_never_removes_everything() -> None:
    assert removed_first(torch.rand(1, 2, 2), 0.95).sum() == 3


# --- what goes through the model --------------------------------------------------------------


def test_passes_go_one_fraction_at_a_time(region: tuple[Reads, Tensor, Tensor]) -> None:
    model, images, square = region
    faithfulness(model, images, square.expand(12, -1, -1), first_class(images))
    assert len(model.seen) == 40
    assert {len(seen) for seen in model.seen} == {12}


def test_the_imputed_pixels_carry_noise_of_a_hundredth_of_the_range() -> None:
    torch.manual_seed(0)
    images = F.interpolate(torch.rand(2, 3, 4, 4), size=48, mode="bilinear")
    images[1] *= 7
    model = Reads(torch.ones(48, 48))
    maps = torch.rand(2, 48, 48)
    faithfulness(model, images, maps, first_class(images), fractions=(0.5,))
    reach = images.amax(dim=(2, 3)) - images.amin(dim=(2, 3))
    for seen in model.seen[5:7]:  # least first, most first
        gone = (seen != images)[:, 0]
        noise = seen - linear_imputation(images, gone)
        for n in range(2):
            of_range = noise[n][:, gone[n]] / reach[n][:, None]
            torch.testing.assert_close(
                of_range.std(dim=1), torch.full((3,), 0.01), rtol=0.1, atol=0
            )
            assert (noise[n][:, ~gone[n]] == 0).all()


# --- undefined --------------------------------------------------------------------------------


def test_undefined_is_nan_never_zero(network: tuple[nn.Module, Tensor, Tensor, Tensor]) -> None:
    model, images, maps, target = network
    broken = maps.clone()
    broken[0], broken[1, 3, 3], broken[2, 0, 0] = 0, torch.nan, torch.inf
    found = scores(faithfulness(model, images, broken, target))
    sound = scores(faithfulness(model, images, maps, target))
    for name in NAMES:
        assert found[name][:3].isnan().all(), name
        torch.testing.assert_close(found[name][3:], sound[name][3:], rtol=0, atol=2e-5)


def test_an_image_that_is_not_finite_is_nan_and_alone(
    network: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, images, maps, target = network
    broken = images.clone()
    broken[4, 0, 9, 9] = torch.nan
    found = scores(faithfulness(model, broken, maps, target))
    for name in NAMES:
        assert found[name].isnan().tolist() == [n == 4 for n in range(9)], name


@pytest.mark.parametrize(
    ("maps", "fractions", "message"),
    [
        (torch.ones(2, 8, 8), (0.5,), "maps are"),
        (-torch.ones(2, 16, 16), (0.5,), "negative"),
        (torch.ones(2, 16, 16), (), "fractions"),
        (torch.ones(2, 16, 16), (0.5, 0.4), "fractions"),
        (torch.ones(2, 16, 16), (0.0, 0.4), "fractions"),
        (torch.ones(2, 16, 16), (0.5, 1.0), "fractions"),
    ],
)
def test_refuses_what_has_no_meaning(
    maps: Tensor, fractions: tuple[float, ...], message: str
) -> None:
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(ValueError, match=message):
        faithfulness(
            Reads(torch.ones(16, 16)), images, maps, first_class(images), fractions=fractions
        )


# --- the imputation ---------------------------------------------------------------------------


def holes(kind: str, count: int, side: int, share: float) -> Tensor:
    """Contiguous holes as an upsampled map makes them, or scattered ones."""
    torch.manual_seed(0)
    order = torch.rand(count, side, side)
    if kind == "patches":
        order = to_image(torch.rand(count, 7, 7), (side, side))
    return order <= order.flatten(1).quantile(share, dim=1)[:, None, None]


def pictures(count: int, side: int) -> Tensor:
    """Smooth parts, edges and grain, in [0, 1]."""
    torch.manual_seed(1)
    smooth = F.interpolate(torch.rand(count, 3, 5, 5), size=side, mode="bilinear")
    edges = F.interpolate(torch.rand(count, 1, 9, 9), size=side).round()
    return (0.5 * smooth + 0.4 * edges + 0.1 * torch.rand(count, 3, side, side)).clamp(0, 1)


@pytest.mark.parametrize("kind", ["patches", "scattered"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(("side", "count"), [(32, 6), (224, 1)])
def test_imputation_equals_an_exact_solution(
    kind: str, share: float, side: int, count: int
) -> None:
    images, missing = pictures(count, side), holes(kind, count, side, share)
    ours = linear_imputation(images, missing)
    exact = NoisyLinearImputer(noise=0)
    for n in range(count):
        theirs = exact(images[n], (~missing[n]).float())
        reach = images[n].amax() - images[n].amin()
        torch.testing.assert_close(ours[n], theirs, rtol=0, atol=1e-3 * float(reach))
    assert torch.equal(ours * ~missing[:, None], images * ~missing[:, None])


def test_imputation_of_oblong_images_at_any_offset() -> None:
    images = pictures(2, 48)[:, :, :21, :] * 40 - 300
    missing = holes("patches", 2, 48, 0.7)[:, :21]
    ours = linear_imputation(images, missing)
    for n in range(2):
        theirs = NoisyLinearImputer(noise=0)(images[n], (~missing[n]).float())
        torch.testing.assert_close(ours[n], theirs, rtol=0, atol=40e-3)


def test_imputation_does_not_see_what_it_replaces() -> None:
    images, missing = pictures(3, 32), holes("patches", 3, 32, 0.6)
    hidden = torch.where(missing[:, None], images.flip(0), images)
    ours, other = linear_imputation(images, missing), linear_imputation(hidden, missing)
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-3)


def test_imputation_of_one_colour_is_that_colour() -> None:
    images = torch.full((2, 3, 16, 16), -2.1179)
    missing = holes("patches", 2, 16, 0.9)
    assert torch.equal(linear_imputation(images, missing), images)


def test_imputation_from_a_single_pixel_and_from_none() -> None:
    images = pictures(2, 32)
    missing = torch.ones(2, 32, 32, dtype=torch.bool)
    missing[0, 20, 3] = False
    found = linear_imputation(images, missing)
    torch.testing.assert_close(
        found[0], images[0, :, 20:21, 3:4].expand(3, 32, 32), rtol=0, atol=1e-5
    )
    assert found[1].isnan().all()


# --- the peers --------------------------------------------------------------------------------


class Extractor:
    """Hands torch-cam's metrics maps that are there already."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, *_: object, **__: object) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, cams: list[Tensor]) -> Tensor:
        return cams[0]

    def _hooks_off(self) -> Any:
        return nullcontext()


@pytest.fixture
def untied() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A network, and maps whose pixels all differ; 20×20, so that tenths are whole."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, 4)
    )
    model.requires_grad_(False)[4].weight.mul_(6)
    maps = torch.stack([torch.randperm(400).view(20, 20) / 399 for _ in range(6)])
    return model.eval(), pictures(6, 20) * 4 - 2, maps, torch.arange(6) % 4


def torchcam_auc(
    case: tuple[nn.Module, Tensor, Tensor, Tensor], n: int, baseline: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    model, images, maps, target = case
    metric = DeletionInsertionMetric(
        Extractor(model, maps[[n]]), partial(torch.softmax, dim=-1), steps=10, baseline=baseline
    )
    metric.update(images[[n]], class_idx=int(target[n]))
    return metric.summary()


def test_areas_equal_torchcam_with_our_fills(
    untied: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    found = faithfulness(*untied)

    def blur(images: Tensor) -> Tensor:
        # SciPy's Gaussian at the border of the pixels that there are: divided by its weight.
        numerator, weight = (
            gaussian_filter(x, 2, mode="constant", axes=(-2, -1), truncate=12)
            for x in (images.double().numpy(), np.ones((20, 20)))
        )
        return torch.from_numpy(numerator / weight).float()

    for n in range(6):
        deleted = torchcam_auc(untied, n, lambda x: x.mean(dim=(2, 3), keepdim=True))
        inserted = torchcam_auc(untied, n, blur)
        assert found.deletion_auc[n].item() == pytest.approx(deleted["deletion_auc"], abs=1e-5)
        assert found.insertion_auc[n].item() == pytest.approx(inserted["insertion_auc"], abs=1e-5)


def test_average_drop_and_increase_equal_torchcam(
    untied: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, images, maps, target = untied
    found = faithfulness(*untied)
    for n in range(6):
        metric = ClassificationMetric(Extractor(model, maps[[n]]), partial(torch.softmax, dim=-1))
        metric.update(images[[n]], class_idx=int(target[n]))
        theirs = metric.summary()
        assert found.average_drop[n].item() == pytest.approx(theirs["avg_drop"], abs=1e-5)
        assert found.increase[n].item() == theirs["conf_increase"]
    assert set(found.increase.tolist()) == {0, 1}


def targets_of(target: Tensor) -> list[ClassifierOutputSoftmaxTarget]:
    return [ClassifierOutputSoftmaxTarget(int(k)) for k in target]


def test_increase_equals_pytorch_grad_cam_and_its_drop_is_not_relative(
    untied: tuple[nn.Module, Tensor, Tensor, Tensor],
) -> None:
    model, images, maps, target = untied
    found = faithfulness(*untied)
    given = (images, maps.numpy(), targets_of(target), model)
    assert found.increase.tolist() == IncreaseInConfidence()(*given).tolist()
    whole = model(images).softmax(dim=1).gather(1, target[:, None])[:, 0]
    change = torch.from_numpy(CamMultImageConfidenceChange()(*given))
    torch.testing.assert_close(found.average_drop, (-change / whole).clamp_min(0))
    # Theirs is the loss itself: not the paper's, which divides it by what there was.
    theirs = torch.from_numpy(DropInConfidence()(*given))
    torch.testing.assert_close(found.average_drop * whole, theirs)


@pytest.mark.usefixtures("no_noise")
def test_road_is_twice_pytorch_grad_cams_without_noise(
    untied: tuple[nn.Module, Tensor, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images, maps, target = untied
    monkeypatch.setattr("torch.randn_like", torch.zeros_like)
    theirs = ROADCombined()(images, maps.numpy(), targets_of(target), model)
    found = faithfulness(*untied)
    torch.testing.assert_close(found.road, 2 * torch.from_numpy(theirs), rtol=0, atol=2e-4)


def test_pytorch_grad_cam_removes_all_or_too_much_where_maps_are_tied() -> None:
    # Half of this map is 0, as a ReLU leaves it; 20 of its 100 pixels are to stay or to go.
    values = (torch.arange(100.0).view(10, 10) / 99 - 0.5).clamp_min(0)
    keep = {
        "most": RemoveMostRelevantFirst(20, lambda _, mask: mask)(values, values).mean(),
        "least": RemoveLeastRelevantFirst(80, lambda _, mask: mask)(values, values).mean(),
    }
    assert keep == {"most": 0, "least": 0.5}  # not 0.2 and 0.8
    assert removed_first(values[None], 0.8).float().mean() == pytest.approx(0.8)
    # Without a pixel left there is nothing to fill in from: what it scores is noise around 0.
    images, model = 5 + torch.rand(1, 3, 10, 10), Reads(torch.ones(10, 10))
    target = targets_of(torch.zeros(1))
    _, scored = ROADMostRelevantFirst(20)(
        images, values[None].numpy(), target, model, return_visualization=True
    )
    assert scored.abs().max() < 0.1
    model.seen.clear()
    faithfulness(model, images, values[None], first_class(images), fractions=(0.8,))
    assert all(5 <= seen.mean() <= 6 for seen in model.seen[5:7])


def test_torchcam_breaks_ties_from_the_top_left() -> None:
    images = torch.zeros(1, 1, 10, 10)
    images[0, 0, 0, 0] = images[0, 0, 9, 9] = 5

    def deletion(y: int, x: int) -> tuple[float, float]:
        model = Reads(one_pixel(10, 10, y, x))
        case = model, images, torch.ones(1, 10, 10), first_class(images)
        theirs = torchcam_auc(case, 0, torch.zeros_like)["deletion_auc"]
        ours = np.mean([faithfulness(*case, seed=s).deletion_auc.item() for s in range(40)])
        return theirs, float(ours)

    # The map says nothing: both corners should fare alike.
    (theirs_first, ours_first), (theirs_last, ours_last) = deletion(0, 0), deletion(9, 9)
    assert theirs_first == pytest.approx(0.524665, abs=1e-5)
    assert theirs_last == pytest.approx(0.968642, abs=1e-5)
    assert ours_first == pytest.approx(ours_last, abs=0.1)
