"""The three-block CNN for 32×32 images, plain or with squeeze-and-excitation."""

from __future__ import annotations

from torch import Tensor, nn

WIDTHS = (32, 64, 128)
HIDDEN = 512
REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al. 2018, section 3): scale each channel by what all say of it.

    Args:
        channels: Channels in and out.
        reduction: The bottleneck holds ``channels // reduction`` units.
    """

    def __init__(self, channels: int, reduction: int = REDUCTION) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(channels, channels // reduction),
            nn.ReLU(),
            nn.Linear(channels // reduction, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``x``, N×C×h×w, channel by channel."""
        return x * self.gate(x.mean(dim=(2, 3)))[:, :, None, None]


class CNN(nn.Module):
    """Three blocks of convolution, batch norm, ReLU and max-pool, then two linear layers.

    Args:
        num_classes: K.
        attention: Put squeeze-and-excitation after each ReLU (the ``cnn-se`` variant).

    Example:
        >>> import torch
        >>> CNN(10)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int, *, attention: bool = False) -> None:
        super().__init__()
        blocks = [
            _block(before, width, attention=attention)
            for before, width in zip((3, *WIDTHS), WIDTHS, strict=False)
        ]
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(WIDTHS[-1] * 4 * 4, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits N×K of images N×3×32×32."""
        logits: Tensor = self.classifier(self.features(x))
        return logits


def _block(before: int, width: int, *, attention: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(before, width, kernel_size=3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    if attention:
        layers.append(SqueezeExcitation(width))
    layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
