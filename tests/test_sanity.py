from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.explaining import Explainer
from audit.models import cut
from audit.sanity import MOST_STAGES, cascade, count_stages, rank_correlation
from tests.conftest import make_step, random_model

IMAGES = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator())


class Edges(nn.Module):
    """Features that no training made: the image's edges."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]])
        self.register_buffer("kernel", kernel.expand(3, 1, 3, 3).clone())
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        edges = F.conv2d(x, self.kernel, padding=1, groups=3, stride=2).relu()
        return self.linear(edges.mean(dim=(2, 3)))


def test_maps_of_a_trained_network_follow_its_weights(demo_step) -> None:  # type: ignore[no-untyped-def]
    from audit.data.demo import open_demo

    images = open_demo("test").__getitems__(list(range(16))).images
    explainer = demo_step.explainer
    before = {name: tensor.clone() for name, tensor in explainer.state_dict().items()}
    stages = list(cascade(explainer, images, seed=0))
    assert len(stages) == count_stages(explainer) <= MOST_STAGES
    assert stages[-1].share == 1.0
    assert [s.share for s in stages] == sorted(s.share for s in stages)
    last = stages[-1].correlations["hirescam"]
    assert last.shape == (16,)
    assert abs(np.nanmean(last)) < 0.3
    after = explainer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = list(cascade(explainer, images, seed=0, batch_size=5))
    np.testing.assert_allclose(again[-1].correlations["hirescam"], last, atol=0.05)


def test_maps_that_only_trace_the_image_are_found_out() -> None:
    explainer = Explainer(
        cut(Edges(), (32, 32)), mean=(0.5,) * 3, std=(0.2,) * 3, methods=("channels",)
    )
    for stage in cascade(explainer, IMAGES, seed=0):
        np.testing.assert_allclose(stage.correlations["channels"], 1.0)


def test_rank_correlation_is_undefined_for_constant_maps() -> None:
    maps = np.array([[1.0, 2, 3, 4], [5, 5, 5, 5], [1, np.nan, 2, 3]])
    found = rank_correlation(maps, np.array([[4.0, 3, 2, 1]] * 3))
    assert found[0] == pytest.approx(-1)
    assert np.isnan(found[1:]).all()


def test_every_parameter_is_drawn_anew() -> None:
    explainer = make_step("cnn", "demo").explainer
    stages = [stage.layer for stage in cascade(explainer, IMAGES, seed=1)]
    assert stages[0] == "classifier.4"
    assert stages[-1] == "features.0.0"


def test_cam_falls_apart_as_the_methods_do_that_equal_it() -> None:
    torch.manual_seed(0)
    model = random_model("resnet20")
    explainer = Explainer(
        cut(model, (32, 32)), mean=(0.5,) * 3, std=(0.2,) * 3, methods=("cam", "gradcam")
    )
    for stage in cascade(explainer, IMAGES, seed=0):
        ours, theirs = stage.correlations["cam"], stage.correlations["gradcam"]
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


class Backwards(nn.Module):
    """Registers its layers in another order than it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 4)
        self.first = nn.Conv2d(3, 5, 3, stride=2)
        self.second = nn.Conv2d(5, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.second(self.first(x).relu()).relu().mean(dim=(2, 3)))


def test_layers_are_drawn_in_the_order_of_use() -> None:
    for way in ("graph", "hooks"):
        parts = cut(Backwards().eval(), (32, 32), way=way)  # type: ignore[arg-type]
        explainer = Explainer(parts, mean=(0.5,) * 3, std=(0.2,) * 3)
        names = [stage.layer for stage in cascade(explainer, IMAGES, seed=0)]
        assert names == ["fc", "second", "first"]
