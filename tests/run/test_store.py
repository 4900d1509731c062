"""Parts and sidecars: committed once, adopted where a writer died, never believed when damaged."""

from __future__ import annotations

import gc
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audit.errors import OutputError
from audit.run.store import ROW_GROUP, PartStore, Shard, plan_shards, this_process
from audit.storage import LocalStorage, open_storage

SHARDS = plan_shards(25, 10)
FIRST = SHARDS[0]
SUMMARY = {"statuses": {"ok": 10}, "histogram": [[1, 2], [3, 4]], "problems": ["schäbig"]}
WORKER = {"host": "node-7", "rank": "3/8"}
PART, SIDECAR = "samples/part-000000.parquet", "samples/_part-000000.json"


@pytest.fixture
def store(tmp_path: Path) -> PartStore:
    return PartStore(LocalStorage(tmp_path), "samples", "print")


def rows(shard: Shard, score: float = 0.5) -> pa.Table:
    count = len(shard)
    names = pa.array(["cat"] * count).dictionary_encode()
    return pa.table(
        {
            "index": pa.array(range(shard.start, shard.stop), pa.int64()),
            "score": pa.array([score] * count, pa.float32()),
            "name": names,
            "map": pa.array([[0.5, 1.0]] * count, pa.list_(pa.field("element", pa.float16()))),
        }
    )


def commit(store: PartStore, shard: Shard = FIRST, **changes: Any) -> dict[str, Any]:
    given = {"table": rows(shard), "summary": SUMMARY, "worker": WORKER, **changes}
    return store.commit(shard, **given)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_a_commit_leaves(store: PartStore, tmp_path: Path) -> None:
    sidecar = commit(store)
    content = (tmp_path / PART).read_bytes()
    assert sidecar == {
        **SUMMARY,
        "shard": 0,
        "start": 0,
        "stop": 10,
        "rows": 10,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "fingerprint": "print",
        "schema": sidecar["schema"],
        "extras": {},
        "worker": WORKER,
    }
    assert sorted(files(tmp_path)) == sorted(store.names([FIRST])) == [SIDECAR, PART]
    assert json.loads((tmp_path / SIDECAR).read_bytes()) == sidecar
    assert store.verified(FIRST) == sidecar
    assert store.part(FIRST) == PART
    # Both readers, with and without the part's own words.
    assert store.read_part(FIRST).equals(rows(FIRST), check_metadata=True)
    assert pq.read_table(tmp_path / PART).equals(rows(FIRST))


