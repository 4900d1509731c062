from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from audit.data.demo import open_demo
from audit.errors import OutputError
from audit.masks import DefaultEstimator, MaskCache, MaskEstimate, estimate_masks
from audit.masks import cache as module

CPU = torch.device("cpu")


class Brightness:
    """An estimator that is quick, tells what it was asked and may take its time.

    Two planes of 3×5 pixels, so that rows do not end with a byte.
    """

    name = "brightness"
    planes = 2
    size = (3, 5)

    def __init__(self, version: str = "1", log: Path | None = None, seconds: float = 0.0) -> None:
        self.batch_size = 50
        self._version = version
        self._log = log
        self._seconds = seconds

    def fingerprint(self) -> str:
        return self._version

    def __call__(self, images: Tensor) -> MaskEstimate:
        time.sleep(self._seconds)
        if self._log is not None:
            with self._log.open("a") as log:
                log.write(f"{os.getpid()} {len(images)}\n")
        bright = images[:, :2, 3:6, 4:9] > 120
        return MaskEstimate(planes=bright, confidence=images.float().mean(dim=(1, 2, 3)) / 255)


class FourTimes:
    """The demo's samples four times over, for more blocks."""

    def __init__(self) -> None:
        self._split = open_demo("test")
        self.name, self.part = "four times", "test"
        self.image_size, self.in_memory = self._split.image_size, True

    def __len__(self) -> int:
        return 4 * len(self._split)

    def __getitems__(self, indices: list[int]) -> object:
        batch = self._split.__getitems__([i % len(self._split) for i in indices])
        object.__setattr__(batch, "index", torch.tensor(indices))
        return batch


def open_cache(folder: Path, fingerprint: str = "abc", version: str = "1") -> MaskCache:
    return MaskCache(open_demo("test"), fingerprint, folder, Brightness(version))


def ignore(_: int) -> None:
    pass


def assert_equal(found: MaskEstimate, expected: MaskEstimate) -> None:
    assert found.planes.dtype == torch.bool
    assert torch.equal(found.planes, expected.planes)
    assert found.confidence.dtype == torch.float32
    torch.testing.assert_close(
        found.confidence, expected.confidence, rtol=0, atol=0, equal_nan=True
    )


def test_reading_equals_estimating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 20)
    split = open_demo("test")
    cache = MaskCache(split, "abc", tmp_path, DefaultEstimator(CPU))
    index = torch.tensor([796, 3, 0, 796, 3])
    found = cache.read(index)
    expected = estimate_masks(split.images[index])
    assert torch.equal(found.planes, expected.planes)
    torch.testing.assert_close(found.confidence, expected.confidence)


