"""The manifest: what a run was, and the proof that it is complete. It is written last."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import audit
from audit.files import sha256_of, write_atomically
from audit.storage import Storage

NAME = "manifest.json"
COMPLETE = "complete"
# Of a comparison or a trend: nobody opens it as a run.
COMPARED = "compared"
_THREADS = 4

# Libraries whose version can change a number.
_LIBRARIES = ("torch", "torchvision", "numpy", "pandas", "pyarrow", "scipy")
# The stages whose code decides what a row holds, and those that decide what is made of rows.
CODE_OF_ROWS = (
    "usercode.py", "data", "masks", "models", "cam", "explaining.py", "score", "run", "step",
)  # fmt: skip
CODE_OF_REPORTS = ("sanity.py", "tables", "report", "pixels.py", "results.py", "merging.py")


@cache
def code_fingerprint(places: tuple[str, ...] = CODE_OF_ROWS) -> str:
    """A digest of some of the audit's code.

    Args:
        places: Modules and packages of the audit.
    """
    package = Path(audit.__file__).parent
    digest = hashlib.sha256()
    for place in places:
        path = package / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(package)} {sha256_of(file)}\n".encode())
    return digest.hexdigest()


def fingerprint_of(identity: Mapping[str, Any]) -> str:
    """A digest of everything that decides what the rows are."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """The versions of what computed the run."""
    return {
        "audit": audit.__version__,
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def checksums(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Size and digest of files of a run."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in names
    }


def checksums_in(storage: Storage, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Size and digest of files where a run lives, one after the other in memory.

    Raises:
        OutputError: If the store refuses or does not answer.
    """

    def of(name: str) -> tuple[str, dict[str, Any]]:
        content = storage.read(name)
        return name, {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    with ThreadPoolExecutor(_THREADS) as threads:
        return dict(threads.map(of, names))


def is_summed_run(manifest: Mapping[str, Any]) -> bool:
    """Whether a run's tables are made of sums, its rows being too many."""
    basis = manifest.get("totals", {}).get("basis")
    return isinstance(basis, Mapping) and basis.get("how") == "summed"


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Declare a run complete."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / NAME, (text + "\n").encode())


def status_of(folder: Path) -> str | None:
    """What a folder's manifest says that it is of, ``None`` if it cannot be read."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return str(content["status"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_manifest(
    folder: Path, but: Callable[[str], bool] = lambda name: False
) -> dict[str, Any] | None:
    """The manifest of a complete run whose files are all as it says, else ``None``.

    Args:
        folder: The run's.
        but: Tells of a file's name whether it need not be looked at.
    """
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if content["status"] != COMPLETE or _flaw(folder, content, but) is not None:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(content)


def find_flaw(folder: Path) -> str:
    """In words, what keeps :func:`read_manifest` from taking a folder for a complete run.

    Args:
        folder: One with a manifest, of which it says ``None``.
    """
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if content["status"] != COMPLETE:
            return f"{NAME} says '{content['status']}'"
        return _flaw(folder, content) or "all as it should be by now"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{NAME} cannot be read: it is cut off or altered"


def _flaw(
    folder: Path, content: Mapping[str, Any], but: Callable[[str], bool] = lambda name: False
) -> str | None:
    """The first file that is not as the manifest says, and how."""
    # A copy of a run in an object store lacks rows that are too many to be copied.
    copied = is_summed_run(content) and not (folder / "samples").exists()
    for name, expected in content["files"].items():
        path = folder / name
        if but(name) or (copied and name.startswith("samples/")):
            continue
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != expected["bytes"]:
            return f"{name} has {size:,} bytes, the manifest says {expected['bytes']:,}"
        if sha256_of(path) != expected["sha256"]:
            return f"{name} holds something else than the manifest says"
    return None
