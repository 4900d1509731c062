from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.job import run_audit
from tests.engines import faulty
from tests.engines.running import SETTINGS


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the faulty dataset, on Python's path."""
    folder = tmp_path_factory.mktemp("faulty")
    shutil.copy(str(faulty.__file__), folder / "faulty.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        # The user's code in the current folder is part of what a network is.
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        yield folder


@pytest.fixture(scope="package")
def undisturbed(place: Path) -> Path:
    """A run in one process, without faults."""
    run_audit(out=place / "undisturbed", **SETTINGS)
    return run_in(place / "undisturbed")


@pytest.fixture
def fault(place: Path) -> Iterator[Callable[[str], object]]:
    """Have something go wrong from now on, or with "" nothing."""
    file = place / "fault"

    def set_fault(what: str) -> None:
        file.unlink(missing_ok=True)
        if what:
            file.write_text(what)

    yield set_fault
    set_fault("")


def run_in(out: Path) -> Path:
    return out / "faulty" / "faulty-network" / "here"
