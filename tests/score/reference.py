"""Slow, plain scores in float64: upsample, then loop over pixels."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Array = NDArray[np.float64]


def upsample(grid: Array, size: tuple[int, int]) -> Array:
    up = F.interpolate(
        torch.from_numpy(grid)[None, None], size=size, mode="bilinear", align_corners=False
    )
    return up[0, 0].numpy()


def scores(raw: Array, mask: Array, tolerance: int) -> dict[str, float]:
    """All attention scores of one sample.

    Args:
        raw: The signed map, h×w.
        mask: 0/1, H×W.
        tolerance: Of the pointing game.
    """
    height, width = mask.shape
    positive = upsample(np.maximum(raw, 0), (height, width))
    total = inside = 0.0
    for y in range(height):
        for x in range(width):
            total += positive[y, x]
            inside += positive[y, x] * mask[y, x]
    area = mask.mean()
    share = inside / total
    return {
        "object_area": area,
        "object_share": share,
        "background_share": 1 - share,
        "background_lift": (1 - share) / (1 - area),
        "kappa": (share - area) / (1 - area),
        "pointing_hit": _pointing(positive, mask, tolerance),
        "rank_accuracy": _rank(positive, mask),
        "iou_50": _iou(positive, mask),
        **_focus(np.maximum(raw, 0)),
    }


def _pointing(positive: Array, mask: Array, tolerance: int) -> float:
    peaks = np.argwhere(positive == positive.max())
    objects = np.argwhere(mask == 1)
    hits = [min((y - v) ** 2 + (x - u) ** 2 for v, u in objects) <= tolerance**2 for y, x in peaks]
    return sum(hits) / len(hits)


def _rank(positive: Array, mask: Array) -> float:
    size = int(mask.sum())
    pixels = sorted(zip(positive.ravel(), mask.ravel(), strict=True), key=lambda p: -p[0])
    threshold = pixels[size - 1][0]
    certain = sum(m for value, m in pixels if value > threshold)
    tied = [m for value, m in pixels if value == threshold]
    places = size - sum(value > threshold for value, _ in pixels)
    return (certain + places * sum(tied) / len(tied)) / size


def _iou(positive: Array, mask: Array) -> float:
    lit = positive >= 0.5 * positive.max()
    return float((lit & (mask == 1)).sum() / (lit | (mask == 1)).sum())


def _focus(positive: Array) -> dict[str, float]:
    p = positive.ravel() / positive.sum()
    entropy = -sum(v * math.log(v) for v in p if v > 0)
    return {
        "focus_entropy": entropy / math.log(p.size),
        "effective_cells": math.exp(entropy),
    }
