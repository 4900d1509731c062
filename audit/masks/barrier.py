"""How hard it is to reach a pixel from the image border: the minimum barrier distance."""

from __future__ import annotations

import torch
from torch import Tensor


def barrier_saliency(images: Tensor) -> Tensor:
    """Saliency by the minimum barrier distance from the border.

    The barrier of a path is the largest minus the smallest value on it (Strand et al. 2013; Zhang
    et al. 2015 use it for saliency). The minimum over paths is approximated by one sweep in each
    of the four directions, all lines of all images and channels at once.

    Args:
        images: float, N×C×H×W.

    Returns:
        float in [0, 1], N×H×W; the mean over channels, divided by the image's largest value.
        All zero for a constant image.

    Example:
        >>> image = torch.zeros(1, 1, 5, 5); image[..., 2, 2] = 9.0
        >>> barrier_saliency(image)[0, 2].tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0]
    """
    distance = torch.full_like(images, torch.inf)
    distance[..., 0, :] = distance[..., -1, :] = 0.0
    distance[..., :, 0] = distance[..., :, -1] = 0.0
    state = torch.stack([distance, images, images])  # distance, highest, lowest on the path
    for axis in (-2, -1):
        lines = state.movedim(axis, 1).contiguous()
        pixels = images.movedim(axis, 0).contiguous()
        _sweep(lines, pixels, forward=True)
        _sweep(lines, pixels, forward=False)
        state = lines.movedim(1, axis)
    distance = state[0].mean(dim=1)
    return distance / distance.amax(dim=(1, 2), keepdim=True).clamp_min(1e-6)


def _sweep(lines: Tensor, pixels: Tensor, *, forward: bool) -> None:
    """Let every line take the better of its own path and its predecessor's, in place.

    Args:
        lines: 3×L×…: distance, highest and lowest value of the best path so far.
        pixels: L×….
        forward: From the first line to the last, or back.
    """
    count = pixels.shape[0]
    order = range(1, count) if forward else range(count - 2, -1, -1)
    step = -1 if forward else 1
    for i in order:
        before = lines[:, i + step]
        highest = torch.maximum(before[1], pixels[i])
        lowest = torch.minimum(before[2], pixels[i])
        candidate = torch.stack([highest - lowest, highest, lowest])
        better = candidate[0] < lines[0, i]
        lines[:, i] = torch.where(better, candidate, lines[:, i])
