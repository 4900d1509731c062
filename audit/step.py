"""One batch through model, CAM and score, without leaving the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from audit.cam import Method, Resampler, cam, gradcam, hirescam, to_image, top_channels
from audit.models import Cut
from audit.score import attention
from audit.score.contributions import (
    Contributions,
    contributions,
    load_forward_mode,
    regions,
)
from audit.score.prediction import Prediction, predict
from audit.score.transplant import Donors, choose_donors, transplant_rate

Target = Literal["predicted", "label"]

# In order of severity: the first that applies is the sample's status.
STATUSES = (
    "unreadable",
    "nonfinite",
    "mask_missing",
    "mask_mismatch",
    "empty_mask",
    "full_mask",
    "zero_map",
    "bad_label",
    "ok",
)
# Smaller batches are filled up to this size.
_LEAST_BATCH = 8
_CODE = {name: code for code, name in enumerate(STATUSES)}


def status_code(name: str) -> int:
    """The position of a status in :data:`STATUSES`."""
    return _CODE[name]


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What a batch gives.

    Attributes:
        columns: One tensor a column, N rows each; NaN (floats) or -1 (integers) where undefined.
        histogram: int64, 2×256: see :func:`audit.score.attention.pixel_histogram`.
    """

    columns: dict[str, Tensor]
    histogram: Tensor


