"""What a process that computes tells the one that hands out the work, and is told by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from audit.config import AuditConfig
from audit.errors import AuditError
from audit.run.plan import Plan
from audit.run.store import Shard


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a process needs to begin; nothing large, for it opens everything itself.

    Attributes:
        config: The settings, with the device that it is to use.
        plan: Of the run; whoever opens something else is refused.
        rank: What the process is called, for people.
        threads: Of torch.
        folder: Where the command was given, which relative paths begin at.
        paths: Where the process that gives the order finds modules.
    """

    config: AuditConfig
    plan: Plan
    rank: str
    threads: int
    folder: str
    paths: Sequence[str]


@dataclass(frozen=True)
class Ready:
    """Everything is open; work may come."""


@dataclass(frozen=True)
class Busy:
    """Something goes on that is not a sample: masks are estimated."""


@dataclass(frozen=True)
class Counted:
    """So many more samples of the part at hand are done."""

    samples: int


@dataclass(frozen=True)
class Done:
    """The part at hand is committed."""

    seconds: float


@dataclass(frozen=True)
class Failed:
    """The part at hand raised an exception; the process ends, for its state is unknown."""

    how: str


@dataclass(frozen=True)
class Refused:
    """Nothing can be computed at all, for a reason that the user can mend."""

    error: AuditError


@dataclass(frozen=True)
class Died:
    """The process is gone; nobody but who watches it can tell."""

    how: str


Message = Ready | Busy | Counted | Done | Failed | Refused | Died
"""Told by a process, or about it."""


class Channel(Protocol):
    """A process's way to the one that hands out the work."""

    def receive(self) -> Sequence[Shard]:
        """The next parts to compute; none at the end. Waits."""

    def send(self, message: Message) -> None:
        """Tell something."""
