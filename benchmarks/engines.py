"""One audit under every engine: the same parts and tables, and what each takes.

python -m benchmarks.engines [--data-root DIR --dataset cifar10] [--model NAME] [--limit N]
DIR holds cifar10/; without it the demo is audited. Masks are estimated beforehand, once for all.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.asking import about, parser, settled
from benchmarks.results import About, Row, keep

# Of a manifest, what tells of the way and not of the outcome.
_OF_THE_WAY = {"created", "finished", "seconds", "config", "files", "workers"}
_PIECES = 4


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A way to compute a run.

    Attributes:
        name: Of the way.
        seconds: From the command to its end.
        work: Of these, from the start of the first part to the end of the last.
        run: What came of it.
    """

    name: str
    seconds: float
    work: float
    run: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all, compare all, print a table."""
    made = parser(__doc__)
    made.add_argument("--data-root")
    made.add_argument("--dataset")
    made.add_argument("--model")
    made.add_argument("--limit", type=int)
    made.add_argument("--no-ray", dest="ray", action="store_false")
    asked = settled(made, arguments)
    dataset = asked.dataset or ("demo" if asked.data_root is None else "cifar10")
    limit = asked.limit or (200 if asked.quick else None)
    given = ["--dataset", dataset, "--no-grids", "--edits", "none", "--device", asked.device]
    given += ["--data-root", asked.data_root] if asked.data_root else []
    given += ["--model", asked.model] if asked.model else []
    given += ["--limit", str(limit)] if limit else []
    # Else a small split is one part, which nobody can share.
    given += ["--shard-size", "100"] if dataset == "demo" else []
    with tempfile.TemporaryDirectory() as folder:
        given += ["--cache", str(Path(folder) / "cache")]
        print(f"load before: {os.getloadavg()[0]:.1f}", file=sys.stderr)
        run_one(Path(folder) / "masks", given)  # fills the cache, and the disk's
        timed = [
            run_one(Path(folder) / "local", given, name="in process"),
            run_one(Path(folder) / "two", given, "--processes", "2", name="`--processes 2`"),
        ]
        if asked.ray and not asked.quick:
            timed.append(
                run_one(
                    Path(folder) / "ray", given, "--engine", "ray", "--processes", "2",
                    name="`--engine ray --processes 2`",
                )
            )  # fmt: skip
        timed.append(run_pieces(Path(folder) / "pieces", given))
        for other in timed[1:]:
            compare(other.run, timed[0].run)
        count = len(parts(timed[0].run))
        name = f"{asked.model or 'cnn'}, {dataset}, {count} parts"
        keep(rows_of(about(asked, "engines", name), timed), asked.keep)


def rows_of(shared: About, timed: Sequence[Timed]) -> list[Row]:
    """Each engine's whole time, and its time from the first part to the last."""
    rows = []
    for one in timed:
        for what, seconds, base in (
            ("the whole command", one.seconds, timed[0].seconds),
            ("from the first part to the last", one.work, timed[0].work),
        ):
            over = seconds / base
            rows.append(
                shared.row(
                    f"{one.name}: {what}", seconds=seconds, low=seconds, high=seconds, ratio=over,
                    ratio_low=over, ratio_high=over,
                )
            )  # fmt: skip
    return rows


def run_one(out: Path, given: list[str], *more: str, name: str = "") -> Timed:
    """One command."""
    started = time.monotonic()
    audit("run", *given, *more, "--out", str(out))
    return timed_of(name, time.monotonic() - started, out)


def run_pieces(out: Path, given: list[str]) -> Timed:
    """Pieces one after the other, as an array of jobs on a machine of one slot, then the merge."""
    started = time.monotonic()
    for index in range(_PIECES):
        audit("run", *given, "--shard", f"{index}/{_PIECES}", "--out", str(out))
    audit("merge", *given, "--out", str(out))
    name = f"{_PIECES} × `--shard`, one after the other, and `audit merge`"
    return timed_of(name, time.monotonic() - started, out)


def audit(*arguments: str) -> None:
    """The command as users give it."""
    subprocess.run([sys.executable, "-m", "audit", *arguments], check=True, stdout=sys.stderr)


def timed_of(name: str, seconds: float, out: Path) -> Timed:
    """What the sidecars say of a run's parts."""
    (plan,) = out.glob("*/*/*/plan.json")
    run = plan.parent
    begins, ends = [], []
    for file in (run / "samples").glob("_part-*.json"):
        worker = json.loads(file.read_text())["worker"]
        ends.append(datetime.fromisoformat(worker["finished"]).timestamp())
        begins.append(ends[-1] - worker["seconds"])
    return Timed(name=name, seconds=seconds, work=max(ends) - min(begins), run=run)


def compare(run: Path, expected: Path) -> None:
    """Parts to the last byte, all tables, and the manifest but for its times."""
    ours, theirs = parts(run), parts(expected)
    assert ours and ours == theirs, f"the parts in {run} and {expected} differ"
    names = sorted(path.name for path in expected.glob("*.parquet"))
    assert names == sorted(path.name for path in run.glob("*.parquet"))
    for name in names:
        assert pq.read_table(run / name).equals(pq.read_table(expected / name)), name
    assert manifest(run) == manifest(expected), "the manifests differ"
    print(f"{run}: {len(ours)} parts and {len(names)} tables are the same", file=sys.stderr)


def parts(run: Path) -> dict[str, str]:
    """Digests."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "samples").glob("*.parquet"))
    }


def manifest(run: Path) -> dict[str, Any]:
    """Of a run, without what tells of the way."""
    content = json.loads((run / "manifest.json").read_text())
    return {name: value for name, value in content.items() if name not in _OF_THE_WAY}


if __name__ == "__main__":
    main()
