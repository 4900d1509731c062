"""Memory and time of the job against the number of samples and of classes.

python -m benchmarks.growth [--sizes 1000,10000,100000] [--at 10000]

Generated pictures of 32×32 with exact masks and a tiny network, so that the audit is what is
measured; no picture stays in memory. The memory of a phase is the most that the process held in it,
looked at fifty times a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from audit.memory import keep_freed_memory
from audit.models import build
from benchmarks.asking import about, parser, settled
from benchmarks.command import Watched, audit_run, threads_of
from benchmarks.ours import open_audits
from benchmarks.results import About, Row, keep
from benchmarks.subjects import MEAN, STD, SUBJECTS
from benchmarks.timing import Work, take_turns

CLASSES = {10: "ten_classes", 1000: "thousand_classes"}


def run(asked: argparse.Namespace, size: int, classes: int) -> Watched:
    """One job.

    Args:
        asked: The options.
        size: Samples.
        classes: Of data and network.
    """
    kind = CLASSES[classes]
    with tempfile.TemporaryDirectory() as folder:
        return audit_run(
            Path(folder) / "out", "--dataset", f"benchmarks.pictures:{kind}",
            "--model", f"benchmarks.tiny:{kind}", "--limit", str(size), "--device", asked.device,
            "--image-size", "32", "--mean", *map(str, MEAN), "--std", *map(str, STD),
            "--edits", "none", "--no-grids", threads=threads_of(asked.threads), device=asked.device,
        )  # fmt: skip


def figures(watched: Watched, size: int) -> dict[str, tuple[float, str]]:
    """Memory and time of a job, with their units, by name."""
    first, last = watched.shards[0][0], max(end for _, end in watched.shards)
    written = watched.at("part_committed")
    found = {
        "memory until all parts are written": (watched.held(first, written) / 2**20, "MiB"),
        "memory of the whole job": (watched.peak / 2**20, "MiB"),
        "time of a row": (1e6 * (last - first) / size, "microseconds"),
        "time of tables and page, a row": (1e6 * (watched.ended - last) / size, "microseconds"),
    }
    if watched.device_memory:
        held = max(amount for _, amount in watched.device_memory)
        found["device memory of the whole job"] = (held / 2**20, "MiB")
    return found


def rows_of(shared: About, name: str, found: dict[str, tuple[float, str]],
            base: dict[str, tuple[float, str]]) -> list[Row]:  # fmt: skip
    """Figures, with their ratio to those of the first job."""
    rows = []
    for what, (value, unit) in found.items():
        over = value / base[what][0]
        rows.append(
            shared.row(
                f"{name}: {what}", value=value, unit=unit, ratio=over, ratio_low=over,
                ratio_high=over,
            )
        )  # fmt: skip
    return rows


def by_size(asked: argparse.Namespace, sizes: Sequence[int]) -> list[Row]:
    """Jobs of ten classes and more and more samples."""
    shared = about(asked, "growth", "samples", "tiny network, 10 classes")
    measured = {size: figures(run(asked, size, 10), size) for size in sizes}
    base = measured[sizes[0]]
    return [
        row
        for size, found in measured.items()
        for row in rows_of(shared, f"{size:,} samples", found, base)
    ]


def by_classes(asked: argparse.Namespace, size: int) -> list[Row]:
    """Jobs of 10 and of 1,000 classes in turn; of the times the lowest counts."""
    shared = about(asked, "growth", "classes", f"tiny network, {size:,} samples")
    measured: dict[int, list[dict[str, tuple[float, str]]]] = {10: [], 1000: []}
    for _ in range(1 if asked.quick else 2):
        for classes, found in measured.items():
            found.append(figures(run(asked, size, classes), size))
    best = {
        classes: {what: min(one[what] for one in found) for what in found[0]}
        for classes, found in measured.items()
    }
    return [
        row
        for classes, found in best.items()
        for row in rows_of(shared, f"{classes:,} classes", found, best[10])
    ]


def step_by_classes(asked: argparse.Namespace) -> list[Row]:
    """The step alone with resnet20 of 10 and 1,000 outputs, in turn."""
    ten = SUBJECTS["resnet20"]
    thousand = dataclasses.replace(
        ten, make=lambda: build("resnet20", 1000), classes=1000,
        pictures="benchmarks.pictures:small_pictures_of_many",
    )  # fmt: skip
    count = 256 if asked.quick else 1024
    asked.compiled = False
    with ExitStack() as stack:
        work: dict[str, Work] = {}
        for subject in (ten, thousand):
            # Compiling changes nothing here: classes come after the features.
            _, ours = open_audits(stack, subject, subject.open(), count, asked).popitem()
            work[f"audit, {subject.classes:,} classes"] = ours.rows
        warm = 1 if asked.quick else 2
        seconds = take_turns(work, rounds=asked.rounds, warm=warm, device=asked.device)
    shared = about(asked, "growth", "resnet20, 32×32", f"{ten.batch} images at a time")
    return shared.timed(seconds, count, list(work)[:1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    made = parser(__doc__)
    made.add_argument("--sizes", default="1000,10000,100000")
    made.add_argument("--at", type=int, default=10_000, help="samples, for classes")
    # As the command does; what is measured beside it gains by it as well.
    keep_freed_memory()
    asked = settled(made, arguments)
    sizes = [200, 400] if asked.quick else [int(size) for size in asked.sizes.split(",")]
    keep(step_by_classes(asked), asked.keep)
    keep(by_size(asked, sizes), asked.keep)
    keep(by_classes(asked, sizes[0] if asked.quick else asked.at), asked.keep)


if __name__ == "__main__":
    main()
