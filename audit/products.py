"""Products of many rows with one matrix that stays, as fast as a CPU has them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class PackedLinear(nn.Module):
    """A linear map whose weight was laid out once for the processor at hand.

    The usual product of float32 matrices asks a library that takes older instructions on
    processors of another maker; oneDNN takes those that there are, and need not lay out the weight
    anew at every call. On other devices this is the usual product.

    Args:
        weight: K×C.
        bias: K; ``None`` for none.

    Example:
        >>> layer = PackedLinear(torch.tensor([[1.0, 2.0]]), torch.tensor([3.0]))
        >>> layer(torch.tensor([[[1.0, 1.0]]]))
        tensor([[[6.]]])
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach(), persistent=False)
        own = None if bias is None else bias.detach()
        self.register_buffer("bias", own, persistent=False)
        self._packed: Tensor | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """The products.

        Args:
            rows: …×C.

        Returns:
            …×K.
        """
        if not _takes(rows, self.weight):
            return F.linear(rows, self.weight, self.bias)
        if torch.is_grad_enabled() and rows.requires_grad:
            return linear(rows, self.weight, self.bias)
        if self._packed is None:
            count = rows.numel() // rows.shape[-1]
            plain = self.weight.contiguous()
            self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, max(1, count))
        return _product(rows, self._packed, self.bias)


def linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product with a matrix that may change from call to call, and its gradient by the rows.

    A weight that is used as it lies costs oneDNN little over one that was laid out for it.

    Args:
        rows: …×C.
        weight: K×C.
        bias: K; ``None`` for none.

    Returns:
        …×K, as :func:`torch.nn.functional.linear` has it.

    Example:
        >>> linear(torch.ones(1, 2), torch.tensor([[1.0, 2.0]]), torch.tensor([3.0]))
        tensor([[6.]])
    """
    if not _takes(rows, weight) or _learns(weight) or _learns(bias):
        return F.linear(rows, weight, bias)
    if torch.is_grad_enabled() and rows.requires_grad:
        product: Tensor = _Differentiated.apply(rows, weight, bias)
        return product
    return _product(rows, weight, bias)


class _Differentiated(torch.autograd.Function):
    """The product of oneDNN with its gradient, which is one too."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return _product(rows, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        with torch.no_grad():
            return linear(gradient, ctx.weight.T), None, None


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def _learns(held: Tensor | None) -> bool:
    """Whether a gradient by it may be wanted."""
    return held is not None and held.requires_grad and torch.is_grad_enabled()


def _takes(rows: Tensor, weight: Tensor) -> bool:
    return bool(
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
        and rows.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
