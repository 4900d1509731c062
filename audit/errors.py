"""Every message a user can act on.

An :class:`AuditError` names the thing that is wrong, what was expected, what was found and
what to do about it. The command prints it without a traceback and leaves with ``exit_code``.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

# What moves the cursor or colours a terminal, ends a line, or turns the direction of writing;
# and halves of surrogate pairs, which no file can hold.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Bytes of a file's name that are not UTF-8, as Python keeps them.
_LONE_BYTES = range(0xDC80, 0xDD00)


def visible(text: str) -> str:
    r"""A text of someone else's, for people: characters that control a display are escaped.

    Example:
        >>> print(visible("\x1b[31mcat\n"))
        \x1b[31mcat\n
    """
    return _HIDDEN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code in _LONE_BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return found[0].encode("unicode_escape").decode()


class AuditError(Exception):
    """A failed run (exit code 1), or the parent of a more precise failure.

    Characters of names and files that control a display are escaped in all four.

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
        self.problem = visible(problem)
        self.expected = None if expected is None else visible(expected)
        self.found = None if found is None else visible(found)
        self.remedy = None if remedy is None else visible(remedy)
        parts = [self.problem]
        rest = {"expected": self.expected, "found": self.found, "remedy": self.remedy}
        parts += [f"  {name}: {text}" for name, text in rest.items() if text is not None]
        super().__init__("\n".join(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        # Not from the whole text, whose line ends would be escaped.
        said = (self.problem, self.expected, self.found, self.remedy)
        return _again, (type(self), *said)


def _again(
    kind: type[AuditError],
    problem: str,
    expected: str | None,
    found: str | None,
    remedy: str | None,
) -> AuditError:
    return kind(problem, expected=expected, found=found, remedy=remedy)


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
