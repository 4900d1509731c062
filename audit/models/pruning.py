"""Heads that compute no more than their logits need.

Of a vision transformer's last block the logits read the class token alone. What works token by
token is then computed for that token only, attention answers its query only, and keys and values
are never made of all tokens where that costs more than to map the query. A head that pools over
all tokens needs all of them and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from audit.models.biases import bias_tangents
from audit.models.demand import Demand
from audit.models.graph import Record, Recorder
from audit.models.kinds import works_in_place
from audit.models.narrowing import NotNarrowedError, narrowed

# Random inputs of the head's own kind that a pruned one must agree on, beside the real ones.
_TRIALS = 1


def pruned(graph: fx.GraphModule, given: Sequence[Tensor], tolerance: float) -> fx.GraphModule:
    """A head without what its logits do not depend on.

    Args:
        graph: Activations to logits.
        given: Activations of at least two images.
        tolerance: How far outputs and gradients may be from the graph's own, relative to their
            size.

    Returns:
        A graph that shares the parameters and computes the same with fewer operations; ``graph``
        itself if there is none, if the two disagree, or if it writes into its inputs.

    Example:
        >>> class Head(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.norm, self.last = torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)
        ...     def forward(self, x):
        ...         return self.last(self.norm(x)[:, 0])
        >>> graph = fx.symbolic_trace(Head())
        >>> lean = pruned(graph, [torch.rand(2, 5, 4)], 1e-4)
        >>> [node.name for node in lean.graph.nodes]  # the first token is taken, then normalised
        ['x', 'getitem', 'norm', 'getitem_1', 'last', 'output']
    """
    if works_in_place(graph):
        return graph
    try:
        demand = Demand(graph, _seen(graph, given))
        if not demand.narrow:
            return graph
        lean = narrowed(demand)
        same = _agree(graph, lean, given, tolerance)
    except (NotNarrowedError, RuntimeError, TypeError, ValueError, IndexError, KeyError):
        # Whatever could not be followed is computed as it was.
        return graph
    return lean if same else graph


def _seen(graph: fx.GraphModule, given: Sequence[Tensor]) -> Record:
    recorder = Recorder(graph)
    with torch.no_grad():
        recorder.run(*given)
    return recorder.record


def _agree(
    graph: fx.GraphModule, lean: fx.GraphModule, given: Sequence[Tensor], tolerance: float
) -> bool:
    held = {name for name, _ in (*lean.named_parameters(), *lean.named_buffers())}
    if not bias_tangents(graph).keys() <= held:
        return False
    trials = [tuple(given), *_trials(given)]
    return all(
        _close(ours, theirs, tolerance)
        for trial in trials
        for ours, theirs in zip(_outcome(lean, trial), _outcome(graph, trial), strict=True)
    )


def _trials(given: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Random inputs as large as the real ones, of one image more."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(_TRIALS):
        drawn = [
            torch.randn(len(g) + 1, *g.shape[1:], generator=generator, dtype=torch.float32)
            for g in given
        ]
        found.append(tuple(d.to(g) * g.std() + g.mean() for d, g in zip(drawn, given, strict=True)))
    return found


def _outcome(graph: fx.GraphModule, given: Sequence[Tensor]) -> list[Tensor]:
    """Outputs, and the gradient of a mix of them at every input."""
    with torch.enable_grad():
        leaves = [each.detach().clone().requires_grad_() for each in given]
        found = graph(*leaves)
        outputs = list(found) if isinstance(found, (tuple, list)) else [found]
        mix = sum((o * torch.linspace(0.5, 1.5, o.shape[-1], dtype=o.dtype)).sum() for o in outputs)
        assert isinstance(mix, Tensor)
        gradients = torch.autograd.grad(mix, leaves, materialize_grads=True)
    return [*(output.detach() for output in outputs), *gradients]


def _close(ours: Tensor, theirs: Tensor, tolerance: float) -> bool:
    if ours.shape != theirs.shape or not bool(torch.isfinite(theirs).all()):
        return False
    scale = float(theirs.abs().max())
    return torch.allclose(ours, theirs, rtol=0, atol=tolerance * scale + 1e-12)
