"""Parts: one Parquet file a shard, whole or absent, with a sidecar that proves it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from audit.errors import OutputError
from audit.storage import Entry, Storage
from audit.telemetry.profiling import span

# Rows that readers of one column, or of one range, have to decode at once.
ROW_GROUP = 50_000
# What a shard is known to be from a listing and its sidecar: committed; a part whose sidecar is
# missing or does not fit; being computed, or given up while it was; never begun.
State = Literal["done", "unproven", "claimed", "missing"]
_DONE: State = "done"
_UNPROVEN: State = "unproven"
_CLAIMED: State = "claimed"
_MISSING: State = "missing"
# Where a part's Parquet metadata says what it is, and the digest of that.
_FACTS, _DIGEST = b"audit.part", b"audit.part.sha256"
_THREADS = 8
_AGAIN = "run the same command again: only these are computed"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A fixed range of the split: samples ``start`` up to, but without, ``stop``."""

    number: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def plan_shards(count: int, shard_size: int) -> list[Shard]:
    """Cut a split into shards; a pure function of its arguments.

    Args:
        count: Samples in the split.
        shard_size: Samples a shard; the last may hold fewer.

    Example:
        >>> [len(s) for s in plan_shards(5, 2)]
        [2, 2, 1]
    """
    starts = range(0, count, shard_size)
    return [
        Shard(number=n, start=start, stop=min(start + shard_size, count))
        for n, start in enumerate(starts)
    ]


