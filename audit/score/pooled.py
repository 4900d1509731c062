"""Contributions and transplants in closed form, where a head is pooling and a linear map.

With ``z = W · mean over cells of A + b`` everything that a region, or a composite of two pictures,
supplies is a sum of features over cells times ``W``. One product of the regions' weights with the
features gives those sums for all regions at once; no gradient and no second pass is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.products import PackedLinear
from audit.score.channels import LEAST_FAR
from audit.score.contributions import Supplied, centre, pointed_to
from audit.score.transplant import Donors, Transplants, counted_pairs, rate_of

# Less background than this, in cells, is rounding.
_NOTHING = 1e-6
# Object, near and far; unknown may follow.
_REGIONS = 3


def as_cells(features: Tensor) -> Tensor:
    """Features with a row for each cell.

    Args:
        features: N×C×h×w.

    Returns:
        N×(h·w)×C; a view where features lie channels last.

    Example:
        >>> as_cells(torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])).tolist()
        [[[1.0, 3.0], [2.0, 4.0]]]
    """
    return features.permute(0, 2, 3, 1).flatten(1, 2)


@dataclass(frozen=True, kw_only=True)
class PooledHead:
    """A head that is global average pooling and a linear map, of centred logits.

    Logits are centred (minus their mean over classes), which changes no prediction.

    Attributes:
        weight: Of the linear map, centred over classes, K×C.
        bias: What the head adds, centred, K.
    """

    weight: Tensor
    bias: Tensor

    @cached_property
    def _product(self) -> PackedLinear:
        return PackedLinear(self.weight)

    @classmethod
    @torch.no_grad()
    def of(cls, head: nn.Module, weight: Tensor, shape: Sequence[int]) -> PooledHead:
        """Read a head.

        Args:
            head: Features to logits.
            weight: Of its linear map, K×C.
            shape: Of one sample's features: C, h and w.
        """
        nothing = torch.zeros((1, *shape), device=weight.device, dtype=weight.dtype)
        return cls(weight=weight - weight.mean(dim=0), bias=centre(head(nothing))[0])

    def supplied(self, sums: Tensor, cells: int) -> Tensor:
        """What features supply to the centred logits.

        Args:
            sums: Of features over cells, …×C.
            cells: Of the whole grid, h·w.

        Returns:
            Logits …×K.
        """
        supplied: Tensor = self._product(sums / cells)
        return supplied


@dataclass(frozen=True, kw_only=True)
class PooledDonors:
    """What donors supply to composites under a pooled head.

    Attributes:
        objects: By family, what the donor's object and the head's bias supply to the centred
            logits, F×D×K.
        whole: What all of the donor and the bias supply, D×K.
        beside: Of the donor beside its object under the main masks, cell by cell: features
            D×(h·w)×C, or what they supply, D×(h·w)×K, whichever is smaller.
        as_logits: Whether ``beside`` holds what is supplied.
    """

    objects: Tensor
    whole: Tensor
    beside: Tensor
    as_logits: bool

    @classmethod
    def of(cls, donors: Donors, head: PooledHead) -> PooledDonors:
        """Multiply donors by the head's weight, once for all batches.

        Args:
            donors: Of every family of masks.
            head: The head.
        """
        cells = as_cells(donors.features)
        count = cells.shape[1]
        inside = donors.grid_masks.transpose(0, 1).flatten(2)  # D×F×S
        objects = head.supplied(inside @ cells, count).transpose(0, 1)
        beside = (1 - inside[:, 0])[:, :, None] * cells
        as_logits = head.weight.shape[0] < head.weight.shape[1]
        return cls(
            objects=objects + head.bias,
            whole=head.supplied(cells.sum(dim=1), count) + head.bias,
            beside=head.supplied(beside, count) if as_logits else beside,
            as_logits=as_logits,
        )


@dataclass(frozen=True, kw_only=True)
class RegionSums:
    """Features summed over the regions of a batch, and over what stays of it in composites.

    Attributes:
        regions: Over object, near and far (and unknown) under the main masks, N×R×C.
        whole: Over all cells, N×C.
        composites: By family, over this image's part of each composite, N×P×C; the part of the
            removed object that the mean fills is in it.
        far: Over its part of each composite with the far background alone, N×P'×C, before the
            donor's share of these cells is taken off.
        amounts: Background in cells by family, F×N.
    """

    regions: Tensor
    whole: Tensor
    composites: list[Tensor]
    far: Tensor | None
    amounts: Tensor


def region_sums_of(
    features: Tensor,
    cell_weights: Tensor,
    kept: Sequence[Tensor] = (),
) -> RegionSums:
    """Sum features over all regions in one product.

    Args:
        features: ``A``, N×C×h×w.
        cell_weights: Of the regions object, near and far (and unknown) under each family of
            masks, R×F×N×h×w, the main family first.
        kept: By family, the share of each cell that is not a chosen donor's object, N×P×h×w;
            nothing where there are no transplants.

    Returns:
        The sums.
    """
    weights = cell_weights.flatten(3)  # R×F×N×S
    near, far = weights[1], weights[2]
    background = near + far
    source = torch.where(far.sum(dim=2, keepdim=True) > LEAST_FAR, far, background)
    shares = [share.flatten(2) for share in kept]
    parts = [weights[:, 0].transpose(0, 1), torch.ones_like(far[0])[:, None]]
    if shares:
        parts.append(source[: len(shares)].transpose(0, 1))
        parts += [share * background[number][:, None] for number, share in enumerate(shares)]
        few = -(-shares[0].shape[1] // 2)
        parts.append(shares[0][:, :few] * far[0][:, None])
    sums = torch.cat(parts, dim=1) @ as_cells(features)
    regions, whole, *others = sums.split([part.shape[1] for part in parts], dim=1)
    amounts = source.sum(dim=2)
    composites = []
    for number, share in enumerate(shares):
        # What is removed is filled with the mean of the background.
        mean = others[0][:, number] / amounts[number].clamp_min(_NOTHING)[:, None]
        filled = (share * (1 - background[number])[:, None]).sum(dim=2)
        composites.append(others[1 + number] + filled[:, :, None] * mean[:, None])
    return RegionSums(
        regions=regions,
        whole=whole[:, 0],
        composites=composites,
        far=others[-1] if shares else None,
        amounts=amounts,
    )


@dataclass(frozen=True, kw_only=True)
class PooledLogits:
    """Centred logits that parts of a batch supply, from one product with the head's weight.

    Attributes:
        object: From the object under the main masks, N×K.
        background: From near and far under the main masks, N×K.
        composites: By family, from this image's part of each composite, N×P×K.
        far: From its part with the far background alone, N×P'×K.
    """

    object: Tensor
    background: Tensor
    composites: list[Tensor]
    far: Tensor | None


def pooled_logits(head: PooledHead, sums: RegionSums, cells: int) -> PooledLogits:
    """Multiply all sums with the head's weight.

    Args:
        head: The head.
        sums: Of a batch's features.
        cells: Of the grid, h·w.
    """
    background = sums.regions[:, 1] + sums.regions[:, 2]
    parts = [sums.regions[:, :1], background[:, None], *sums.composites]
    if sums.far is not None:
        parts.append(sums.far)
    supplied = head.supplied(torch.cat(parts, dim=1), cells)
    first, second, *others = supplied.split([part.shape[1] for part in parts], dim=1)
    return PooledLogits(
        object=first[:, 0],
        background=second[:, 0],
        composites=others[: len(sums.composites)],
        far=others[-1] if sums.far is not None else None,
    )


def pooled_supplied(
    head: PooledHead,
    sums: RegionSums,
    found: PooledLogits,
    logits: Tensor,
    targets: Tensor,
    alt: Tensor,
    cells: int,
) -> Supplied:
    """What regions supply to the target and to another class.

    Args:
        head: The head.
        sums: Of the batch's features.
        found: What they supply.
        logits: N×K.
        targets: int64, N.
        alt: int64, N; -1 for none.
        cells: Of the grid, h·w.

    Returns:
        As by :func:`audit.score.contributions.contributions`; ``residual`` is rounding.

    Example:
        >>> head = PooledHead(weight=torch.tensor([[0.5], [-0.5]]), bias=torch.zeros(2))
        >>> A = torch.tensor([[[[3.0, 5.0]]]])
        >>> regions = torch.tensor([[[[[1.0, 0.0]]]], [[[[0.0, 0.0]]]], [[[[0.0, 1.0]]]]])
        >>> sums = region_sums_of(A, regions)
        >>> found = pooled_logits(head, sums, 2)
        >>> z, first, none = torch.tensor([[2.0, -2.0]]), torch.tensor([0]), torch.tensor([-1])
        >>> parts = pooled_supplied(head, sums, found, z, first, none, 2)
        >>> parts.target.tolist(), parts.object_pred.item()
        ([[0.75, 0.0, 1.25, 0.0]], 0)
    """

    def to(classes: Tensor) -> Tensor:
        weight = head.weight[classes.clamp_min(0)]
        return (sums.regions @ weight[:, :, None])[:, :, 0] / cells

    target = to(targets)
    if target.shape[1] == _REGIONS:
        target = torch.cat([target, torch.zeros_like(target[:, :1])], dim=1)
    bias = head.bias[targets]
    centred = logits.gather(1, targets[:, None])[:, 0] - logits.mean(dim=1)
    return Supplied(
        target=target,
        alt=to(alt)[:, :_REGIONS],
        bias=bias,
        residual=centred - target.sum(dim=1) - bias,
        object_pred=pointed_to(found.object),
        background_pred=pointed_to(found.background),
    )


def pooled_transplants(
    head: PooledHead,
    amounts: Tensor,
    found: PooledLogits,
    far: Tensor,
    labels: Tensor,
    donors: Donors,
    supplied: PooledDonors,
    chosen: Tensor,
) -> Transplants:
    """How often this image's background makes another class's object look like this class.

    Args:
        head: The head.
        amounts: Background that composites are made with, in cells by family, F×N.
        found: What this batch's parts supply.
        far: Weights of the far background under the main masks, N×h×w.
        labels: int64, N; -1 where unknown.
        donors: The donors.
        supplied: What they supply.
        chosen: Positions among the donors, N×P.

    Returns:
        As :func:`audit.score.transplant.transplant`, whose composites these are.
    """
    flat = far.flatten(1)
    has_donors, counted = counted_pairs(labels, donors, chosen, amounts)
    few = -(-chosen.shape[1] // 2)
    predictions = torch.full_like(chosen, -1).repeat(len(found.composites), 1, 1)
    additive = torch.full_like(chosen, -1)
    for number, own in enumerate(found.composites):
        tried = chosen[:, : own.shape[1]]
        logits = supplied.objects[number][tried]
        if number == 0:
            additive = _highest(logits + found.background[:, None])
        predictions[number, :, : own.shape[1]] = _highest(logits.add_(own))
    of_far = _far_predictions(head, found, flat, supplied, chosen[:, :few])
    far_counted = counted[0, :, :few] & (flat.sum(dim=1) >= LEAST_FAR)[:, None]
    return Transplants(
        objects=torch.where(has_donors, donors.labels[chosen], -1),
        predictions=torch.where(counted, predictions, -1),
        rate=rate_of(predictions, labels, counted),
        far_rate=rate_of(of_far, labels, far_counted),
        additive_rate=rate_of(additive, labels, counted[0]),
    )


def _far_predictions(
    head: PooledHead, found: PooledLogits, far: Tensor, supplied: PooledDonors, chosen: Tensor
) -> Tensor:
    """What composites of the far background N×S and all the rest of a donor are predicted as."""
    assert found.far is not None
    count, cells = far.shape
    # The donor keeps all cells but those that are far background here and not object there.
    places = chosen[:, :, None] * cells + torch.arange(cells, device=far.device)
    lost = F.embedding_bag(
        places.flatten(0, 1),
        supplied.beside.flatten(0, 1),
        per_sample_weights=far[:, None].expand_as(places).flatten(0, 1).contiguous(),
        mode="sum",
    )
    if not supplied.as_logits:
        lost = head.supplied(lost, cells)
    logits = supplied.whole[chosen].add_(found.far)
    return _highest(logits.sub_(lost.unflatten(0, (count, -1))))


def _highest(logits: Tensor) -> Tensor:
    """The first of the classes with the highest logit, N×P of N×P×K."""
    if logits.device.type == "cpu":
        # NumPy takes several classes at once; of a thousand that is a quarter of the time.
        return torch.from_numpy(logits.numpy().argmax(axis=2))
    return logits.argmax(dim=2)
