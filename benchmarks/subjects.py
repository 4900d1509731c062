"""The networks that are measured, with random weights: a pass takes as long with any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audit.models import build
from benchmarks.pictures import FEW_LARGE, FEW_SMALL, draw

# Of the normalisation; the usual ones.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network to measure on.

    Attributes:
        key: Short name.
        name: For tables.
        make: Makes the network.
        side: Height and width of its images.
        classes: Its outputs.
        batch: Images at a time of the bare pass and of other libraries; on a GPU of the audit too.
        layer: The module whose output is the target layer's, for peers; ``None`` where they have
            no fair way.
        fc: The last linear layer, likewise.
        pictures: The dataset to audit, as the setting names it; ``many_`` before its name
            has more.
    """

    key: str
    name: str
    make: Callable[[], nn.Module]
    side: int
    classes: int
    batch: int
    layer: str | None = None
    fc: str = ""
    pictures: str = "benchmarks.pictures:large_pictures"

    def pictures_of(self, count: int) -> str:
        """The dataset that holds so many of them."""
        few = FEW_SMALL if self.side <= 64 else FEW_LARGE
        return self.pictures if count <= few else self.pictures.replace(":", ":many_")

    def open(self) -> nn.Module:
        """The network in evaluation mode, with activations of a trained one's size.

        Raises:
            ImportError: If a library is missing.
        """
        torch.manual_seed(0)
        model = self.make()
        settle(model, normalised(draw(torch.arange(16), self.side)[0]))
        return model.eval().requires_grad_(False)

    def images(self, count: int) -> Tensor:
        """Pictures as they are stored, uint8 count×3×side×side."""
        return draw(torch.arange(count), self.side)[0]


def normalised(images: Tensor) -> Tensor:
    """What a network is fed with for uint8 images."""
    mean, std = (255 * torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, STD))
    return (images.float() - mean) / std


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Give batch norms the statistics of a pass, so that random weights neither vanish nor blow up.

    Args:
        model: Is changed in place.
        images: Normalised.
    """
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    usual = [part.momentum for part in norms]
    for part in norms:
        part.momentum = 1.0
    model.train()
    model(images)
    for part, momentum in zip(norms, usual, strict=True):
        part.momentum = momentum


def _cnn() -> nn.Module:
    return build("cnn", 10)


def _resnet20() -> nn.Module:
    return build("resnet20", 10)


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50()


def _vit() -> nn.Module:
    from timm import create_model

    return create_model("vit_tiny_patch16_224")


class Lite(nn.Module):
    """EfficientNet-Lite0 without the in-place activations that peers cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        for part in net.modules():
            if hasattr(part, "inplace"):
                part.inplace = False
        self.stem = nn.Sequential(net._conv_stem, net._bn0, nn.ReLU6())
        self.blocks = net._blocks
        self.top = nn.Sequential(net._conv_head, net._bn1, nn.ReLU6())
        self.linear = net._fc

    def forward(self, images: Tensor) -> Tensor:
        """Logits N×1000 of N×3×224×224."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.linear(self.top(x).mean(dim=(2, 3)))
        return logits


_SMALL = "benchmarks.pictures:small_pictures"
SUBJECTS = {
    each.key: each
    for each in (
        Subject(key="cnn", name="cnn, 32×32", make=_cnn, side=32, classes=10, batch=256,
                pictures=_SMALL),
        Subject(key="resnet20", name="resnet20, 32×32", make=_resnet20, side=32, classes=10,
                batch=256, layer="layer3", fc="linear", pictures=_SMALL),
        Subject(key="lite0", name="EfficientNet-Lite0, 224×224", make=Lite, side=224, classes=1000,
                batch=16, layer="top", fc="linear"),
        Subject(key="resnet50", name="resnet50, 224×224", make=_resnet50, side=224, classes=1000,
                batch=16, layer="layer4", fc="fc"),
        Subject(key="vit", name="ViT-Tiny/16, 224×224", make=_vit, side=224, classes=1000,
                batch=16),
    )
}  # fmt: skip
