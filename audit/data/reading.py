"""Bytes of files and objects: a time limit and further tries for each, many read at once."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from audit.data.places import NO_NAME, is_uri, reason

T = TypeVar("T")

# What passes by itself, beside time-outs and connections that break: throttling, and the server's
# own trouble.
_PASSING_STATUS = frozenset({408, 425, 429, *range(500, 600)})
# Errors of aiohttp and botocore, by name because neither need be installed.
_PASSING_ERRORS = frozenset(
    {
        "ClientConnectionError",
        "ClientPayloadError",
        "HTTPClientError",
        "IncompleteReadError",
        "ResponseStreamingError",
    }
)
# Pieces of one object that lie this close are read as one, up to so many bytes.
_NEAR = 2**16
_LARGEST = 2**23
_DEEPEST = 8  # causes of an error that are looked at


@dataclass(frozen=True, kw_only=True)
class ReadPolicy:
    """How long and how often an object is asked for. Files by path are read once, without limit.

    Attributes:
        timeout: Seconds for each try.
        tries: How often an object is asked for where the trouble may pass: throttling, answers of
            500 and more, broken connections, time-outs. Others, such as 403 and 404, end at once.
        first_wait: Seconds before the second try at most; a random part of it is waited, and of
            twice, four times … as much before the next ones.
        longest_wait: No wait is longer.
        at_once: Objects asked for at the same time.

    Example:
        >>> ReadPolicy(timeout=5).tries
        4
    """

    timeout: float = 30.0
    tries: int = 4
    first_wait: float = 0.5
    longest_wait: float = 10.0
    at_once: int = 32


class OutOfReach(OSError):
    """A store does not answer, or refuses: its objects may be there all the same."""


class Piece(NamedTuple):
    """Some bytes of a file or object.

    Attributes:
        place: A path or URI.
        start: The first byte.
        stop: One past the last; ``None`` for everything, from 0.
    """

    place: str
    start: int = 0
    stop: int | None = None


class Gathered(NamedTuple):
    """A request, and the pieces that it answers."""

    request: Piece
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads files and objects, and hands out what was read ahead.

    Attributes:
        policy: How long and how often objects are asked for.
        held: What was read ahead, or why it could not be.

    Example:
        >>> import fsspec
        >>> fsspec.filesystem("memory").pipe("/reader/x", b"abcdef")
        >>> reader = Reader().ahead([Piece("memory://reader/x", 2, 4)])
        >>> len(reader.held), reader.read(Piece("memory://reader/x", 2, 4))
        (1, b'cd')
    """

    policy: ReadPolicy = field(default_factory=ReadPolicy)
    held: Mapping[Piece, bytes | OSError] = field(default_factory=dict, repr=False)

    def read(self, piece: Piece) -> bytes:
        """The bytes of one piece.

        Raises:
            OSError: If it cannot be read; a ``FileNotFoundError`` where there is none. Its text
                says how often it was tried.
        """
        found = self.held.get(piece)
        if found is None:
            found = _read_many([piece], self.policy)[0] if is_uri(piece.place) else _local(piece)
        if isinstance(found, OSError):
            raise found
        return found

    def ahead(self, pieces: Iterable[Piece]) -> Reader:
        """The same with all pieces of objects read, several at once; files are read when asked.

        Args:
            pieces: What will be asked for. Neighbours in one object are read as one.

        Returns:
            A reader that holds their bytes, and nothing else.
        """
        remote = gathered(dict.fromkeys(piece for piece in pieces if is_uri(piece.place)))
        answers = _read_many([one.request for one in remote], self.policy) if remote else []
        held: dict[Piece, bytes | OSError] = {}
        for (request, parts), answer in zip(remote, answers, strict=True):
            for part in parts:
                if isinstance(answer, OSError) or part.stop is None:
                    held[part] = answer
                else:
                    held[part] = answer[part.start - request.start : part.stop - request.start]
        return replace(self, held=held)


def read_bytes(place: str, reader: Reader | None = None) -> bytes:
    """Everything in a file or object.

    Args:
        place: A path, or a URI of any file system that fsspec knows.
        reader: What reads it; ``None`` for the usual limits.

    Returns:
        Its bytes.

    Raises:
        OSError: If it cannot be read; a ``FileNotFoundError`` where there is none.
    """
    return (reader or Reader()).read(Piece(place))


