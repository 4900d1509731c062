"""An object store on this machine: moto's, behind a front that can be told to misbehave."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

BUCKET = "reports"
_ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'


@dataclass
class Front:
    """Passes requests on to the store, or not.

    Attributes:
        application: The store's.
        busy: How many requests of each method and object are answered with 503.
        refusal: The code that everything is refused with; none if empty.
        lost: How many writes of each object are done, and answered with 500.
        ignores_condition: Whether writes lose their "only if there is none".
        knows_condition: Whether a write with a condition is answered with 501.
        exact: Whether writes come one after the other; moto itself looks, then writes.
        seen: Method, path and query of every request.
    """

    application: Callable[..., Iterable[bytes]]
    busy: int = 0
    refusal: str = ""
    lost: int = 0
    ignores_condition: bool = False
    knows_condition: bool = True
    exact: bool = False
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    _told: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.seen.append((method, path, environ.get("QUERY_STRING", "")))
        self._told[method, path] += 1
        trouble = self._trouble(environ, self._told[method, path])
        if trouble is not None:
            return _answer(environ, start, *trouble)
        if self.ignores_condition:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if method != "PUT":
            return self.application(environ, start)
        with self._lock if self.exact else nullcontext():
            if self._told[method, path] > self.lost:
                return list(self.application(environ, start))
            b"".join(self.application(environ, lambda *_: None))
        environ["CONTENT_LENGTH"] = "0"  # It was read.
        return _answer(environ, start, "500 Internal Server Error", "InternalError", "Lost.")

    def _trouble(self, environ: dict[str, Any], count: int) -> tuple[str, str, str] | None:
        """Status, code and words of a request that is not passed on."""
        if self.refusal:
            status = "400 Bad Request" if self.refusal == "ExpiredToken" else "403 Forbidden"
            return status, self.refusal, "The provided one is no good."
        if count <= self.busy:
            return "503 Slow Down", "SlowDown", "Please reduce your request rate."
        if "HTTP_IF_NONE_MATCH" in environ and not self.knows_condition:
            return "501 Not Implemented", "NotImplemented", "A header implies more."
        return None

    def behave(self) -> None:
        """Be a good store again, and forget what was seen."""
        self.busy = self.lost = 0
        self.refusal = ""
        self.ignores_condition = self.exact = False
        self.knows_condition = True
        self.seen.clear()
        self._told.clear()


@dataclass(frozen=True)
class ObjectServer:
    """A running store with an empty bucket, whose address the environment has."""

    address: tuple[str, int]
    front: Front


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Run a store on 127.0.0.1 and name it in the environment."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    front = Front(DomainDispatcherApplication(create_backend_app))
    server = make_server(
        "127.0.0.1", 0, front, threaded=True, request_handler=_silent(MotoRequestHandler)
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = ("127.0.0.1", server.server_port)
    before = dict(os.environ)
    os.environ.update(settings_of(address))
    try:
        make_bucket(BUCKET)
        front.behave()
        yield ObjectServer(address, front)
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.shutdown()
        server.server_close()
        thread.join()


def settings_of(address: tuple[str, int]) -> dict[str, str]:
    """The environment of a process that uses a store, and nothing else of its user's."""
    return {
        "AWS_ENDPOINT_URL": f"http://{address[0]}:{address[1]}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def make_bucket(name: str) -> None:
    """Create a bucket in the store that the environment names."""
    import fsspec

    # The store lives in this process, and other modules' buckets with it.
    with suppress(FileExistsError):
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)


class StallingProxy:
    """Passes bytes on to a server, until so many have gone one way; then it waits.

    Attributes:
        stalled: Is set when it waits.
        go_on: Set it to let it go on.
    """

    def __init__(self, server: tuple[str, int], after: int) -> None:
        self.stalled, self.go_on = threading.Event(), threading.Event()
        self._server, self._after, self._passed = server, after, 0
        self._cut = False
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._listening.getsockname()[:2]

    def close(self) -> None:
        """Cut all connections; what was held back is lost."""
        self._cut = True
        self.go_on.set()
        for each in self._sockets:
            with _ignored():
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with _ignored():
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                for source, target, counted in ((client, server, True), (server, client, False)):
                    pump = threading.Thread(
                        target=self._pump, args=(source, target, counted), daemon=True
                    )
                    pump.start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with _ignored():
            while content := source.recv(4096):
                if counted:
                    self._wait_at_limit(len(content))
                target.sendall(content)
        for each, how in ((target, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with _ignored():
                each.shutdown(how)

    def _wait_at_limit(self, count: int) -> None:
        with self._lock:
            self._passed += count
            over = self._passed > self._after
        if over:
            self.stalled.set()
            self.go_on.wait(timeout=60)
            if self._cut:
                raise ConnectionAbortedError


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def _answer(
    environ: dict[str, Any], start: Callable[..., Any], status: str, code: str, words: str
) -> Iterable[bytes]:
    # What was sent has to be read, or the connection breaks.
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    content = b"" if environ["REQUEST_METHOD"] == "HEAD" else _ERROR.format(code, words).encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))])
    return [content]


def _silent(handler: type) -> type:
    return type("Silent", (handler,), {"log": lambda self, *words: None})
