"""Computing shards of a run and committing them: what every engine calls."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import torch

from audit import __version__
from audit.config import AuditConfig
from audit.errors import AuditError, UsageError
from audit.explaining import explainer_of
from audit.inference.batching import plain_batch_size, probed_batch_size
from audit.inference.choosing import backbone_of, head_of
from audit.inputs import Opened
from audit.models import evaluation, own_failures, plain_kernels
from audit.run.behind import Behind
from audit.run.engine import Auditor, ShardRows, evidence_share
from audit.run.plan import settle_batch_size
from audit.run.progress import Progress
from audit.run.rows import columns_of
from audit.run.store import PartStore, Shard, plan_shards
from audit.run.summing import is_summed
from audit.sanity import count_stages
from audit.score.masks import Masks
from audit.step import AuditStep, prefix_of, rehearse
from audit.stopping import Stopped, Stopping
from audit.telemetry import Telemetry
from audit.telemetry.profiling import Profile, files_of, profiling, span

if TYPE_CHECKING:
    from audit.tables.scale.setting import Digesting

SAMPLES = "samples"
# Where a run's folder has its profiles.
PROFILES = "profile"
# The side file of a part with its partial sums, where tables are made of sums.
SUMS = "sums"


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
        with enough_memory(self.opened, self.auditor), span("donors"):
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

        A part is encoded and written beside the computing of the next one. Whoever is told hears
        of samples and parts in the order in which they were computed, in this thread.

        Raises:
            Stopped: If an end was wished for. The shard at hand is dropped.
            AuditError: If the device's memory does not suffice, or a part cannot be written.
        """
        if not shards:
            return
        stopping = stopping or Stopping(0)

        told = _Told(progress, done)

        def step(count: int) -> None:
            if behind.look():
                # The shard at hand has hardly begun.
                stopping.check_between()
            told.count(count, later=behind.busy)
            stopping.check()

        stopping.check_between()
        try:
            with enough_memory(self.opened, self.auditor), Behind(told.commit) as behind:
                for some in self._lots(shards):
                    # A shard that may end the process waits until those before it are safe.
                    behind.finish()
                    with closing(self.auditor.run_shards(some, step)) as computed:
                        for shard in some:
                            with self._claimed(shard):
                                self._compute_one(computed, behind)
                            stopping.check_between()
        except (OSError, RuntimeError) as error:
            # A signal to all processes has ended those that decode.
            if stopping.asked:
                raise Stopped from error
            raise

    def _lots(self, shards: Sequence[Shard]) -> Iterator[list[Shard]]:
        """Shards to compute in one go; one that a process was at when it died goes alone."""
        begun = self.store.claims() if len(shards) > 1 else {}
        for suspected, some in itertools.groupby(shards, lambda shard: shard.number in begun):
            lot = list(some)
            yield from [[shard] for shard in lot] if suspected else [lot]

    @contextmanager
    def _claimed(self, shard: Shard) -> Iterator[None]:
        """Claim a shard, and take the claim back if it cannot be computed."""
        self.store.claim(shard)
        try:
            yield
        except BaseException:
            self.store.release(shard)
            raise

    def _compute_one(
        self, computed: Iterator[tuple[Shard, ShardRows]], behind: Behind[Shard]
    ) -> None:
        started = time.monotonic()
        shard, rows = next(computed)
        behind.put(partial(self._commit, shard, rows, time.monotonic() - started))

    def _commit(self, shard: Shard, rows: ShardRows, seconds: float) -> Shard:
        try:
            with span("rows"):
                table, summary = rows.table()
            extras = {}
            if is_summed(len(self.opened.split)):
                # Loads the tables, which takes a while: others need them only at the end.
                from audit.tables.scale.digest import digest_part

                extras[SUMS] = digest_part(table, digesting_of(self.opened))
            worker = {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "rank": self.rank,
                "seconds": round(seconds, 2),
                "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
            with span("commit"):
                self.store.commit(shard, table, summary, worker, extras)
        finally:
            self.store.release(shard)
        return shard

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

            with span("estimate masks"):
                for start, stop in ranges:
                    families.fill(start, stop, step)


class _Told:
    """Tells of samples and parts as if each part were committed before the next is begun.

    Args:
        progress: Is told how many samples were done.
        done: Is told each shard that was committed.
    """

    def __init__(
        self,
        progress: Callable[[int], object],
        done: Callable[[Shard], object],
    ) -> None:
        self._progress = progress
        self._done = done
        self._held: list[int] = []

    def count(self, samples: int, *, later: bool) -> None:
        """So many more samples are computed; it is told later while the part before is not done."""
        if later:
            self._held.append(samples)
        else:
            self._progress(samples)

    def commit(self, shard: Shard) -> None:
        """A shard's part is kept."""
        self._done(shard)
        held, self._held = self._held, []
        for samples in held:
            self._progress(samples)


@contextmanager
def profiled(config: AuditConfig, rank: str = "") -> Iterator[Profiled]:
    """Count where the time goes, if that is wished for, and leave it with the run.

    Args:
        config: The settings.
        rank: What this process is called among those of the run; empty for the only one.

    Yields:
        What is to be told the run, once that is open. Files are there at the end, also of a run
        that fails.
    """
    with profiling(wanted=config.profile) as profile:
        told = Profiled(profile, rank)
        try:
            yield told
        except BaseException:
            # What failed is to be told, and not that this did, too.
            with suppress(OSError, AuditError):
                told.leave()
            raise
        told.leave()


class Profiled:
    """A profile, and the run that it is left with.

    Args:
        profile: ``None`` where none is wanted; then nothing is left.
        rank: See :func:`profiled`.
    """

    def __init__(self, profile: Profile | None, rank: str) -> None:
        self._profile = profile
        self._rank = rank
        self._opened: Opened | None = None

    def opened(self, opened: Opened) -> None:
        """The run."""
        self._opened = opened

    def leave(self) -> None:
        """Write what was counted by now.

        Raises:
            OutputError: If it cannot be written.
        """
        if self._profile is None or self._opened is None:
            return
        run = self._opened
        about = {
            "audit": __version__,
            "samples": len(run.split),
            "classes": len(run.split.classes),
            "image_size": list(run.split.image_size),
            "model": run.classifier.architecture,
            "layer": run.parts.layer,
            "cut": run.parts.how,
            "device": str(run.device),
            "workers": run.workers,
            "shard_size": run.shard_size,
            "settings": run.config.model_dump(mode="json"),
        }
        for name, content in files_of(self._profile, about, self._rank).items():
            run.storage.write(f"{PROFILES}/{name}", content)


def open_store(opened: Opened) -> PartStore:
    """The parts of a run's samples."""
    return PartStore(opened.storage, SAMPLES, opened.fingerprint)


def shards_of(opened: Opened) -> list[Shard]:
    """All shards of a run."""
    return plan_shards(len(opened.split), opened.shard_size)


def digesting_of(opened: Opened) -> Digesting:
    """What partial sums need to know beside the rows."""
    from audit.tables.scale.setting import Digesting

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
    telemetry = telemetry or Telemetry()
    with span("start-up"):
        auditor = _open_auditor(opened, telemetry)
    return Worker(
        opened=opened,
        auditor=auditor,
        store=open_store(opened),
        rank=rank,
        telemetry=telemetry,
    )


def _open_auditor(opened: Opened, telemetry: Telemetry) -> Auditor:
    config = opened.config
    fast = backbone_of(
        config,
        opened.parts,
        mean=opened.classifier.mean,
        std=opened.classifier.std,
        image_size=opened.split.image_size,
        samples=len(opened.split),
        device=opened.device,
        tell=telemetry.warn,
    )
    explainer = explainer_of(
        config, opened.classifier, opened.parts, fast, head_of(opened.parts, telemetry.warn)
    )
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
    batch_size = _batch_size(opened, step)
    fast.batch = batch_size
    return Auditor(
        split=opened.split,
        step=step,
        families=opened.families,
        device=opened.device,
        batch_size=batch_size,
        workers=opened.workers,
        columns=columns_of(
            [prefix_of(method) for method in config.method[1:]],
            faithful=config.faithfulness,
            families=opened.families.others,
        ),
    )


def _batch_size(opened: Opened, step: AuditStep) -> int:
    """The same in every process of the run: a formula's, or on a GPU what the first one tried."""
    wanted, size = opened.config.batch_size, opened.split.image_size
    if isinstance(wanted, int):
        return wanted
    if opened.device.type != "cuda":
        return plain_batch_size(size)
    return settle_batch_size(
        opened.storage, lambda: probed_batch_size(partial(_step_over, step), opened.device)
    )


def _step_over(step: AuditStep, count: int) -> None:
    """One step over images of noise, to see what it takes."""
    device = step.explainer.mean.device
    sides = (count, *step.image_size)
    images = torch.randint(0, 256, (count, 3, *step.image_size), dtype=torch.uint8, device=device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    object_ = torch.zeros(sides, device=device)
    object_[:, : step.image_size[0] // 2] = 1
    index = torch.arange(count, device=device)
    step(images, labels, Masks(main=object_), torch.zeros_like(labels), index)


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that touch, as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        touches = bool(joined) and joined[-1][1] == start
        joined.append((joined.pop()[0] if touches else start, stop))
    return joined


@contextmanager
def ready_network(opened: Opened) -> Iterator[None]:
    """Have the network of a run compute, and be afterwards as it was before.

    Raises:
        AuditError: If its own code fails.
    """
    with (
        own_failures(opened.classifier.architecture),
        evaluation(opened.classifier.module),
        plain_kernels(),
    ):
        yield


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
