"""Everything that a run reads, opened and checked, and the name that follows from it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from audit.config import NOT_IN_FINGERPRINT, AuditConfig
from audit.data import MaskFiles, ReadPolicy, Split, open_split
from audit.data.geometry import Geometry
from audit.data.labels import BY_NUMBER, CLASSES, ODD_LABELS
from audit.data.loader import workers_for
from audit.data.reading import OutOfReach
from audit.data.split import NamedSplit
from audit.devices import pick_device
from audit.errors import AuditError, DataError, UsageError
from audit.files import make_folder
from audit.inference.precision import settle_precision
from audit.masks.families import MaskFamilies
from audit.masks.opening import open_families
from audit.models import (
    Classifier,
    Cut,
    PreprocessingFlags,
    Request,
    Wanted,
    cut,
    open_classifier,
)
from audit.models.preprocessing import Preprocessing
from audit.run.copies import copy_folder, home_cache
from audit.run.manifest import code_fingerprint, fingerprint_of
from audit.run.plan import Plan, shard_size_of
from audit.run.rows import SCHEMA_VERSION
from audit.storage import Storage, is_remote, open_storage

# What other images are brought to where nobody names a model or a size.
USUAL_SIDE = 224


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Everything that a run reads, opened and checked.

    Attributes:
        plan: What all processes of the run agree on.
        storage: Where the run lives.
        folder: Where its tables and page are made; the same, unless that is an object store.
        run_id: What the run is called: without a name of its own, equal settings on equal data
            give the same.
    """

    config: AuditConfig
    split: Split
    classifier: Classifier
    parts: Cut
    families: MaskFamilies
    device: torch.device
    workers: int
    data_fingerprint: str
    plan: Plan
    storage: Storage
    folder: Path
    run_id: str

    @property
    def fingerprint(self) -> str:
        """Of everything that decides what the rows are."""
        return self.plan.fingerprint

    @property
    def shard_size(self) -> int:
        """Samples a part."""
        return self.plan.shard_size

    @property
    def remote(self) -> bool:
        """Whether the run lives in an object store; its folder then is a copy to work in."""
        return is_remote(self.storage.place)


def open_inputs(
    config: AuditConfig,
    network: nn.Module | None = None,
    *,
    rows_by: str | None = None,
    place: str | None = None,
) -> Opened:
    """Open the split and the classifier, and settle what the run is called.

    Args:
        config: The settings.
        network: The network, where the caller holds it; else ``config.model`` names it.
        rows_by: The kind of device that makes the rows; ``None`` for the one that is opened.
        place: The run's folder or address, where it is known; else it follows from the settings.

    Returns:
        What the run reads; its folder exists.

    Raises:
        AuditError: If the split, the weights or the device cannot be used.
    """
    if isinstance(config.out, str):
        open_storage(config.out)  # Refuses what is no address before hours of work.
    split = open_data(config)
    classifier = _open_classifier(config, split, network)
    named_by_model = classifier.classes != tuple(split.classes)
    if named_by_model:
        split = NamedSplit(split, classifier.classes)
    if classifier.preprocessing.geometry is not None:
        split = split.framed(classifier.preprocessing.geometry)
    parts = cut(
        classifier.module, split.image_size, layers=config.target_layer, batch=classifier.batch
    )
    names = mask_families(config, split)
    device = pick_device(config.device)
    if rows_by is None:
        settled = settle_precision(config.precision, device)
        config = config.model_copy(update={"precision": settled})
    workers = count_workers(config, split)
    with _within_reach():
        data_fingerprint = split.fingerprint()
    families = open_families(
        names,
        split,
        data_fingerprint,
        cache=cache_folder(config),
        device=device,
        workers=workers,
        download=config.download,
    )
    shard_size = shard_size_of(config.shard_size, len(split))
    facets = config.model_dump(mode="json", exclude=set(NOT_IN_FINGERPRINT)) | {
        "data": data_fingerprint,
        "weights": classifier.sha256,
        "architecture": classifier.architecture,
        "mean": classifier.mean,
        "std": classifier.std,
        "layer": [parts.layer, parts.how],
        "classes": _identity_of_classes(classifier, named_by_model=named_by_model),
        "masks": [*names, *(cache.estimator.fingerprint() for cache in families.caches)],
        "code": code_fingerprint(),
        "schema": SCHEMA_VERSION,
        "device": rows_by or device.type,
        "libraries": _versions(classifier.module),
        "shard_size": shard_size,
    }
    fingerprint = fingerprint_of(facets)
    run_id = config.run or fingerprint[:12]
    if place is None:
        name = f"{split.name}/{classifier.architecture}/{run_id}"
        out = config.out
        whole = f"{out.rstrip('/')}/{name}" if isinstance(out, str) else out / name
        storage, folder = _at(whole, config)
    else:
        storage, folder = _at(place, config)
        run_id = folder.name if not is_remote(place) else place.rstrip("/").rpartition("/")[2]
    return Opened(
        config=config,
        split=split,
        classifier=classifier,
        parts=parts,
        families=families,
        device=device,
        workers=workers,
        data_fingerprint=data_fingerprint,
        plan=Plan(
            fingerprint=fingerprint,
            facets=facets,
            samples=len(split),
            shard_size=shard_size,
            config=config.model_dump(mode="json"),
            given=network is not None,
        ),
        storage=storage,
        folder=folder,
        run_id=run_id,
    )


def cache_folder(config: AuditConfig) -> Path:
    """Where estimated masks, indices and copies of remote runs are kept."""
    if config.cache is not None:
        return config.cache
    return home_cache() if isinstance(config.out, str) else config.out / ".cache"


