"""Layers whose products with the gradient cancel, because what follows undoes their scale.

A layer norm gives the same whatever factor its input is scaled by, so at its input A a cell's
products A·∂z/∂A add up to nothing over the channels, for every logit z. Maps and region
contributions there would be rounding noise, and all of the logit would be left over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# What `audit layers` says of such a layer.
CANCELS = "what follows normalises it: its products with the gradient cancel"

# A cell's products cancel if their sum is below this share of their sizes. Before a layer norm
# it is 1e-8 to 1e-6, and more only where the norm's eps counts; elsewhere it is 1e-2 and above.
_SHARE = 1e-3
# How many of the cells must cancel.
_CELLS = 0.95
# Mixes of logits that must agree before a layer is said to cancel.
DIRECTIONS = 3


def direction(logits: Tensor, number: int = 0) -> Tensor:
    """A mix of all logits to differentiate.

    Args:
        logits: N×K.
        number: Which mix: the first is of positive weights, no two alike; others are random, the
            same at every call.

    Returns:
        Weights of the K logits.
    """
    if number == 0:
        return torch.linspace(0.5, 1.5, logits.shape[1])
    return torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(number))


def living(gradient: Tensor) -> bool:
    """Whether the logits depend on at least half of the cells.

    Args:
        gradient: Of a mix of logits at features N×C×h×w.
    """
    return float((gradient.abs().sum(dim=1) > 0).float().mean()) >= 0.5


def cancel(cells: Tensor, gradient: Tensor) -> bool:
    """Whether the products of an activation and a gradient cancel at nearly all cells.

    Args:
        cells: Features N×C×h×w.
        gradient: Of the same shape.

    Returns:
        ``False`` too if all products are zero.

    Example:
        >>> cells = torch.rand(2, 8, 3, 3, requires_grad=True)
        >>> normed = torch.nn.functional.layer_norm(cells.movedim(1, -1), (8,), eps=1e-9)
        >>> (gradient,) = torch.autograd.grad((normed @ torch.rand(8)).sum(), cells)
        >>> cancel(cells.detach(), gradient), cancel(cells.detach(), cells.detach())
        (True, False)
    """
    products = cells * gradient
    sizes = products.abs().sum(dim=1)
    counted = sizes > 0
    if not bool(counted.any()):
        return False
    small = products.sum(dim=1).abs()[counted] <= _SHARE * sizes[counted]
    return float(small.float().mean()) >= _CELLS


@contextmanager
def closed(tensor: Tensor) -> Iterator[None]:
    """Let no gradient pass back through a tensor, so that only ways around it are counted.

    Args:
        tensor: Has a gradient, in a graph that is differentiated inside the context.

    Example:
        >>> a = torch.ones(1, requires_grad=True)
        >>> b = 2 * a
        >>> with closed(b):
        ...     torch.autograd.grad(b + 3 * a, a)[0].item()
        3.0
    """
    handle = tensor.register_hook(torch.zeros_like)
    try:
        yield
    finally:
        handle.remove()
