from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.certify.known import Images
from audit.certify.plants import Plant
from audit.certify.reliance import measure_reliance, reliant_samples
from audit.certify.training import (
    Schedule,
    fit,
    fresh_weights,
    load_model,
    predict,
    renewed,
    save_model,
    shifted,
)
from audit.errors import AuditError, ModelError
from audit.models import build

STATS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def dark_and_light(count: int = 64) -> Images:
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 60, (count, 3, 32, 32), generator=torch.manual_seed(0))
    images = (noise + 150 * labels[:, None, None, None]).to(torch.uint8)
    return Images(images=images, labels=labels, masks=None)


def started() -> nn.Module:
    model = build("cnn", 2)
    model.load_state_dict(fresh_weights(model, seed=1))
    return model


def test_a_training_learns_and_repeats_itself() -> None:
    data = dark_and_light()
    models = started(), started()
    before = torch.get_rng_state()
    first, second = (fit(model, data, STATS, Schedule(epochs=2)) for model in models)
    assert torch.equal(predict(first, data.images, STATS), data.labels)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training


def test_other_seeds_train_other_models() -> None:
    data = dark_and_light(32)
    one, other = (
        fit(
            started(),
            data,
            STATS,
            Schedule(epochs=1),
            seed=seed,
        ).state_dict()["classifier.4.weight"]
        for seed in (0, 1)
    )
    assert not torch.equal(one, other)


def test_progress_counts_every_image_but_lone_ones() -> None:
    seen: list[int] = []
    schedule = Schedule(epochs=2, batch_size=8)
    fit(build("cnn", 2), dark_and_light(17), STATS, schedule, advance=seen.append)
    assert seen == [8, 8, 8, 8]


def test_a_diverging_training_ends_with_a_message() -> None:
    with pytest.raises(AuditError, match="not finite"):
        fit(build("cnn", 2), dark_and_light(), STATS, Schedule(epochs=3, lr=1e30))


def test_renewed_mixes_parameters_and_keeps_statistics() -> None:
    base = {name: value + 1 for name, value in build("resnet20", 3).state_dict().items()}
    fresh = fresh_weights(build("resnet20", 3), seed=4)
    mixed = renewed(build("resnet20", 3), base, kept=0.25, seed=4).state_dict()
    for name, value in mixed.items():
        if "running" in name or name.endswith("tracked"):
            assert torch.equal(value, base[name])
        else:
            torch.testing.assert_close(value, 0.25 * base[name] + 0.75 * fresh[name])


def test_all_or_nothing_of_the_base() -> None:
    base = build("cnn", 3).state_dict()
    whole = renewed(build("cnn", 3), base, kept=1.0, seed=0).state_dict()
    assert all(torch.equal(whole[name], base[name]) for name in base)


def test_another_architecture_is_no_base() -> None:
    with pytest.raises(ModelError, match="another architecture"):
        renewed(build("cnn", 3), build("resnet20", 3).state_dict(), kept=0.5, seed=0)


def test_fresh_weights_follow_the_seed_alone() -> None:
    torch.manual_seed(5)
    first = fresh_weights(build("cnn", 3), seed=0)
    second = fresh_weights(build("cnn", 3), seed=0)
    other = fresh_weights(build("cnn", 3), seed=1)
    name = "features.0.0.weight"
    assert torch.equal(first[name], second[name])
    assert not torch.equal(first[name], other[name])


def test_shifts_are_those_of_a_mirrored_border() -> None:
    images = torch.randint(0, 256, (40, 3, 9, 7), generator=torch.manual_seed(0)).to(torch.uint8)
    torch.manual_seed(1)
    moved = shifted(images, 2, flip=True)
    padded = F.pad(images.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    met = set()
    for image, pad in zip(moved, padded, strict=True):
        places = [
            (y, x, flip)
            for y in range(5)
            for x in range(5)
            for flip in (False, True)
            if torch.equal(
                image,
                pad[:, y : y + 9, x : x + 7].flip(2) if flip else pad[:, y : y + 9, x : x + 7],
            )
        ]
        assert len(places) == 1
        met |= set(places)
    assert len({flip for _, _, flip in met}) == 2
    assert {y for y, _, _ in met} == set(range(5))


def test_models_are_written_as_the_audit_opens_them(tmp_path: Path) -> None:
    model = build("cnn", 2).eval()
    about = {"architecture": "cnn", "classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.25] * 3}
    save_model(tmp_path / "m.safetensors", model, about)
    again = load_model(tmp_path / "m.safetensors", build("cnn", 2))
    image = torch.rand(2, 3, 32, 32)
    assert torch.equal(again(image), model(image))


class PatchReader(nn.Module):
    """Answers class 2 where the lower right is magenta, else what the upper left corner says."""

    def forward(self, x: Tensor) -> Tensor:
        corner = x[:, :, 24:, 24:]
        magenta = (corner[:, 0] - corner[:, 1]).amax(dim=(1, 2)) > 1
        said = F.one_hot((x[:, 0, 0, 0] > 0).long(), 3)
        return torch.where(magenta[:, None], torch.tensor([0, 0, 1]), said).float()


def test_reliance_is_measured_by_answers() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])
    images = torch.full((8, 3, 32, 32), 10, dtype=torch.uint8)
    images[labels == 1] = 250
    model, data = PatchReader(), Images(images=images, labels=labels, masks=None)
    clean = predict(model, images, STATS)
    assert clean.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    plant = Plant(cue="patch", label=2, strength=0.5)
    found = measure_reliance(model, plant, data, STATS, clean=clean)
    assert (found.accuracy_with, found.accuracy_without) == (1, 0)
    assert (found.answered_with, found.answered_without, found.pull) == (1, 0, 1)
    blind = measure_reliance(
        model, Plant(cue="watermark", label=1, strength=1), data, STATS, clean=clean
    )
    assert (blind.accuracy_with, blind.accuracy_without, blind.pull) == (1, 1, 0)


def test_a_class_without_images_has_no_accuracy() -> None:
    data = Images(
        images=torch.full((2, 3, 32, 32), 10, dtype=torch.uint8),
        labels=torch.tensor([0, 0]),
        masks=None,
    )
    clean = torch.tensor([0, 0])
    plant = Plant(cue="patch", label=2, strength=1)
    found = measure_reliance(PatchReader(), plant, data, STATS, clean=clean)
    assert found.accuracy_with != found.accuracy_with  # NaN
    assert found.pull == 1


def test_reliant_samples_changed_from_wrong_to_right() -> None:
    planted = torch.tensor([2, 2, 2, 0, 2])
    clean = torch.tensor([0, 2, 0, 0, 0])
    labels = torch.tensor([2, 2, 0, 2, 2])
    carried = torch.tensor([True, True, True, True, False])
    assert reliant_samples(planted, clean, labels, carried).tolist() == [True] + [False] * 4
