"""Pictures in object stores: bad and slow ones, many at once, and what is asked for at all."""

from __future__ import annotations

import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from audit.data import Batch, Split, iterate, open_split
from audit.data.identity import Stamp, stamps
from audit.data.reading import Piece, RangeFile, Reader, ReadPolicy, gathered, may_pass
from audit.errors import DataError
from tests.data.making import encoded, filled, png, write
from tests.data.web import Site, website
from tests.storage.servers import BUCKET, ObjectServer, object_server

QUICK = ReadPolicy(timeout=5, tries=4, first_wait=0.01, longest_wait=0.02)


@pytest.fixture
def site() -> Iterator[Site]:
    with website() as served:
        yield served


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectServer]:
    with object_server() as server:
        yield server


def listed(folder: Path, site: Site, count: int) -> str:
    """A table of so many pictures on a site."""
    for n in range(count):
        site.files[f"/p/{n}.png"] = png(n)
    names = [f"{site.address}/p/{n}.png" for n in range(count)]
    pq.write_table(pa.table({"image": names, "label": [0] * count}), folder / "m.parquet")
    return f"manifest:{folder}/m.parquet"


def fetch(split: Split) -> Batch:
    return split.__getitems__(range(len(split)))


# -- bad and slow objects


def test_every_trouble_ends_in_its_row(site: Site, tmp_path: Path) -> None:
    name = listed(tmp_path, site, 9)
    site.failing = {"/p/1.png": 3, "/p/2.png": 4}
    site.status = {"/p/3.png": 503, "/p/4.png": 403, "/p/5.png": 404, "/p/8.png": 429}
    site.cut = frozenset({"/p/6.png"})
    site.reset = {"/p/7.png": 2}
    batch = fetch(open_split(name, policy=QUICK))
    fine = [status == "ok" for status in batch.status]
    assert fine == [True, True, False, False, False, False, False, True, False]
    assert {batch.status[n] for n in (2, 3, 4, 5, 6, 8)} == {"unreadable"}
    for n, words in {
        2: "HTTP status 503, Service Unavailable (asked 4 times)",
        3: "HTTP status 503, Service Unavailable (asked 4 times)",
        4: "HTTP status 403, Forbidden (asked once)",
        5: "No such file or directory",
        6: "the answer broke off (asked 4 times)",
        8: "HTTP status 429, Too Many Requests (asked 4 times)",
    }.items():
        assert batch.problem[n].endswith(f"it cannot be read: {words}")
    assert Counter(path for _, path in site.seen) == {
        "/p/0.png": 1, "/p/1.png": 4, "/p/2.png": 4, "/p/3.png": 4, "/p/4.png": 1, "/p/5.png": 1,
        "/p/6.png": 4, "/p/7.png": 3, "/p/8.png": 4,
    }  # fmt: skip


def test_an_object_that_never_comes_is_given_up(site: Site, tmp_path: Path) -> None:
    name = listed(tmp_path, site, 2)
    site.hanging = frozenset({"/p/1.png"})
    policy = ReadPolicy(timeout=0.3, tries=2, first_wait=0.01)
    batch = fetch(open_split(name, policy=policy))
    assert batch.status == ["ok", "unreadable"]
    assert batch.problem[1].endswith("no answer within 0.3 s (asked 2 times)")


def test_masks_have_troubles_of_their_own(site: Site, tmp_path: Path) -> None:
    inside = encoded(Image.fromarray(filled((8, 8, 20, 20), size=(32, 32))))
    places = [f"{site.address}/{n}" for n in range(3)]
    for n in range(3):
        site.files |= {f"/{n}": png(n), f"/{n}.m": inside}
    del site.files["/1.m"]
    site.status = {"/2.m": 500}
    table = pa.table({"image": places, "label": [0] * 3, "mask": [f"{p}.m" for p in places]})
    pq.write_table(table, tmp_path / "m.parquet")
    batch = fetch(open_split(f"manifest:{tmp_path}/m.parquet", policy=QUICK))
    assert batch.status == ["ok", "mask_missing", "mask_unreadable"]
    assert "HTTP status 500, Internal Server Error (asked 4 times)" in batch.problem[2]
    assert batch.object_mask is not None
    assert batch.object_mask[0].sum() == 144


