from __future__ import annotations

import pytest
import torch
from torch import nn

from audit.models.biases import bias_tangents
from audit.score.contributions import centre, contributions, regions
from tests.conftest import ARCHITECTURES, random_cut


def grid_masks(count: int, height: int, width: int) -> torch.Tensor:
    masks = torch.zeros(count, height, width)
    masks[:, 2:5, 1:4] = 1
    masks[:, 5, 1:4] = 0.4
    return masks


def test_regions_are_a_soft_partition() -> None:
    torch.manual_seed(0)
    cells = regions(torch.rand(4, 8, 8))
    assert cells.min() >= 0
    torch.testing.assert_close(cells.sum(dim=0), torch.ones(4, 8, 8))


def test_near_is_what_lies_within_one_cell() -> None:
    mask = torch.zeros(1, 5, 5)
    mask[0, 2, 2] = 1
    near = regions(mask)[1, 0]
    expected = torch.zeros(5, 5)
    expected[1:4, 1:4] = 1
    expected[2, 2] = 0
    torch.testing.assert_close(near, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parts_sum_to_the_centred_logits(architecture: str) -> None:
    parts = random_cut(architecture)
    torch.manual_seed(0)
    features = parts.backbone(torch.randn(7, 3, 32, 32) * 2)[0]
    logits = parts.head(features)
    found = contributions(
        parts.head, features, logits, regions(grid_masks(7, 8, 8)), biases=bias_tangents(parts.head)
    )
    total = found.object + found.near + found.far + found.bias
    bound = 1e-4 * (1 + logits.abs())
    assert ((total - centre(logits)).abs() <= bound).all()
    assert (found.residual.abs() <= bound).all()


def test_hand_computed_on_a_pooled_linear_head() -> None:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    linear = head[2]
    assert isinstance(linear, nn.Linear)
    linear.weight.data = torch.tensor([[4.0], [0.0]])
    linear.bias.data = torch.tensor([1.0, 0.0])
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    mask = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    with torch.no_grad():
        found = contributions(
            head, features, head(features), regions(mask), biases=bias_tangents(head)
        )
    # Class 0 gets the sum of the cells; centring halves it and gives class 1 the negative.
    torch.testing.assert_close(found.object, torch.tensor([[0.5, -0.5]]))
    torch.testing.assert_close(found.near, torch.tensor([[4.5, -4.5]]))
    torch.testing.assert_close(found.far, torch.zeros(1, 2))
    torch.testing.assert_close(found.bias, torch.tensor([[0.5, -0.5]]))
    torch.testing.assert_close(found.residual, torch.zeros(1, 2))


def test_equal_to_gradient_times_input_by_region_in_float64() -> None:
    parts = random_cut("cnn")
    torch.manual_seed(0)
    features = parts.backbone(torch.randn(3, 3, 32, 32))[0]
    cells = regions(grid_masks(3, 8, 8))
    found = contributions(
        parts.head, features, parts.head(features), cells, biases=bias_tangents(parts.head)
    )
    head = parts.head.double()
    leaf = features.double().requires_grad_()
    for k in range(10):
        (gradient,) = torch.autograd.grad(centre(head(leaf))[:, k].sum(), leaf)
        cellwise = (gradient * leaf.detach()).sum(dim=1)
        for ours, weight in zip((found.object, found.near, found.far), cells, strict=True):
            expected = (cellwise * weight).sum(dim=(1, 2))
            torch.testing.assert_close(ours[:, k].double(), expected, rtol=1e-4, atol=1e-5)


def test_one_vector_added_to_all_classes_changes_nothing() -> None:
    parts = random_cut("resnet20")
    features = parts.backbone(torch.randn(3, 3, 32, 32))[0]
    cells = regions(grid_masks(3, 8, 8))
    before = contributions(
        parts.head, features, parts.head(features), cells, biases=bias_tangents(parts.head)
    )
    parts.head.get_submodule("inner.linear").weight.data += torch.randn(1, 64)
    after = contributions(
        parts.head, features, parts.head(features), cells, biases=bias_tangents(parts.head)
    )
    torch.testing.assert_close(before.far, after.far, rtol=1e-4, atol=1e-4)


def test_a_curved_head_reports_a_residual() -> None:
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    features = torch.randn(5, 1, 4, 4)
    with torch.no_grad():
        logits = head(features)
        found = contributions(
            head, features, logits, regions(torch.rand(5, 4, 4)), biases=bias_tangents(head)
        )
    assert found.residual.abs().max() > 1e-3
    total = found.object + found.near + found.far + found.bias + found.residual
    torch.testing.assert_close(total, centre(logits))


def test_a_batch_norm_in_the_head_counts_its_mean_as_bias() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    norm.bias.data.normal_()
    head = nn.Sequential(norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    features = torch.randn(5, 4, 6, 6)
    with torch.no_grad():
        found = contributions(
            head.eval(),
            features,
            head(features),
            regions(torch.rand(5, 6, 6)),
            biases=bias_tangents(head),
        )
    assert found.residual.abs().max() < 1e-5
