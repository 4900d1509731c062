from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from audit.models.linear import pooled_linear
from audit.score import transplant as module
from audit.score.contributions import centre, contributions, regions
from audit.score.transplant import (
    Donors,
    Transplants,
    choose_donors,
    takes_channels_last,
    transplant,
)


def some_donors(families: int = 1, *, channels_last: bool = False) -> Donors:
    torch.manual_seed(0)
    labels = torch.tensor([2, 0, 1, 0, 2, 2])
    masks = torch.rand(families, 6, 4, 4).round()
    return Donors.of(torch.randn(6, 3, 4, 4), masks, labels, 4, channels_last=channels_last)


def flat_head(cells: int = 16) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * cells, 4))


@torch.no_grad()
def carried(
    head: nn.Module, features: Tensor, masks: Tensor, labels: Tensor, donors: Donors, partners: int
) -> Transplants:
    """Under masks F×N×h×w."""
    chosen = choose_donors(torch.arange(len(features)), labels, donors, partners)
    weights = torch.stack([regions(mask) for mask in masks], dim=1)
    return transplant(head, features, weights, labels, donors, chosen)


def composite_of(
    features: Tensor, mask: Tensor, donor: Tensor, donor_mask: Tensor, *, far_only: bool = False
) -> Tensor:
    """One composite, cell by cell, for hard masks."""
    height, width = mask.shape
    grown = torch.nn.functional.max_pool2d(mask[None, None], 3, 1, 1)[0, 0]
    cells = [(y, x) for y in range(height) for x in range(width)]
    far = [features[:, y, x] for y, x in cells if not grown[y, x]]
    near = [features[:, y, x] for y, x in cells if not mask[y, x]]
    mean = torch.stack(far or near).mean(dim=0)
    composite = features.clone()
    for y, x in cells:
        if mask[y, x]:
            composite[:, y, x] = mean
        if donor_mask[y, x] or (far_only and grown[y, x]):
            composite[:, y, x] = donor[:, y, x]
    return composite


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


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_family_and_variant_equals_a_loop_over_samples_and_cells(channels_last: bool) -> None:
    donors = some_donors(families=2, channels_last=channels_last)
    assert donors.features.is_contiguous() == (not channels_last)
    head = flat_head()
    features, masks = torch.randn(20, 3, 4, 4), torch.zeros(2, 20, 4, 4)
    masks[0, :, 0, :2] = 1
    masks[1, :, 2:, 3] = 1
    labels = torch.arange(20) % 4
    found = carried(head, features, masks, labels, donors, 4)
    chosen = choose_donors(torch.arange(20), labels, donors, 4)
    assert torch.equal(found.objects, donors.labels[chosen])
    wrong = 0
    for n in range(20):
        of_far = []
        for f in range(2):
            for p, d in enumerate(chosen[n].tolist()):
                given = (features[n], masks[f, n], donors.features[d], donors.grid_masks[f, d])
                expected = int(head(composite_of(*given)[None]).argmax())
                # Further families try the first half of the donors.
                tried = f == 0 or p < 2
                assert found.predictions[f, n, p] == (expected if tried else -1)
                wrong += expected != int(labels[n])
                if f == 0:
                    composite = composite_of(*given, far_only=True)
                    of_far.append(int(head(composite[None]).argmax()) == int(labels[n]))
            tried = found.predictions[f, n, : 4 if f == 0 else 2]
            assert found.rate[f, n] == (tried == labels[n]).float().mean()
        assert found.far_rate[n].item() == sum(of_far[:2]) / 2
    assert 0 < wrong < 160
    assert not torch.equal(found.far_rate, found.rate[0])
    assert found.additive_rate.isnan().all(), "this head is not pooled and linear"


def test_composites_in_pieces_are_predicted_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    donors, head = some_donors(families=2), flat_head()
    features, masks = torch.randn(9, 3, 4, 4), torch.rand(2, 9, 4, 4)
    labels = torch.arange(9) % 4
    at_once = carried(head, features, masks, labels, donors, 5)
    sizes = []
    head.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    monkeypatch.setattr(module, "_CALL_BYTES_ON_CPU", 2 * features.nbytes)
    in_pieces = carried(head, features, masks, labels, donors, 5)
    assert torch.equal(at_once.predictions, in_pieces.predictions)
    assert torch.equal(at_once.far_rate, in_pieces.far_rate)
    # Eight of nine samples at a time, the last eight again.
    assert sizes == [40, 40, 24, 24, 24, 24], "the main family, half for another, and for far"


