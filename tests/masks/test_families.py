"""Masks of a batch from everywhere at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from audit.data import ArraySplit, Batch
from audit.data.demo import open_demo
from audit.data.split import LimitedSplit
from audit.masks import PLANES, enlarge, estimate_masks
from audit.masks.opening import open_families

CPU = torch.device("cpu")


class Flaky(LimitedSplit):
    """Its first sample cannot be read at first."""

    broken = True

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        batch = super().__getitems__(indices)
        status = ["unreadable" if self.broken and i == 0 else "ok" for i in indices]
        return replace(batch, status=status)


def demo() -> ArraySplit:
    split = open_demo("test")
    assert isinstance(split, ArraySplit)
    return split


def test_an_image_that_could_not_be_read_once_is_not_without_mask_for_ever(tmp_path: Path) -> None:
    split = Flaky(demo(), 20)
    names = ("estimated", "component", "ellipse")
    families = open_families(names, split, "abc", cache=tmp_path, device=CPU)
    families.fill(0, 20, lambda _: None)
    broken = families.of(split.__getitems__(range(4)))
    assert broken.confidence.isnan().tolist() == [True, False, False, False]
    split.broken = False
    batch = split.__getitems__(range(4))
    mended = families.of(batch)
    expected = estimate_masks(batch.images)
    assert torch.equal(mended.confidence, expected.confidence)
    assert torch.equal(mended.main, enlarge(expected.planes[:, 0], (32, 32)))
    component = enlarge(expected.planes[:, PLANES.index("component")], (32, 32))
    assert torch.equal(mended.others["component"].masks, component)


def test_only_the_datasets_own_masks_have_bad_ones(tmp_path: Path) -> None:
    split = LimitedSplit(demo(), 5)
    batch = split.__getitems__(range(5))
    batch = replace(
        batch,
        status=["ok", "mask_missing", "mask_mismatch", "unreadable", "bad_label"],
        labels=torch.tensor([1, 2, -1, 3, -1]),
    )
    by_dataset = open_families(("dataset", "ellipse"), split, "abc", cache=tmp_path, device=CPU)
    by_ellipse = open_families(("ellipse", "dataset"), split, "abc", cache=tmp_path, device=CPU)
    assert by_dataset.given(batch) == list(batch.status)
    assert by_ellipse.given(batch) == ["ok", "ok", "bad_label", "unreadable", "bad_label"]
    valid = by_ellipse.of(batch).others["dataset"].valid
    assert valid is not None
    assert valid.tolist() == [True, False, False, True, True]
