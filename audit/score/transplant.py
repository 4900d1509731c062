"""Transplants in feature space: this image's background under other classes' objects."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from audit.score.channels import LEAST_FAR, region_sums
from audit.score.positions import of_other_classes

# Less background than this, in cells, is rounding.
_NOTHING = 1e-6
# Composites that go through the head at once. On a CPU larger buffers would leave the cache.
_CALL_BYTES = 2**28
_CALL_BYTES_ON_CPU = 2**22
# Libraries compute a batch of one by other routines, which differ in the fifth digit.
_LEAST_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Donors:
    """Objects to transplant: features of some images of each class, sorted by class.

    Attributes:
        features: D×C×h×w, in the memory format that composites are made in.
        grid_masks: The share of each cell that is object, by family of masks, F×D×h×w; the main
            family is the first.
        valid: Which donors' masks have an object and a background, bool F×D.
        labels: int64, D, ascending.
        first: For each class its first donor, int64, K.
        count: For each class how many donors it has, int64, K.
        object_logits: What the donors' objects supply to the centred logits under the main masks,
            D×K, where the head is global average pooling and a linear map; else ``None``.
    """

    features: Tensor
    grid_masks: Tensor
    valid: Tensor
    labels: Tensor
    first: Tensor
    count: Tensor
    object_logits: Tensor | None

    @classmethod
    def of(
        cls,
        features: Tensor,
        grid_masks: Tensor,
        labels: Tensor,
        num_classes: int,
        *,
        valid: Tensor | None = None,
        linear: Tensor | None = None,
        channels_last: bool = False,
    ) -> Donors:
        """Sort donors by class.

        Args:
            features: D×C×h×w.
            grid_masks: F×D×h×w.
            labels: int64, D, in [0, K).
            num_classes: K.
            valid: bool, F×D; ``None`` for all.
            linear: Weight K×C of a head that is global average pooling and a linear map.
            channels_last: Make composites in this memory format, see :func:`takes_channels_last`.
        """
        order = labels.argsort(stable=True)
        features, grid_masks = features[order], grid_masks[:, order]
        valid = torch.ones_like(grid_masks[:, :, 0, 0]) > 0 if valid is None else valid[:, order]
        supplied = None
        if linear is not None:
            cells = features.shape[2] * features.shape[3]
            pooled = region_sums(features, grid_masks[0, :, None])[:, 0] / cells
            supplied = pooled @ (linear - linear.mean(dim=0)).T
        count = torch.bincount(labels, minlength=num_classes)
        form = torch.channels_last if channels_last else torch.contiguous_format
        return cls(
            features=features.contiguous(memory_format=form),
            grid_masks=grid_masks,
            valid=valid,
            labels=labels[order],
            first=count.cumsum(0) - count,
            count=count,
            object_logits=supplied,
        )


@torch.no_grad()
def takes_channels_last(head: nn.Module, features: Tensor) -> bool:
    """Whether a head takes features that lie channels last, found by trying it.

    Pooling is many times faster so on a CPU; a head that calls ``view`` cannot.

    Args:
        head: Features to logits.
        features: Some, N×C×h×w.

    Example:
        >>> takes_channels_last(nn.Flatten(), torch.rand(2, 3, 4, 4))
        True
    """
    plain = head(features.contiguous())
    try:
        other = head(features.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return torch.allclose(plain, other, rtol=1e-3, atol=1e-3, equal_nan=True)


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
    return of_other_classes(
        index,
        labels,
        first=donors.first,
        count=donors.count,
        total=len(donors.labels),
        number=partners,
    )


@dataclass(frozen=True, kw_only=True)
class Transplants:
    """What the composites of a batch are predicted as.

    Attributes:
        objects: Class of each donor, int64, N×P; -1 where the label is unknown or no other class
            has donors.
        predictions: Prediction of each composite by family of masks, int64, F×N×P; -1 where there
            is no composite: as in ``objects``, or where the image has no background under this
            family, or the donor no object, or a further family does not try this donor.
        rate: Share of a sample's composites that are predicted as its label, in [0, 1], F×N; NaN
            where it has none.
        far_rate: The same with the far background alone, under the main family, N.
        additive_rate: The same with contributions in place of features, under the main family,
            N; NaN unless the head is global average pooling and a linear map.
    """

    objects: Tensor
    predictions: Tensor
    rate: Tensor
    far_rate: Tensor
    additive_rate: Tensor

    @classmethod
    def undefined(
        cls, samples: int, families: int, partners: int, device: torch.device
    ) -> Transplants:
        """Where there are no donors, or the head reads more than features."""
        nothing = torch.full((families, samples), torch.nan, device=device)
        none = torch.full((families, samples, partners), -1, device=device)
        return cls(
            objects=none[0],
            predictions=none,
            rate=nothing,
            far_rate=nothing[0],
            additive_rate=nothing[0],
        )


def transplant(
    head: nn.Module,
    features: Tensor,
    cell_weights: Tensor,
    labels: Tensor,
    donors: Donors,
    chosen: Tensor,
    background_logits: Tensor | None = None,
) -> Transplants:
    """How often this image's background makes another class's object look like this class.

    A composite holds the donor's features on the donor's object cells, and this image's
    features elsewhere; where this image had its own object, the mean of its far background
    stands in. It goes through the head alone. Where features see far beyond their cell, they
    carry object into background, so a high rate is a reason to look, not a proof.

    Two variants under the main masks are stricter. With the far background alone, the donor keeps
    all cells but those that are far background here and not object there. Additively, the donor's
    object supplies its contributions and this image's background its own, with the head's biases.

    Families after the first, and the variant with far background, try the first half of the donors:
    a class's rate averages over all its samples.

    Args:
        head: Features to logits.
        features: ``A``, N×C×h×w.
        cell_weights: Of the regions object, near and far under each family of masks, 3×F×N×h×w
            (more regions are not read).
        labels: int64, N; -1 where unknown.
        donors: The donors.
        chosen: Positions among the donors, N×P.
        background_logits: What this image's background and the head's biases supply under the main
            masks, N×K; ``None`` for no additive rate.

    Returns:
        Predictions and rates, undefined where the label is unknown, the sample has no background
        or no other class has donors.

    Example:
        >>> head = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> head[1].weight.data = torch.tensor([[0.0, -1.0], [0.0, 1.0]])  # reads the second cell
        >>> A = torch.tensor([[[[5.0, -1.0]]], [[[5.0, 1.0]]]])
        >>> object_cells = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])
        >>> weights = torch.stack([object_cells, 0 * object_cells, 1 - object_cells])[:, None]
        >>> labels = torch.tensor([0, 1])
        >>> donors = Donors.of(A, object_cells[None], labels, 2)
        >>> with torch.no_grad():
        ...     found = transplant(head, A, weights, labels, donors, torch.tensor([[1], [0]]))
        >>> found.rate.tolist(), found.predictions.tolist()
        ([[1.0, 1.0]], [[[0], [1]]])
    """
    near, far = cell_weights[1], cell_weights[2]
    background = near + far
    # An object that reaches nearly everywhere leaves no far background: take what there is.
    source = torch.where(far.sum(dim=(2, 3), keepdim=True) > LEAST_FAR, far, background)
    amount = source.sum(dim=(2, 3))
    means = region_sums(features, source.transpose(0, 1)).transpose(0, 1)
    means = means / amount.clamp_min(_NOTHING)[:, :, None]
    maker = _Composites(head, features, donors, chosen)
    objects = donors.labels[chosen]
    has_donors, counted = counted_pairs(labels, donors, chosen, amount)
    few = -(-chosen.shape[1] // 2)
    predictions = torch.full_like(objects, -1).repeat(len(background), 1, 1)
    for number, (weights, mean) in enumerate(zip(background, means, strict=True)):
        tried = chosen if number == 0 else chosen[:, :few]
        # What is unknown may be object, so it goes with it.
        base = maker.filled(weights, mean)
        found = maker.predictions(base, donors.grid_masks[number], tried)
        predictions[number, :, : tried.shape[1]] = found
    kept = 1 - far[0][:, None] * (1 - donors.grid_masks[0][chosen[:, :few]])
    of_far = maker.mixed(maker.cells, kept, chosen[:, :few])
    far_counted = counted[0, :, :few] & (far[0].sum(dim=(1, 2)) >= LEAST_FAR)[:, None]
    if background_logits is None or donors.object_logits is None:
        additive = torch.full_like(amount[0], torch.nan)
    else:
        logits = background_logits[:, None] + donors.object_logits[chosen]
        additive = rate_of(logits.argmax(dim=2), labels, counted[0])
    return Transplants(
        objects=torch.where(has_donors, objects, -1),
        predictions=torch.where(counted, predictions, -1),
        rate=rate_of(predictions, labels, counted),
        far_rate=rate_of(of_far, labels, far_counted),
        additive_rate=additive,
    )


def counted_pairs(
    labels: Tensor, donors: Donors, chosen: Tensor, amount: Tensor
) -> tuple[Tensor, Tensor]:
    """Which composites mean something.

    Args:
        labels: int64, N; -1 where unknown.
        donors: The donors.
        chosen: Positions among the donors, N×P.
        amount: Background that composites are made with, in cells by family, F×N.

    Returns:
        Where there is a label and a donor of another class, bool N×P; and where there is also a
        background and the donor an object, bool F×N×P, of further families in the first half alone.
    """
    has_donors = (labels >= 0)[:, None] & (donors.labels[chosen] != labels[:, None])
    counted = donors.valid[:, chosen] & has_donors & (amount > _NOTHING)[:, :, None]
    counted[1:, :, -(-chosen.shape[1] // 2) :] = False
    return has_donors, counted


class _Composites:
    """Mixes a batch's features with the donors', in the donors' memory format."""

    def __init__(self, head: nn.Module, features: Tensor, donors: Donors, chosen: Tensor) -> None:
        self._head = head
        self._last = not donors.features.is_contiguous()
        self._donors = self._laid_out(donors.features)
        self.cells = self._laid_out(features)
        limit = _CALL_BYTES_ON_CPU if features.device.type == "cpu" else _CALL_BYTES
        partners = chosen.shape[1]
        fit = limit // max(1, partners * features[0].nbytes)
        self._at_once = max(_LEAST_BATCH, min(len(features), fit))
        # One place for all donors and composites: to allocate it anew costs more than to fill it.
        count = partners * min(len(features), self._at_once)
        self._room = self.cells.new_empty((2, count, *self.cells.shape[1:]))

    def _laid_out(self, features: Tensor) -> Tensor:
        """N×C×h×w, or N×h×w×C."""
        return (features.permute(0, 2, 3, 1) if self._last else features).contiguous()

    def _over_channels(self, cells: Tensor) -> Tensor:
        """Weights …×h×w that fit features as laid out."""
        return cells.unsqueeze(-1 if self._last else -3)

    def filled(self, weights: Tensor, mean: Tensor) -> Tensor:
        """The features with a mean N×C in place of what has no weight (N×h×w)."""
        fill = mean[:, None, None] if self._last else mean[:, :, None, None]
        return torch.lerp(fill, self.cells, self._over_channels(weights))

    def predictions(self, base: Tensor, grid_masks: Tensor, chosen: Tensor) -> Tensor:
        """What the head says of the base with the objects D×h×w of chosen donors on it, N×P."""
        return self.mixed(base, grid_masks[chosen], chosen)

    def mixed(self, base: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """What the head says of the base with a share N×P×h×w of each chosen donor in it, N×P."""
        found = torch.empty_like(chosen)
        for start in range(0, len(base), self._at_once):
            # The last piece is no smaller than the others.
            first = max(0, min(start, len(base) - self._at_once))
            rows = slice(first, first + self._at_once)
            places = chosen[rows].T
            donors, composites = self._room[:, : places.numel()]
            torch.index_select(self._donors, 0, places.flatten(), out=donors)
            share = self._over_channels(weights[rows].transpose(0, 1))
            of_pairs = [part.unflatten(0, places.shape) for part in (donors, composites)]
            torch.lerp(base[rows], of_pairs[0], share, out=of_pairs[1])
            logits = self._head(composites.permute(0, 3, 1, 2) if self._last else composites)
            found[rows] = logits.argmax(dim=1).unflatten(0, places.shape).T
        return found


def rate_of(predictions: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    """How often the label is predicted.

    Args:
        predictions: Of composites, …×N×P.
        labels: int64, N.
        counted: Which composites mean something, bool …×N×P.

    Returns:
        The share of those that are predicted as the label, …×N; NaN where there are none.
    """
    hits = (predictions == labels[:, None]) & counted
    return hits.sum(dim=-1) / counted.sum(dim=-1)
