"""From a model's name and checkpoint to a classifier that is ready to be audited."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from audit.errors import ModelError
from audit.models.architectures import ARCHITECTURES, build
from audit.models.checkpoint import Checkpoint, load_into, read_checkpoint

WEIGHTS = Path(__file__).parent / "weights"

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network with what is needed to feed it.

    Attributes:
        module: In evaluation mode, without gradients.
        architecture: Its name.
        weights: Where the weights came from, for people.
        sha256: Of the weights' file.
        mean: Of the normalisation, for values in [0, 1].
        std: Likewise.
    """

    module: nn.Module
    architecture: str
    weights: str
    sha256: str
    mean: Triple
    std: Triple


def shipped_weights(dataset: str, architecture: str) -> Path | None:
    """The weights that come with the audit for a dataset, if there are any."""
    if not dataset.isalnum():
        return None
    file = WEIGHTS / f"{dataset}-{architecture}" / "model.safetensors"
    return file if file.is_file() else None


def open_classifier(
    architecture: str | None,
    checkpoint: Path | None,
    *,
    dataset: str,
    classes: Sequence[str],
    mean: Triple | None = None,
    std: Triple | None = None,
) -> Classifier:
    """Build the network and load its weights.

    Args:
        architecture: ``cnn``, ``cnn-se`` or ``resnet20``; ``None`` takes what the checkpoint
            says of itself, else ``cnn``.
        checkpoint: Weights; ``None`` takes those that come with the audit for ``dataset``.
        dataset: The dataset as the user names it.
        classes: The split's class names.
        mean: Overrides the checkpoint's.
        std: Overrides the checkpoint's.

    Returns:
        The classifier, on the CPU.

    Raises:
        ModelError: If the model is unknown, its weights are absent or do not fit.
    """
    loaded = read_checkpoint(checkpoint) if checkpoint is not None else None
    name = architecture or (loaded.about.get("architecture") if loaded else None) or "cnn"
    module = build(str(name), len(classes))
    if loaded is None:
        loaded = read_checkpoint(_shipped_or_refuse(dataset, str(name)))
    _check_classes(loaded, module, classes)
    load_into(module, loaded, str(name))
    normalisation = [
        _triple(flag if flag is not None else loaded.about.get(key), key, loaded)
        for key, flag in (("mean", mean), ("std", std))
    ]
    return Classifier(
        module=module.eval().requires_grad_(False),
        architecture=str(name),
        weights="shipped with audit" if checkpoint is None else str(checkpoint),
        sha256=loaded.sha256,
        mean=normalisation[0],
        std=normalisation[1],
    )


def _shipped_or_refuse(dataset: str, architecture: str) -> Path:
    file = shipped_weights(dataset, architecture)
    if file is not None:
        return file
    shipped = sorted(folder.parent.name for folder in WEIGHTS.glob("*/model.safetensors"))
    raise ModelError(
        f"no weights for '{architecture}' on '{dataset}' come with audit",
        expected="--checkpoint FILE, or one of the shipped pairs: " + ", ".join(shipped),
        remedy=f"train some: audit train --dataset {dataset} --model {architecture}",
    )


def _check_classes(checkpoint: Checkpoint, module: nn.Module, classes: Sequence[str]) -> None:
    named = checkpoint.about.get("classes")
    if isinstance(named, list) and len(named) == len(classes) and named != list(classes):
        raise ModelError(
            f"{checkpoint.path} was trained on other classes than the split's",
            expected=", ".join(classes),
            found=", ".join(map(str, named)),
        )
    last = [n for n, m in module.named_modules() if isinstance(m, nn.Linear)][-1]
    weight = checkpoint.tensors.get(f"{last}.weight")
    own = module.get_parameter(f"{last}.weight")
    if weight is not None and weight.shape[1:] == own.shape[1:] and len(weight) != len(classes):
        raise ModelError(
            f"{checkpoint.path} has another number of classes than the split",
            expected=f"{len(classes)}",
            found=f"{len(weight)}",
            remedy="audit it on the dataset it was trained for",
        )


def _triple(value: object, key: str, checkpoint: Checkpoint) -> Triple:
    if value is None:
        raise ModelError(
            f"{checkpoint.path} does not say how its images were normalised",
            expected=f"--{key} R G B, for values in [0, 1]",
            found=f"no {key} in the file",
            remedy="give the training's constants; ImageNet's are "
            "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225",
        )
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    least = 0.0 if key == "std" else -math.inf
    if len(numbers) != 3 or not all(
        isinstance(n, (int, float)) and math.isfinite(n) and n > least for n in numbers
    ):
        raise ModelError(
            f"the {key} of the normalisation is not valid",
            expected="three finite numbers" + (" above 0" if key == "std" else ""),
            found=repr(value),
        )
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


__all__ = ["ARCHITECTURES", "Classifier", "open_classifier", "shipped_weights"]