def test_donors_without_a_mask_of_a_family_do_not_count() -> None:
    donors, head = some_donors(families=2), flat_head()
    valid = donors.valid.clone()
    valid[1, donors.labels == 2] = False
    some = Donors(**{**vars(donors), "valid": valid})
    features, masks = torch.randn(40, 3, 4, 4), torch.zeros(2, 40, 4, 4)
    masks[:, :, 1, 1] = 1
    labels = torch.arange(40) % 4
    every = carried(head, features, masks, labels, donors, 3)
    found = carried(head, features, masks, labels, some, 3)
    assert torch.equal(found.rate[0], every.rate[0])
    assert torch.equal(found.objects, every.objects)
    absent = found.objects == 2
    assert absent.any()
    assert torch.equal(found.predictions[1], torch.where(absent, -1, every.predictions[1]))
    hits = (found.predictions[1] == labels[:, None]).sum(dim=1)
    expected = hits / (~absent[:, :2]).sum(dim=1)
    torch.testing.assert_close(found.rate[1], expected, rtol=0, atol=0, equal_nan=True)
    none = Donors(**{**vars(donors), "valid": torch.tensor([[True], [False]]).expand(2, 6)})
    assert carried(head, features, masks, labels, none, 3).rate[1].isnan().all()


def test_undefined_without_a_label_a_background_or_other_classes() -> None:
    donors, head = some_donors(), flat_head()
    masks = torch.zeros(1, 4, 4, 4)
    masks[0, 1] = 1
    masks[0, 3, 1:3, 1:3] = 1
    labels = torch.tensor([-1, 0, 0, 0])
    features = torch.randn(4, 3, 4, 4)
    found = carried(head, features, masks, labels, donors, 2)
    assert found.rate[0].isnan().tolist() == [True, True, False, False]
    assert found.far_rate.isnan().tolist() == [True, True, False, True], "the last is all near"
    assert (found.predictions[0] < 0).all(dim=1).tolist() == [True, True, False, False]
    assert (found.objects < 0).all(dim=1).tolist() == [True, False, False, False]
    alone = Donors.of(torch.randn(2, 3, 4, 4), torch.ones(1, 2, 4, 4), torch.tensor([0, 0]), 4)
    found = carried(head, features, masks, labels, alone, 2)
    assert found.rate.isnan().all()
    assert found.far_rate.isnan().all()
    assert (found.objects == -1).all()


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
    donors = Donors.of(features, masks[None], labels, 2)
    found = carried(head, features, masks[None], labels, donors, 3)
    assert found.rate.tolist() == [[1.0] * 6]
    assert found.far_rate.tolist() == [1.0] * 6
    assert torch.equal(found.predictions[0], labels[:, None].expand(-1, 3))


class Pooled(nn.Module):
    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return logits


@torch.no_grad()
def test_additive_equals_the_composite_where_both_regions_partition_the_grid() -> None:
    torch.manual_seed(0)
    head = Pooled(5, 7)
    linear = pooled_linear(head, torch.randn(2, 5, 4, 4))
    assert linear is not None
    mask = torch.zeros(4, 4)
    mask[1, 1:3] = 1
    features, labels = torch.randn(60, 5, 4, 4), torch.arange(60) % 7
    given, own = torch.randn(30, 5, 4, 4), torch.arange(30) % 7
    donors = Donors.of(given, mask.expand(1, 30, 4, 4), own, 7, linear=linear)
    weights = regions(mask.expand(60, 4, 4))
    logits = head(features)
    parts = contributions(head, features, logits, weights, biases={"linear.bias": head.linear.bias})
    chosen = choose_donors(torch.arange(60), labels, donors, 4)
    background = parts.background + parts.bias
    found = transplant(head, features, weights[:, None], labels, donors, chosen, background)
    for p in range(4):
        of_donors = donors.features[chosen[:, p]]
        explicit = head(torch.where(mask > 0, of_donors, features))
        assert donors.object_logits is not None
        additive = background + donors.object_logits[chosen[:, p]]
        torch.testing.assert_close(additive, centre(explicit), rtol=1e-5, atol=1e-5)
        assert torch.equal(found.predictions[0, :, p], explicit.argmax(dim=1))
    torch.testing.assert_close(found.additive_rate, found.rate[0], rtol=0, atol=0)
    assert 0 < found.rate.mean() < 1


def test_a_head_that_calls_view_gets_features_as_it_can_take_them() -> None:
    class Viewing(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features.view(len(features), -1)[:, :4]

    features = torch.randn(2, 3, 4, 4)
    assert not takes_channels_last(Viewing(), features)
    assert takes_channels_last(flat_head(), features)
    masks = torch.rand(1, 8, 4, 4)
    found = carried(
        Viewing(), torch.randn(8, 3, 4, 4), masks, torch.arange(8) % 4, some_donors(), 2
    )
    assert not found.rate.isnan().any()


@pytest.mark.parametrize("classes", [1, 1000])
def test_one_class_and_a_thousand(classes: int) -> None:
    torch.manual_seed(0)
    head = Pooled(3, classes)
    labels = torch.arange(12) * 80 % classes
    features, masks = torch.randn(12, 3, 7, 7), torch.rand(1, 12, 7, 7) * 0.9
    donors = Donors.of(features, masks, labels, classes, linear=head.linear.weight.detach())
    found = carried(head, features, masks, labels, donors, 4)
    assert found.rate.isnan().all() == (classes == 1)
    assert (found.predictions < classes).all()
