"""What stands for the content of many files and objects: digests, or what a listing tells."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from audit.data.places import NO_NAME, is_uri, reason
from audit.data.reading import Reader, ReadPolicy, ask_many, awaited, read_bytes, system_of
from audit.files import sha256_of

# How a fingerprint came about, for the run's facts.
BY_LISTING = "digest of listing"
BY_MANIFEST = "digest of manifest"
# Above so many samples files are not read for their digest, and above so many not even listed.
MOST_READ = 200_000
MOST_LISTED = 2_000_000
# Digests in flight at once: a million waiting tasks would take a gigabyte.
_AT_ONCE = 4096
# Fewer objects of a folder are asked for one by one: the folder may hold many more.
_WORTH_LISTING = 100
# What file systems call a digest of the content, or what changes with every write; then a time.
_VERSIONS = ("md5Hash", "content_md5", "Content-MD5", "ETag", "etag", "generation")
_TIMES = ("LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modified",
          "created")  # fmt: skip


class Stamp(NamedTuple):
    """What a store tells of an object without its bytes.

    Attributes:
        size: Its bytes; -1 where that is unknown.
        version: An ETag or the like, else when it was written; empty where neither is told.
    """

    size: int
    version: str


def listing_facts(count: int, *, remote: bool) -> dict[str, object]:
    """What a run's facts say of a fingerprint of so many files.

    Args:
        count: Samples.
        remote: Whether some lie in a store.

    Returns:
        Nothing where it covers their content; else that it is a :data:`BY_LISTING`.

    Example:
        >>> listing_facts(500, remote=False), listing_facts(500, remote=True)
        ({}, {'data_fingerprint': 'digest of listing'})
    """
    return {"data_fingerprint": BY_LISTING} if remote or count > MOST_READ else {}


def identities(places: Iterable[str], count: int, reader: Reader | None = None) -> Iterator[str]:
    """What stands for the content of each of many files and objects, in order.

    Args:
        places: Paths and URIs.
        count: How many samples they are; above :data:`MOST_READ` no file is read.
        reader: Reads what a store tells nothing of.

    Yields:
        For a file its SHA-256 (of many samples its size and time), for an object its size and
        ETag (or time, or SHA-256); else why there is nothing.
    """
    reader = reader or Reader()
    names = list(places)
    listed = names if count > MOST_READ else [name for name in names if is_uri(name)]
    known = stamps(listed, reader.policy)
    waiting = iter(names)
    with ThreadPoolExecutor() as pool:
        while some := list(itertools.islice(waiting, _AT_ONCE)):
            yield from pool.map(lambda name: _identity(name, known.get(name), reader), some)


def stamps(places: Iterable[str], policy: ReadPolicy) -> dict[str, Stamp | OSError]:
    """What stores tell of objects, a listing for each folder with many of them.

    Args:
        places: Paths and URIs.
        policy: How long and how often they are asked.

    Returns:
        For each place its stamp, or why there is none.
    """
    found: dict[str, Stamp | OSError] = {}
    folders: dict[str, list[str]] = defaultdict(list)
    for place in dict.fromkeys(places):
        if is_uri(place):
            folders[place.rpartition("/")[0]].append(place)
        else:
            found[place] = _local_stamp(place)
    found |= _listed(
        {folder: names for folder, names in folders.items() if len(names) > _WORTH_LISTING}, policy
    )
    left = [place for names in folders.values() for place in names if place not in found]
    calls = [_call(place, policy, "info") for place in left]
    for place, told in zip(left, ask_many(calls, policy, policy.timeout) if left else [],
                           strict=True):  # fmt: skip
        found[place] = told if isinstance(told, OSError) else _stamp(told)
    return found


def _listed(folders: Mapping[str, list[str]], policy: ReadPolicy) -> dict[str, Stamp | OSError]:
    """The stamps of objects in folders that can be listed; others are left out."""
    if not folders:
        return {}
    # A listing is many requests, each with the file system's own limit of time.
    calls = [_call(folder, policy, "ls", detail=True) for folder in folders]
    found: dict[str, Stamp | OSError] = {}
    for names, told in zip(folders.values(), ask_many(calls, policy, None), strict=True):
        if isinstance(told, OSError):
            continue
        held = {entry["name"]: entry for entry in told}
        for place in names:
            path = system_of(place, policy)[1]
            if path in held and (stamp := _stamp(held[path])).version:
                found[place] = stamp
    return found


def _call(
    place: str, policy: ReadPolicy, name: str, **named: object
) -> Callable[[], Awaitable[Any]]:
    found: tuple[Any, str] | Exception
    try:
        found = system_of(place, policy)
        found[0].invalidate_cache()
    except Exception as error:  # noqa: BLE001 - a URI that its file system cannot take apart
        found = error

    async def ask() -> Any:
        if isinstance(found, Exception):
            raise found
        system, path = found
        return await awaited(system, name, path, **named)

    return ask


def _stamp(told: Mapping[str, Any]) -> Stamp:
    """What a file system's entry says.

    Example:
        >>> _stamp({"name": "x", "size": 3, "ETag": '"abc"', "mtime": 7.0})
        Stamp(size=3, version='"abc"')
    """
    size = told.get("size")
    version = next((told[name] for name in (*_VERSIONS, *_TIMES) if told.get(name)), "")
    return Stamp(-1 if size is None else int(size), str(version))


def _local_stamp(place: str) -> Stamp | OSError:
    try:
        found = os.stat(place)  # noqa: PTH116 - Path would drop surrogates of odd names
    except OSError as error:
        return error
    except ValueError:
        return OSError(NO_NAME)
    return Stamp(found.st_size, str(found.st_mtime_ns))


def _identity(place: str, stamp: Stamp | OSError | None, reader: Reader) -> str:
    try:
        if isinstance(stamp, OSError):
            raise stamp
        if stamp is not None and stamp.version:
            return f"{stamp.size} {stamp.version}"
        if is_uri(place):
            return hashlib.sha256(read_bytes(place, reader)).hexdigest()
        return sha256_of(Path(place))
    except OSError as error:
        return f"unreadable: {reason(error)}"
    except ValueError:
        return f"unreadable: {NO_NAME}"
