"""Whole runs in an object store: the same files as on a disk, also in a storm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit import load_run, merge_run, run_audit, run_piece
from audit.engines.pieces import Piece
from audit.errors import OutputError, UsageError
from audit.redraw import redraw
from audit.storage import open_storage
from tests.storage.servers import BUCKET, ObjectServer, object_server

SETTINGS: dict[str, Any] = {
    "dataset": "demo", "limit": 60, "shard_size": 20, "edits": 12, "grids": False,
}  # fmt: skip
OUT = f"s3://{BUCKET}/audits"


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture(autouse=True)
def behaved(server: ObjectServer) -> Iterator[None]:
    yield
    server.front.behave()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(**SETTINGS, out=tmp_path_factory.mktemp("local")).path


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything but what tells times, places and processes."""
    return {
        name: file.read_bytes()
        for file in sorted(folder.rglob("*.parquet"))
        if (name := str(file.relative_to(folder)))
    }


def test_a_run_in_a_storm_is_what_it_is_on_a_disk(
    server: ObjectServer, local: Path, tmp_path: Path
) -> None:
    server.front.busy = 1
    out = f"{OUT}/storm"
    for index in (1, 0):
        run_piece(Piece(index, 2), **SETTINGS, out=out, cache=tmp_path / f"cache-{index}")
    run = merge_run(**SETTINGS, out=out, cache=tmp_path / "cache")
    assert files_of(run.path) == files_of(local)
    place = f"{out}/demo/cnn/{run.manifest['run_id']}"
    stored = {entry.name for entry in open_storage(place).entries()}
    on_disk = {str(f.relative_to(local)) for f in local.rglob("*") if f.is_file()}
    assert stored == on_disk
    # Parts are created in one request each, never in several.
    assert not any("uploadId" in query for _, _, query in server.front.seen)


def test_reading_it_elsewhere(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{OUT}/read"
    run = run_audit(**SETTINGS, out=out, cache=tmp_path / "cache")
    place = f"{out}/demo/cnn/{run.manifest['run_id']}"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copied = load_run(place)
    assert files_of(copied.path) == files_of(run.path)
    assert len(copied.samples) == 60
    # A second look asks for the manifest alone.
    before = len(server.front.seen)
    load_run(place)
    asked = [path for method, path, _ in server.front.seen[before:] if method == "GET"]
    assert not [path for path in asked if path.endswith(".parquet")]
    with pytest.raises(UsageError, match="is in an object store"):
        redraw(place)
    assert redraw(place, out=tmp_path / "page").is_file()
    with pytest.raises(UsageError, match="no complete run"):
        load_run(f"{out}/demo/cnn/other")


def test_a_refused_credential_loses_nothing(
    server: ObjectServer, tmp_path: Path, audit_here: Callable[..., Any]
) -> None:
    out = f"{OUT}/refused"
    settings = {**SETTINGS, "out": out, "cache": tmp_path / "cache"}
    run_piece(Piece(0, 3), **settings)
    server.front.refusal = "ExpiredToken"
    with pytest.raises(OutputError) as raised:
        run_piece(Piece(1, 3), **settings)
    assert "credential" in str(raised.value).lower()
    server.front.behave()
    with pytest.raises(OutputError, match="2 of 3 parts"):
        merge_run(**settings)
    said = audit_here(
        "run", "--dataset", "demo", "--limit", 60, "--shard-size", 20, "--edits", 12,
        "--no-grids", "--out", out, "--cache", tmp_path / "cache",
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    place = said.stdout.split("Run: ")[1].strip()
    assert place.startswith(f"{out}/demo/cnn/")
    merged = audit_here("merge", place)
    assert merged.returncode == 0, merged.stderr
    assert merged.stdout.endswith(f"Run: {place}\n")