class PartStore:
    """The ``samples/`` folder of a run, or another folder of parts.

    Whoever commits a shard first wins: a later writer finds a whole part and leaves it. The
    sidecar is a function of the part's bytes but for who made it, so that whoever finds a part
    without one can write it.

    Args:
        storage: The run's folder.
        folder: Of the parts, in the run's.
        fingerprint: Of the run; parts of another run are not accepted.

    Example:
        >>> from audit.storage import open_storage
        >>> store = PartStore(open_storage(tmp), "samples", "4f2a")
        >>> (shard,) = plan_shards(2, 2)
        >>> sidecar = store.commit(shard, pa.table({"index": [0, 1]}), {"statuses": {"ok": 2}}, {})
        >>> sidecar["rows"], store.look([shard]), store.read_part(shard)["index"].to_pylist()
        (2, {0: 'done'}, [0, 1])
    """

    def __init__(self, storage: Storage, folder: str, fingerprint: str) -> None:
        self._storage = storage
        self._folder = folder
        self._fingerprint = fingerprint

    def part(self, shard: Shard) -> str:
        """Where a shard's rows are, relative to the run."""
        return f"{self._folder}/part-{shard.number:06d}.parquet"

    def names(self, shards: Sequence[Shard], extras: Sequence[str] = ()) -> list[str]:
        """The files of these shards, relative to the run.

        Args:
            shards: Which.
            extras: Suffixes of side files that each has.
        """
        kinds = ["json", *extras]
        return [
            name for s in shards for name in (self.part(s), *(self._beside(s, k) for k in kinds))
        ]

    def commit(
        self,
        shard: Shard,
        table: pa.Table,
        summary: Mapping[str, Any],
        worker: Mapping[str, Any],
        extras: Mapping[str, bytes] | None = None,
    ) -> dict[str, Any]:
        """Store a shard's rows, unless somebody has, then the sidecar that vouches for them.

        Args:
            shard: Which.
            table: Its rows, one a sample.
            summary: Counts that later tables need; JSON-serialisable.
            worker: Who computed it, when and for how long; for people.
            extras: Side files by suffix.

        Returns:
            The sidecar that is there now; of another writer's part where that came first.

        Raises:
            OutputError: If it cannot be written; nothing then looks finished.
        """
        extras = extras or {}
        with span("encode"):
            ours = self._encode(shard, table, summary, extras)
        kept: bytes | None = ours
        if not self._storage.create(self.part(shard), ours):
            theirs = self._read(self.part(shard))
            if self._is_whole(shard, theirs, self._sidecar(shard), extras):
                kept = theirs
            else:
                self._storage.write(self.part(shard), ours)
        facts = self._facts(shard, kept)
        for suffix, content in extras.items():
            if facts["extras"].get(suffix) == _proof(content):
                self._put(self._beside(shard, suffix), content)
        return self._vouch(shard, facts, worker)

    def verified(self, shard: Shard) -> dict[str, Any] | None:
        """The sidecar of a shard whose part is whole, else ``None``.

        A whole part without a sidecar that fits gets one: its writer was killed in between.

        Raises:
            OutputError: If the store refuses or does not answer.
        """
        content = self._read(self.part(shard))
        sidecar = self._sidecar(shard)
        facts = self._facts(shard, content)
        if sidecar is not None and facts and _without_worker(sidecar) == facts:
            return sidecar if self._has_extras(shard, facts["extras"]) else None
        whole = self._is_whole(shard, content, sidecar, {})
        return self._vouch(shard, facts, {}) if whole else None

    def verified_all(self, shards: Sequence[Shard]) -> list[dict[str, Any] | None]:
        """As :meth:`verified`, for many shards at a time; in their order."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(self.verified, shards))

    def verify_all(self, shards: Sequence[Shard]) -> list[dict[str, Any]]:
        """The sidecars of all shards.

        Raises:
            OutputError: If a part is missing or damaged, or has other columns than the others.
        """
        found = self.verified_all(shards)
        bad = [s.number for s, sidecar in zip(shards, found, strict=True) if sidecar is None]
        if bad:
            raise OutputError(
                f"{len(bad)} of {len(shards)} parts in {self._place} do not verify",
                found="parts " + ", ".join(map(str, bad[:10])),
                remedy=_AGAIN,
            )
        sidecars = [sidecar for sidecar in found if sidecar is not None]
        if len({sidecar["schema"] for sidecar in sidecars}) > 1:
            raise OutputError(
                f"the parts in {self._place} do not have the same columns",
                remedy="remove the folder and run the same command again",
            )
        return sidecars

    def look(self, shards: Sequence[Shard]) -> dict[int, State]:
        """What is known of shards without reading their rows.

        One listing, and a read of each sidecar; that sizes fit does not prove the content.

        Returns:
            The state of each, by number.
        """
        sizes = self._sizes()
        with ThreadPoolExecutor(_THREADS) as threads:
            states = threads.map(lambda shard: self._state(shard, sizes), shards)
            return {shard.number: state for shard, state in zip(shards, states, strict=True)}

    def sidecars(self, shards: Sequence[Shard]) -> dict[int, dict[str, Any]]:
        """What the sidecars say that can be read, by number; the parts are not looked at."""
        with ThreadPoolExecutor(_THREADS) as threads:
            found = zip(shards, threads.map(self._sidecar, shards), strict=True)
            return {shard.number: sidecar for shard, sidecar in found if sidecar is not None}

    def claim(self, shard: Shard) -> dict[str, Any]:
        """Tell people who computes a shard. Nobody is kept from computing it as well.

        Returns:
            What is told: host, process, boot of the machine, when, and how many attempts there
            were, this and those that ended without :meth:`release`.
        """
        before = self._json(self._beside(shard, "claim"))
        attempt = (before or {}).get("attempt", 0)
        content = {
            **this_process(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "attempt": attempt + 1 if isinstance(attempt, int) else 1,
        }
        self._storage.write(self._beside(shard, "claim"), _text(content))
        return content

    def release(self, shard: Shard) -> None:
        """Take a claim back."""
        self._storage.delete(self._beside(shard, "claim"))

    def claims(self) -> dict[int, dict[str, Any]]:
        """All claims, by the shard's number; also those of processes that were killed."""
        found = {}
        for entry in self._storage.entries(self._folder):
            number, _, suffix = _file_of(entry).removeprefix("_part-").partition(".")
            if suffix == "claim" and number.isdigit():
                content = self._json(entry.name)
                if content is not None:
                    found[int(number)] = content
        return found

    def read_part(self, shard: Shard) -> pa.Table:
        """A shard's rows.

        Raises:
            OutputError: If there is no such part, or it is damaged.
        """
        table = _decoded(self._read(self.part(shard)))
        if table is None:
            raise OutputError(
                f"{self._storage.place}/{self.part(shard)} cannot be read", remedy=_AGAIN
            )
        return table.replace_schema_metadata(_other_metadata(table.schema))

    def read_extra(self, shard: Shard, suffix: str) -> bytes:
        """A side file of a part.

        Raises:
            OutputError: If there is none.
        """
        name = self._beside(shard, suffix)
        content = self._read(name)
        if content is None:
            raise OutputError(f"{self._storage.place}/{name} is missing", remedy=_AGAIN)
        return content

    @property
    def _place(self) -> str:
        return f"{self._storage.place}/{self._folder}"

    def _beside(self, shard: Shard, suffix: str) -> str:
        # Readers of a folder of Parquet files skip names that begin with an underscore.
        return f"{self._folder}/_part-{shard.number:06d}.{suffix}"

    def _encode(
        self,
        shard: Shard,
        table: pa.Table,
        summary: Mapping[str, Any],
        extras: Mapping[str, bytes],
    ) -> bytes:
        if table.num_rows != len(shard):
            raise ValueError(f"{table.num_rows} rows for a shard of {len(shard)}")
        facts = _text(
            {
                "fingerprint": self._fingerprint,
                "shard": shard.number,
                "start": shard.start,
                "stop": shard.stop,
                "extras": {suffix: _proof(extras[suffix]) for suffix in sorted(extras)},
                "summary": dict(summary),
            }
        )
        told = {_FACTS: facts, _DIGEST: hashlib.sha256(facts).hexdigest().encode()}
        buffer = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata(_other_metadata(table.schema) | told),
            buffer,
            compression="zstd",
            # Floating-point numbers hardly repeat: a dictionary of them takes time and space.
            use_dictionary=[path for field in table.schema for path in _repeating(field)],
            row_group_size=ROW_GROUP,
            write_page_checksum=True,
        )
        return buffer.getvalue().to_pybytes()

    def _facts(self, shard: Shard, content: bytes | None) -> dict[str, Any]:
        """What a part says of itself: its sidecar but for ``worker``; empty if it is not one."""
        try:
            # Not by the metadata's own schema: the two hold each other, and a quarter of a
            # megabyte a part stays until the interpreter looks for such circles.
            with pq.ParquetFile(pa.BufferReader(content or b"")) as file:
                found, schema = file.metadata, file.schema_arrow
            metadata = schema.metadata or {}
            if hashlib.sha256(metadata[_FACTS]).hexdigest().encode() != metadata[_DIGEST]:
                return {}
            told = json.loads(metadata[_FACTS])
        except (pa.ArrowException, OSError, ValueError, KeyError):
            return {}
        expected = (shard.number, shard.start, shard.stop, self._fingerprint, len(shard))
        given = (told["shard"], told["start"], told["stop"], told["fingerprint"], found.num_rows)
        if given != expected:
            return {}
        return {
            **told["summary"],
            "shard": shard.number,
            "start": shard.start,
            "stop": shard.stop,
            "rows": found.num_rows,
            **_proof(content or b""),
            "fingerprint": self._fingerprint,
            "schema": _schema_digest(schema),
            "extras": told["extras"],
        }

    def _is_whole(
        self,
        shard: Shard,
        content: bytes | None,
        sidecar: Mapping[str, Any] | None,
        extras: Mapping[str, bytes],
    ) -> bool:
        """Whether a part decodes, is what its sidecar says, and its side files are there.

        Args:
            shard: Which.
            content: Of the part.
            sidecar: Its, if there is one.
            extras: Side files that are at hand.
        """
        facts = self._facts(shard, content)
        if not facts or _decoded(content) is None:
            return False
        # Not every damaged byte is one that decoding looks at.
        known = sidecar["sha256"] if sidecar and self._is_of(sidecar, shard) else facts["sha256"]
        if known != facts["sha256"]:
            return False
        at_hand = {suffix: _proof(given) for suffix, given in extras.items()}
        return self._has_extras(
            shard, {k: proof for k, proof in facts["extras"].items() if at_hand.get(k) != proof}
        )

    def _is_of(self, sidecar: Mapping[str, Any], shard: Shard) -> bool:
        expected = (self._fingerprint, shard.start, shard.stop)
        given = tuple(sidecar.get(name) for name in ("fingerprint", "start", "stop"))
        return given == expected and "sha256" in sidecar

    def _has_extras(self, shard: Shard, proofs: Mapping[str, Any]) -> bool:
        for suffix, proof in proofs.items():
            content = self._read(self._beside(shard, suffix))
            if content is None or _proof(content) != proof:
                return False
        return True

    def _vouch(
        self, shard: Shard, facts: Mapping[str, Any], worker: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write a part's sidecar unless there is one that fits."""
        ours = {**facts, "worker": dict(worker)}
        name = self._beside(shard, "json")
        if not self._storage.create(name, _text(ours)):
            theirs = self._json(name)
            if theirs is not None and _without_worker(theirs) == facts:
                return theirs
            self._storage.write(name, _text(ours))
        return ours

    def _put(self, name: str, content: bytes) -> None:
        if not self._storage.create(name, content) and self._read(name) != content:
            self._storage.write(name, content)

    def _state(self, shard: Shard, sizes: Mapping[str, int]) -> State:
        size = sizes.get(_name_of(self.part(shard)))
        if size is None:
            claimed = _name_of(self._beside(shard, "claim")) in sizes
            return _CLAIMED if claimed else _MISSING
        with_sidecar = _name_of(self._beside(shard, "json")) in sizes
        sidecar = self._sidecar(shard) if with_sidecar else None
        if sidecar is None:
            return _UNPROVEN
        extras = sidecar.get("extras", {})
        fits = (
            sidecar.get("bytes") == size
            and self._is_of(sidecar, shard)
            and all(
                sizes.get(_name_of(self._beside(shard, suffix))) == proof["bytes"]
                for suffix, proof in extras.items()
            )
        )
        return _DONE if fits else _UNPROVEN

    def _sizes(self) -> dict[str, int]:
        return {_file_of(entry): entry.bytes for entry in self._storage.entries(self._folder)}

    def _sidecar(self, shard: Shard) -> dict[str, Any] | None:
        return self._json(self._beside(shard, "json"))

    def _json(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads(self._storage.read(name))
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _read(self, name: str) -> bytes | None:
        try:
            return self._storage.read(name)
        except FileNotFoundError:
            return None


def this_process() -> dict[str, Any]:
    """Which process of which machine this is, for people.

    Returns:
        Host, number of the process, and the identity of the machine's boot where it has one.

    Example:
        >>> this_process()["pid"] == os.getpid()
        True
    """
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return {"host": socket.gethostname(), "pid": os.getpid(), "boot": boot}


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _proof(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _without_worker(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sidecar.items() if name != "worker"}


def _decoded(content: bytes | None) -> pa.Table | None:
    """The rows of a part, whose pages' checksums are looked at; ``None`` if it is damaged."""
    try:
        reader = pa.BufferReader(content or b"")
        table = pq.ParquetFile(reader, page_checksum_verification=True).read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return table


def _repeating(field: pa.Field) -> Iterator[str]:
    """The path of a column whose values repeat, as Parquet names it; none for fractions.

    Example:
        >>> list(_repeating(pa.field("a", pa.list_(pa.int32()))))
        ['a.list.element']
        >>> list(_repeating(pa.field("b", pa.list_(pa.float16()))))
        []
    """
    listed = pa.types.is_list(field.type)
    kind = field.type.value_type if listed else field.type
    if not pa.types.is_floating(kind):
        yield f"{field.name}.list.element" if listed else field.name


def _schema_digest(schema: pa.Schema) -> str:
    """Of names, types and order of columns."""
    lines = [f"{field.name}: {field.type}, {field.nullable}" for field in schema]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _other_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    return {k: v for k, v in (schema.metadata or {}).items() if k not in (_FACTS, _DIGEST)}


def _file_of(entry: Entry) -> str:
    return _name_of(entry.name)


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]
