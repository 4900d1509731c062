from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audit.certify.known import Images, load_dataset, object_masks
from audit.certify.splits import write_split
from audit.data import open_split
from audit.data.demo import CUE_STRENGTH, open_demo
from audit.errors import DataError
from audit.masks import estimate_masks
from tests.conftest import real_data


def test_demo_is_read_without_its_cue(tmp_path: Path) -> None:
    data = load_dataset("demo", tmp_path, limit=100, train_limit=200)
    free = open_demo("test", cue_strength=0.0)
    assert free.facts["planted_classes"] == []
    rows = [i * len(free) // 100 for i in range(100)]
    assert torch.equal(data.test.images, free.images[rows])
    assert data.test.masks is not None
    assert torch.equal(data.test.masks.byte(), free.masks[rows])  # type: ignore[index]
    assert len(data.train) == 200
    assert data.exact


def test_the_usual_demo_is_as_it_was() -> None:
    usual = open_demo("test")
    assert usual.fingerprint() == open_demo("test", cue_strength=CUE_STRENGTH).fingerprint()
    assert usual.fingerprint() != open_demo("test", cue_strength=0.0).fingerprint()
    assert usual.facts["planted_classes"] == ["three", "eight"]


def test_one_part_is_too_few(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.manual_seed(0)).to(torch.uint8)
    write_split(tmp_path / "all.parquet", images, torch.arange(4) % 2, ("a", "b"))
    with pytest.raises(DataError, match="in both parts"):
        load_dataset(f"parquet:{tmp_path}/all.parquet", tmp_path)


def test_parts_with_other_classes_are_refused(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for part, classes in (("train", ("a", "b")), ("test", ("a", "c"))):
        name = f"{part}-00000-of-00001.parquet"
        write_split(tmp_path / name, images, torch.tensor([0, 1]), classes)
    with pytest.raises(DataError, match="other classes"):
        load_dataset(f"parquet:{tmp_path}", tmp_path)


def test_masks_are_estimated_where_asked(tmp_path: Path) -> None:
    demo = open_demo("test")
    data = Images(images=demo.images[:6], labels=demo.labels[:6], masks=None)
    chosen = torch.tensor([True, False, True, True, False, False])
    found = object_masks(data, chosen)
    assert not bool(found[~chosen].any())
    expected = estimate_masks(demo.images[:6][chosen]).planes[:, 0].float()
    assert torch.equal(found[chosen], expected)
    assert torch.equal(object_masks(data)[chosen], expected)


@pytest.mark.parametrize("with_masks", [True, False])
def test_a_split_comes_back_as_it_was_written(tmp_path: Path, with_masks: bool) -> None:
    rng = torch.manual_seed(0)
    images = torch.randint(0, 256, (1100, 3, 32, 32), generator=rng).to(torch.uint8)
    labels = torch.randint(0, 3, (1100,), generator=rng)
    masks = (torch.rand(1100, 32, 32, generator=rng) > 0.5).float() if with_masks else None
    file = tmp_path / "planted.parquet"
    write_split(file, images, labels, ("a", 'b"<', "ç"), masks)
    split = open_split(f"parquet:{file}", "test", root=tmp_path)
    assert split.classes == ("a", 'b"<', "ç")
    assert split.has_masks == with_masks
    batch = split.__getitems__(range(1100))
    assert torch.equal(batch.images, images)
    assert torch.equal(batch.labels, labels)
    if masks is not None:
        assert batch.object_mask is not None
        assert torch.equal(batch.object_mask, masks)


@pytest.mark.data
def test_cifar_is_read_from_parquet() -> None:
    data = load_dataset("cifar10", real_data("cifar10"), limit=50, train_limit=100)
    assert data.test.images.shape == (50, 3, 32, 32)
    assert not data.exact
    assert data.classes[0] == "airplane"
    masks = object_masks(data.test)
    assert masks.shape == (50, 32, 32)
    assert set(np.unique(masks.numpy())) <= {0, 1}
