"""The contact sheets of a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from audit.report.language import Language
from audit.report.pictures.drawing import Drawing, drawn
from audit.report.pictures.rows import Row as SampleRow
from audit.report.pictures.rows import is_known, rows_by_index
from audit.report.pictures.style import Style
from audit.report.pictures.tiles import (
    BAD,
    FAINT,
    GOOD,
    INK,
    Caption,
    Legend,
    Row,
    Tile,
    enlarged,
    fit,
    outline,
    overlay,
    sheet,
    veil,
)
from audit.report.selection import CLASS_SECTIONS, SPLIT_SECTIONS
from audit.report.thumbs import UNKNOWN, picture, silhouette
from audit.report.wording import percent
from audit.tables.reading import enlarge_map

# A row of ``thumbs.parquet``.
Thumb = dict[Any, Any]
# Tiles of a section of a class's sheet; of the whole split's sheets.
SHOWN, MOST_SHOWN = 3, 12


def headings(language: Language) -> dict[str, str]:
    """What each section of pictures is called."""
    return {
        "worst": language.text("Most of the evidence on background"),
        "median": language.text("Typical"),
        "best": language.text("Most of the evidence on the object"),
        "random": language.text("Drawn at random"),
        "right_for_the_wrong_reason": language.text("Right for the wrong reason, by feature space"),
        "wrong_but_confident": language.text("Wrong but confident"),
        "least_trusted_masks": language.text("Object masks of the least confidence"),
        "most_trusted_masks": language.text("Object masks of the most confidence"),
    }


def split_meanings(language: Language) -> dict[str, str]:
    """What each section of pictures of the whole split shows."""
    return {
        "right_for_the_wrong_reason": language.text(
            "Correct predictions whose background points to the label and whose object points "
            "elsewhere, by contributions in feature space: a hint, not tested in pixels"
        ),
        "wrong_but_confident": language.text("Wrong predictions with the highest probability"),
        "least_trusted_masks": language.text(
            "The white line is an estimate; here it is most likely wrong"
        ),
        "most_trusted_masks": language.text(
            "The white line is an estimate; here it is most likely right"
        ),
    }


def remove_others(folder: Path, names: Sequence[str]) -> None:
    """Remove the sheets of an earlier report that this one does not have.

    Args:
        folder: Where sheets are.
        names: Of the files that stay.
    """
    for stale in {file.name for file in folder.glob("*.png")} - set(names):
        (folder / stale).unlink()


class Grids:
    """Draws contact sheets from stored rows and thumbnails.

    Args:
        samples: All rows.
        thumbs: The rows of ``thumbs.parquet``.
        classes: The rows of ``classes.parquet``.
        grid: h and w of the maps.
        style: Colours and language.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        thumbs: pd.DataFrame,
        classes: pd.DataFrame,
        grid: tuple[int, int],
        style: Style | None = None,
    ) -> None:
        self._style = style or Style()
        own = thumbs[thumbs["section"].isin((*CLASS_SECTIONS, *SPLIT_SECTIONS))]
        self._samples = rows_by_index(samples, own["index"])
        self._thumbs = own
        self._classes = classes.set_index("label")
        self._grid = grid

    def sheets(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of all sheets."""
        return drawn(self.drawings())

    def drawings(self) -> Iterator[Drawing]:
        """All sheets, still to be drawn; the two of a class share tiles."""
        for label, thumbs in self._by("label", CLASS_SECTIONS):
            name = self._name(label)
            yield Drawing(
                names=(class_sheet(label, name), channel_sheet(label, name)),
                draw=partial(self._of_class, label, thumbs),
            )
        for section, thumbs in self._by("section", SPLIT_SECTIONS):
            yield Drawing(
                names=(f"{section}.png",),
                draw=partial(self._of_split, section, thumbs),
            )

    def _by(self, key: str, sections: Sequence[str]) -> Iterator[tuple[Any, list[Thumb]]]:
        thumbs = self._thumbs[self._thumbs["section"].isin(sections)]
        for name, own in thumbs.groupby(key):
            yield name, own.to_dict("records")

    def _of_class(self, label: int, thumbs: list[Thumb]) -> Iterator[bytes]:
        by_index = {thumb["index"]: thumb for thumb in thumbs}

        @cache
        def tile(index: int) -> Tile:
            return self._tile(by_index[index])

        yield self._class_sheet(label, thumbs, tile)
        yield self._channels(label, thumbs, tile)

    def _of_split(self, section: str, thumbs: list[Thumb]) -> Iterator[bytes]:
        yield self._split_sheet(section, thumbs)

    def _name(self, label: int) -> str:
        return str(self._classes.loc[label, "label_name"])

    def _class_sheet(self, label: int, thumbs: list[Thumb], tile: Callable[[int], Tile]) -> bytes:
        language, summary = self._style.language, self._classes.loc[label]
        subtitle = language.text(
            "{n} images · accuracy {accuracy} · background share {background_share} · "
            "transplant rate {transplant_rate}"
        ).format(
            n=f"{summary['n']:,}",
            accuracy=percent(summary["accuracy"]),
            background_share=percent(summary["background_share"]),
            transplant_rate=percent(summary["transplant_rate"]),
        )
        rows = [
            Row(
                heading=headings(language)[section],
                tiles=[tile(t["index"]) for t in _shown(_in_order(thumbs, section), section)],
            )
            for section in CLASS_SECTIONS
        ]
        title = language.text("Class: {name}").format(name=self._name(label))
        return sheet(title, subtitle, rows, self._legend(), language)

    def _split_sheet(self, section: str, thumbs: list[Thumb]) -> bytes:
        language = self._style.language
        order = {
            "least_trusted_masks": language.text("The least confident first"),
            "most_trusted_masks": language.text("The most confident first"),
        }.get(section, language.text("The most confident first"))
        tiles = [self._tile(thumb) for thumb in _in_order(thumbs, section)[:MOST_SHOWN]]
        return sheet(
            headings(language)[section],
            split_meanings(language)[section],
            [Row(heading=order, tiles=tiles)],
            self._legend(),
            language,
        )

    def _legend(self) -> Legend:
        language = self._style.language
        return Legend(
            colours=self._style.colours,
            low=language.text("no evidence for the explained class"),
            high=language.text("the strongest in this image"),
            note=language.text(
                "White line: the object mask. Grey stripes: unknown. In brackets: with the line "
                "moved by a cell."
            ),
        )

    def _tile(self, thumb: Thumb) -> Tile:
        language, sample = self._style.language, self._samples[thumb["index"]]
        image = picture(thumb["image"])
        mask = silhouette(thumb["mask"])
        inside, unknown = enlarged(mask == 255), enlarged(mask == UNKNOWN)
        heatmap = enlarge_map(sample["map"], self._grid, image.shape[:2])
        return Tile(
            pictures=[
                outline(veil(fit(image), unknown), inside),
                outline(fit(overlay(image, heatmap, self._style.colours)), inside),
            ],
            captions=[
                label_caption(sample, language),
                model_caption(sample, language),
                Caption(
                    text=language.text("background"), value=_with_range(sample, "background_share")
                ),
                _mask_caption(sample, language),
                id_caption(sample),
            ],
        )

    def _channels(self, label: int, thumbs: list[Thumb], tile: Callable[[int], Tile]) -> bytes:
        language = self._style.language
        firsts = [_in_order(thumbs, section)[:1] for section in CLASS_SECTIONS]
        rows = [
            Row(
                heading=headings(language)[str(thumb["section"])],
                tiles=[tile(thumb["index"]), *self._channel_tiles(thumb)],
            )
            for first in firsts
            for thumb in first
        ]
        title = language.text("Class: {name}, most active channels")
        return sheet(
            title.format(name=self._name(label)),
            language.text(
                "What the strongest channels of the target layer respond to, whatever the class"
            ),
            rows,
            Legend(
                colours=self._style.colours,
                low=language.text("the channel is silent"),
                high=language.text("its strongest response in this image"),
                note=language.text(
                    "First in each row: the image with the object mask, and its heatmap."
                ),
            ),
            language,
        )

    def _channel_tiles(self, thumb: Thumb) -> list[Tile]:
        sample = self._samples[thumb["index"]]
        image = picture(thumb["image"])
        numbers = sample["top_channels"]
        maps = np.asarray(sample["channel_maps"], np.float32).reshape(len(numbers), -1)
        tiles = []
        for number, values in zip(numbers, maps, strict=True):
            response = enlarge_map(values, self._grid, image.shape[:2])
            caption = self._style.language.text("channel {number}").format(number=number)
            tiles.append(
                Tile(
                    pictures=[fit(overlay(image, response, self._style.colours))],
                    captions=[Caption(text=caption)],
                )
            )
        return tiles


def label_caption(sample: SampleRow, language: Language, colour: str = INK) -> Caption:
    """The labelled class."""
    name = sample["label_name"] if is_known(sample["label_name"]) else "–"
    return Caption(text=language.text("label: {name}").format(name=name), colour=colour)


def model_caption(sample: SampleRow, language: Language) -> Caption:
    """The predicted class: green where it is right, red where it is wrong."""
    name = sample["predicted_name"] if is_known(sample["predicted_name"]) else "–"
    colour = INK
    if is_known(sample["correct"]):
        colour = GOOD if sample["correct"] else BAD
    return Caption(
        text=language.text("model: {name}").format(name=name),
        value=percent(sample["confidence"]),
        colour=colour,
    )


def id_caption(sample: SampleRow) -> Caption:
    """The sample's name."""
    return Caption(text=str(sample["sample_id"]), colour=FAINT, ends=True)


def _mask_caption(sample: SampleRow, language: Language) -> Caption:
    area = percent(sample["object_area"])
    if is_known(sample["mask_confidence"]):
        return Caption(
            text=language.text("object {area} · mask trust").format(area=area),
            value=percent(sample["mask_confidence"]),
        )
    return Caption(text=language.text("object"), value=area)


def _with_range(sample: SampleRow, score: str) -> str:
    """A score, and in brackets what it is with the mask's border moved."""
    low, high = percent(sample[f"{score}_low"]), percent(sample[f"{score}_high"])
    middle = percent(sample[score])
    return middle if low == high else f"{middle} ({low[:-1]}–{high})"


def class_sheet(label: int, name: str) -> str:
    """File name of a class's sheet; any class name gives a safe one."""
    return f"class-{label:04d}-{safe_name(name)}.png"


def channel_sheet(label: int, name: str) -> str:
    """File name of a class's sheet of channels."""
    return f"channels-{label:04d}-{safe_name(name)}.png"


def safe_name(name: str) -> str:
    """A class's name as part of a file name: ASCII letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:40].strip("-").lower() or "class"


def _in_order(thumbs: list[Thumb], section: str) -> list[Thumb]:
    return sorted(
        (thumb for thumb in thumbs if thumb["section"] == section), key=lambda thumb: thumb["rank"]
    )


def _shown(thumbs: list[Thumb], section: str) -> list[Thumb]:
    """As many as a sheet has room for: of the typical ones those in the middle."""
    first = max(0, (len(thumbs) - SHOWN) // 2) if section == "median" else 0
    return thumbs[first : first + SHOWN]
