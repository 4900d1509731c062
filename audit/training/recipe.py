"""What a training run is: its settings, and the augmentation they stand for."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms import v2

# Images that share one draw of the augmentation's parameters. torchvision draws once a call, and
# a call for every image costs more than the training step itself.
GROUP = 8


class Recipe(BaseModel):
    """Settings of a training run; together with the data they determine its result.

    Attributes:
        dataset: ``demo``, ``cifar10``, ``cifar100`` or ``folder:PATH``.
        data_roots: One or more folders that hold the dataset; their training splits are joined.
        model: ``cnn``, ``cnn-se`` or ``resnet20``.
        epochs: Passes over the training images.
        batch_size: Images a step.
        lr: Learning rate of Adam; the peak under ``onecycle``.
        schedule: ``plateau`` (halve after 3 epochs without improvement) or ``onecycle``.
        hold_out: Images of each root that are kept from training and choose the best epoch.
        precision: ``bfloat16`` runs the network under autocast, weights stay float32.
        seed: Seeds weights, order and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dataset: str = "demo"
    data_roots: tuple[Path, ...] = (Path("data"),)
    model: str = "cnn"
    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=1e-3, gt=0)
    schedule: Literal["plateau", "onecycle"] = "plateau"
    hold_out: int = Field(default=1000, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def fingerprint(self) -> str:
        """A digest of the settings; a run resumes only what was begun with the same."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class Augmentation:
    """Crop, flip, colour jitter and rotation, drawn anew for every few images.

    Args:
        size: Height and width of the images.
        flip: Mirror half of the images; wrong for digits and letters.
    """

    def __init__(self, size: tuple[int, int], *, flip: bool) -> None:
        steps: list[torch.nn.Module] = [
            v2.RandomCrop(size, padding=4, padding_mode="reflect"),
            v2.ColorJitter(0.2, 0.2, 0.2, 0.1),
            v2.RandomRotation(15, interpolation=v2.InterpolationMode.BILINEAR),
        ]
        if flip:
            steps.insert(1, v2.RandomHorizontalFlip())
        self._transform = v2.Compose(steps)

    def __call__(self, images: Tensor, seed: int) -> Tensor:
        """Augment uint8 images N×3×H×W; the same seed gives the same result."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return torch.cat([self._transform(group) for group in images.split(GROUP)])
