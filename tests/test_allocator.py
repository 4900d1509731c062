"""What the allocator does with freed memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

PIECES, BYTES = 6, 16 * 2**20
# How much of the memory of some pieces, written to and freed, the process still holds.
SCRIPT = f"""
import os, sys
import numpy as np
from audit.memory import keep_freed_memory

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def use():
    pieces = [np.ones({BYTES}, np.uint8) for _ in range({PIECES})]
    before = held()
    del pieces
    return before

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
use()
print(use() - held())
"""


def given_back(way: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, way], check=False, capture_output=True, text=True
    )
    if ran.returncode == 3:
        pytest.skip("the C library is not glibc: freed memory is its own affair")
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_freed_memory_is_kept() -> None:
    assert given_back("kept") < BYTES
    assert given_back("as usual") > (PIECES - 1) * BYTES
