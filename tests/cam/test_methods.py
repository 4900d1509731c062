"""Every method against cases done by hand and against slow loops in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.cam import (
    METHODS,
    Method,
    ablationcam,
    cam,
    eigencam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    scorecam,
    top_channels,
    xgradcam,
)

GradientMethod = Callable[[Tensor, Tensor], Tensor]


def random_case(*, signed: bool, count: int = 3) -> tuple[Tensor, Tensor]:
    """Features with a dead channel, and gradients with zeros."""
    torch.manual_seed(0)
    features = torch.randn(count, 5, 3, 4, dtype=torch.float64)
    if not signed:
        features = features.relu()
    features[:, 2] = 0
    gradients = torch.randn_like(features)
    gradients[:, :, 0, 1] = 0
    return features, gradients


def plain(tensor: Tensor) -> np.ndarray:
    return tensor.double().numpy()


# One image at a time, one channel at a time: A and g are h×w.
def gradcam_channel(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return g.mean() * a


def hirescam_channel(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return g * a


def layercam_channel(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return np.maximum(g, 0) * a


def xgradcam_channel(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    return (g * a).sum() / a.sum() * a if a.sum() != 0 else 0 * a


def gradcam_plus_plus_channel(a: np.ndarray, g: np.ndarray) -> np.ndarray:
    """The fraction as the paper has it, not shortened."""
    weight = 0.0
    for gradient in g.flatten():
        below = 2 * gradient**2 + a.sum() * gradient**3
        if gradient != 0 and below != 0:
            weight += gradient**2 / below * max(gradient, 0)
    return weight * a


BY_CHANNEL = [
    (gradcam, gradcam_channel),
    (hirescam, hirescam_channel),
    (layercam, layercam_channel),
    (xgradcam, xgradcam_channel),
    (gradcam_plus_plus, gradcam_plus_plus_channel),
]
GRADIENT_METHODS = [method for method, _ in BY_CHANNEL]


@pytest.mark.parametrize(("method", "channel_map"), BY_CHANNEL)
@pytest.mark.parametrize("signed", [False, True])
def test_gradient_methods_equal_loops(
    method: GradientMethod,
    channel_map: Callable[[np.ndarray, np.ndarray], np.ndarray],
    signed: bool,
) -> None:
    features, gradients = random_case(signed=signed)
    expected = np.stack(
        [
            sum(channel_map(a, g) for a, g in zip(image, slope, strict=True))
            for image, slope in zip(plain(features), plain(gradients), strict=True)
        ]
    )
    np.testing.assert_allclose(method(features, gradients), expected, rtol=1e-10, atol=1e-12)


A = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 5.0], [0.0, 0.0]]]])
G = torch.tensor([[[[0.3, -1.0], [0.0, 0.0]], [[-2.0, 0.0], [0.8, 0.2]]]])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # mean gradients -0.7/4 and -1/4
        (gradcam, [[-0.175, -1.6], [-0.525, -0.7]]),
        (hirescam, [[0.3, -2.0], [0.0, 0.0]]),
        (layercam, [[0.3, 0.0], [0.0, 0.0]]),
        # (0.3 - 2)/10 = -0.17, and no gradient where channel 1 is active
        (xgradcam, [[-0.17, -0.34], [-0.51, -0.68]]),
        # 0.3/(2 + 10·0.3) = 0.06; 0.8/(2 + 5·0.8) + 0.2/(2 + 5·0.2) = 2/15 + 1/15 = 0.2
        (gradcam_plus_plus, [[0.06, 1.12], [0.18, 0.24]]),
    ],
)
def test_gradient_methods_by_hand(method: GradientMethod, expected: list[list[float]]) -> None:
    torch.testing.assert_close(method(A, G)[0], torch.tensor(expected))


def test_cam_and_channels_by_hand() -> None:
    maps = cam(A, torch.tensor([[9.0, 9.0], [1.0, -1.0]]), torch.tensor([1]))
    assert maps.tolist() == [[[1.0, -3.0], [3.0, 4.0]]]
    numbers, own = top_channels(A, 1)
    assert numbers.tolist() == [[0]]
    assert torch.equal(own[:, 0], A[:, 0])


def test_gradcam_plus_plus_adds_nothing_where_the_denominator_is_zero() -> None:
    features = torch.tensor([[[[-3.0, 1.0]]]])
    # 2 + (-2)·1 = 0 in the first cell; 0.5/(2 - 2·0.5) = 0.5 in the second
    maps = gradcam_plus_plus(features, torch.tensor([[[[1.0, 0.5]]]]))
    assert maps.tolist() == [[[-1.5, 0.5]]]


def test_gradcam_plus_plus_weighs_tiny_gradients_as_large_ones() -> None:
    features, gradients = random_case(signed=False)
    usual = gradcam_plus_plus(features, gradients)
    for scale in (2.0**-40, 2.0**40):
        torch.testing.assert_close(gradcam_plus_plus(features * scale, gradients / scale), usual)


def test_xgradcam_adds_nothing_for_channels_that_cancel() -> None:
    maps = xgradcam(torch.tensor([[[[2.0, -2.0]], [[1.0, 1.0]]]]), torch.ones(1, 2, 1, 2))
    assert maps.tolist() == [[[1.0, 1.0]]]


def test_xgradcam_and_hirescam_sum_to_the_same() -> None:
    features, gradients = random_case(signed=False)
    whole, other = xgradcam(features, gradients), hirescam(features, gradients)
    torch.testing.assert_close(whole.sum(dim=(1, 2)), other.sum(dim=(1, 2)))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_zero_gradients_or_features_give_zero_maps(method: GradientMethod) -> None:
    features, gradients = random_case(signed=False)
    assert not method(features, torch.zeros_like(gradients)).any()
    assert not method(torch.zeros_like(features), gradients).any()


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_each_image_is_on_its_own(method: GradientMethod) -> None:
    features, gradients = random_case(signed=True)
    alone = [method(features[i : i + 1], gradients[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), method(features, gradients))
    features[1, 0, 0, 0] = torch.nan
    spoiled = method(features, gradients)
    assert spoiled[1].isnan().any()
    assert spoiled[[0, 2]].isfinite().all()


# EigenCAM


def component(image: Tensor) -> np.ndarray:
    """The first principal component's scores by a singular value decomposition."""
    cells = plain(image).reshape(len(image), -1).T
    activation = cells.mean(axis=1)
    cells = cells - cells.mean(axis=0)
    _, _, directions = np.linalg.svd(cells, full_matrices=False)
    scores = cells @ directions[0]
    return (scores * np.sign(scores @ activation)).reshape(image.shape[1:])


