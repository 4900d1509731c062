from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.explaining import Explainer
from audit.models import cut
from audit.sanity import MOST_STAGES, cascade, count_stages, rank_correlation
from tests.conftest import make_step

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
