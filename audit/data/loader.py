"""Batches of a split in a fixed order, from worker processes where decoding costs time."""

from __future__ import annotations

import errno
import math
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader

from audit.data.split import Batch, Split

# Fewer samples are not worth looking at; nor are processes where all is decoded in less than what
# they take to start.
_LEAST_SAMPLES = 256
_SECONDS_TO_START = 15.0
# Samples whose decoding is timed.
_TRIED = 8
# Pixels a second that quick networks compute: 80 images of 224×224 on a core, 4,000 on a GPU.
_PIXELS_OF_A_CORE, _PIXELS_OF_A_GPU = 4e6, 2e8
_MOST_WORKERS = 8
_DECODING = ("torchvision.io", "torchvision.transforms.v2")
_DIED = (
    "a process that decodes images was ended from outside; run the same command again: finished "
    "parts are kept (with --workers 0 no such processes are started)"
)


def iterate(
    split: Split,
    indices: Sequence[int],
    *,
    batch_size: int,
    workers: int = 0,
    pin: bool = False,
) -> Iterator[Batch]:
    """Fetch samples in the order given.

    Args:
        split: Where to fetch from.
        indices: Positions in the split.
        batch_size: Samples a batch; the last batch may hold fewer.
        workers: See :func:`fetch`.
        pin: See :func:`fetch`.

    Yields:
        Batches that cover ``indices`` in order.

    Example:
        >>> from audit.data.demo import open_demo
        >>> [len(b) for b in iterate(open_demo("test"), range(5), batch_size=2)]
        [2, 2, 1]
    """
    yield from fetch(split, chunks(indices, batch_size), workers=workers, pin=pin)


def fetch(
    split: Split, batches: Sequence[list[int]], *, workers: int = 0, pin: bool = False
) -> Iterator[Batch]:
    """Fetch given batches, in their order.

    Args:
        split: Where to fetch from.
        batches: Positions in the split, a list for each batch.
        workers: Worker processes; 0 fetches in this process.
        pin: Put batches into page-locked memory, for asynchronous copies to a GPU.

    Yields:
        The batches.

    Raises:
        ChildProcessError: If a worker process was killed.
    """
    if workers:
        # Workers are forked from a server that holds torch and what decodes; else each would
        # import them anew.
        multiprocessing.set_forkserver_preload(["__main__", __name__, *_DECODING])
    loader: DataLoader[Batch] = DataLoader(
        split,  # type: ignore[arg-type]  # map-style with __getitems__ only
        batch_sampler=batches,
        collate_fn=_as_is,  # type: ignore[arg-type]  # __getitems__ gives a batch, not a list
        num_workers=workers,
        pin_memory=pin,
        # Forking a process that runs Arrow and torch threads can deadlock.
        multiprocessing_context="forkserver" if workers else None,
    )
    try:
        yield from loader
    except (EOFError, ConnectionError, RuntimeError) as error:
        if workers and _is_of_dead_worker(error):
            raise ChildProcessError(errno.ECHILD, _DIED) from error
        raise


def _is_of_dead_worker(error: Exception) -> bool:
    """Whether torch tells of a worker's end, not of what the user's code raised in one."""
    said = str(error)
    if said.startswith("Caught "):
        return False
    return not isinstance(error, RuntimeError) or said.startswith("DataLoader worker (pid")


def workers_for(split: Split, requested: int | None, cores: int, *, gpu: bool = False) -> int:
    """How many worker processes to start.

    Args:
        split: The split to be read; its first samples are fetched, to see how long that takes.
        requested: The user's wish; ``None`` decides.
        cores: Processors at hand.
        gpu: Whether a GPU computes.

    Returns:
        0 where fetching is a memory copy, is soon done, or a thread beside the computing keeps up.
    """
    if requested is not None:
        return requested
    if split.in_memory or len(split) < _LEAST_SAMPLES:
        return 0
    return workers_needed(
        seconds_to_fetch(split),
        len(split),
        split.image_size,
        cores,
        gpu=gpu,
        thread=getattr(split, "any_thread", False),
    )


def workers_needed(
    seconds: float,
    count: int,
    image_size: tuple[int, int],
    cores: int,
    *,
    gpu: bool,
    thread: bool,
) -> int:
    """How many processes decode as fast as pictures are computed.

    Args:
        seconds: For a sample.
        count: Samples.
        image_size: H and W, of what is computed.
        cores: Processors at hand.
        gpu: Whether a GPU computes.
        thread: Whether, without processes, a thread decodes beside the computing.

    Returns:
        At most one less than there are processors, and 8.

    Example:
        >>> photos = {"count": 50_000, "image_size": (224, 224), "thread": True}
        >>> workers_needed(0.004, cores=2, gpu=False, **photos)
        0
        >>> workers_needed(0.004, cores=16, gpu=False, **photos)
        6
        >>> workers_needed(0.004, cores=16, gpu=True, **photos)
        8
    """
    if seconds * count < _SECONDS_TO_START:
        return 0
    rate = _PIXELS_OF_A_GPU if gpu else _PIXELS_OF_A_CORE * cores
    busy = seconds * rate / (image_size[0] * image_size[1])
    if busy <= 1 and thread:
        return 0
    return min(_MOST_WORKERS, max(1, cores - 1), max(1, math.ceil(busy)))


def seconds_to_fetch(split: Split) -> float:
    """What one sample takes: the median of some, after one that opens files and libraries."""
    taken = []
    for place in range(min(len(split), _TRIED + 1)):
        started = time.perf_counter()
        split.__getitems__([place])
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:] or taken)


def chunks(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut a sequence into batches; the last may be shorter."""
    order = list(indices)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _as_is(batch: Batch) -> Batch:
    return batch