@pytest.mark.parametrize("channels", [2, 5, 12, 30])
def test_eigencam_equals_a_singular_value_decomposition(channels: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(8, channels, 3, 4)
    expected = np.stack([component(image) for image in features])
    maps = eigencam(features)
    assert maps.dtype == torch.float32
    np.testing.assert_allclose(maps, expected, rtol=0, atol=3e-7 * np.abs(expected).max())


def test_eigencam_by_hand() -> None:
    # the channels move along (3, 4), 5 long: ±0.5 of it
    maps = eigencam(torch.tensor([[[[0.0], [3.0]], [[1.0], [5.0]]]]))
    torch.testing.assert_close(maps, torch.tensor([[[-2.5], [2.5]]]))


def test_eigencam_goes_with_the_mean_activation_whatever_the_signs() -> None:
    torch.manual_seed(0)
    features = torch.randn(64, 6, 3, 3)
    activation = features.mean(dim=1)
    activation = activation - activation.mean(dim=(1, 2), keepdim=True)
    assert ((eigencam(features) * activation).sum(dim=(1, 2)) > 0).all()
    torch.testing.assert_close(eigencam(-features), -eigencam(features))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        # two channels, opposite but for their means: the mean activation is the same everywhere
        ([1.0, 4.0, 1.0], [-1.0, 2.0, -1.0]),
        ([4.0, 1.0, 4.0], [-1.0, 2.0, -1.0]),
        ([4.0, 1.0], [1.5, -1.5]),
        ([1.0, 4.0], [1.5, -1.5]),
    ],
)
def test_eigencam_without_correlation_has_its_highest_cell_positive(
    row: list[float], expected: list[float]
) -> None:
    first = torch.tensor(row)
    features = torch.stack([first, 7 - first])[None, :, None]
    torch.testing.assert_close(eigencam(features)[0, 0], torch.tensor(expected) * 2**0.5)


