"""ResNet-20 for CIFAR (He et al. 2016, section 4.2), with the usual published names."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (16, 32, 64)
BLOCKS_A_STAGE = 3


class PadShortcut(nn.Module):
    """The parameter-free shortcut "A": every second pixel, missing channels filled with zeros.

    Args:
        before: Channels in.
        width: Channels out.
    """

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.side = (width - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Halve the grid of ``x`` and pad its channels on both sides."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut around them.

    Args:
        before: Channels in.
        width: Channels out.
        stride: Of the first convolution.
    """

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and before == width
        self.shortcut = nn.Identity() if same else PadShortcut(before, width)

    def forward(self, x: Tensor) -> Tensor:
        """N×before×h×w to N×width×(h/stride)×(w/stride)."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class ResNet20(nn.Module):
    """0.27 M parameters; global average pooling and one linear layer.

    Args:
        num_classes: K.

    Example:
        >>> import torch
        >>> ResNet20(10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], stride=2)
        self.linear = nn.Linear(WIDTHS[2], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits N×K of images N×3×H×W."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def _stage(before: int, width: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(before, width, stride)
    rest = [BasicBlock(width, width, 1) for _ in range(BLOCKS_A_STAGE - 1)]
    return nn.Sequential(first, *rest)
