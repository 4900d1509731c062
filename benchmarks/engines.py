"""One audit under every engine: the same parts and tables, and what each takes.

python benchmarks/engines.py --data-root DIR [--dataset cifar10] [--model NAME] [--limit N]
DIR holds cifar10/. Masks are estimated beforehand, once for all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

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


def main() -> None:
    """Run all, compare all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int)
    asked = parser.parse_args()
    given = ["--dataset", asked.dataset, "--data-root", asked.data_root, "--no-grids"]
    given += ["--edits", "none", "--device", "cpu"]
    given += ["--model", asked.model] if asked.model else []
    given += ["--limit", str(asked.limit)] if asked.limit else []
    with tempfile.TemporaryDirectory() as folder:
        given += ["--cache", str(Path(folder) / "cache")]
        print(f"load before: {os.getloadavg()[0]:.1f}", file=sys.stderr)
        run_one(Path(folder) / "masks", given)  # fills the cache, and the disk's
        timed = [
            run_one(Path(folder) / "local", given, name="in process"),
            run_one(Path(folder) / "two", given, "--processes", "2", name="`--processes 2`"),
            run_one(
                Path(folder) / "ray", given, "--engine", "ray", "--processes", "2",
                name="`--engine ray --processes 2`",
            ),
            run_pieces(Path(folder) / "pieces", given),
        ]  # fmt: skip
        for other in timed[1:]:
            compare(other.run, timed[0].run)
        print_table(timed)


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


def print_table(timed: list[Timed]) -> None:
    """As Markdown."""
    count = len(parts(timed[0].run))
    print(f"{count} parts, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| engine | seconds | from the first part to the last | the rest |")
    print("| --- | --- | --- | --- |")
    for one in timed:
        rest = one.seconds - one.work
        print(f"| {one.name} | {one.seconds:.0f} | {one.work:.0f} | {rest:.0f} |")


if __name__ == "__main__":
    main()
