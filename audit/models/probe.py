"""Dry runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from audit.errors import ModelError
from audit.models.frozen import evaluation

# Words of errors that come of images of another size than the network's.
_OF_SIZE = ("size", "shape", "mat1", "dimension", "height", "width", "expected")


def probe_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Images for a dry run: smooth, different, neither symmetric nor constant.

    Args:
        count: N.
        size: H and W.
        seed: Draws others.

    Returns:
        Float N×3×H×W of about unit spread.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 8, 8, generator=generator, dtype=torch.float32)
    fine = torch.randn(count, 3, *size, generator=generator, dtype=torch.float32)
    smooth = nn.functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)
    return smooth + 0.3 * fine


def run_probe(module: nn.Module, images: Tensor, name: str) -> Any:
    """Run a network on images, and say what is wrong if it cannot.

    Args:
        module: The network.
        images: Any.
        name: The network's, for the message.

    Returns:
        Whatever the network returns.

    Raises:
        ModelError: If it raises.
    """
    size = f"{images.shape[2]}×{images.shape[3]}"
    try:
        with evaluation(module), torch.no_grad():
            return module(images)
    except Exception as error:  # a user's network may raise anything
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = (lines[-1] if lines else type(error).__name__)[:200]
        if "cuda" in str(error).lower():
            raise ModelError(
                f"'{name}' insists on a GPU: its code or its graph names the device",
                expected="a network that computes where its input is",
                found=text,
                remedy="export it on the CPU, or use x.device instead of 'cuda' in its code",
            ) from error
        raise ModelError(
            f"the model '{name}' does not run on {size} images",
            expected="images N×3×H×W to logits N×classes",
            found=text,
            remedy="set --image-size to the size it was trained on"
            if any(word in str(error).lower() for word in _OF_SIZE)
            else f"call it in Python on a tensor of 2×3×{size}, under torch.no_grad()",
        ) from error
