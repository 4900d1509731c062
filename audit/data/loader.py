"""Batches of a split in a fixed order, from worker processes where decoding costs time."""

from __future__ import annotations

import errno
import multiprocessing
from collections.abc import Iterator, Sequence

from torch.utils.data import DataLoader

from audit.data.split import Batch, Split

# Below this many samples a worker process costs more to start than it saves.
_WORTH_WORKERS = 4096
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
        # Workers are forked from a server that holds torch; else each would import it anew.
        multiprocessing.set_forkserver_preload(["__main__", __name__])
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


def workers_for(split: Split, requested: int | None, cores: int) -> int:
    """How many worker processes to start.

    Args:
        split: The split to be read.
        requested: The user's wish; ``None`` decides by the split.
        cores: Processors at hand.

    Returns:
        0 where fetching is a memory copy or the split is small.
    """
    if requested is not None:
        return requested
    if split.in_memory or len(split) < _WORTH_WORKERS or split.image_size[0] <= 64:
        return 0
    return min(8, max(1, cores - 1))


def chunks(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    """Cut a sequence into batches; the last may be shorter."""
    order = list(indices)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _as_is(batch: Batch) -> Batch:
    return batch
