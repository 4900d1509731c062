"""Several methods, layers and copies in one pass, against doing each by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.cam import METHODS, Method
from audit.errors import UsageError
from audit.explaining import Explainer, Smooth
from audit.models import Cut, cut, plain_kernels
from tests.conftest import random_model

IMAGES = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator())


def make(parts: Cut, *methods: Method, smooth: Smooth = "none") -> Explainer:
    return Explainer(
        parts, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), methods=methods, smooth=smooth
    )


def two_best(logits: Tensor) -> Tensor:
    return logits.argsort(dim=1, descending=True)[:, :2]


def close(ours: Tensor, theirs: Tensor, part: float = 2e-6) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=part * float(theirs.abs().max()))


@pytest.mark.parametrize("architecture", ["cnn", "resnet20"])
def test_all_methods_in_one_pass_equal_each_alone(architecture: str) -> None:
    parts = cut(random_model(architecture), (32, 32))
    methods = [m for m in METHODS if m != "cam" or parts.linear is not None]
    together = make(parts, *methods)(IMAGES, two_best)
    assert list(together.maps) == methods
    for method in methods:
        alone = make(parts, method)(IMAGES, two_best)
        assert alone.maps[method].shape == (5, 2, *parts.grid)
        close(together.maps[method], alone.maps[method])


def test_gradient_methods_equal_a_backward_through_the_whole_network() -> None:
    model = random_model("cnn")
    explainer = make(cut(model, (32, 32)), "hirescam", "gradcam")
    found = explainer(IMAGES, two_best)
    images = explainer.normalised(IMAGES).requires_grad_()
    kept: list[Tensor] = []
    handle = model.get_submodule("features.2.2").register_forward_hook(
        lambda *hooked: kept.append(hooked[-1])
    )
    logits = model(images)
    handle.remove()
    for place in (0, 1):
        target = two_best(logits)[:, place]
        score = logits.gather(1, target[:, None]).sum()
        gradient, _ = torch.autograd.grad(score, [kept[0], images], retain_graph=True)
        close(found.maps["hirescam"][:, place], (kept[0] * gradient).sum(dim=1).detach(), 1e-6)
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        close(found.maps["gradcam"][:, place], (kept[0] * weights).sum(dim=1).detach(), 1e-6)


@pytest.mark.parametrize("way", ["graph", "hooks"])
def test_maps_of_several_layers_are_averaged_at_equal_mass(way: str) -> None:
    model = random_model("cnn")
    # Modules, because hooks see nothing else.
    layers = ("features.1.2", "features.2.0", "features.2.2")
    fused = make(cut(model, (32, 32), layers=layers, way=way), "hirescam", "layercam")  # type: ignore[arg-type]
    assert fused.map_grid == (16, 16)
    found = fused(IMAGES, two_best)
    plain = make(cut(model, (32, 32)), "hirescam")(IMAGES, two_best)
    torch.testing.assert_close(found.logits, plain.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.features, plain.features)
    for method in ("hirescam", "layercam"):
        total = torch.zeros(5, 2, 16, 16)
        for layer in layers:
            single = make(cut(model, (32, 32), layers=(layer,)), method)  # type: ignore[arg-type]
            large = F.interpolate(
                single(IMAGES, two_best).maps[method],  # type: ignore[index]
                size=(16, 16),
                mode="bilinear",
            )
            total += large / large.clamp_min(0).sum(dim=(2, 3), keepdim=True) / 3
        close(found.maps[method], total)  # type: ignore[index]


def test_smoothing_averages_raw_maps_of_changed_copies() -> None:
    parts = cut(random_model("cnn"), (32, 32))
    plain = make(parts, "hirescam")
    targets = plain(IMAGES, two_best).targets

    def raw(images: Tensor) -> Tensor:
        # What an image of real numbers would give; uint8 cannot hold a tenth less.
        normalised = (images - plain.mean) / plain.std
        leaf = parts.backbone(normalised)[0].requires_grad_()
        logits = parts.head(leaf)
        maps = []
        for target in targets.unbind(dim=1):
            (gradient,) = torch.autograd.grad(
                logits.gather(1, target[:, None]).sum(), leaf, retain_graph=True
            )
            maps.append((leaf * gradient).sum(dim=1))
        return torch.stack(maps, dim=1).detach()

    lit = [IMAGES.float() * factor for factor in (1.0, 0.9, 1.1)]
    lit = [images.clamp(max=255) for images in lit]
    flipped = [raw(images.flip(3)).flip(3) for images in lit]
    by_flip = make(parts, "hirescam", smooth="flip")(IMAGES, two_best)
    close(by_flip.maps["hirescam"], (raw(lit[0]) + flipped[0]) / 2)
    by_both = make(parts, "hirescam", smooth="flip+intensity")(IMAGES, two_best)
    total = sum(raw(images) for images in lit) + sum(flipped)
    close(by_both.maps["hirescam"], total / 6)
    torch.testing.assert_close(by_both.logits, plain(IMAGES, two_best).logits)


class Tokens(nn.Module):
    """A class token and one attention layer over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
            for _ in range(3)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


