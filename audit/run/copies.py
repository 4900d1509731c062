"""Runs in object stores, copied to a folder where they can be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audit.errors import ConfigError, UsageError
from audit.files import make_folder, sha256_of, sole_writer, write_atomically
from audit.run.manifest import NAME, is_summed_run
from audit.storage import Storage, open_storage
from audit.storage.mirror import pull


def home_cache() -> Path:
    """Where copies of remote runs are kept, beside the caches of other tools.

    Raises:
        ConfigError: If nobody knows the user's home.
    """
    try:
        return Path.home() / ".cache" / "audit"
    except RuntimeError as error:
        raise ConfigError(
            "there is no home folder to keep caches in", remedy="give a folder with --cache"
        ) from error


def copy_folder(place: str, cache: Path | None = None) -> Path:
    """The folder for the copy of a remote run, below a cache: ``~/.cache/audit`` if ``None``."""
    digest = hashlib.sha256(place.rstrip("/").encode()).hexdigest()
    return make_folder((cache or home_cache()) / "runs" / digest[:16], flag="--cache")


def copy_run(storage: Storage, folder: Path) -> bool:
    """Bring a complete run's files to a folder, the manifest last.

    The rows of runs whose tables are made of sums stay where they are: they are too many.

    Args:
        storage: Of the run.
        folder: Where to; files that are there already stay.

    Returns:
        Whether there is a complete run.

    Raises:
        OutputError: If the store refuses or does not answer.
    """
    (folder / NAME).unlink(missing_ok=True)
    try:
        content = storage.read(NAME)
        manifest = json.loads(content)
        summed = is_summed_run(manifest)
        names = [n for n in manifest["files"] if not (summed and n.startswith("samples/"))]
        pull(storage, [n for n in names if not _is_there(folder / n, manifest["files"][n])], folder)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return False
    write_atomically(folder / NAME, content)
    return True


def _is_there(file: Path, expected: Mapping[str, Any]) -> bool:
    return (
        file.is_file()
        and file.stat().st_size == expected["bytes"]
        and sha256_of(file) == expected["sha256"]
    )


def fetch_run(place: str) -> Path:
    """A copy of a complete run in an object store.

    Args:
        place: The run's address.

    Returns:
        The folder of the copy, below ``~/.cache/audit``.

    Raises:
        UsageError: If there is no complete run.
        OutputError: If the store refuses or does not answer.
    """
    folder = copy_folder(place)
    with sole_writer(folder):
        there = copy_run(open_storage(place), folder)
    if not there:
        raise UsageError(
            f"there is no complete run in {place}",
            expected=f"the address of a run's folder, with its {NAME}",
            remedy="see how far it is: audit status",
        )
    return folder
