"""The table of samples: one row a sample, schema first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, array_of, lists_of, schema_of
from audit.score.reason import REASONS

SCHEMA_VERSION = 4


_NAME = pa.dictionary(pa.int32(), pa.string())
_F32 = pa.float32()
_HALF = pa.list_(pa.float16())
_NO_MODEL = "status is unreadable or nonfinite"
_NO_MASK_FILE = _NO_MODEL + ", mask_missing, mask_unreadable or mask_mismatch"
_NO_MASK = _NO_MASK_FILE + ", empty_mask or full_mask"
_MOVED = (
    "with the mask's border where it is, and moved in and out by one cell (or as far as leaves a "
)
_MOVED += "quarter of the object, of the background)"
_NO_MAP = _NO_MASK + ", or zero_map, or all of the map is on unknown pixels"
_NO_DONORS = "the label is null, there are no donors of other classes, or the head reads more than "
_NO_DONORS += "the features"
_NO_TRANSPLANT = ", the object leaves no background, " + _NO_DONORS
_NO_REASON = _NO_MASK + ", or zero_map"
_NO_FLAG = _NO_REASON + ", or the label is null"
_NOT_KEPT = _NO_MASK + ", or the sample is not among those whose channels are kept (all, unless "
_NOT_KEPT += "that takes over 64 MiB; then chosen by position)"
_NO_FAR = _NOT_KEPT + ", or the far background is smaller than half a cell"
_NO_ALT = "prediction and label agree, or " + _NO_MODEL

_UNREADABLE = "status is unreadable"
_NOT_STORED = _UNREADABLE + ", or the source does not know it"
# What the image is like, before any model.
IMAGE_COLUMNS: tuple[Column, ...] = (
    Column(name="brightness", type=_F32, range="[0, 1]",
           meaning="Mean of luma (.299 R + .587 G + .114 B) of the image as the model sees it.",
           null_when=_UNREADABLE),
    Column(name="contrast", type=_F32, range="[0, .5]",
           meaning="Standard deviation of luma.", null_when=_UNREADABLE),
    Column(name="saturation", type=_F32, range="[0, 1]",
           meaning="Mean HSV saturation; 0 = grey.", null_when=_UNREADABLE),
    Column(name="red_green", type=_F32, range="[−1, 1]",
           meaning="Mean of R − G; above 0 red, below 0 green or cyan.", null_when=_UNREADABLE),
    Column(name="yellow_blue", type=_F32, range="[−1, 1]",
           meaning="Mean of (R + G)/2 − B; above 0 yellow, below 0 blue.", null_when=_UNREADABLE),
    Column(name="sharpness", type=_F32, range="[0, 1.8]; 0 = smooth, 1 = noise",
           meaning="Fine detail, whatever the contrast: root of the luma's Laplacian's variance "
           "over 20 times the luma's.",
           null_when=_UNREADABLE + ", or luma varies by less than one grey level"),
    Column(name="entropy", type=_F32, range="[0, 6] bits",
           meaning="Entropy of the luma's histogram of 64 levels.", null_when=_UNREADABLE),
    Column(name="image_hash", type=pa.int64(), range="[0, 2⁵²)",
           meaning="Equal for copies of an image, hardly ever for others: 40 bits of brighter and "
           "darker cells (5×5), 12 bits of mean colour.", null_when=_UNREADABLE),
    Column(name="stored_height", type=pa.int32(), range="≥ 1 pixels",
           meaning="Height of the whole picture as it was stored, upright.", null_when=_NOT_STORED),
    Column(name="stored_width", type=pa.int32(), range="≥ 1 pixels", meaning="Its width.",
           null_when=_NOT_STORED),
    Column(name="file_bytes", type=pa.int64(), range="≥ 1 bytes",
           meaning="Size of the encoded picture.", null_when=_NOT_STORED),
)  # fmt: skip

SAMPLE_COLUMNS: tuple[Column, ...] = (
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(
        name="sample_id",
        type=pa.string(),
        range="unique",
        meaning="Stable name of the image; joins all tables and pictures.",
    ),
    Column(
        name="status",
        type=_NAME,
        range="ok, unreadable, nonfinite, mask_missing, mask_unreadable, mask_mismatch, "
        "empty_mask, full_mask, zero_map, bad_label",
        meaning="Why scores are missing; the most severe reason wins.",
    ),
    Column(
        name="problem",
        type=pa.string(),
        range="text",
        meaning="What is wrong with the image, its mask or its label, naming the files.",
        null_when="nothing is wrong with them",
    ),
    Column(
        name="label",
        type=pa.int32(),
        range="[0, K)",
        meaning="Labelled class.",
        null_when="status is bad_label, or the label cannot be read",
    ),
    Column(name="label_name", type=_NAME, range="class names", meaning="Its name.",
           null_when="label is null"),
    Column(name="predicted", type=pa.int32(), range="[0, K)", meaning="Class of the largest logit.",
           null_when=_NO_MODEL),
    Column(name="predicted_name", type=_NAME, range="class names", meaning="Its name.",
           null_when=_NO_MODEL),
    Column(name="correct", type=pa.bool_(), range="true, false",
           meaning="Whether predicted equals label.", null_when=_NO_MODEL + ", or label is null"),
    Column(name="confidence", type=_F32, range="[0, 1]",
           meaning="Softmax probability of the predicted class.", null_when=_NO_MODEL),
    Column(name="label_probability", type=_F32, range="[0, 1]",
           meaning="Softmax probability of the labelled class.",
           null_when=_NO_MODEL + ", or label is null"),
    Column(name="margin", type=_F32, range="[0, 1]",
           meaning="Largest probability minus the second largest.",
           null_when=_NO_MODEL + ", or there is one class"),
    Column(name="top_classes", type=pa.list_(pa.int32()), range="up to 5 of [0, K)",
           meaning="The most probable classes, most probable first.", null_when=_NO_MODEL),
    Column(name="top_probabilities", type=pa.list_(_F32), range="up to 5 of [0, 1]",
           meaning="Their softmax probabilities.", null_when=_NO_MODEL),
    Column(name="target", type=pa.int32(), range="[0, K)",
           meaning="The class that map and scores explain (--target).", null_when=_NO_MODEL),
    Column(name="alt_target", type=pa.int32(), range="[0, K)",
           meaning="The other of predicted and labelled class, which the alt_ columns explain.",
           null_when=_NO_ALT),
    Column(name="target_logit", type=_F32, range="logits",
           meaning="The target's logit minus the mean over classes; "
           "object + near + far + unknown + bias + residual.", null_when=_NO_MODEL),
    Column(name="mask_source", type=_NAME,
           range="dataset, box, estimated, component, ellipse, rembg",
           meaning="Where the object mask came from."),
    Column(name="mask_confidence", type=_F32, range="[0, 1]",
           meaning="How far to trust the estimated mask: its expected overlap (IoU) with the "
           "object; for rembg its overlap with the estimated one.",
           null_when="the mask is the dataset's, a box or an ellipse, or status is unreadable"),
    Column(name="object_area", type=_F32, range="[0, 1]", meaning="Object's share of the known "
           "part of the image, a.", null_when=_NO_MASK_FILE),
    Column(name="unknown_area", type=_F32, range="[0, 1]", meaning="Share of the image that is "
           "neither known to be object nor background; it counts on no side.",
           null_when=_NO_MASK_FILE),
    Column(name="border_touch", type=_F32, range="[0, 1]", meaning="Share of the image's border "
           "that is object.", null_when=_NO_MASK_FILE),
    *IMAGE_COLUMNS,
    Column(name="object_share", type=_F32, range="[0, 1]",
           meaning="Share of the map's positive mass on the object, R.", null_when=_NO_MAP),
    Column(name="background_share", type=_F32, range="[0, 1]",
           meaning="1 − R. Descriptive: a clean model on a coarse grid can show .35 to .86.",
           null_when=_NO_MAP),
    Column(name="background_share_low", type=_F32, range="[0, 1]",
           meaning="The lowest background_share " + _MOVED + ".", null_when=_NO_MAP),
    Column(name="background_share_high", type=_F32, range="[0, 1]",
           meaning="The highest.", null_when=_NO_MAP),
    Column(name="background_lift", type=_F32, range="≥ 0; 1 = chance",
           meaning="(1 − R)/(1 − a).", null_when=_NO_MAP),
    Column(name="kappa", type=_F32, range="≤ 1; 0 = chance", meaning="(R − a)/(1 − a).",
           null_when=_NO_MAP),
    Column(name="kappa_low", type=_F32, range="≤ 1; 0 = chance",
           meaning="The lowest kappa " + _MOVED + ".", null_when=_NO_MAP),
    Column(name="kappa_high", type=_F32, range="≤ 1; 0 = chance", meaning="The highest.",
           null_when=_NO_MAP),
    Column(name="kappa_res", type=_F32, range="≤ about 1; 0 = chance",
           meaning="(R − a)/(R* − a) with R* the best share that the grid allows.",
           null_when=_NO_MAP + ", or R* − a is not above .05 (the grid cannot resolve the object)"),
    Column(name="pointing_hit", type=_F32, range="[0, 1]",
           meaning="Whether the map's peak lies on the object within a tolerance (1 px up to "
           "64 px images, 15 px at 224); tied peaks count by fraction.", null_when=_NO_MAP),
    Column(name="rank_accuracy", type=_F32, range="[0, 1]",
           meaning="Share of the |M| highest pixels that are object; expected value under ties.",
           null_when=_NO_MAP),
    Column(name="iou_50", type=_F32, range="[0, 1]",
           meaning="Overlap of the object with the pixels at or above half the map's maximum.",
           null_when=_NO_MAP),
    Column(name="focus_entropy", type=_F32, range="[0, 1]",
           meaning="Entropy of the map over its largest value; 0 = one cell.",
           null_when=_NO_MODEL + ", or the map is zero"),
    Column(name="effective_cells", type=_F32, range="[1, h·w] cells",
           meaning="How many cells the map covers, by its entropy.",
           null_when=_NO_MODEL + ", or the map is zero"),
    Column(name="object_logit", type=_F32, range="logits",
           meaning="What the object's cells contribute to target_logit.", null_when=_NO_MASK),
    Column(name="near_logit", type=_F32, range="logits",
           meaning="What the background within one cell of the object contributes.",
           null_when=_NO_MASK),
    Column(name="far_logit", type=_F32, range="logits",
           meaning="What the rest of the background contributes.", null_when=_NO_MASK),
    Column(name="unknown_logit", type=_F32, range="logits; 0 where all is known",
           meaning="What the cells contribute as far as they are unknown.", null_when=_NO_MASK),
    *(
        Column(name=f"{region}_logit_{end}", type=_F32, range="logits",
               meaning=f"The {extreme} {region}_logit" + (f" {_MOVED}." if end == "low" else "."),
               null_when=_NO_MASK)
        for region in ("object", "near", "far")
        for end, extreme in (("low", "lowest"), ("high", "highest"))
    ),
    Column(name="bias_logit", type=_F32, range="logits",
           meaning="What the head's biases contribute.", null_when=_NO_MASK),
    Column(name="residual_logit", type=_F32, range="logits; 0 for piecewise-linear heads",
           meaning="What the other five leave unexplained.", null_when=_NO_MASK),
    Column(name="object_pred", type=pa.int32(), range="[0, K)",
           meaning="Class with the largest contribution from the object.",
           null_when=_NO_MASK + ", or the object supplies nothing to any"),
    Column(name="background_pred", type=pa.int32(), range="[0, K)",
           meaning="Class with the largest contribution from the background (near and far).",
           null_when=_NO_MASK + ", or the background supplies nothing to any"),
    Column(name="reason", type=_NAME, range="object, background, both, neither",
           meaning="Which regions alone point to the target: object (object_pred is the target, "
           "background_pred is not), background (the other way round), both, neither; by "
           "contributions in feature space, not tested in pixels.",
           null_when=_NO_REASON),
    Column(name="right_for_wrong_reason", type=pa.bool_(), range="true or false",
           meaning="Predicted as labelled, and the reason is background.", null_when=_NO_FLAG),
    Column(name="wrong_because_of_background", type=pa.bool_(), range="true or false",
           meaning="Not predicted as labelled, background_pred is the predicted class, and "
           "object_pred is not.", null_when=_NO_FLAG),
    Column(name="context_driven", type=pa.bool_(), range="true or false",
           meaning="background_pred is the label, and object_pred is another class: the label may "
           "stem from the surroundings.", null_when=_NO_FLAG),
    Column(name="transplant_rate", type=_F32, range="[0, 1]",
           meaning="Share of transplants (this background under objects of other classes, in "
           "feature space) that are predicted as this sample's label.",
           null_when=_NO_MASK + _NO_TRANSPLANT),
    Column(name="transplant_far_rate", type=_F32, range="[0, 1]",
           meaning="The same where the far background alone is carried over: the donor keeps "
           "all cells but those that are far background here and not object there.",
           null_when=_NO_MASK + ", the far background is smaller than half a cell, " + _NO_DONORS),
    Column(name="transplant_additive_rate", type=_F32, range="[0, 1]",
           meaning="The same with contributions in place of features: this background's, the "
           "donor's object's and the bias's add up.",
           null_when=_NO_MASK + _NO_TRANSPLANT
           + ", or is not global average pooling and a linear map"),
    Column(name="transplant_objects", type=pa.list_(pa.int32()), range="up to 64 of [0, K)",
           meaning="The class of each transplanted object (of each donor), under all masks alike.",
           null_when=_NO_MODEL + ", " + _NO_DONORS),
    Column(name="transplant_predictions", type=pa.list_(pa.int32()), range="up to 64 of [0, K)",
           meaning="The prediction of each transplant of transplant_rate, in the same order.",
           null_when=_NO_MASK + _NO_TRANSPLANT),
    Column(name="alt_background_share", type=_F32, range="[0, 1]",
           meaning="background_share of alt_target's map.",
           null_when=_NO_ALT + ", no usable mask, or that map is zero"),
    Column(name="alt_object_logit", type=_F32, range="logits",
           meaning="object_logit of alt_target.", null_when=_NO_ALT + ", or no usable mask"),
    Column(name="alt_near_logit", type=_F32, range="logits",
           meaning="near_logit of alt_target.", null_when=_NO_ALT + ", or no usable mask"),
    Column(name="alt_far_logit", type=_F32, range="logits",
           meaning="far_logit of alt_target.", null_when=_NO_ALT + ", or no usable mask"),
    Column(name="map", type=_HALF, range="h·w values in [−1, 1]",
           meaning="The target's signed map, row by row, over its largest magnitude.",
           null_when=_NO_MODEL),
    Column(name="map_scale", type=_F32, range="≥ 0", meaning="That magnitude: map × map_scale "
           "is the raw map.", null_when=_NO_MODEL),
    Column(name="alt_map", type=_HALF, range="h·w values in [−1, 1]",
           meaning="alt_target's signed map over its largest magnitude.", null_when=_NO_ALT),
    Column(name="alt_map_scale", type=_F32, range="≥ 0", meaning="That magnitude.",
           null_when=_NO_ALT),
    Column(name="top_channels", type=pa.list_(pa.int32()), range="channel numbers",
           meaning="The channels with the largest mean activation, most active first.",
           null_when=_NO_MODEL),
    Column(name="channel_maps", type=_HALF, range="channels·h·w values in [−1, 1]",
           meaning="Their activation maps one after the other, over the largest magnitude.",
           null_when=_NO_MODEL),
    Column(name="channel_maps_scale", type=_F32, range="≥ 0", meaning="That magnitude.",
           null_when=_NO_MODEL),
    Column(name="grid_mask", type=_HALF, range="h·w values in [0, 1]",
           meaning="Share of each of the map's cells that is object, row by row, as object_share "
           "weighs it.", null_when=_NO_MASK_FILE),
    Column(name="channel_logits", type=_HALF, range="3·C values in [−1, 1]",
           meaning="What each of the C channels contributes to target_logit from the object, then "
           "from near, then from far background, over the largest magnitude.",
           null_when=_NOT_KEPT),
    Column(name="channel_logits_scale", type=_F32, range="≥ 0 logits", meaning="That magnitude.",
           null_when=_NOT_KEPT),
    Column(name="far_features", type=_HALF, range="C values in [−1, 1]",
           meaning="Mean features of the far background, over their largest magnitude.",
           null_when=_NO_FAR),
    Column(name="far_features_scale", type=_F32, range="≥ 0", meaning="That magnitude.",
           null_when=_NO_FAR),
)  # fmt: skip

# Long lists that only some samples have, and which samples those are (not a column).
EVIDENCE = ("channel_logits", "far_features")
KEPT = "evidence_kept"

# The columns that a second method (--method a,b) has too, behind its prefix.
_OF_EVERY_METHOD = (
    "object_share", "background_share", "background_share_low", "background_share_high",
    "background_lift", "kappa", "kappa_low", "kappa_high", "kappa_res", "pointing_hit",
    "rank_accuracy", "iou_50", "focus_entropy", "effective_cells", "alt_background_share", "map",
    "map_scale", "alt_map", "alt_map_scale",
)  # fmt: skip

_NO_MASS = _NO_MODEL + ", or the map is zero"
FAITHFULNESS_COLUMNS: tuple[Column, ...] = (
    Column(name="deletion_auc", type=_F32, range="[0, 1]; low is faithful",
           meaning="Mean probability of the target while the map's highest pixels are removed "
           "first.", null_when=_NO_MASS),
    Column(name="insertion_auc", type=_F32, range="[0, 1]; high is faithful",
           meaning="Mean probability of the target while the map's highest pixels are put first "
           "into the blurred image.", null_when=_NO_MASS),
    Column(name="average_drop", type=_F32, range="[0, 1]; low is faithful",
           meaning="Share of the target's probability that is lost when the image is multiplied "
           "by its map.", null_when=_NO_MASS),
    Column(name="increase", type=_F32, range="0 or 1",
           meaning="Whether the target's probability rises then.", null_when=_NO_MASS),
    Column(name="road", type=_F32, range="[−1, 1]; 0 = chance, high is faithful",
           meaning="Mean over fractions of the target's probability after the lowest pixels are "
           "filled in from their surroundings, minus that after the highest are.",
           null_when=_NO_MASS),
)  # fmt: skip


# The columns of a second family of masks (--masks a,b), behind its name.
FAMILY_COLUMNS: tuple[Column, ...] = (
    Column(name="object_area", type=_F32, range="[0, 1]",
           meaning="Share of the image that this family calls object.", null_when=_NO_MODEL),
    Column(name="mask_iou", type=_F32, range="[0, 1]",
           meaning="Overlap (IoU) of its mask with the main one.", null_when=_NO_MASK_FILE),
    Column(name="background_share", type=_F32, range="[0, 1]",
           meaning="background_share under its mask.",
           null_when=_NO_MODEL + ", its mask is empty or full, or the map is zero"),
    Column(name="kappa", type=_F32, range="≤ 1; 0 = chance", meaning="kappa under its mask.",
           null_when=_NO_MODEL + ", its mask is empty or full, or the map is zero"),
    *(
        Column(name=f"{region}_logit", type=_F32, range="logits",
               meaning=f"{region}_logit under its mask.",
               null_when=_NO_MODEL + ", or its mask is empty or full")
        for region in ("object", "near", "far")
    ),
    Column(name="transplant_rate", type=_F32, range="[0, 1]",
           meaning="transplant_rate under its masks, with the first half of the donors as far as "
           "their masks have an object and a background.",
           null_when=_NO_MODEL + ", its mask is empty or full" + _NO_TRANSPLANT
           + ", or no donor has such a mask"),
    Column(name="transplant_predictions", type=pa.list_(pa.int32()), range="up to 64 of [−1, K)",
           meaning="The prediction of each of its transplants in the order of transplant_objects; "
           "−1 where the donor's mask is empty or full, and from the half on.",
           null_when="its transplant_rate is null"),
)  # fmt: skip


def columns_of(
    prefixes: Sequence[str] = (), *, faithful: bool = False, families: Sequence[str] = ()
) -> tuple[Column, ...]:
    """The columns of a run.

    Args:
        prefixes: Of the methods after the first.
        faithful: Whether maps were scored for faithfulness.
        families: Names of the families of masks after the first.

    Example:
        >>> [c.name for c in columns_of(["gradcam_"]) if c.name.endswith("kappa")]
        ['kappa', 'gradcam_kappa']
    """
    faithfulness = FAITHFULNESS_COLUMNS if faithful else ()
    main = SAMPLE_COLUMNS + faithfulness
    repeated = [c for c in SAMPLE_COLUMNS if c.name in _OF_EVERY_METHOD]
    others = [
        replace(column, name=prefix + column.name)
        for prefix in prefixes
        for column in (*repeated, *faithfulness)
    ]
    under_masks = [
        replace(column, name=f"{family}_{column.name}")
        for family in families
        for column in FAMILY_COLUMNS
    ]
    return (*main, *others, *under_masks)


def build_table(
    tensors: Mapping[str, NDArray[Any]],
    *,
    sample_ids: Sequence[str],
    classes: Sequence[str],
    problems: Sequence[str],
    statuses: Sequence[str],
    mask_sources: Sequence[str],
    columns: Sequence[Column] = SAMPLE_COLUMNS,
) -> pa.Table:
    """Rows of one shard.

    Args:
        tensors: The step's columns as arrays, plus ``index``, ``label``, ``mask_source`` and
            ``mask_confidence``; NaN and negative integers become null. Of :data:`EVIDENCE` only
            the rows that :data:`KEPT`, bool N, names.
        sample_ids: N.
        classes: Class names.
        problems: What is wrong with each sample in words, N; empty for nothing.
        statuses: What the codes in ``status`` mean.
        mask_sources: What the codes in ``mask_source`` mean.
        columns: From :func:`columns_of`.

    Returns:
        A table with these columns.
    """
    arrays = {
        "sample_id": pa.array(sample_ids, pa.string()),
        "status": _named(tensors["status"], statuses),
        "label_name": _named(tensors["label"], classes),
        "predicted_name": _named(tensors["predicted"], classes),
        "problem": pa.array([text or None for text in problems], pa.string()),
        "mask_source": _named(tensors["mask_source"], mask_sources),
        "reason": _named(tensors["reason"], REASONS),
    }
    kept = tensors[KEPT]
    for name in EVIDENCE:
        arrays[name] = lists_of(tensors[name], _HALF, kept)
    for column in columns:
        if column.name not in arrays:
            arrays[column.name] = array_of(tensors[column.name], column.type)
    # Parts tell their version, so that a reader need not have the manifest.
    schema = schema_of(columns).with_metadata({"audit_schema_version": str(SCHEMA_VERSION)})
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _named(codes: NDArray[Any], names: Sequence[str]) -> pa.Array:
    values = np.asarray(codes, np.int32)
    indices = pa.array(values, pa.int32(), mask=values < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string()))