@pytest.mark.parametrize("way", ["graph", "hooks"])
def test_class_tokens_go_with_their_images(way: str) -> None:
    torch.manual_seed(0)
    model = Tokens().eval()
    parts = cut(model, (32, 32), way=way)  # type: ignore[arg-type]
    # By hooks the last block's first norm can be explained; beside it goes what bypasses it.
    assert (parts.grid, parts.rest) == ((4, 4), 1 if way == "graph" else 2)
    together = make(parts, "hirescam", "ablationcam", "scorecam")(IMAGES, two_best)
    for place in range(5):
        alone = make(parts, "hirescam", "ablationcam", "scorecam")(
            IMAGES[place : place + 1], two_best
        )
        for method, maps in alone.maps.items():
            torch.testing.assert_close(together.maps[method][place], maps[0], rtol=1e-3, atol=1e-6)


def test_methods_that_do_not_fit_are_refused() -> None:
    flat = cut(random_model("cnn"), (32, 32))
    with pytest.raises(UsageError, match="cam does not fit"):
        make(flat, "cam")
    several = cut(random_model("resnet20"), (32, 32), layers=("layer2", "layer3"))
    with pytest.raises(UsageError, match="ablationcam explains one layer"):
        make(several, "hirescam", "ablationcam")
    with pytest.raises(UsageError, match="no method 'magic'"):
        make(flat, "magic")  # type: ignore[arg-type]


class ChannelsLast(nn.Module):
    """Activations N×h×w×C between two layers, as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.second = nn.Linear(6, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu().permute(0, 2, 3, 1)
        return self.head(self.second(x).relu().mean(dim=(1, 2)))


@pytest.mark.parametrize("way", ["graph", "hooks"])
def test_several_layers_of_another_order_are_averaged(way: str) -> None:
    torch.manual_seed(0)
    model = ChannelsLast().eval()
    fused = make(cut(model, (32, 32), layers=("first", "second"), way=way), "hirescam")  # type: ignore[arg-type]
    found = fused(IMAGES, two_best).maps["hirescam"]
    total = torch.zeros_like(found)
    for layer in ("first", "second"):
        maps = make(cut(model, (32, 32), layers=(layer,)), "hirescam")(IMAGES, two_best)
        raw = maps.maps["hirescam"]
        total += raw / raw.clamp_min(0).sum(dim=(2, 3), keepdim=True) / 2
    close(found, total)


def test_the_callers_modes_change_nothing() -> None:
    model = random_model("cnn")
    plain = make(cut(model, (32, 32)), "hirescam")(IMAGES, two_best).maps["hirescam"]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        parts = cut(model, (32, 32))
        explainer = make(parts, "hirescam")
        with plain_kernels():
            found = explainer(IMAGES.clone(), two_best).maps["hirescam"]
    close(found, plain)


@pytest.mark.parametrize("others", [0, 1, 4, 9])
def test_a_second_class_of_few_samples_is_explained_as_one_of_all(others: int) -> None:
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8)
    explainer = make(cut(random_model("cnn"), (32, 32)), "hirescam")
    best = explainer(images, two_best).targets
    second = torch.where(torch.arange(12) < others, best[:, 1], best[:, 0])
    classes = torch.stack([best[:, 0], second], dim=1)
    found = explainer(images, lambda _: classes, evidence=True)
    alone = explainer(images, lambda _: second[:, None], evidence=True)
    close(found.maps["hirescam"][:, 1], alone.maps["hirescam"][:, 0])
    assert found.evidence is not None and alone.evidence is not None
    close(found.evidence.targets[1], alone.evidence.targets[0])
    leaf = found.features.clone().requires_grad_()
    (mean,) = torch.autograd.grad(explainer.head(leaf).mean(dim=1).sum(), leaf)
    close(found.evidence.mean, mean)
