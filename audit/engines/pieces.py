"""Equal pieces of a run, one for each task of an array of jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from audit.errors import UsageError
from audit.run.store import Shard

_GIVEN = re.compile(r"(?P<index>\d+|auto)/(?P<count>\d+|auto)")
# What schedulers call a task's index, the first index, and how many tasks there are.
_SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
_KUBERNETES = "JOB_COMPLETION_INDEX"


@dataclass(frozen=True)
class Piece:
    """The ``index``-th of ``count`` pieces, from 0.

    Example:
        >>> from audit.run.store import plan_shards
        >>> [shard.number for shard in Piece(1, 3).of(plan_shards(7, 1))]
        [2, 3]
    """

    index: int
    count: int

    def of(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards of this piece: neighbours, as many as the other pieces have, or one more."""
        start = self.index * len(shards) // self.count
        stop = (self.index + 1) * len(shards) // self.count
        return list(shards[start:stop])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def read_piece(given: str, environment: Mapping[str, str]) -> Piece:
    """Read which piece is meant.

    Args:
        given: ``i/n`` with i from 0. ``auto`` in place of i takes the index that Slurm's job
            arrays or Kubernetes' indexed jobs tell; in place of n the tasks of the array. ``auto``
            alone is ``auto/auto``.
        environment: Of the process.

    Raises:
        UsageError: If it names no piece, or the scheduler does not tell.

    Example:
        >>> read_piece("auto", {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4",
        ...                     "SLURM_ARRAY_TASK_COUNT": "3"})
        Piece(index=1, count=3)
        >>> read_piece("auto/8", {"JOB_COMPLETION_INDEX": "7"})
        Piece(index=7, count=8)
    """
    match = _GIVEN.fullmatch("auto/auto" if given == "auto" else given)
    if match is None:
        raise UsageError(
            f"'{given}' names no piece of a run (--shard)",
            expected="i/n with i from 0 to n-1, such as 0/4; auto/4 or auto under a scheduler",
        )
    index = _index(environment) if match["index"] == "auto" else int(match["index"])
    count = _count(environment) if match["count"] == "auto" else int(match["count"])
    if not index < count:
        raise UsageError(
            f"there is no piece {index} of {count} (--shard)",
            expected=f"i/{count} with i from 0 to {count - 1}" if count else "at least one piece",
            found=f"{index}/{count}",
        )
    return Piece(index, count)


def _index(environment: Mapping[str, str]) -> int:
    name, first, _ = _SLURM
    if name in environment:
        return _number(environment, name) - _number(environment, first, "0")
    return _number(environment, _KUBERNETES)


def _count(environment: Mapping[str, str]) -> int:
    return _number(environment, _SLURM[2])


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name, default)
    if not text.isascii() or not text.isdigit():
        raise UsageError(
            f"the environment does not tell which piece of the run this is ({name})",
            expected=f"a task of a Slurm array ({_SLURM[0]}, {_SLURM[2]}) or of an indexed job of "
            f"Kubernetes ({_KUBERNETES}, whose count is not told: --shard auto/n)",
            found=f"{name}={text}" if text else f"{name} is not set",
            remedy="give the piece as --shard i/n",
        )
    return int(text)
