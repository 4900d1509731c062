"""Pictures of the backgrounds that speak for a class, and of the channels that carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.language import Language
from audit.report.phrases import background_in
from audit.report.pictures.drawing import Drawing, drawn
from audit.report.pictures.grids import (
    SHOWN,
    Thumb,
    id_caption,
    label_caption,
    model_caption,
    safe_name,
)
from audit.report.pictures.rows import Row as SampleRow
from audit.report.pictures.rows import rows_by_index
from audit.report.pictures.style import Style
from audit.report.pictures.tiles import (
    BAD,
    Caption,
    Legend,
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
from audit.report.thumbs import UNKNOWN, picture, silhouette
from audit.report.wording import number, percent
from audit.tables.channels import unpack
from audit.tables.reading import enlarge_map

# Kinds of background of a class, and images of each.
KINDS, IMAGES = 4, 6
# Channels of a class, and images of each.
CHANNELS, STRONGEST = 3, 6

BACKGROUND, CHANNEL = "background", "background_channel"
_HIDDEN = np.uint8(128)
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
    style: Style | None = None,
) -> Iterator[tuple[str, bytes]]:
    """Draw the sheets from stored rows and thumbnails.

    Args:
        samples: All rows.
        thumbs: The rows of ``thumbs.parquet``.
        backgrounds: The rows of ``backgrounds.parquet``.
        channels: The rows of ``channels.parquet``.
        grid: h and w of the maps.
        style: Colours and language.

    Returns:
        Names and contents of PNG files.
    """
    return drawn(background_drawings(samples, thumbs, backgrounds, channels, grid, style))


def background_drawings(
    samples: pd.DataFrame,
    thumbs: pd.DataFrame,
    backgrounds: pd.DataFrame,
    channels: pd.DataFrame,
    grid: tuple[int, int],
    style: Style | None = None,
) -> Iterator[Drawing]:
    """The same sheets, still to be drawn; the arguments are as of :func:`background_sheets`."""
    shown = thumbs[thumbs["section"].isin((BACKGROUND, CHANNEL))]
    by_index = rows_by_index(samples, shown["index"])
    for section, sheet_of, table, file in (
        (BACKGROUND, _kinds_sheet, backgrounds, background_sheet),
        (CHANNEL, _channels_sheet, channels, background_channel_sheet),
    ):
        key = "label" if section == BACKGROUND else "target"
        for _, own in shown[shown["section"] == section].groupby("label"):
            label = int(own["label"].iloc[0])
            rows = table[table[key] == label]
            stored = _Stored(by_index, own.to_dict("records"), grid, style or Style())
            yield Drawing(
                names=(file(label, str(rows[f"{key}_name"].iloc[0])),),
                draw=partial(_alone, sheet_of, stored, rows),
            )


def _alone(
    sheet_of: Callable[[_Stored, pd.DataFrame], bytes], stored: _Stored, rows: pd.DataFrame
) -> Iterator[bytes]:
    yield sheet_of(stored, rows)


def background_sheet(label: int, name: str) -> str:
    """File name of the sheet of a class's backgrounds; any class name gives a safe one."""
    return f"background-{label:04d}-{safe_name(name)}.png"


def background_channel_sheet(label: int, name: str) -> str:
    """File name of the sheet of a class's background channels."""
    return f"background-channels-{label:04d}-{safe_name(name)}.png"


@dataclass(frozen=True)
class _Stored:
    """What the tiles of a sheet are drawn from, and how.

    Attributes:
        samples: The rows of those shown by index.
        thumbs: The rows of ``thumbs.parquet`` that belong to the sheet.
        grid: h and w of the maps.
        style: Colours and language.
    """

    samples: Mapping[int, SampleRow]
    thumbs: Sequence[Thumb]
    grid: tuple[int, int]
    style: Style

    def ranked(self, first: int, count: int) -> list[Thumb]:
        """The first thumbs of those with these ranks, as many as a row has room for."""
        own = [thumb for thumb in self.thumbs if first <= thumb["rank"] < first + count]
        return sorted(own, key=lambda thumb: int(thumb["rank"]))[:SHOWN]

    def under_map(self, image: Picture, values: NDArray[np.generic]) -> Picture:
        """A picture under a map."""
        heatmap = enlarge_map(values, self.grid, image.shape[:2])
        return fit(overlay(image, heatmap, self.style.colours))

    @property
    def given(self) -> bool:
        """Whether all masks came with the data."""
        return all(self.samples[t["index"]]["mask_source"] in _GIVEN for t in self.thumbs)


