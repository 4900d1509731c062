"""Names that the examples of docstrings use; a plugin, because they lie outside of ``tests``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any], tmp_path: Path) -> None:
    doctest_namespace["torch"] = torch
    # A folder of its own for every example: runs of others must not lie in it.
    doctest_namespace["tmp"] = tmp_path
