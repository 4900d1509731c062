"""Arrays and tables in one buffer: the same bytes for the same content."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audit.errors import OutputError

_MAGIC = b"AUDSUMS1"
_LENGTH = struct.Struct("<I")
_CODEC = "zstd"

Content = dict[str, Any]


def pack(content: Mapping[str, NDArray[np.generic] | pa.Table | dict[str, Any]]) -> bytes:
    """Arrays, tables and JSON objects by name, compressed.

    Example:
        >>> found = unpack_content(pack({"n": np.array([[1, 2]]), "facts": {"rows": 2}}))
        >>> found["n"].tolist(), found["facts"]
        ([[1, 2]], {'rows': 2})
    """
    header, blobs = [], []
    for name, value in content.items():
        facts, raw = _raw(value)
        blob = pa.compress(raw, codec=_CODEC, asbytes=True)
        header.append({"name": name, "raw": len(raw), "bytes": len(blob), **facts})
        blobs.append(blob)
    text = json.dumps(header, sort_keys=True).encode()
    return b"".join([_MAGIC, _LENGTH.pack(len(text)), text, *blobs])


def unpack_content(packed: bytes) -> Content:
    """What :func:`pack` was given.

    Raises:
        OutputError: If these are not its bytes.
    """
    return {entry["name"]: _value(entry, blob) for entry, blob in _entries(packed)}


def read_facts(packed: bytes) -> dict[str, Any]:
    """The JSON object that was packed as ``facts``, without the rest.

    Raises:
        OutputError: If these are not bytes of :func:`pack`, or there is none.
    """
    for entry, blob in _entries(packed):
        if entry["name"] == "facts":
            return dict(_value(entry, blob))
    raise _unreadable("no facts")


def _entries(packed: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What is said of each entry, and its compressed bytes."""
    start = len(_MAGIC) + _LENGTH.size
    if packed[: len(_MAGIC)] != _MAGIC or len(packed) < start:
        raise _unreadable(repr(packed[: len(_MAGIC)]))
    (length,) = _LENGTH.unpack(packed[len(_MAGIC) : start])
    place = start + length
    header = json.loads(packed[start:place])
    whole = place + sum(entry["bytes"] for entry in header)
    if whole != len(packed):
        raise _unreadable(f"{len(packed):,} bytes of {whole:,}")
    for entry in header:
        yield entry, packed[place : place + entry["bytes"]]
        place += entry["bytes"]


def _unreadable(found: str) -> OutputError:
    return OutputError(
        "the sums beside a part cannot be read",
        expected=f"whole bytes that begin with {_MAGIC.decode()}",
        found=found,
        remedy="delete the file, and run the same command again",
    )


def _raw(value: NDArray[np.generic] | pa.Table | dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    if isinstance(value, dict):
        return {"kind": "json"}, json.dumps(value, sort_keys=True).encode()
    if isinstance(value, pa.Table):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, value.schema) as writer:
            writer.write_table(value.combine_chunks())
        return {"kind": "table"}, sink.getvalue().to_pybytes()
    # The first bytes of all numbers, then the second ones: like bytes side by side compress.
    by_place = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    shuffled = by_place.reshape(-1, value.dtype.itemsize).T.tobytes()
    return {"kind": "array", "dtype": value.dtype.str, "shape": list(value.shape)}, shuffled


def _value(entry: Mapping[str, Any], blob: bytes) -> Any:
    raw = pa.decompress(blob, decompressed_size=entry["raw"], codec=_CODEC, asbytes=True)
    if entry["kind"] == "json":
        return json.loads(raw)
    if entry["kind"] == "table":
        with pa.ipc.open_stream(raw) as reader:
            return reader.read_all()
    kind = np.dtype(entry["dtype"])
    if not raw:
        return np.zeros(entry["shape"], kind)
    by_place = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, -1).T
    return np.ascontiguousarray(by_place).view(kind).reshape(entry["shape"])
