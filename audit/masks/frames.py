"""Letterbox bars and frames of one colour: where a picture's content lies, the way in and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TOLERANCE = 16.0  # of 255: JPEG makes a plain bar this uneven
_PLAIN = 0.9  # so many pixels of a plain line have its colour
_SHORTEST = 8  # a bar along fewer pixels is told from nothing
_DEEPEST = 0.4  # of the height or width: what is deeper is no bar but the picture
_DEEPEST_FRAME = 0.2  # with bars on all four sides; deeper, it is an object on plain ground
_SHARP = 0.65  # so much of what lies right behind the bars of one colour must differ on average
_SHARP_EACH = 0.3  # and so much behind each of them


def find_content(images: Tensor) -> Tensor:
    """Where the content is, without bars and frames of one colour.

    Plain lines along a side are a bar if what lies behind them differs over nearly the whole
    length: bars end straight. The white around a product ends at the product's outline, so it
    stays. Sides of one colour stand or fall together.

    Args:
        images: uint8, N×3×H×W.

    Returns:
        float32, N×4: top, bottom, left and right edge of the content, in pixels.

    Example:
        >>> picture = torch.arange(3 * 8 * 8).mul(37).remainder(256).view(1, 3, 8, 8).byte()
        >>> picture[..., :2, :] = 0
        >>> picture[..., 7:, :] = 0
        >>> find_content(picture).tolist()
        [[2.0, 7.0, 0.0, 8.0]]
    """
    height, width = images.shape[-2:]
    across = images.transpose(-1, -2)
    sides = [_look(side) for side in (images, images.flip(-2), across, across.flip(-2))]
    depth = torch.stack([side.depth for side in sides], dim=1)
    rows, columns = depth[:, :2], depth[:, 2:]
    sharp = torch.stack([_sharpness(s, columns) for s in sides[:2]] +
                        [_sharpness(s, rows) for s in sides[2:]], dim=1)  # fmt: skip
    bars = _are_bars(depth > 0, sharp, torch.stack([side.colour for side in sides], dim=1))
    limit = _DEEPEST_FRAME * depth.new_tensor([height, height, width, width]).float()
    bars &= ~(bars.all(dim=1) & (depth > limit).any(dim=1))[:, None]
    top, bottom, left, right = torch.where(bars, depth, 0).float().unbind(1)
    return torch.stack([top, height - bottom, left, width - right], dim=1)


def into_content(start: Tensor, stop: Tensor, length: int, size: int) -> Tensor:
    """The matrix that resamples the content's lines, by an antialiased triangle.

    Args:
        start: The content's first edge, N.
        stop: Its last edge, N.
        length: How many lines the whole image has.
        size: How many lines to make.

    Returns:
        float32, N×size×length; the identity where nothing changes.

    Example:
        >>> into_content(torch.tensor([2.0]), torch.tensor([4.0]), 4, 2).tolist()
        [[[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]]
    """
    scale = ((stop - start) / size)[:, None, None]
    inputs = torch.arange(length, device=start.device) + 0.5
    outputs = (torch.arange(size, device=start.device) + 0.5)[:, None]
    away = (inputs - start[:, None, None] - outputs * scale).abs() / scale.clamp_min(1.0)
    inside = (inputs > start[:, None, None]) & (inputs < stop[:, None, None])
    weights = (1 - away).clamp_min(0) * inside
    return weights / weights.sum(dim=2, keepdim=True)


def out_of_content(start: Tensor, stop: Tensor, length: int, size: int) -> Tensor:
    """The matrix that brings lines of the content back into the whole image, bilinearly.

    Args:
        start: The content's first edge, N.
        stop: Its last edge, N.
        length: How many lines the whole image has.
        size: How many lines both the content's and the whole image's grid have.

    Returns:
        float32, N×size×size; rows outside the content are zero.

    Example:
        >>> out_of_content(torch.tensor([2.0]), torch.tensor([4.0]), 4, 2).tolist()
        [[[0.0, 0.0], [0.5, 0.5]]]
    """
    cells = torch.arange(size, device=start.device) + 0.5
    place = (cells * (length / size) - start[:, None]) / (stop - start)[:, None]  # N×size
    inside = (place > 0) & (place < 1)
    weights = (1 - (place[..., None] * size - cells).abs()).clamp_min(0) * inside[..., None]
    return weights / weights.sum(dim=2, keepdim=True).clamp_min(0.25)


@dataclass(frozen=True)
class _Side:
    """One side of each image, turned to the top: N×L×P of L lines with P pixels."""

    colour: Tensor  # of the outermost line, N×3
    differs: Tensor  # which pixels have another colour, bool N×L×P
    depth: Tensor  # how many plain lines there are, int64 N; 0 where they go too deep


def _look(side: Tensor) -> _Side:
    deepest = int(_DEEPEST * side.shape[-2])
    lines = side[..., : deepest + 2, :].float()
    outermost = lines[..., 0, :].sort(dim=-1).values
    colour = outermost[..., outermost.shape[-1] // 2]
    differs = (lines - colour[..., None, None]).abs().amax(dim=1) > _TOLERANCE
    plain = (~differs).sum(dim=2) >= max(_PLAIN * differs.shape[2], _SHORTEST)
    depth = plain.long().cummin(dim=1).values.sum(dim=1)
    return _Side(colour, differs, torch.where(depth <= deepest, depth, 0))


def _sharpness(side: _Side, ends: Tensor) -> Tensor:
    """Share of the first two lines behind the bar that differs, the larger one, N.

    Args:
        side: The side.
        ends: How deep the bars at the lines' two ends are, N×2.
    """
    _, lines, length = side.differs.shape
    place = torch.arange(length, device=ends.device)
    between = (place >= ends[:, :1]) & (place < length - ends[:, 1:])
    behind = torch.stack([side.depth, side.depth + 1], dim=1).clamp_max(lines - 1)
    there = side.differs.gather(1, behind[..., None].expand(-1, -1, length)) & between[:, None]
    share = there.sum(dim=2) / between.sum(dim=1, keepdim=True).clamp_min(1)
    return share.amax(dim=1)


def _are_bars(plain: Tensor, sharp: Tensor, colours: Tensor) -> Tensor:
    """Which sides are bars, N×4, judged with the other plain sides of like colour."""
    unlike = (colours[:, :, None] - colours[:, None]).abs().amax(dim=3)
    together = (unlike <= 2 * _TOLERANCE) & plain[:, None]
    mean = (sharp[:, None] * together).sum(dim=2) / together.sum(dim=2).clamp_min(1)
    weakest = torch.where(together, sharp[:, None], 1.0).amin(dim=2)
    return plain & (mean >= _SHARP) & (weakest >= _SHARP_EACH)
