"""Parts: one Parquet file a shard, whole or absent, with a sidecar that proves it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audit.errors import OutputError
from audit.files import make_folder, write_atomically


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
    """The ``samples/`` folder of a run.

    Args:
        folder: Is created.
        fingerprint: Of the run; parts of another run are not accepted.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = make_folder(folder)
        self._fingerprint = fingerprint

    def part(self, shard: Shard) -> Path:
        """Where a shard's rows are."""
        return self._folder / f"part-{shard.number:06d}.parquet"

    def write(self, shard: Shard, table: pa.Table, summary: Mapping[str, Any]) -> None:
        """Store a shard's rows, then the sidecar that vouches for them.

        Args:
            shard: Which.
            table: Its rows, one a sample.
            summary: Counts that later tables need; JSON-serialisable.

        Raises:
            OutputError: If it cannot be written; nothing then looks finished.
        """
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        content = buffer.getvalue().to_pybytes()
        write_atomically(self.part(shard), content)
        sidecar = {
            "shard": shard.number,
            "start": shard.start,
            "stop": shard.stop,
            "rows": table.num_rows,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "fingerprint": self._fingerprint,
            **summary,
        }
        write_atomically(self._sidecar(shard), (json.dumps(sidecar) + "\n").encode())

    def verified(self, shard: Shard) -> dict[str, Any] | None:
        """The sidecar of a shard whose part is whole, else ``None``."""
        try:
            sidecar = json.loads(self._sidecar(shard).read_bytes())
            content = self.part(shard).read_bytes()
        except (OSError, ValueError):
            return None
        expected = {
            "start": shard.start,
            "stop": shard.stop,
            "rows": len(shard),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "fingerprint": self._fingerprint,
        }
        if not isinstance(sidecar, dict):
            return None
        same = all(sidecar.get(key) == value for key, value in expected.items())
        return sidecar if same else None

    def verify_all(self, shards: list[Shard]) -> list[dict[str, Any]]:
        """The sidecars of all shards.

        Raises:
            OutputError: If a part is missing or damaged.
        """
        sidecars = [self.verified(shard) for shard in shards]
        bad = [s.number for s, sidecar in zip(shards, sidecars, strict=True) if sidecar is None]
        if bad:
            raise OutputError(
                f"{len(bad)} of {len(shards)} parts in {self._folder} do not verify",
                found="parts " + ", ".join(map(str, bad[:10])),
                remedy="run the same command again: only these are computed",
            )
        return [sidecar for sidecar in sidecars if sidecar is not None]

    def names(self, shards: list[Shard]) -> list[str]:
        """The files of these shards, relative to the run's folder."""
        files = [file for s in shards for file in (self.part(s), self._sidecar(s))]
        return [f"{self._folder.name}/{file.name}" for file in files]

    def _sidecar(self, shard: Shard) -> Path:
        # Readers of a folder of Parquet files skip names that begin with an underscore.
        return self._folder / f"_part-{shard.number:06d}.json"
