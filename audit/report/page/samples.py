"""The samples that a page shows, column by column, with their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.page.outlines import outline_path
from audit.report.page.plain import column, data_uri, encoded_map
from audit.report.thumbs import FLAGGED, UNKNOWN, encode_picture, picture, silhouette

# The side of pictures on a page that has no room for larger ones.
SMALL = 112
_NUMBERS = (
    "confidence", "background_share", "transplant_rate", "object_logit", "near_logit", "far_logit",
    "mask_confidence", "object_area",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Which samples a page shows; their order there is their number ``s``.

    Attributes:
        index: Positions in the split.
        number: The number by position in the split.
    """

    index: NDArray[np.int64]
    number: Mapping[int, int]

    @classmethod
    def of(cls, thumbs: pd.DataFrame) -> Shown:
        """All that have a picture: flagged ones first, the most telling first."""
        flagged = thumbs["section"] == FLAGGED
        order = np.concatenate(
            [
                thumbs[flagged].sort_values("rank")["index"].to_numpy(np.int64),
                np.sort(thumbs.loc[~flagged, "index"].to_numpy(np.int64)),
            ]
        )
        _, first = np.unique(order, return_index=True)
        index = order[np.sort(first)]
        return cls(index=index, number={int(place): s for s, place in enumerate(index)})

    def numbers(self, index: Iterable[Any]) -> list[int]:
        """Numbers of samples by their positions; those that are not shown are left out."""
        return [self.number[place] for place in map(int, index) if place in self.number]


class Budget:
    """Counts characters of pictures; the page has room for so many.

    Args:
        room: Characters.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.taken = 0

    @property
    def left(self) -> int:
        """Characters that are left."""
        return self._room - self.taken

    def take(self, picture: str) -> str | None:
        """The picture, or ``None`` where it does not fit any more."""
        if len(picture) > self.left:
            return None
        self.taken += len(picture)
        return picture


def sample_columns(
    samples: pd.DataFrame,
    thumbs: pd.DataFrame,
    shown: Shown,
    bits: NDArray[np.int64],
    *,
    grid: tuple[int, int],
    image_size: tuple[int, int],
) -> dict[str, list[Any]]:
    """The columns of the page's samples, without their pictures.

    Args:
        samples: All rows.
        thumbs: The rows of ``thumbs.parquet``.
        shown: Which of the samples, and their order.
        bits: Flags of all samples, as :meth:`audit.report.gallery.Flags.bits` gives them.
        grid: h and w of the maps.
        image_size: H and W.

    Returns:
        Lists of equal length.
    """
    place = np.searchsorted(samples["index"].to_numpy(np.int64), shown.index)
    rows = samples.iloc[place]
    masks = thumbs.drop_duplicates("index").set_index("index")["mask"].reindex(shown.index)
    borders = [borders_of(mask, image_size) for mask in masks]
    return {
        "id": column(rows["sample_id"]),
        "index": shown.index.tolist(),
        "label": column(rows["label"]),
        "predicted": column(rows["predicted"]),
        "p_label": column(rows["label_probability"]),
        "reason": column(rows["reason"].astype(object)),
        "flags": bits[place].tolist(),
        **{name: column(rows[name]) for name in _NUMBERS},
        "status": column(rows["status"].astype(object)),
        "map": [encoded_map(values, grid) for values in rows["map"]],
        "outline": [outline for outline, _ in borders],
        "unknown": [unknown for _, unknown in borders],
    }


def borders_of(mask: bytes, image_size: tuple[int, int]) -> tuple[str | None, str | None]:
    """Paths around the object, and around what is neither known as object nor as background.

    Args:
        mask: As it is stored.
        image_size: H and W of the picture in whose coordinates the paths are.
    """
    levels = silhouette(mask)
    return (
        outline_path(levels == 255, image_size),
        outline_path(levels == UNKNOWN, image_size),
    )


def place_pictures(
    thumbs: pd.DataFrame,
    shown: Shown,
    budget: Budget,
    first: Sequence[Iterable[int]],
    image_size: tuple[int, int],
) -> list[str | None]:
    """The pictures of the samples, as many as there is room for.

    Args:
        thumbs: The rows of ``thumbs.parquet``.
        shown: Which of the samples, and their order.
        budget: What the pictures may take.
        first: Positions in the split of samples whose pictures come before all others, group by
            group.
        image_size: H and W.

    Returns:
        Addresses of images by the samples' numbers; ``None`` where there was no room.
    """
    contents = thumbs.drop_duplicates("index").set_index("index")["image"].reindex(shown.index)
    pictures = [data_uri(content) for content in contents]
    if max(image_size) > SMALL and sum(map(len, pictures)) > budget.left:
        # Smaller ones for all rather than none for many.
        pictures = [data_uri(encode_picture(picture(content), SMALL)) for content in contents]
    urgent = [s for group in first for s in shown.numbers(group)]
    found: list[str | None] = [None] * len(pictures)
    for s in dict.fromkeys([*urgent, *range(len(pictures))]):
        found[s] = budget.take(pictures[s])
    return found
