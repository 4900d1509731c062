"""Which device computes."""

from __future__ import annotations

import torch

from audit.errors import UsageError

CPU = torch.device("cpu")


def pick_device(name: str) -> torch.device:
    """The device of a name, proven to work.

    Args:
        name: ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1``.

    Returns:
        The device.

    Raises:
        UsageError: If it cannot compute on this machine.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"the device '{name}' cannot be used",
            expected="auto, cpu, or an accelerator of this machine such as cuda",
            found=str(error).splitlines()[0],
        ) from error
    return device
