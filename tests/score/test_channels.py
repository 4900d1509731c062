from __future__ import annotations

import pytest
import torch
from torch import nn

from audit.models.biases import bias_tangents
from audit.score.channels import channel_logits, far_features, region_sums
from audit.score.contributions import contributions, regions, target_evidence
from audit.score.positions import is_kept
from tests.conftest import ARCHITECTURES, random_cut


def test_region_sums_equal_a_loop() -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 4, 2, 5)
    weights = torch.rand(3, 2, 2, 5)
    for given in (values, values.contiguous(memory_format=torch.channels_last)):
        sums = region_sums(given, weights)
        for n in range(3):
            for r in range(2):
                expected = [float((values[n, c] * weights[n, r]).sum()) for c in range(4)]
                assert sums[n, r].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_channels_sum_to_the_contributions_of_their_region(architecture: str) -> None:
    parts = random_cut(architecture)
    torch.manual_seed(0)
    with torch.no_grad():
        features = parts.backbone(torch.randn(6, 3, 32, 32))[0]
        logits = parts.head(features)
        cells = regions(torch.rand(6, *parts.grid).round())
        targets = logits.argmax(dim=1)
        by_channel = channel_logits(target_evidence(parts.head, features, targets), cells)
        whole = contributions(parts.head, features, logits, cells, biases=bias_tangents(parts.head))
    assert by_channel.shape == (6, 3, parts.channels)
    for place, name in enumerate(("object", "near", "far")):
        expected = getattr(whole, name).gather(1, targets[:, None])[:, 0]
        torch.testing.assert_close(by_channel[:, place].sum(dim=1), expected, rtol=1e-4, atol=1e-4)


def test_channels_of_a_pooled_linear_head_by_hand() -> None:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    linear = head[2]
    assert isinstance(linear, nn.Linear)
    linear.weight.data = torch.tensor([[4.0, 2.0], [0.0, -2.0]])
    features = torch.tensor([[[[1.0, 2.0, 3.0]], [[0.0, 1.0, 6.0]]]])
    cells = regions(torch.tensor([[[1.0, 0.0, 0.0]]]))
    evidence = target_evidence(head, features, torch.tensor([0]))
    # Centred weights of class 0: (2, 2), over three cells.
    expected = torch.tensor([[[2.0, 0.0], [4.0, 2.0], [6.0, 12.0]]]) / 3
    torch.testing.assert_close(channel_logits(evidence, cells), expected)
    torch.testing.assert_close(far_features(features, cells), torch.tensor([[3.0, 6.0]]))


def test_far_features_need_half_a_cell_of_far_background() -> None:
    masks = torch.zeros(3, 4, 4)
    masks[1, 1:3, 1:3] = 1
    masks[2, 0, 0] = 1
    features = torch.randn(3, 5, 4, 4)
    cells = regions(masks)
    found = far_features(features, cells)
    assert found.isnan().all(dim=1).tolist() == [False, True, False]
    torch.testing.assert_close(found[0], features[0].mean(dim=(1, 2)))
    far = cells[2, 2] > 0
    torch.testing.assert_close(found[2], features[2][:, far].mean(dim=1))


def test_what_is_kept_follows_from_the_position_and_is_spread() -> None:
    index = torch.arange(200_000)
    kept = {share: is_kept(index, share) for share in (0.0, 0.01, 0.3, 1.0)}
    assert not kept[0.0].any()
    assert kept[1.0].all()
    for share in (0.01, 0.3):
        assert kept[share].float().mean().item() == pytest.approx(share, rel=0.03)
        for period in (2, 3, 10, 16):
            of_phase = [kept[share][start::period].float().mean().item() for start in range(period)]
            assert max(of_phase) < 1.35 * share
    assert (kept[0.3] | ~kept[0.01]).all()
    assert torch.equal(is_kept(index[7:11], 0.3), kept[0.3][7:11])
