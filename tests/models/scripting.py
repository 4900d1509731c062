"""TorchScript programs for tests."""

from __future__ import annotations

import torch
from torch import nn
from torch.jit._builtins import _get_builtin_table


def scripted(network: nn.Module) -> torch.jit.ScriptModule:
    """Compiles a network.

    The compiler knows its builtin functions by the address of their Python object and does not
    hold all of them: an attribute of the network that lies where such a function once was is
    taken for it, by chance ("builtin cannot be used as a value"). Such entries go first.
    """
    builtins = _get_builtin_table()
    for module in network.modules():
        for value in vars(module).values():
            if not callable(value):
                builtins.pop(id(value), None)
    return torch.jit.script(network)
