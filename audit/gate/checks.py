"""One check: a rule for one class or for the split, held against a number and its interval."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

Status = Literal["passed", "failed", "not evaluated"]
PASSED: Status = "passed"
FAILED: Status = "failed"
NOT_EVALUATED: Status = "not evaluated"

# The label of the whole split.
SPLIT = -1


@dataclass(frozen=True, kw_only=True)
class Check:
    """What became of one rule for one class.

    Attributes:
        rule: The rule, with its metric where it has one: ``max_rise.far_logit``.
        label: The class; −1 for the whole split.
        name: Its name; empty for the split.
        status: ``passed``, ``failed`` or ``not evaluated``.
        value: The number that was judged; ``None`` where it is undefined.
        low: Lower end of its 95% interval, if it has one.
        high: Upper end.
        limit: What it was held against; ``None`` for ``forbid``.
        verdict: The class's verdict, for ``forbid``.
        message: The same in one sentence.
    """

    rule: str
    label: int
    name: str
    status: Status
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    verdict: str | None = None
    message: str

    @property
    def scope(self) -> str:
        """``class`` or ``split``."""
        return "split" if self.label == SPLIT else "class"


@dataclass(frozen=True)
class Measured:
    """A number of a class or of the split.

    Attributes:
        label: The class; −1 for the split.
        name: Its name; empty for the split.
        value: The number; ``None`` where it is undefined.
        low: Lower end of its 95% interval; ``None`` without one.
        high: Upper end.
    """

    label: int
    name: str
    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def subject(self) -> str:
        """In words.

        Example:
            >>> Measured(2, "cat", 0.5).subject, Measured(-1, "", 0.5).subject
            ("class 'cat'", 'the split')
        """
        return subject(self.label, self.name)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A limit, and which number must keep it.

    Attributes:
        rule: The rule's name.
        quantity: What is limited, in words.
        limit: The limit; a number equal to it keeps it.
        ceiling: Whether it is an upper limit.
        by: ``point``: the number itself must keep it. ``sure``: it fails only if its whole interval
            is beyond. ``strict``: its whole interval must keep it.
    """

    rule: str
    quantity: str
    limit: float
    ceiling: bool
    by: Literal["point", "sure", "strict"]

    def check(self, found: Measured) -> Check:
        """Hold one number against the limit.

        Example:
            >>> bound = Bound(rule="max_reliance", quantity="reliance", limit=0.2, ceiling=True,
            ...               by="sure")
            >>> print(bound.check(Measured(3, "cat", 0.3, 0.25, 0.35)).message)
            class 'cat': reliance 0.3 (0.25 to 0.35) is surely above the limit 0.2
        """
        judged = self._judged(found)
        if judged is None:
            why = f"{self.quantity} is undefined"
            if found.value is not None:
                why = f"{self.quantity} {figures(found.value)} has no interval"
            return self._outcome(found, NOT_EVALUATED, why)
        beyond = judged > self.limit if self.ceiling else judged < self.limit
        return self._outcome(found, FAILED if beyond else PASSED, self._words(found, beyond))

    def _judged(self, found: Measured) -> float | None:
        """The end of the interval that decides."""
        if self.by == "point" or found.value is None:
            return found.value
        lower = self.ceiling == (self.by == "sure")
        return found.low if lower else found.high

    def _words(self, found: Measured, beyond: bool) -> str:
        assert found.value is not None
        side = "above" if self.ceiling else "below"
        said = {"point": "", "sure": "surely ", "strict": "surely "}[self.by]
        relation = f"is {'' if beyond else 'not '}{said}{side} the limit"
        if self.by == "strict":
            within = "at most" if self.ceiling else "at least"
            relation = f"is {'not ' if beyond else ''}surely {within} the limit"
        digits = digits_apart(found.value, found.low, found.high, self.limit)
        interval = ""
        if found.low is not None and found.high is not None:
            interval = f" ({figures(found.low, digits)} to {figures(found.high, digits)})"
        said = f"{self.quantity} {figures(found.value, digits)}{interval} {relation}"
        return f"{said} {figures(self.limit, digits)}"

    def _outcome(self, found: Measured, status: Status, words: str) -> Check:
        return Check(
            rule=self.rule, label=found.label, name=found.name, status=status, value=found.value,
            low=found.low, high=found.high, limit=self.limit, message=f"{found.subject}: {words}",
        )  # fmt: skip


def subject(label: int, name: str) -> str:
    """A class or the split, in words."""
    return "the split" if label == SPLIT else f"class '{name}'"


def settle_untested(rule: str, checks: list[Check], untested: str) -> list[Check]:
    """What becomes of checks that could not be made.

    Args:
        rule: The rule's name.
        checks: All of it.
        untested: ``list``, ``fail`` or ``allow``; see :class:`GateSettings`.

    Returns:
        The checks; with one more, failed, where nothing was judged and that is not allowed.
    """
    if untested == "fail":
        return [
            replace(check, status=FAILED) if check.status == NOT_EVALUATED else check
            for check in checks
        ]
    if untested == "list" and all(check.status == NOT_EVALUATED for check in checks):
        message = f"the split: nothing could be judged by {rule}, so it is not kept"
        failed = Check(rule=rule, label=SPLIT, name="", status=FAILED, value=None, message=message)
        return [*checks, failed]
    return checks


def number(value: object) -> float | None:
    """A number of a table; ``None`` for null.

    Example:
        >>> number(float("nan")), number(1)
        (None, 1.0)
    """
    return None if pd.isna(value) else float(value)  # type: ignore[arg-type, call-overload]


def figures(value: float, digits: int = 4) -> str:
    """A number as short as it can be told from its neighbours by people.

    Example:
        >>> figures(0.25), figures(0.123456), figures(-0.0), figures(0.123456, 5)
        ('0.25', '0.1235', '0', '0.12346')
    """
    return f"{value + 0.0:.{digits}g}"


def digits_apart(*values: float | None) -> int:
    """For :func:`figures`, so many that numbers that differ look different.

    Example:
        >>> digits_apart(0.89998, None, 0.9), digits_apart(0.5, 0.5)
        (5, 4)
    """
    known = {value for value in values if value is not None}
    for digits in range(4, 17):
        if len({figures(value, digits) for value in known}) == len(known):
            return digits
    return 17
