"""The audit's own work, opened as the command opens it, on pictures in memory."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from audit.config import AuditConfig
from audit.errors import AuditError
from audit.inference.batching import plain_batch_size
from audit.inputs import open_inputs
from audit.models import evaluation, plain_kernels
from audit.run.engine import MaskedBatch, ShardRows
from audit.run.store import Shard
from audit.work import Worker, open_worker
from benchmarks.subjects import MEAN, STD, Subject
from benchmarks.timing import Work


@dataclass(frozen=True, kw_only=True)
class Ours:
    """An audit that is ready to compute.

    Attributes:
        worker: As the command makes it; masks are in the cache and donors are chosen.
        shard: All pictures.
    """

    worker: Worker
    shard: Shard

    def rows(self) -> ShardRows:
        """Images and cached masks in memory to the shard's rows as arrays on the host."""
        with plain_kernels():
            ((_, rows),) = self.worker.auditor.run_shards([self.shard], lambda _: None)
        return rows

    def table(self) -> pa.Table:
        """The same as a table; a run makes it beside the next shard, in another thread."""
        return self.rows().table()[0]

    def masked(self) -> list[MaskedBatch]:
        """The batches with their masks, on the device."""
        auditor = self.worker.auditor
        return list(auditor.batches(range(self.shard.start, self.shard.stop)))

    def step_alone(self) -> Work:
        """The step on batches that wait on the device; columns stay there."""
        batches, step = self.masked(), self.worker.auditor.step

        def run() -> object:
            with plain_kernels():
                for one in batches:
                    last = step(one.images, one.labels, one.masks, one.given, one.index)
            return last

        return run


@contextmanager
def audit_of(
    subject: Subject, model: nn.Module, count: int, *, device: str = "cpu", **settings: Any
) -> Iterator[Ours]:
    """An audit of a network over pictures in memory.

    Args:
        subject: What it is.
        model: The network.
        count: Pictures.
        device: Where to compute.
        **settings: Of the audit, beside these.

    Yields:
        What computes it, ready.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = AuditConfig(
            dataset=subject.pictures_of(count), limit=count, mean=MEAN, std=STD, device=device,
            image_size=(subject.side, subject.side), out=Path(folder), shard_size=count, workers=0,
            **settings,
        )  # fmt: skip
        opened = open_inputs(config, model)
        with evaluation(opened.classifier.module):
            with plain_kernels():
                worker = open_worker(opened)
                shard = Shard(number=0, start=0, stop=count)
                worker.fill_masks([shard], lambda _: None)
                worker.prepare()
            yield Ours(worker=worker, shard=shard)


def audit_ways(asked: argparse.Namespace, precision: str = "float32") -> dict[str, dict[str, Any]]:
    """Settings of the audit to measure, by the name of the way.

    Args:
        asked: The options.
        precision: Of the backbone.
    """
    own = {"precision": precision}
    ways: dict[str, dict[str, Any]] = {"audit": {**own, "compile": "never"}}
    if asked.compiled:
        ways["audit, compiled"] = {**own, "compile": "always"}
    return ways


def open_audits(
    stack: ExitStack,
    subject: Subject,
    model: nn.Module,
    count: int,
    asked: argparse.Namespace,
    precision: str = "float32",
    batch: int | None = None,
    ways: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Ours]:
    """Every way of auditing that works here, by name.

    Args:
        stack: Closes them.
        subject: What is audited.
        model: The network.
        count: Pictures.
        asked: The options.
        precision: Of the backbone.
        batch: Images at a time; ``None`` for what the audit itself takes on a CPU, and for the
            subject's elsewhere.
        ways: Settings by the name of the way; ``None`` for those of :func:`audit_ways`.
    """
    found = {}
    side = subject.side
    usual = plain_batch_size((side, side)) if asked.device == "cpu" else subject.batch
    for name, settings in (ways or audit_ways(asked, precision)).items():
        opening = audit_of(
            subject,
            model,
            count,
            device=asked.device,
            batch_size=min(count, batch or usual),
            **settings,
        )
        try:
            found[name] = stack.enter_context(opening)
        except AuditError as error:
            print(f"{name}: not measured, {error}", file=sys.stderr)
    return found


def free(device: str) -> None:
    """Give back what a device's memory keeps for later."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
