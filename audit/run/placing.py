"""Batches to the device before they are needed, and rows back from it in few transfers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.data import Batch

T = TypeVar("T")

# Bytes that are put together before they leave the device.
_PACK = 64 * 2**20


def placed_ahead(
    batches: Iterable[Batch], place: Callable[[Batch], T], device: torch.device
) -> Iterator[T]:
    """Put batches on a device; on a GPU one ahead, beside what is being computed.

    Args:
        batches: On the host; page-locked for a GPU.
        place: Copies a batch, and whatever is made of it there.
        device: Where to.

    Yields:
        What ``place`` gave of each batch, in order.
    """
    if device.type != "cuda":
        yield from map(place, batches)
        return
    beside = torch.cuda.Stream(device)
    waiting: tuple[T, torch.cuda.Event] | None = None
    for batch in batches:
        # What the copies overwrite may still be in use; the allocator knows of one stream only.
        with torch.cuda.stream(beside):
            placed = place(batch)
            copied = beside.record_event()
        if waiting is not None:
            yield _taken(*waiting, device)
        waiting = placed, copied
    if waiting is not None:
        yield _taken(*waiting, device)


def _taken(placed: T, copied: torch.cuda.Event, device: torch.device) -> T:
    """A batch that the current stream may use from here on."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    for tensor in tensors_in(placed):
        if tensor.is_cuda:
            tensor.record_stream(current)
    return placed


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors of dataclasses, dictionaries and sequences in one another.

    Example:
        >>> len(list(tensors_in({"a": torch.zeros(2), "b": [torch.ones(1), "text"]})))
        2
    """
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for part in fields(value):
            yield from tensors_in(getattr(value, part.name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from tensors_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)


def to_host(columns: Mapping[str, Sequence[Tensor]]) -> dict[str, NDArray[np.generic]]:
    """Columns as arrays on the host.

    Args:
        columns: Each in pieces, one after the other.

    Returns:
        Each as one array.

    Example:
        >>> to_host({"a": [torch.tensor([1, 2]), torch.tensor([3])]})
        {'a': array([1, 2, 3])}
    """
    joined = {name: torch.cat(list(pieces)) for name, pieces in columns.items()}
    away = unpacked({name: each for name, each in joined.items() if each.is_cuda})
    return {
        name: away[name] if name in away else each.cpu().numpy() for name, each in joined.items()
    }


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[np.generic]]:
    """Tensors of any types as arrays, with one transfer for many of them.

    Args:
        tensors: All on one device.

    Returns:
        Their values by name, in the same order.

    Example:
        >>> unpacked({"a": torch.tensor([True, False]), "b": torch.tensor([[1.5, 2.0]])})
        {'a': array([ True, False]), 'b': array([[1.5, 2. ]], dtype=float32)}
    """
    # Wide types first, so that every one of them begins where its width divides the position.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    found: dict[str, NDArray[np.generic]] = {}
    while order:
        some: list[str] = []
        size = 0
        while order and (not some or size + tensors[order[0]].nbytes <= _PACK):
            some.append(order.pop(0))
            size += tensors[some[-1]].nbytes
        plain = [tensors[name].contiguous().flatten().view(torch.uint8) for name in some]
        content = torch.cat(plain).cpu().numpy()
        start = 0
        for name in some:
            stop = start + tensors[name].nbytes
            kind = torch.empty(0, dtype=tensors[name].dtype).numpy().dtype
            found[name] = content[start:stop].view(kind).reshape(tuple(tensors[name].shape))
            start = stop
    return {name: found[name] for name in tensors}
