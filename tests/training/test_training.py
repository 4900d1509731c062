from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from audit.errors import DataError, UsageError
from audit.models import Request, Wanted, open_classifier
from audit.training import Recipe, loop, train
from audit.training.images import find_copies, load_training_images
from audit.training.recipe import Augmentation
from tests.conftest import CIFAR10
from tests.data.making import hub_parquet, png


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tiny CIFAR-10."""
    folder = tmp_path / "data"
    for part, count, seed in (("train", 40, 0), ("test", 12, 500)):
        images = [png(seed + n) for n in range(count)]
        labels = [n % 10 for n in range(count)]
        hub_parquet(folder / f"{part}-0.parquet", images, labels, [*CIFAR10])
    return folder


def recipe(root: Path, **settings: object) -> Recipe:
    tiny = {"epochs": 3, "batch_size": 8, "hold_out": 8, "dataset": "cifar10"}
    return Recipe(data_roots=(root,), **(tiny | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["plateau", "onecycle"])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    schedule: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(root, schedule=schedule)
    whole = train(settings, tmp_path / "whole", quiet=True)
    run_epoch = loop.Trainer.run_epoch

    def dies_in_the_second_epoch(self: loop.Trainer, *, quiet: bool) -> None:
        if self.progress.epoch == 1:
            raise KeyboardInterrupt
        run_epoch(self, quiet=quiet)

    monkeypatch.setattr(loop.Trainer, "run_epoch", dies_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "resumed", quiet=True)
    assert (tmp_path / "resumed" / "last.pt").exists()
    monkeypatch.undo()
    resumed = train(settings, tmp_path / "resumed", quiet=True)
    assert whole.read_bytes() == resumed.read_bytes()
    tables = [
        pd.read_csv(d.parent / "epochs.csv").drop(columns="seconds") for d in (whole, resumed)
    ]
    pd.testing.assert_frame_equal(*tables)


def test_leaves_weights_that_open_curves_tables_and_a_card(root: Path, tmp_path: Path) -> None:
    weights = train(recipe(root, precision="bfloat16"), tmp_path / "out", quiet=True)
    opened = open_classifier(
        Request(model=None, checkpoint=weights, dataset="cifar10"),
        Wanted(classes=CIFAR10, native_size=(32, 32)),
    )
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert opened.architecture == "cnn"
    assert list(opened.mean) == card["mean"]
    assert len(pd.read_parquet(tmp_path / "out" / "iterations.parquet")) == 3 * 4
    assert len(pd.read_csv(tmp_path / "out" / "epochs.csv")) == 3
    for name in ("curves_per_epoch.png", "loss_per_iteration.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.size[0] > 800
    assert not (tmp_path / "out" / "last.pt").exists()
    assert f"{card['test_accuracy']:.2%}" in (tmp_path / "out" / "README.md").read_text()


def test_other_settings_do_not_continue_a_run(root: Path, tmp_path: Path) -> None:
    trainer = loop.Trainer(recipe(root), load_training_images(recipe(root)), torch.device("cpu"))
    (tmp_path / "last.pt").write_bytes(trainer.snapshot())
    with pytest.raises(UsageError, match="other settings"):
        train(recipe(root, lr=0.5), tmp_path, quiet=True)


def test_copies_of_held_out_images_are_not_trained_on(root: Path, tmp_path: Path) -> None:
    """A second root holds JPEG copies of some images of the first."""
    import io

    copies, labels = [], []
    for n in range(20):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(png(n))).save(buffer, "JPEG", quality=95, subsampling=0)
        copies.append(buffer.getvalue())
        labels.append(n % 10)
    hub_parquet(tmp_path / "second" / "train-0.parquet", copies, labels, [*CIFAR10])
    both = Recipe(dataset="cifar10", data_roots=(root, tmp_path / "second"), hold_out=10)
    data = load_training_images(both)
    assert data.copies_dropped > 0
    assert len(data.train) == 40 + 20 - 2 * 10 - data.copies_dropped
    for held in data.held_out:
        assert not find_copies(data.train.images, held.images).any()


def test_too_few_images_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few images"):
        train(recipe(root, hold_out=30), tmp_path / "out", quiet=True)


def test_statistics_equal_numpy() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    mean, std = loop.channel_statistics(images)
    values = images.numpy() / 255
    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), atol=6e-5)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), atol=6e-5)


def test_augmentation_is_seeded_and_leaves_the_global_generator_alone() -> None:
    augment = Augmentation((32, 32), flip=True)
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = augment(images, seed=5)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, augment(images, seed=5))
    assert not torch.equal(first, augment(images, seed=6))
    assert first.shape == images.shape
    assert first.dtype == torch.uint8