@pytest.mark.parametrize("channels", [3, 60])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e20])
def test_eigencam_of_constant_features_is_zero(channels: int, value: float) -> None:
    assert not eigencam(torch.full((2, channels, 7, 7), value)).any()


def test_eigencam_of_a_single_cell_is_zero() -> None:
    assert eigencam(torch.randn(2, 4, 1, 1)).flatten().tolist() == [0.0, 0.0]


def test_eigencam_keeps_images_apart() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 5, 3, 3)
    expected = eigencam(features)
    features[1, 2, 0, 0] = torch.inf
    maps = eigencam(features)
    assert maps[1].isnan().all()
    assert torch.equal(maps[[0, 2]], expected[[0, 2]])
    assert torch.equal(eigencam(features[:1]), expected[:1])


# Score-CAM and Ablation-CAM


class Small(nn.Module):
    """A network of two convolutions; the second one's activations are the features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 3 * 4, 5))
        self.double().requires_grad_(False)
        self.passes: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(x)
        logits: Tensor = self.head(self.backbone(x))
        return logits


@pytest.fixture
def small() -> Small:
    return Small()


@pytest.fixture
def images() -> Tensor:
    torch.manual_seed(4)
    return torch.randn(3, 3, 6, 8, dtype=torch.float64)


TARGETS = torch.tensor([[0, 4], [1, 1], [3, 2]])


def varied_features(model: Small, images: Tensor) -> Tensor:
    """The model's features with a channel of zeros and a channel of one other value."""
    features: Tensor = model.backbone(images)
    features[:, 1] = 0
    features[1, 3] = 2.7
    return features


def scorecam_loop(model: nn.Module, image: Tensor, maps: Tensor, target: int) -> Tensor:
    scores = []
    baseline = model(torch.zeros_like(image)[None])[0, target]
    for channel in maps:
        mask = torch.zeros_like(image[0])
        if channel.max() > channel.min():
            size = image.shape[1:]
            large = F.interpolate(channel[None, None], size, mode="bilinear", align_corners=False)
            mask = ((large - large.min()) / (large.max() - large.min()))[0, 0]
        scores.append(float(model((image * mask)[None])[0, target] - baseline))
    weights = torch.tensor(scores, dtype=maps.dtype).exp()
    return (weights[:, None, None] * maps).sum(dim=0) / weights.sum()


def ablationcam_loop(head: nn.Module, maps: Tensor, target: int) -> Tensor:
    whole = head(maps[None])[0, target]
    total = torch.zeros_like(maps[0])
    for number, channel in enumerate(maps):
        without = maps.clone()
        without[number] = 0
        total += (whole - head(without[None])[0, target]) / whole * channel
    return total


def test_scorecam_equals_loops(small: Small, images: Tensor) -> None:
    features = varied_features(small, images)
    expected = [
        [scorecam_loop(small, image, maps, int(k)) for k in row]
        for image, maps, row in zip(images, features, TARGETS, strict=True)
    ]
    stacked = torch.stack([torch.stack(row) for row in expected])
    torch.testing.assert_close(scorecam(small, images, features, TARGETS), stacked)


def test_ablationcam_equals_loops(small: Small, images: Tensor) -> None:
    features = varied_features(small, images)
    logits = small.head(features)
    assert logits.gather(1, TARGETS).min() < 0 < logits.gather(1, TARGETS).max()
    expected = [
        [ablationcam_loop(small.head, maps, int(k)) for k in row]
        for maps, row in zip(features, TARGETS, strict=True)
    ]
    stacked = torch.stack([torch.stack(row) for row in expected])
    torch.testing.assert_close(ablationcam(small.head, features, logits, TARGETS), stacked)


