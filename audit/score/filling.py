"""What takes the place of removed pixels: blurs, fields of noise, and a guess from what is left."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# What stands where pixels were removed: a blurred field of random colours, the mean colour of the
# training set, another image's background. None of them holds anything of what was removed.
FILLS = ("noise", "mean", "other")

# Standard deviation of the noise's blur over the image's side: clouds, not grain.
_CLOUD = 0.1
# The hole around a removed object is wider than its mask by this share of the side.
_RIM = 1 / 64


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of the last two axes; at the border, of the pixels that there are.

    Args:
        images: …×H×W.
        sigma: Standard deviation in pixels.

    Example:
        >>> blurred(torch.ones(1, 1, 4, 4), 2.0).round(decimals=3).unique().tolist()
        [1.0]
    """
    rows, columns = (_gaussian(side, sigma).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def _gaussian(side: int, sigma: float) -> Tensor:
    """One axis of the blur as a matrix, side×side; every row sums to 1."""
    place = torch.arange(side, dtype=torch.float64)
    return torch.softmax(-((place[:, None] - place) ** 2) / (2 * sigma**2), dim=1)


def pyramid(total: Tensor, weight: Tensor) -> Tensor:
    """The mean where something is known, and what coarser levels say where nothing is.

    Args:
        total: Sum of the known pixels, N×C×H×W.
        weight: How many there are, N×1×H×W, in the same unit.

    Returns:
        N×C×H×W; NaN where nothing is known at all.

    Example:
        >>> known = torch.tensor([[[[1.0, 0.0]]]])
        >>> pyramid(torch.tensor([[[[6.0, 0.0]]]]), known).tolist()
        [[[[6.0, 6.0]]]]
    """
    here = total / weight
    if max(here.shape[2:]) == 1:
        return here
    halves = (F.avg_pool2d(t, 2, ceil_mode=True) for t in (total, weight))
    above = F.interpolate(pyramid(*halves), size=here.shape[2:], mode="bilinear")
    return torch.where(weight > 0, here, above)


def hole(removed: Tensor) -> Tensor:
    """The pixels to replace so that nothing of an object's rim stays.

    Args:
        removed: The share of each pixel that goes, in [0, 1], N×H×W.

    Returns:
        bool, N×H×W: where at least half goes, and a rim of a 64th of the side (1 px or more).

    Example:
        >>> hole(torch.tensor([[[0.0, 0.0, 0.2, 1.0]]]))[0, 0].tolist()
        [False, False, True, True]
    """
    reach = max(1, round(_RIM * max(removed.shape[-2:])))
    grown = F.max_pool2d(removed[:, None], 2 * reach + 1, stride=1, padding=reach)
    return grown[:, 0] >= 0.5


def without(images: Tensor, gap: Tensor) -> Tensor:
    """Images with holes filled smoothly from what surrounds them.

    Args:
        images: N×C×H×W.
        gap: bool, N×H×W.

    Returns:
        N×C×H×W; where an image is nothing but hole, its mid-grey of 127.5.
    """
    known = (~gap)[:, None].to(images.dtype)
    return torch.where(gap[:, None], pyramid(images * known, known), images).nan_to_num(127.5)


def clouds(count: int, size: tuple[int, int], seed: int) -> Tensor:
    """Blurred fields of random colours, made on the CPU so that every device gets the same.

    Args:
        count: How many.
        size: H and W.
        seed: Draws others.

    Returns:
        float32 in [0, 255], count×3×H×W; each channel of each field spans the whole range.

    Example:
        >>> clouds(2, (8, 8), seed=0).shape
        torch.Size([2, 3, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    fields = blurred(torch.randn(count, 3, *size, generator=generator), _CLOUD * max(size))
    low, high = fields.amin(dim=(2, 3), keepdim=True), fields.amax(dim=(2, 3), keepdim=True)
    return 255 * (fields - low) / (high - low).clamp_min(1e-6)
