"""What can be wrong with a sample, in order, and which columns that leaves undefined."""

from __future__ import annotations

import torch
from torch import Tensor

from audit.score.masks import Masks

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
CODE = {name: code for code, name in enumerate(STATUSES)}


def status_code(name: str) -> int:
    """The position of a status in :data:`STATUSES`."""
    return CODE[name]


def settle_status(given: Tensor, logits: Tensor, maps: Tensor, masks: Masks) -> Tensor:
    """The most severe of what was known and what the batch shows."""
    finite = torch.isfinite(logits).all(dim=1) & torch.isfinite(maps).all(dim=2).all(dim=1)
    shown = torch.full_like(given, CODE["ok"])
    for name, applies in (
        ("zero_map", maps.amax(dim=(1, 2)) <= 0),
        ("full_mask", ~masks.has_background),
        ("empty_mask", ~masks.has_object),
        ("nonfinite", ~finite),
    ):
        shown = torch.where(applies, CODE[name], shown)
    return torch.minimum(given, shown)


# Which columns mean nothing under which status; statuses are ordered by severity.
_NEED_MODEL = (
    "target", "alt_target", "predicted", "correct", "confidence", "label_probability", "margin",
    "top_classes", "top_probabilities", "top_channels", "channel_maps", "channel_maps_scale",
    "target_logit", "transplant_objects",
)  # fmt: skip
REGION_LOGITS = ("object_logit", "near_logit", "far_logit")
# What a family of masks beside the main one fills, behind its name.
FAMILY_SCORES = (
    "object_area", "mask_iou", "background_share", "kappa", *REGION_LOGITS, "transplant_rate",
    "transplant_predictions",
)  # fmt: skip
_NEED_MASK = (
    *REGION_LOGITS, *(f"{name}_{end}" for name in REGION_LOGITS for end in ("low", "high")),
    "unknown_logit", "bias_logit", "residual_logit", "object_pred",
    "background_pred", "alt_object_logit", "alt_near_logit", "alt_far_logit", "transplant_rate",
    "transplant_far_rate", "transplant_additive_rate", "transplant_predictions", "channel_logits",
    "channel_logits_scale", "far_features", "far_features_scale",
)  # fmt: skip
_NEED_MAP = (
    "reason", "right_for_wrong_reason", "wrong_because_of_background", "context_driven",
)  # fmt: skip
_NEED_ALT = ("alt_object_logit", "alt_near_logit", "alt_far_logit")
_OF_MASKS = ("object_area", "unknown_area", "border_touch", "grid_mask")
# Likewise for the columns that every method has.
_MAPS_NEED_ALT = ("alt_map", "alt_map_scale", "alt_background_share")
_MAPS_NEED_MASK = (
    "object_share", "background_share", "background_share_low", "background_share_high",
    "background_lift", "kappa", "kappa_low", "kappa_high", "kappa_res", "pointing_hit",
    "rank_accuracy", "iou_50",
)  # fmt: skip


def blank(columns: dict[str, Tensor], status: Tensor, alt: Tensor) -> None:
    """Set what a sample's status leaves undefined to NaN or -1, in place."""
    no_model = status <= CODE["nonfinite"]
    _blank_where(columns, no_model, _NEED_MODEL + _NEED_MASK)
    _blank_where(columns, status <= CODE["mask_mismatch"], _OF_MASKS)
    _blank_where(columns, status <= CODE["full_mask"], _NEED_MASK)
    _blank_where(columns, status <= CODE["zero_map"], _NEED_MAP)
    _blank_where(columns, alt < 0, _NEED_ALT)


def blank_method(columns: dict[str, Tensor], status: Tensor, alt: Tensor, maps: Tensor) -> None:
    """The same for one method's columns; its map may be zero where another's is not."""
    no_mask = status <= CODE["full_mask"]
    zero = maps.amax(dim=(1, 2)) <= 0
    finite = torch.isfinite(maps).all(dim=2).all(dim=1)
    _blank_where(columns, (status <= CODE["nonfinite"]) | ~finite, tuple(columns))
    _blank_where(columns, no_mask | zero, _MAPS_NEED_MASK)
    _blank_where(columns, no_mask, ("alt_background_share",))
    _blank_where(columns, alt < 0, _MAPS_NEED_ALT)


def blank_family(
    columns: dict[str, Tensor], status: Tensor, *, valid: Tensor | None, one_sided: Tensor,
    no_map: Tensor,
) -> None:  # fmt: skip
    """The same for the columns of a family of masks beside the main one.

    Args:
        columns: Those of :data:`FAMILY_SCORES`.
        status: Of the samples, N.
        valid: Which samples have a mask of this family, bool N; ``None`` for all.
        one_sided: Whose mask is all object or all background, bool N.
        no_map: Whose map is zero or undefined, bool N.
    """
    absent = status <= CODE["nonfinite"]
    if valid is not None:
        absent = absent | ~valid
    _blank_where(columns, absent, ("object_area",))
    _blank_where(columns, absent | (status <= CODE["mask_mismatch"]), ("mask_iou",))
    _blank_where(columns, absent | one_sided, FAMILY_SCORES[2:])
    _blank_where(columns, no_map, ("background_share", "kappa"))


def _blank_where(columns: dict[str, Tensor], where: Tensor, names: tuple[str, ...]) -> None:
    # Most batches have nothing to blank. On other devices asking would cost more than doing it.
    if where.device.type == "cpu" and not bool(where.any()):
        return
    for name in names:
        values = columns[name]
        blank = torch.nan if values.is_floating_point() else -1
        columns[name] = torch.where(where.view(-1, *[1] * (values.dim() - 1)), blank, values)
