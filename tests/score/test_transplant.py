from __future__ import annotations

import torch
from torch import nn

from audit.score.contributions import regions
from audit.score.transplant import Donors, choose_donors, transplant_rate


def some_donors() -> Donors:
    torch.manual_seed(0)
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    return Donors.of(torch.randn(6, 3, 4, 4), torch.rand(6, 4, 4).round(), labels, 4)


def test_donors_are_of_other_classes_and_a_function_of_the_position() -> None:
    donors = some_donors()
    index, labels = torch.arange(400), torch.arange(400) % 4
    chosen = choose_donors(index, labels, donors, 3)
    assert (donors.labels[chosen] != labels[:, None]).all()
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    alone = choose_donors(index[123:124], labels[123:124], donors, 3)
    assert torch.equal(alone[0], chosen[123])
    of_class_3 = chosen[labels == 3].flatten()
    assert set(of_class_3.tolist()) == set(range(6))


def test_rate_equals_a_loop_over_samples_and_cells() -> None:
    donors = some_donors()
    head = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    features, masks = torch.randn(20, 3, 4, 4), torch.zeros(20, 4, 4)
    masks[:, 0, :2] = 1
    labels = torch.arange(20) % 4
    chosen = choose_donors(torch.arange(20), labels, donors, 4)
    with torch.no_grad():
        found = transplant_rate(head, features, regions(masks), labels, donors, chosen)
    for n in range(20):
        far = [(y, x) for y in range(4) for x in range(4) if y > 1 or x > 2]
        mean = torch.stack([features[n, :, y, x] for y, x in far]).mean(dim=0)
        hits = 0
        for d in chosen[n].tolist():
            composite = features[n].clone()
            for y in range(4):
                for x in range(4):
                    if masks[n, y, x]:
                        composite[:, y, x] = mean
                    if donors.grid_mask[d, y, x]:
                        composite[:, y, x] = donors.features[d, :, y, x]
            hits += int(head(composite[None]).argmax()) == int(labels[n])
        assert found[n].item() == hits / 4


def test_undefined_without_a_label_a_background_or_other_classes() -> None:
    donors = some_donors()
    head = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    masks = torch.zeros(3, 4, 4)
    masks[1] = 1
    labels = torch.tensor([-1, 0, 0])
    chosen = choose_donors(torch.arange(3), labels, donors, 2)
    rate = transplant_rate(head, torch.randn(3, 3, 4, 4), regions(masks), labels, donors, chosen)
    assert rate.isnan().tolist() == [True, True, False]
    alone = Donors.of(torch.randn(2, 3, 4, 4), torch.ones(2, 4, 4), torch.tensor([0, 0]), 4)
    chosen = choose_donors(torch.arange(3), labels, alone, 2)
    rate = transplant_rate(head, torch.randn(3, 3, 4, 4), regions(masks), labels, alone, chosen)
    assert rate.isnan().all()


def test_a_head_that_reads_one_background_cell_is_found_out() -> None:
    """The class is written into the far corner: its background always wins."""
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 2, bias=False))
    linear = head[1]
    assert isinstance(linear, nn.Linear)
    linear.weight.data.zero_()
    linear.weight.data[0, 15], linear.weight.data[1, 15] = -1.0, 1.0
    features, masks = torch.zeros(6, 1, 4, 4), torch.zeros(6, 4, 4)
    masks[:, 0, 0] = 1
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    features[:, 0, 3, 3] = labels * 2.0 - 1
    donors = Donors.of(features, masks, labels, 2)
    chosen = choose_donors(torch.arange(6), labels, donors, 3)
    rate = transplant_rate(head, features, regions(masks), labels, donors, chosen)
    assert rate.tolist() == [1.0] * 6
