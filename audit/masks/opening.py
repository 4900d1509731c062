"""From the names of mask families to what makes and keeps their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from audit.data import Split
from audit.masks.background_removal import RembgEstimator
from audit.masks.cache import MaskCache
from audit.masks.estimators import DefaultEstimator, Estimator
from audit.masks.families import MaskFamilies

FOLDER = "masks"  # under the folder of caches


def open_families(
    names: Sequence[str],
    split: Split,
    fingerprint: str,
    *,
    cache: Path,
    device: torch.device,
    workers: int = 0,
    download: bool = False,
) -> MaskFamilies:
    """Where the masks of some families come from; nothing is estimated yet.

    Args:
        names: The main family, then the others.
        split: The samples, in the geometry that the model sees.
        fingerprint: Their digest.
        cache: The folder of caches.
        device: Where to estimate.
        workers: Processes that decode.
        download: Allow rembg to download a network.

    Returns:
        The families with their caches.

    Raises:
        UsageError: If rembg or its network is absent, or the images are too small for it.
    """
    caches: dict[str, MaskCache] = {}
    for name in names:
        estimator = _estimator_of(name, split.image_size, device, download)
        if estimator is not None and estimator.name not in caches:
            folder = cache / FOLDER
            caches[estimator.name] = MaskCache(split, fingerprint, folder, estimator, workers)
    return MaskFamilies(
        names=names,
        image_size=split.image_size,
        device=device,
        estimated=caches.pop(DefaultEstimator.name, None),
        removed=next(iter(caches.values()), None),
    )


def _estimator_of(
    name: str, image_size: tuple[int, int], device: torch.device, download: bool
) -> Estimator | None:
    """What makes a family's masks; ``None`` where they need no cache."""
    family, _, session = name.partition(":")
    if family in ("estimated", "component"):
        return DefaultEstimator(device, image_size)
    if family == "rembg":
        return RembgEstimator(session, image_size, device, download=download)
    return None
