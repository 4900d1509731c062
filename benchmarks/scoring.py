"""Three of the audit's scores, as one would write them for another library's maps.

Written apart from the audit on purpose: equal scores then say that both do the same work.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Scores = dict[str, NDArray[np.float32]]


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps without their negative part, in the size of the image.

    Args:
        maps: N×h×w.
        size: H and W.
    """
    return F.interpolate(maps.clamp(min=0)[:, None], size=size, mode="bilinear")[:, 0]


def score(heat: Tensor, mask: Tensor) -> Scores:
    """Share on the object, hit of the pointing game, overlap at half the maximum.

    Args:
        heat: Maps in the size of the image, not negative, N×H×W.
        mask: Object masks in [0, 1], N×H×W, on the same device.

    Returns:
        Arrays of N, by the name of the audit's column.
    """
    inside = mask >= 0.5
    lit = heat >= 0.5 * heat.amax(dim=(1, 2), keepdim=True)
    iou = (lit & inside).sum(dim=(1, 2)) / (lit | inside).sum(dim=(1, 2))
    share = (heat * mask).sum(dim=(1, 2)) / heat.sum(dim=(1, 2))
    hit = is_near(inside, heat.flatten(1).argmax(dim=1), tolerance(heat.shape[1]))
    found = {"object_share": share, "pointing_hit": hit, "iou_50": iou}
    return {name: values.float().cpu().numpy() for name, values in found.items()}


def tolerance(side: int) -> int:
    """15 pixels at 224, 1 on thumbnails: the pointing game's."""
    return 1 if side <= 64 else round(15 * side / 224)


def is_near(inside: Tensor, peak: Tensor, radius: int) -> Tensor:
    """Whether a peak lies on the object, or no further from it than a radius.

    Args:
        inside: bool, N×H×W.
        peak: Positions in the flattened picture, N.
        radius: In pixels.
    """
    height, width = inside.shape[1:]
    y = torch.arange(height, device=inside.device)[:, None]
    x = torch.arange(width, device=inside.device)[None, :]
    row, column = (peak // width)[:, None, None], (peak % width)[:, None, None]
    near = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    return (near & inside).flatten(1).any(dim=1)


def is_tied(heat: Tensor) -> NDArray[np.bool_]:
    """Which maps have several highest pixels, N: of those argmax takes one, the audit the mean."""
    top = heat.amax(dim=(1, 2), keepdim=True)
    tied: NDArray[np.bool_] = ((heat >= (1 - 2e-6) * top).sum(dim=(1, 2)) > 1).cpu().numpy()
    return tied


def stretched(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, as pytorch-grad-cam gives it."""
    low = maps.amin(dim=(1, 2), keepdim=True)
    return (maps - low) / (1e-7 + (maps - low).amax(dim=(1, 2), keepdim=True))
