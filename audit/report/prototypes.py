"""Pictures of the backgrounds that speak for a class, and of the channels that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.grids import safe_name
from audit.report.thumbs import UNKNOWN, picture, silhouette
from audit.report.tiles import (
    BAD,
    FAINT,
    GOOD,
    Caption,
    Picture,
    Row,
    Tile,
    enlarged,
    fit,
    outline,
    overlay,
    sheet,
    veil,
)
from audit.report.wording import number, percent
from audit.tables.channels import unpack
from audit.tables.reading import enlarge_map

# Kinds of background of a class, and images of each.
KINDS, IMAGES = 4, 6
# Channels of a class, and images of each.
CHANNELS, STRONGEST = 3, 6

BACKGROUND, CHANNEL = "background", "background_channel"
_HIDDEN = np.uint8(128)
_LEGEND = "on the left the object is grey{} · blue: no evidence for the class · red: the strongest"
_CHANNEL_LEGEND = (
    "blue: silent, or no evidence for the class · red: the strongest · white line: the object{}"
)
_GIVEN = ("dataset", "box")


def choose_backgrounds(
    samples: pd.DataFrame,
    backgrounds: pd.DataFrame,
    channels: pd.DataFrame,
    shown: Iterable[int],
) -> pd.DataFrame:
    """Choose the samples that show what the backgrounds of a class look like.

    Args:
        samples: All rows.
        backgrounds: The rows of ``backgrounds.parquet``.
        channels: The rows of ``channels.parquet``.
        shown: The classes that get pictures.

    Returns:
        One row a picture, as :func:`audit.report.selection.choose_samples` gives them: the
        prototypes of a kind have ranks from kind × 6 on, the images where the class's strongest
        background channels supply most from rank × 6 on.
    """
    place = pd.Series(np.arange(len(samples)), samples["sample_id"])
    chosen: list[tuple[str, int, int, int]] = []
    for label in sorted(set(shown)):
        kinds = backgrounds[(backgrounds["label"] == label) & (backgrounds["cluster"] < KINDS)]
        for kind, names in zip(kinds["cluster"], kinds["prototypes"], strict=True):
            for rank, row in enumerate(place[list(names)[:IMAGES]]):
                chosen.append((BACKGROUND, label, int(kind) * IMAGES + rank, row))
        strongest = strongest_channels(channels, label)
        for order, rows in enumerate(_where_strongest(samples, label, strongest)):
            for rank, row in enumerate(rows):
                chosen.append((CHANNEL, label, order * STRONGEST + rank, row))
    frame = pd.DataFrame(chosen, columns=["section", "label", "rank", "place"])
    frame["index"] = samples["index"].to_numpy()[frame.pop("place").to_numpy(np.int64)]
    return frame


def strongest_channels(channels: pd.DataFrame, label: int) -> list[int]:
    """The channels that supply most to a class from far background, strongest first."""
    own = channels[(channels["target"] == label) & (channels["far_logit"] > 0)]
    return [int(c) for c in own.sort_values("background_rank")["channel"][:CHANNELS]]


def _where_strongest(
    samples: pd.DataFrame, label: int, channels: list[int]
) -> list[NDArray[np.int64]]:
    """For each channel the places of the samples whose class it feeds most from far background."""
    explained = (samples["target"] == label).fillna(False).to_numpy(bool)
    place, logits = unpack(samples, "channel_logits", explained)
    far = logits[:, 2 * logits.shape[1] // 3 :]
    return [place[np.argsort(-far[:, channel], kind="stable")[:STRONGEST]] for channel in channels]


def background_sheets(
    samples: pd.DataFrame,
    thumbs: pd.DataFrame,
    backgrounds: pd.DataFrame,
    channels: pd.DataFrame,
    grid: tuple[int, int],
) -> Iterator[tuple[str, bytes]]:
    """Draw the sheets from stored rows and thumbnails.

    Args:
        samples: All rows.
        thumbs: The rows of ``thumbs.parquet``.
        backgrounds: The rows of ``backgrounds.parquet``.
        channels: The rows of ``channels.parquet``.
        grid: h and w of the maps.

    Yields:
        Names and contents of PNG files.
    """
    by_index = samples.set_index("index")
    for section, draw, table in (
        (BACKGROUND, _kinds_sheet, backgrounds),
        (CHANNEL, _channels_sheet, channels),
    ):
        for _, own in thumbs[thumbs["section"] == section].groupby("label"):
            label = int(own["label"].iloc[0])
            key = "label" if section == BACKGROUND else "target"
            rows = table[table[key] == label]
            name = str(rows[f"{key}_name"].iloc[0])
            file = background_sheet if section == BACKGROUND else background_channel_sheet
            yield file(label, name), draw(by_index, own, rows, grid)


def background_sheet(label: int, name: str) -> str:
    """File name of the sheet of a class's backgrounds; any class name gives a safe one."""
    return f"background-{label:04d}-{safe_name(name)}.png"


def background_channel_sheet(label: int, name: str) -> str:
    """File name of the sheet of a class's background channels."""
    return f"background-channels-{label:04d}-{safe_name(name)}.png"


