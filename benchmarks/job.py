"""The whole job, from files to the committed report, against the bare forward pass of its images.

python -m benchmarks.job [--data-root DIR] [--checkpoint FILE] [--repeats 3]

DIR holds cifar10/; without it the demo is audited. Masks are in the cache. The job is timed from
its first shard, after donors were chosen, to the end of the process; what comes before is told as
start-up. The bare pass has all images in memory as float tensors; the two take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from audit.config import AuditConfig
from audit.data.loader import iterate
from audit.inputs import open_data
from audit.memory import keep_freed_memory
from benchmarks.asking import about, parser, settled
from benchmarks.bare import bare_ways
from benchmarks.command import Watched, audit_run, threads_of
from benchmarks.results import About, Row, keep
from benchmarks.subjects import MEAN, STD, SUBJECTS, normalised
from benchmarks.timing import Work, fastest, ratios, spread, take_turns, wait_for

BATCH = 250
_NUMBER = count()
# The job without the second look, which the default adds; both have tables, pictures and page.
FIRST_LOOK = ("--edits", "none")


def load(model: nn.Module, checkpoint: Path | None) -> nn.Module:
    """A network with a checkpoint's weights, or as it is."""
    if checkpoint is None:
        return model
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model


def images_of(options: AuditConfig) -> Tensor:
    """Images as a network reads them, as many as whole batches hold."""
    split = open_data(options)
    whole = range(len(split) // BATCH * BATCH)
    return torch.cat([normalised(b.images) for b in iterate(split, whole, batch_size=BATCH)])


def parts_of(watched: Watched) -> dict[str, float]:
    """Seconds of a job's stages, by name."""
    first, last = watched.shards[0][0], max(end for _, end in watched.shards)
    return {
        "start-up, imports and opening": watched.at("found") - watched.began,
        "start-up, donors": first - watched.at("found"),
        "start-up to the first batch": first - watched.began,
        "rows and parts": last - first,
        "tables, pictures, page": watched.at("finished") - last,
        "ending": watched.ended - watched.at("finished"),
        "from the first batch to the end": watched.ended - first,
        "whole command": watched.seconds,
    }


def rows_of(
    shared: About, name: str, runs: Sequence[Watched], images: int, bare: Sequence[float]
) -> list[Row]:
    """A way's stages; those that stand for the job have ratios."""
    parts = [parts_of(one) for one in runs]
    rows = []
    for part in parts[0]:
        taken = [each[part] for each in parts]
        own, over = spread(taken), ratios(taken, bare[: len(taken)])
        job = part in ("from the first batch to the end", "rows and parts")
        rows.append(
            shared.row(
                f"{name}: {part}", rounds=len(taken), seconds=own.middle, low=own.low,
                high=own.high, ratio=over.middle if job else None,
                ratio_low=over.low if job else None, ratio_high=over.high if job else None,
                images_per_second=images / own.middle if job else None,
            )
        )  # fmt: skip
    return rows


def measure(asked: argparse.Namespace) -> list[Row]:
    """The job and the bare pass in turn."""
    real = asked.data_root is not None
    dataset, model = ("cifar10", "resnet20") if real else ("demo", "cnn")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        options = ["--dataset", dataset, "--device", asked.device, "--cache", str(home / "cache")]
        network = SUBJECTS[model].open()
        if real:
            network = load(network, asked.checkpoint)
            weights = asked.checkpoint or home / "weights.pt"
            if asked.checkpoint is None:
                torch.save(network.state_dict(), weights)
            options += ["--data-root", str(asked.data_root), "--model", model]
            options += ["--checkpoint", str(weights)]
            options += ["--mean", *map(str, MEAN), "--std", *map(str, STD)]
        source = AuditConfig(
            dataset=dataset, data_root=asked.data_root or Path("data"), limit=asked.limit
        )
        images = images_of(source).to(asked.device)
        options += ["--limit", str(len(images))]
        ways = bare_ways(network, images.split(BATCH), compiled=asked.compiled)
        best = _fastest(ways, asked.device)
        own = tuple(asked.options.split())
        jobs = {" ".join(["audit run", *own]): (*FIRST_LOOK, *own)}
        runs: dict[str, list[Watched]] = {name: [] for name in jobs}
        bare: list[float] = []

        def run(*more: str) -> Watched:
            threads = threads_of(asked.threads)
            return audit_run(home / str(next(_NUMBER)), *options, *more, threads=threads)

        run(*FIRST_LOOK, *own)  # Fills the cache of masks, and the disk's.
        for _ in range(1 if asked.quick else asked.repeats):
            bare.append(_seconds(ways[best], asked.device))
            for name, more in jobs.items():
                runs[name].append(run(*more))
        whole = [] if asked.quick else [run(*own)]
        subject = f"{model}, {dataset}, {len(images):,} images"
        shared = about(asked, "job", subject, "float32")
        rows = shared.timed({f"bare, {best}": bare}, len(images), [f"bare, {best}"])
        for name, watched in runs.items():
            rows += rows_of(shared, name, watched, len(images), bare)
        if whole:
            rows += rows_of(shared, "with the second look, in pixels", whole, len(images), bare)
    return rows


def _fastest(ways: dict[str, Work], device: str) -> str:
    seconds = take_turns(ways, rounds=2, warm=1, device=device)
    return fastest(seconds, seconds)


def _seconds(work: Work, device: str) -> float:
    """The better of two, for nothing warms the caches beside a job."""
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        wait_for(device)
        taken.append(time.perf_counter() - started)
    return min(taken)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    made = parser(__doc__)
    made.add_argument("--data-root", type=Path, help="folder that holds cifar10/")
    made.add_argument("--checkpoint", type=Path, help="weights of resnet20")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--limit", type=int, help="so many images, 250 at least")
    made.add_argument("--options", default="", help="more flags of audit run, in one word")
    # As the command does; what is measured beside it gains by it as well.
    keep_freed_memory()
    keep(measure(asked := settled(made, arguments)), asked.keep)


if __name__ == "__main__":
    main()
