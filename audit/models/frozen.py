"""A network in evaluation mode that is afterwards as it was before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

_NOT_FLOAT32 = (torch.float16, torch.bfloat16, torch.float64)


def freeze(module: nn.Module) -> None:
    """Put a network into evaluation mode, without gradients for its parameters.

    Args:
        module: Is changed in place.
    """
    for part in module.modules():
        # A frozen TorchScript has no mode. Exported programs refuse eval(), and there are
        # modules whose eval() merges weights: only the flag is set.
        if hasattr(part, "training"):
            part.training = False
    for parameter in module.parameters():
        parameter.requires_grad_(False)


@contextmanager
def evaluation(module: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, on the CPU in float32, without gradients.

    Inside, it may be moved to a device. Afterwards mode, ``requires_grad``, gradients, device,
    dtype and the tensors themselves are as they were before, also after an exception.

    Args:
        module: The network; parts of it may be shared with others.

    Example:
        >>> layer = nn.Dropout().train()
        >>> with evaluation(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    with ExitStack() as undo:
        # What is cloned or moved here must be fit for differentiation.
        undo.enter_context(torch.inference_mode(False))
        for part in module.modules():
            undo.callback(_keep_tensors, part, dict(part._parameters), dict(part._buffers))
        for parameter in module.parameters():
            undo.callback(_give_back, parameter, parameter.requires_grad, parameter.grad)
        for tensor in (*module.parameters(), *module.buffers()):
            undo.callback(_set_data, tensor, tensor.data)
        for part in module.modules():
            if hasattr(part, "training"):
                undo.callback(setattr, part, "training", part.training)
        freeze(module)
        for parameter in module.parameters():
            # Moving a parameter would move its gradient too, in place.
            parameter.grad = None
        for tensor in (*module.parameters(), *module.buffers()):
            data = tensor.data
            plain = _plain(data)
            if plain is not data:
                tensor.data = plain
        for buffer in module.buffers():
            # A forward pass may count or average in place.
            buffer.data = buffer.data.clone()
        yield


def _plain(data: Tensor) -> Tensor:
    if not data.is_meta:
        data = data.cpu()
    return data.float() if data.dtype in _NOT_FLOAT32 else data


def _set_data(tensor: Tensor, data: Tensor) -> None:
    tensor.data = data


def _give_back(parameter: nn.Parameter, wanted: bool, gradient: Tensor | None) -> None:
    parameter.requires_grad_(wanted)
    parameter.grad = gradient


def _keep_tensors(
    part: nn.Module, parameters: dict[str, nn.Parameter | None], buffers: dict[str, Tensor | None]
) -> None:
    """Moving a module puts others in the place of its buffers, and may of its parameters."""
    for name, parameter in parameters.items():
        part._parameters[name] = parameter
    for name, buffer in buffers.items():
        part._buffers[name] = buffer


@contextmanager
def plain_kernels() -> Iterator[None]:
    """float32 throughout, whatever mode the caller is in, and attention as plain operations.

    The fused ones have no forward-mode derivative.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        # The same results at every run, on GPUs too.
        stack.enter_context(
            torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            )
        )
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def fused_kernels() -> Iterator[None]:
    """Inside :func:`plain_kernels`, let attention use fused operations again.

    For what is not differentiated: the backbone. Everything else stays as it is there, so that the
    results are the same at every run; they differ from those of plain operations by rounding. A
    graph that was captured under one of the two runs under the other. The fast path of
    ``nn.MultiheadAttention``, which calls no part that hooks could see, stays off.

    Example:
        >>> q = torch.rand(1, 2, 5, 4)
        >>> with plain_kernels():
        ...     plain = nn.functional.scaled_dot_product_attention(q, q, q)
        ...     with fused_kernels():
        ...         fused = nn.functional.scaled_dot_product_attention(q, q, q)
        >>> torch.allclose(plain, fused, atol=1e-5)
        True
    """
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(fused):
        yield
