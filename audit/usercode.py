"""Finding what ``module:function`` names in the user's own code."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.errors import UsageError

_SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_spec(text: str) -> bool:
    """Whether a text may be ``module:function``.

    Example:
        >>> is_spec("my_code.data:build"), is_spec("folder:"), is_spec("my code:build")
        (True, False, False)
    """
    return _SPEC.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class Role:
    """What the user's code is wanted for, in the words of messages.

    Attributes:
        name: What ``module:function`` is called: ``dataset``.
        gives: What comes of it: ``dataset``.
        fits: What the code has to be, where it was called and failed.
        error: The kind of error to raise.
    """

    name: str
    gives: str
    fits: str
    error: type[UsageError]


def find(spec: str, role: Role) -> Any:
    """Import a module and take from it what is named.

    Args:
        spec: ``module:attribute``; the module lies in the current folder or on Python's path.
        role: What it is wanted for.

    Returns:
        The attribute.

    Raises:
        UsageError: If there is no such module or attribute, or importing it fails.
    """
    place, _, attribute = spec.partition(":")
    found = _imported(place, spec, role)
    for step in attribute.split("."):
        if not hasattr(found, step):
            raise role.error(
                f"the module '{place}' has no '{attribute}'",
                expected=f"a function, a class or a {role.gives}",
                found=_public_names(found),
            )
        found = getattr(found, step)
    return found


def call(spec: str, role: Role, function: Callable[[], Any]) -> Any:
    """Call the user's code.

    Raises:
        UsageError: If it fails, with the line where it did.
    """
    try:
        return function()
    except (Exception, SystemExit) as reason:  # the user's code may raise anything
        raise _failed(spec, role, reason) from reason


def brief(reason: BaseException) -> str:
    """An exception of the user's code in one line, with the place where it was raised."""
    frames = traceback.extract_tb(reason.__traceback__)
    place = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = (str(reason).splitlines() or [""])[0][:200]
    return f"{type(reason).__name__}: {text}{place}"


def _imported(place: str, spec: str, role: Role) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as reason:
        # Another name: the module is there, and wants one that is not.
        if reason.name != place and not place.startswith(f"{reason.name}."):
            raise _failed(spec, role, reason) from reason
        file = place.endswith(".py") or "/" in place
        raise role.error(
            f"there is no module '{place}' for the {role.name} '{spec}'",
            expected="a module in the current folder or on the Python path",
            remedy="write a module's name, not a file's: code.mine, not code/mine.py"
            if file
            else "run the command where the module lies, or set PYTHONPATH",
        ) from reason
    except (Exception, SystemExit) as reason:  # the user's code may raise anything
        raise _failed(spec, role, reason) from reason


def _public_names(holder: object) -> str:
    names = [name for name in vars(holder) if name[0] != "_"] if hasattr(holder, "__dict__") else []
    return ", ".join(names[:8]) or "nothing"


def _failed(spec: str, role: Role, reason: BaseException) -> UsageError:
    return role.error(
        f"{spec} failed to give a {role.gives}",
        expected=role.fits,
        found=brief(reason),
        remedy="call it in Python to see why",
    )
