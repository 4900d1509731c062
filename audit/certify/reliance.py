"""What a model really relies on: its answers with and without the cue, on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audit.certify.known import Images
from audit.certify.plants import Plant, paint
from audit.certify.training import Stats, predict
from audit.devices import CPU


@dataclass(frozen=True, kw_only=True)
class Reliance:
    """How one class's cue moves a model.

    Attributes:
        accuracy_with: Share of the class's images answered rightly when all carry the cue.
        accuracy_without: Likewise when none does.
        answered_with: Share of the other classes' images answered with this class when all
            carry the cue.
        answered_without: Likewise when none does.
    """

    accuracy_with: float
    accuracy_without: float
    answered_with: float
    answered_without: float

    @property
    def pull(self) -> float:
        """How much more often other classes' images are given this class because of the cue."""
        return self.answered_with - self.answered_without


def measure_reliance(
    model: nn.Module,
    plant: Plant,
    data: Images,
    stats: Stats,
    *,
    clean: Tensor,
    seed: int = 0,
    device: torch.device = CPU,
) -> Reliance:
    """Paint a cue into all clean test images and compare the answers.

    Args:
        model: The network.
        plant: The cue and its class.
        data: Clean test images, with object masks where the cue needs them.
        stats: Channel means and standard deviations.
        clean: The answers without the cue, int64, N.
        seed: How cues lie.
        device: Where to compute.

    Returns:
        The shares; NaN where there is no image to count.
    """
    painted = paint(plant.cue, data.images, data.masks, data.index, seed=seed)
    with_cue = predict(model, painted, stats, device) == plant.label
    without_cue = clean == plant.label
    own = data.labels == plant.label
    return Reliance(
        accuracy_with=_share(with_cue[own]),
        accuracy_without=_share(without_cue[own]),
        answered_with=_share(with_cue[~own]),
        answered_without=_share(without_cue[~own]),
    )


def reliant_samples(planted: Tensor, clean: Tensor, labels: Tensor, carried: Tensor) -> Tensor:
    """Which samples are answered with their class because of the cue they carry.

    Args:
        planted: Answers to the planted images, int64, N.
        clean: Answers to the same images without cues, int64, N.
        labels: int64, N.
        carried: Whether the sample carries a cue, bool, N.

    Returns:
        bool, N: the answer is the class with the cue, and another without.

    Example:
        >>> answers = torch.tensor([1, 1, 0]), torch.tensor([0, 1, 0])
        >>> reliant_samples(*answers, torch.tensor([1, 1, 0]), torch.ones(3).bool()).tolist()
        [True, False, False]
    """
    return carried & (planted == labels) & (clean != labels)


def _share(values: Tensor) -> float:
    return float(values.float().mean()) if len(values) else float("nan")