def _at(place: str | Path, config: AuditConfig) -> tuple[Storage, Path]:
    """Where a run lives, and the folder that its tables are made in."""
    storage = open_storage(place)
    if is_remote(str(place)):
        return storage, copy_folder(storage.place, cache_folder(config))
    return storage, make_folder(Path(storage.place))


def _open_classifier(config: AuditConfig, split: Split, network: nn.Module | None) -> Classifier:
    refuse_two_networks(config, network)
    request = _request(config, split)
    return open_classifier(
        request if network is None else network, _wanted(config, split, split.classes)
    )


def _identity_of_classes(classifier: Classifier, *, named_by_model: bool) -> dict[str, Any] | None:
    """What the data's own class names do not say of the classes."""
    if named_by_model:
        return {"names": list(classifier.classes)}
    return classifier.classmap.identity() if classifier.classmap else None


def settle_geometry(config: AuditConfig, split: Split) -> Geometry | None:
    """How pictures become what the model sees, for work that needs no logits.

    Args:
        config: The settings; where they name no model, flags and the dataset decide.
        split: The samples, as they were stored.

    Returns:
        The geometry; ``None`` leaves the pictures as they are.

    Raises:
        AuditError: If the model that is named cannot be opened.
    """
    if config.model is not None or config.checkpoint is not None:
        # Its classes are left aside, so that no class map is asked for.
        classifier = open_classifier(_request(config, split), _wanted(config, split, None))
        return classifier.preprocessing.geometry
    own = None if split.stored_size is not None else Geometry.square(USUAL_SIDE)
    return flags_of(config).applied_to(Preprocessing(geometry=own)).geometry


def _request(config: AuditConfig, split: Split) -> Request:
    return Request(
        model=config.model,
        checkpoint=config.checkpoint,
        key=config.checkpoint_key,
        dataset=config.dataset,
        num_classes=len(split.classes),
        download=config.download,
    )


def _wanted(config: AuditConfig, split: Split, classes: Sequence[str] | None) -> Wanted:
    return Wanted(
        classes=classes,
        by_number=split.facts.get(CLASSES) == BY_NUMBER,
        odd_labels=str(split.facts.get(ODD_LABELS, "")),
        native_size=split.stored_size,
        flags=flags_of(config),
        class_map=config.class_map if classes is not None else None,
        class_map_by=config.class_map_by,
    )


def refuse_two_networks(config: AuditConfig, network: nn.Module | None) -> None:
    """Refuse a network that is at hand beside the name of another, and what is no network.

    Raises:
        UsageError: Then.
    """
    if network is not None and not isinstance(network, nn.Module):
        raise UsageError(
            "what was given as network is none",
            expected="network=…, a torch.nn.Module; a name or a file is a model: model='resnet50'",
            found=f"{type(network).__name__} {network!r:.80}",
        )
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


def count_workers(config: AuditConfig, split: Split) -> int:
    """How many processes decode."""
    wanted = None if config.workers == "auto" else config.workers
    gpu = pick_device(config.device).type == "cuda"
    return workers_for(split, wanted, len(os.sched_getaffinity(0)), gpu=gpu)


@contextmanager
def _within_reach() -> Iterator[None]:
    """Tell a store that does not answer from data that is not there.

    Raises:
        AuditError: If a store does not answer, or refuses. That is no mistake in the settings.
    """
    try:
        yield
    except DataError as error:
        cause = error.__cause__
        if not isinstance(cause, OutOfReach):
            raise
        raise AuditError(
            error.problem,
            found=error.found or str(cause),
            remedy="run the same command again when the store answers, and accepts the credential",
        ) from error


def open_data(config: AuditConfig) -> Split:
    """The split that the settings name, in the geometry that it was stored in.

    Raises:
        DataError: If there is no such data, or it is damaged.
        AuditError: If a store does not answer, or refuses.
    """
    with _within_reach():
        return _open_data(config)


def _open_data(config: AuditConfig) -> Split:
    return open_split(
        config.dataset,
        config.split,
        root=config.data_root,
        masks=MaskFiles(
            root=config.mask_root,
            boxes=config.boxes,
            object_values=config.mask_object,
            unknown_values=config.mask_unknown,
        ),
        samples=config.samples,
        limit=config.limit,
        download=config.download,
        cache=cache_folder(config),
        policy=ReadPolicy(timeout=config.read_timeout, tries=config.read_tries),
    )


def mask_families(config: AuditConfig, split: Split) -> tuple[str, ...]:
    """Where object masks come from: what scores rest on, then what they are compared with.

    Args:
        config: The settings.
        split: The samples.

    Returns:
        ``dataset`` or ``box``, ``estimated``, ``component``, ``ellipse``, ``rembg:SESSION``.
        Estimated masks bring the two that cost nothing beside them.

    Raises:
        UsageError: If the dataset's masks are asked for and there are none.
    """
    first, *others = config.masks
    if "dataset" in config.masks and not split.has_masks:
        raise UsageError(
            f"{split.name} has no object masks",
            expected="a dataset with masks for --masks dataset",
            remedy="use --masks estimated"
            + (
                ", or give a folder of masks with --mask-root"
                if config.dataset.startswith("folder:")
                else ""
            ),
        )
    if first == "auto":
        first = "dataset" if split.has_masks else "estimated"
    if not others and first == "estimated":
        others = ["component", "ellipse"]
    if not others and first.startswith("rembg:"):
        others = ["estimated", "component", "ellipse"]
    kinds = [split.mask_kind if name == "dataset" else name for name in (first, *others)]
    return tuple(dict.fromkeys(kinds))