def _kinds_sheet(
    samples: pd.DataFrame, thumbs: pd.DataFrame, kinds: pd.DataFrame, grid: tuple[int, int]
) -> bytes:
    label, name = int(kinds["label"].iloc[0]), kinds["label_name"].iloc[0]
    rows = []
    for kind in kinds.sort_values("cluster").to_dict("records"):
        first = int(kind["cluster"]) * IMAGES
        own = thumbs[thumbs["rank"].between(first, first + IMAGES - 1)].sort_values("rank")
        if len(own):
            tiles = [_background_tile(samples, thumb, label, grid) for _, thumb in own.iterrows()]
            rows.append(Row(heading=_heading(kind), tiles=tiles))
    left = len(kinds) - len(rows)
    subtitle = "Kinds of background by what they add to the class; the most typical images of each"
    if left:
        subtitle += f" · {left} more in backgrounds.parquet"
    legend = _LEGEND.format(_as_estimated(samples, thumbs))
    return sheet(f"Backgrounds of class: {name}", subtitle, rows, legend)


def _heading(kind: dict[Any, Any]) -> str:
    parts = [
        f"Kind {int(kind['cluster']) + 1}",
        f"{percent(kind['share'])} of the class's images ({int(kind['n']):,})",
        f"adds {number(kind['far_logit'])} logits",
        f"accuracy {percent(kind['accuracy'])}",
    ]
    if pd.notna(kind["accuracy_outside"]):
        parts.append(f"of the other kinds {percent(kind['accuracy_outside'])}")
    if pd.notna(kind["description"]):
        parts.append(str(kind["description"]))
    return " · ".join(parts)


def _background_tile(
    samples: pd.DataFrame, thumb: pd.Series, label: int, grid: tuple[int, int]
) -> Tile:
    sample = samples.loc[thumb["index"]]
    image, inside, unknown = _opened(thumb)
    hidden = np.where(inside[..., None] > 0, _HIDDEN, fit(image)).astype(np.uint8)
    # The second map of a wrong prediction explains the label.
    own = "" if sample["target"] == label else "alt_"
    return Tile(
        pictures=[
            outline(veil(hidden, unknown), inside),
            outline(_under_map(image, sample[f"{own}map"], grid), inside),
        ],
        captions=[
            _prediction(sample),
            Caption(text=f"far background adds {number(sample[f'{own}far_logit'])} logits"),
            Caption(text=str(sample["sample_id"]), colour=FAINT),
        ],
    )


def _channels_sheet(
    samples: pd.DataFrame, thumbs: pd.DataFrame, channels: pd.DataFrame, grid: tuple[int, int]
) -> bytes:
    label, name = int(channels["target"].iloc[0]), channels["target_name"].iloc[0]
    by_channel = channels.set_index("channel")
    rows = []
    for order, channel in enumerate(strongest_channels(channels, label)):
        first = order * STRONGEST
        own = thumbs[thumbs["rank"].between(first, first + STRONGEST - 1)].sort_values("rank")
        figures = by_channel.loc[channel]
        heading = (
            f"Channel {channel} · on average {number(figures['far_logit'])} logits from far "
            f"background, {number(figures['object_logit'])} from the object"
        )
        tiles = [_channel_tile(samples, thumb, channel, grid) for _, thumb in own.iterrows()]
        rows.append(Row(heading=heading, tiles=tiles))
    return sheet(
        f"Background channels of class: {name}",
        "Channels that add most to the class from far background; the images where they do",
        rows,
        _CHANNEL_LEGEND.format(_as_estimated(samples, thumbs)),
    )


def _channel_tile(
    samples: pd.DataFrame, thumb: pd.Series, channel: int, grid: tuple[int, int]
) -> Tile:
    sample = samples.loc[thumb["index"]]
    image, inside, unknown = _opened(thumb)
    active = list(sample["top_channels"])
    if channel in active:
        maps = np.asarray(sample["channel_maps"], np.float32).reshape(len(active), -1)
        values, what = maps[active.index(channel)], "right: the channel's map"
    else:
        values, what = sample["map"], "right: heatmap of all channels"
    _, logits = unpack(sample.to_frame().T, "channel_logits", np.ones(1, bool))
    supplied = logits[0, 2 * logits.shape[1] // 3 + channel]
    return Tile(
        pictures=[
            outline(veil(fit(image), unknown), inside),
            outline(_under_map(image, values, grid), inside),
        ],
        captions=[
            Caption(text=f"adds {number(supplied)} logits from far"),
            Caption(text=what),
            *_answer(sample),
            Caption(text=str(sample["sample_id"]), colour=FAINT),
        ],
    )


def _as_estimated(samples: pd.DataFrame, thumbs: pd.DataFrame) -> str:
    given = samples.loc[thumbs["index"], "mask_source"].isin(_GIVEN).all()
    return "" if given else " (as estimated)"


def _opened(thumb: pd.Series) -> tuple[Picture, Picture, Picture]:
    """The picture, and at the tile's size what is object and what unknown."""
    mask = silhouette(thumb["mask"])
    return picture(thumb["image"]), enlarged(mask == 255), enlarged(mask == UNKNOWN)


def _under_map(image: Picture, values: NDArray[np.generic], grid: tuple[int, int]) -> Picture:
    return fit(overlay(image, enlarge_map(values, grid, image.shape[:2])))


def _answer(sample: pd.Series) -> list[Caption]:
    """The prediction, and the label where that is another."""
    shown = [_prediction(sample)]
    if shown[0].colour == BAD:
        shown.append(Caption(text=f"label: {sample['label_name']}", colour=BAD))
    return shown


def _prediction(sample: pd.Series) -> Caption:
    text = f"model: {sample['predicted_name']} {percent(sample['confidence'])}"
    if pd.isna(sample["correct"]):
        return Caption(text=text)
    return Caption(text=text, colour=GOOD if sample["correct"] else BAD)
