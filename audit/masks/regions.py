"""Compact regions of like colour, and how each stands out from the border."""

from __future__ import annotations

import torch
from torch import Tensor

from audit.masks.mixture import nearest, squared_distances, weighted_mean

_ALONG = 5  # regions start on a 5×5 grid
_STEPS = 6
_SPATIAL = 12.0  # half the image's side weighs as much as this distance in Lab
_BLUR = 50.0  # twice the squared width of the soft edges between regions
_LEAST_CONTRAST = 2.0  # Lab units: less is noise
_BORDER = 2  # so many lines along each side show the background's colours


def region_cues(lab: Tensor) -> Tensor:
    """How far each pixel's region is from the centre and from the border's colours.

    Regions are k-means clusters of colour and place, as in SLIC (Achanta et al. 2012).

    Args:
        lab: N×3×S×S.

    Returns:
        float, N×3×S×S: the region's mean squared distance from the centre; its middle's; its
        contrast to the border's regions, divided by the image's largest.
    """
    pixels = lab.flatten(2)
    place = places(lab.shape[-1], lab.device)  # 2×P
    belongs = _cluster(pixels, place)  # N×25×P
    middle = weighted_mean(belongs, place.expand(len(lab), -1, -1))
    away = place.square().sum(dim=0, keepdim=True)
    spread = weighted_mean(belongs, away.expand(len(lab), -1, -1))[..., 0]
    colour = weighted_mean(belongs, pixels)
    on_border = (belongs * _border(lab.shape[-1], lab.device)).sum(dim=2)
    on_border = on_border / on_border.sum(dim=1, keepdim=True)
    contrast = (squared_distances(colour.mT, colour).sqrt() * on_border[:, None]).sum(dim=2)
    cues = torch.stack([spread, middle.square().sum(dim=2), contrast], dim=1)
    spread, middle, contrast = (cues @ belongs).view(len(lab), 3, *lab.shape[-2:]).unbind(1)
    largest = contrast.amax(dim=(1, 2), keepdim=True).clamp_min(_LEAST_CONTRAST)
    return torch.stack([spread, middle, contrast / largest], dim=1)


def places(size: int, device: torch.device) -> Tensor:
    """The pixels' places, in rows.

    Args:
        size: Pixels a side.
        device: Where to put them.

    Returns:
        float32, 2×S²: y and x in (−1, 1).

    Example:
        >>> places(2, torch.device("cpu")).tolist()
        [[-0.5, -0.5, 0.5, 0.5], [-0.5, 0.5, -0.5, 0.5]]
    """
    along = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    return torch.cartesian_prod(along, along).T.contiguous()


def _cluster(pixels: Tensor, place: Tensor) -> Tensor:
    """Soft membership of each pixel in 25 regions, N×25×P."""
    size = round(place.shape[1] ** 0.5)
    points = torch.cat([pixels, (place * _SPATIAL).expand(len(pixels), -1, -1)], dim=1)
    along = ((torch.arange(_ALONG, device=place.device) + 0.5) / _ALONG * size).long()
    centres = points[..., (along[:, None] * size + along).flatten()].mT
    for _ in range(_STEPS):
        centres = weighted_mean(nearest(squared_distances(points, centres)), points)
    return torch.softmax(-squared_distances(points, centres) / _BLUR, dim=1)


def _border(size: int, device: torch.device) -> Tensor:
    """1 on the outer lines, S²."""
    border = torch.ones(size, size, device=device)
    border[_BORDER:-_BORDER, _BORDER:-_BORDER] = 0
    return border.flatten()
