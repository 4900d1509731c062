"""The table of samples: one row a sample, schema first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION = 3


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column of a table holds.

    Attributes:
        name: As in the file.
        type: As in the file; ``list`` types show their element.
        range: Allowed values, with the unit where there is one.
        meaning: In one sentence.
        null_when: When the value is null; empty for never.
    """

    name: str
    type: pa.DataType
    range: str
    meaning: str
    null_when: str = ""


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
_NO_ALT = "prediction and label agree, or " + _NO_MODEL

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
           meaning="Class with the largest contribution from the object.", null_when=_NO_MASK),
    Column(name="background_pred", type=pa.int32(), range="[0, K)",
           meaning="Class with the largest contribution from the background (near and far).",
           null_when=_NO_MASK),
    Column(name="transplant_rate", type=_F32, range="[0, 1]",
           meaning="Share of transplants (this background under objects of other classes, in "
           "feature space) that are predicted as this sample's label.",
           null_when=_NO_MASK + ", the label is null, the object leaves no background, or there "
           "are no donors of other classes, or the head reads more than the features"),
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
)  # fmt: skip

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


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of columns."""
    return pa.schema(
        [(column.name, column.type) for column in columns],
        metadata={"audit_schema_version": str(SCHEMA_VERSION)},
    )


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
            ``mask_confidence``; NaN and negative integers become null.
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
    }
    for column in columns:
        if column.name not in arrays:
            arrays[column.name] = _array(tensors[column.name], column.type)
    schema = schema_of(columns)
    return pa.Table.from_arrays([arrays[name] for name in schema.names], schema=schema)


def _named(codes: NDArray[Any], names: Sequence[str]) -> pa.Array:
    values = np.asarray(codes, np.int32)
    indices = pa.array(values, pa.int32(), mask=values < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(names), pa.string()))


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_list(kind):
        return _lists(values, kind)
    null = np.isnan(values) if values.dtype.kind == "f" else values < 0
    if pa.types.is_boolean(kind):
        return pa.array(values > 0, kind, mask=null)
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=null)


def _lists(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Rows of equal length as lists; a row whose first value is undefined becomes null."""
    flat = values.reshape(len(values), -1)
    first = flat[:, 0]
    null = np.isnan(first) if flat.dtype.kind == "f" else first < 0
    lengths = np.where(null, 0, flat.shape[1])
    offsets = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
    content = pa.array(flat[~null].ravel().astype(kind.value_type.to_pandas_dtype()))
    return pa.ListArray.from_arrays(
        pa.array(offsets), content.cast(kind.value_type), type=kind, mask=pa.array(null)
    )
