"""``thumbs.parquet``: the pictures and masks of the samples that the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, schema_of

# In stored masks, between background and object.
UNKNOWN = 128
# Sections of samples that are flagged, and of samples that somebody asked for.
FLAGGED, CHOSEN = "flagged", "chosen"
# Pictures up to this side are stored as they are; larger ones lose detail that no tile shows.
EXACT_SIDE = 96
LARGEST_SIDE = 224
# Of WebP at this quality files are a sixth smaller, and take forty times as long.
_QUALITY = 85
# What pictures of flagged samples may take; the most telling come first.
FLAGGED_BYTES = 16 * 2**20

THUMB_COLUMNS: tuple[Column, ...] = (
    Column(name="section", type=pa.string(),
           range="worst, median, best, random, right_for_the_wrong_reason, wrong_but_confident, "
           "least_trusted_masks, most_trusted_masks, background, background_channel, flagged, "
           "chosen",
           meaning="Which grid, or which part of the page, the sample stands in. Flagged are those "
           "of the gallery; chosen are those that audit report --sample asked for."),
    Column(name="label", type=pa.int32(), range="[0, K), or −1",
           meaning="The grid's class; −1 for grids of the whole split."),
    Column(name="rank", type=pa.int32(), range="≥ 0", meaning="Place in the grid."),
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(name="sample_id", type=pa.string(), range="as in samples", meaning="The sample."),
    Column(name="image", type=pa.binary(), range="PNG or JPEG",
           meaning="The image as the model sees it, before normalisation: PNG up to "
           f"{EXACT_SIDE} pixels a side; larger ones as JPEG of quality {_QUALITY}, and of at most "
           f"{LARGEST_SIDE} pixels a side."),
    Column(name="mask", type=pa.binary(), range="PNG; 255 = object, 128 = unknown",
           meaning="The object mask, of the stored image's size."),
)  # fmt: skip


def build_thumbs(
    chosen: pd.DataFrame,
    images: Mapping[int, bytes],
    masks: Mapping[int, bytes],
    sample_ids: Mapping[int, str],
) -> pa.Table:
    """The table of chosen samples.

    Args:
        chosen: From :func:`audit.report.selection.choose_samples` and its like.
        images: As :func:`encode_picture` gives them, by index.
        masks: As :func:`encode_mask` gives them, by index.
        sample_ids: By index.

    Returns:
        A table with :data:`THUMB_COLUMNS`. Flagged samples past :data:`FLAGGED_BYTES` are left out.
    """
    ordered = [*chosen["index"].astype(int)]
    kept = chosen[_fit(chosen, np.array([len(images[index]) for index in ordered]))]
    columns = {
        **{name: kept[name] for name in ("section", "label", "rank", "index")},
        "sample_id": kept["index"].map(sample_ids.__getitem__),
        "image": kept["index"].map(images.__getitem__),
        "mask": kept["index"].map(masks.__getitem__),
    }
    arrays = [pa.array(columns[c.name].tolist(), c.type) for c in THUMB_COLUMNS]
    return pa.Table.from_arrays(arrays, schema=schema_of(THUMB_COLUMNS))


def _fit(chosen: pd.DataFrame, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows to keep: all but the flagged ones that are too much."""
    flagged = (chosen["section"] == FLAGGED).to_numpy()
    order = np.flatnonzero(flagged)[np.argsort(chosen["rank"].to_numpy()[flagged], kind="stable")]
    kept = ~flagged
    kept[order] = np.cumsum(sizes[order]) <= FLAGGED_BYTES
    return kept


def encode_picture(image: NDArray[np.uint8], side: int = LARGEST_SIDE) -> bytes:
    """A picture as it is stored.

    Args:
        image: RGB, H×W×3.
        side: Longer sides are reduced to this one.

    Returns:
        PNG up to :data:`EXACT_SIDE` pixels a side, else JPEG.

    Example:
        >>> picture(encode_picture(np.full((2, 3, 3), 9, np.uint8))).shape
        (2, 3, 3)
    """
    reduced = _reduced(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), side, cv2.INTER_AREA)
    if max(reduced.shape) <= EXACT_SIDE:
        return _encoded(".png", reduced)
    return _encoded(".jpg", reduced, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """A mask as it is stored.

    Args:
        mask: H×W: 255 = object, 128 = unknown, 0 = background.
    """
    return _encoded(".png", _reduced(mask, LARGEST_SIDE, cv2.INTER_NEAREST))


def picture(content: bytes) -> NDArray[np.uint8]:
    """A stored image as RGB, H×W×3."""
    decoded = cv2.cvtColor(_decoded(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return decoded.astype(np.uint8, copy=False)


def silhouette(content: bytes) -> NDArray[np.uint8]:
    """A stored mask, H×W, 255 = object."""
    return _decoded(content, cv2.IMREAD_GRAYSCALE)


def _reduced(image: NDArray[Any], side: int, interpolation: int) -> NDArray[Any]:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=interpolation)


def _decoded(content: bytes, flags: int) -> NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


def _encoded(kind: str, image: NDArray[Any], settings: list[int] | None = None) -> bytes:
    done, content = cv2.imencode(kind, image, settings or [])
    assert done
    return content.tobytes()
