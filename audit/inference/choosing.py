"""The backbone as a run's settings want it."""

from __future__ import annotations

import torch
from torch import fx, nn

from audit.config import AuditConfig
from audit.inference.backbone import FastBackbone
from audit.inference.building import pack_linear, rebuilt
from audit.inference.compiling import Tell, difference, log_warning
from audit.inference.deciding import pays_to_compile
from audit.inference.folding import copy_graph, finish
from audit.inference.precision import TOLERANCES, can_compute, settle_precision
from audit.models import Cut

_PROBES = 8


@torch.no_grad()
def head_of(parts: Cut, tell: Tell = log_warning) -> nn.Module:
    """The head of a network with products as fast as the CPU has them.

    Args:
        parts: The network, cut, on the CPU; stays as it is.
        tell: Is told in one line where the copy was given up.

    Returns:
        A copy with linear maps laid out for the processor, if its logits are the head's; else the
        head itself. On other devices the copy computes as the head does.
    """
    if parts.rest:
        return parts.head
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((_PROBES, parts.channels, *parts.grid), generator=generator)
    try:
        made = rebuilt(parts.head, _with_packed_linear)
        if made is None:
            return parts.head
        gap = difference(made(features), parts.head(features))
    except Exception as error:  # noqa: BLE001  # torch's own operations differ by version
        tell(f"a faster way to compute the head was left: {type(error).__name__}")
        return parts.head
    if gap is None or not gap <= TOLERANCES["float32"]:
        tell(f"a faster way to compute the head was left: logits are off by {gap or 0:.1e}")
        return parts.head
    return made


def _with_packed_linear(graph: fx.GraphModule) -> fx.GraphModule:
    copied = copy_graph(graph)
    pack_linear(copied)
    finish(copied)
    return copied


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