def _kinds_sheet(stored: _Stored, kinds: pd.DataFrame) -> bytes:
    language = stored.style.language
    label, name = int(kinds["label"].iloc[0]), kinds["label_name"].iloc[0]
    rows = []
    for kind in kinds.sort_values("cluster").to_dict("records"):
        own = stored.ranked(int(kind["cluster"]) * IMAGES, IMAGES)
        if own:
            tiles = [_background_tile(stored, thumb, label) for thumb in own]
            rows.append(Row(heading=_heading(kind, language), tiles=tiles))
    subtitle = language.text(
        "Kinds of background by what they add to the class; the most typical images of each"
    )
    if left := len(kinds) - len(rows):
        more = language.text("{n} more in {file}").format(n=left, file="backgrounds.parquet")
        subtitle += f" · {more}"
    legend = Legend(
        colours=stored.style.colours,
        low=language.text("no evidence for the class"),
        high=language.text("the strongest in this image"),
        note=language.text("On the left the object is grey.")
        if stored.given
        else language.text("On the left the object is grey, as estimated."),
    )
    title = language.text("Backgrounds of class: {name}").format(name=name)
    return sheet(title, subtitle, rows, legend, language)


def _heading(kind: dict[Any, Any], language: Language) -> str:
    parts = [
        language.text("Kind {number}").format(number=int(kind["cluster"]) + 1),
        language.text("{share} of the class's images ({n})").format(
            share=percent(kind["share"]), n=f"{int(kind['n']):,}"
        ),
        language.text("adds {number} logits").format(number=number(kind["far_logit"])),
        language.text("accuracy {share}").format(share=percent(kind["accuracy"])),
    ]
    if pd.notna(kind["accuracy_outside"]):
        outside = language.text("of the other kinds {share}")
        parts.append(outside.format(share=percent(kind["accuracy_outside"])))
    if described := background_in(language, kind["description"]):
        parts.append(described)
    return " · ".join(parts)


def _background_tile(stored: _Stored, thumb: Thumb, label: int) -> Tile:
    sample, language = stored.samples[thumb["index"]], stored.style.language
    image, inside, unknown = _opened(thumb)
    hidden = np.where(inside[..., None] > 0, _HIDDEN, fit(image)).astype(np.uint8)
    # The second map of a wrong prediction explains the label.
    own = "" if sample["target"] == label else "alt_"
    adds = language.text("far background adds {number}")
    return Tile(
        pictures=[
            outline(veil(hidden, unknown), inside),
            outline(stored.under_map(image, sample[f"{own}map"]), inside),
        ],
        captions=[
            model_caption(sample, language),
            Caption(text=adds.format(number=number(sample[f"{own}far_logit"]))),
            id_caption(sample),
        ],
    )


def _channels_sheet(stored: _Stored, channels: pd.DataFrame) -> bytes:
    language = stored.style.language
    label, name = int(channels["target"].iloc[0]), channels["target_name"].iloc[0]
    by_channel = channels.set_index("channel")
    rows = []
    for order, channel in enumerate(strongest_channels(channels, label)):
        figures = by_channel.loc[channel]
        heading = language.text(
            "Channel {channel} · on average {far} logits from far background, {object} from the "
            "object"
        ).format(
            channel=channel,
            far=number(figures["far_logit"]),
            object=number(figures["object_logit"]),
        )
        own = stored.ranked(order * STRONGEST, STRONGEST)
        rows.append(
            Row(heading=heading, tiles=[_channel_tile(stored, thumb, channel) for thumb in own])
        )
    legend = Legend(
        colours=stored.style.colours,
        low=language.text("silent, or no evidence for the class"),
        high=language.text("the strongest in this image"),
        note=language.text("White line: the object.")
        if stored.given
        else language.text("White line: the object, as estimated."),
    )
    return sheet(
        language.text("Background channels of class: {name}").format(name=name),
        language.text(
            "Channels that add most to the class from far background; the images where they do"
        ),
        rows,
        legend,
        language,
    )


def _channel_tile(stored: _Stored, thumb: Thumb, channel: int) -> Tile:
    sample, language = stored.samples[thumb["index"]], stored.style.language
    image, inside, unknown = _opened(thumb)
    active = list(sample["top_channels"])
    if channel in active:
        maps = np.asarray(sample["channel_maps"], np.float32).reshape(len(active), -1)
        values, what = maps[active.index(channel)], language.text("right: the channel's map")
    else:
        values, what = sample["map"], language.text("right: map of all channels")
    logits = np.asarray(sample["channel_logits"])
    far = logits[2 * len(logits) // 3 + channel]
    supplied = number(np.float32(far) * np.float32(sample["channel_logits_scale"]))
    return Tile(
        pictures=[
            outline(veil(fit(image), unknown), inside),
            outline(stored.under_map(image, values), inside),
        ],
        captions=[
            Caption(text=language.text("adds {number} from far").format(number=supplied)),
            Caption(text=what),
            *_answer(sample, language),
            id_caption(sample),
        ],
    )


def _opened(thumb: Thumb) -> tuple[Picture, Picture, Picture]:
    """The picture, and at the tile's size what is object and what unknown."""
    mask = silhouette(thumb["mask"])
    return picture(thumb["image"]), enlarged(mask == 255), enlarged(mask == UNKNOWN)


def _answer(sample: SampleRow, language: Language) -> list[Caption]:
    """The prediction, and the label where that is another."""
    shown = [model_caption(sample, language)]
    if shown[0].colour == BAD:
        shown.append(label_caption(sample, language, BAD))
    return shown
