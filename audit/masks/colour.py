"""sRGB to CIE Lab on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

# sRGB primaries to XYZ under D65 (IEC 61966-2-1), each row divided by the white point.
_TO_XYZ = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
_LINEAR_BELOW = 0.04045
_EPSILON = (6 / 29) ** 3


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Convert colours.

    Args:
        rgb: float in [0, 1], N×3×H×W, sRGB.

    Returns:
        L in [0, 100], a and b about [-128, 127], N×3×H×W.

    Example:
        >>> rgb_to_lab(torch.ones(1, 3, 1, 1)).flatten().round().tolist()
        [100.0, 0.0, 0.0]
    """
    linear = torch.where(rgb <= _LINEAR_BELOW, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("xc,nchw->nxhw", rgb.new_tensor(_TO_XYZ), linear)
    f = torch.where(xyz > _EPSILON, xyz.clamp_min(_EPSILON) ** (1 / 3), xyz * 841 / 108 + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)