def test_signatures_of_addresses_stay_out_of_problems(tmp_path: Path) -> None:
    address = "http://127.0.0.1:1/x.png?X-Amz-Signature=secret"
    with pytest.raises(OSError, match="asked 2 times") as caught:
        Reader(policy=ReadPolicy(tries=2, first_wait=0.01)).read(Piece(address))
    assert "secret" not in str(caught.value)


def test_s3_refuses_misses_and_slows_down(store: ObjectServer, tmp_path: Path) -> None:
    import fsspec

    system = fsspec.filesystem("s3")
    for n in range(3):
        system.pipe(f"{BUCKET}/a/{n}.png", png(n))
    names = [f"s3://{BUCKET}/a/{n}.png" for n in (0, 1, 2, 9)]
    pq.write_table(pa.table({"image": names, "label": [0] * 4}), tmp_path / "m.parquet")
    split = open_split(f"manifest:{tmp_path}/m.parquet", policy=QUICK)
    store.front.behave()
    batch = fetch(split)
    assert batch.status == ["ok", "ok", "ok", "unreadable"]
    assert "No such file" in batch.problem[3]
    # One request each: no size is asked for first.
    assert Counter(method for method, _, _ in store.front.seen) == {"GET": 4}
    store.front.behave()
    store.front.busy = 3
    assert fetch(split).status == ["ok", "ok", "ok", "unreadable"]
    store.front.behave()
    store.front.busy = 100
    assert "HTTP status 503, Service Unavailable (asked 4 times)" in fetch(split).problem[0]
    # Neither s3fs nor botocore try again by themselves.
    assert len(store.front.seen) == 16
    store.front.behave()
    store.front.refusal = "AccessDenied"
    batch = fetch(split)
    assert set(batch.status) == {"unreadable"}
    assert "HTTP status 403, Forbidden (asked once)" in batch.problem[0]
    assert len(store.front.seen) == 4
    store.front.behave()


def test_what_may_pass() -> None:
    assert all(map(may_pass, (TimeoutError(), ConnectionResetError(), EOFError())))
    for error in (FileNotFoundError(), PermissionError(), ValueError(), OSError("x")):
        assert not may_pass(error)
    behind = OSError("Slow down")
    behind.__cause__ = ConnectionAbortedError()
    assert may_pass(behind)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_on_servers_with_and_without_ranges(
    kind: str, ranges: bool, site: Site, tmp_path: Path
) -> None:
    site.ranges = ranges
    table = pa.table({"image": ["p/0.png"], "label": ["a"]})
    if kind == "csv":
        pa.csv.write_csv(table, tmp_path / "x")
    else:
        pq.write_table(table, tmp_path / "x")
    site.files = {"/m": (tmp_path / "x").read_bytes(), "/p/0.png": png(0)}
    batch = fetch(open_split(f"manifest:{site.address}/m", policy=QUICK))
    assert (batch.sample_id, batch.status) == (["p/0.png"], ["ok"])
    for path, words in (("none", "does not exist"), ("bad", "HTTP status 500")):
        site.status = {"/bad": 500}
        with pytest.raises(DataError, match=words):
            open_split(f"manifest:{site.address}/{path}", policy=QUICK)


# -- many at once


def test_a_batch_is_asked_for_at_once(tmp_path: Path) -> None:
    with website() as site:
        name = listed(tmp_path, site, 8)
        meeting = threading.Barrier(8)

        class Waiting(dict):  # type: ignore[type-arg]
            def get(self, key: str, default: int | None = None) -> int | None:
                # Who comes alone breaks the barrier, and is answered with 500.
                meeting.wait(10)
                return default

        site.status = Waiting()
        batch = fetch(open_split(name, policy=ReadPolicy(tries=1)))
        assert set(batch.status) == {"ok"}


