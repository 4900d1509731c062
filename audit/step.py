"""One batch through model, CAM and score, without leaving the device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from audit.cam import Method, Resampler, to_image, top_channels
from audit.errors import ModelError
from audit.explaining import Explainer, Explanation
from audit.score import attention
from audit.score.contributions import (
    Contributions,
    contributions,
    load_forward_mode,
    regions,
)
from audit.score.faithfulness import Faithfulness, faithfulness
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
        explainer: The classifier and how its maps are made. Its first method fills the columns
            without a prefix; each other one its own, see :func:`prefix_of`.
        image_size: H and W.
        target: The class that the main map explains. The other of the predicted and the labelled
            class fills the ``alt_`` columns where the two differ.
        partners: Transplants a sample.
        faithful: Score every map's faithfulness too, for some forty passes a method.
    """

    def __init__(
        self,
        explainer: Explainer,
        *,
        image_size: tuple[int, int],
        target: Target = "predicted",
        partners: int = 4,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        load_forward_mode()
        self.explainer = explainer
        self.image_size = image_size
        self.grid = explainer.parts.grid
        self.channels_of_features = explainer.parts.channels
        self.donors: Donors | None = None
        self._target = target
        self._partners = partners
        self._faithful = faithful
        self._resampler = Resampler.between(image_size, self.grid)
        self._map_resampler = Resampler.between(image_size, self.explainer.map_grid)

    def to_device(self, device: torch.device) -> AuditStep:
        """Move the network and the operators."""
        self.to(device)
        self.explainer.to_device(device)
        self._resampler = Resampler.between(self.image_size, self.grid, device)
        self._map_resampler = Resampler.between(self.image_size, self.explainer.map_grid, device)
        return self

    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images, N×C×h×w."""
        return self.explainer.features(images)

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
        found = self.explainer(images, lambda logits: self._targets(logits, labels))
        prediction = predict(found.logits, labels)
        first, second = found.targets.unbind(dim=1)
        alt = torch.where(first != second, second, -1)
        main, *others = self.explainer.methods
        inside = mask >= 0.5
        maps = found.maps[main]
        status = _settle_status(given, found.logits, maps[:, 0], inside)
        cells = regions(self.to_grid(mask))
        parts = contributions(
            self.explainer.head,
            found.features,
            found.logits,
            cells,
            biases=self.explainer.parts.biases,
            rest=found.rest,
        )
        columns: dict[str, Tensor] = {"status": status, "target": first, "alt_target": alt}
        columns |= _prediction_columns(prediction, labels)
        columns |= self._channel_columns(found.features)
        columns |= _contribution_columns(parts, found.logits, first, alt)
        columns["transplant_rate"] = self._transplants(found, cells, labels, index)
        columns["object_area"] = mask.mean(dim=(1, 2))
        _blank(columns, status, alt)

        upsampled = to_image(maps[:, 0].clamp_min(0), self.image_size)
        columns |= self._method_columns(found, main, upsampled, mask, status, alt)
        for method in others:
            large = to_image(found.maps[method][:, 0].clamp_min(0), self.image_size)
            own = self._method_columns(found, method, large, mask, status, alt)
            columns |= {prefix_of(method) + name: values for name, values in own.items()}
        usable = (status == _CODE["ok"]) | (status == _CODE["bad_label"])
        histogram = attention.pixel_histogram(torch.nan_to_num(upsampled), inside, usable)
        return StepOutput(columns=columns, histogram=histogram)

    def _targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The class of the main map, and the other of predicted and labelled class."""
        predicted = logits.argmax(dim=1)
        labelled = torch.where(labels >= 0, labels, predicted)
        order = [predicted, labelled] if self._target == "predicted" else [labelled, predicted]
        return torch.stack(order, dim=1)

    def _method_columns(
        self,
        found: Explanation,
        method: Method,
        upsampled: Tensor,
        mask: Tensor,
        status: Tensor,
        alt: Tensor,
    ) -> dict[str, Tensor]:
        """What one method's maps give, blank where it is undefined."""
        maps, alt_maps = found.maps[method].unbind(dim=1)
        grid_mask = self._map_resampler.to_grid(mask)
        columns = {**_scaled("map", maps), **_scaled("alt_map", alt_maps)}
        columns |= self._attention_columns(maps, upsampled, mask, grid_mask)
        columns["alt_background_share"] = 1 - self._share(alt_maps, grid_mask)
        if self._faithful:
            scores = faithfulness(
                self.explainer.network, found.images, upsampled, found.targets[:, 0]
            )
            columns |= {field.name: getattr(scores, field.name) for field in fields(Faithfulness)}
        _blank_method(columns, status, alt, maps)
        return columns

    def _share(self, maps: Tensor, grid_mask: Tensor) -> Tensor:
        return attention.object_share(maps.clamp_min(0), grid_mask, self._map_resampler.weight)

    def _channel_columns(self, features: Tensor) -> dict[str, Tensor]:
        numbers, own = top_channels(features, self.explainer.channels)
        if own.shape[2:] != self.explainer.map_grid:
            own = nn.functional.interpolate(
                own, size=self.explainer.map_grid, mode="bilinear", align_corners=False
            )
        return {"top_channels": numbers, **_scaled("channel_maps", own)}

    def _attention_columns(
        self, maps: Tensor, upsampled: Tensor, mask: Tensor, grid_mask: Tensor
    ) -> dict[str, Tensor]:
        positive, inside = maps.clamp_min(0), mask >= 0.5
        area = mask.mean(dim=(1, 2))
        share = self._share(maps, grid_mask)
        ceiling = attention.share_ceiling(grid_mask, self._map_resampler.weight)
        tolerance = attention.pointing_tolerance(min(self.image_size))
        entropy, effective = attention.focus(positive)
        return {
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
        self, found: Explanation, cells: Tensor, labels: Tensor, index: Tensor
    ) -> Tensor:
        # What the head reads beside the features cannot be transplanted with them.
        if self.donors is None or found.rest:
            return torch.full((len(found.features),), torch.nan, device=found.features.device)
        chosen = choose_donors(index, labels, self.donors, self._partners)
        return transplant_rate(
            self.explainer.head, found.features, cells, labels, self.donors, chosen
        )


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
        features, *rest = step.explainer.backbone(step.explainer.normalised(images.to(device)))
        logits = step.explainer.head(features, *rest)
        cells = regions(torch.zeros(2, *step.grid, device=device))
        contributions(
            step.explainer.head,
            features,
            logits,
            cells,
            biases=step.explainer.parts.biases,
            rest=tuple(rest),
        )
    except (RuntimeError, NotImplementedError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        dynamic = any(word in str(error) for word in (".item()", "data-dependent", "bool"))
        raise ModelError(
            f"the head of '{name}' cannot be differentiated",
            expected="operations that PyTorch can differentiate forwards, the same for any image",
            found="dynamic control flow" if dynamic else (lines or [type(error).__name__])[0][:200],
            remedy="choose an earlier or later layer with --target-layer (audit layers lists them)",
        ) from error


def prefix_of(method: Method) -> str:
    """What stands before the columns of a method that is not the first.

    Example:
        >>> prefix_of("gradcam++")
        'gradcampp_'
    """
    return method.replace("+", "p") + "_"


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
    "top_classes", "top_probabilities", "top_channels", "channel_maps", "channel_maps_scale",
    "target_logit",
)  # fmt: skip
_NEED_MASK = (
    "object_logit", "near_logit", "far_logit", "bias_logit", "residual_logit", "object_pred",
    "background_pred", "alt_object_logit", "alt_near_logit", "alt_far_logit", "transplant_rate",
)  # fmt: skip
_NEED_ALT = ("alt_object_logit", "alt_near_logit", "alt_far_logit")
# Likewise for the columns that every method has.
_MAPS_NEED_ALT = ("alt_map", "alt_map_scale", "alt_background_share")
_MAPS_NEED_MASK = (
    "object_share", "background_share", "background_lift", "kappa", "kappa_res", "pointing_hit",
    "rank_accuracy", "iou_50",
)  # fmt: skip


def _blank(columns: dict[str, Tensor], status: Tensor, alt: Tensor) -> None:
    """Set what a sample's status leaves undefined to NaN or -1, in place."""
    no_model = status <= _CODE["nonfinite"]
    _blank_where(columns, no_model, _NEED_MODEL + _NEED_MASK)
    _blank_where(columns, status <= _CODE["mask_mismatch"], ("object_area",))
    _blank_where(columns, status <= _CODE["full_mask"], _NEED_MASK)
    _blank_where(columns, alt < 0, _NEED_ALT)


def _blank_method(columns: dict[str, Tensor], status: Tensor, alt: Tensor, maps: Tensor) -> None:
    """The same for one method's columns; its map may be zero where another's is not."""
    no_mask = status <= _CODE["full_mask"]
    zero = maps.amax(dim=(1, 2)) <= 0
    finite = torch.isfinite(maps).all(dim=2).all(dim=1)
    _blank_where(columns, (status <= _CODE["nonfinite"]) | ~finite, tuple(columns))
    _blank_where(columns, no_mask | zero, _MAPS_NEED_MASK)
    _blank_where(columns, no_mask, ("alt_background_share",))
    _blank_where(columns, alt < 0, _MAPS_NEED_ALT)


def _blank_where(columns: dict[str, Tensor], where: Tensor, names: tuple[str, ...]) -> None:
    for name in names:
        values = columns[name]
        blank = torch.nan if values.is_floating_point() else -1
        columns[name] = torch.where(where.view(-1, *[1] * (values.dim() - 1)), blank, values)
