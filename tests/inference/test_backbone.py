"""The fast backbone gives what the backbone as it is gives."""

from __future__ import annotations

import operator

import pytest
import torch
import torchvision
from torch import Tensor, nn

from audit.inference import FastBackbone
from audit.inference.building import piece_size
from audit.inference.choosing import head_of
from audit.models import Cut, cut
from audit.products import PackedLinear
from tests.conftest import ARCHITECTURES, random_cut, random_model

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def pictures(count: int, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def expected(parts: Cut, images: Tensor) -> tuple[Tensor, ...]:
    mean, std = (255 * torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    with torch.no_grad():
        found: tuple[Tensor, ...] = parts.backbone((images.float() - mean) / std)
    return found


def fast(parts: Cut, **settings: object) -> FastBackbone:
    def fail(message: str) -> None:
        raise AssertionError(message)

    given: dict[str, object] = {"tell": fail} | settings
    return FastBackbone(parts.backbone, mean=MEAN, std=STD, **given)  # type: ignore[arg-type]


def gap(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def randomised(network: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias, 0, 0.3)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_the_same(architecture: str) -> None:
    parts = random_cut(architecture)
    images = pictures(9)
    before = {name: value.clone() for name, value in parts.backbone.state_dict().items()}
    backbone = fast(parts)
    (wanted,), (found,) = expected(parts, images), backbone(images)
    assert found.shape == wanted.shape and found.dtype == torch.float32
    assert gap(found, wanted) < 1e-5
    assert "batch norms folded" in backbone.how and backbone.notes == ()
    torch.testing.assert_close(backbone(images.float()), (found,), rtol=0, atol=0)
    after = parts.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(after[name].stride() == value.stride() for name, value in before.items())


class Odd(nn.Module):
    """Convolutions and norms in ways that a fold must not take for the usual one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2, padding_mode="reflect")
        self.bare = nn.BatchNorm2d(8, affine=False)
        self.down = nn.Conv2d(8, 8, 1, stride=2)
        self.last = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.norm(x) + x  # read twice: stays
        y = self.bare(self.twice(x))
        y = torch.nn.functional.relu6(self.twice(y))  # its weights serve two calls
        y = self.wide(y).relu_()
        z = self.down(y)
        z += self.last(y)
        return self.head(self.act(z).mean(dim=(2, 3)))


@pytest.mark.parametrize("exported", [False, True])
def test_unusual_networks(exported: bool) -> None:
    torch.manual_seed(0)
    network = randomised(Odd())
    if exported:
        dynamic = ({0: torch.export.Dim("batch", max=64)},)
        program = torch.export.export(network, (torch.ones(2, 3, 16, 16),), dynamic_shapes=dynamic)
        network = program.module(check_guards=False)
        del network.eval, network.train
    parts = cut(network, (16, 16))
    images = pictures(5, 16)
    backbone = fast(parts)
    for found, wanted in zip(backbone(images), expected(parts, images), strict=True):
        assert gap(found, wanted) < 1e-5
    assert "packed" in backbone.how


class Writing(nn.Module):
    """Writes into what a convolution has read, before its norm is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.other = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x * 1
        y = self.conv(x)
        x.mul_(2)
        return self.norm(y).relu() + self.other(x).sigmoid(), x


def test_nothing_is_computed_after_its_input_was_written_into() -> None:
    graph = torch.fx.symbolic_trace(randomised(Writing()))
    backbone = FastBackbone(graph, mean=MEAN, std=STD)
    images = backbone.normalised(pictures(5))
    for found, wanted in zip(backbone(pictures(5)), graph(images.clone()), strict=True):
        assert gap(found, wanted) < 1e-5
    assert backbone.how == ("channels last", "packed") and backbone.notes == ()


def test_what_an_exported_program_is_made_of_is_folded() -> None:
    network = randomised(torchvision.models.resnet18(num_classes=5))
    dynamic = ({0: torch.export.Dim("batch", max=64)},)
    program = torch.export.export(network, (torch.ones(2, 3, 32, 32),), dynamic_shapes=dynamic)
    graph = program.module(check_guards=False)
    del graph.eval, graph.train
    for module in (network, graph):
        parts = cut(module, (32, 32))
        backbone = fast(parts)
        (found,) = backbone(pictures(3))
        assert gap(found, expected(parts, pictures(3))[0]) < 1e-5
        assert backbone.how == ("batch norms folded", "channels last", "packed")
        code = [str(n.target) for n in backbone._run.inner.graph.nodes]  # type: ignore[union-attr]
        assert not any("norm" in each or "relu" in each or "add" in each for each in code)
        assert operator.add not in [n.target for n in backbone._run.inner.graph.nodes]  # type: ignore[union-attr]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_gives_float32_that_is_near(precision: str) -> None:
    parts = random_cut("resnet20")
    (wanted,) = expected(parts, pictures(8))
    (found,) = fast(parts, precision=precision)(pictures(8))
    assert found.dtype == torch.float32
    assert 1e-5 < gap(found, wanted) < 5e-2


def test_batches_of_any_size_agree() -> None:
    parts = random_cut("resnet20")
    backbone = fast(parts)
    images = pictures(300)
    assert piece_size(parts.backbone, torch.ones(2, 3, 32, 32), torch.float32) == (
        32 * torch.get_num_threads()  # 16 channels of 32×32 are 64 KiB
    )
    (whole,) = backbone(images)
    for size in (1, 7, 100):
        parted = torch.cat([backbone(piece)[0] for piece in images.split(size)])
        assert gap(parted, whole) < 1e-5


def test_a_backbone_without_a_graph_is_used_as_it_is() -> None:
    network = randomised(torchvision.models.resnet18(num_classes=5))
    parts = cut(network, (32, 32), way="hooks")
    backbone = fast(parts)
    torch.testing.assert_close(
        backbone(pictures(3)), expected(parts, pictures(3)), rtol=1e-5, atol=1e-5
    )
    assert backbone.how == ("as it is",)


def test_a_fast_copy_that_is_wrong_is_left_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.inference import building

    right = building.convolutions

    def wrong(*args: object, **kwargs: object) -> object:
        for each in right(*args, **kwargs):  # type: ignore[arg-type]
            each.weight = each.weight * 1.01
            yield each

    monkeypatch.setattr(building, "convolutions", wrong)
    told: list[str] = []
    parts = random_cut("cnn")
    backbone = fast(parts, tell=told.append)
    torch.testing.assert_close(
        backbone(pictures(3)), expected(parts, pictures(3)), rtol=1e-5, atol=1e-5
    )
    assert backbone.how == ("as it is",)
    assert len(told) == len(backbone.notes) == 2
    assert "off by" in told[0]


def test_another_image_size_is_made_ready_anew() -> None:
    parts = random_cut("cnn")
    backbone = fast(parts)
    for side in (32, 64):
        images = pictures(3, side)
        (found,), (wanted,) = backbone(images), expected(parts, images)
        assert gap(found, wanted) < 1e-5


def test_the_head_for_composites_gives_the_heads_logits() -> None:
    parts = cut(random_model("cnn"), (32, 32))
    fast = head_of(parts)
    assert any(isinstance(part, PackedLinear) for part in fast.modules())
    features = torch.randn(9, parts.channels, *parts.grid)
    with torch.no_grad():
        expected, found = parts.head(features), fast(features)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_a_head_that_is_no_graph_is_left() -> None:
    parts = cut(random_model("cnn"), (32, 32), way="hooks")
    assert head_of(parts) is parts.head
