"""An object store on this machine: conditions, storms, killed and late writers, refusals."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

import audit.storage.objects
from audit.errors import ConfigError, OutputError
from audit.run.store import PartStore, Shard, plan_shards
from audit.storage import ObjectStorage, Patience, open_storage
from audit.storage.mirror import pull, push
from tests.engines.running import wait_for
from tests.storage.servers import (
    BUCKET,
    ObjectServer,
    StallingProxy,
    make_bucket,
    object_server,
    settings_of,
)

SOON = Patience(tries=5, first=0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture(autouse=True)
def _a_good_store(server: ObjectServer) -> None:
    server.front.behave()


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}"


@pytest.fixture
def storage(url: str) -> ObjectStorage:
    return ObjectStorage(url, SOON)


def writes(server: ObjectServer) -> list[tuple[str, str, str]]:
    return [request for request in server.front.seen if request[0] in ("PUT", "POST")]


def test_whole_objects(storage: ObjectStorage) -> None:
    assert storage.create("samples/a", b"first")
    assert not storage.create("samples/a", b"second")
    assert storage.read("samples/a") == b"first"
    storage.write("samples/a", b"third")
    assert storage.read("samples/a") == b"third"
    storage.write("b", b"")
    assert storage.read("b") == b""
    assert [(e.name, e.bytes) for e in storage.entries()] == [("b", 0), ("samples/a", 5)]
    assert [e.name for e in storage.entries("samples")] == ["samples/a"]
    assert storage.entries("sample") == []
    assert storage.entries("b") == []
    assert storage.entries("samples")[0].modified > 1.7e9
    storage.delete("samples/a")
    storage.delete("samples/a")
    storage.clean()
    with pytest.raises(FileNotFoundError):
        storage.read("samples/a")
    with pytest.raises(OutputError, match="does not name a file"):
        storage.write("../other", b"")


def test_a_whole_bucket_as_the_place(server: ObjectServer) -> None:
    make_bucket("alone")
    storage = ObjectStorage("s3://alone/")
    assert storage.entries() == []
    assert storage.create("a", b"1")
    assert [e.name for e in storage.entries()] == ["a"]


def test_an_empty_place_has_no_entries(storage: ObjectStorage) -> None:
    assert storage.entries() == []


def test_a_neighbour_that_begins_alike_is_another(storage: ObjectStorage, url: str) -> None:
    ObjectStorage(f"{url}-2").write("a", b"")
    assert storage.entries() == []


def test_listings_go_over_pages(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, server: ObjectServer
) -> None:
    names = [f"part-{number}" for number in range(7)]
    for name in names:
        storage.write(name, b"")
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    server.front.behave()
    assert [e.name for e in storage.entries()] == names
    assert len(server.front.seen) == 3


def test_a_listing_shows_what_another_wrote_since(storage: ObjectStorage, url: str) -> None:
    storage.write("a", b"1")
    assert len(storage.entries()) == 1
    other = ObjectStorage(url)
    other.write("b", b"22")
    other.delete("a")
    assert [(e.name, e.bytes) for e in storage.entries()] == [("b", 2)]
    with pytest.raises(FileNotFoundError):
        storage.read("a")


def test_a_large_object_is_one_request(storage: ObjectStorage, server: ObjectServer) -> None:
    # s3fs by itself would send more than 100 MiB in chunks.
    content = bytes(101 * 2**20)
    storage.write("large", content)
    assert [(method, query) for method, _, query in server.front.seen] == [("PUT", "")]
    server.front.behave()
    assert storage.read("large") == content
    assert [method for method, *_ in server.front.seen] == ["GET"]
    storage.delete("large")


def test_what_no_request_takes_is_refused(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, server: ObjectServer
) -> None:
    monkeypatch.setattr(audit.storage.objects, "LARGEST", 3)
    for send in (storage.create, storage.write):
        with pytest.raises(OutputError, match="too large for one request"):
            send("large", b"four")
    assert server.front.seen == []


def test_a_storage_travels(storage: ObjectStorage) -> None:
    storage.write("a", b"1")
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"1"


MAKER = """
import json, sys
from audit.storage import open_storage
storage = open_storage(sys.argv[1])
storage.entries()
print("ready", flush=True)
sys.stdin.readline()
made = [storage.create(f"{number}", sys.argv[2].encode()) for number in range(30)]
print(json.dumps(made))
"""


def test_of_two_processes_one_makes_each_object(
    storage: ObjectStorage, url: str, server: ObjectServer
) -> None:
    server.front.exact = True
    writers = [_start(MAKER, url, name) for name in "AB"]
    for writer in writers:
        assert _line(writer) == "ready"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    made = [json.loads(_end(writer)) for writer in writers]
    for number, (by_a, by_b) in enumerate(zip(*made, strict=True)):
        assert by_a != by_b
        assert storage.read(str(number)) == (b"A" if by_a else b"B")


COMMITTER = """
import os, random, signal, sys
import pyarrow as pa
from audit.run.store import PartStore, plan_shards
from audit.storage import open_storage
url, name, how = sys.argv[1:]
store = PartStore(open_storage(url), "samples", "print")
(shard,) = plan_shards(40_000, 40_000)
scores = random.Random(name)
table = pa.table({"index": range(40_000), "score": [scores.random() for _ in range(40_000)]})
if how == "stops":
    os.kill(os.getpid(), signal.SIGSTOP)
