"""Planted splits as Parquet in the Hub's layout, so that they are audited as any user's data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from audit.data.parquet import MASK_COLUMN
from audit.errors import AuditError
from audit.files import write_atomically

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_split(
    file: Path,
    images: Tensor,
    labels: Tensor,
    classes: tuple[str, ...],
    masks: Tensor | None = None,
) -> None:
    """Write images as a split that ``parquet:FILE`` opens.

    Args:
        file: Where to; its folder must exist.
        images: uint8, N×3×H×W; stored without loss.
        labels: int64, N.
        classes: Class names.
        masks: Object masks, N×H×W, above 0.5 where there is object; or ``None``.

    Example:
        >>> write_split(tmp / "t.parquet", torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        ...             torch.tensor([0, 1]), ("cat", "dog"))
        >>> from audit.data import open_split
        >>> open_split(f"parquet:{tmp}/t.parquet", "test", root=tmp).classes
        ('cat', 'dog')
    """
    pictures = images.permute(0, 2, 3, 1).numpy()[..., ::-1]
    columns = {
        "image": pa.array(
            [{"bytes": _png(picture), "path": None} for picture in pictures], type=_IMAGE
        ),
        "label": pa.array(labels.tolist(), type=pa.int64()),
    }
    features: dict[str, object] = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(classes)},
    }
    if masks is not None:
        drawn = (masks > 0.5).numpy().astype(np.uint8) * 255
        columns[MASK_COLUMN] = pa.array(
            [{"bytes": _png(mask), "path": None} for mask in drawn], type=_IMAGE
        )
        features[MASK_COLUMN] = {"_type": "Image"}
    said = json.dumps({"info": {"features": features}})
    table = pa.table(columns).replace_schema_metadata({"huggingface": said})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=1000)
    write_atomically(file, buffer.getvalue())


def _png(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture))
    if not done:
        raise AuditError("a picture cannot be encoded as PNG")
    return encoded.tobytes()
