"""Estimated masks on disk: computed once for a split, shared by every model, run and process."""

from __future__ import annotations

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data import Batch, Split
from audit.data.loader import chunks, fetch
from audit.files import make_folder, remove_unfinished, write_atomically
from audit.masks.estimate import MaskEstimate
from audit.masks.estimators import Estimator, digest_of
from audit.masks.locks import BlockLocks

BLOCK = 500
_LAYOUT = "2"  # of the files below; masks of another layout are not read
_CONFIDENCE = np.dtype("<f4")
_DIGEST = 16
# Mapped pages count as memory of the process; what is read once is seldom read again.
_MOST_OPEN = 8
_SECONDS_BETWEEN_LOOKS = 0.1

Rows = NDArray[np.uint8]  # n×bytes: packed planes, then the confidence
Progress = Callable[[int], object]


class MaskCache:
    """The masks that one estimator makes of one split, in files of 500 samples.

    A file holds rows of equal width, one bit a pixel and plane and four bytes of confidence, and
    a digest behind them. It is whole or absent; one that does not verify is computed again.
    Processes that fill the same cache share the work.

    Args:
        split: Whose masks.
        fingerprint: The split's content digest; another content finds another folder.
        folder: Where caches live.
        estimator: Makes the masks.
        workers: Processes that decode.
    """

    def __init__(
        self,
        split: Split,
        fingerprint: str,
        folder: Path,
        estimator: Estimator,
        workers: int = 0,
    ) -> None:
        self.estimator = estimator
        self._split = split
        self._workers = workers
        height, width = estimator.size
        self._bits = estimator.planes * height * width
        self._width = -(-self._bits // 8) + _CONFIDENCE.itemsize
        version = digest_of(_LAYOUT, estimator.fingerprint())[:12]
        whose = f"{_plain(split.name)}-{_plain(split.part)}-{fingerprint[:16]}"
        self.folder = folder / f"{whose}-{_plain(estimator.name)}-{version}"
        if self.folder.is_dir():
            remove_unfinished(self.folder)
        self._open: OrderedDict[int, _OpenBlock] = OrderedDict()
        self._verified: dict[int, _Stamp] = {}

    def missing(self, start: int, stop: int) -> int:
        """How many samples of a range (and of the blocks it touches) are yet to be estimated."""
        return sum(len(self._range(b)) for b in self._blocks(start, stop) if self._rows(b) is None)

    def fill(self, start: int, stop: int, progress: Progress) -> int:
        """Estimate what is missing in a range; blocks that others are at are waited for.

        Args:
            start: First position.
            stop: One past the last.
            progress: Is told how many samples were done, by whomever.

        Returns:
            How many samples this process estimated.
        """
        left = [block for block in self._blocks(start, stop) if self._rows(block) is None]
        if not left:
            return 0
        make_folder(self.folder, flag="--cache")
        done = 0
        with BlockLocks(self.folder / "lock") as locks:
            free = left
            while left:
                claims = _Claims(self, free, locks)
                done += self._estimate(claims, progress) if free else 0
                waiting = [block for block in left if block not in claims.taken]
                left = [block for block in waiting if self._rows(block) is None]
                progress(sum(len(self._range(b)) for b in set(waiting) - set(left)))
                if left:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                # Who held them may have died.
                free = [block for block in left if locks.take(block)]
        return done

    def holds(self, index: Tensor) -> Tensor:
        """Which samples' masks are there.

        Args:
            index: Positions in the split, int64, N.

        Returns:
            bool, N.
        """
        blocks = index.cpu().numpy() // BLOCK
        there = [block for block in np.unique(blocks) if self._rows(int(block)) is not None]
        return torch.from_numpy(np.isin(blocks, there))

    def read(self, index: Tensor) -> MaskEstimate:
        """The masks of some samples; absent ones are estimated first, with those around them.

        Args:
            index: Positions in the split, int64, N.

        Returns:
            Planes bool N×P×h×w and confidence float32 N, on the CPU; NaN for samples whose image
            cannot be read.
        """
        wanted = index.cpu().numpy()
        found = np.empty((len(wanted), self._width), np.uint8)
        for block in np.unique(wanted // BLOCK):
            here = wanted // BLOCK == block
            found[here] = self._filled(int(block))[wanted[here] % BLOCK]
        packed, confidence = np.split(found, [self._width - _CONFIDENCE.itemsize], axis=1)
        bits = np.unpackbits(packed, axis=1, count=self._bits)
        shape = (len(wanted), self.estimator.planes, *self.estimator.size)
        trusted = np.ascontiguousarray(confidence).view(_CONFIDENCE)[:, 0].astype(np.float32)
        return MaskEstimate(
            planes=torch.from_numpy(bits.reshape(shape).view(np.bool_)),
            confidence=torch.from_numpy(trusted),
        )

    def _blocks(self, start: int, stop: int) -> range:
        return range(start // BLOCK, -(-stop // BLOCK))

    def _range(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self._split)))

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:06d}.masks"

    def _filled(self, block: int) -> Rows:
        rows = self._rows(block)
        if rows is None:
            self.fill(block * BLOCK, block * BLOCK + 1, lambda _: None)
            rows = self._rows(block)
        assert rows is not None
        return rows

    def _rows(self, block: int) -> Rows | None:
        """The rows of a block, mapped into memory; ``None`` where it is absent or damaged."""
        try:
            found = _stamp_of(self._path(block))
        except (FileNotFoundError, NotADirectoryError):
            self._open.pop(block, None)
            return None
        known = self._open.get(block)
        if known is not None and known.stamp == found:
            self._open.move_to_end(block)
            return known.rows
        rows = self._map(block, found)
        if rows is not None:
            self._open[block] = _OpenBlock(found, rows)
            if len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        return rows

    def _map(self, block: int, stamp: _Stamp) -> Rows | None:
        count = len(self._range(block))
        if stamp.bytes != count * self._width + _DIGEST:
            return None
        content = np.memmap(self._path(block), np.uint8, "r")
        if len(content) != stamp.bytes:
            return None
        if self._verified.get(block) != stamp:
            if content[-_DIGEST:].tobytes() != _digest(content[:-_DIGEST]):
                return None
            self._verified[block] = stamp
        return content[:-_DIGEST].reshape(count, self._width)

    def _estimate(self, claims: _Claims, progress: Progress) -> int:
        """Estimate the blocks that can be claimed; returns how many samples that were."""
        rows: list[Rows] = []
        done = 0
        # Batches are asked for one by one, so a block is claimed when its turn comes.
        batches: Sequence[list[int]] = claims  # type: ignore[assignment]
        for batch in fetch(self._split, batches, workers=self._workers):
            rows.append(self._encode(batch))
            last = int(batch.index[-1])
            if last + 1 == self._range(last // BLOCK).stop:
                self._write(last // BLOCK, np.concatenate(rows))
                claims.locks.release(last // BLOCK)
                rows = []
            done += len(batch)
            progress(len(batch))
        return done

    def _encode(self, batch: Batch) -> Rows:
        estimate = self.estimator(batch.images)
        readable = torch.tensor([status != "unreadable" for status in batch.status])
        confidence = torch.where(readable, estimate.confidence.cpu(), torch.nan)
        planes = estimate.planes.flatten(1).cpu() & readable[:, None]
        trusted = confidence.numpy().astype(_CONFIDENCE)[:, None].view(np.uint8)
        return np.concatenate([np.packbits(planes.numpy(), axis=1), trusted], axis=1)

    def _write(self, block: int, rows: Rows) -> None:
        make_folder(self.folder, flag="--cache")  # somebody may have emptied the cache meanwhile
        write_atomically(self._path(block), rows.tobytes() + _digest(rows), flag="--cache")


class _Claims:
    """The batches of blocks that no other process is at, each block locked when it is reached.

    Args:
        cache: Whose blocks.
        blocks: Which ones.
        locks: Held until the block is written.
    """

    def __init__(self, cache: MaskCache, blocks: Sequence[int], locks: BlockLocks) -> None:
        self.locks = locks
        self.taken: set[int] = set()
        self._cache = cache
        self._blocks = blocks

    def __iter__(self) -> Iterator[list[int]]:
        for block in self._blocks:
            if not self.locks.take(block):
                continue
            if self._cache._rows(block) is not None:  # another process has just finished it
                self.locks.release(block)
                continue
            self.taken.add(block)
            yield from chunks(self._cache._range(block), self._cache.estimator.batch_size)


@dataclass(frozen=True)
class _Stamp:
    """What changes when a file is replaced."""

    inode: int
    bytes: int
    changed: int


@dataclass(frozen=True)
class _OpenBlock:
    stamp: _Stamp
    rows: Rows


def _stamp_of(path: Path) -> _Stamp:
    found = path.stat()
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _digest(content: Rows) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(content).data, digest_size=_DIGEST).digest()


def _plain(name: str) -> str:
    """A name as a part of a folder's name.

    Example:
        >>> _plain("my photos/été")
        'my-photos--t-'
    """
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:60]