class AuditStep(nn.Module):
    """The fused step.

    Args:
        parts: The classifier, cut at its target layer.
        mean: Of the normalisation, for values in [0, 1].
        std: Likewise.
        image_size: H and W.
        method: How maps are made.
        target: The class that the main map explains. The other of the predicted and the labelled
            class fills the ``alt_`` columns where the two differ.
        channels: How many of the most active channels' maps to keep.
        partners: Transplants a sample.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        parts: Cut,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        image_size: tuple[int, int],
        method: Method = "hirescam",
        target: Target = "predicted",
        channels: int = 3,
        partners: int = 4,
    ) -> None:
        super().__init__()
        load_forward_mode()
        self.backbone = parts.backbone
        self.head = parts.head
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None])
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None])
        self.image_size = image_size
        self.grid = parts.grid
        self.channels_of_features = parts.channels
        self.donors: Donors | None = None
        self._linear = parts.linear
        self._method = method
        self._target = target
        self._channels = min(channels, parts.channels)
        self._partners = partners
        self._resampler = Resampler.between(image_size, parts.grid)

    def to_device(self, device: torch.device) -> AuditStep:
        """Move the network and the operators."""
        self.to(device)
        if self._linear is not None:
            self._linear = self._linear.to(device)
        self._resampler = Resampler.between(self.image_size, self.grid, device)
        return self

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images, N×C×h×w."""
        normalised = (images.float() - self.mean) / self.std
        features: Tensor = self.backbone(normalised)
        return features

    def to_grid(self, masks: Tensor) -> Tensor:
        """Masks N×H×W on the feature grid."""
        return self._resampler.to_grid(masks)

    @torch.no_grad()
    def forward(
        self, images: Tensor, labels: Tensor, mask: Tensor, given: Tensor, index: Tensor
    ) -> StepOutput:
        """Score a batch.

        Args:
            images: uint8, N×3×H×W.
            labels: int64, N; -1 where unknown.
            mask: Object masks in [0, 1], N×H×W; anything where ``given`` says there is none.
            given: What is known before: codes into :data:`STATUSES`, N.
            index: Positions in the split, N.

        Returns:
            The columns of the rows.
        """
        count = len(images)
        if count >= _LEAST_BATCH:
            return self._score(images, labels, mask, given, index)
        # Libraries compute a batch of one by other routines, which differ in the fifth digit.
        again = torch.arange(_LEAST_BATCH, device=images.device) % count
        given = given[again]
        given[count:] = _CODE["unreadable"]
        output = self._score(images[again], labels[again], mask[again], given, index[again])
        columns = {name: values[:count] for name, values in output.columns.items()}
        return StepOutput(columns=columns, histogram=output.histogram)

    def _score(
        self, images: Tensor, labels: Tensor, mask: Tensor, given: Tensor, index: Tensor
    ) -> StepOutput:
        features = self.features(images)
        logits, prediction, targets, alt, maps, alt_maps = self._explain(features, labels)
        inside = mask >= 0.5
        status = _settle_status(given, logits, maps, inside)
        grid_mask = self.to_grid(mask)
        cells = regions(grid_mask)
        parts = contributions(self.head, features, logits, cells)

        columns: dict[str, Tensor] = {"status": status, "target": targets, "alt_target": alt}
        columns |= _prediction_columns(prediction, labels)
        columns |= self._map_columns(maps, alt_maps, features)
        upsampled = to_image(maps.clamp_min(0), self.image_size)
        columns |= self._attention_columns(maps, upsampled, mask, grid_mask)
        columns["alt_background_share"] = 1 - self._share(alt_maps, grid_mask)
        columns |= _contribution_columns(parts, logits, targets, alt)
        columns["transplant_rate"] = self._transplants(features, cells, labels, index)
        _blank(columns, status, alt)
        usable = (status == _CODE["ok"]) | (status == _CODE["bad_label"])
        histogram = attention.pixel_histogram(torch.nan_to_num(upsampled), inside, usable)
        return StepOutput(columns=columns, histogram=histogram)

    def _explain(
        self, features: Tensor, labels: Tensor
    ) -> tuple[Tensor, Prediction, Tensor, Tensor, Tensor, Tensor]:
        """Logits, prediction, the classes explained and their signed maps."""
        leaf = features.detach().requires_grad_()
        with torch.enable_grad():
            # A head that begins with an in-place operation must not write into the leaf.
            live = self.head(leaf.clone())
        logits = live.detach()
        prediction = predict(logits, labels)
        labelled = torch.where(labels >= 0, labels, prediction.predicted)
        first, second = prediction.predicted, labelled
        if self._target == "label":
            first, second = second, first
        maps = self._map(leaf, live, first, keep=True)
        alt_maps = self._map(leaf, live, second, keep=False)
        alt = torch.where(first != second, second, -1)
        return logits, prediction, first, alt, maps, alt_maps

    def _map(self, leaf: Tensor, live: Tensor, target: Tensor, *, keep: bool) -> Tensor:
        features = leaf.detach()
        if self._method == "channels":
            _, own = top_channels(features, self._channels)
            return own.mean(dim=1)
        if self._method == "cam":
            assert self._linear is not None
            return cam(features, self._linear, target)
        with torch.enable_grad():
            chosen = live.gather(1, target[:, None]).sum()
        (gradients,) = torch.autograd.grad(chosen, leaf, retain_graph=keep)
        return (gradcam if self._method == "gradcam" else hirescam)(features, gradients)

    def _share(self, maps: Tensor, grid_mask: Tensor) -> Tensor:
        return attention.object_share(maps.clamp_min(0), grid_mask, self._resampler.weight)

    def _map_columns(self, maps: Tensor, alt_maps: Tensor, features: Tensor) -> dict[str, Tensor]:
        numbers, own = top_channels(features, self._channels)
        return {
            **_scaled("map", maps),
            **_scaled("alt_map", alt_maps),
            "top_channels": numbers,
            **_scaled("channel_maps", own),
        }

    def _attention_columns(
        self, maps: Tensor, upsampled: Tensor, mask: Tensor, grid_mask: Tensor
    ) -> dict[str, Tensor]:
        positive, inside = maps.clamp_min(0), mask >= 0.5
        area = mask.mean(dim=(1, 2))
        share = self._share(maps, grid_mask)
        ceiling = attention.share_ceiling(grid_mask, self._resampler.weight)
        tolerance = attention.pointing_tolerance(min(self.image_size))
        entropy, effective = attention.focus(positive)
        return {
            "object_area": area,
            "object_share": share,
            "background_share": 1 - share,
            "background_lift": attention.background_lift(share, area),
            "kappa": attention.kappa(share, area),
            "kappa_res": attention.kappa(share, area, ceiling, least_room=attention.LEAST_ROOM),
            "pointing_hit": attention.pointing_hit(upsampled, inside, tolerance),
            "rank_accuracy": attention.rank_accuracy(upsampled, inside),
            "iou_50": attention.iou_at_half(upsampled, inside),
            "focus_entropy": entropy,
            "effective_cells": effective,
        }

    def _transplants(
        self, features: Tensor, cells: Tensor, labels: Tensor, index: Tensor
    ) -> Tensor:
        if self.donors is None:
            return torch.full((len(features),), torch.nan, device=features.device)
        chosen = choose_donors(index, labels, self.donors, self._partners)
        return transplant_rate(self.head, features, cells, labels, self.donors, chosen)


