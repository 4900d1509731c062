"""Google's store, as far as a small server that speaks its JSON API can stand for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

import pyarrow as pa
import pytest
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from audit.errors import OutputError
from audit.run.store import PartStore, plan_shards
from audit.storage import ObjectStorage, Patience

OBJECTS = "/storage/v1/b/reports/o"


@dataclass
class Bucket:
    """One bucket: objects by name, and what to answer instead, if anything."""

    objects: dict[str, bytes] = field(default_factory=dict)
    refusal: int = 0
    busy: int = 0
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    @Request.application
    def __call__(self, request: Request) -> Response:
        content = request.get_data()
        self.seen.append((request.method, request.path, request.query_string.decode()))
        if self.refusal:
            return _error(self.refusal)
        if self.busy:
            self.busy -= 1
            return _error(503)
        if request.path == f"/upload{OBJECTS}":
            return self._upload(request, content)
        if request.path == OBJECTS:
            prefix = request.args.get("prefix", "")
            found = [self._facts(name) for name in sorted(self.objects) if name.startswith(prefix)]
            return _json({"kind": "storage#objects", "items": found})
        return self._one(request)

    def _one(self, request: Request) -> Response:
        name = unquote(request.path.partition(f"{OBJECTS}/")[2])
        if name not in self.objects:
            return _error(404)
        if request.method == "DELETE":
            del self.objects[name]
            return Response(status=204)
        if request.path.startswith("/download/"):
            return Response(self.objects[name])
        return _json(self._facts(name))

    def _upload(self, request: Request, content: bytes) -> Response:
        assert request.args["uploadType"] == "multipart"  # Google's word for one request.
        _, facts, rest = content.split(b"\n\n", 2)
        name = json.loads(facts.split(b"\n")[0])["name"]
        if request.args.get("ifGenerationMatch") == "0" and name in self.objects:
            return _error(412)
        self.objects[name] = rest.rpartition(b"\n--==0==--")[0]
        return _json(self._facts(name))

    def _facts(self, name: str) -> dict[str, str]:
        updated = "2026-01-02T03:04:05.678Z"
        size = str(len(self.objects[name]))
        return {"name": name, "bucket": "reports", "size": size, "updated": updated}


class _Silent(WSGIRequestHandler):
    def log(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    pytest.importorskip("gcsfs")
    bucket = Bucket()
    running = make_server("127.0.0.1", 0, bucket, threaded=True, request_handler=_Silent)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{running.server_port}")
        patched.setenv("NO_GCE_CHECK", "true")
        yield bucket
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def bucket(server: Bucket) -> Bucket:
    server.objects.clear()
    server.seen.clear()
    server.refusal = server.busy = 0
    return server


@pytest.fixture
def storage(bucket: Bucket) -> ObjectStorage:
    return ObjectStorage("gs://reports/run", Patience(tries=2, first=0.01))


def test_whole_objects(storage: ObjectStorage, bucket: Bucket) -> None:
    assert storage.create("samples/a", b"first")
    assert not storage.create("samples/a", b"second")
    assert storage.read("samples/a") == b"first"
    storage.write("samples/a", b"third\n\nline")
    assert storage.read("samples/a") == b"third\n\nline"
    bucket.objects["run-2/x"] = b""
    (entry,) = storage.entries()
    assert (entry.name, entry.bytes, entry.modified) == ("samples/a", 11, 1767323045.678)
    storage.delete("samples/a")
    storage.delete("samples/a")
    assert storage.entries() == []
    with pytest.raises(FileNotFoundError):
        storage.read("samples/a")


def test_the_first_part_stays(storage: ObjectStorage, bucket: Bucket) -> None:
    (shard,) = plan_shards(2, 2)
    store = PartStore(storage, "samples", "print")
    first = store.commit(shard, pa.table({"index": [0, 1]}), {}, {"rank": "a"})
    before = dict(bucket.objects)
    second = store.commit(shard, pa.table({"index": [5, 6]}), {}, {"rank": "b"})
    assert first == second == store.verify_all([shard])[0]
    assert bucket.objects == before


def test_a_busy_store_is_asked_again(storage: ObjectStorage, bucket: Bucket) -> None:
    storage.write("first", b"")
    bucket.busy = 1
    storage.write("a", b"1")
    assert bucket.objects["run/a"] == b"1"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_credential_says_so(storage: ObjectStorage, bucket: Bucket, status: int) -> None:
    bucket.refusal = status
    with pytest.raises(OutputError, match="refuses the credential") as caught:
        storage.write("a", b"1")
    assert "renew" in (caught.value.remedy or "")
    assert bucket.objects == {}
    assert len(bucket.seen) == 1


def _json(content: object) -> Response:
    return Response(json.dumps(content), content_type="application/json")


def _error(status: int) -> Response:
    said = {"error": {"code": status, "message": "no"}}
    return Response(json.dumps(said), status=status, content_type="application/json")
