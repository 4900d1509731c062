"""Killed at random moments and started again, an audit ends as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The full campaign: AUDIT_KILLS=10 make test ARGS=tests/run/test_kill.py
KILLS = int(os.environ.get("AUDIT_KILLS", "2"))


def command(out: Path) -> list[str]:
    flags = [
        "--dataset",
        "demo",
        "--limit",
        "400",
        "--masks",
        "estimated",
        "--shard-size",
        "60",
        "--batch-size",
        "30",
        "--edits",
        "100",
    ]
    return [sys.executable, "-m", "audit", "run", *flags, "--out", str(out)]


def contents(out: Path) -> dict[str, str]:
    """Digests of everything but the manifest, which holds times, and the page, which shows them."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("manifest.json", "index.html")
    }


def names(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*")}


@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    started = time.monotonic()
    subprocess.run(command(undisturbed), check=True, capture_output=True)
    duration = time.monotonic() - started
    expected = contents(undisturbed)
    assert any(name.endswith("classes.parquet") for name in expected)
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    for number in range(KILLS):
        out = tmp_path / f"killed-{number}"
        moment = moments.uniform(0.2, 1.0) * duration
        process = subprocess.Popen(
            command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        looks_finished = list(out.rglob("manifest.json"))
        subprocess.run(command(out), check=True, capture_output=True)
        context = f"seed {seed}, kill {number} after {moment:.2f} s of {duration:.2f} s"
        assert contents(out) == expected, context
        assert names(out) == names(undisturbed), context
        print(f"{context}: the same; was finished: {bool(looks_finished)}")
