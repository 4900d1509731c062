"""The audit of images in memory against the best bare forward pass of the same network.

python -m benchmarks.step [--subjects cnn,resnet20,lite0,resnet50,vit] [--precisions float32]

The audit: uint8 images to the rows on the host, under masks from the cache, with all default scores
and transplants. The bare pass: float tensors to logits, every way there is; the fastest is 1.00.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from audit.config import Precision
from audit.memory import keep_freed_memory
from benchmarks.asking import about, chosen, parser, settled
from benchmarks.bare import bare_ways
from benchmarks.floor import floor_rows
from benchmarks.ours import free, open_audits
from benchmarks.results import Row, keep
from benchmarks.subjects import SUBJECTS, Subject, normalised
from benchmarks.timing import take_turns

USUAL = ("cnn", "resnet20", "lite0", "resnet50", "vit")
TABLE, ALONE = "audit, rows made a table", "audit, the step alone"
# Images a turn: what a shard of small pictures holds; of large ones, what a second or two takes.
SMALL, LARGE = 1024, 32
# On a GPU; and of tiny batches so many, so that a turn does not take minutes.
SMALL_GPU, LARGE_GPU, MOST_BATCHES = 8192, 512, 64


def measure(
    subject: Subject, asked: argparse.Namespace, precision: Precision, batch: int
) -> list[Row]:
    """One network against its bare forward pass.

    Args:
        subject: Which network.
        asked: The options.
        precision: Of the bare pass, and of the audit's backbone.
        batch: Images at a time.
    """
    model = subject.open()
    count = images_a_turn(subject, asked, batch)
    images = normalised(subject.images(count).to(asked.device)).split(batch)
    work = bare_ways(model, images, precision=precision, compiled=asked.compiled)
    bare = list(work)
    with ExitStack() as stack:
        own = batch if asked.batches else None
        audits = open_audits(stack, subject, model, count, asked, precision, own)
        work |= {name: ours.rows for name, ours in audits.items()}
        if audits:
            first = next(iter(audits.values()))
            work |= {TABLE: first.table, ALONE: first.step_alone()}
        seconds = take_turns(
            work, rounds=asked.rounds, warm=1 if asked.quick else 2, device=asked.device
        )
    shared = about(asked, "step", subject.name, f"{batch} images at a time", precision)
    rows = shared.timed(seconds, count, bare)
    free(asked.device)
    return rows + floor_rows(shared, model, images[0], asked.device, precision, count)


def images_a_turn(subject: Subject, asked: argparse.Namespace, batch: int) -> int:
    """Whole batches, and at least one."""
    usual, large = (SMALL, LARGE) if asked.device == "cpu" else (SMALL_GPU, LARGE_GPU)
    usual = usual if subject.side <= 64 else large
    return batch if asked.quick else min(max(usual // batch, 1), MOST_BATCHES) * batch


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    made = parser(__doc__)
    made.add_argument("--subjects", help="some of " + ", ".join(USUAL))
    made.add_argument("--precisions", help="some of float32, tf32, bf16, fp16")
    made.add_argument("--batches", help="images at a time; the audit's own choice by default")
    # As the command does; what is measured beside it gains by it as well.
    keep_freed_memory()
    asked = settled(made, arguments)
    for key in chosen(asked.subjects, USUAL):
        subject = SUBJECTS[key]
        for precision in chosen(asked.precisions, ("float32",)):
            for size in chosen(asked.batches, (str(subject.batch),)):
                try:
                    rows = measure(subject, asked, precision, int(size))  # type: ignore[arg-type]
                except ImportError as error:
                    print(f"{subject.name}: not measured, {error}", file=sys.stderr)
                    continue
                keep(rows, asked.keep)


if __name__ == "__main__":
    main()
