"""Every message a user can act on.

An :class:`AuditError` names the thing that is wrong, what was expected, what was found and
what to do about it. The command prints it without a traceback and leaves with ``exit_code``.
"""

from __future__ import annotations

from typing import ClassVar


class AuditError(Exception):
    """A failed run (exit code 1), or the parent of a more precise failure.

    Args:
        problem: One sentence that names the thing that is wrong.
        expected: What would have been right.
        found: What was there instead.
        remedy: What the reader can do next.

    Example:
        >>> print(AuditError("the split is empty", expected="at least one image", found="0"))
        the split is empty
          expected: at least one image
          found: 0
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        problem: str,
        *,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem = problem
        self.expected = expected
        self.found = found
        self.remedy = remedy
        parts = [problem]
        for name, text in (("expected", expected), ("found", found), ("remedy", remedy)):
            if text is not None:
                parts.append(f"  {name}: {text}")
        super().__init__("\n".join(parts))


class UsageError(AuditError):
    """What was asked for cannot be done as asked (exit code 2)."""

    exit_code: ClassVar[int] = 2


class ConfigError(UsageError):
    """A flag or a job file holds a value that is not allowed."""


class DataError(UsageError):
    """The split cannot be opened."""


class ModelError(UsageError):
    """The classifier cannot be opened, or cannot be explained."""


class OutputError(AuditError):
    """A result cannot be written or does not verify."""


class TooManyBadSamples(AuditError):
    """More samples are undefined than the run allows."""