def test_a_part_is_a_function_of_its_rows(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        store = PartStore(LocalStorage(tmp_path / name), "samples", "print")
        commit(store, worker={"rank": name}, extras={"sums": b"1"})
        made.append(files(tmp_path / name))
    one, other = made
    assert one[PART] == other[PART]
    sidecars = [json.loads(each[SIDECAR]) for each in made]
    assert [each.pop("worker") for each in sidecars] == [{"rank": "a"}, {"rank": "b"}]
    assert sidecars[0] == sidecars[1]


def test_row_groups_are_bounded(store: PartStore, tmp_path: Path) -> None:
    (shard,) = plan_shards(ROW_GROUP + 1, ROW_GROUP + 1)
    table = pa.table({"index": range(len(shard))})
    commit(store, shard, table=table)
    metadata = pq.read_metadata(tmp_path / PART)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [50_000, 1]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_first_writer_wins(store: PartStore, tmp_path: Path) -> None:
    first = commit(store, extras={"sums": b"first"})
    before = files(tmp_path)
    # Other valid rows, as another device might give.
    second = commit(
        store,
        table=rows(FIRST, 0.25),
        summary={"histogram": [9]},
        worker={"rank": "late"},
        extras={"sums": b"second"},
    )
    assert second == first
    assert files(tmp_path) == before


@pytest.mark.parametrize("lost", [SIDECAR, "samples/_part-000000.sums", PART])
def test_what_a_killed_writer_left_is_finished(store: PartStore, tmp_path: Path, lost: str) -> None:
    whole = commit(store, extras={"sums": b"1"})
    (tmp_path / lost).unlink()
    assert commit(store, worker={"rank": "next"}, extras={"sums": b"1"}) == whole | (
        {"worker": {"rank": "next"}} if lost == SIDECAR else {}
    )
    assert store.verified(FIRST) is not None
    assert len(files(tmp_path)) == 3


def test_a_whole_part_without_a_sidecar_is_adopted(store: PartStore, tmp_path: Path) -> None:
    whole = commit(store)
    (tmp_path / SIDECAR).unlink()
    assert store.look([FIRST]) == {0: "unproven"}
    assert store.verified(FIRST) == whole | {"worker": {}}
    assert store.look([FIRST]) == {0: "done"}


def test_other_side_files_than_the_parts_are_refused(store: PartStore, tmp_path: Path) -> None:
    commit(store, extras={"sums": b"1"})
    (tmp_path / "samples" / "_part-000000.sums").write_bytes(b"2")
    assert store.verified(FIRST) is None
    # The writer that comes has others yet, and other rows: all of it is replaced.
    sidecar = commit(store, table=rows(FIRST, 0.25), extras={"sums": b"3"})
    assert store.verified(FIRST) == sidecar
    assert store.read_extra(FIRST, "sums") == b"3"
    assert store.read_part(FIRST)["score"][0].as_py() == 0.25


def test_any_damage_is_seen_and_mended(store: PartStore, tmp_path: Path) -> None:
    whole = commit(store)
    good = (tmp_path / PART).read_bytes()
    for place in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[place] ^= 1
        (tmp_path / PART).write_bytes(damaged)
        assert store.verified(FIRST) is None, place
    assert commit(store, worker={}) == whole  # The sidecar fits the same bytes again.
    assert (tmp_path / PART).read_bytes() == good


def test_damage_of_rows_is_seen_without_a_sidecar(store: PartStore, tmp_path: Path) -> None:
    # Noise cannot be compressed: a changed bit would be a changed number, and decode.
    noise = np.random.default_rng(0).random(10)
    commit(store, table=pa.table({"noise": noise}))
    good = (tmp_path / PART).read_bytes()
    (tmp_path / SIDECAR).unlink()
    place = good.index(noise[5].tobytes())
    (tmp_path / PART).write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    assert len(pq.read_table(tmp_path / PART)) == 10
    assert store.verified(FIRST) is None
    assert not (tmp_path / SIDECAR).exists()
    (tmp_path / PART).write_bytes(good)
    assert store.verified(FIRST) is not None


@pytest.mark.parametrize("kept", [0, 1, 8, 500, -1])
def test_a_part_that_was_cut_short(store: PartStore, tmp_path: Path, kept: int) -> None:
    commit(store)
    good = (tmp_path / PART).read_bytes()
    (tmp_path / PART).write_bytes(good[:kept])
    assert store.look([FIRST]) == {0: "unproven"}
    assert store.verified(FIRST) is None
    commit(store)
    assert (tmp_path / PART).read_bytes() == good


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b'{"rows": 10}', b"{}", b"null"])
def test_a_damaged_sidecar_is_replaced(store: PartStore, tmp_path: Path, text: bytes) -> None:
    whole = commit(store)
    (tmp_path / SIDECAR).write_bytes(text)
    assert store.look([FIRST]) == {0: "unproven"}
    assert store.verified(FIRST) == whole | {"worker": {}}
    (tmp_path / SIDECAR).write_bytes(text)
    assert commit(store, worker={"rank": "b"}) == whole | {"worker": {"rank": "b"}}


def test_a_sidecar_that_tells_other_counts_is_replaced(store: PartStore, tmp_path: Path) -> None:
    whole = commit(store)
    (tmp_path / SIDECAR).write_text(json.dumps(whole | {"histogram": [[0, 0], [0, 0]]}))
    assert store.verified(FIRST) == whole | {"worker": {}}


def test_parts_of_another_run_or_range_are_refused(store: PartStore, tmp_path: Path) -> None:
    commit(store)
    for other in (
        PartStore(LocalStorage(tmp_path), "samples", "other print"),
        PartStore(LocalStorage(tmp_path / "none"), "samples", "print"),
    ):
        assert other.verified(FIRST) is None
    for shard in (Shard(number=0, start=0, stop=11), Shard(number=0, start=10, stop=20)):
        assert store.verified(shard) is None
        assert store.look([shard]) == {0: "unproven"}
    # Under another's name.
    for file in (PART, SIDECAR):
        (tmp_path / file).rename(tmp_path / file.replace("000000", "000001"))
    assert store.verified(SHARDS[1]) is None


