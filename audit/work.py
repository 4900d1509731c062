"""Computing shards of a run and committing them: what every engine calls."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from audit.errors import AuditError, UsageError
from audit.explaining import explainer_of
from audit.inputs import Opened
from audit.run.engine import Auditor, evidence_share
from audit.run.progress import Progress
from audit.run.rows import columns_of
from audit.run.store import PartStore, Shard, plan_shards
from audit.sanity import count_stages
from audit.step import AuditStep, prefix_of, rehearse
from audit.stopping import Stopped, Stopping
from audit.tables.scale.digest import digest_part
from audit.tables.scale.setting import Digesting, is_summed
from audit.telemetry import Telemetry

SAMPLES = "samples"
# The side file of a part with its partial sums, where tables are made of sums.
SUMS = "sums"
_LARGEST_BATCH = 256
# Pixels of a batch: 256 images of 64×64, 16 of 224×224.
_BATCH_PIXELS = 256 * 64 * 64


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process's part in a run.

    Attributes:
        opened: What the run reads.
        auditor: Computes shards.
        store: Takes them.
        rank: What this process is called among those of the run, for people.
        telemetry: Is told what happens.
    """

    opened: Opened
    auditor: Auditor
    store: PartStore
    rank: str = ""
    telemetry: Telemetry = field(default_factory=Telemetry)

    def prepare(self) -> None:
        """Choose what all shards need; once, before :meth:`compute`.

        Raises:
            AuditError: If the device's memory does not suffice.
        """
        with enough_memory(self.opened, self.auditor):
            self.auditor.choose_donors(self.opened.config.seed)

    def compute(
        self,
        shards: Sequence[Shard],
        progress: Callable[[int], object],
        *,
        stopping: Stopping | None = None,
        done: Callable[[Shard], object] = lambda shard: None,
    ) -> None:
        """Compute shards one after the other, and commit each.

        Args:
            shards: Those that are missing, in order.
            progress: Is told how many samples were done.
            stopping: Is asked after every batch and every shard.
            done: Is told each shard that was committed.

        Raises:
            Stopped: If an end was wished for. The shard at hand is dropped.
            AuditError: If the device's memory does not suffice, or a part cannot be written.
        """
        if not shards:
            return
        stopping = stopping or Stopping(0)

        def step(count: int) -> None:
            progress(count)
            stopping.check()

        stopping.check_between()
        try:
            with enough_memory(self.opened, self.auditor):
                computed = self.auditor.run_shards(shards, step)
                for shard in shards:
                    self._compute_one(shard, computed)
                    done(shard)
                    stopping.check_between()
        except (OSError, RuntimeError) as error:
            # A signal to all processes has ended those that decode.
            if stopping.asked:
                raise Stopped from error
            raise

    def _compute_one(
        self, shard: Shard, computed: Iterator[tuple[Shard, Any, dict[str, Any]]]
    ) -> None:
        started = time.monotonic()
        self.store.claim(shard)
        try:
            _, table, summary = next(computed)
            extras = {}
            if is_summed(len(self.opened.split)):
                extras[SUMS] = digest_part(table, digesting_of(self.opened))
            worker = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "rank": self.rank,
                "seconds": round(time.monotonic() - started, 2),
                "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
            self.store.commit(shard, table, summary, worker, extras)
        finally:
            self.store.release(shard)

    def fill_masks(
        self,
        shards: Iterable[Shard],
        told: Callable[[int], object] | None = None,
        *,
        stopping: Stopping | None = None,
    ) -> None:
        """Estimate the masks that shards need and the cache lacks.

        Args:
            shards: Which.
            told: Is told how many samples were done; without it, people are.
            stopping: Is asked after every batch.

        Raises:
            Stopped: If an end was wished for and its time is over; finished blocks are kept.
        """
        ranges = _joined([(shard.start, shard.stop) for shard in shards])
        families = self.auditor.families
        total = sum(stop - start for start, stop in ranges)
        todo = sum(families.missing(*each) for each in ranges)
        if not todo:
            return
        every = max(todo, total * len(families.caches))
        with (
            nullcontext(told) if told else Progress("masks", every, every - todo, self.telemetry)
        ) as progress:

            def step(count: int) -> None:
                progress(count)
                if stopping is not None:
                    stopping.check()

            for start, stop in ranges:
                families.fill(start, stop, step)


def open_store(opened: Opened) -> PartStore:
    """The parts of a run's samples."""
    return PartStore(opened.storage, SAMPLES, opened.fingerprint)


def shards_of(opened: Opened) -> list[Shard]:
    """All shards of a run."""
    return plan_shards(len(opened.split), opened.shard_size)


def digesting_of(opened: Opened) -> Digesting:
    """What partial sums need to know beside the rows."""
    return Digesting(
        count=len(opened.split),
        classes=tuple(opened.split.classes),
        seed=opened.config.seed,
    )


def open_worker(opened: Opened, rank: str = "", telemetry: Telemetry | None = None) -> Worker:
    """Make ready to compute.

    Args:
        opened: What the run reads.
        rank: What this process is called among those of the run.
        telemetry: Is told what happens; without one, people on stderr are.

    Raises:
        UsageError: If the settings ask for what the network cannot do.
    """
    return Worker(
        opened=opened,
        auditor=_open_auditor(opened),
        store=open_store(opened),
        rank=rank,
        telemetry=telemetry or Telemetry(),
    )


def _open_auditor(opened: Opened) -> Auditor:
    config = opened.config
    explainer = explainer_of(config, opened.classifier, opened.parts)
    step = AuditStep(
        explainer,
        image_size=opened.split.image_size,
        target=config.target,
        partners=config.partners,
        faithful=config.faithfulness,
        evidence_share=evidence_share(len(opened.split), opened.parts.channels),
    ).to_device(opened.device)
    rehearse(step, opened.classifier.architecture)
    if config.sanity and not count_stages(explainer):
        raise UsageError(
            f"--sanity cannot draw the weights of '{opened.classifier.architecture}' anew",
            expected="a network with parameters",
            found="a program whose weights are constants",
            remedy="leave --sanity, or audit the network from its Python code",
        )
    return Auditor(
        split=opened.split,
        step=step,
        families=opened.families,
        device=opened.device,
        batch_size=_batch_size(config.batch_size, opened.split.image_size),
        workers=opened.workers,
        columns=columns_of(
            [prefix_of(method) for method in config.method[1:]],
            faithful=config.faithfulness,
            families=opened.families.others,
        ),
    )


def _batch_size(wanted: int | str, image_size: tuple[int, int]) -> int:
    """A size that does not depend on the machine, so that a run can go on anywhere."""
    if isinstance(wanted, int):
        return wanted
    fit = _BATCH_PIXELS // (image_size[0] * image_size[1])
    return max(1, min(_LARGEST_BATCH, 2 ** max(0, fit.bit_length() - 1)))


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that touch, as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        touches = bool(joined) and joined[-1][1] == start
        joined.append((joined.pop()[0] if touches else start, stop))
    return joined


@contextmanager
def enough_memory(opened: Opened, auditor: Auditor) -> Iterator[None]:
    """Say what helps where the device's memory does not suffice.

    Raises:
        AuditError: Then.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        height, width = opened.split.image_size
        raise AuditError(
            f"the device {opened.device} has too little memory for {auditor.batch_size} "
            f"images of {height}×{width} at a time",
            remedy="give a smaller --batch-size",
        ) from error
