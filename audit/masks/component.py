"""The part of a mask that lies in the middle, without rings around the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def central_component(masks: Tensor) -> Tensor:
    """Keep the connected component that holds the centre or lies nearest to it.

    Pixels are connected to their four neighbours. A component that touches all four borders and
    holds none of the four central pixels is a ring, and counts as background.

    Args:
        masks: bool, N×S×S, S even and at most 32.

    Returns:
        bool, N×S×S; empty where nothing but rings was there.

    Example:
        >>> mask = torch.zeros(1, 6, 6).bool()
        >>> mask[0, 2, 1:4] = True
        >>> mask[0, 5, 5] = True
        >>> central_component(mask)[0].sum(dim=1).tolist()
        [0, 0, 3, 0, 0, 0]
    """
    size = masks.shape[-1]
    boards = _pack(masks)
    seeds = torch.stack([*_borders(size, masks.device), _middle(size, masks.device)])
    reached = _flood(boards[:, None].expand(-1, 5, -1), seeds & boards[:, None])
    ring = reached[:, 0] & reached[:, 1] & reached[:, 2] & reached[:, 3] & ~reached[:, 4]
    rest = boards & ~ring
    return _unpack(_flood(rest, _pack(_nearest_to_centre(_unpack(rest, size)))), size)


def _flood(boards: Tensor, seeds: Tensor) -> Tensor:
    """Everything of the boards that is connected to the seeds.

    A shortest path bends round itself nowhere, so it holds at most two of three pixels: that
    many steps reach everything, whatever the masks are.

    Args:
        boards: int32, …×S, one bit a pixel.
        seeds: int32, likewise, some of the boards' bits.
    """
    size = boards.shape[-1]
    boards = boards.movedim(-1, 0).contiguous()
    padded = F.pad(seeds.movedim(-1, 0), [0, 0] * (seeds.dim() - 1) + [1, 1])
    inner, above, below = padded[1:-1], padded[:-2], padded[2:]
    grown, shifted = torch.empty_like(inner), torch.empty_like(inner)
    for _ in range(2 * size * size // 3 + size):
        torch.bitwise_or(above, below, out=grown)
        grown.bitwise_or_(torch.bitwise_left_shift(inner, 1, out=shifted))
        grown.bitwise_or_(torch.bitwise_right_shift(inner, 1, out=shifted))
        inner.bitwise_or_(grown.bitwise_and_(boards))
    return inner.movedim(0, -1)


def _pack(masks: Tensor) -> Tensor:
    """One bit a pixel: int32, …×S; the sign is the 32nd."""
    bits = 1 << torch.arange(masks.shape[-1], device=masks.device)
    return (masks * bits).sum(dim=-1).to(torch.int32)


def _unpack(boards: Tensor, size: int) -> Tensor:
    return ((boards[..., None] >> torch.arange(size, device=boards.device)) & 1).bool()


def _borders(size: int, device: torch.device) -> list[Tensor]:
    edge = torch.zeros(4, size, size, dtype=torch.bool, device=device)
    edge[0, 0], edge[1, -1], edge[2, :, 0], edge[3, :, -1] = True, True, True, True
    return list(_pack(edge))


def _middle(size: int, device: torch.device) -> Tensor:
    middle = torch.zeros(size, size, dtype=torch.bool, device=device)
    middle[size // 2 - 1 : size // 2 + 1, size // 2 - 1 : size // 2 + 1] = True
    return _pack(middle)


def _nearest_to_centre(masks: Tensor) -> Tensor:
    """The pixel of each mask that is nearest to the centre; of several the first."""
    size = masks.shape[-1]
    along = 2 * torch.arange(size, device=masks.device) + 1 - size
    away = (along[:, None] ** 2 + along[None] ** 2) * size * size
    order = away + torch.arange(size * size, device=masks.device).view(size, size)  # no ties
    found = torch.where(masks, order, torch.iinfo(torch.int64).max)
    least = found.flatten(1).amin(dim=1)[:, None, None]
    return masks & (order == least)
