"""Edited pictures by hand, and that none of them leaks what it should not hold."""

import pytest
import torch

from audit.score.edits import (
    Cutout,
    EditBank,
    background_only,
    cutouts,
    disturbed,
    object_only,
    of_same_class,
    transplanted,
)
from audit.score.filling import FILLS
from audit.score.masks import Family, Masks
from audit.score.positions import scramble

LABELS = torch.tensor([2, 0, 1, 0, 2, 2])


def bank(masks: Masks | None = None, size: int = 8) -> EditBank:
    count = len(LABELS)
    if masks is None:
        mask = torch.zeros(count, size, size)
        mask[:, 2:6, 2:6] = 1
        masks = Masks(main=mask)
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator)
    return EditBank.of(
        torch.arange(10, 10 + count), images.to(torch.uint8), masks, LABELS,
        mean=torch.tensor([1.0, 2.0, 3.0])[:, None, None], num_classes=4, seed=0,
    )  # fmt: skip


def test_the_bank_is_sorted_by_class_and_keeps_who_is_who() -> None:
    found = bank()
    assert found.labels.tolist() == [0, 0, 1, 2, 2, 2]
    assert found.index.tolist() == [11, 13, 12, 10, 14, 15]
    assert found.first.tolist() == [0, 2, 3, 6] and found.count.tolist() == [2, 1, 3, 0]


def test_backdrops_hold_nothing_of_their_objects() -> None:
    found = bank()
    object_of = found.cutouts[""].hole[:, None].expand_as(found.images)
    changed = torch.where(object_of, 0.0, found.images)
    again = EditBank.of(
        found.index, changed.to(torch.uint8), Masks(main=found.cutouts[""].object), found.labels,
        mean=found.mean, num_classes=4, seed=0,
    )  # fmt: skip
    assert torch.equal(found.backdrops, again.backdrops)


def test_donors_are_of_other_classes_and_spread_evenly() -> None:
    found = bank()
    index = torch.arange(6000)
    labels = index % 3
    chosen = found.of_other_classes(index, labels)
    assert bool((found.labels[chosen] != labels[:, None]).all())
    for own in range(3):
        often = torch.bincount(chosen[labels == own].flatten(), minlength=6)[found.labels != own]
        assert often.min() > 0.8 * often.max()


def test_a_sample_is_never_its_own_other_background() -> None:
    found = bank()
    chosen = of_same_class(found.index, found.labels, found, 3)
    for row, places in enumerate(chosen.tolist()):
        for place in places:
            assert place == -1 or (
                found.labels[place] == found.labels[row] and found.index[place] != found.index[row]
            )
    assert (chosen[[0, 1, 3, 4, 5]] >= 0).sum(dim=1).tolist() == [1, 1, 2, 2, 2], "all others"
    # The only image of its class has no other; nor has a class without images.
    assert chosen[2].tolist() == [-1, -1, -1]
    none = of_same_class(torch.tensor([99]), torch.tensor([3]), found, 3)
    assert none.tolist() == [[-1, -1, -1]]


@pytest.mark.parametrize("kind", range(len(FILLS)))
def test_edits_by_hand(kind: int) -> None:
    found = bank()
    images, own = found.images[:2], found.cutouts[""].take(torch.tensor([0, 1]))
    fill = found.fill(kind, torch.tensor([5, 6]), torch.tensor([3, 4]))
    inside = own.object[:, None] > 0.5
    gap = own.hole[:, None]
    assert torch.equal(background_only(images, own, fill), torch.where(gap, fill, images))
    assert torch.allclose(object_only(images, own, fill), torch.where(inside, images, fill))
    theirs, where = found.images[[3, 4]], found.cutouts[""].object[[3, 4]]
    composite = transplanted(images, own, fill, theirs, where)
    expected = torch.where(where[:, None] > 0.5, theirs, torch.where(gap, fill, images))
    assert torch.allclose(composite, expected, atol=1e-4)


def test_fills_are_what_they_are_called() -> None:
    found = bank()
    index, other = torch.tensor([5, 6]), torch.tensor([3, 4])
    noise, mean, backdrop = (found.fill(kind, index, other) for kind in range(3))
    assert mean[0].amax(dim=(1, 2)).tolist() == [1.0, 2.0, 3.0] == mean[1, :, 0, 0].tolist()
    assert torch.equal(backdrop, found.backdrops[other])
    assert torch.equal(noise, found.clouds[scramble(index) % len(found.clouds)])


def test_unknown_pixels_go_with_the_object_and_are_not_put_elsewhere() -> None:
    mask, unknown = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    mask[:, 8:16, 8:16], unknown[:, 16:24, 8:16] = 1, 1
    cut = cutouts(Masks(main=mask, unknown=unknown))[""]
    assert cut.hole[0, 8:24, 8:16].all() and not cut.object[0, 16:24].any()


@pytest.mark.parametrize(("value", "valid"), [(0.0, False), (1.0, False)])
def test_masks_with_one_side_cannot_be_edited(value: float, valid: bool) -> None:
    assert Cutout.of(Family(mask=torch.full((1, 8, 8), value))).valid.tolist() == [valid]


def test_a_family_without_masks_is_invalid_there() -> None:
    mask = torch.zeros(2, 8, 8)
    mask[:, 3:5, 3:5] = 1
    family = Family(mask=mask, valid=torch.tensor([True, False]))
    assert cutouts(Masks(main=mask, others={"x": family}))["x"].valid.tolist() == [True, False]


def test_disturbance_stays_in_its_part_and_in_range() -> None:
    images = torch.full((1, 3, 4, 4), 250.0)
    where = torch.zeros(1, 4, 4)
    where[:, :2] = 1
    noisy = disturbed(images, where, torch.full((1, 3, 4, 4), 64.0))
    assert noisy[:, :, :2].unique().tolist() == [255.0]
    assert noisy[:, :, 2:].unique().tolist() == [250.0]
