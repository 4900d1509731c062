"""The machine in words, for tables that come from several."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

# What decides how fast a processor multiplies matrices, the best first.
_FLAGS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "asimd")
_NAMES = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bf16", "avx512f": "AVX-512",
          "avx2": "AVX2", "asimd": "NEON"}  # fmt: skip


def describe_machine(device: str = "cpu") -> str:
    """One line: cores, processor, memory, torch, and the GPU where one is used.

    Args:
        device: Where was computed.
    """
    info = _read("/proc/cpuinfo")
    model = _field(info, "model name") or "unknown processor"
    family = _field(info, "cpu family")
    flags = (_field(info, "flags") or _field(info, "Features") or "").split()
    simd = next((_NAMES[flag] for flag in _FLAGS if flag in flags), "no SIMD known")
    cores = len(os.sched_getaffinity(0))
    words = [f"{cores} cores of {model}" + (f" (family {family})" if family else "") + f", {simd}"]
    if kilobytes := re.search(r"MemTotal:\s+(\d+)", _read("/proc/meminfo")):
        words.append(f"{round(int(kilobytes[1]) / 2**20)} GiB")
    if device.startswith("cuda"):
        words.append(torch.cuda.get_device_name(device))
    return ", ".join([*words, f"torch {torch.__version__.partition('+')[0]}"])


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""
