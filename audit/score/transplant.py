"""Transplants in feature space: this image's background under other classes' objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Donors:
    """Objects to transplant: features of some images of each class, sorted by class.

    Attributes:
        features: D×C×h×w.
        grid_mask: D×h×w.
        labels: int64, D, ascending.
        first: For each class its first donor, int64, K.
        count: For each class how many donors it has, int64, K.
    """

    features: Tensor
    grid_mask: Tensor
    labels: Tensor
    first: Tensor
    count: Tensor

    @classmethod
    def of(cls, features: Tensor, grid_mask: Tensor, labels: Tensor, num_classes: int) -> Donors:
        """Sort donors by class.

        Args:
            features: D×C×h×w.
            grid_mask: D×h×w.
            labels: int64, D, in [0, K).
            num_classes: K.
        """
        order = labels.argsort(stable=True)
        count = torch.bincount(labels, minlength=num_classes)
        return cls(
            features=features[order],
            grid_mask=grid_mask[order],
            labels=labels[order],
            first=count.cumsum(0) - count,
            count=count,
        )


def choose_donors(index: Tensor, labels: Tensor, donors: Donors, partners: int) -> Tensor:
    """For each sample, donors of other classes; a pure function of its position.

    Args:
        index: Positions of the samples in the split, int64, N.
        labels: int64, N; -1 where unknown.
        donors: The donors.
        partners: P, how many to choose.

    Returns:
        Positions among the donors, int64, N×P; spread evenly over the donors of other classes.
        Meaningless (but valid) where the label is unknown or no other class has donors.
    """
    own = labels.clamp_min(0)
    own_first, own_count = donors.first[own], donors.count[own]
    others = (len(donors.labels) - own_count).clamp_min(1)
    step = torch.arange(partners, device=index.device)
    place = (_scramble(index)[:, None] + step * others[:, None] // partners) % others[:, None]
    place = place + own_count[:, None] * (place >= own_first[:, None])
    return place.clamp_max(len(donors.labels) - 1)


def transplant_rate(
    head: nn.Module,
    features: Tensor,
    cell_weights: Tensor,
    labels: Tensor,
    donors: Donors,
    chosen: Tensor,
) -> Tensor:
    """How often this image's background makes another class's object look like this class.

    The composite holds the donor's features on the donor's object cells, and this image's
    features elsewhere; where this image had its own object, the mean of its far background
    stands in. It goes through the head alone. Where features see far beyond their cell, they
    carry object into background, so a high rate is a reason to look, not a proof.

    Args:
        head: Features to logits.
        features: ``A``, N×C×h×w.
        cell_weights: Of the regions object, near and far, 3×N×h×w (more are not read).
        labels: int64, N; -1 where unknown.
        donors: The donors.
        chosen: Positions among the donors, N×P.

    Returns:
        Share of the P composites that are predicted as the sample's label, in [0, 1], N; NaN
        where the label is unknown, the sample has no background, or no other class has donors.
    """
    near, far = cell_weights[1], cell_weights[2]
    # What is unknown may be object, so it goes with it.
    not_background = 1 - near - far
    # An object that reaches nearly everywhere leaves no far background: take what there is.
    source = torch.where(far.sum(dim=(1, 2), keepdim=True) > 0.5, far, near + far)
    amount = source.sum(dim=(1, 2))
    mean = torch.einsum("nchw,nhw->nc", features, source) / amount.clamp_min(1e-6)[:, None]
    emptied = features + not_background[:, None] * (mean[:, :, None, None] - features)
    hits = torch.zeros(len(features), device=features.device)
    for partner in chosen.unbind(dim=1):
        mask = donors.grid_mask[partner][:, None]
        composite = emptied + mask * (donors.features[partner] - emptied)
        hits += head(composite).argmax(dim=1) == labels
    defined = (labels >= 0) & (amount > 1e-6) & (donors.labels[chosen[:, 0]] != labels)
    return torch.where(defined, hits / chosen.shape[1], torch.nan)


def _scramble(index: Tensor) -> Tensor:
    """Spread consecutive positions over [0, 2³¹), the same on every device."""
    x = (index * 0x9E3779B1 + 0x7F4A7C15) & 0x7FFFFFFF
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & 0x7FFFFFFF
    return x ^ (x >> 12)
