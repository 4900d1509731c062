"""What two runs of the same command are compared by, and what one lost, doubled or left behind."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Where, how and how long a run was computed; not what came out of it.
_CIRCUMSTANCES = ("finished", "seconds")
_PLACES = (
    "out", "cache", "run", "engine", "processes", "grace", "workers", "log_json", "metrics",
)  # fmt: skip
_FINISHED = re.compile(rb'"finished":"[^"]*"| finished [0-9-]+ [0-9:]+ UTC')


@dataclass
class Difference:
    """What is wrong with a run, held against an undisturbed one.

    Attributes:
        lost: Samples without a row, and files that are missing.
        doubled: Samples with several rows, or with the name of another.
        orphans: Files that the undisturbed run does not have.
        changed: Files that say something else.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.lost or self.doubled or self.orphans or self.changed)


def compare(undisturbed: Path, found: Path) -> Difference:
    """Hold everything below ``--out`` against what an undisturbed run left there."""
    expected, there = names(undisturbed), names(found)
    difference = Difference(
        lost=sorted(expected - there),
        orphans=sorted(there - expected),
        changed=[
            name
            for name in sorted(expected & there)
            if digest(undisturbed / name) != digest(found / name)
        ],
    )
    lost, doubled = count_rows(undisturbed, found)
    difference.lost += lost
    difference.doubled += doubled
    return difference


def names(out: Path) -> set[str]:
    """All files below a folder, and folders in which nothing is."""
    return {
        str(path.relative_to(out))
        for path in out.rglob("*")
        if not path.is_dir() or not any(path.iterdir())
    }


def digest(path: Path) -> str:
    """Of a file's bytes, but for what tells of circumstances."""
    if path.is_dir():
        return "an empty folder"
    content = path.read_bytes()
    try:
        if path.name == "manifest.json":
            content = _text(_of_manifest(json.loads(content)))
        elif path.name == "plan.json":
            content = _text(_of_plan(json.loads(content)))
        elif path.name.startswith("_part-") and path.suffix == ".json":
            sidecar = json.loads(content)
            sidecar.pop("worker", None)
            content = _text(sidecar)
        elif path.name == "index.html":
            content = _FINISHED.sub(b"", content)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # damaged; its bytes then differ from those of any whole one
    return hashlib.sha256(content).hexdigest()


def count_rows(undisturbed: Path, found: Path) -> tuple[list[str], list[str]]:
    """Which samples have no row, and which have several; told from the rows alone."""
    expected = _rows(undisturbed)
    there = _rows(found)
    indices = Counter(index for index, _ in there)
    sample_ids = Counter(sample_id for _, sample_id in there)
    count = len(expected)
    lost = [f"sample {index}" for index in range(count) if not indices[index]]
    lost += [f"sample_id {i}" for _, i in expected if not sample_ids[i]]
    doubled = [f"sample {index}" for index, times in sorted(indices.items()) if times > 1]
    doubled += [f"sample_id {i}" for i, times in sorted(sample_ids.items()) if times > 1]
    doubled += [f"sample {index}" for index in sorted(indices) if not 0 <= index < count]
    return lost, doubled


def whole_parts(folder: Path) -> dict[str, tuple[int, int, str]]:
    """The parts of a run whose sidecars fit, with what tells whether a file was written anew."""
    found = {}
    for path in sorted((folder / "samples").glob("part-*.parquet")):
        try:
            sidecar = json.loads((path.parent / f"_{path.stem}.json").read_bytes())
            content = path.read_bytes()
        except (OSError, ValueError):
            continue
        if hashlib.sha256(content).hexdigest() == sidecar.get("sha256"):
            facts = path.stat()
            found[path.name] = (facts.st_ino, facts.st_mtime_ns, sidecar["sha256"])
    return found


def is_complete(folder: Path) -> bool:
    """Whether a run's manifest says so, and every file is as it says."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        return manifest["status"] == "complete" and all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == told["sha256"]
            for name, told in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _rows(out: Path) -> list[tuple[int, str]]:
    rows = []
    for path in sorted(out.glob("*/*/*/samples/part-*.parquet")):
        try:
            table = pq.read_table(path, columns=["index", "sample_id"])
        except (pa.ArrowException, OSError):
            continue  # its rows are lost
        rows += list(
            zip(table["index"].to_pylist(), map(str, table["sample_id"].to_pylist()), strict=True)
        )
    return rows


def _of_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    files = {
        name: told["sha256"] if name.endswith((".parquet", ".png")) else None
        for name, told in manifest["files"].items()
    }
    kept = {name: value for name, value in manifest.items() if name not in _CIRCUMSTANCES}
    return {**kept, "config": _settings(manifest["config"]), "files": files}


def _of_plan(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "config": _settings(plan["config"])}


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _PLACES}


def _text(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()
