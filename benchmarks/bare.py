"""Every way of running the bare forward pass: the limit that everything is measured against."""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from audit.config import Precision
from audit.inference.building import packed, piece_size, rebuilt
from audit.inference.packing import can_pack
from audit.inference.precision import computing
from audit.models import cut
from benchmarks.floor import tf32
from benchmarks.timing import Work

_TYPES = {"float32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16,
          "fp16": torch.float16}  # fmt: skip
LOADED = "as loaded"
# The audit's own way; nobody else has it.
PACKED = "folded, channels_last, packed, in pieces"


def folded(model: nn.Module) -> nn.Module:
    """A copy with batch norms folded into the convolutions before them; names stay.

    Args:
        model: In evaluation mode; is left as it is.

    Returns:
        The copy; unchanged where the graph of the network cannot be followed.
    """
    model = copy.deepcopy(model)
    try:
        graph = torch.fx.symbolic_trace(model).graph
    except Exception as error:  # noqa: BLE001 - whatever a network's own code raises when it is traced
        print(f"batch norms are not folded: {error}", file=sys.stderr)
        return model
    parts = dict(model.named_modules())
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, torch.fx.Node) or before.op != "call_module":
            continue
        norm, conv = parts[str(node.target)], parts[str(before.target)]
        plain = isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d)
        if plain and len(before.users) == 1:
            _replace(model, str(before.target), fuse_conv_bn_eval(conv, norm))
            _replace(model, str(node.target), nn.Identity())
    return model


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, part)


def bare_ways(
    model: nn.Module,
    batches: Sequence[Tensor],
    *,
    precision: Precision = "float32",
    compiled: bool = True,
) -> dict[str, Work]:
    """Forward passes over the same batches, by name; each returns the last logits.

    Args:
        model: In evaluation mode, in float32; is left as it is.
        batches: Normalised images, all of one shape, on the device to compute on.
        precision: Of weights, images and sums.
        compiled: Also with torch.compile, where it works.
    """
    device, kind = batches[0].device, _TYPES[precision]
    model = copy.deepcopy(model).to(device, kind)
    rows = [batch.to(kind) for batch in batches]
    last = [batch.contiguous(memory_format=torch.channels_last) for batch in rows]
    fold = folded(model.float()).to(kind)
    model = model.to(kind)
    fold_last = copy.deepcopy(fold).to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        LOADED: model,
        "channels_last": copy.deepcopy(model).to(memory_format=torch.channels_last),
        "folded": fold,
        "folded, channels_last": fold_last,
    }
    if compiled:
        ways |= _compiled("compiled", model, rows[0])
        ways |= _compiled("folded, channels_last, compiled", fold_last, last[0])
    if can_pack(device, kind):
        ways |= _packed(model, last[0], precision)
    if device.type == "cuda":
        ways["folded, channels_last, CUDA graph"] = _recorded(fold_last, last[0])
        if compiled:
            ways |= _compiled(
                "folded, channels_last, compiled, CUDA graph", fold_last, last[0], graphs=True
            )
    allow = precision == "tf32"
    return {
        name: _over(way, last if "channels_last" in name else rows, allow)
        for name, way in ways.items()
    }


def _over(way: Callable[[Tensor], Tensor], batches: Sequence[Tensor], allow: bool) -> Work:
    @torch.no_grad()
    def run() -> Tensor:
        with tf32(allow):
            for batch in batches:
                logits = way(batch)
        return logits

    return run


@torch.no_grad()
def _compiled(
    name: str, model: nn.Module, example: Tensor, *, graphs: bool = False
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Compiled with the weights as constants; nothing where that fails."""
    import torch._inductor.config as settings

    started = time.perf_counter()
    options: dict[str, Any] = {"mode": "reduce-overhead"} if graphs else {}
    made = torch.compile(copy.deepcopy(model), dynamic=False, **options)
    try:
        with settings.patch(freezing=True):
            made(example)
            made(example)
    except Exception as error:  # noqa: BLE001 - a compiler that is missing, or does not know this network
        print(f"{name}: not measured, {str(error).splitlines()[0]}", file=sys.stderr)
        return {}
    print(f"{name}: compiled in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return {name: made}


@torch.no_grad()
def _packed(
    model: nn.Module, example: Tensor, precision: Precision
) -> dict[str, Callable[[Tensor], Tensor]]:
    """The audit's own way on CPUs: layers packed for oneDNN, and as many images as caches hold.

    It would not do to be compared with less than one uses oneself.
    """
    name, kind = PACKED, example.dtype
    plain = copy.deepcopy(model).float().requires_grad_(False)
    images = example.float()[:2]
    parts = cut(plain, (int(example.shape[2]), int(example.shape[3])))
    try:
        made = rebuilt(parts.backbone, partial(packed, images=images, dtype=kind))
    except Exception as error:  # noqa: BLE001 - torch's own operations differ by version
        print(f"{name}: not measured, {error}", file=sys.stderr)
        return {}
    if made is None:
        return {}
    piece = piece_size(parts.backbone, images, kind) or len(example)

    def run(batch: Tensor) -> Tensor:
        with computing(precision, batch.device):
            found = [made(some) for some in batch.float().split(piece)]
        features = [torch.cat(each).float() for each in zip(*found, strict=True)]
        logits: Tensor = parts.head(*features)
        return logits

    return {name: run}


@torch.no_grad()
def _recorded(model: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """As a CUDA graph; each batch is copied to where the graph reads it."""
    given = example.clone(memory_format=torch.preserve_format)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = model(given)

    def replay(batch: Tensor) -> Tensor:
        given.copy_(batch)
        graph.replay()
        return logits

    return replay
