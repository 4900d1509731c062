"""Errors that a network's own code raises, told from those of the audit."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import AuditError

_Place = tuple[FrameType, int]  # and the line that it was at

_OURS = __name__.partition(".")[0]
_TORCH = Path(torch.__file__).parent
# What a device's driver says: nobody's code is to blame, and another process may succeed.
_OF_DRIVERS = ("CUDA error", "cuDNN error", "HIP error")
_OF_SCRIPTS = "The following operation failed in the TorchScript interpreter"


@contextmanager
def own_failures(
    name: str, remedy: str = "mend the network, or give another --batch-size"
) -> Iterator[None]:
    """Tell in a message of an error that was raised in a network's own code.

    Errors of the audit and of a device's driver are left as they are.

    Args:
        name: The network's, for the message.
        remedy: What helps.

    Raises:
        AuditError: If the network fails on a batch.

    Example:
        >>> with own_failures("two columns"):
        ...     nn.Linear(2, 1)(torch.zeros(5, 3))
        Traceback (most recent call last):
        audit.errors.AuditError: the model 'two columns' fails on a batch of 5 images
          found: RuntimeError: mat1 and mat2 shapes cannot be multiplied (5x3 and 2x1)
          remedy: mend the network, or give another --batch-size
    """
    try:
        yield
    except AuditError:
        raise
    except Exception as error:  # a user's network may raise anything
        frames = _of_network(error)
        if not frames or any(word in str(error) for word in _OF_DRIVERS):
            raise
        count = _count(frames[0][0])
        raise AuditError(
            f"the model '{name}' fails on a batch" + (f" of {count} images" if count else ""),
            found=_said(error) + _where(frames),
            remedy=remedy,
        ) from error


def _of_network(error: BaseException) -> list[_Place]:
    """The frames from the network's call to the error; none if it was raised elsewhere."""
    frames = list(traceback.walk_tb(error.__traceback__))
    inside = list(itertools.dropwhile(lambda place: not _is_networks(place[0]), frames))
    # What the audit put into the network, hooks and layers of its own, fails for itself.
    return [] if any(_is_ours(frame) for frame, _ in inside) else inside


def _is_networks(frame: FrameType) -> bool:
    owner: Any = frame.f_locals.get("self")
    return isinstance(owner, nn.Module) and not type(owner).__module__.startswith(f"{_OURS}.")


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(f"{_OURS}.")


def _count(called: FrameType) -> int | None:
    """How many images the network was given."""
    given: tuple[object, ...] = called.f_locals.get("args") or (None,)
    images = given[0]
    return len(images) if isinstance(images, Tensor) and images.dim() else None


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    text = lines[-1] if lines[0].startswith(_OF_SCRIPTS) else lines[0]
    return f"{type(error).__name__}: {text[:200]}"


def _where(frames: list[_Place]) -> str:
    """Where the network's own code was, as far as that is in a file."""
    for frame, line in reversed(frames):
        file = Path(frame.f_code.co_filename)
        if file.is_file() and not file.is_relative_to(_TORCH):
            return f", at {file.name}:{line}"
    return ""
