"""Contestants that take turns in one process, and what their seconds say."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

Work = Callable[[], object]
Seconds = dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A median with its quartiles."""

    low: float
    middle: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; of fewer than four values, the lowest and the highest.

    Args:
        values: At least one.
    """
    if len(values) < 4:
        return Spread(low=min(values), middle=statistics.median(values), high=max(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(low=low, middle=middle, high=high)


def take_turns(
    work: Mapping[str, Work], *, rounds: int, warm: int = 2, device: str = "cpu"
) -> Seconds:
    """Seconds of every contestant, each round in the other order.

    Args:
        work: What each does, by name.
        rounds: How often each is timed.
        warm: Rounds before that.
        device: Is waited for before the clock is read.

    Returns:
        Of every contestant its seconds by round.
    """
    names, seconds = list(work), {name: list[float]() for name in work}
    for turn in range(warm + rounds):
        for name in names if turn % 2 else reversed(names):
            wait_for(device)
            started = time.perf_counter()
            work[name]()
            wait_for(device)
            if turn >= warm:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def wait_for(device: str) -> None:
    """Let the work that was handed to a device end."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def fastest(seconds: Mapping[str, Sequence[float]], among: Iterable[str]) -> str:
    """The contestant with the lowest median."""
    return min(among, key=lambda name: statistics.median(seconds[name]))


def ratios(seconds: Sequence[float], base: Sequence[float]) -> Spread:
    """Seconds over those of another contestant in the same round."""
    return spread([one / other for one, other in zip(seconds, base, strict=True)])
