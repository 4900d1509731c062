"""How many images at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

LEAST, LARGEST = 8, 32_768
# Twice as many images shall give at least so much more throughput.
_GAIN = 1.05
# The share of a device's free memory that a step may take.
MEMORY_SHARE = 0.6
_REPEATS = 3
# On a CPU: up to so many, and up to so many pixels together: 512 images of 64×64, 32 of 224×224.
_LARGEST_ON_CPU = 512
_BATCH_PIXELS = 512 * 64 * 64


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One step over a batch.

    Attributes:
        seconds: That it took.
        bytes: The most memory that it held at a time.
    """

    seconds: float
    bytes: int


def plain_batch_size(image_size: tuple[int, int]) -> int:
    """A size that does not depend on the machine, so that a run can go on anywhere.

    Args:
        image_size: H and W.

    Example:
        >>> [plain_batch_size((side, side)) for side in (32, 64, 224, 2048)]
        [512, 512, 32, 1]
    """
    fit = _BATCH_PIXELS // (image_size[0] * image_size[1])
    return max(1, min(_LARGEST_ON_CPU, 2 ** max(0, fit.bit_length() - 1)))


def best_batch_size(measure: Callable[[int], Measured], bound: int) -> int:
    """The batch size past which throughput hardly grows, or memory ends.

    Sizes are doubled from 8 on; where 8 images are too many, they are halved.

    Args:
        measure: Runs a step over so many images; may raise ``torch.OutOfMemoryError``.
        bound: Bytes that a step may hold.

    Returns:
        From 1 to 32,768, a power of two.

    Example:
        >>> best_batch_size(lambda n: Measured(seconds=1 + n / 100, bytes=n), bound=1000)
        512
    """
    best, rate = 0, 0.0
    size = LEAST
    while size <= LARGEST:
        found = _tried(measure, size, bound)
        if found is None or (best and size / found.seconds < rate * _GAIN):
            break
        best, rate = size, size / found.seconds
        size *= 2
    smaller = LEAST // 2
    while not best and smaller > 1:
        best = smaller if _tried(measure, smaller, bound) else 0
        smaller //= 2
    return best or 1


def measure_cuda(run: Callable[[int], object], size: int, device: torch.device) -> Measured:
    """One step's time and memory on a GPU.

    Args:
        run: Runs a step over so many images.
        size: How many.
        device: The GPU.
    """
    run(size)  # Kernels are loaded, and memory is taken, at the first time.
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    for _ in range(_REPEATS):
        run(size)
    torch.cuda.synchronize(device)
    seconds = (time.perf_counter() - started) / _REPEATS
    return Measured(seconds=seconds, bytes=torch.cuda.max_memory_allocated(device))


def probed_batch_size(run: Callable[[int], object], device: torch.device) -> int:
    """The batch size that suits a GPU, by trying.

    Args:
        run: Runs a step over so many images.
        device: The GPU, with the network on it.
    """
    free, _ = torch.cuda.mem_get_info(device)
    bound = int(MEMORY_SHARE * free) + torch.cuda.memory_allocated(device)
    found = best_batch_size(lambda size: measure_cuda(run, size, device), bound)
    torch.cuda.empty_cache()
    return found


def _tried(measure: Callable[[int], Measured], size: int, bound: int) -> Measured | None:
    """``None`` where a step takes too much memory."""
    try:
        found = measure(size)
    except torch.OutOfMemoryError:
        return None
    return found if found.bytes <= bound else None
