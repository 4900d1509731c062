"""A folder as a storage: whole files or none, the first writer wins."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit.errors import OutputError
from audit.storage import LocalStorage, is_remote, open_storage


def test_a_file_is_made_once(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    assert storage.create("samples/a", b"first")
    assert not storage.create("samples/a", b"second")
    assert storage.read("samples/a") == b"first"
    storage.write("samples/a", b"third")
    assert storage.read("samples/a") == b"third"
    storage.delete("samples/a")
    storage.delete("samples/a")
    storage.delete("nowhere/a")
    with pytest.raises(FileNotFoundError):
        storage.read("samples/a")
    assert list((tmp_path / "samples").iterdir()) == []


def test_entries_are_of_all_folders_and_sorted(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for name in ("b", "samples/part-1", "samples/deep/x", "a"):
        storage.write(name, name.encode())
    (tmp_path / "samples" / f"y.{socket.gethostname()}.1.writing").write_bytes(b"half")
    assert [(e.name, e.bytes) for e in storage.entries()] == [
        ("a", 1), ("b", 1), ("samples/deep/x", 14), ("samples/part-1", 14),
    ]  # fmt: skip
    assert [e.name for e in storage.entries("samples")] == ["samples/deep/x", "samples/part-1"]
    assert storage.entries("none") == []
    assert LocalStorage(tmp_path / "none").entries() == []
    assert storage.entries("a") == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "a\\..\\x"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="does not name a file of a run"):
        LocalStorage(tmp_path / "run").write(name, b"")
    assert list(tmp_path.iterdir()) == []


def test_of_many_writers_one_wins(tmp_path: Path) -> None:
    gate = threading.Barrier(8)

    def make(writer: int) -> bool:
        gate.wait()
        return LocalStorage(tmp_path).create("part", bytes([writer]) * 100_000)

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, range(8)))
    assert sum(made) == 1
    assert LocalStorage(tmp_path).read("part") == bytes([made.index(True)]) * 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_a_folder_without_hard_links_keeps_the_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    storage = LocalStorage(tmp_path)
    assert storage.create("a", b"first")
    assert not storage.create("a", b"second")
    assert storage.read("a") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        LocalStorage(tmp_path).write("a", b"")


def test_a_file_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "samples").write_bytes(b"not a folder")
    with pytest.raises(OutputError, match="cannot write"):
        LocalStorage(tmp_path).create("samples/a", b"")
    with pytest.raises(FileNotFoundError):
        LocalStorage(tmp_path).read("samples/a")


# Writes the same file again and again, each time other bytes, and tells how often.
WRITER = """
import sys
from pathlib import Path
from audit.storage import LocalStorage
storage = LocalStorage(Path(sys.argv[1]))
for number in range(10**9):
    content = bytes([number % 256]) * 2_000_000
    storage.write("replaced", content)
    storage.create(f"made-{number}", content)
    print(number, flush=True)
"""


def test_killed_while_writing_leaves_whole_files_only(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    storage = LocalStorage(tmp_path)
    entries = storage.entries()
    assert len(entries) >= 6
    for entry in entries:
        content = storage.read(entry.name)
        assert content == content[:1] * 2_000_000, entry.name
    storage.clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == [entry.name for entry in entries]


def test_clean_takes_only_what_nobody_needs(tmp_path: Path) -> None:
    host = socket.gethostname()
    storage = LocalStorage(tmp_path)
    storage.write("part-0.parquet", b"whole")
    kept = {
        "part-0.parquet",
        f"part-1.parquet.00ff.{host}.1.writing",  # process 1 lives
        "part-2.parquet.00ff.other.host.example.7.writing",
    }
    gone = {
        f"part-1.parquet.00ff.{host}.{2**22 + 1}.writing",  # above the largest number there is
        "part-0.parquet.00ff.other.host.example.7.writing",
        "_part-1.claim.00ff.other.host.example.7.writing",
    }
    for name in (kept | gone) - {"part-0.parquet"}:
        (tmp_path / name).write_bytes(b"half")
    storage.clean()
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_a_late_writer_whose_temporary_file_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    flush = os.fsync
    taken = []

    def take(handle: int) -> None:
        flush(handle)
        if not taken:
            taken.extend(tmp_path.glob("*.writing"))
            taken[0].unlink()

    monkeypatch.setattr(os, "fsync", take)
    storage.write("a", b"content")
    assert len(taken) == 1
    assert storage.read("a") == b"content"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"mounting is not allowed: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_there_was(small_disk: Path) -> None:
    storage = LocalStorage(small_disk)
    storage.write("old", b"o" * 300_000)
    for write in (storage.write, storage.create):
        with pytest.raises(OutputError, match="cannot write") as caught:
            write("old" if write == storage.write else "new", b"n" * 2_000_000)
        assert "free some space" in (caught.value.remedy or "")
    assert storage.read("old") == b"o" * 300_000
    assert [path.name for path in small_disk.iterdir()] == ["old"]
    assert storage.create("new", b"n" * 300_000)


def test_places(tmp_path: Path) -> None:
    assert all(map(is_remote, ("s3://bucket/x", "gs://bucket", "S3://bucket")))
    assert not any(map(is_remote, ("reports", "C:/x", "/tmp/s3://b", "file:///tmp", "s3:/b")))
    storage = open_storage(f"file://{tmp_path}/a%20b")
    storage.write("x", b"1")
    assert (tmp_path / "a b" / "x").read_bytes() == b"1"
    assert open_storage(tmp_path).place == str(tmp_path)
