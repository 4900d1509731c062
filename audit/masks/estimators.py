"""What makes masks of images, seen from the cache: a name, a shape, a digest and a call."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from audit.masks.estimate import PLANES, WORKING_SIZE, MaskEstimate, estimate_masks

_LARGEST_BATCH = 250
_BATCH_PIXELS = 2**24
_IMPORT = re.compile(r"^from audit\.masks\.(\w+) import", re.MULTILINE)


class Estimator(Protocol):
    """Images to masks, the same for the same image whenever it is asked."""

    @property
    def name(self) -> str:
        """For folders: letters, digits, ``.``, ``_`` and ``-``."""

    @property
    def planes(self) -> int:
        """How many masks an image has; the first is the one that scores rest on."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the masks."""

    @property
    def batch_size(self) -> int:
        """How many images to give at a time."""

    def fingerprint(self) -> str:
        """A digest of everything but the images that decides the masks."""

    def __call__(self, images: Tensor) -> MaskEstimate:
        """Estimate masks.

        Args:
            images: uint8, N×3×H×W, on the CPU.

        Returns:
            Planes N×P×h×w and confidence, on any device.
        """


class DefaultEstimator:
    """The estimator of :mod:`audit.masks.estimate` on a device.

    Args:
        device: Where to estimate.
        image_size: Of the images.
    """

    name = "estimated"
    planes = len(PLANES)
    size = (WORKING_SIZE, WORKING_SIZE)

    def __init__(self, device: torch.device, image_size: tuple[int, int] = (32, 32)) -> None:
        self._device = device
        fit = _BATCH_PIXELS // (image_size[0] * image_size[1])
        self.batch_size = max(1, min(_LARGEST_BATCH, fit))

    def fingerprint(self) -> str:
        """See :class:`Estimator`."""
        return digest_of(code_behind("estimate"), torch_version(), self._device.type)

    def __call__(self, images: Tensor) -> MaskEstimate:
        """See :class:`Estimator`."""
        return estimate_masks(images.to(self._device))


def digest_of(*facts: str) -> str:
    """One digest of several texts."""
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def torch_version() -> str:
    """Torch's version without what it was built for."""
    return torch.__version__.partition("+")[0]


@cache
def code_behind(module: str) -> str:
    """A digest of a module of this package and of all that it imports from this package.

    What else lies beside it does not decide its masks, and may change without a new cache.

    Args:
        module: Its name in ``audit.masks``.
    """
    folder = Path(__file__).parent
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = (folder / f"{name}.py").read_text(encoding="utf-8")
            waiting += _IMPORT.findall(found[name])
    return digest_of(*(f"{name}\n{found[name]}" for name in sorted(found)))
