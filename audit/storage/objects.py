"""A prefix of a bucket of an object store."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from audit.errors import AuditError, ConfigError, OutputError
from audit.storage.protocol import Entry, plain_name
from audit.storage.trouble import Patience, Unsupported, patiently

_Result = TypeVar("_Result")

# The package and the extra of each scheme.
_PACKAGES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}
# What a store takes in one request; as the size of a chunk, it rules chunks out.
LARGEST = 5 * 2**30


class ObjectStorage:
    """Whole objects under a prefix; each is written by one request.

    Endpoint, region and credentials come from where the store's own tools take them, for example
    ``AWS_ENDPOINT_URL`` or ``GOOGLE_APPLICATION_CREDENTIALS``.

    Args:
        url: ``s3://bucket/prefix`` or ``gs://bucket/prefix``.
        patience: With a busy store.

    Raises:
        ConfigError: If the URL is not one of these, or its package is not installed.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        scheme, _, rest = url.partition("://")
        self._scheme = scheme.lower()
        self._root = rest.strip("/")
        self.place = f"{scheme}://{self._root}"
        self._patience = _shortened(patience or Patience(), self._scheme)
        self._opening = threading.Lock()
        self._opened: tuple[int, Any] | None = None
        # Whether the store keeps to "only if there is none"; not known before the first object.
        self._keeps_first: bool | None = None
        _check(self._scheme, rest, url)

    def __repr__(self) -> str:
        return f"ObjectStorage({self.place!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ObjectStorage, (self.place, self._patience)

    def read(self, name: str) -> bytes:
        """See :class:`audit.storage.Storage`."""
        path = self._path(name)
        content = self._ask(lambda: self._files.cat_file(path), name)
        return bytes(content)

    def create(self, name: str, content: bytes) -> bool:
        """See :class:`audit.storage.Storage`.

        The first object is sent twice. A store that takes it twice does not know the condition;
        from then on it is asked before whether there is such an object, and afterwards whose it
        is. Of two writers at the same moment the later one then wins.
        """
        self._check_size(name, content)
        if self._keeps_first is not True and self._exists(name):
            return False
        if self._keeps_first is not False:
            try:
                made = self._put_first(name, content)
                if made and self._keeps_first is None:
                    self._keeps_first = not self._put_first(name, content, again=True)
            except Unsupported:
                self._keeps_first = False
            else:
                return made
        self._put(name, content)
        return self._holds(name, content)

    def write(self, name: str, content: bytes) -> None:
        """See :class:`audit.storage.Storage`."""
        self._check_size(name, content)
        self._put(name, content)

    def delete(self, name: str) -> None:
        """See :class:`audit.storage.Storage`."""
        path = self._path(name)
        try:
            self._ask(lambda: self._files.rm_file(path), name)
        except FileNotFoundError:
            return

    def entries(self, folder: str = "") -> list[Entry]:
        """See :class:`audit.storage.Storage`."""
        top = self._path(folder) if folder else self._root
        try:
            found = self._ask(lambda: self._files.find(top, detail=True), folder)
        except FileNotFoundError:
            return []
        below = len(self._root) + 1
        return sorted(
            (
                Entry(name=path[below:], bytes=int(facts["size"]), modified=_seconds(facts))
                for path, facts in found.items()
                if path.startswith(f"{top}/") and not path.endswith("/")
            ),
            key=lambda entry: entry.name,
        )

    def clean(self) -> None:
        """Nothing to do: an object that was not sent whole is not there, nor a part of it."""

    @property
    def _files(self) -> Any:
        # What fsspec opens is not for a forked process.
        with self._opening:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = os.getpid(), _open(self._scheme, self._patience)
            return self._opened[1]

    def _path(self, name: str) -> str:
        return f"{self._root}/{plain_name(name)}"

    def _ask(self, call: Callable[[], _Result], name: str) -> _Result:
        place = f"{self.place}/{name}" if name else self.place
        return patiently(call, place, self._patience)

    def _put(self, name: str, content: bytes, **how: str) -> None:
        path = self._path(name)
        try:
            self._ask(
                lambda: self._files.pipe_file(path, content, chunksize=LARGEST + 1, **how), name
            )
        except FileNotFoundError as error:  # Of an object that is written, only the bucket can be.
            raise _no_bucket(self.place) from error

    def _put_first(self, name: str, content: bytes, *, again: bool = False) -> bool:
        """Write an object that is not there; whether that was so."""
        path, tries = self._path(name), 0

        def once() -> None:
            nonlocal tries
            tries += 1
            self._files.pipe_file(path, content, chunksize=LARGEST + 1, mode="create")

        try:
            self._ask(once, name)
        except FileNotFoundError as error:
            raise _no_bucket(self.place) from error
        except FileExistsError:
            # A try whose answer was lost may have written it. (gcsfs tries again by itself.)
            lost = not again and (tries > 1 or self._scheme != "s3")
            return lost and self._holds(name, content)
        return True

    def _holds(self, name: str, content: bytes) -> bool:
        try:
            return self.read(name) == content
        except FileNotFoundError:
            return False

    def _exists(self, name: str) -> bool:
        path = self._path(name)
        try:
            self._ask(lambda: self._files.info(path), name)
        except (AuditError, FileNotFoundError):
            # An answer to HEAD has no words; what is wrong, the writing will tell.
            return False
        return True

    def _check_size(self, name: str, content: bytes) -> None:
        if len(content) > LARGEST:
            raise OutputError(
                f"{self.place}/{name} is too large for one request",
                expected="at most 5 GiB",
                found=f"{len(content) / 2**30:.1f} GiB",
                remedy="give a smaller --shard-size",
            )


def _check(scheme: str, rest: str, url: str) -> None:
    if scheme not in _PACKAGES or not rest.partition("/")[0]:
        raise ConfigError(
            f"'{url}' does not name a place to keep runs in",
            expected="a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
        )
    package, extra = _PACKAGES[scheme]
    if any(importlib.util.find_spec(name) is None for name in (package, "tenacity")):
        raise ConfigError(
            f"{scheme}:// needs the packages {package} and tenacity",
            remedy=f"pip install 'audit[{extra}]'",
        )


def _open(scheme: str, patience: Patience) -> Any:
    import fsspec

    # A listing that was kept would hide what others write.
    fresh = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme != "s3":
        # It logs whole tracebacks of what is told in a line.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        return fsspec.filesystem("gs", **fresh)
    config = {
        "retries": {"total_max_attempts": 1},
        "connect_timeout": patience.connect,
        "read_timeout": patience.answer,
    }
    # One connection an object: an object is read by one request as well.
    files = fsspec.filesystem("s3", **fresh, max_concurrency=1, config_kwargs=config)
    files.retries = 1  # Of s3fs itself; one place here decides how often.
    return files


def _shortened(patience: Patience, scheme: str) -> Patience:
    # gcsfs itself tries six times in half a minute, and cannot be told not to.
    return patience if scheme == "s3" else replace(patience, tries=min(patience.tries, 2))


def _no_bucket(place: str) -> OutputError:
    return OutputError(
        f"the bucket of {place} does not exist", remedy="create it, or name another with --out"
    )


def _seconds(facts: dict[str, Any]) -> float:
    """When an object was last written."""
    moment = facts.get("LastModified", facts.get("mtime", facts.get("updated")))
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment.timestamp() if isinstance(moment, datetime) else float(moment or 0)
