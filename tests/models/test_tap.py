from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models import cut
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