def test_gives_back_any_shape_in_any_order(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    assert cache.missing(0, 797) == 797
    done: list[int] = []
    assert cache.fill(0, 797, done.append) == 797
    assert sum(done) == 797
    assert cache.missing(0, 797) == 0
    index = torch.tensor([796, 3, 500, 499])
    expected = Brightness()(open_demo("test").images[index])
    assert_equal(cache.read(index), expected)
    assert_equal(open_cache(tmp_path).read(index), expected)
    nothing = open_cache(tmp_path).read(torch.tensor([], dtype=torch.int64))
    assert nothing.planes.shape == (0, 2, 3, 5)


def test_nothing_is_computed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_cache(tmp_path).fill(0, 100, ignore) == 500
    monkeypatch.setattr(Brightness, "__call__", lambda *_: pytest.fail("computed again"))
    again = open_cache(tmp_path)
    assert again.fill(0, 100, ignore) == 0
    again.read(torch.arange(10))


def test_other_content_or_another_estimator_finds_another_folder(tmp_path: Path) -> None:
    open_cache(tmp_path).fill(0, 1, ignore)
    assert open_cache(tmp_path, fingerprint="other").missing(0, 1) == 500
    assert open_cache(tmp_path, version="2").missing(0, 1) == 500
    assert open_cache(tmp_path).missing(0, 1) == 0


def test_names_that_are_no_names_of_folders(tmp_path: Path) -> None:
    split = FourTimes()
    split.name, split.part = "../ä" * 100, "a/b"
    cache = MaskCache(split, "abc", tmp_path, Brightness())  # type: ignore[arg-type]
    assert cache.folder.parent == tmp_path
    cache.read(torch.tensor([0]))
    assert [path.name for path in tmp_path.iterdir()] == [cache.folder.name]


@pytest.mark.parametrize("how", ["cut", "flipped", "zeros", "empty"])
def test_a_damaged_block_is_computed_again(tmp_path: Path, how: str) -> None:
    cache = open_cache(tmp_path)
    expected = cache.read(torch.arange(5))
    (block,) = tmp_path.rglob("000000.masks")
    content = block.read_bytes()
    flipped = bytes([content[0] ^ 1]) + content[1:]
    damaged = {"cut": content[:700], "flipped": flipped, "zeros": bytes(len(content)), "empty": b""}
    block.unlink()
    block.write_bytes(damaged[how])
    assert cache.missing(0, 1) == 500
    assert open_cache(tmp_path).missing(0, 1) == 500
    assert_equal(cache.read(torch.arange(5)), expected)
    assert block.read_bytes() == content


def test_an_emptied_cache_is_filled_again(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    expected = cache.read(torch.arange(5))
    for file in cache.folder.iterdir():
        file.unlink()
    cache.folder.rmdir()
    assert_equal(cache.read(torch.arange(5)), expected)


def test_files_hold_a_bit_a_pixel_and_four_bytes_of_confidence(tmp_path: Path) -> None:
    open_cache(tmp_path).fill(0, 1, ignore)
    (block,) = tmp_path.rglob("*.masks")
    assert block.stat().st_size == 500 * (-(-2 * 3 * 5 // 8) + 4) + 16


def test_an_unreadable_image_has_no_mask_and_no_confidence(tmp_path: Path) -> None:
    class Damaged(FourTimes):
        def __getitems__(self, indices: list[int]) -> object:
            batch = super().__getitems__(indices)
            status = ["unreadable" if i == 2 else "ok" for i in indices]
            object.__setattr__(batch, "status", status)
            return batch

    cache = MaskCache(Damaged(), "abc", tmp_path, Brightness())  # type: ignore[arg-type]
    found = cache.read(torch.arange(4))
    assert found.confidence.isnan().tolist() == [False, False, True, False]
    assert not found.planes[2].any()
    assert found.planes[3].any()


def test_open_files_do_not_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 10)
    cache = open_cache(tmp_path)
    for _ in range(3):
        cache.read(torch.randperm(797))
    assert len(cache._open) <= 64
    mapped = Path("/proc/self/maps").read_text().count(".masks")
    assert mapped <= 65


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(OutputError, match="free some space") as raised:
        open_cache(tmp_path).fill(0, 1, ignore)
    assert raised.value.found == "No space left on device"


def test_workers_give_the_same(tmp_path: Path) -> None:
    alone = open_cache(tmp_path / "alone")
    helped = MaskCache(open_demo("test"), "abc", tmp_path / "helped", Brightness(), workers=2)
    assert alone.fill(0, 797, ignore) == helped.fill(0, 797, ignore) == 797
    assert contents(alone) == contents(helped)


def contents(cache: MaskCache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.folder.iterdir()}


FILLER = """
import sys
from pathlib import Path
from audit.masks import MaskCache
from tests.masks.test_cache import Brightness, FourTimes
estimator = Brightness(log=Path(sys.argv[2]), seconds=0.02)
cache = MaskCache(FourTimes(), "abc", Path(sys.argv[1]), estimator)
print("ready", flush=True)
sys.stdin.readline()
print(cache.fill(0, 3188, lambda _: None), flush=True)
"""


@pytest.fixture
def filler(tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", FILLER, str(tmp_path / "shared"), str(tmp_path / "log")],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return start


def whole_and_equal(tmp_path: Path) -> None:
    """The shared cache is what one process makes alone, and leaves nothing to do."""
    shared = MaskCache(FourTimes(), "abc", tmp_path / "shared", Brightness())  # type: ignore[arg-type]
    alone = MaskCache(FourTimes(), "abc", tmp_path / "alone", Brightness())  # type: ignore[arg-type]
    alone.fill(0, 3188, ignore)
    assert shared.missing(0, 3188) == 0
    assert shared.fill(0, 3188, ignore) == 0
    assert contents(shared) == contents(alone)


@pytest.mark.slow
def test_two_processes_share_the_work(
    tmp_path: Path, filler: Callable[[], subprocess.Popen[str]]
) -> None:
    processes = [filler(), filler()]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    computed = [int(process.communicate()[0]) for process in processes]
    assert sum(computed) == 3188  # nothing twice
    assert min(computed) >= 500
    asked = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(int(count) for _, count in asked) == 3188
    whole_and_equal(tmp_path)


@pytest.mark.slow
def test_one_of_two_is_killed(tmp_path: Path, filler: Callable[[], subprocess.Popen[str]]) -> None:
    killed, other = filler(), filler()
    for process in (killed, other):
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    log = tmp_path / "log"
    while not log.exists() or f"{killed.pid} " not in log.read_text():
        assert killed.poll() is None, "it ended before it was at work"
        time.sleep(0.005)
    # Another moment each time, as in the kill test of whole runs.
    time.sleep(float(np.random.default_rng().uniform(0.0, 0.3)))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    computed = int(other.communicate()[0])
    assert other.returncode == 0
    assert 500 <= computed <= 3188
    whole_and_equal(tmp_path)
