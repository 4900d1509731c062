"""The clean weights that every model of a benchmark begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audit.certify.known import KnownData
from audit.certify.settings import CertifySettings
from audit.certify.training import Schedule, Stats, fit, load_model, save_model
from audit.errors import ModelError
from audit.files import sha256_of
from audit.models import PreprocessingFlags, Request, Wanted, build, open_classifier
from audit.models.sources import shipped_weights
from audit.run.progress import Progress
from audit.training.loop import channel_statistics

# Mirroring changes the meaning of these datasets' images.
_NOT_MIRRORED = ("demo",)


@dataclass(frozen=True, kw_only=True)
class Base:
    """Clean weights.

    Attributes:
        weights: By name.
        stats: Channel means and standard deviations of the normalisation.
        source: Where they came from, for people.
    """

    weights: Mapping[str, Tensor]
    stats: Stats
    source: str


def schedule_of(settings: CertifySettings, *, epochs: int) -> Schedule:
    """The recipe of a training."""
    return Schedule(epochs=epochs, lr=settings.lr, flip=settings.dataset not in _NOT_MIRRORED)


def base_file(settings: CertifySettings) -> Path | None:
    """The weights that are at hand; ``None`` where they are to be trained.

    Those shipped for ``demo`` are left aside: they know its cue.
    """
    if settings.checkpoint is not None or settings.dataset == "demo":
        return settings.checkpoint
    return shipped_weights(settings.dataset, settings.model)


def base_identity(settings: CertifySettings) -> str:
    """What tells one base from another before it is opened.

    Raises:
        ModelError: If the checkpoint does not exist.
    """
    file = base_file(settings)
    if file is None:
        return "trained here"
    if not file.is_file():
        raise ModelError(f"the checkpoint {file} does not exist", remedy="check --checkpoint")
    return sha256_of(file)


def open_base(
    settings: CertifySettings, data: KnownData, folder: Path, device: torch.device
) -> Base:
    """Open the base, or train it and keep it.

    Args:
        settings: Name the model and perhaps a checkpoint.
        data: What it is trained on where there are no weights.
        folder: Where a trained base is kept; one that is there is taken.
        device: Where to train.

    Returns:
        The weights.

    Raises:
        AuditError: If a checkpoint cannot be opened, or training fails.
    """
    if base_file(settings) is not None:
        return _opened(settings, data)
    stats = channel_statistics(data.train.images)
    file = folder / "base.safetensors"
    recipe = schedule_of(settings, epochs=settings.base_epochs)
    if not file.is_file():
        torch.manual_seed(0)
        model = build(settings.model, len(data.classes))
        with Progress("base", recipe.epochs * len(data.train)) as progress:
            fit(model, data.train, stats, recipe, device=device, advance=progress)
        save_as(file, model, settings, data, stats)
    weights = load_model(file, build(settings.model, len(data.classes))).state_dict()
    return Base(weights=weights, stats=stats, source=f"trained here: {recipe.describe()}")


def save_as(
    file: Path, model: nn.Module, settings: CertifySettings, data: KnownData, stats: Stats
) -> None:
    """Write a model of this benchmark."""
    about = {
        "architecture": settings.model,
        "dataset": data.name,
        "classes": list(data.classes),
        "image_size": list(data.test.images.shape[-2:]),
        "mean": list(stats[0]),
        "std": list(stats[1]),
    }
    save_model(file, model, about)


def _opened(settings: CertifySettings, data: KnownData) -> Base:
    """Weights at hand, opened as an audit would."""
    size = int(data.test.images.shape[-2]), int(data.test.images.shape[-1])
    classifier = open_classifier(
        Request(
            model=settings.model,
            checkpoint=settings.checkpoint,
            dataset=settings.dataset,
            num_classes=len(data.classes),
        ),
        Wanted(
            classes=data.classes,
            native_size=size,
            flags=PreprocessingFlags(mean=settings.mean, std=settings.std),
        ),
    )
    if classifier.classmap is not None:
        raise ModelError("the checkpoint's classes are not those of the dataset")
    return Base(
        weights=classifier.module.state_dict(),
        stats=(classifier.mean, classifier.std),
        source=classifier.weights,
    )
