"""Computing shards: fetch, mask, step, rows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data import Batch, Split
from audit.data.ahead import ahead
from audit.data.loader import chunks, fetch
from audit.masks.families import SOURCES, BatchMasks, MaskFamilies
from audit.run.columns import Column
from audit.run.placing import placed_ahead, to_host
from audit.run.rows import EVIDENCE, KEPT, SAMPLE_COLUMNS, build_table
from audit.run.store import Shard
from audit.score.masks import Family, Masks
from audit.score.positions import is_kept
from audit.step import STATUSES, AuditStep, status_code
from audit.telemetry import profiling

# Donors of transplants: this many a class, unless that exceeds the totals below.
DONORS_A_CLASS = 16
MAX_DONORS = 512
MAX_DONOR_BYTES = 256 * 2**20
# What the evidence by channel of a whole split may take: this, at so many bytes a channel.
EVIDENCE_BYTES = 64 * 2**20
_BYTES_A_CHANNEL = 8
# Problems of a shard that its sidecar repeats; the rows hold all of them.
PROBLEMS_KEPT = 5
# Candidates that are looked at for each donor wanted; classes may be rare and masks unusable.
_CANDIDATES = 4
_HISTOGRAM = "pixel_histogram"
# Batches that wait, decoded in another thread, for the one that is computed.
_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class MaskedBatch:
    """A batch on the device with the masks that it is scored under."""

    batch: Batch
    images: Tensor
    labels: Tensor
    found: BatchMasks
    given: Tensor
    index: Tensor

    @property
    def masks(self) -> Masks:
        """As the step takes them."""
        others = {
            name: Family(mask=family.masks, unknown=family.unknown, valid=family.valid)
            for name, family in self.found.others.items()
        }
        return Masks(main=self.found.main, unknown=self.found.unknown, others=others)


@dataclass(frozen=True, kw_only=True)
class Auditor:
    """Everything that computes a shard.

    Attributes:
        split: The samples.
        step: On the device.
        families: Where object masks come from.
        device: Where to compute.
        batch_size: Samples a step.
        workers: Processes that decode.
        columns: Of the rows.
    """

    split: Split
    step: AuditStep
    families: MaskFamilies
    device: torch.device
    batch_size: int
    workers: int = 0
    columns: Sequence[Column] = SAMPLE_COLUMNS

    def run_shards(
        self, shards: Sequence[Shard], progress: Callable[[int], object]
    ) -> Generator[tuple[Shard, ShardRows], None, None]:
        """Compute shards one after the other.

        A shard's batches are the same whichever other shards are computed beside it. Processes
        that decode read ahead over the borders of shards; a thread does not, so that a shard is
        begun by whoever asks for it.

        Args:
            shards: Which ranges of the split.
            progress: Is told how many samples were done.

        Yields:
            Each shard with its rows, on the host.
        """
        planned = [chunks(range(s.start, s.stop), self.batch_size) for s in shards]
        if not self.workers:
            for shard, of_shard in zip(shards, planned, strict=True):
                with closing(self._fetch(of_shard)) as batches:
                    yield shard, self._computed(batches, progress)
            return
        with closing(self._fetch([batch for of_shard in planned for batch in of_shard])) as batches:
            for shard, of_shard in zip(shards, planned, strict=True):
                some = itertools.islice(batches, len(of_shard))
                yield shard, self._computed(some, progress)

    def _computed(
        self, batches: Iterator[MaskedBatch], progress: Callable[[int], object]
    ) -> ShardRows:
        rows = _Rows(evidence_share=self.step.evidence_share)
        for masked in batches:
            with profiling.step(len(masked.batch)):
                output = self.step(
                    masked.images, masked.labels, masked.masks, masked.given, masked.index
                )
            rows.add(masked, output.columns, output.histogram)
            progress(len(masked.batch))
        assert rows.histogram is not None
        with profiling.span("to host"):
            arrays = to_host(rows.columns | {_HISTOGRAM: [rows.histogram]})
        return ShardRows(
            arrays=arrays,
            histogram=arrays.pop(_HISTOGRAM),
            sample_ids=rows.sample_ids,
            problems=rows.problems,
            classes=self.split.classes,
            columns=self.columns,
        )

    def batches(self, indices: Sequence[int]) -> Iterator[MaskedBatch]:
        """Fetch samples with their masks, on the device."""
        return self._fetch(chunks(indices, self.batch_size))

    def _fetch(self, batches: list[list[int]]) -> Generator[MaskedBatch, None, None]:
        pin = self.device.type == "cuda"
        here = self.workers or self.split.in_memory or not getattr(self.split, "any_thread", False)
        fetched = fetch(self.split, batches, workers=self.workers, pin=pin)
        if not here:
            fetched = profiling.spanned(fetched, "decode")
        with closing(ahead(fetched, 0 if here else _AHEAD)) as found:
            waited = profiling.spanned(found, "fetch")
            yield from placed_ahead(waited, self._placed, self.device)

    def _placed(self, batch: Batch) -> MaskedBatch:
        pinned = self.device.type == "cuda"
        given = torch.tensor([status_code(s) for s in self.families.given(batch)])
        with profiling.span("masks"):
            found = self.families.of(batch)
        return MaskedBatch(
            batch=batch,
            images=batch.images.to(self.device, non_blocking=pinned),
            labels=batch.labels.to(self.device, non_blocking=pinned),
            found=found,
            given=given.to(self.device),
            index=batch.index.to(self.device, non_blocking=pinned),
        )

    def choose_donors(self, seed: int) -> None:
        """Pick and encode the objects that transplants use; the same for every shard.

        Args:
            seed: Draws other donors.
        """
        classes = len(self.split.classes)
        wanted = self._donors_a_class(classes)
        total = len(self.split)
        order = np.random.default_rng((seed, total)).permutation(total)
        candidates = order[: _CANDIDATES * wanted * classes].tolist()
        taken = torch.zeros(classes, dtype=torch.int64)
        if self.step.explainer.parts.rest:
            return  # What the head reads beside the features cannot be transplanted with them.
        features, grid_masks, valid, labels = [], [], [], []
        for masked in self.batches(candidates):
            inside = masked.masks.inside.flatten(1)
            usable = inside.any(dim=1) & ~inside.all(dim=1) & (masked.given == status_code("ok"))
            keep = _first_of_each(masked.labels.cpu(), usable.cpu(), taken, wanted)
            if len(keep):
                found = self.step.features(masked.images[keep])
                finite = found.isfinite().flatten(1).all(dim=1)
                of_kept, fine = self.step.donor_masks(masked.masks.take(keep))
                features.append(found[finite])
                grid_masks.append(of_kept[:, finite])
                valid.append(fine[:, finite])
                labels.append(masked.labels[keep][finite])
        if sum(map(len, features)):
            self.step.take_donors(
                torch.cat(features),
                torch.cat(grid_masks, dim=1),
                torch.cat(labels),
                classes,
                torch.cat(valid, dim=1),
            )

    def _donors_a_class(self, classes: int) -> int:
        channels, (height, width) = self.step.channels_of_features, self.step.grid
        fit = MAX_DONOR_BYTES // (4 * channels * height * width)
        return max(1, min(DONORS_A_CLASS, MAX_DONORS // classes, fit // classes))


def evidence_share(total: int, channels: int) -> float:
    """The share of a split's samples whose evidence by channel is kept.

    Args:
        total: Samples of the split.
        channels: C, of the target layer.

    Returns:
        In [0, 1], so that all of it takes at most :data:`EVIDENCE_BYTES`.

    Example:
        >>> evidence_share(10_000, 128), round(evidence_share(50_000, 2048), 3)
        (1.0, 0.082)
    """
    return min(1.0, EVIDENCE_BYTES / (_BYTES_A_CHANNEL * channels * max(1, total)))


@dataclass(frozen=True, kw_only=True)
class ShardRows:
    """What was computed of a shard, on the host.

    Attributes:
        arrays: The step's columns and what is known of the samples.
        histogram: int64, 2×256, see :class:`audit.step.StepOutput`.
        sample_ids: N.
        problems: In words, N.
        classes: Class names.
        columns: Of the rows.
    """

    arrays: dict[str, NDArray[np.generic]]
    histogram: NDArray[np.generic]
    sample_ids: list[str]
    problems: list[str]
    classes: Sequence[str]
    columns: Sequence[Column]

    def table(self) -> tuple[pa.Table, dict[str, Any]]:
        """The rows and the summary for the shard's sidecar.

        Returns:
            The table; and how often each status occurs, the pixel histogram, and the first
            problems in words.
        """
        table = build_table(
            self.arrays,
            sample_ids=self.sample_ids,
            classes=self.classes,
            problems=self.problems,
            statuses=STATUSES,
            mask_sources=SOURCES,
            columns=self.columns,
        )
        counts = Counter(STATUSES[code] for code in self.arrays["status"].tolist())
        return table, {
            "statuses": dict(counts),
            "histogram": self.histogram.tolist(),
            "problems": [text for text in self.problems if text][:PROBLEMS_KEPT],
        }


@dataclass
class _Rows:
    """Columns of a shard, kept on the device until it ends."""

    evidence_share: float
    sample_ids: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    columns: dict[str, list[Tensor]] = field(default_factory=dict)
    histogram: Tensor | None = None

    def add(self, masked: MaskedBatch, columns: dict[str, Tensor], histogram: Tensor) -> None:
        self.sample_ids.extend(masked.batch.sample_id)
        self.problems.extend(masked.batch.problem)
        known = {
            "index": masked.index,
            "label": masked.labels,
            "mask_confidence": masked.found.confidence,
            "mask_source": masked.found.source,
            **_stored(masked.batch),
        }
        kept = is_kept(masked.batch.index, self.evidence_share)
        rows = kept.nonzero()[:, 0].to(masked.index.device)
        # Long lists are not held for samples that have none.
        long = {name: columns[name][rows] for name in EVIDENCE}
        for name, values in (columns | known | long | {KEPT: kept}).items():
            self.columns.setdefault(name, []).append(values)
        self.histogram = histogram if self.histogram is None else self.histogram + histogram


def _stored(batch: Batch) -> dict[str, Tensor]:
    """How the pictures were stored; -1 where unknown."""
    stored = torch.full((len(batch), 3), -1) if batch.stored is None else batch.stored
    names = ("stored_height", "stored_width", "file_bytes")
    return dict(zip(names, stored.unbind(dim=1), strict=True))


def _first_of_each(labels: Tensor, usable: Tensor, taken: Tensor, wanted: int) -> Tensor:
    """Positions of usable samples, at most ``wanted`` a class; counts them in ``taken``."""
    keep = []
    for position, (label, fine) in enumerate(zip(labels.tolist(), usable.tolist(), strict=True)):
        if fine and label >= 0 and taken[label] < wanted:
            taken[label] += 1
            keep.append(position)
    return torch.tensor(keep, dtype=torch.int64)
