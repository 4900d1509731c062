"""The columns of a batch's rows, from what was computed."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from audit.score.contributions import Supplied
from audit.score.masks import Family, Masks, border_touch, overlap
from audit.score.prediction import Prediction
from audit.score.reason import find_reasons
from audit.score.transplant import Transplants


def overlap_of(masks: Masks, family: Family) -> Tensor:
    """Overlap of a family's masks with the main ones, over what both know."""
    beside = family.beside(masks.unknown)
    main = masks.indicator
    if beside.unknown is not None:
        # What the main mask does not know, its family does not know either.
        main = main * (beside.unknown < 0.5)
    return overlap(main, _known_object(beside, family))


def has_one_side(family: Family, unknown: Tensor | None) -> Tensor:
    """Whether a mask is all object or all background, as far as it is known."""
    beside = family.beside(unknown)
    inside = family.indicator
    pixels: Tensor | int = inside.shape[1] * inside.shape[2]
    if beside.unknown is not None:
        inside = _known_object(beside, family)
        pixels = (beside.unknown < 0.5).sum(dim=(1, 2))
    count = inside.sum(dim=(1, 2))
    return (count == 0) | (count == pixels)


def _known_object(beside: Family, family: Family) -> Tensor:
    if beside.unknown is None:
        return family.indicator
    return family.indicator * (beside.unknown < 0.5)


def mask_columns(masks: Masks) -> dict[str, Tensor]:
    """What the main masks are like."""
    unknown = torch.zeros_like(masks.main[:, 0, 0])
    return {
        "object_area": masks.area,
        "unknown_area": unknown if masks.unknown is None else masks.unknown.mean(dim=(1, 2)),
        "border_touch": border_touch(masks.indicator),
    }


def range_of(name: str, values: Tensor) -> dict[str, Tensor]:
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


def prediction_columns(prediction: Prediction, labels: Tensor) -> dict[str, Tensor]:
    """What the network answers, and how surely."""
    return {
        "predicted": prediction.predicted,
        "correct": torch.where(labels >= 0, (prediction.predicted == labels).long(), -1),
        "confidence": prediction.confidence,
        "label_probability": prediction.label_probability,
        "margin": prediction.margin,
        "top_classes": prediction.top_classes,
        "top_probabilities": prediction.top_probabilities,
    }


def contribution_columns(supplied: Supplied, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """What each region supplies to the target and to the other class."""
    centred = logits - logits.mean(dim=1, keepdim=True)
    return {
        "target_logit": centred.gather(1, targets[:, None])[:, 0],
        "object_logit": supplied.target[:, 0],
        "near_logit": supplied.target[:, 1],
        "far_logit": supplied.target[:, 2],
        "unknown_logit": supplied.target[:, 3],
        "bias_logit": supplied.bias,
        "residual_logit": supplied.residual,
        "object_pred": supplied.object_pred,
        "background_pred": supplied.background_pred,
        "alt_object_logit": supplied.alt[:, 0],
        "alt_near_logit": supplied.alt[:, 1],
        "alt_far_logit": supplied.alt[:, 2],
    }


def reason_columns(columns: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Which regions point to the target, and whether that is as it should be."""
    read = ("object_pred", "background_pred", "target", "predicted")
    found = find_reasons(**{name: columns[name] for name in read}, labels=labels)
    return {field.name: getattr(found, field.name) for field in fields(found)}


def transplant_columns(carried: Transplants) -> dict[str, Tensor]:
    """What transplants say under the main masks."""
    return {
        "transplant_rate": carried.rate[0],
        "transplant_far_rate": carried.far_rate,
        "transplant_additive_rate": carried.additive_rate,
        "transplant_objects": carried.objects,
        "transplant_predictions": carried.predictions[0],
    }


def scaled(name: str, maps: Tensor) -> dict[str, Tensor]:
    """A map as half precision in [-1, 1] and its scale, so that tiny maps keep their digits."""
    peak = maps.abs().flatten(1).amax(dim=1)
    divisor = torch.where(peak > 0, peak, 1.0).view(-1, *[1] * (maps.dim() - 1))
    return {name: (maps / divisor).half(), f"{name}_scale": peak}
