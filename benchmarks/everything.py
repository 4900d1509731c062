"""All measurements, one process after the other; then docs/speed.md is written anew.

python -m benchmarks.everything [--only step,peers,…] [--quick] [--device cuda] [--data-root DIR]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import FILE

SECTIONS = ("step", "peers", "job", "parts", "growth", "memory", "engines")
# Networks that small machines compute in bf16 in good time, and those that gain from large batches.
_BF16, _SMALL = "resnet20,resnet50", "cnn,resnet20"


def plan(asked: argparse.Namespace) -> list[list[str]]:
    """The scripts to run, with their options.

    Args:
        asked: The options.
    """
    data = ["--data-root", str(asked.data_root)] if asked.data_root else []
    weights = ["--checkpoint", str(asked.checkpoint)] if asked.checkpoint else []
    limited = ["--limit", "3000"] if data else []
    every = {
        "step": _steps(asked),
        "peers": [["peers", "--rounds", "7"]],
        "job": [["job", *data, *weights]],
        "parts": [["parts", *data]],
        "growth": [["growth"]],
        "memory": [["memory", "--batches", "1000"]],
        "engines": [["engines", *data, *limited]],
    }
    wanted = [name.strip() for name in asked.only.split(",")] if asked.only else list(SECTIONS)
    if unknown := [name for name in wanted if name not in every]:
        sys.exit(f"there is no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    return [script for name in wanted for script in every[name]]


def _steps(asked: argparse.Namespace) -> list[list[str]]:
    if asked.quick:
        return [["step", "--subjects", "cnn,resnet20"]]
    if asked.device == "cpu":
        return [
            ["step"],
            ["step", "--subjects", "resnet20", "--threads", "1"],
            ["step", "--subjects", _BF16, "--precisions", "bf16"],
        ]
    return [
        ["step", "--precisions", "float32,tf32,bf16,fp16"],
        ["step", "--subjects", _SMALL, "--precisions", "bf16", "--batches",
         "1,32,1024,4096,8192,32768"],
        ["step", "--subjects", "lite0,resnet50,vit", "--precisions", "bf16", "--batches",
         "64,256"],
    ]  # fmt: skip


def options() -> argparse.ArgumentParser:
    """What can be asked for."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--only", help="some of " + ", ".join(SECTIONS))
    made.add_argument("--quick", action="store_true", help="little, once, and nothing is kept")
    made.add_argument("--device", default="cpu")
    made.add_argument("--data-root", type=Path, help="folder that holds cifar10/")
    made.add_argument("--checkpoint", type=Path, help="weights of resnet20")
    made.add_argument("--keep", type=Path, default=FILE)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run them."""
    asked = options().parse_args(arguments)
    shared = ["--device", asked.device]
    shared += ["--quick"] if asked.quick else ["--keep", str(asked.keep)]
    failed = []
    for script, *more in plan(asked):
        started = time.monotonic()
        print(f"\n== {' '.join([script, *more])}; load {os.getloadavg()[0]:.1f}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{script}", *shared, *more]
        if subprocess.run(command, check=False).returncode:
            failed.append(script)
        print(f"== took {time.monotonic() - started:.0f} s", flush=True)
    if not asked.quick:
        page = [sys.executable, "-m", "benchmarks.speed", "--from", str(asked.keep)]
        subprocess.run(page, check=True)
        targets = [sys.executable, "-m", "benchmarks.targets", "--from", str(asked.keep)]
        subprocess.run(targets, check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
