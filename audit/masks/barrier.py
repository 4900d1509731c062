"""How hard it is to reach a pixel from the image border: barriers and lengths of paths."""

from __future__ import annotations

import torch
from torch import Tensor

_START = 0.5


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


def geodesic_distance(images: Tensor, rounds: int = 2) -> Tensor:
    """Length of the shortest path from the border, in steps of colour.

    A step costs the colour distance of two neighbours (Wei et al. 2012, "Geodesic saliency using
    background priors"). To start costs half the distance from the border's mean colour, so that
    an object that touches the border is not all background. Shortest paths are approximated by
    sweeps in the four directions.

    Args:
        images: float, N×C×H×W.
        rounds: How often to sweep in all four directions.

    Returns:
        float, N×H×W.

    Example:
        >>> image = torch.zeros(1, 1, 5, 5)
        >>> image[..., 2, 2] = 9.0
        >>> geodesic_distance(image)[0, 2].tolist()
        [0.0, 0.0, 9.0, 0.0, 0.0]
    """
    distance = _start_on_border(images)
    steps = [images.diff(dim=axis).square().sum(dim=1).sqrt() for axis in (-2, -1)]
    costs = [step.movedim(axis, 0).contiguous() for step, axis in zip(steps, (1, 2), strict=True)]
    for _ in range(rounds):
        for axis, cost in zip((1, 2), costs, strict=True):
            lines = distance.movedim(axis, 0).contiguous()
            for i in range(1, len(lines)):
                torch.minimum(lines[i], lines[i - 1] + cost[i - 1], out=lines[i])
            for i in range(len(lines) - 2, -1, -1):
                torch.minimum(lines[i], lines[i + 1] + cost[i], out=lines[i])
            distance = lines.movedim(0, axis)
    return distance


def _start_on_border(images: Tensor) -> Tensor:
    """Half the distance from the border's mean colour on the border, infinite within, N×H×W."""
    inner = torch.zeros(images.shape[-2:], dtype=torch.bool, device=images.device)
    inner[1:-1, 1:-1] = True
    mean = (images * ~inner).sum(dim=(2, 3), keepdim=True) / (~inner).sum()
    away = (images - mean).square().sum(dim=1).sqrt()
    return (away * _START).masked_fill(inner, torch.inf)


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
