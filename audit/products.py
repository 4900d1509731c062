"""Products of many rows with one matrix that stays, as fast as a CPU has them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear map whose weight was laid out once for the processor at hand.

    The usual product of float32 matrices asks a library that takes older instructions on
    processors of another maker; oneDNN takes those that there are, and need not lay out the weight
    anew at every call. On other devices, and for what is differentiated, this is the usual product.

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
        if self._packed is None:
            count = rows.numel() // rows.shape[-1]
            plain = self.weight.contiguous()
            self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, max(1, count))
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, self.bias, "none", [], ""
        )
        return product


def _takes(rows: Tensor, weight: Tensor) -> bool:
    return bool(
        rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and rows.numel() > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )
