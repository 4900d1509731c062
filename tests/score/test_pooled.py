"""Closed forms for pooled linear heads, against derivatives and composites that are really made."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from audit.score.contributions import contributions, object_and_background, regions
from audit.score.pooled import (
    PooledDonors,
    PooledHead,
    RegionSums,
    pooled_logits,
    pooled_supplied,
    pooled_transplants,
    region_sums_of,
)
from audit.score.transplant import Donors, Transplants, choose_donors, transplant

SAMPLES, GRID, DONORS = 7, (3, 4), 12


class Pooled(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


@pytest.fixture(params=[(5, 3), (3, 9)], ids=["fewer classes", "more classes"])
def head(request: pytest.FixtureRequest) -> Pooled:
    torch.manual_seed(1)
    return Pooled(*request.param).double().requires_grad_(False)


def some(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cells(families: int, *, unknown: bool) -> Tensor:
    """Weights of regions, R×F×N×h×w, some of samples without object or without background."""
    soft = some(families, SAMPLES, *GRID, seed=3).sigmoid()
    masks = torch.where(soft > 0.6, soft, 0.0)
    masks[:, 0], masks[:, 1] = 0.0, 1.0
    hidden = some(families, SAMPLES, *GRID, seed=4).sigmoid() * (1 - masks) if unknown else None
    return regions(masks, hidden)


def donors_of(head: Pooled, families: int) -> Donors:
    channels, classes = head.linear.in_features, head.linear.out_features
    masks = (some(families, DONORS, *GRID, seed=6) > 0).double()
    labels = torch.arange(DONORS) % classes
    return Donors.of(
        some(DONORS, channels, *GRID, seed=5), masks, labels, classes, linear=head.linear.weight
    )


def both(
    head: Pooled, weights: Tensor, partners: int
) -> tuple[Transplants, Transplants, RegionSums]:
    """Transplants as they are made, and in closed form."""
    features = some(SAMPLES, head.linear.in_features, *GRID, seed=2)
    labels = torch.tensor([0, 1, 2, 0, 1, -1, 2])
    donors = donors_of(head, weights.shape[1])
    chosen = choose_donors(torch.arange(SAMPLES), labels, donors, partners)
    made = transplant(
        head, features, weights[:3], labels, donors, chosen, _background(head, weights)
    )
    pooled = PooledHead.of(head, head.linear.weight, features.shape[1:])
    few = -(-partners // 2)
    tried = [chosen, *[chosen[:, :few]] * (weights.shape[1] - 1)]
    kept = [1 - masks[own] for masks, own in zip(donors.grid_masks, tried, strict=True)]
    sums = region_sums_of(features, weights, kept)
    closed = pooled_transplants(
        pooled,
        sums.amounts,
        pooled_logits(pooled, sums, GRID[0] * GRID[1]),
        weights[2, 0],
        labels,
        donors,
        PooledDonors.of(donors, pooled),
        chosen,
    )
    return made, closed, sums


def _background(head: Pooled, weights: Tensor) -> Tensor:
    features = some(SAMPLES, head.linear.in_features, *GRID, seed=2)
    parts = contributions(
        head, features, head(features), weights[:, 0], biases={"linear.bias": head.linear.bias}
    )
    return parts.background + parts.bias


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize(("families", "partners"), [(1, 1), (1, 4), (3, 5)])
def test_transplants_equal_those_that_are_made(
    head: Pooled, families: int, partners: int, unknown: bool
) -> None:
    made, closed, _ = both(head, cells(families, unknown=unknown), partners)
    assert torch.equal(made.objects, closed.objects)
    assert torch.equal(made.predictions, closed.predictions)
    assert (made.predictions >= 0).sum() > 5 * families or partners == 1
    for name in ("rate", "far_rate", "additive_rate"):
        expected, found = getattr(made, name), getattr(closed, name)
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("unknown", [False, True])
def test_contributions_equal_derivatives(head: Pooled, unknown: bool) -> None:
    features = some(SAMPLES, head.linear.in_features, *GRID, seed=2)
    weights, logits = cells(2, unknown=unknown), head(features)
    targets, alt = logits.argmax(dim=1), torch.tensor([0, 1, 2, -1, 1, 0, 2])
    parts = contributions(
        head, features, logits, weights[:, 0], biases={"linear.bias": head.linear.bias}
    )
    pooled = PooledHead.of(head, head.linear.weight, features.shape[1:])
    sums = region_sums_of(features, weights)
    count = GRID[0] * GRID[1]
    found = pooled_supplied(
        pooled, sums, pooled_logits(pooled, sums, count), logits, targets, alt, count
    )

    def of(classes: Tensor, values: Tensor) -> Tensor:
        return values.gather(1, classes.clamp_min(0)[:, None])[:, 0]

    every = (parts.object, parts.near, parts.far, parts.unknown)
    torch.testing.assert_close(found.target, torch.stack([of(targets, p) for p in every], dim=1))
    torch.testing.assert_close(found.alt, torch.stack([of(alt, p) for p in every[:3]], dim=1))
    torch.testing.assert_close(found.bias, of(targets, parts.bias))
    torch.testing.assert_close(found.residual, torch.zeros(SAMPLES).double())
    # The first sample has no object, the second no background.
    assert found.object_pred[0] == -1
    assert torch.equal(found.object_pred[1:], parts.object.argmax(dim=1)[1:])
    rest = [0, *range(2, SAMPLES)]
    assert torch.equal(found.background_pred[rest], parts.background.argmax(dim=1)[rest])
    assert found.background_pred[1] == -1
    torch.testing.assert_close(sums.whole, features.sum(dim=(2, 3)))


def test_sums_do_not_depend_on_how_features_lie() -> None:
    features, weights = some(SAMPLES, 5, *GRID, seed=2), cells(1, unknown=True)
    last = features.contiguous(memory_format=torch.channels_last)
    for one, other in zip(
        (region_sums_of(features, weights).regions, region_sums_of(features, weights).whole),
        (region_sums_of(last, weights).regions, region_sums_of(last, weights).whole),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("with_biases", [False, True])
def test_object_and_background_equal_the_regions(with_biases: bool) -> None:
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(5 * 4, 6), nn.GELU(),
        nn.Linear(6, 4),
    ).double().requires_grad_(False)  # fmt: skip
    features, weights = some(SAMPLES, 5, *GRID, seed=2), cells(1, unknown=True)[:, 0]
    biases = {"2.bias": head[2].bias, "4.bias": head[4].bias} if with_biases else {}
    parts = contributions(head, features, head(features), weights, biases=biases)
    found = object_and_background(head, features, weights, biases=biases)
    for one, expected in zip(found, (parts.object, parts.background, parts.bias), strict=True):
        torch.testing.assert_close(one, expected)
    assert bool(parts.bias.any()) == with_biases
