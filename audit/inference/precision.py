"""With how many digits the network's features are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from audit.config import Auto, Precision
from audit.errors import UsageError

# How far features may be from those in float32, relative to the largest, before something is wrong.
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "tf32": 2e-2, "bf16": 1e-1, "fp16": 2e-2}
TYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
# The first GPUs that multiply bf16 and tf32 by their tensor cores.
_AMPERE = (8, 0)


def settle_precision(wanted: Precision | Auto, device: torch.device) -> Precision:
    """The precision that a run computes its features in.

    Args:
        wanted: ``auto`` takes bf16 on GPUs with tensor cores for it and on CPUs with
            instructions for it (AVX-512 BF16, AMX), float32 elsewhere: by what the device is,
            never by timing.
        device: Where they are computed.

    Raises:
        UsageError: If the device cannot compute in it.

    Example:
        >>> settle_precision("float32", torch.device("cpu"))
        'float32'
    """
    if wanted == "auto":
        return "bf16" if _gains_from_bf16(device) else "float32"
    if not can_compute(wanted, device):
        raise UsageError(
            f"the device {device} does not compute in {wanted}",
            expected="float32, which every device does, or auto"
            + ("; tf32 is for GPUs of NVIDIA from Ampere on" if wanted == "tf32" else ""),
            remedy="leave --precision, or give --precision auto",
        )
    return wanted


def can_compute(precision: Precision, device: torch.device) -> bool:
    """Whether a device can compute in a precision, fast or not.

    Args:
        precision: Which.
        device: Which.

    Example:
        >>> can_compute("tf32", torch.device("cpu"))
        False
    """
    if precision == "float32":
        return True
    if precision == "tf32":
        return _is_ampere(device)
    if device.type == "cuda" and precision == "bf16":
        return _is_ampere(device)
    try:
        given = torch.ones(1, 2, 4, 4, dtype=TYPES[precision], device=device)
        weight = torch.ones(2, 2, 3, 3, dtype=TYPES[precision], device=device)
        found = torch.nn.functional.linear(torch.conv2d(given, weight), given[0, :, 0, :2])
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return bool(found.isfinite().all())


def _gains_from_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return _is_ampere(device)
    known = (torch.cpu._is_avx512_bf16_supported, torch.cpu._is_amx_tile_supported)
    return device.type == "cpu" and any(is_there() for is_there in known)


def _is_ampere(device: torch.device) -> bool:
    return (
        device.type == "cuda"
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= _AMPERE
    )


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """The features' passes: the types of a precision, and the fastest kinds of attention.

    Args:
        precision: Settled.
        device: Where they are computed.
    """
    dtype = TYPES[precision]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        # No forward mode passes through here, which the others lack.
        fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
        stack.enter_context(sdpa_kernel(fused))
        if dtype != torch.float32:
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
        if precision == "tf32":
            stack.enter_context(_tf32())
        yield


@contextmanager
def _tf32() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=True
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
