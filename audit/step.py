"""One batch through model, CAM and score, without leaving the device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from audit.cam import Method, to_image, top_channels
from audit.errors import ModelError
from audit.explaining import Explainer, Explanation
from audit.score import attention
from audit.score.contributions import (
    Contributions,
    cell_contributions,
    contributions,
    load_forward_mode,
    regions,
)
from audit.score.faithfulness import Faithfulness, faithfulness
from audit.score.masks import CellMasker, CellMasks, Family, Masks, border_touch, overlap
from audit.score.prediction import Prediction, predict
from audit.score.transplant import Donors, choose_donors, transplant_rate

Target = Literal["predicted", "label"]

# In order of severity: the first that applies is the sample's status.
STATUSES = (
    "unreadable",
    "nonfinite",
    "mask_missing",
    "mask_unreadable",
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
        self._place_operators(torch.device("cpu"))

    def to_device(self, device: torch.device) -> AuditStep:
        """Move the network and the operators."""
        self.to(device)
        self.explainer.to_device(device)
        self._place_operators(device)
        return self

    def _place_operators(self, device: torch.device) -> None:
        self._masker = CellMasker(self.image_size, self.grid, device)
        same = self.grid == self.explainer.map_grid
        self._map_masker = (
            self._masker if same else CellMasker(self.image_size, self.explainer.map_grid, device)
        )

    def features(self, images: Tensor) -> Tensor:
        """Features of uint8 images, N×C×h×w."""
        return self.explainer.features(images)

    def to_grid(self, masks: Tensor) -> Tensor:
        """Masks N×H×W on the feature grid."""
        return self._masker.to_grid(masks)

    @torch.no_grad()
    def forward(
        self, images: Tensor, labels: Tensor, masks: Masks, given: Tensor, index: Tensor
    ) -> StepOutput:
        """Score a batch.

        Args:
            images: uint8, N×3×H×W.
            labels: int64, N; -1 where unknown.
            masks: Object masks; anything where ``given`` says there is none. Every family beside
                the main one fills the columns of :data:`FAMILY_SCORES` behind its name.
            given: What is known before: codes into :data:`STATUSES`, N.
            index: Positions in the split, N.

        Returns:
            The columns of the rows.
        """
        count = len(images)
        if count >= _LEAST_BATCH:
            return self._score(images, labels, masks, given, index)
        # Libraries compute a batch of one by other routines, which differ in the fifth digit.
        again = torch.arange(_LEAST_BATCH, device=images.device) % count
        given = given[again]
        given[count:] = _CODE["unreadable"]
        output = self._score(images[again], labels[again], masks.take(again), given, index[again])
        columns = {name: values[:count] for name, values in output.columns.items()}
        return StepOutput(columns=columns, histogram=output.histogram)

    def _score(
        self, images: Tensor, labels: Tensor, masks: Masks, given: Tensor, index: Tensor
    ) -> StepOutput:
        found = self.explainer(images, lambda logits: self._targets(logits, labels))
        prediction = predict(found.logits, labels)
        first, second = found.targets.unbind(dim=1)
        alt = torch.where(first != second, second, -1)
        main, *others = self.explainer.methods
        maps = found.maps[main]
        status = _settle_status(given, found.logits, maps[:, 0], masks)
        cells = self._masker(masks)
        map_cells = cells if self._map_masker is self._masker else self._map_masker(masks)
        columns: dict[str, Tensor] = {"status": status, "target": first, "alt_target": alt}
        columns |= _prediction_columns(prediction, labels)
        columns |= self._channel_columns(found.features)
        supplied = self._supplied(found, cells)
        columns |= self._region_columns(found, cells, supplied, alt, labels, index)
        columns |= _mask_columns(masks)
        _blank(columns, status, alt)

        upsampled = to_image(maps[:, 0].clamp_min(0), self.image_size)
        columns |= self._method_columns(found, main, upsampled, masks, map_cells, status, alt)
        for method in others:
            large = to_image(found.maps[method][:, 0].clamp_min(0), self.image_size)
            own = self._method_columns(found, method, large, masks, map_cells, status, alt)
            columns |= {prefix_of(method) + name: values for name, values in own.items()}
        columns |= self._family_columns(found, masks, map_cells, supplied, status)
        usable = (status == _CODE["ok"]) | (status == _CODE["bad_label"])
        histogram = attention.pixel_histogram(
            torch.nan_to_num(upsampled), masks.inside, usable, masks.known
        )
        return StepOutput(columns=columns, histogram=histogram)

    def _targets(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The class of the main map, and the other of predicted and labelled class."""
        predicted = logits.argmax(dim=1)
        labelled = torch.where(labels >= 0, labels, predicted)
        order = [predicted, labelled] if self._target == "predicted" else [labelled, predicted]
        return torch.stack(order, dim=1)

    def _region_columns(
        self,
        found: Explanation,
        cells: CellMasks,
        supplied: Tensor,
        alt: Tensor,
        labels: Tensor,
        index: Tensor,
    ) -> dict[str, Tensor]:
        """What each region supplies, under the main mask and with its border moved."""
        unknown = None if cells.unknown is None else cells.unknown[:, 0]
        main = regions(cells.object[:, 0], unknown)
        parts = contributions(
            self.explainer.head,
            found.features,
            found.logits,
            main,
            biases=self.explainer.parts.biases,
            rest=found.rest,
        )
        columns = _contribution_columns(parts, found.logits, found.targets[:, 0], alt)
        for name, values in zip(_REGION_LOGITS, supplied[:, :, :3], strict=True):
            every = torch.cat([columns[name][:, None], values], dim=1)
            columns |= {f"{name}_low": every.amin(dim=1), f"{name}_high": every.amax(dim=1)}
        columns["transplant_rate"] = self._transplants(found, main, labels, index)
        return columns

    def _supplied(self, found: Explanation, cells: CellMasks) -> Tensor:
        """Contributions of object, near and far to the target under every mask, 3×N×V."""
        by_cell = cell_contributions(
            self.explainer.head, found.features, found.targets[:, 0], found.rest
        )
        weights = regions(cells.object, cells.unknown)[:3].flatten(3)  # 3×N×V×hw
        return (weights @ by_cell.flatten(1)[:, :, None])[..., 0]

    def _family_columns(
        self,
        found: Explanation,
        masks: Masks,
        map_cells: CellMasks,
        supplied: Tensor,
        status: Tensor,
    ) -> dict[str, Tensor]:
        """The main scores under masks from elsewhere, blank where those are undefined."""
        if not masks.others:
            return {}
        maps = found.maps[self.explainer.methods[0]][:, 0]
        areas, shares = map_cells.areas(), map_cells.shares(maps.clamp_min(0))
        no_map = (maps.amax(dim=(1, 2)) <= 0) | (status <= _CODE["nonfinite"])
        columns: dict[str, Tensor] = {}
        for place, (name, family) in enumerate(masks.others.items(), start=3):
            own = {
                "object_area": areas[:, place],
                "mask_iou": _overlap_of(masks, family),
                "background_share": 1 - shares[:, place],
                "kappa": attention.kappa(shares[:, place], areas[:, place]),
                **dict(zip(_REGION_LOGITS, supplied[:, :, place], strict=True)),
            }
            absent = status <= _CODE["nonfinite"]
            if family.valid is not None:
                absent = absent | ~family.valid
            _blank_where(own, absent, ("object_area",))
            _blank_where(own, absent | (status <= _CODE["mask_mismatch"]), ("mask_iou",))
            _blank_where(own, absent | _has_one_side(family, masks.unknown), FAMILY_SCORES[2:])
            _blank_where(own, no_map, ("background_share", "kappa"))
            columns |= {f"{name}_{score}": values for score, values in own.items()}
        return columns

    def _method_columns(
        self,
        found: Explanation,
        method: Method,
        upsampled: Tensor,
        masks: Masks,
        cells: CellMasks,
        status: Tensor,
        alt: Tensor,
    ) -> dict[str, Tensor]:
        """What one method's maps give, blank where it is undefined."""
        maps, alt_maps = found.maps[method].unbind(dim=1)
        columns = {**_scaled("map", maps), **_scaled("alt_map", alt_maps)}
        columns |= self._attention_columns(maps, upsampled, masks, cells)
        columns["alt_background_share"] = 1 - cells.shares(alt_maps.clamp_min(0))[:, 0]
        if self._faithful:
            scores = faithfulness(
                self.explainer.network, found.images, upsampled, found.targets[:, 0]
            )
            columns |= {field.name: getattr(scores, field.name) for field in fields(Faithfulness)}
        _blank_method(columns, status, alt, maps)
        return columns

    def _channel_columns(self, features: Tensor) -> dict[str, Tensor]:
        numbers, own = top_channels(features, self.explainer.channels)
        if own.shape[2:] != self.explainer.map_grid:
            own = nn.functional.interpolate(
                own, size=self.explainer.map_grid, mode="bilinear", align_corners=False
            )
        return {"top_channels": numbers, **_scaled("channel_maps", own)}

    def _attention_columns(
        self, maps: Tensor, upsampled: Tensor, masks: Masks, cells: CellMasks
    ) -> dict[str, Tensor]:
        positive, inside, known = maps.clamp_min(0), masks.inside, masks.known
        # The mask as it is, eroded and dilated.
        shares, areas = cells.shares(positive)[:, :3], cells.areas()[:, :3]
        share, area = shares[:, 0], masks.area
        background = 1 - shares
        kappas = attention.kappa(shares, areas)
        kappas[:, 0] = attention.kappa(share, area)
        known_cells = None if cells.unknown is None else cells.known[:, 0]
        ceiling = attention.share_ceiling(cells.object[:, 0], cells.weight, known_cells)
        tolerance = attention.pointing_tolerance(min(self.image_size))
        entropy, effective = attention.focus(positive)
        return {
            "object_share": share,
            "background_share": background[:, 0],
            **_range_of("background_share", background),
            "background_lift": attention.background_lift(share, area),
            "kappa": kappas[:, 0],
            **_range_of("kappa", kappas),
            "kappa_res": attention.kappa(share, area, ceiling, least_room=attention.LEAST_ROOM),
            "pointing_hit": attention.pointing_hit(upsampled, inside, tolerance, known),
            "rank_accuracy": attention.rank_accuracy(upsampled, inside, known),
            "iou_50": attention.iou_at_half(upsampled, inside, known),
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


def _settle_status(given: Tensor, logits: Tensor, maps: Tensor, masks: Masks) -> Tensor:
    """The most severe of what was known and what the batch shows."""
    inside = masks.inside
    full = inside if masks.known is None else inside | ~masks.known
    finite = torch.isfinite(logits).all(dim=1) & torch.isfinite(maps).all(dim=2).all(dim=1)
    shown = torch.full_like(given, _CODE["ok"])
    for name, applies in (
        ("zero_map", maps.amax(dim=(1, 2)) <= 0),
        ("full_mask", full.all(dim=2).all(dim=1)),
        ("empty_mask", ~inside.any(dim=2).any(dim=1)),
        ("nonfinite", ~finite),
    ):
        shown = torch.where(applies, _CODE[name], shown)
    return torch.minimum(given, shown)


def _overlap_of(masks: Masks, family: Family) -> Tensor:
    """Overlap of a family's masks with the main ones, over what both know."""
    beside = family.beside(masks.unknown)
    known = None if beside.unknown is None else beside.unknown < 0.5
    main, other = masks.inside, family.mask >= 0.5
    return overlap(main, other) if known is None else overlap(main & known, other & known)


def _has_one_side(family: Family, unknown: Tensor | None) -> Tensor:
    """Whether a mask is all object or all background, as far as it is known."""
    beside = family.beside(unknown)
    inside = family.mask >= 0.5
    outside = ~inside
    if beside.unknown is not None:
        known = beside.unknown < 0.5
        inside, outside = inside & known, outside & known
    return ~(inside.flatten(1).any(dim=1) & outside.flatten(1).any(dim=1))


def _mask_columns(masks: Masks) -> dict[str, Tensor]:
    unknown = torch.zeros_like(masks.main[:, 0, 0])
    return {
        "object_area": masks.area,
        "unknown_area": unknown if masks.unknown is None else masks.unknown.mean(dim=(1, 2)),
        "border_touch": border_touch(masks.inside),
    }


def _range_of(name: str, values: Tensor) -> dict[str, Tensor]:
    """The lowest and highest of the values under the mask and with its border moved, N×3.

    A border that cannot be moved at all leaves NaN, which does not count.
    """
    low = torch.nan_to_num(values, nan=torch.inf).amin(dim=1)
    high = torch.nan_to_num(values, nan=-torch.inf).amax(dim=1)
    undefined = values[:, 0].isnan()
    return {
        f"{name}_low": torch.where(undefined, torch.nan, low),
        f"{name}_high": torch.where(undefined, torch.nan, high),
    }


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
        "unknown_logit": of(targets, parts.unknown),
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
_REGION_LOGITS = ("object_logit", "near_logit", "far_logit")
# What a family of masks beside the main one fills, behind its name.
FAMILY_SCORES = ("object_area", "mask_iou", "background_share", "kappa", *_REGION_LOGITS)
_NEED_MASK = (
    *_REGION_LOGITS, *(f"{name}_{end}" for name in _REGION_LOGITS for end in ("low", "high")),
    "unknown_logit", "bias_logit", "residual_logit", "object_pred",
    "background_pred", "alt_object_logit", "alt_near_logit", "alt_far_logit", "transplant_rate",
)  # fmt: skip
_NEED_ALT = ("alt_object_logit", "alt_near_logit", "alt_far_logit")
_OF_MASKS = ("object_area", "unknown_area", "border_touch")
# Likewise for the columns that every method has.
_MAPS_NEED_ALT = ("alt_map", "alt_map_scale", "alt_background_share")
_MAPS_NEED_MASK = (
    "object_share", "background_share", "background_share_low", "background_share_high",
    "background_lift", "kappa", "kappa_low", "kappa_high", "kappa_res", "pointing_hit",
    "rank_accuracy", "iou_50",
)  # fmt: skip


def _blank(columns: dict[str, Tensor], status: Tensor, alt: Tensor) -> None:
    """Set what a sample's status leaves undefined to NaN or -1, in place."""
    no_model = status <= _CODE["nonfinite"]
    _blank_where(columns, no_model, _NEED_MODEL + _NEED_MASK)
    _blank_where(columns, status <= _CODE["mask_mismatch"], _OF_MASKS)
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
