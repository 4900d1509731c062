"""Two runs, or a line of them, compared: loaded, checked, tabulated, drawn, and kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audit.errors import UsageError
from audit.files import make_folder, write_atomically
from audit.report.comparing.page import comparison_page
from audit.report.comparing.trend import trend_page
from audit.report.language import load_language
from audit.run.gaps import gaps_in_words
from audit.run.manifest import (
    COMPARED,
    NAME,
    checksums,
    read_manifest,
    status_of,
    versions,
    write_manifest,
)
from audit.tables.comparison import Sides, compare_runs_tables
from audit.tables.reading import AuditRun, load_run
from audit.tables.trend import Line, line_of, trend_tables

_BENCHMARKS = "certify"
_FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        path: Its folder, with ``index.html``, ``manifest.json`` and the tables.
        manifest: What was compared, and the digests of the files.
        compare: Rows of ``compare.parquet``.
        changes: Rows of ``changes.parquet``.
    """

    path: Path
    manifest: dict[str, Any]
    compare: pd.DataFrame
    changes: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A line of runs.

    Attributes:
        path: Its folder.
        manifest: What was compared, and the digests of the files.
        trend: Rows of ``trend.parquet``.
        line: The runs in their order, and those left out.
    """

    path: Path
    manifest: dict[str, Any]
    trend: pd.DataFrame
    line: Line


def compare_runs(
    a: AuditRun | str | Path,
    b: AuditRun | str | Path,
    *,
    out: str | Path | None = None,
    lang: str = "en",
    seed: int = 0,
) -> Comparison:
    """Compare two runs over the same images, and leave tables and a page.

    Args:
        a: The first run, for example of last month's model; or its folder, or a folder of runs:
            then the newest.
        b: The second.
        out: Where to; ``reports/compare/<A's run_id>-<B's>`` by default.
        lang: Language of the page: ``en`` or ``zh``.
        seed: Draws bootstrap resamples.

    Returns:
        The comparison.

    Raises:
        UsageError: If a run is not whole or the two cannot be compared; it names all that differs.
        OutputError: If the folder cannot be written.

    Example:
        >>> from audit import compare_runs, run_audit
        >>> run = run_audit(dataset="demo", limit=30, edits="none", grids=False, out=tmp)
        >>> found = compare_runs(run, run, out=tmp / "same")
        >>> sorted(set(found.compare["verdict"])), len(found.changes)
        (['no change'], 0)
    """
    load_language(lang)
    first, second = (run if isinstance(run, AuditRun) else load_run(run) for run in (a, b))
    tables = compare_runs_tables(first, second, seed)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    ids = first.manifest["run_id"], second.manifest["run_id"]
    folder = make_folder(Path(out) if out else Path("reports/compare") / "-".join(ids))
    _refuse_a_run(folder)
    one_model = Sides.of(first, second).one_model
    page = comparison_page(first, second, frames, lang=lang, one_model=one_model)
    facts = {"kind": "comparison", "one_model": one_model, "seed": seed, "lang": lang,
             "a": _source(first), "b": _source(second)}  # fmt: skip
    manifest = _write(folder, tables, page, facts)
    return Comparison(path=folder, manifest=manifest, **frames)


def follow_runs(
    folder: str | Path,
    *,
    order: str = "finished",
    out: str | Path | None = None,
    lang: str = "en",
    seed: int = 0,
) -> Trend:
    """Compare the runs of a folder, one after the other.

    Args:
        folder: A folder with runs at any depth; those in a folder ``certify`` further down are
            left out.
        order: ``finished`` or ``name``, the run's folder.
        out: Where to; ``reports/trend/<run_id of the last run>`` by default.
        lang: Language of the page: ``en`` or ``zh``.
        seed: Draws bootstrap resamples.

    Returns:
        The trend.

    Raises:
        UsageError: If there are not two runs that can be compared.
        OutputError: If the folder cannot be written.
    """
    load_language(lang)
    line = line_of(_find_runs(Path(folder)), order)
    if len(line.runs) < _FEWEST:
        left = "; ".join(f"{run.manifest['run_id']}: {why}" for run, why in line.left_out[:5])
        raise UsageError(
            f"there is no line of runs in {folder}",
            expected="at least two complete runs over the same images and masks",
            found=_count_runs(len(line.runs), len(line.left_out)) + (f": {left}" if left else ""),
            remedy="audit each model of the line with the same settings into one folder",
        )
    tables = trend_tables(line, seed)
    frames = {name: table.to_pandas() for name, table in tables.items()}
    last = line.runs[-1].manifest["run_id"]
    target = make_folder(Path(out) if out else Path("reports/trend") / last)
    _refuse_a_run(target)
    facts = {
        "kind": "trend",
        "order": order,
        "seed": seed,
        "lang": lang,
        "runs": [_source(run) for run in line.runs],
        "left_out": [_source(run) | {"reason": why} for run, why in line.left_out],
    }
    manifest = _write(target, tables, trend_page(line, frames["trend"], lang=lang), facts)
    return Trend(path=target, manifest=manifest, trend=frames["trend"], line=line)


def _count_runs(complete: int, left_out: int) -> str:
    found = "no complete run" if not complete else "one complete run"
    return found + (f", and {left_out} that cannot be compared with it" if left_out else "")


def _find_runs(folder: Path) -> list[AuditRun]:
    """Every complete run below a folder."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", expected="a folder of runs")
    runs = []
    for file in sorted(folder.rglob(NAME)):
        if _BENCHMARKS in file.relative_to(folder).parent.parts:
            continue
        manifest = read_manifest(file.parent)
        if manifest is not None:
            runs.append(AuditRun(file.parent, manifest))
    return runs


def _refuse_a_run(folder: Path) -> None:
    """Never write over a run, be it broken or half done."""
    if (folder / "samples").exists() or (
        (folder / NAME).exists() and status_of(folder) != COMPARED
    ):
        raise UsageError(
            f"{folder} holds a run",
            expected="a folder of its own for the comparison",
            remedy="name another one with --out",
        )


def _source(run: AuditRun) -> dict[str, Any]:
    """What a run is, for the manifest."""
    names = ("run_id", "fingerprint", "model", "weights", "weights_sha256", "dataset", "split",
             "data_fingerprint", "code_fingerprint", "finished")  # fmt: skip
    told = {"path": str(run.path), "without": gaps_in_words(run.manifest)}
    return told | {name: run.manifest.get(name) for name in names}


def _write(
    folder: Path, tables: Mapping[str, pa.Table], page: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Tables, page, and last the manifest."""
    (folder / NAME).unlink(missing_ok=True)
    for name, table in tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        write_atomically(folder / f"{name}.parquet", buffer.getvalue())
    write_atomically(folder / "index.html", page.encode())
    names = [*(f"{name}.parquet" for name in tables), "index.html"]
    manifest = {
        "status": COMPARED,
        **facts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "files": checksums(folder, names),
    }
    write_manifest(folder, manifest)
    return manifest
