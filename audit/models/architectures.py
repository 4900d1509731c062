"""The architectures that come with the audit."""

from __future__ import annotations

from torch import nn

from audit.errors import ModelError
from audit.models.cnn import CNN
from audit.models.resnet import ResNet20

ARCHITECTURES = ("cnn", "cnn-se", "resnet20")


def build(architecture: str, num_classes: int) -> nn.Module:
    """A model with fresh random weights.

    Args:
        architecture: One of :data:`ARCHITECTURES`.
        num_classes: K.

    Returns:
        The model in training mode.

    Raises:
        ModelError: If there is no such architecture.

    Example:
        >>> sum(p.numel() for p in build("resnet20", 10).parameters())
        269722
    """
    match architecture:
        case "cnn":
            return CNN(num_classes)
        case "cnn-se":
            return CNN(num_classes, attention=True)
        case "resnet20":
            return ResNet20(num_classes)
    raise ModelError(
        f"unknown model '{architecture}'",
        expected=" | ".join(ARCHITECTURES),
        found=architecture,
    )