class RangeFile(io.RawIOBase):
    """A file or object as a file object of Python's, each read a request of its own.

    Args:
        place: A path or URI.
        size: Its bytes.
        reader: What reads it.

    Example:
        >>> import fsspec
        >>> fsspec.filesystem("memory").pipe("/reader/y", b"abcdef")
        >>> file = RangeFile("memory://reader/y", 6, Reader())
        >>> file.seek(4), file.read(9), file.read(1)
        (4, b'ef', b'')
    """

    def __init__(self, place: str, size: int, reader: Reader) -> None:
        super().__init__()
        self._place = place
        self._size = size
        self._reader = reader
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position; see :meth:`io.IOBase.seek`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("a position before the file's first byte")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; see :meth:`io.RawIOBase.readinto`."""
        count = max(0, min(len(buffer), self._size - self._at))
        if count:
            buffer[:count] = self._reader.read(Piece(self._place, self._at, self._at + count))
            self._at += count
        return count


def gathered(pieces: Iterable[Piece]) -> list[Gathered]:
    """Join pieces of one object that lie near each other.

    Args:
        pieces: In any order.

    Returns:
        What to ask for, by place and position.

    Example:
        >>> [one.request[1:] for one in gathered([Piece("a", 600, 900), Piece("a", 0, 500)])]
        [(0, 900)]
    """
    found: list[tuple[Piece, list[Piece]]] = []
    for piece in sorted(pieces, key=lambda p: (p.place, p.start, p.stop is None, p.stop or 0)):
        if found:
            before, parts = found[-1]
            joined = _joined(before, piece)
            if joined is not None:
                found[-1] = joined, [*parts, piece]
                continue
        found.append((piece, [piece]))
    return [Gathered(request, tuple(parts)) for request, parts in found]


def _joined(before: Piece, piece: Piece) -> Piece | None:
    if before.place != piece.place or before.stop is None or piece.stop is None:
        return None
    stop = max(before.stop, piece.stop)
    if piece.start > before.stop + _NEAR or stop - before.start > _LARGEST:
        return None
    return Piece(before.place, before.start, stop)


def ask_many(
    calls: Sequence[Callable[[], Awaitable[T]]], policy: ReadPolicy, timeout: float | None
) -> list[T | OSError]:
    """Await several calls of a file system at once, each tried again where its trouble may pass.

    Args:
        calls: Each makes what is awaited for one object.
        policy: How often, and how many at once.
        timeout: Seconds for each try; ``None`` for no limit.

    Returns:
        What each gave, or why it failed, in order.
    """
    from fsspec import asyn

    async def ask_all() -> list[T | OSError]:
        gate = asyncio.Semaphore(policy.at_once)
        return await asyncio.gather(*(_ask(call, policy, timeout, gate) for call in calls))

    # The loop belongs to this process: fsspec makes another after a fork.
    answers: list[T | OSError] = asyn.sync(asyn.get_loop(), ask_all)
    return answers


async def _ask(
    call: Callable[[], Awaitable[T]],
    policy: ReadPolicy,
    timeout: float | None,
    gate: asyncio.Semaphore,
) -> T | OSError:
    from tenacity import (
        AsyncRetrying,
        retry_if_exception,
        stop_after_attempt,
        wait_random_exponential,
    )

    async def ask_once() -> T:
        async with gate:
            return await asyncio.wait_for(call(), timeout)

    retrying = AsyncRetrying(
        stop=stop_after_attempt(policy.tries),
        wait=wait_random_exponential(multiplier=policy.first_wait, max=policy.longest_wait),
        retry=retry_if_exception(may_pass),
        reraise=True,
    )
    try:
        return await retrying(ask_once)
    except FileNotFoundError as error:
        return error
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own
        tries = int(retrying.statistics["attempt_number"])
        often = "once" if tries == 1 else f"{tries} times"
        return OutOfReach(f"{_in_words(error, timeout)} (asked {often})")


def may_pass(error: BaseException) -> bool:
    """Whether the same request may do better a little later.

    Example:
        >>> may_pass(TimeoutError()), may_pass(PermissionError()), may_pass(ConnectionResetError())
        (True, False, True)
    """
    status = _status(error)
    if status is not None:
        return status in _PASSING_STATUS
    return any(map(_breaks, _causes(error)))


def _breaks(error: BaseException) -> bool:
    """Whether an error is that of a connection, or of time."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, TimeoutError | ConnectionError | EOFError) or bool(
        _PASSING_ERRORS & names
    )


