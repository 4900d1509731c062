"""Heads that are a pooling and a linear map, whatever they are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MOST_COLUMNS_AT_ONCE = 64


@torch.no_grad()
def pooled_linear(head: nn.Module, features: Tensor) -> Tensor | None:
    """The weight of a head that is the mean over cells and a linear map, found by trying it.

    Args:
        head: Features to logits.
        features: Of the shape and on the device that the head takes.

    Returns:
        K×C, or ``None`` for any other head.
    """
    generator = torch.Generator().manual_seed(0)
    trial = (torch.randn(features.shape, generator=generator) * 3).to(features.device)
    nothing, something = head(torch.zeros_like(features)), head(trial)
    if not bool(torch.isfinite(nothing).all() and torch.isfinite(something).all()):
        return None
    pooled = trial.mean(dim=(2, 3), keepdim=True).expand_as(trial)
    scale = 1e-4 * (1 + float(nothing.abs().max() + something.abs().max()))
    affine = torch.allclose(head(2 * trial) - nothing, 2 * (something - nothing), 0, scale)
    if not affine or not torch.allclose(something, head(pooled), rtol=0, atol=scale):
        return None
    channels = int(features.shape[1])
    columns = []
    for start in range(0, channels, _MOST_COLUMNS_AT_ONCE):
        basis = torch.eye(channels, device=features.device)[
            start : start + _MOST_COLUMNS_AT_ONCE, :, None, None
        ]
        given = basis.expand(-1, -1, *features.shape[2:])
        columns.append(head(given.contiguous()) - nothing[:1])
    weight = torch.cat(columns).T.contiguous()
    same = torch.allclose(
        something, trial.mean(dim=(2, 3)) @ weight.T + nothing[:1], rtol=0, atol=scale
    )
    return weight if same else None