def test_no_more_than_allowed_are_asked_for_at_once(tmp_path: Path) -> None:
    with website() as site:
        name = listed(tmp_path, site, 12)
        now, most, lock = 0, 0, threading.Lock()

        class Counting(dict):  # type: ignore[type-arg]
            def get(self, key: str, default: int | None = None) -> int | None:
                nonlocal now, most
                with lock:
                    now, most = now + 1, max(most, now + 1)
                threading.Event().wait(0.01)
                with lock:
                    now -= 1
                return default

        site.status = Counting()
        assert set(fetch(open_split(name, policy=ReadPolicy(at_once=3))).status) == {"ok"}
        assert 2 <= most <= 3


def test_opening_and_a_small_range_touch_that_range_only(site: Site, tmp_path: Path) -> None:
    split = open_split(listed(tmp_path, site, 50))
    assert site.seen == []
    assert split.__getitems__([7, 5]).sample_id == [f"{site.address}/p/{n}.png" for n in (7, 5)]
    assert sorted(site.seen) == [("GET", "/p/5.png"), ("GET", "/p/7.png")]


def test_forked_workers_have_loops_of_their_own(store: ObjectServer, tmp_path: Path) -> None:
    import fsspec

    for n in range(6):
        fsspec.filesystem("s3").pipe(f"{BUCKET}/w/{n}.png", png(n))
    names = [f"s3://{BUCKET}/w/{n}.png" for n in range(6)]
    pq.write_table(pa.table({"image": names, "label": [0] * 6}), tmp_path / "m.parquet")
    split = open_split(f"manifest:{tmp_path}/m.parquet")
    alone = fetch(split)
    loader: DataLoader[Batch] = DataLoader(
        split,  # type: ignore[arg-type]
        batch_sampler=[[0, 1, 2], [3, 4, 5]],
        collate_fn=as_is,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=120,
    )
    batches = list(loader)
    assert [status for batch in batches for status in batch.status] == ["ok"] * 6
    assert (batches[1].images == alone.images[3:]).all()


def as_is(batch: Batch) -> Batch:
    return batch


def test_started_workers_read_stores(site: Site, tmp_path: Path) -> None:
    split = open_split(listed(tmp_path, site, 4))
    fetch(split)
    batches = list(iterate(split, range(4), batch_size=2, workers=1))
    assert [status for batch in batches for status in batch.status] == ["ok"] * 4


def test_nothing_read_travels_to_worker_processes(site: Site, tmp_path: Path) -> None:
    split = open_split(listed(tmp_path, site, 3))
    before = len(pickle.dumps(split))
    fetch(split)
    assert len(pickle.dumps(split)) == before


# -- parts of objects


def test_neighbours_are_asked_for_together() -> None:
    pieces = [Piece("a", 0, 10), Piece("a", 20, 30), Piece("a", 10**6, 10**6 + 5), Piece("b", 0, 9)]
    found = gathered([*reversed(pieces), Piece("b")])
    assert [one.request for one in found] == [
        Piece("a", 0, 30), pieces[2], pieces[3], Piece("b"),
    ]  # fmt: skip
    assert found[0].pieces == (pieces[0], pieces[1])


def test_parts_come_whole_or_not_at_all(site: Site) -> None:
    site.files = {"/x": bytes(range(200))}
    place = f"{site.address}/x"
    reader = Reader(policy=QUICK)
    held = reader.ahead([Piece(place, 3, 5), Piece(place, 190, 200), Piece(place, 7, 7)])
    assert site.ranges_seen == ["bytes=3-199"]
    assert held.read(Piece(place, 3, 5)) == b"\x03\x04"
    assert held.read(Piece(place, 7, 7)) == b""
    assert held.read(Piece(place, 190, 200)) == bytes(range(190, 200))
    assert len(site.seen) == 1
    with pytest.raises(OSError, match=r"10 of 20 bytes came \(asked 4 times\)"):
        reader.read(Piece(place, 190, 210))
    site.ranges = False
    with pytest.raises(OSError, match="no ranges are served"):
        reader.read(Piece(place, 3, 5))