sums = {"sums": f"sums of {name}".encode()}
sidecar = store.commit(shard, table, {"histogram": [len(name)]}, {"rank": name}, sums)
print(sidecar["worker"]["rank"], flush=True)
"""
SHARD = Shard(number=0, start=0, stop=40_000)


def test_killed_while_sending_leaves_nothing(
    storage: ObjectStorage, url: str, server: ObjectServer
) -> None:
    proxy = StallingProxy(server.address, after=200_000)
    writer = _start(COMMITTER, url, "A", "commits", settings_of(proxy.address))
    try:
        assert proxy.stalled.wait(60)
        # What the proxy has passed on, the server may be about to read.
        sending = ("PUT", f"/{BUCKET}/{_prefix(url)}/samples/part-000000.parquet", "")
        wait_for(lambda: sending in writes(server), 60)
    finally:
        writer.kill()
        writer.communicate()
        proxy.close()
    store = PartStore(storage, "samples", "print")
    assert storage.entries() == []
    assert store.look([SHARD]) == {0: "missing"}
    assert _end(_start(COMMITTER, url, "B", "commits")) == "B"
    assert [e.name for e in storage.entries()] == sorted(store.names([SHARD], ["sums"]))
    (sidecar,) = store.verify_all([SHARD])
    assert sidecar["worker"] == {"rank": "B"}


@pytest.mark.parametrize("moment", ["before sending", "while sending"])
def test_a_late_writer_changes_nothing(
    storage: ObjectStorage, url: str, server: ObjectServer, moment: str
) -> None:
    # It computed other bytes, as another device might.
    proxy = StallingProxy(server.address, after=200_000 if moment == "while sending" else 10**9)
    try:
        how = "stops" if moment == "before sending" else "commits"
        late = _start(COMMITTER, url, "A", how, settings_of(proxy.address))
        if moment == "while sending":
            assert proxy.stalled.wait(60)
            late.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(late.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert _end(_start(COMMITTER, url, "B", "commits")) == "B"
        before = {e.name: storage.read(e.name) for e in storage.entries()}
        proxy.go_on.set()
        late.send_signal(signal.SIGCONT)
        assert _end(late) == "B"
    finally:
        proxy.close()
    assert {e.name: storage.read(e.name) for e in storage.entries()} == before
    store = PartStore(storage, "samples", "print")
    (sidecar,) = store.verify_all([SHARD])
    assert sidecar["worker"] == {"rank": "B"}
    assert store.read_extra(SHARD, "sums") == b"sums of B"


def test_a_storm_is_waited_for(storage: ObjectStorage, server: ObjectServer) -> None:
    server.front.busy = 3
    shards = plan_shards(40, 10)
    store = PartStore(storage, "samples", "print")

    def commit(shard: Shard) -> None:
        table = pa.table({"index": range(shard.start, shard.stop)})
        store.claim(shard)
        store.commit(shard, table, {}, {}, {"sums": b"1"})
        store.release(shard)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(commit, shards))
    assert len(store.verify_all(shards)) == 4
    assert store.claims() == {}
    told = [request for request in writes(server) if request[1].endswith("part-000003.parquet")]
    assert len(told) in (4, 5)  # Three were refused; the very first object is sent once more.


def test_a_storm_without_an_end_ends_the_try(storage: ObjectStorage, server: ObjectServer) -> None:
    server.front.busy = 10**6
    with pytest.raises(OutputError, match="busy or out of reach in 5 tries") as caught:
        storage.write("a", b"1")
    assert "SlowDown" in (caught.value.found or "")
    assert len(server.front.seen) == SOON.tries


def test_a_lost_answer_is_not_taken_for_anothers_object(
    storage: ObjectStorage, server: ObjectServer
) -> None:
    assert storage.create("known", b"")  # From now on objects are sent once.
    server.front.lost = 1
    assert storage.create("a", b"mine")
    assert len([r for r in writes(server) if r[1].endswith("/a")]) == 2
    assert not storage.create("a", b"mine")


@pytest.mark.parametrize("code", ["ExpiredToken", "AccessDenied", "InvalidAccessKeyId"])
def test_a_refused_credential_ends_at_once(url: str, server: ObjectServer, code: str) -> None:
    store = PartStore(ObjectStorage(url), "samples", "print")
    (shard,) = plan_shards(2, 2)
    table = pa.table({"index": [0, 1]})
    server.front.refusal = code
    with pytest.raises(OutputError) as caught:
        store.commit(shard, table, {}, {})
    assert caught.value.exit_code == 1
    assert ("has expired" if code == "ExpiredToken" else "refuses") in caught.value.problem
    assert code in (caught.value.found or "")
    assert "renew" in (caught.value.remedy or "")
    assert "same command again" in (caught.value.remedy or "")
    assert len(writes(server)) == 1
    for ask in (store.verified, lambda shard: store.look([shard])):
        with pytest.raises(OutputError, match="credential"):
            ask(shard)
    server.front.behave()
    assert store.look([shard]) == {0: "missing"}
    store.commit(shard, table, {}, {})
    assert store.verify_all([shard])


def test_no_credentials_at_all(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(OutputError, match="no credentials were found") as caught:
        ObjectStorage(url).read("a")
    assert "NoCredentialsError" in (caught.value.found or "")


def test_a_bucket_that_does_not_exist(server: ObjectServer) -> None:
    nowhere = ObjectStorage("s3://no-such-bucket/reports")
    for ask in (
        lambda: nowhere.read("a"), lambda: nowhere.create("a", b""),
        lambda: nowhere.write("a", b""), nowhere.entries,
    ):  # fmt: skip
        with pytest.raises(OutputError, match="the bucket of s3://no-such-bucket"):
            ask()


def test_a_store_that_is_not_there(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(OutputError, match="out of reach in 5 tries") as caught:
        ObjectStorage(url, SOON).write("a", b"")
    assert "Could not connect to the endpoint" in (caught.value.found or "")


@pytest.mark.parametrize("how", ["ignores", "refuses"])
def test_a_store_without_conditions_is_asked_before(
    storage: ObjectStorage, server: ObjectServer, how: str
) -> None:
    server.front.ignores_condition = how == "ignores"
    server.front.knows_condition = how != "refuses"
    storage.write("a", b"old")
    assert not storage.create("a", b"new")
    assert storage.read("a") == b"old"
    for number in range(3):
        assert storage.create(f"b{number}", b"1")
        assert not storage.create(f"b{number}", b"2")
        assert storage.read(f"b{number}") == b"1"
    server.front.seen.clear()
    assert storage.create("c", b"1")
    methods = [m for m, path, _ in server.front.seen if path.endswith("/c")]
    assert methods == ["HEAD", "PUT", "GET"]


def test_a_store_with_conditions_is_asked_once(
    storage: ObjectStorage, server: ObjectServer
) -> None:
    storage.create("first", b"")
    server.front.seen.clear()
    storage.create("second", b"1")
    storage.create("second", b"2")
    assert [method for method, *_ in server.front.seen] == ["PUT", "PUT"]


@pytest.mark.parametrize("place", ["s3://", "s3:///x", "ftp://host/x", "https://host/x", "az://x"])
def test_places_that_are_none(place: str) -> None:
    with pytest.raises(ConfigError, match="does not name a place"):
        open_storage(place)


def test_a_missing_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs the packages s3fs") as caught:
        open_storage("s3://bucket/x")
    assert caught.value.remedy == "pip install 'audit[s3]'"
    with pytest.raises(ConfigError) as caught:
        open_storage("gs://bucket/x")
    assert caught.value.remedy == "pip install 'audit[gcs]'"


def test_copies(storage: ObjectStorage, tmp_path: Path) -> None:
    names = [f"samples/part-{number}" for number in range(20)]
    here, back = tmp_path / "here", tmp_path / "back"
    for number, name in enumerate(names):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(bytes(number))
    push(here, storage, names)
    assert [e.name for e in storage.entries()] == sorted(names)
    pull(storage, names, back)
    assert {n: (back / n).read_bytes() for n in names} == {
        n: (here / n).read_bytes() for n in names
    }
    with pytest.raises(OutputError, match="nothing-here is missing"):
        pull(storage, ["nothing-here"], back)
    with pytest.raises(OutputError, match="cannot read"):
        push(here, storage, ["nothing-here"])
    with pytest.raises(OutputError, match="does not name a file"):
        pull(storage, ["../../etc/x"], back)


def _prefix(url: str) -> str:
    return url.removeprefix(f"s3://{BUCKET}/")


def _start(
    code: str, url: str, name: str, how: str = "", settings: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, url, name, how]
    pipe = subprocess.PIPE
    environment = {**os.environ, **(settings or {})}
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _end(process: subprocess.Popen[str]) -> str:
    """What a process said, after it ended well."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return said.strip()
