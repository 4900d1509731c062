"""What regions of a batch supply to its logits, and what its transplants are predicted as."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from audit.cam import weighted
from audit.explaining import Explainer, Explanation
from audit.score.channels import LEAST_FAR, channel_logits, far_features
from audit.score.contributions import Supplied, object_and_background, pointed_to
from audit.score.pooled import (
    PooledDonors,
    PooledHead,
    pooled_logits,
    pooled_supplied,
    pooled_transplants,
    region_sums_of,
)
from audit.score.transplant import Donors, Transplants, transplant

_REGIONS = 3


@dataclass(frozen=True, kw_only=True)
class Transplanting:
    """What a batch's transplants are made with.

    Attributes:
        donors: Of every family of masks.
        supplied: What they supply under a pooled head; ``None`` under another.
        chosen: Those of each sample, N×P.
    """

    donors: Donors
    supplied: PooledDonors | None
    chosen: Tensor


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What a batch's features supply.

    Attributes:
        regions: By region, to the target and the other class.
        by_cell: By cell, to the centred logit of the target, N×h×w.
        by_channel: By region (object, near, far) and channel, to the same, N×3×C.
        far_features: Mean features of the far background, N×C; NaN where there is too little.
        carried: What the transplants say.
        activity: Features summed over all cells, N×C; ``None`` where that was not needed.
    """

    regions: Supplied
    by_cell: Tensor
    by_channel: Tensor
    far_features: Tensor
    carried: Transplants
    activity: Tensor | None = None


def general_supply(
    explainer: Explainer,
    found: Explanation,
    weights: Tensor,
    labels: Tensor,
    transplanting: Transplanting | None,
    partners: int,
) -> Supply:
    """By derivatives of whatever the head is.

    Args:
        explainer: Holds the head.
        found: What the pass over the batch gave, with gradients for two classes a sample.
        weights: Of the regions of each family's masks, 3 (or 4)×F×N×h×w, the main family first.
        labels: int64, N.
        transplanting: ``None`` for no transplants.
        partners: P, how many there would be.
    """
    main, features = weights[:, 0], found.features
    assert found.evidence is not None
    to_target, to_alt = (
        features * (gradient - found.evidence.mean) for gradient in found.evidence.targets
    )
    by_cell = to_target.sum(dim=1)
    if transplanting is None:
        carried = Transplants.undefined(len(labels), weights.shape[1], partners, labels.device)
    else:
        donors, chosen = transplanting.donors, transplanting.chosen
        carried = transplant(
            explainer.lean_head, found.features, weights[:_REGIONS], labels, donors, chosen
        )
    return Supply(
        regions=_general_regions(explainer, found, main, by_cell, to_alt.sum(dim=1)),
        by_cell=by_cell,
        by_channel=channel_logits(to_target, main),
        far_features=far_features(features, main),
        carried=carried,
    )


def _general_regions(
    explainer: Explainer, found: Explanation, main: Tensor, to_target: Tensor, to_alt: Tensor
) -> Supplied:
    """What regions (weights 3 or 4×N×h×w) supply, given what each cell does to two classes."""
    by_object, by_background, by_biases = object_and_background(
        explainer.head, found.features, main, biases=explainer.parts.biases, rest=found.rest
    )
    target = (main * to_target).sum(dim=(2, 3)).T
    if len(main) == _REGIONS:
        target = torch.cat([target, torch.zeros_like(target[:, :1])], dim=1)
    own = found.targets[:, :1]
    bias = by_biases.gather(1, own)[:, 0]
    centred = found.logits.gather(1, own)[:, 0] - found.logits.mean(dim=1)
    return Supplied(
        target=target,
        alt=(main[:_REGIONS] * to_alt).sum(dim=(2, 3)).T,
        bias=bias,
        residual=centred - target.sum(dim=1) - bias,
        object_pred=pointed_to(by_object),
        background_pred=pointed_to(by_background),
    )


def pooled_supply(
    head: PooledHead,
    found: Explanation,
    weights: Tensor,
    labels: Tensor,
    alt: Tensor,
    transplanting: Transplanting | None,
    partners: int,
) -> Supply:
    """In closed form, where the head is pooling and a linear map.

    Args:
        head: The head.
        found: As for :func:`general_supply`, and so are the others.
        weights: Likewise.
        labels: Likewise.
        alt: The other class, int64 N; -1 for none.
        transplanting: Likewise.
        partners: Likewise.
    """
    features, far = found.features, weights[2, 0]
    cells = far.shape[1] * far.shape[2]
    kept: list[Tensor] = []
    if transplanting is not None:
        chosen = transplanting.chosen
        tried = [chosen, *[chosen[:, : -(-partners // 2)]] * (weights.shape[1] - 1)]
        masks = transplanting.donors.grid_masks
        kept = [1 - each[own] for each, own in zip(masks, tried, strict=True)]
    sums = region_sums_of(features, weights, kept)
    logits = pooled_logits(head, sums, cells)
    carried = Transplants.undefined(len(labels), weights.shape[1], partners, labels.device)
    if transplanting is not None and transplanting.supplied is not None:
        carried = pooled_transplants(
            head,
            sums.amounts,
            logits,
            far,
            labels,
            transplanting.donors,
            transplanting.supplied,
            transplanting.chosen,
        )
    target = found.targets[:, 0]
    weight = head.weight[target] / cells
    amount = far.sum(dim=(1, 2))[:, None]
    return Supply(
        regions=pooled_supplied(head, sums, logits, found.logits, target, alt, cells),
        by_cell=weighted(features, weight[:, None])[:, 0],
        by_channel=sums.regions[:, :_REGIONS] * weight[:, None],
        far_features=torch.where(amount >= LEAST_FAR, sums.regions[:, 2] / amount, torch.nan),
        carried=carried,
        activity=sums.whole,
    )