def test_local_parts(tmp_path: Path) -> None:
    write(tmp_path / "x", b"abcdef")
    assert Reader().read(Piece(str(tmp_path / "x"), 2, 4)) == b"cd"
    with pytest.raises(OSError, match="1 of 3 bytes came"):
        Reader().read(Piece(str(tmp_path / "x"), 5, 8))
    file = RangeFile(str(tmp_path / "x"), 6, Reader())
    assert (file.seek(-2, 2), file.read(), file.read()) == (4, b"ef", b"")
    with pytest.raises(OSError, match="before the file's first byte"):
        file.seek(-1)


# -- fingerprints of what is not read


def test_fingerprints_of_objects_ask_for_no_content(site: Site, tmp_path: Path) -> None:
    split = open_split(listed(tmp_path, site, 5))
    assert split.facts == {"data_fingerprint": "digest of listing", "classes": "by number"}
    before = split.fingerprint()
    assert {method for method, _ in site.seen} == {"HEAD"}
    assert open_split(listed(tmp_path, site, 5)).fingerprint() == before
    site.files["/p/3.png"] = png(99)
    assert split.fingerprint() != before
    del site.files["/p/3.png"]
    assert split.fingerprint() != before


def test_s3_lists_a_folder_once(
    store: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    system = fsspec.filesystem("s3")
    monkeypatch.setattr("audit.data.identity._WORTH_LISTING", 3)
    for n in range(6):
        system.pipe(f"{BUCKET}/l/{n}.png", png(n))
    names = [f"s3://{BUCKET}/l/{n}.png" for n in range(6)]
    pq.write_table(pa.table({"image": names, "label": [0] * 6}), tmp_path / "m.parquet")
    split = open_split(f"manifest:{tmp_path}/m.parquet")
    store.front.behave()
    before = split.fingerprint()
    assert [method for method, _, query in store.front.seen] == ["GET"]
    assert "list-type=2" in store.front.seen[0][2]
    system.pipe(f"{BUCKET}/l/4.png", png(77))
    assert split.fingerprint() != before
    store.front.behave()


def test_stamps_of_files_and_objects(store: ObjectServer, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("s3").pipe(f"{BUCKET}/s/x", b"abc")
    write(tmp_path / "y", b"abcd")
    places = [f"s3://{BUCKET}/s/x", str(tmp_path / "y"), f"s3://{BUCKET}/s/none"]
    told = stamps(places, QUICK)
    assert told[places[0]] == Stamp(3, '"900150983cd24fb0d6963f7d28e17f72"')  # MD5 of abc
    assert told[places[1]] == Stamp(4, str((tmp_path / "y").stat().st_mtime_ns))
    assert isinstance(told[places[2]], FileNotFoundError)


def test_local_pictures_keep_the_digest_of_their_content(tmp_path: Path) -> None:
    for n in range(2):
        write(tmp_path / f"{n}.png", png(n))
    write(tmp_path / "m.csv", "image,label\n0.png,0\n1.png,0\n")
    split = open_split(f"manifest:{tmp_path}/m.csv")
    before = split.fingerprint()
    (tmp_path / "0.png").touch()
    assert (split.fingerprint(), split.facts) == (before, {"classes": "by number"})


def test_many_local_pictures_are_told_by_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setattr("audit.data.identity.MOST_READ", 1)
    for n in range(2):
        write(tmp_path / f"{n}.png", png(n))
    write(tmp_path / "m.csv", "image,label\n0.png,0\n1.png,0\n")
    split = open_split(f"manifest:{tmp_path}/m.csv")
    before = split.fingerprint()
    assert split.facts == {"data_fingerprint": "digest of listing", "classes": "by number"}
    assert split.fingerprint() == before
    os.utime(tmp_path / "0.png", ns=(1, 1))
    assert split.fingerprint() != before


def test_batches_are_the_same_however_they_are_cut(site: Site, tmp_path: Path) -> None:
    split = open_split(listed(tmp_path, site, 7))
    whole = fetch(split)
    parts = list(iterate(split, range(7), batch_size=3))
    assert [name for part in parts for name in part.sample_id] == whole.sample_id
    assert all(
        (image == whole.images[int(i)]).all()
        for part in parts
        for i, image in zip(part.index, part.images, strict=True)
    )
