"""What the settings of a run mean for its estimated masks alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from audit.config import AuditConfig
from audit.data import Split
from audit.devices import pick_device
from audit.errors import UsageError
from audit.inputs import cache_folder, count_workers, open_data, settle_geometry
from audit.masks.families import MaskFamilies
from audit.masks.opening import open_families
from audit.models.preprocessing import Preprocessing

DATASET = "dataset"


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A split in the geometry of a run, and where its estimated masks come from.

    Attributes:
        split: The samples.
        families: One or more that are estimated.
        truth: The same samples with true masks, where these are asked for.
        frame: What was done to the pictures, for people.
        device: Where to estimate.
        workers: Processes that decode.
    """

    split: Split
    families: MaskFamilies
    truth: Split | None
    frame: str
    device: torch.device
    workers: int


def open_masking(config: AuditConfig, against: str | None = None) -> Opened:
    """Open the split as a run with these settings does, and the caches that it looks into.

    Args:
        config: The settings.
        against: ``dataset`` or a folder of true masks.

    Returns:
        The split and its families of masks.

    Raises:
        AuditError: If data, model or estimator cannot be opened.
    """
    names = estimated_families(config)
    stored = open_data(_without_values(config) if against not in (None, DATASET) else config)
    geometry = settle_geometry(config, stored)
    split = stored if geometry is None else stored.framed(geometry)
    truth = None
    if against is not None:
        truth = _open_truth(config, stored, against)
        truth = truth if geometry is None else truth.framed(geometry)
    device = pick_device(config.device)
    workers = count_workers(config, split)
    families = open_families(
        names,
        split,
        split.fingerprint(),
        cache=cache_folder(config),
        device=device,
        workers=workers,
        download=config.download,
    )
    frame = Preprocessing(geometry=geometry).describe().partition(";")[0]
    return Opened(
        split=split, families=families, truth=truth, frame=frame, device=device, workers=workers
    )


def estimated_families(config: AuditConfig) -> tuple[str, ...]:
    """Those of the wanted families that are estimated; ``auto`` means the default estimator.

    Raises:
        UsageError: If none is.

    Example:
        >>> estimated_families(AuditConfig(masks=("auto", "ellipse")))
        ('estimated', 'ellipse')
    """
    names = ("estimated" if name == "auto" else name for name in config.masks)
    estimated = tuple(dict.fromkeys(name for name in names if name != DATASET))
    if not estimated:
        raise UsageError(
            "the dataset's own masks need no estimating",
            expected="--masks estimated | component | ellipse | rembg:SESSION",
            found="--masks dataset",
        )
    return estimated


def _without_values(config: AuditConfig) -> AuditConfig:
    """What mask files' values mean is said of the true masks, if there are no others."""
    if config.mask_root is not None:
        return config
    return config.model_copy(update={"mask_object": (), "mask_unknown": ()})


def _open_truth(config: AuditConfig, stored: Split, against: str) -> Split:
    """The same samples with true masks."""
    if against == DATASET:
        if not stored.has_masks or stored.mask_kind != DATASET:
            raise UsageError(
                f"{stored.name} has no object masks to judge by",
                expected="--against dataset with masks of the dataset's own",
                found="boxes" if stored.has_masks else "none",
                remedy="name a folder of masks: --against FOLDER",
            )
        return stored
    if not config.dataset.startswith("folder:"):
        raise UsageError(
            "--against FOLDER goes with folder:PATH datasets only",
            found=f"--dataset {config.dataset}",
            remedy="use --against dataset where the dataset has masks",
        )
    update = {"mask_root": Path(against), "boxes": None}
    return open_data(config.model_copy(update=update))
