"""The backbone as a run's settings want it."""

from __future__ import annotations

import torch

from audit.config import AuditConfig
from audit.inference.backbone import FastBackbone
from audit.inference.compiling import Tell, log_warning
from audit.inference.deciding import pays_to_compile
from audit.inference.precision import can_compute, settle_precision
from audit.models import Cut


def backbone_of(
    config: AuditConfig,
    parts: Cut,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    image_size: tuple[int, int],
    samples: int,
    device: torch.device,
    tell: Tell = log_warning,
) -> FastBackbone:
    """The fast backbone of a run; every process of it decides alike.

    Args:
        config: The settings.
        parts: The network, cut, still on the CPU.
        mean: Of the normalisation.
        std: Likewise.
        image_size: H and W.
        samples: Of the whole run.
        device: Where it will compute; the caller moves it, and sets its ``batch``.
        tell: Is told in one line where something was given up.
    """
    precision = settle_precision("auto", device) if config.precision == "auto" else config.precision
    # Whoever concludes a run elsewhere may lack what its rows were computed in.
    precision = precision if can_compute(precision, device) else "float32"
    pays = pays_to_compile(
        config.compile, parts.backbone, samples=samples, image_size=image_size, device=device
    )
    fast = FastBackbone(
        parts.backbone, mean=mean, std=std, precision=precision, compiled=pays, tell=tell
    )
    # Before the run's batches come single images, and donors.
    fast.batch = 0
    return fast
