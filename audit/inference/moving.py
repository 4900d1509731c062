"""Graphs of operations that name a device, on another one."""

from __future__ import annotations

import torch
from torch import fx, nn


def move_graphs(module: nn.Module, device: torch.device) -> None:
    """Let captured graphs make their constants on a device; they name the one they were made on.

    Args:
        module: Its graphs are changed in place; parameters stay where they are.
        device: The new one.
    """
    for part in module.modules():
        if not isinstance(part, fx.GraphModule):
            continue
        changed = False
        for node in part.graph.nodes:
            if isinstance(node.kwargs.get("device"), torch.device):
                node.update_kwarg("device", device)
                changed = True
            for place, value in enumerate(node.args):
                if isinstance(value, torch.device):
                    node.update_arg(place, device)
                    changed = True
        if changed:
            part.recompile()
