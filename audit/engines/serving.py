"""A process that computes parts which another one hands out."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from audit.engines.messages import (
    Busy,
    Channel,
    Counted,
    Done,
    Failed,
    Order,
    Ready,
    Refused,
)
from audit.errors import AuditError, UsageError
from audit.inputs import Opened, open_inputs
from audit.memory import keep_freed_memory
from audit.run.plan import read_plan, refuse_other
from audit.run.store import Shard
from audit.stopping import Stopped, Stopping
from audit.telemetry.profiling import span
from audit.usercode import brief
from audit.work import Profiled, Worker, open_worker, profiled, ready_network


def serve(order: Order, channel: Channel, stopping: Stopping) -> None:
    """Open what a run reads, then compute and commit the parts that come, until none come.

    Args:
        order: What to open.
        channel: Where parts come from and messages go to. The last message is
            :class:`Refused` or :class:`Failed` where it ends for a reason.
        stopping: Is asked after every batch.
    """
    keep_freed_memory()
    try:
        _settle(order)
        with profiled(order.config, order.rank or "0") as profile:
            with span("open"):
                opened = open_inputs(order.config)
            _check_run(opened, order)
            profile.opened(opened)
            with ready_network(opened):
                worker = open_worker(opened, order.rank)
                worker.prepare()
                channel.send(Ready())
                while shards := channel.receive():
                    _compute(worker, shards, channel, stopping, profile)
    except (Stopped, EOFError, BrokenPipeError):
        return
    except AuditError as error:
        channel.send(Refused(error))
    except Exception as error:  # noqa: BLE001  # the user's code, and drivers of GPUs, may raise anything
        channel.send(Failed(brief(error)))


def _settle(order: Order) -> None:
    """Be where the order was given, as far as this machine has that place."""
    with suppress(OSError):
        if Path.cwd() != Path(order.folder):
            os.chdir(order.folder)
    sys.path += [path for path in order.paths if path not in sys.path]
    torch.set_num_threads(order.threads)


def _check_run(opened: Opened, order: Order) -> None:
    """Refuse to compute anything but the run of the order, or to write elsewhere.

    Raises:
        UsageError: If this machine does not see the run, or sees other data or code.
    """
    who = f"a process on {socket.gethostname()}"
    if opened.fingerprint != order.plan.fingerprint:
        refuse_other(f"what {who} opened", order.plan, opened.plan)
    if read_plan(opened.storage) is None:
        raise UsageError(
            f"{who} does not see the run in {opened.storage.place}",
            expected="a folder that all machines share, or an object store",
            found="no plan.json there",
            remedy="give such a place as --out, whole (/shared/reports), or s3://…",
        )


def _compute(
    worker: Worker,
    shards: Sequence[Shard],
    channel: Channel,
    stopping: Stopping,
    profile: Profiled,
) -> None:
    def busy(count: int) -> None:
        channel.send(Busy())
        stopping.check()

    channel.send(Busy())
    worker.fill_masks(shards, busy)
    channel.send(Counted(0))
    started = time.monotonic()

    def done(shard: Shard) -> None:
        nonlocal started
        seconds, started = time.monotonic() - started, time.monotonic()
        # Now, for whoever hears of the last part ends this process.
        profile.leave()
        channel.send(Done(seconds))

    def count(samples: int) -> None:
        channel.send(Counted(samples))

    worker.compute(shards, count, stopping=stopping, done=done)
