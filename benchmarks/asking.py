"""The options that the scripts share."""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.machine import describe_machine
from benchmarks.results import About


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with what all scripts take.

    Args:
        doc: The script's docstring; its first line describes it.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0))
    made.add_argument("--device", default="cpu", help="cpu, cuda")
    made.add_argument("--threads", type=int, default=cores, help="of torch (all cores)")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--quick", action="store_true", help="little and once, to try the script")
    made.add_argument("--keep", type=Path, help="put the figures into this Parquet file")
    made.add_argument("--no-compile", dest="compiled", action="store_false")
    return made


def settled(made: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the options and set the process up.

    Args:
        made: From :func:`parser`.
        arguments: ``None`` takes the command's.
    """
    asked = made.parse_args(arguments)
    if asked.quick:
        asked.rounds = 1
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore")
    return asked


def about(asked: argparse.Namespace, section: str, subject: str, *setting: str) -> About:
    """What the rows of a measurement share.

    Args:
        asked: The options.
        section: Which measurement.
        subject: On what.
        *setting: How, beside the threads.
    """
    words = list(setting)
    if asked.device == "cpu":
        words.append(f"{asked.threads} thread{'s' if asked.threads > 1 else ''}")
    return About(
        machine=describe_machine(asked.device), section=section, subject=subject,
        setting=", ".join(words),
    )  # fmt: skip


def chosen(text: str | None, usual: Sequence[str]) -> list[str]:
    """A list with commas; ``None`` for the usual one."""
    return list(usual) if text is None else [part.strip() for part in text.split(",")]
