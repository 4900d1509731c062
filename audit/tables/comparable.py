"""Can two runs be compared? The same images, masks, classes and ways to explain, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.errors import UsageError
from audit.run.gaps import gaps_in_words, gaps_of
from audit.run.rows import SCHEMA_VERSION
from audit.tables.reading import AuditRun

Floats = NDArray[np.float64]

# Objects may cover so much more or less of an image (in the mean, and of the 99th percentile) in
# two sizes of the same view; rounding of a border moves less.
_MEAN_AREA, _LARGE_AREA = 0.01, 0.05
# Two crops are the same view where they show the same share of the picture to this.
_VIEW = 0.01
# An image is as bright in two sizes, to this.
_BRIGHTNESS = 0.03
# Longer values are cut in messages.
_LONGEST = 120


class Difference(NamedTuple):
    """Something that two runs do not share.

    Attributes:
        what: Its name, for people.
        first: The first run's value, as text.
        second: The second run's.
        remedy: What makes them equal.
    """

    what: str
    first: str
    second: str
    remedy: str


def check_comparable(first: AuditRun, second: AuditRun) -> None:
    """Refuse runs that do not show the same images under the same masks in the same way.

    Args:
        first: One run.
        second: Another.

    Raises:
        UsageError: If anything differs that comparisons rest on; it names all of it.
    """
    found = find_differences(first, second)
    if not found:
        return
    remedies = list(dict.fromkeys(one.remedy for one in found))
    raise UsageError(
        f"the runs {first.manifest['run_id']} and {second.manifest['run_id']} cannot be compared: "
        + ", ".join(one.what for one in found) + (" differs" if len(found) == 1 else " differ"),
        expected="two runs over the same images and masks, explained in the same way",
        found="; ".join(f"{one.what}: {one.first} and {one.second}" for one in found),
        remedy="; ".join(remedies),
    )  # fmt: skip


def find_differences(first: AuditRun, second: AuditRun) -> list[Difference]:
    """Everything that keeps two runs from being compared.

    Other weights, other architectures, another layer and other code of the audit do not. Two sizes
    of image do not where both models see the same view of each picture and the masks cover as
    much of it.

    Args:
        first: One run.
        second: Another.

    Returns:
        The differences; none where the runs can be compared.
    """
    one, other = first.manifest, second.manifest
    found = list(_of_settings(one, other))
    if found and any(difference.what in _WITHOUT_ROWS for difference in found):
        return found
    return found + list(_of_rows(first, second, resized=_view(one) != _view(other)))


_ROWS_OF_ANOTHER_KIND = "version of the tables"
_CLASSES = "classes"
# Where these differ, rows have nothing to be compared by.
_WITHOUT_ROWS = (_ROWS_OF_ANOTHER_KIND, _CLASSES)
_SAME_DATA = "audit both models on the same --dataset, --split and --limit"
_SAME_PARTS = "compute the missing parts: run the same audit again"
_SAME_MASKS = "audit both models with the same --masks and the same mask files"


def _of_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    """What the manifests say."""

    def differs(what: str, a: Any, b: Any, remedy: str) -> Iterator[Difference]:
        if a != b:
            yield Difference(what, _text(a), _text(b), remedy)

    again = "run the older audit again with this version"
    version, other_version = one.get("schema_version"), other.get("schema_version")
    yield from differs(_ROWS_OF_ANOTHER_KIND, version, other_version, again)
    if version == other_version != SCHEMA_VERSION:
        both = f"{_text(version)}, where this audit compares version {SCHEMA_VERSION}"
        again = "run both audits again with this version"
        yield Difference(_ROWS_OF_ANOTHER_KIND, _text(version), both, again)
    yield from differs("dataset", one["dataset"], other["dataset"], _SAME_DATA)
    yield from differs("split", one["split"], other["split"], _SAME_DATA)
    yield from differs(_CLASSES, one["classes"], other["classes"], "give both models the same "
                       "classes, with --class-map where their outputs differ")  # fmt: skip
    view, other_view = _view(one), _view(other)
    if view == other_view:
        # The digest of data covers how pictures are framed.
        digest, other_digest = one["data_fingerprint"][:12], other["data_fingerprint"][:12]
        yield from differs("images, labels or masks of the data", digest, other_digest, _SAME_DATA)
    elif not _same_view(view, other_view):
        remedy = "audit both models with the same --resize and --image-size"
        yield Difference("view of each picture", _framing(view), _framing(other_view), remedy)
    a, b = one.get("config", {}), other.get("config", {})
    yield from differs(
        "families of masks", one.get("mask_families"), other.get("mask_families"), _SAME_MASKS
    )
    yield from differs(
        "network of the masks", one.get("mask_network"), other.get("mask_network"), _SAME_MASKS
    )
    for name in ("mask_object", "mask_unknown"):
        what = f"--{name.replace('_', '-')}"
        yield from differs(what, a.get(name), b.get(name), _SAME_MASKS)
    yield from differs("--samples", a.get("samples"), b.get("samples"), _SAME_DATA)
    for name in ("target", "smooth"):
        yield from differs(
            f"--{name}", a.get(name), b.get(name), f"audit both models with the same --{name}"
        )
    method, other_method = ((config.get("method") or [None])[0] for config in (a, b))
    again = "audit both models with the same first --method"
    yield from differs("--method (the first)", method, other_method, again)


def _of_rows(first: AuditRun, second: AuditRun, *, resized: bool) -> Iterator[Difference]:
    """What the samples themselves show."""
    if _absent(first.manifest) != _absent(second.manifest):
        said, other_said = (
            gaps_in_words(run.manifest) or "none is missing" for run in (first, second)
        )
        yield Difference("parts that are missing", said, other_said, _SAME_PARTS)
        return
    one, other = first.samples, second.samples
    if len(one) != len(other) or not (one["sample_id"].to_numpy() == other["sample_id"]).all():
        shared = len(set(one["sample_id"]) & set(other["sample_id"]))
        count, other_count = (
            f"{len(rows):,} of which {shared:,} are in both" for rows in (one, other)
        )
        yield Difference("samples", count, other_count, _SAME_DATA)
        return
    labels = [rows["label"].fillna(-1).to_numpy(np.int64) for rows in (one, other)]
    changed = np.flatnonzero(labels[0] != labels[1])
    if len(changed):
        example = one["sample_id"].iloc[changed[0]]
        label, other_label = (f"{each[changed[0]]} for '{example}'" for each in labels)
        yield Difference(f"labels of {len(changed):,} samples", label, other_label, _SAME_DATA)
    if resized and not _images_agree(one, other):
        yield Difference("images", "as in its folder", "others under the same names", _SAME_DATA)
    areas = [rows["object_area"].to_numpy(np.float64, na_value=np.nan) for rows in (one, other)]
    if not _masks_agree(areas[0], areas[1], resized=resized):
        cover, other_cover = map(_cover, areas)
        yield Difference("object masks", cover, other_cover, _SAME_MASKS)


def _absent(manifest: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Ranges of samples that a run goes without; runs may have parts of other sizes."""
    joined: list[tuple[int, int]] = []
    for gap in gaps_of(manifest):
        start = joined.pop()[0] if joined and joined[-1][1] == gap.start else gap.start
        joined.append((start, gap.stop))
    return joined


