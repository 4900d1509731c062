"""Estimated masks on disk: computed once for a split, shared by every model and run."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audit.data import Split, iterate
from audit.files import make_folder, remove_unfinished, write_atomically
from audit.masks.estimate import VARIANTS, WORKING_SIZE, estimate_masks

BLOCK = 500
_BATCH = 250
_BITS = len(VARIANTS) * WORKING_SIZE * WORKING_SIZE


class MaskCache:
    """The estimated masks of one split, as files of 500 samples with one bit a pixel.

    Args:
        split: Whose masks.
        fingerprint: The split's content digest; another content finds another folder.
        folder: Where caches live.
        device: Where to estimate.
        workers: Processes that decode.
    """

    def __init__(
        self,
        split: Split,
        fingerprint: str,
        folder: Path,
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self._split = split
        self._device = device
        self._workers = workers
        estimator = f"{device.type}-{estimator_fingerprint()[:8]}"
        self._folder = folder / f"{split.name[:60]}-{split.part}-{fingerprint[:16]}-{estimator}"
        remove_unfinished(make_folder(self._folder))

    def missing(self, start: int, stop: int) -> int:
        """How many samples of a range (and of the blocks it touches) are yet to be estimated."""
        blocks = range(start // BLOCK, -(-stop // BLOCK))
        return sum(len(self._range(b)) for b in blocks if self._read(b) is None)

    def fill(self, start: int, stop: int, progress: Callable[[int], object]) -> None:
        """Estimate what is missing in a range.

        Args:
            start: First position.
            stop: One past the last.
            progress: Is told how many samples were done.
        """
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if self._read(block) is None:
                self._estimate(block, progress)

    def variants(self, index: Tensor) -> Tensor:
        """The masks of some samples.

        Args:
            index: Positions in the split, int64, N.

        Returns:
            bool, N×5×32×32, in the order of ``VARIANTS``.
        """
        wanted = index.numpy()
        packed = np.empty((len(wanted), _BITS // 8), np.uint8)
        for block in np.unique(wanted // BLOCK):
            content = self._read(int(block))
            if content is None:
                self._estimate(int(block), lambda _: None)
                content = self._read(int(block))
            assert content is not None
            here = wanted // BLOCK == block
            packed[here] = content[wanted[here] % BLOCK]
        bits = np.unpackbits(packed, axis=1).reshape(-1, len(VARIANTS), WORKING_SIZE, WORKING_SIZE)
        return torch.from_numpy(bits).bool()

    def _range(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, len(self._split)))

    def _path(self, block: int) -> Path:
        return self._folder / f"{block:06d}.npy"

    def _read(self, block: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]] | None:
        try:
            content = np.load(self._path(block), mmap_mode="r", allow_pickle=False)
        except (FileNotFoundError, ValueError, EOFError):
            return None
        return content if content.shape == (len(self._range(block)), _BITS // 8) else None

    def _estimate(self, block: int, progress: Callable[[int], object]) -> None:
        rows = []
        for batch in iterate(
            self._split, self._range(block), batch_size=_BATCH, workers=self._workers
        ):
            masks = estimate_masks(batch.images.to(self._device)).variants
            rows.append(np.packbits(masks.flatten(1).cpu().numpy(), axis=1))
            progress(len(batch))
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(rows), allow_pickle=False)
        make_folder(self._folder)  # somebody may have emptied the cache meanwhile
        write_atomically(self._path(block), buffer.getvalue())


@cache
def estimator_fingerprint() -> str:
    """A digest of the estimator's code: another estimator never reads this one's masks."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