def test_a_table_of_other_length_is_never_whole(store: PartStore) -> None:
    with pytest.raises(ValueError, match="10 rows for a shard of 9"):
        store.commit(Shard(number=0, start=0, stop=9), rows(FIRST), SUMMARY, WORKER)


def test_verifying_all(store: PartStore, tmp_path: Path) -> None:
    for shard in SHARDS:
        commit(store, shard)
    assert [s["shard"] for s in store.verify_all(SHARDS)] == [0, 1, 2]
    (tmp_path / "samples" / "part-000001.parquet").unlink()
    assert [s is None for s in store.verified_all(SHARDS)] == [False, True, False]
    with pytest.raises(OutputError, match="1 of 3 parts") as caught:
        store.verify_all(SHARDS)
    assert caught.value.found == "parts 1"
    assert store.look(SHARDS) == {0: "done", 1: "missing", 2: "done"}
    commit(store, SHARDS[1], table=rows(SHARDS[1]).drop_columns(["score"]))
    with pytest.raises(OutputError, match="same columns"):
        store.verify_all(SHARDS)


def test_claims_are_told_and_bind_nobody(store: PartStore, tmp_path: Path) -> None:
    claim = store.claim(FIRST)
    assert {name: claim[name] for name in this_process()} == this_process()
    assert claim["attempt"] == 1
    assert store.claim(FIRST)["attempt"] == 2  # The first was never taken back.
    assert store.look(SHARDS) == {0: "claimed", 1: "missing", 2: "missing"}
    other = PartStore(open_storage(tmp_path), "samples", "print")
    assert other.claims()[0]["attempt"] == 2
    commit(other)
    assert store.look(SHARDS)[0] == "done"
    store.release(FIRST)
    store.release(FIRST)
    assert store.claims() == {}
    assert store.claim(FIRST)["attempt"] == 1
    (tmp_path / "samples" / "_part-000000.claim").write_text("{")
    assert store.claims() == {}
    assert store.claim(FIRST)["attempt"] == 1


def test_no_metadata_stays_in_memory(store: PartStore) -> None:
    gc.collect()
    gc.disable()
    try:
        for shard in SHARDS:
            commit(store, shard)
        assert all(store.verified_all(SHARDS))
        kept = [each for each in gc.get_objects() if type(each) is pq.FileMetaData]
    finally:
        gc.enable()
    assert kept == []


def test_what_is_missing_says_so(store: PartStore) -> None:
    assert store.look(SHARDS) == {0: "missing", 1: "missing", 2: "missing"}
    assert store.sidecars(SHARDS) == {}
    with pytest.raises(OutputError, match=r"part-000000\.parquet cannot be read"):
        store.read_part(FIRST)
    with pytest.raises(OutputError, match=r"_part-000000\.sums is missing"):
        store.read_extra(FIRST, "sums")


COMMITTER = """
import sys
import pyarrow as pa
from audit.run.store import PartStore, plan_shards
from audit.storage import open_storage
store = PartStore(open_storage(sys.argv[1]), "samples", "print")
shards = plan_shards(4_000_000, 20_000)
for shard in shards:
    table = pa.table({"index": pa.array(range(shard.start, shard.stop), pa.int64())})
    store.commit(shard, table, {}, {}, {"sums": b"1" * 1000})
    print(shard.number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 3, 4])
def test_killed_at_any_moment_leaves_whole_parts(tmp_path: Path, after: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(after):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        said = writer.stdout.read()
    count = after + len(said.split())
    storage = LocalStorage(tmp_path)
    store = PartStore(storage, "samples", "print")
    shards = plan_shards(4_000_000, 20_000)[: count + 2]
    states = list(store.look(shards).values())
    assert states[:count] == ["done"] * count
    assert states[count + 1] == "missing"
    for shard in shards:
        table = pa.table({"index": pa.array(range(shard.start, shard.stop), pa.int64())})
        store.commit(shard, table, {}, {}, {"sums": b"1" * 1000})
    storage.clean()
    assert sorted(files(tmp_path)) == sorted(store.names(shards, ["sums"]))
    assert len(store.verify_all(shards)) == len(shards)