def _cover(areas: Floats) -> str:
    """How much of the images objects cover, in words."""
    known = areas[np.isfinite(areas)]
    return f"objects cover {known.mean():.2%} of the images" if len(known) else "none is usable"


def _images_agree(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether images are as bright in two sizes; digests of data tell nothing across sizes."""
    values = [rows["brightness"].to_numpy(np.float64, na_value=np.nan) for rows in (one, other)]
    moved = abs(values[0] - values[1])
    moved = moved[np.isfinite(moved)]
    return not len(moved) or bool(np.quantile(moved, 0.95) <= _BRIGHTNESS)


def _masks_agree(one: Floats, other: Floats, *, resized: bool) -> bool:
    """Whether the masks of the same images cover as much of them."""
    known = np.isfinite(one) & np.isfinite(other)
    if not resized and (np.isfinite(one) != np.isfinite(other)).any():
        return False
    if not known.any():
        return True
    moved = abs(one[known] - other[known])
    if not resized:
        # float32, summed in another order on another device.
        return bool(moved.max() <= 1e-4)
    return bool(moved.mean() <= _MEAN_AREA and np.quantile(moved, 0.99) <= _LARGE_AREA)


def _view(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """How pictures become what the model sees."""
    geometry = (manifest.get("preprocessing") or {}).get("geometry") or {}
    return {"image_size": list(manifest["image_size"])} | geometry


def _same_view(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two framings show the same part of each picture."""
    if bool(one.get("squash")) != bool(other.get("squash")):
        return False
    if one.get("squash"):
        return True
    # Without a framing all pictures have the size that the model sees, and are seen whole.
    stored = next((view["image_size"] for view in (one, other) if "resize" not in view), None)
    return bool(np.allclose(_shown(one, stored), _shown(other, stored), atol=_VIEW))


def _shown(view: Mapping[str, Any], stored: Sequence[int] | None) -> Floats:
    """Shares of a picture's height and width that are seen; of its short side where sizes vary."""
    if "resize" not in view:
        return np.asarray(view["image_size"], np.float64) / np.asarray(stored, np.float64)
    resized = np.asarray(view["resize"], np.float64)
    if stored is not None and resized.ndim == 0:
        resized = resized * np.asarray(stored) / min(stored)
    return np.asarray(view["size"], np.float64) / resized


def _framing(view: Mapping[str, Any]) -> str:
    height, width = view["image_size"]
    if view.get("squash"):
        return f"squashed to {height}×{width}"
    cut = f", cut from a picture resized to {view['resize']}" if "resize" in view else ""
    return f"{height}×{width}{cut}"


def _text(value: Any) -> str:
    """A value for a message."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value)) or "none"
    text = "none" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def same_targets(one: pd.DataFrame, other: pd.DataFrame) -> NDArray[np.bool_]:
    """Samples whose main map explains the same class in both runs."""
    targets = [rows["target"].fillna(-1).to_numpy(np.int64) for rows in (one, other)]
    return (targets[0] == targets[1]) & (targets[0] >= 0)
