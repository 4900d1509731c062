"""The colours of an image as a mixture of eight Gaussians, and what they say of its labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_COLOURS = 8
_KMEANS_STEPS = 4
_EM_STEPS = 6
_VARIANCE_FLOOR = 4.0
_SMOOTHING = 0.5


@dataclass(frozen=True)
class Codebook:
    """How each pixel's colour is made of the image's eight.

    Attributes:
        posterior: Probability of each colour given the pixel, N×8×P.
        likelihood: Likelihood of the pixel under each colour, divided by its largest one, N×8×P.
    """

    posterior: Tensor
    likelihood: Tensor

    def evidence(self, labels: Tensor) -> Tensor:
        """Log ratio of each pixel's colour under the object's mixture and the background's.

        Args:
            labels: Probability of object, N×V×P.

        Returns:
            float, N×V×P.
        """
        mixed = []
        for side in (labels, 1 - labels):
            counts = side @ self.posterior.mT + _SMOOTHING
            mixed.append(counts / counts.sum(dim=2, keepdim=True) @ self.likelihood)
        return (mixed[0] / mixed[1]).log()


def fit_codebook(pixels: Tensor) -> Codebook:
    """Fit eight Gaussians with diagonal covariance to each image's colours, by k-means and EM.

    Args:
        pixels: Lab colours, N×3×P.

    Returns:
        The codebook; the same whatever the batch.
    """
    centres = _spread_centres(pixels)
    for _ in range(_KMEANS_STEPS):
        belongs = nearest(squared_distances(pixels, centres))
        centres = weighted_mean(belongs, pixels)
    squares = torch.cat([pixels**2, pixels, torch.ones_like(pixels[:, :1])], dim=1)  # N×7×P
    for _ in range(_EM_STEPS):
        total = belongs.sum(dim=2, keepdim=True)
        moments = belongs @ squares.mT / total.clamp_min(1e-3)
        mean, second = moments[..., 3:6], moments[..., :3]
        variance = (second - mean**2).clamp_min(_VARIANCE_FLOOR)
        weight = (total / pixels.shape[2]).clamp_min(1e-6)
        log_density = _log_density(squares, mean, variance)
        belongs = torch.softmax(log_density + weight.log(), dim=1)
    return Codebook(belongs, (log_density - log_density.amax(dim=1, keepdim=True)).exp())


def squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Squared Euclidean distances.

    Args:
        points: N×D×P.
        centres: N×K×D.

    Returns:
        N×K×P.

    Example:
        >>> squared_distances(torch.tensor([[[3.0], [4.0]]]), torch.zeros(1, 1, 2)).item()
        25.0
    """
    lengths = points.square().sum(dim=1, keepdim=True) + centres.square().sum(dim=2, keepdim=True)
    return (lengths - 2 * (centres @ points)).clamp_min(0)


def nearest(distances: Tensor) -> Tensor:
    """Which centre is nearest to each point; several if they tie.

    Args:
        distances: N×K×P.

    Returns:
        float 0/1, N×K×P.

    Example:
        >>> nearest(torch.tensor([[[1.0, 5.0], [2.0, 3.0]]])).tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    return (distances == distances.amin(dim=1, keepdim=True)).to(distances.dtype)


def weighted_mean(belongs: Tensor, values: Tensor) -> Tensor:
    """Mean of the values of each group's members.

    Args:
        belongs: Weights, N×K×P.
        values: N×D×P.

    Returns:
        N×K×D; zero for empty groups.

    Example:
        >>> weighted_mean(torch.ones(1, 1, 2), torch.tensor([[[1.0, 3.0]]])).item()
        2.0
    """
    return belongs @ values.mT / belongs.sum(dim=2, keepdim=True).clamp_min(1e-3)


def _spread_centres(pixels: Tensor) -> Tensor:
    """Start at the pixel nearest to the mean, then always the pixel farthest from all so far."""
    mean = pixels.mean(dim=2)[:, None]
    first = squared_distances(pixels, mean)[:, 0].argmin(dim=1)
    chosen = [_pick(pixels, first)]
    away = squared_distances(pixels, chosen[0])[:, 0]
    for _ in range(_COLOURS - 1):
        chosen.append(_pick(pixels, away.argmax(dim=1)))
        away = torch.minimum(away, squared_distances(pixels, chosen[-1])[:, 0])
    return torch.cat(chosen, dim=1)


def _pick(pixels: Tensor, position: Tensor) -> Tensor:
    return pixels.gather(2, position[:, None, None].expand(-1, 3, 1)).mT


def _log_density(squares: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log of diagonal Gaussians without the constant, N×8×P, as one matrix product."""
    constant = -0.5 * (mean**2 / variance + variance.log()).sum(dim=2, keepdim=True)
    return torch.cat([-0.5 / variance, mean / variance, constant], dim=2) @ squares
