"""Writing down a network's operations as a graph."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from audit.models.frozen import plain_kernels


class NotCapturedError(Exception):
    """The network's operations cannot be written down; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A network as a graph.

    Attributes:
        graph: Images to logits; shares the network's parameters.
        how: What wrote it down: ``torch.fx``, ``torch.export`` or ``TorchScript``.
    """

    graph: fx.GraphModule
    how: str


def capture(module: nn.Module, images: Tensor) -> Captured:
    """Write down a network's operations.

    ``torch.fx`` is tried first, because it keeps the modules' names; then ``torch.export``, which
    follows more of Python. TorchScript is followed operation by operation.

    Args:
        module: In evaluation mode.
        images: For a dry run.

    Returns:
        The graph.

    Raises:
        NotCapturedError: If neither can follow the network.
    """
    if isinstance(module, fx.GraphModule):
        return Captured(graph=module, how="torch.export")
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        return _from_script(module, images)
    whole = any(isinstance(part, fx.GraphModule) for part in module.modules())
    try:
        with _unmarked(module):
            graph = _Tracer().trace_module(module)
        return Captured(graph=graph, how="torch.export" if whole else "torch.fx")
    except Exception as first:  # noqa: BLE001  # tracing runs the user's code on stand-ins
        return _exported(module, images, first)


class _Tracer(fx.Tracer):
    """Follows everything but the layers of torch itself."""

    def trace_module(self, module: nn.Module) -> fx.GraphModule:
        graph = self.trace(module)
        return fx.GraphModule(module, graph)


def _exported(module: nn.Module, images: Tensor, first: Exception) -> Captured:
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    try:
        with warnings.catch_warnings(), plain_kernels(), _quiet(), _unmarked(module):
            warnings.simplefilter("ignore")
            program = torch.export.export(
                module, (images,), dynamic_shapes=({0: batch},), strict=False
            )
            graph = program.module(check_guards=False)
    except Exception as second:
        reason = "dynamic control flow" if "data-dependent" in str(second) else _line(second)
        raise NotCapturedError(f"torch.fx: {_line(first)}; torch.export: {reason}") from second
    assert isinstance(graph, fx.GraphModule)
    for node in list(graph.graph.nodes):
        if "_assert_tensor_metadata" in str(node.target):
            # It insists on the device that the network was captured on.
            graph.graph.erase_node(node)
    graph.recompile()
    return Captured(graph=graph, how="torch.export")


@contextmanager
def _unmarked(module: nn.Module) -> Iterator[None]:
    """Undo what a network notes on itself while stand-ins for tensors pass through it."""
    before = [(part, _noted(part)) for part in module.modules()]
    try:
        yield
    finally:
        for part, noted in before:
            for name in set(_noted(part)) - set(noted):
                del part.__dict__[name]
            for name, (value, content) in noted.items():
                part.__dict__[name] = value
                if isinstance(value, list):
                    value[:] = content
                elif isinstance(value, dict):
                    value.clear()
                    value.update(content)


def _noted(part: nn.Module) -> dict[str, tuple[Any, Any]]:
    """A module's own attributes, lists and dicts with what they hold."""
    return {
        name: (value, value.copy() if isinstance(value, (list, dict)) else None)
        for name, value in part.__dict__.items()
        if not name.startswith("_")
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch.export from printing its half-made graph when it gives up."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def _from_script(module: nn.Module, images: Tensor) -> Captured:
    from torch.fx.experimental.proxy_tensor import make_fx

    # With gradients on, attention is written down as plain operations.
    live = images.clone().requires_grad_()
    try:
        with warnings.catch_warnings(), plain_kernels(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = make_fx(module, tracing_mode="real", pre_dispatch=True)(live)
    except Exception as error:
        raise NotCapturedError(f"TorchScript: {_line(error)}") from error
    return Captured(graph=graph, how="TorchScript")


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160]
