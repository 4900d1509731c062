"""Everything that a run reads, opened and checked, and the name that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from audit.config import NOT_IN_FINGERPRINT, AuditConfig
from audit.data import MaskFiles, Split, open_split
from audit.devices import pick_device
from audit.errors import UsageError
from audit.files import make_folder
from audit.models import (
    Classifier,
    Cut,
    PreprocessingFlags,
    Request,
    Wanted,
    cut,
    open_classifier,
)
from audit.run.manifest import code_fingerprint, fingerprint_of
from audit.run.rows import SCHEMA_VERSION


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Everything that a run reads, opened and checked."""

    config: AuditConfig
    split: Split
    classifier: Classifier
    parts: Cut
    masks: str
    device: torch.device
    data_fingerprint: str
    fingerprint: str
    folder: Path

    @property
    def run_id(self) -> str:
        """The run's name: equal settings on equal data give the same."""
        return self.folder.name


def open_inputs(config: AuditConfig, network: nn.Module | None = None) -> Opened:
    """Open the split and the classifier, and settle what the run is called.

    Args:
        config: The settings.
        network: The network, where the caller holds it; else ``config.model`` names it.

    Returns:
        What the run reads; its folder exists.

    Raises:
        AuditError: If the split, the weights or the device cannot be used.
    """
    split = open_split(
        config.dataset,
        config.split,
        root=config.data_root,
        masks=MaskFiles(root=config.mask_root),
        limit=config.limit,
        download=config.download,
    )
    classifier = _open_classifier(config, split, network)
    if classifier.preprocessing.geometry is not None:
        split = split.framed(classifier.preprocessing.geometry)
    parts = cut(
        classifier.module, split.image_size, layers=config.target_layer, batch=classifier.batch
    )
    masks = _mask_source(config.masks, config.dataset, split)
    device = pick_device(config.device)
    data_fingerprint = split.fingerprint()
    fingerprint = fingerprint_of(
        config.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT))
        | {
            "data": data_fingerprint,
            "weights": classifier.sha256,
            "architecture": classifier.architecture,
            "mean": classifier.mean,
            "std": classifier.std,
            "layer": [parts.layer, parts.how],
            "classes": classifier.classmap.identity() if classifier.classmap else None,
            "masks": masks,
            "code": code_fingerprint(),
            "schema": SCHEMA_VERSION,
            "device": device.type,
            "libraries": _versions(classifier.module),
        }
    )
    folder = config.out / split.name / classifier.architecture / fingerprint[:12]
    return Opened(
        config=config,
        split=split,
        classifier=classifier,
        parts=parts,
        masks=masks,
        device=device,
        data_fingerprint=data_fingerprint,
        fingerprint=fingerprint,
        folder=make_folder(folder),
    )


def _open_classifier(config: AuditConfig, split: Split, network: nn.Module | None) -> Classifier:
    refuse_two_networks(config, network)
    request = Request(
        model=config.model,
        checkpoint=config.checkpoint,
        key=config.checkpoint_key,
        dataset=config.dataset,
        num_classes=len(split.classes),
        download=config.download,
    )
    wanted = Wanted(
        classes=split.classes,
        # Folders hold images of all sizes; the other datasets have one.
        native_size=None if config.dataset.startswith("folder:") else split.image_size,
        flags=flags_of(config),
        class_map=config.class_map,
        class_map_by=config.class_map_by,
    )
    return open_classifier(request if network is None else network, wanted)


def refuse_two_networks(config: AuditConfig, network: nn.Module | None) -> None:
    """Refuse a network that is at hand beside the name of another.

    Raises:
        UsageError: If both are given.
    """
    named = [
        name
        for name in ("model", "checkpoint", "checkpoint_key")
        if getattr(config, name) is not None
    ]
    if network is not None and named:
        raise UsageError(
            "a network was given, and the name of one beside it",
            expected="either network=…, with its weights loaded, or model and checkpoint",
            found=", ".join(named),
        )


def _versions(module: nn.Module) -> dict[str, str]:
    """The libraries that decode, resize and compute, and those whose code the network is."""
    names = {"torch", "torchvision", "pillow"}
    homes = {type(part).__module__.partition(".")[0] for part in module.modules()}
    names |= homes & {"timm"}
    return {name: version(name) for name in sorted(names)}


def flags_of(config: AuditConfig) -> PreprocessingFlags:
    """What the settings say of preprocessing."""
    return PreprocessingFlags(
        preset=config.preprocessing,
        image_size=config.image_size,
        resize=config.resize,
        interpolation=config.interpolation,
        mean=config.mean,
        std=config.std,
    )


def _mask_source(wanted: str, dataset: str, split: Split) -> str:
    if wanted == "dataset" and not split.has_masks:
        raise UsageError(
            f"{split.name} has no object masks",
            expected="a dataset with masks for --masks dataset",
            remedy="use --masks estimated"
            + (", or give a folder of masks with --mask-root" if ":" in dataset else ""),
        )
    if wanted == "auto":
        return "dataset" if split.has_masks else "estimated"
    return wanted
