"""The table of edited samples: one row a sample that was looked at in pixels, schema first."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from audit.run.columns import Column

# What stands where pixels were removed, in the order of predictions; as in score/filling.py.
FILLS = ("noise", "mean", "other")

_PREDICTIONS = pa.list_(pa.int32())
_F32 = pa.float32()
_UNUSABLE = "the mask leaves no object or no background"
_MEANINGS = {
    "object_only": "the object alone, everything else filled",
    "background_only": "the background alone, the object filled",
    "mixed_same": "the object on the background of another image of its class",
    "mixed_rand": "the object on the background of an image of another class",
}


def _edit_columns(prefix: str, under: str) -> tuple[Column, ...]:
    """The columns that every family of masks has."""
    return (
        Column(name=f"{prefix}transplant_predictions", type=_PREDICTIONS, range="6 of [−1, K)",
               meaning="Prediction for this background under the object of each of "
               f"transplant_objects{under}; fills noise, mean, other in turn; −1 where a mask "
               "is unusable."),
        *_probe_columns(f"{prefix}background_only", _MEANINGS["background_only"] + under),
    )  # fmt: skip


def _probe_columns(name: str, meaning: str) -> tuple[Column, ...]:
    return (
        Column(name=f"{name}_predictions", type=_PREDICTIONS, range="3 of [−1, K)",
               meaning=f"Prediction for {meaning}; with the fills noise, mean and other; −1 where "
               "that is impossible."),
        Column(name=f"p_{name}", type=_F32, range="[0, 1]",
               meaning="The label's probability then, mean over the fills.", null_when=_UNUSABLE),
        Column(name=f"p_{name}_low", type=_F32, range="[0, 1]",
               meaning="The lowest over the fills.", null_when=_UNUSABLE),
        Column(name=f"p_{name}_high", type=_F32, range="[0, 1]",
               meaning="The highest.", null_when=_UNUSABLE),
    )  # fmt: skip


_FIRST: tuple[Column, ...] = (
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(name="sample_id", type=pa.string(), range="unique", meaning="As in samples."),
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="Labelled class."),
    Column(name="predicted", type=pa.int32(), range="[0, K)",
           meaning="Prediction for the picture as it is, as in samples."),
    Column(name="transplant_objects", type=_PREDICTIONS, range="6 of [−1, K)",
           meaning="Class of each object that was put on this background; −1 where no other "
           "class has any."),
)  # fmt: skip
_LAST: tuple[Column, ...] = (
    Column(name="noise_object_prediction", type=pa.int32(), range="[0, K)",
           meaning="Prediction with noise of 64 grey levels on the object.", null_when=_UNUSABLE),
    Column(name="noise_background_prediction", type=pa.int32(), range="[0, K)",
           meaning="Prediction with the same noise on the background.", null_when=_UNUSABLE),
)  # fmt: skip


def edit_columns(families: Sequence[str] = ()) -> tuple[Column, ...]:
    """The columns of the edits.

    Args:
        families: Names of the families of masks after the first.

    Example:
        >>> [c.name for c in edit_columns(["ellipse"]) if c.name.endswith("transplant_predictions")]
        ['transplant_predictions', 'ellipse_transplant_predictions']
    """
    main = _edit_columns("", "")
    others = [
        column
        for family in families
        for column in _edit_columns(f"{family}_", f", under {family} masks")
    ]
    probes = [
        column
        for name in ("object_only", "mixed_same", "mixed_rand")
        for column in _probe_columns(name, _MEANINGS[name])
    ]
    return (*_FIRST, *main, *others, *probes, *_LAST)
