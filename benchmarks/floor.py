"""The counted floor: operations and bytes of a pass over the machine's measured peaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from audit.products import PackedLinear
from benchmarks.results import About, Row
from benchmarks.timing import take_turns

_TYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
          "fp16": torch.float16}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """What a machine reaches at best.

    Attributes:
        operations: Of a large product of matrices, or a convolution, floating-point operations a
            second.
        bytes: Read and written by a large copy, a second.
    """

    operations: float
    bytes: float


@cache
def peaks(device: str, precision: str, threads: int) -> Peaks:
    """Measure them.

    Args:
        device: Where.
        precision: Of the matrices.
        threads: Of torch; only tells measurements apart.
    """
    gpu = device.startswith("cuda")
    side, length, batch = (8192, 2**28, 256) if gpu else (2048, 2**25, 8)
    kind = _TYPES[precision]
    one, other = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    # Some libraries multiply matrices slower than they convolve.
    wide = torch.randn(batch, 256, 32, 32, device=device).to(kind)
    wide = wide.contiguous(memory_format=torch.channels_last)
    layer = nn.Conv2d(256, 256, 3, padding=1, device=device).to(kind)
    layer = layer.to(memory_format=torch.channels_last)
    source = torch.zeros(length, device=device)
    target = torch.empty_like(source)
    layout = PackedLinear(other)
    work = {
        "product": lambda: one @ other,
        "packed product": lambda: layout(one),
        "convolution": lambda: layer(wide),
        "copy": lambda: target.copy_(source),
    }
    with torch.no_grad(), tf32(precision == "tf32"):
        seconds = take_turns(work, rounds=5, warm=2, device=device)
    product = 2 * side**3 / min(*seconds["product"], *seconds["packed product"])
    convolution = 2 * batch * 32 * 32 * 9 * 256**2 / min(seconds["convolution"])
    return Peaks(
        operations=max(product, convolution),
        bytes=2 * length * source.element_size() / min(seconds["copy"]),
    )


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let tensor cores round float32, or not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@torch.no_grad()
def counted(model: nn.Module, images: Tensor) -> tuple[float, float]:
    """Operations and the least bytes of a pass, an image.

    The bytes are what every convolution and linear layer reads and writes once, the weights spread
    over the batch: the least that a pass layer by layer must move. Element-wise work is taken as
    free, as if it were fused into these.

    Args:
        model: In evaluation mode.
        images: A batch, normalised.

    Returns:
        Floating-point operations, and bytes at four a number.
    """
    moved = 0

    def add(part: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal moved
        weights = sum(parameter.numel() for parameter in part.parameters(recurse=False))
        moved += 4 * (given[0].numel() + made.numel() + weights)

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(add) for layer in layers]
    try:
        # Fused attention is not counted.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return counter.get_total_flops() / len(images), moved / len(images)


def floor_rows(
    shared: About, model: nn.Module, images: Tensor, device: str, precision: str, count: int
) -> list[Row]:
    """The floor of a network: the larger of operations over their peak and bytes over theirs.

    Args:
        shared: Of the rows.
        model: In float32; may be anywhere.
        images: A batch.
        device: Where was computed.
        precision: Likewise, how.
        count: Images a turn.
    """
    operations, moved = counted(model.to(images.device), images)
    size = 2 if precision in ("bf16", "fp16") else 4
    best = peaks(device, precision, torch.get_num_threads())
    computing, moving = operations / best.operations, moved * size / 4 / best.bytes
    return [
        shared.row("floor, operations", seconds=count * computing,
                   images_per_second=1 / computing, value=operations / 1e6,
                   unit="million operations an image"),
        shared.row("floor, bytes", seconds=count * moving, images_per_second=1 / moving,
                   value=moved * size / 4 / 1e6, unit="MB an image"),
        shared.row("peak, product of matrices or convolution", value=best.operations / 1e9,
                   unit="billion operations a second"),
        shared.row("peak, copy", value=best.bytes / 1e9, unit="GB a second"),
    ]  # fmt: skip
