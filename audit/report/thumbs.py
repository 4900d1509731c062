"""``thumbs.parquet``: the pictures and masks of the samples that the report shows."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.rows import Column

# In stored masks, between background and object.
UNKNOWN = 128

THUMB_COLUMNS: tuple[Column, ...] = (
    Column(name="section", type=pa.string(),
           range="worst, median, best, random, right_for_the_wrong_reason, wrong_but_confident, "
           "least_trusted_masks, most_trusted_masks, background, background_channel",
           meaning="Which grid the sample stands in."),
    Column(name="label", type=pa.int32(), range="[0, K), or −1",
           meaning="The grid's class; −1 for grids of the whole split."),
    Column(name="rank", type=pa.int32(), range="≥ 0", meaning="Place in the grid."),
    Column(name="index", type=pa.int64(), range="≥ 0", meaning="Position in the split."),
    Column(name="sample_id", type=pa.string(), range="as in samples", meaning="The sample."),
    Column(name="image", type=pa.binary(), range="PNG",
           meaning="The image as the model sees it, before normalisation."),
    Column(name="mask", type=pa.binary(), range="PNG; 255 = object, 128 = unknown",
           meaning="The object mask."),
)  # fmt: skip


def build_thumbs(
    chosen: pd.DataFrame,
    images: dict[int, NDArray[np.uint8]],
    masks: dict[int, NDArray[np.uint8]],
    sample_ids: dict[int, str],
) -> pa.Table:
    """The table of chosen samples.

    Args:
        chosen: From :func:`audit.report.selection.choose_samples`.
        images: RGB, H×W×3, by index.
        masks: 0 or 255, H×W, by index.
        sample_ids: By index.

    Returns:
        A table with :data:`THUMB_COLUMNS`.
    """
    rows = [
        entry
        | {
            "sample_id": sample_ids[entry["index"]],
            "image": _png(cv2.cvtColor(images[entry["index"]], cv2.COLOR_RGB2BGR)),
            "mask": _png(masks[entry["index"]]),
        }
        for entry in chosen.to_dict("records")
    ]
    return pa.Table.from_pylist(rows, pa.schema([(c.name, c.type) for c in THUMB_COLUMNS]))


def picture(content: bytes) -> NDArray[np.uint8]:
    """A stored image as RGB, H×W×3."""
    decoded = cv2.cvtColor(_decoded(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return decoded.astype(np.uint8, copy=False)


def silhouette(content: bytes) -> NDArray[np.uint8]:
    """A stored mask, H×W, 255 = object."""
    return _decoded(content, cv2.IMREAD_GRAYSCALE)


def _decoded(content: bytes, flags: int) -> NDArray[np.uint8]:
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    assert decoded is not None
    return decoded.astype(np.uint8, copy=False)


def _png(image: NDArray[Any]) -> bytes:
    done, content = cv2.imencode(".png", image)
    assert done
    return content.tobytes()
