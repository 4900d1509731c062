"""A real HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What a server serves, and how.

    Attributes:
        files: Contents by path, which begins with a slash.
        failing: How often each path is answered with 503 first.
        status: What a path is always answered with.
        hanging: Paths that are never answered.
        cut: Paths whose answers break off in the middle.
        reset: How often the connection of each path is closed without an answer first.
        ranges: Whether parts of files are served.
        seen: Method and path of every request.
        ranges_seen: The header of those for parts.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    failing: Mapping[str, int] = field(default_factory=dict)
    status: Mapping[str, int] = field(default_factory=dict)
    hanging: frozenset[str] = frozenset()
    cut: frozenset[str] = frozenset()
    reset: Mapping[str, int] = field(default_factory=dict)
    ranges: bool = True
    seen: list[tuple[str, str]] = field(default_factory=list)
    ranges_seen: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)
    ended: threading.Event = field(default_factory=threading.Event)
    address: str = ""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *given: object) -> None:
            """Nothing is printed."""

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            site.seen.append((self.command, path))
            site.told[path] += 1
            if path in site.hanging:
                site.ended.wait(20)
                self.close_connection = True
                return
            if site.told[path] <= site.reset.get(path, 0):
                self.close_connection = True
                return
            status = site.status.get(path)
            if site.told[path] <= site.failing.get(path, 0):
                status = 503
            if status is None and path not in site.files:
                status = 404
            if status is not None:
                self._send(status, b"no", 2, body=body)
                return
            whole = site.files[path]
            asked = self.headers.get("Range") if site.ranges else None
            if asked:
                site.ranges_seen.append(asked)
                first, last = asked.removeprefix("bytes=").split("-")
                part = whole[int(first) : int(last) + 1]
                self._send(206, part, len(part), body=body)
            elif path in site.cut:
                self.close_connection = True
                self._send(200, whole[: len(whole) // 2], len(whole), body=body)
            else:
                self._send(200, whole, len(whole), body=body)

        def _send(self, status: int, data: bytes, length: int, *, body: bool) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", f'"{hashlib.md5(data).hexdigest()}"')
            self.end_headers()
            if body:
                self.wfile.write(data)

    return Handler


@contextmanager
def website() -> Iterator[Site]:
    """Serve files on 127.0.0.1 until the block ends."""
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    server.daemon_threads = True
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
