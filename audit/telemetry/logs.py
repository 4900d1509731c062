"""Events as lines of JSON, by Python's own logging: every logger is below ``audit``."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TextIO

LOGGER = "audit"
# The attribute of a record that holds an event's facts.
FACTS = "facts"

# Without it Python prints the warnings of a library that nobody configured.
logging.getLogger(LOGGER).addHandler(logging.NullHandler())


class JsonFormatter(logging.Formatter):
    """One JSON object a record, on one line and in ASCII, whatever names hold.

    ``time`` (UTC, ISO 8601), ``level``, ``event``, ``message``, ``host`` and ``pid`` are always
    there; an event adds its facts. A number that is not finite is null.

    Example:
        >>> record = logging.makeLogRecord(
        ...     {"msg": "part 3 is committed", "levelname": "INFO", "created": 0,
        ...      "facts": {"event": "part_committed", "shard": 3}})
        >>> line = json.loads(JsonFormatter().format(record))
        >>> line["time"], line["level"], line["event"], line["shard"]
        ('1970-01-01T00:00:00.000+00:00', 'info', 'part_committed', 3)
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, without its end."""
        facts = dict(getattr(record, FACTS, {}))
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": facts.pop("event", "message"),
            "message": record.getMessage(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **facts,
        }
        if record.exc_info:
            content["trace"] = self.formatException(record.exc_info)
        return json.dumps(_finite(content), default=str)


class _JsonHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic in stubs only
    """Writes to a stream, or to what stderr is at the time."""

    def __init__(self, stream: TextIO | None) -> None:
        self._given = stream
        super().__init__(stream)
        self.setFormatter(JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = self._given or sys.stderr
        super().emit(record)


@contextmanager
def json_lines(stream: TextIO | None = None) -> Iterator[None]:
    """While this lasts, events are written as lines of JSON.

    Inside of another such block nothing is added: no event is told twice.

    Args:
        stream: Where to; ``None`` is stderr.
    """
    logger = logging.getLogger(LOGGER)
    if _is_told(logger):
        yield
        return
    handler, level = _JsonHandler(stream), logger.level
    logger.addHandler(handler)
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def tell_exit(code: int, message: str = "") -> bool:
    """Say as a line of JSON how the command ends, where it tells its events so.

    Args:
        code: Exit code.
        message: The error as people read it; empty for none.

    Returns:
        Whether it was told; if not, the caller tells people.

    Example:
        >>> tell_exit(0)
        False
    """
    logger = logging.getLogger(LOGGER)
    if not _is_told(logger):
        return False
    level = logging.ERROR if code else logging.INFO
    logger.log(level, message or "done", extra={FACTS: {"event": "exit", "code": code}})
    return True


def _is_told(logger: logging.Logger) -> bool:
    return any(isinstance(handler, _JsonHandler) for handler in logger.handlers)


def _finite(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
