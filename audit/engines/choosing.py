"""Which engine computes the missing shards."""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from audit.data.split import name_of
from audit.engines.cluster import ActorTeam, cluster, room
from audit.engines.messages import Order
from audit.engines.processes import ProcessTeam
from audit.engines.supervising import Manner, Supervisor, Team
from audit.engines.suspects import suspects_last
from audit.errors import UsageError
from audit.inputs import Opened
from audit.run.progress import Progress
from audit.run.store import Shard
from audit.stopping import Stopping
from audit.work import Worker

_MOST_DECODERS = 8


def compute(
    worker: Worker, missing: Sequence[Shard], total: int, *, stopping: Stopping
) -> dict[int, str]:
    """Compute and commit shards with the engine that the settings name.

    Args:
        worker: Of this process.
        missing: What is to be computed.
        total: Samples of all shards of this process, with those that are done.
        stopping: Is asked after every batch.

    Returns:
        Why shards could not be computed, by number; their parts are missing. Others are committed.

    Raises:
        Stopped: If an end was wished for.
        AuditError: If something cannot be opened, computed or written.
    """
    if not missing:
        return {}
    ordered = suspects_last(worker.store, missing, worker.telemetry.warn)
    engine = worker.opened.config.engine
    processes = count_processes(worker.opened)
    done = total - sum(map(len, missing))
    if engine == "local" and processes == 1:
        worker.fill_masks(ordered, stopping=stopping)
        with Progress("audit", total, done, worker.telemetry) as progress:
            worker.prepare()
            worker.compute(ordered, progress, stopping=stopping, done=_telling(worker))
        return {}
    name = functools.partial(name_of, worker.opened.split)
    with (
        _team(worker, processes, len(missing)) as (team, manner),
        Progress("audit", total, done, worker.telemetry) as progress,
    ):
        supervisor = Supervisor(
            team,
            manner,
            progress=progress,
            stopping=stopping,
            name=name,
            telemetry=worker.telemetry,
        )
        return supervisor.run(ordered)


def _telling(worker: Worker) -> Callable[[Shard], object]:
    last = time.monotonic()

    def tell(shard: Shard) -> None:
        nonlocal last
        began, last = last, time.monotonic()
        worker.telemetry.part_committed(shard.number, len(shard), last - began)

    return tell


def count_processes(opened: Opened) -> int:
    """How many processes are to compute; 0 for as many as a cluster has room for.

    Args:
        opened: The run.

    Raises:
        UsageError: If several are asked for and the network cannot be sent to them.
    """
    config = opened.config
    gpus = torch.cuda.device_count() if _on_any_gpu(opened) else 1
    usual = 0 if config.engine == "ray" else gpus
    wanted = usual if config.processes is None else config.processes
    if not opened.plan.given or (wanted == 1 and config.engine == "local"):
        return wanted
    if config.engine == "local" and config.processes is None:
        return 1
    raise UsageError(
        "a network that was given in memory cannot be computed by other processes",
        expected="a model that they can open: model='module:function', a name or a file",
        found=f"engine={config.engine}, processes={config.processes}",
        remedy="leave both settings, or name the model",
    )


@contextmanager
def _team(worker: Worker, processes: int, most: int) -> Iterator[tuple[Team[Any], Manner]]:
    """Who computes, and how the work is handed out to them."""
    opened = worker.opened
    if opened.config.engine == "local":
        size = min(processes, most)
        yield _processes(worker, size), _manner(worker, size)
        return
    with cluster(opened.config.processes):
        gpus = 1 if opened.device.type == "cuda" else 0
        size = min(processes or room(gpus), most)

        def order_for(number: int) -> Order:
            return _order(worker, str(number), opened.device.type, threads=1)

        yield ActorTeam(order_for, gpus), _manner(worker, size)


def _processes(worker: Worker, size: int) -> ProcessTeam:
    opened = worker.opened
    cores = max(1, len(os.sched_getaffinity(0)) // size)
    gpus = torch.cuda.device_count() if _on_any_gpu(opened) else 0

    def order_for(place: int) -> Order:
        device = f"cuda:{place % gpus}" if gpus else opened.config.device
        return _order(worker, str(place), device, threads=cores)

    return ProcessTeam(order_for)


def _manner(worker: Worker, size: int) -> Manner:
    decoders = _decoders(worker.opened)
    # Processes that decode are two batches each ahead of the one that is computed.
    return Manner(
        size=size, lots=decoders > 0, reach=worker.auditor.batch_size * (1 + 2 * decoders)
    )


def _order(worker: Worker, place: str, device: str, *, threads: int) -> Order:
    opened = worker.opened
    changes = {"device": device, "workers": _decoders(opened)}
    return Order(
        config=opened.config.model_copy(update=changes),
        plan=opened.plan,
        rank=" ".join(filter(None, (worker.rank, place))),
        threads=threads,
        folder=str(Path.cwd()),
        paths=tuple(sys.path),
    )


def _decoders(opened: Opened) -> int:
    """Processes that decode for each that computes.

    Where CPUs compute, more processes do so instead: one that computes decodes for itself.
    """
    if opened.config.workers != "auto":
        return opened.config.workers
    if opened.device.type == "cpu" or not opened.workers:
        return 0
    gpus = max(1, torch.cuda.device_count())
    return max(1, min(_MOST_DECODERS, len(os.sched_getaffinity(0)) // gpus - 1))


def _on_any_gpu(opened: Opened) -> bool:
    """Whether the settings leave open which GPU computes."""
    return opened.device.type == "cuda" and opened.config.device in ("auto", "cuda")