def _settle_status(given: Tensor, logits: Tensor, maps: Tensor, inside: Tensor) -> Tensor:
    """The most severe of what was known and what the batch shows."""
    finite = torch.isfinite(logits).all(dim=1) & torch.isfinite(maps).all(dim=2).all(dim=1)
    shown = torch.full_like(given, _CODE["ok"])
    for name, applies in (
        ("zero_map", maps.amax(dim=(1, 2)) <= 0),
        ("full_mask", inside.all(dim=2).all(dim=1)),
        ("empty_mask", ~inside.any(dim=2).any(dim=1)),
        ("nonfinite", ~finite),
    ):
        shown = torch.where(applies, _CODE[name], shown)
    return torch.minimum(given, shown)


def _prediction_columns(prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
    return {
        "predicted": prediction.predicted,
        "correct": torch.where(labels >= 0, (prediction.predicted == labels).long(), -1),
        "confidence": prediction.confidence,
        "label_probability": prediction.label_probability,
        "margin": prediction.margin,
        "top_classes": prediction.top_classes,
        "top_probabilities": prediction.top_probabilities,
    }


def _contribution_columns(
    parts: Contributions, logits: Tensor, targets: Tensor, alt: Tensor
) -> dict[str, Tensor]:
    def of(classes: Tensor, values: Tensor) -> Tensor:
        return values.gather(1, classes.clamp_min(0)[:, None])[:, 0]

    centred = logits - logits.mean(dim=1, keepdim=True)
    return {
        "target_logit": of(targets, centred),
        "object_logit": of(targets, parts.object),
        "near_logit": of(targets, parts.near),
        "far_logit": of(targets, parts.far),
        "bias_logit": of(targets, parts.bias),
        "residual_logit": of(targets, parts.residual),
        "object_pred": parts.object.argmax(dim=1),
        "background_pred": parts.background.argmax(dim=1),
        "alt_object_logit": of(alt, parts.object),
        "alt_near_logit": of(alt, parts.near),
        "alt_far_logit": of(alt, parts.far),
    }


def _scaled(name: str, maps: Tensor) -> dict[str, Tensor]:
    """A map as half precision in [-1, 1] and its scale, so that tiny maps keep their digits."""
    peak = maps.abs().flatten(1).amax(dim=1)
    divisor = torch.where(peak > 0, peak, 1.0).view(-1, *[1] * (maps.dim() - 1))
    return {name: (maps / divisor).half(), f"{name}_scale": peak}


# Which columns mean nothing under which status; statuses are ordered by severity.
_NEED_MODEL = (
    "target", "alt_target", "predicted", "correct", "confidence", "label_probability", "margin",
    "top_classes", "top_probabilities", "map", "map_scale", "alt_map", "alt_map_scale",
    "top_channels", "channel_maps", "channel_maps_scale", "target_logit", "focus_entropy",
    "effective_cells",
)  # fmt: skip
_NEED_MASK = (
    "object_logit", "near_logit", "far_logit", "bias_logit", "residual_logit", "object_pred",
    "background_pred", "alt_object_logit", "alt_near_logit", "alt_far_logit", "transplant_rate",
    "alt_background_share",
)  # fmt: skip
_NEED_MAP = (
    "object_share", "background_share", "background_lift", "kappa", "kappa_res", "pointing_hit",
    "rank_accuracy", "iou_50",
)  # fmt: skip
_NEED_ALT = (
    "alt_map", "alt_map_scale", "alt_background_share", "alt_object_logit", "alt_near_logit",
    "alt_far_logit",
)  # fmt: skip


def _blank(columns: dict[str, Tensor], status: Tensor, alt: Tensor) -> None:
    """Set what a sample's status leaves undefined to NaN or -1, in place."""
    _blank_where(columns, status <= _CODE["nonfinite"], _NEED_MODEL + _NEED_MASK + _NEED_MAP)
    no_mask = status <= _CODE["mask_mismatch"]
    _blank_where(columns, no_mask, ("object_area",))
    _blank_where(columns, status <= _CODE["full_mask"], _NEED_MASK + _NEED_MAP)
    _blank_where(columns, status <= _CODE["zero_map"], _NEED_MAP)
    _blank_where(columns, alt < 0, _NEED_ALT)


def _blank_where(columns: dict[str, Tensor], where: Tensor, names: tuple[str, ...]) -> None:
    for name in names:
        values = columns[name]
        blank = torch.nan if values.is_floating_point() else -1
        columns[name] = torch.where(where.view(-1, *[1] * (values.dim() - 1)), blank, values)
