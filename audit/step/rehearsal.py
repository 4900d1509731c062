"""Whether a head bears what the step asks of it, before a long run finds out."""

from __future__ import annotations

import torch

from audit.errors import ModelError
from audit.score.contributions import cell_contributions, object_and_background, regions
from audit.step.fused import AuditStep


@torch.no_grad()
def rehearse(step: AuditStep, name: str) -> None:
    """Try what only a head can refuse: being differentiated along a direction.

    Args:
        step: Ready to run.
        name: The network's, for the message.

    Raises:
        ModelError: If it cannot be.
    """
    device = step.explainer.mean.device
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *step.image_size), generator=generator)
    try:
        features, *rest = step.explainer.encode(images.to(device))
        if step.explainer.parts.linear is not None:
            return  # What a pooled linear head supplies needs no derivative.
        logits = step.explainer.head(features, *rest)
        cells = regions(torch.zeros(2, *step.grid, device=device))
        biases = step.explainer.parts.biases
        object_and_background(step.explainer.head, features, cells, biases=biases, rest=tuple(rest))
        cell_contributions(step.explainer.head, features, logits.argmax(dim=1), tuple(rest))
    except (RuntimeError, NotImplementedError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        dynamic = any(word in str(error) for word in (".item()", "data-dependent", "bool"))
        raise ModelError(
            f"the head of '{name}' cannot be differentiated",
            expected="operations that PyTorch can differentiate, the same for any image",
            found="dynamic control flow" if dynamic else (lines or [type(error).__name__])[0][:200],
            remedy="choose an earlier or later layer with --target-layer (audit layers lists them)",
        ) from error