def system_of(place: str, policy: ReadPolicy) -> tuple[Any, str]:
    """Fsspec's file system for a URI, and the path in it.

    It is asked for anew by each process, and makes no further tries of its own where that can be
    said: they would multiply with ours.
    """
    import fsspec

    protocol = place.partition("://")[0]
    if protocol not in ("s3", "s3a"):
        found: tuple[Any, str] = fsspec.core.url_to_fs(place)
        return found
    config = {
        "retries": {"total_max_attempts": 1},
        "read_timeout": policy.timeout,
        "connect_timeout": policy.timeout,
        "max_pool_connections": policy.at_once,
    }
    own = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
    # More than one would ask for an object's size before its bytes.
    system, path = fsspec.core.url_to_fs(place, max_concurrency=1, config_kwargs=config | own)
    system.retries = 1
    return system, path


def awaited(system: Any, name: str, *given: Any, **named: Any) -> Awaitable[Any]:
    """A method of a file system, in a thread where it is not asynchronous."""
    from fsspec import asyn

    if system.async_impl and system.loop is asyn.get_loop():
        answer: Awaitable[Any] = getattr(system, f"_{name}")(*given, **named)
        return answer
    return asyncio.to_thread(getattr(system, name), *given, **named)


def _read_many(pieces: Sequence[Piece], policy: ReadPolicy) -> list[bytes | OSError]:
    return ask_many([_reading(piece, policy) for piece in pieces], policy, policy.timeout)


def _reading(piece: Piece, policy: ReadPolicy) -> Callable[[], Awaitable[bytes]]:
    # Not in the call: file systems differ from thread to thread.
    found: tuple[Any, str] | Exception
    try:
        found = system_of(piece.place, policy)
    except Exception as error:  # noqa: BLE001 - a URI that its file system cannot take apart
        found = error

    async def read() -> bytes:
        if isinstance(found, Exception):
            raise found
        system, path = found
        if piece.stop == piece.start:
            return b""  # S3 has no range of nothing
        if piece.stop is None:
            return bytes(await awaited(system, "cat_file", path))
        data = await awaited(system, "cat_file", path, start=piece.start, end=piece.stop)
        return _whole(bytes(data), piece.stop - piece.start)

    return read


def _whole(data: bytes, wanted: int) -> bytes:
    if len(data) < wanted:
        raise EOFError(f"{len(data)} of {wanted} bytes came")
    if len(data) > wanted:
        raise OSError(f"{len(data)} bytes came where {wanted} were asked for: no ranges are served")
    return data


def _local(piece: Piece) -> bytes:
    try:
        if piece.stop is None:
            return Path(piece.place).read_bytes()
        with Path(piece.place).open("rb") as file:
            file.seek(piece.start)
            return _whole(file.read(piece.stop - piece.start), piece.stop - piece.start)
    except ValueError as error:
        raise OSError(NO_NAME) from error
    except EOFError as error:
        raise OSError(str(error)) from error


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while chain[-1].__cause__ is not None and len(chain) < _DEEPEST:
        chain.append(chain[-1].__cause__)
    return chain


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of aiohttp, botocore or gcsfs carries."""
    for each in _causes(error):
        if _breaks(each):
            return None  # its causes are the client's own affairs, with codes of their own
        answer = getattr(each, "response", None)
        if isinstance(answer, Mapping):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(each, "status", None) or getattr(each, "code", None)
        if str(status).isdigit() and 100 <= int(str(status)) < 600:
            return int(str(status))
    return None


def _in_words(error: Exception, timeout: float | None) -> str:
    """Why an object could not be read, without its address, which may hold a signature."""
    status = _status(error)
    if status is not None:
        known = status in {each.value for each in HTTPStatus}
        return f"HTTP status {status}" + (f", {HTTPStatus(status).phrase}" if known else "")
    if isinstance(error, TimeoutError):
        return "no answer" if timeout is None else f"no answer within {timeout:g} s"
    if type(error).__name__ == "ClientPayloadError":
        return "the answer broke off"
    said = reason(error) if isinstance(error, OSError) else str(error).partition("\n")[0]
    said = re.sub(r"\?\S*", "?…", said)
    return said if type(error) in (OSError, EOFError) else f"{type(error).__name__}: {said}"