def corner_logits(x: Tensor) -> Tensor:
    """Logits of images: the red corner, and the sum of all."""
    return torch.stack([x[:, 0, 0, 0], x.sum(dim=(1, 2, 3))], dim=1)


def test_scorecam_by_hand() -> None:
    # at the image's own size a mask is the channel over its maximum: [1, .5, .25, 0] keeps 1 of
    # the corner, the reverse keeps 0; in all, both keep 1.75 of each of three colours
    features = torch.tensor([[[[4.0, 2.0], [1.0, 0.0]], [[0.0, 1.0], [2.0, 4.0]]]])
    maps = scorecam(corner_logits, torch.ones(1, 3, 2, 2), features, torch.tensor([[0, 1]]))
    e = float(np.e)
    corner = (e * features[0, 0] + features[0, 1]) / (e + 1)
    torch.testing.assert_close(maps[0, 0], corner)
    torch.testing.assert_close(maps[0, 1], features[0].mean(dim=0))


def test_scorecam_masks_reach_from_zero_to_one_at_the_size_of_the_image(small: Small) -> None:
    # enlarged fourfold, the peak of the middle cell comes to 7/8 of its height
    peak = torch.tensor([[[[0.0, 8.0, 0.0]]]])
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x[:, 0, 0])
        return x.sum(dim=(2, 3))

    scorecam(model, torch.ones(1, 3, 1, 12), peak, torch.tensor([[0]]))
    rising = torch.tensor([0, 0, 1, 3, 5, 7]) / 7
    torch.testing.assert_close(seen[-1], torch.cat([rising, rising.flip(0)])[None])


def test_scorecam_of_constant_channels_passes_one_blank_image(small: Small, images: Tensor) -> None:
    # 1.1 enlarged is not 1.1 everywhere in float32, and a mask must not be made of that
    features = torch.full((3, 6, 3, 4), 1.1)
    maps = scorecam(small, images, features, TARGETS)
    torch.testing.assert_close(maps, torch.full((3, 2, 3, 4), 1.1))
    assert [len(x) for x in small.passes] == [1]
    assert not small.passes[0].any()


def head_of_sums(x: Tensor) -> Tensor:
    """Logits of features: twice the first channel's sum less the second's; 0; minus the first."""
    first, second = x.sum(dim=(2, 3)).T
    return torch.stack([2 * first - second, 0 * first, -first], dim=1)


def test_ablationcam_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 5.0], [0.0, 0.0]]]])
    logits = head_of_sums(features)
    maps = ablationcam(head_of_sums, features, logits, torch.tensor([[0, 1, 2]]))
    # of y = 20 - 5 = 15 the channels supply 20 and -5
    torch.testing.assert_close(maps[0, 0], (20 * features[0, 0] - 5 * features[0, 1]) / 15)
    assert not maps[0, 1].any(), "a logit of 0 has no shares"
    # y = -10 comes from the first channel alone: its share is 1
    torch.testing.assert_close(maps[0, 2], features[0, 0])


def test_ablationcam_of_zero_features_is_zero(small: Small) -> None:
    features = torch.zeros(2, 6, 3, 4, dtype=torch.float64)
    maps = ablationcam(small.head, features, small.head(features), TARGETS[:2])
    assert not maps.any()


def test_ablationcam_gives_the_head_what_else_it_reads() -> None:
    def head(features: Tensor, gate: Tensor) -> Tensor:
        return head_of_sums(features) * gate[:, None] + 10 * gate[:, None]

    features, gate = torch.rand(3, 2, 2, 2) + 1, torch.tensor([0.5, 1.0, 2.0])
    targets, seen = torch.zeros(3, 1, dtype=torch.int64), []
    for limit in (1, 100, 10**6):
        maps = ablationcam(
            head, features, head(features, gate), targets, rest=(gate,), limit_bytes=limit
        )
        seen.append(maps)
    # the gate scales logit and drop alike
    sums = features.sum(dim=(2, 3)) * torch.tensor([2.0, -1.0])
    weights = sums / (sums.sum(dim=1, keepdim=True) + 10)
    for maps in seen:
        torch.testing.assert_close(maps[:, 0], torch.einsum("nchw,nc->nhw", features, weights))


