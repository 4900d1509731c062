"""Whether compiling pays: by counting, never by timing, so that all processes of a run agree."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from audit.devices import CPU
from audit.inference.precision import computing
from audit.models.probe import probe_images

Compile = Literal["auto", "never", "always"]

# Floating-point operations of a run's features from which on compiling pays: about a quarter of an
# hour of a large GPU. On CPUs packed convolutions are as fast without it.
_PAYS = {"cuda": 1e17}
# With fewer samples nothing is counted: no network is that large.
_LEAST_SAMPLES = 1000


def pays_to_compile(
    wanted: Compile,
    backbone: nn.Module,
    *,
    samples: int,
    image_size: tuple[int, int],
    device: torch.device,
) -> bool:
    """Whether the backbone shall be compiled.

    Args:
        wanted: ``auto`` decides by the operations of the whole run.
        backbone: Normalised images to features.
        samples: Of the run.
        image_size: H and W.
        device: Its kind decides.
    """
    if wanted != "auto":
        return wanted == "always"
    if samples < _LEAST_SAMPLES or device.type not in _PAYS:
        return False
    return samples * operations(backbone, image_size) >= _PAYS[device.type]


def operations(backbone: nn.Module, image_size: tuple[int, int]) -> int:
    """Floating-point operations of one image's features; a multiplication and an addition are two.

    Args:
        backbone: Normalised images to features.
        image_size: H and W.

    Returns:
        Those of convolutions, matrix products and attention.
    """
    from torch.utils.flop_counter import FlopCounterMode

    weight = next(backbone.parameters(), None)
    device = CPU if weight is None else weight.device
    counter = FlopCounterMode(display=False)
    with computing("float32", device), counter:
        backbone(probe_images(1, image_size).to(device))
    return int(counter.get_total_flops())
