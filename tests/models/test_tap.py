from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models import Cut, cut, list_layers, plain_kernels
from audit.models.classmap import ClassMap, MappedClasses
from tests.conftest import ARCHITECTURES, random_model


@pytest.mark.parametrize(
    ("architecture", "layer", "channels", "linear"),
    [
        ("cnn", "features.2.2", 128, False),
        ("cnn-se", "features.2.3", 128, False),
        ("resnet20", "layer3.2", 64, True),
    ],
)
def test_target_layer_of_our_models(
    architecture: str, layer: str, channels: int, linear: bool
) -> None:
    parts = cut(random_model(architecture), (32, 32))
    assert parts.layer.startswith(layer)
    assert (parts.channels, parts.grid) == (channels, (8, 8))
    assert (parts.linear is not None) == linear


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_halves_make_the_whole_and_the_model_stays_as_it_was(architecture: str) -> None:
    model = random_model(architecture)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parts = cut(model, (32, 32))
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(parts.head(*parts.backbone(images)), model(images))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not model.training
    assert sum(len(m._forward_hooks) for m in model.modules()) == 0
    mine = {p.data_ptr() for p in model.parameters()}
    halves = [*parts.backbone.parameters(), *parts.head.parameters()]
    assert {p.data_ptr() for p in halves} == mine
    assert sum(p.numel() for p in halves) == sum(p.numel() for p in model.parameters())


def test_other_sizes_give_other_grids() -> None:
    assert cut(random_model("resnet20"), (64, 48)).grid == (16, 12)


class Branching(nn.Module):
    """Logits that also read the image around the target layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.relu(self.conv(x)).mean(dim=(2, 3))
        return self.linear(pooled) + x.flatten(1)[:, :2]


class Dynamic(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if x.sum() > 0 else x.amax(dim=(2, 3))


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Branching(), "the head also reads x"),
        (Dynamic(), "dynamic control flow"),
        (Flat(), "no layer with a map"),
        (nn.Sequential(nn.Conv2d(3, 4, 9), nn.AdaptiveAvgPool2d(1)), "does not run on 8×8"),
    ],
)
def test_models_that_cannot_be_explained_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        cut(model.eval(), (8, 8))


def test_logits_gathered_by_class_are_no_grid() -> None:
    members = tuple(tuple(range(k, 64, 16)) for k in range(16))
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 64),
    )  # fmt: skip
    parts = cut(MappedClasses(network, ClassMap(members)), (32, 32))
    assert (parts.layer, parts.grid, parts.outputs) == ("1", (32, 32), 16)


class Block(nn.Module):
    """A block of a vision transformer that normalises before it attends."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, 2, batch_first=True)
        self.mlp = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + F.gelu(self.mlp(self.norm2(x)))


class Transformer(nn.Module):
    """A vision transformer whose logits read the class token, or the mean of the patches."""

    def __init__(self, pool: str) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList([Block(8), Block(8)])
        self.norm, self.last = nn.LayerNorm(8), nn.Linear(8, 3)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        if self.pool == "norm, mean":
            return self.last(self.norm(x)[:, 1:].mean(dim=1))
        if self.pool == "mean, norm":
            return self.last(self.norm(x[:, 1:].mean(dim=1)))
        return self.last(self.norm(x)[:, 0])


def transformer(pool: str) -> nn.Module:
    torch.manual_seed(0)
    model = Transformer(pool)
    for key, tensor in model.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(tensor, std=0.2)
    return model.eval().requires_grad_(False)


def share_left(parts: Cut, images: Tensor) -> float:
    """How much of the products of features and gradient is left after summing over channels."""
    features, *rest = (each.detach() for each in parts.backbone(images))
    leaf = features.requires_grad_()
    (gradient,) = torch.autograd.grad(parts.head(leaf, *rest)[:, 1].sum(), leaf)
    products = leaf.detach() * gradient
    return float((products.sum(dim=1).abs() / products.abs().sum(dim=1)).median())


@pytest.mark.parametrize(("pool", "layer", "rest"), [
    ("token", "blocks.1.norm1", 2), ("norm, mean", "getitem", 0), ("mean, norm", "getitem", 0),
])  # fmt: skip
def test_a_layer_whose_products_cancel_is_not_chosen(pool: str, layer: str, rest: int) -> None:
    model = transformer(pool)
    parts = cut(model, (16, 16))
    assert parts.layer.startswith(layer)
    assert (parts.rest, parts.grid, parts.notes, parts.how) == (rest, (4, 4), (), "torch.fx")
    images = torch.randn(2, 3, 16, 16)
    with plain_kernels():
        assert share_left(parts, images) > 0.02
    if not rest:
        return
    # All that the patches decide passes through the layer.
    features, *others = parts.backbone(images)
    other = parts.backbone(torch.randn(2, 3, 16, 16))
    beside = [torch.cat([mine[:, :1], theirs[:, 1:]], dim=1) for mine, theirs in
              zip(others[1:], other[2:], strict=True)]  # fmt: skip
    torch.testing.assert_close(parts.head(features, others[0], *beside), model(images))


def test_a_layer_whose_products_cancel_can_be_named() -> None:
    model = transformer("token")
    layers, chosen, _ = list_layers(model, (16, 16))
    assert chosen == "blocks.1.norm1"
    assert next(layer for layer in layers if layer.name == chosen).reason == ""
    cancelling = [layer.name for layer in layers if layer.cancels]
    assert cancelling
    parts = cut(model, (16, 16), layers=cancelling[-1:])
    assert parts.layer == cancelling[-1]
    with plain_kernels():
        assert share_left(parts, torch.randn(2, 3, 16, 16)) < 1e-3
    (note,) = parts.notes
    assert "cancel" in note
    assert "rounding noise" in note


def test_hooks_choose_the_same_layer_of_a_transformer() -> None:
    parts = cut(transformer("token"), (16, 16), way="hooks")
    assert (parts.layer, parts.how, parts.grid) == ("blocks.1.norm1", "hooks", (4, 4))


class OfTwo(nn.Module):
    """Takes two images at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.conv(x.reshape(2, 3, 8, 8)).relu().mean(dim=(2, 3)))


@pytest.mark.filterwarnings("ignore:`torch.jit.trace")
def test_a_fixed_batch_that_was_not_told_is_refused_in_words() -> None:
    program = torch.jit.trace(OfTwo().eval(), torch.randn(2, 3, 8, 8))
    with pytest.raises(ModelError, match="batch size is fixed"):
        cut(program, (8, 8))
    assert cut(program, (8, 8), batch=2).grid == (6, 6)


class Noting(nn.Module):
    """Keeps its activations, as code made for class activation maps often does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.seen: list[Tensor] = []
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x).relu()
        self.seen.append(self.last)
        return self.linear(self.last.mean(dim=(2, 3)))


def test_tracing_leaves_no_stand_ins_on_a_network() -> None:
    model = Noting().eval()
    cut(model, (8, 8))
    assert all(type(each) is Tensor for each in model.seen)
    assert model.last is None or type(model.last) is Tensor
