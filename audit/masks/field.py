"""Labels that agree with their colours, their neighbours and a prior: a mean field."""

from __future__ import annotations

import torch
from torch import Tensor

from audit.masks.mixture import Codebook

_ROUNDS = 3
_STEPS = 4
_COUPLING = 2.0


class Contrast:
    """How strongly each pixel is tied to its right and lower neighbour, by likeness of colour.

    Args:
        lab: N×3×H×W.
    """

    def __init__(self, lab: Tensor) -> None:
        right, below = (lab.diff(dim=d).square().sum(dim=1, keepdim=True) for d in (-1, -2))
        scale = right.mean(dim=(2, 3), keepdim=True) + below.mean(dim=(2, 3), keepdim=True)
        scale = scale.clamp_min(2e-6)
        self.right, self.below = (-right / scale).exp(), (-below / scale).exp()

    def pull(self, sign: Tensor) -> Tensor:
        """Sum of the neighbours' labels, weighted.

        Args:
            sign: In (−1, 1), N×V×H×W.
        """
        pull = torch.zeros_like(sign)
        pull[..., :, :-1] += self.right * sign[..., :, 1:]
        pull[..., :, 1:] += self.right * sign[..., :, :-1]
        pull[..., :-1, :] += self.below * sign[..., 1:, :]
        pull[..., 1:, :] += self.below * sign[..., :-1, :]
        return pull


def segment(codebook: Codebook, contrast: Contrast, priors: Tensor) -> Tensor:
    """Update colour shares and labels in turn.

    Mean field of a contrast-sensitive Potts model whose colour terms follow the labels, as in
    GrabCut (Rother et al. 2004).

    Args:
        codebook: The images' colours.
        contrast: The ties between neighbours.
        priors: Log odds of object to start from and to hold on to, N×V×S×S.

    Returns:
        Probability of object, N×V×S×S.
    """
    labels = torch.sigmoid(priors)
    for _ in range(_ROUNDS):
        evidence = codebook.evidence(labels.flatten(2)).view_as(labels)
        alone = priors + evidence
        for _ in range(_STEPS):
            labels = torch.sigmoid(alone + _COUPLING * contrast.pull(2 * labels - 1))
    return labels
