"""What a complete run goes without: parts that could not be computed, and were not waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Pieces of a list of numbers at most.
_MOST = 20


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Neighbouring parts that are missing for the same reason.

    Attributes:
        first: Number of the first part.
        last: Of the last, which may be the same.
        start: Position of the first sample in the split.
        stop: Position after the last sample.
        reason: In words.
    """

    first: int
    last: int
    start: int
    stop: int
    reason: str

    @property
    def samples(self) -> int:
        """How many are missing."""
        return self.stop - self.start


def gaps_of(manifest: Mapping[str, Any]) -> tuple[Gap, ...]:
    """The gaps of a complete run.

    Args:
        manifest: Of the run; of one that lacks nothing, or is older, there are none.

    Example:
        >>> part = {"samples": 10, "reason": "never computed"}
        >>> gaps_of({"missing": [part | {"shard": 3, "start": 30, "stop": 40},
        ...                      part | {"shard": 4, "start": 40, "stop": 50}]})
        (Gap(first=3, last=4, start=30, stop=50, reason='never computed'),)
    """
    gaps: list[Gap] = []
    for each in sorted(manifest.get("missing") or (), key=lambda each: int(each["shard"])):
        number, start = int(each["shard"]), int(each["start"])
        before = gaps[-1] if gaps else None
        reason = str(each["reason"])
        joined = before is not None and (before.last + 1, before.reason) == (number, reason)
        if before is not None and joined:
            gaps.pop()
        gaps.append(
            Gap(
                first=before.first if before is not None and joined else number,
                last=number,
                start=before.start if before is not None and joined else start,
                stop=int(each["stop"]),
                reason=reason,
            )
        )
    return tuple(gaps)


def numbers_of(gaps: Iterable[Gap]) -> list[int]:
    """The numbers of all parts that are missing."""
    return [number for gap in gaps for number in range(gap.first, gap.last + 1)]


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Numbers as ranges, with both ends.

    Example:
        >>> ranges_of([3, 0, 1, 2, 7])
        [(0, 3), (7, 7)]
    """
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def pieces_of(numbers: Iterable[int], most: int = _MOST) -> tuple[list[str], int]:
    """Numbers as texts, neighbours together, and how many texts beyond the first were left out.

    Example:
        >>> pieces_of([0, 1, 2, 57, 60], most=2)
        (['0–2', '57'], 1)
    """
    ranges = ranges_of(numbers)
    said = [str(first) if first == last else f"{first}–{last}" for first, last in ranges]
    return said[:most], max(0, len(said) - most)


def compressed(numbers: Iterable[int], most: int = _MOST) -> str:
    """Numbers as one text.

    Example:
        >>> compressed([0, 1, 2, 57])
        '0–2, 57'
    """
    said, more = pieces_of(numbers, most)
    return ", ".join(said) + (f" and {more:,} more ranges" if more else "")


def gaps_in_words(manifest: Mapping[str, Any]) -> str | None:
    """One sentence for a terminal, a message or a gate; ``None`` where nothing is missing.

    Example:
        >>> part = {"shard": 3, "start": 30, "stop": 40, "samples": 10, "reason": "it crashes"}
        >>> gaps_in_words({"missing": [part], "totals": {"samples": 90}})
        '10 of 100 images were not audited: part 3 is missing'
    """
    gaps = gaps_of(manifest)
    if not gaps:
        return None
    numbers = numbers_of(gaps)
    absent = sum(gap.samples for gap in gaps)
    every = int(manifest["totals"]["samples"]) + absent
    parts = "part" if len(numbers) == 1 else "parts"
    are = "is" if len(numbers) == 1 else "are"
    return (
        f"{absent:,} of {every:,} images were not audited: "
        f"{parts} {compressed(numbers)} {are} missing"
    )
