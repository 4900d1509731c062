"""What the tests of all engines have in common."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tests.engines.faulty import COUNT

SHARD, BATCH = 40, 20
SETTINGS: dict[str, Any] = {
    "dataset": "faulty:data",
    "model": "faulty:network",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "run": "here",
    "shard_size": SHARD,
    "batch_size": BATCH,
    "edits": "none",
    "grids": False,
    "device": "cpu",
}
# Whoever merges a run says himself which code may run.
CODE = {name: SETTINGS[name] for name in ("dataset", "model")}
# Of the manifest, what may differ between runs that are the same.
TIMES = ("created", "finished", "seconds", "config", "versions", "files")


def poison(part: int = 3) -> int:
    """A sample that no process looks at before its part's turn, and not of the first batch."""
    donors = np.random.default_rng((0, COUNT)).permutation(COUNT)[: 4 * 16 * 2].tolist()
    return next(i for i in range(part * SHARD + BATCH, COUNT) if i not in donors)


def wait_for(what: Callable[[], Any], seconds: float = 240.0) -> Any:
    """Until something is true, which it must be in time."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.02)
    return found


def claimants(run: Path) -> list[int]:
    """The processes that are at a part."""
    found = []
    for claim in (run / "samples").glob("_part-*.claim"):
        try:
            found.append(int(json.loads(claim.read_text())["pid"]))
        except (OSError, ValueError):
            continue  # just now taken back
    return found


def some_claimant(run: Path) -> Callable[[], int | None]:
    return lambda: random.choice(found) if (found := claimants(run)) else None


def parts(run: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "samples").glob("*.parquet"))
    }


def tables(run: Path) -> dict[str, Any]:
    return {path.name: pq.read_table(path) for path in sorted(run.glob("*.parquet"))}


def without_times(run: Path) -> dict[str, Any]:
    manifest = json.loads((run / "manifest.json").read_text())
    return {name: value for name, value in manifest.items() if name not in TIMES}


def same_run(run: Path, expected: Path) -> None:
    """Parts to the last byte; every table; the manifest but for its times; nothing left over."""
    assert parts(run) == parts(expected)
    ours, theirs = tables(run), tables(expected)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equals(theirs[name])] == []
    assert without_times(run) == without_times(expected)
    files = [{str(p.relative_to(r)) for p in r.rglob("*")} for r in (run, expected)]
    assert files[0] == files[1]
