"""``edited.parquet``: edited pictures of some samples, as they were shown to the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from audit.report.gallery import decided_by_background
from audit.report.selection import MOST_CLASSES
from audit.report.thumbs import encode_picture
from audit.run.columns import Column, table_of
from audit.run.edits import EditedPicture
from audit.tables.totals import rank_classes

# Samples of a class; of two where there are many classes.
_A_CLASS, _FEW_CLASSES = 3, 10
# Other classes' objects on a sample's background.
_TRANSPLANTS = 3
# Edited pictures are small on the page.
_SIDE = 160
_ONE_OF_THREE = ("object_only", "background_only", "mixed_same", "mixed_rand")

PICTURE_COLUMNS: tuple[Column, ...] = (
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(name="sample_id", type=pa.string(), range="as in samples", meaning="The sample."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Its labelled class."),
    Column(name="background_decides", type=pa.bool_(), range="true, false",
           meaning="Whether its background decides alone, as decided_share in evidence counts."),
    Column(name="edit", type=pa.string(),
           range="original, object_only, background_only, mixed_same, mixed_rand, transplant",
           meaning="What was done: nothing; everything but the object, or the object, filled; the "
           "object on a background of its class, or of another; its background under the object of "
           "another class. Of the first four fills or backgrounds the one whose probability is in "
           "the middle; of transplants the first three that count."),
    Column(name="family", type=pa.string(), range="as in mask_source",
           meaning="Whose masks cut: for background_only and transplant those that the class's "
           "reliance rests on, else the main ones."),
    Column(name="fill", type=pa.string(), range="noise, mean, other",
           meaning="What stands where pixels were removed.", null_when="edit is original"),
    Column(name="object", type=pa.int32(), range="[0, K)", meaning="Class of the object.",
           null_when="it was removed"),
    Column(name="background", type=pa.int32(), range="[0, K)",
           meaning="Class of the background's image.", null_when="it was removed"),
    Column(name="predicted", type=pa.int32(), range="[0, K)", meaning="The model's answer."),
    Column(name="p_label", type=pa.float32(), range="[0, 1]",
           meaning="The probability of label then."),
    Column(name="image", type=pa.binary(), range="PNG or JPEG",
           meaning="The picture that the model was asked about, rounded to whole grey levels; "
           f"reduced to {_SIDE} pixels a side."),
)  # fmt: skip


def choose_pictured(
    edits: pd.DataFrame, classes: pd.DataFrame, families: Sequence[str]
) -> pd.DataFrame:
    """Choose the edited samples whose pictures are kept.

    Args:
        edits: Rows of edited samples.
        classes: The rows of ``classes.parquet``.
        families: Names of the families of masks, the main one first.

    Returns:
        One row a sample, classes in the order of the page: ``index``, ``label``, ``family`` and
        ``background_decides``. Of each class those whose background decides come first, then
        others, drawn evenly.
    """
    shown = rank_classes(classes)[:MOST_CLASSES]
    wanted = _A_CLASS if len(shown) <= _FEW_CLASSES else _A_CLASS - 1
    decides = decided_by_background(edits, classes, families)
    labels = edits["label"].to_numpy(np.int64)
    index = edits["index"].to_numpy(np.int64)
    rows: list[dict[str, object]] = []
    for label, rests in zip(shown["label"].astype(int), shown["reliance_family"], strict=True):
        family = families[0] if pd.isna(rests) else str(rests)
        own = labels == label
        first = _evenly(np.flatnonzero(own & decides), wanted)
        rest = _evenly(np.flatnonzero(own & ~decides), wanted - len(first))
        rows += [
            {"index": int(index[place]), "label": label, "family": family,
             "background_decides": bool(decides[place])}
            for place in (*first, *rest)
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=["index", "label", "family", "background_decides"])


def _evenly(places: np.ndarray[tuple[int], np.dtype[np.int64]], wanted: int) -> list[int]:
    """So many of some places, the first and the last among them."""
    if len(places) <= wanted:
        return [int(place) for place in places]
    return [int(places[at]) for at in np.linspace(0, len(places) - 1, wanted).round().astype(int)]


def build_pictures(
    pictured: pd.DataFrame, pictures: Iterable[EditedPicture], sample_ids: pd.Series
) -> pa.Table:
    """The table of edited pictures.

    Args:
        pictured: From :func:`choose_pictured`.
        pictures: Theirs.
        sample_ids: By position in the split.

    Returns:
        A table with :data:`PICTURE_COLUMNS`, samples in the order of ``pictured``.
    """
    of_sample: dict[int, list[EditedPicture]] = {}
    for picture in pictures:
        of_sample.setdefault(picture.index, []).append(picture)
    rows = [
        {
            **sample,
            "sample_id": sample_ids[sample["index"]],
            **{
                name: getattr(picture, name)
                for name in ("edit", "family", "fill", "object", "background", "predicted",
                             "p_label")
            },
            "image": encode_picture(picture.image, _SIDE),
        }
        for sample in pictured.to_dict("records")
        for picture in told(of_sample.get(sample["index"], []))
    ]  # fmt: skip
    return table_of(rows, PICTURE_COLUMNS)


def told(pictures: Sequence[EditedPicture]) -> list[EditedPicture]:
    """Of a sample's edited pictures those that are kept.

    Args:
        pictures: All of them, in the order of the edits.

    Returns:
        The original, one of each edit that has three, and the first transplants. Where an edit has
        several pictures, neither the best nor the worst case: the one in the middle.
    """
    by_edit: dict[str, list[EditedPicture]] = {}
    for picture in pictures:
        by_edit.setdefault(picture.edit, []).append(picture)
    middle = [
        sorted(by_edit[name], key=lambda picture: picture.p_label)[(len(by_edit[name]) - 1) // 2]
        for name in _ONE_OF_THREE
        if name in by_edit
    ]
    return [*by_edit.get("original", []), *middle, *by_edit.get("transplant", [])[:_TRANSPLANTS]]
