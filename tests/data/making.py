"""Tiny datasets on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(seed: int, size: tuple[int, int] = (32, 32)) -> bytes:
    """A random picture; size is width and height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def hub_parquet(path: Path, images: list[bytes], labels: list[int], names: list[str]) -> None:
    """A file in the Hub's layout."""
    features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {"img": {"bytes": image, "path": None}, "label": label}
        for image, label in zip(images, labels, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def image_folder(
    root: Path, classes: dict[str, int], *, masks: Path | None = None, size: int = 32
) -> None:
    """So many pictures a class, and a centred square as mask of each."""
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            (root / name / f"{n:03d}.png").write_bytes(png(100 * number + n, (size, size)))
            if masks is not None:
                (masks / name).mkdir(parents=True, exist_ok=True)
                mask = np.zeros((size, size), np.uint8)
                mask[size // 4 : size // 2, size // 4 : -size // 4] = 255
                Image.fromarray(mask).save(masks / name / f"{n:03d}.png")
