"""Other libraries do the same work as the audit, and bare passes the same as the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audit.models import build
from benchmarks.bare import bare_ways, folded
from benchmarks.floor import counted
from benchmarks.libraries import peers_of
from benchmarks.ours import Ours, audit_of
from benchmarks.peers import check, check_all, masked_batches
from benchmarks.scoring import is_near, score
from benchmarks.subjects import SUBJECTS, normalised

RESNET = SUBJECTS["resnet20"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return RESNET.open()


@pytest.fixture(scope="module")
def ours(network: nn.Module) -> Iterator[Ours]:
    with audit_of(RESNET, network, 24, batch_size=12) as opened:
        yield opened


@pytest.mark.filterwarnings("ignore")
def test_their_scores_are_the_audits(network: nn.Module, ours: Ours) -> None:
    peers = peers_of(RESNET, network, "cpu")
    batches = masked_batches(ours)
    said = check_all(peers, batches, ours)
    assert len(said) == len(peers) == 12
    # It can fail: other masks give other scores.
    other = [replace(batch, masks=batch.masks.flip(2)) for batch in batches]
    with pytest.raises(AssertionError, match="torch-cam CAM"):
        check(peers[0], other, ours.table())


@pytest.mark.filterwarnings("ignore")
def test_libraries_leave_the_network_as_it_was(network: nn.Module) -> None:
    peers = peers_of(RESNET, network, "cpu")
    assert not any(parameter.requires_grad for parameter in network.parameters())
    hooks = [len(part._forward_hooks) for part in network.modules()]
    assert sum(hooks) == 0
    assert {peer.last for peer in peers} == {True, False}


def test_scores_by_hand() -> None:
    heat = torch.tensor([[[4.0, 2.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    mask = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    found = score(heat, mask)
    assert found["object_share"] == np.float32(5 / 8)
    # At or above 2: two pixels, one of them on the object of two.
    assert found["iou_50"] == np.float32(1 / 3)
    assert found["pointing_hit"] == 1


def test_a_peak_may_miss_by_the_radius() -> None:
    inside = torch.zeros(1, 5, 5, dtype=torch.bool)
    inside[0, 0, 0] = True

    def near(row: int, column: int, radius: int) -> bool:
        return bool(is_near(inside, torch.tensor([5 * row + column]), radius))

    assert [near(0, 1, 1), near(1, 1, 1), near(0, 2, 1), near(0, 2, 2)] == [
        True, False, False, True
    ]  # fmt: skip


def test_folding_keeps_logits_and_names(network: nn.Module) -> None:
    images = normalised(RESNET.images(4))
    fold = folded(network)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fold.modules())
    assert dict(fold.named_modules()).keys() == dict(network.named_modules()).keys()
    assert torch.allclose(fold(images), network(images), atol=1e-4)
    # Its own stay.
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_bare_way_gives_the_logits(network: nn.Module, precision: str) -> None:
    batches = normalised(RESNET.images(8)).split(4)
    expected = network(batches[-1])
    ways = bare_ways(network, batches, precision=precision, compiled=False)  # type: ignore[arg-type]
    apart = {name: _apart(run(), expected) for name, run in ways.items()}
    assert len(apart) >= 4
    assert max(apart.values()) < (1e-4 if precision == "float32" else 0.1)
    assert next(network.parameters()).dtype == torch.float32


def _apart(found: object, expected: Tensor) -> float:
    assert isinstance(found, Tensor)
    return float((found.float() - expected).abs().max() / expected.abs().max())


def test_activations_of_random_networks_are_of_a_trained_ones_size(network: nn.Module) -> None:
    raw = build("resnet20", 10).eval()
    images = normalised(RESNET.images(16))
    with torch.no_grad():
        assert 0.1 < float(network(images).std()) < 10
        assert float(raw(images).std()) != pytest.approx(float(network(images).std()), rel=0.1)


def test_the_floor_counts_by_hand() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Flatten())
    operations, moved = counted(layer, torch.zeros(2, 3, 4, 4))
    assert operations == 2 * 16 * 9 * 3 * 8
    assert moved == 4 * (3 * 16 + 8 * 16 + 3 * 8 * 9 / 2)