Masked = Callable[[Small, Tensor, Tensor, Tensor, int], Tensor]


def run_scorecam(model: Small, x: Tensor, features: Tensor, targets: Tensor, limit: int) -> Tensor:
    return scorecam(model, x, features, targets, limit_bytes=limit)


def run_ablationcam(
    model: Small, x: Tensor, features: Tensor, targets: Tensor, limit: int
) -> Tensor:
    def head(chunk: Tensor) -> Tensor:
        model.passes.append(chunk)
        logits: Tensor = model.head(chunk)
        return logits

    logits = model.head(features)
    return ablationcam(head, features, logits, targets, limit_bytes=limit)


MASKED = [run_scorecam, run_ablationcam]


@pytest.mark.parametrize("method", MASKED)
@pytest.mark.parametrize("limit", [1, 5_000, 9_999, 10**9])
def test_chunks_keep_the_limit_and_change_nothing(
    small: Small, images: Tensor, method: Masked, limit: int
) -> None:
    features = varied_features(small, images)
    expected = method(small, images, features, TARGETS, 3_000)
    small.passes.clear()
    found = method(small, images, features, TARGETS, limit)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    chunks = small.passes[1:] if method is run_scorecam else small.passes
    one = chunks[0][0].nbytes
    assert all(chunk.nbytes <= max(limit, one) for chunk in chunks)
    lengths = {len(chunk) for chunk in chunks}
    assert max(lengths) - min(lengths) <= 1
    passed = sum(map(len, chunks))
    assert len(chunks) == -(-passed // max(1, limit // one)), "no more chunks than needed"


@pytest.mark.parametrize("method", MASKED)
def test_chunks_go_across_images(small: Small, images: Tensor, method: Masked) -> None:
    features = varied_features(small, images)
    method(small, images, features, TARGETS, 10**9)
    # 3 images of 6 channels: one is 0 everywhere, and in one image another is constant
    assert len(small.passes[-1]) == (14 if method is run_scorecam else 15)


@pytest.mark.parametrize("method", MASKED)
def test_images_and_targets_are_on_their_own(small: Small, images: Tensor, method: Masked) -> None:
    features = varied_features(small, images)
    together = method(small, images, features, TARGETS, 10**9)
    for i in range(3):
        alone = method(small, images[i : i + 1], features[i : i + 1], TARGETS[i : i + 1, :1], 10**9)
        torch.testing.assert_close(alone[0, 0], together[i, 0])


@pytest.mark.parametrize("method", MASKED)
def test_no_images_give_no_maps(small: Small, images: Tensor, method: Masked) -> None:
    features = varied_features(small, images)
    assert method(small, images[:0], features[:0], TARGETS[:0], 10**9).shape == (0, 2, 3, 4)


@pytest.mark.parametrize("method", MASKED)
def test_masked_methods_leave_their_inputs_and_build_no_graph(
    small: Small, images: Tensor, method: Masked
) -> None:
    features = varied_features(small, images)
    small.requires_grad_(True)
    before = images.clone(), features.clone()
    maps = method(small, images, features, TARGETS, 10**9)
    assert not maps.requires_grad
    assert not any(chunk.requires_grad for chunk in small.passes)
    assert torch.equal(images, before[0])
    assert torch.equal(features, before[1])


def test_method_names() -> None:
    assert get_args(Method) == METHODS
    assert METHODS == (
        "hirescam", "gradcam", "cam", "gradcam++", "xgradcam", "layercam", "eigencam",
        "scorecam", "ablationcam", "channels",
    )  # fmt: skip
