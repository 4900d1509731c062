from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audit.data.demo import open_demo
from audit.masks import MaskCache, estimate_masks
from audit.masks import cache as module

CPU = torch.device("cpu")


def open_cache(folder: Path, fingerprint: str = "abc") -> MaskCache:
    return MaskCache(open_demo("test"), fingerprint, folder, CPU)


def test_gives_back_what_was_estimated_in_any_order(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    assert cache.missing(0, 797) == 797
    done: list[int] = []
    cache.fill(0, 797, done.append)
    assert sum(done) == 797
    assert cache.missing(0, 797) == 0
    index = torch.tensor([796, 3, 500, 499])
    expected = estimate_masks(open_demo("test").images[index]).variants
    assert torch.equal(cache.variants(index), expected)


def test_nothing_is_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_cache(tmp_path).fill(0, 100, lambda _: None)
    monkeypatch.setattr(module, "estimate_masks", lambda _: pytest.fail("computed again"))
    again = open_cache(tmp_path)
    again.fill(0, 100, lambda _: None)
    again.variants(torch.arange(10))
    assert open_cache(tmp_path, "other content").missing(0, 100) == 500


def test_a_damaged_block_is_computed_again(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    expected = cache.variants(torch.arange(5))
    (block,) = tmp_path.rglob("000000.npy")
    block.write_bytes(block.read_bytes()[:1000])
    assert cache.missing(0, 1) == 500
    assert torch.equal(cache.variants(torch.arange(5)), expected)


def test_files_hold_five_bits_a_pixel(tmp_path: Path) -> None:
    open_cache(tmp_path).fill(0, 1, lambda _: None)
    (block,) = tmp_path.rglob("*.npy")
    assert block.stat().st_size == 128 + 500 * 5 * 32 * 32 // 8
