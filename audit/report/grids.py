"""The contact sheets of a run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from audit.files import make_folder, write_atomically
from audit.report.selection import CLASS_SECTIONS, SPLIT_SECTIONS, TILES
from audit.report.thumbs import UNKNOWN, picture, silhouette
from audit.report.tiles import (
    BAD,
    FAINT,
    GOOD,
    Caption,
    Row,
    Tile,
    enlarged,
    fit,
    jet,
    outline,
    overlay,
    sheet,
    veil,
)
from audit.report.wording import percent
from audit.tables.reading import enlarge_map

HEADINGS = {
    "worst": "Most of the evidence on background",
    "median": "Typical",
    "best": "Most of the evidence on the object",
    "random": "Drawn at random",
    "right_for_the_wrong_reason": "Right for the wrong reason, by feature space",
    "wrong_but_confident": "Wrong but confident",
    "least_trusted_masks": "Object masks of the least confidence",
    "most_trusted_masks": "Object masks of the most confidence",
}
_ORDER = {
    "least_trusted_masks": "The least confident first",
    "most_trusted_masks": "The most confident first",
}
_LEGEND = (
    "blue: no evidence for the explained class · red: the strongest · white line: the object mask"
    " · grey stripes: unknown · in brackets: with the line moved by a cell"
)


class Grids:
    """Draws contact sheets from stored rows and thumbnails.

    Args:
        samples: All rows.
        thumbs: The rows of ``thumbs.parquet``.
        classes: The rows of ``classes.parquet``.
        grid: h and w of the maps.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        thumbs: pd.DataFrame,
        classes: pd.DataFrame,
        grid: tuple[int, int],
    ) -> None:
        self._samples = samples.set_index("index")
        self._thumbs = thumbs
        self._classes = classes.set_index("label")
        self._grid = grid

    def draw_all(self, folder: Path, more: Iterable[tuple[str, bytes]] = ()) -> list[str]:
        """Write every sheet.

        Args:
            folder: The run's folder; sheets go to ``grids/`` in it.
            more: Names and contents of sheets that others drew.

        Returns:
            Their names, relative to ``folder``.
        """
        make_folder(folder / "grids")
        names = []
        for name, content in chain(self.sheets(), more):
            write_atomically(folder / "grids" / name, content)
            names.append(f"grids/{name}")
        for stale in set((folder / "grids").glob("*.png")) - {folder / name for name in names}:
            stale.unlink()
        return names

    def sheets(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents of all sheets."""
        for _, thumbs in self._thumbs.groupby("label"):
            label = int(thumbs["label"].iloc[0])
            if label >= 0:
                yield class_sheet(label, self._name(label)), self._class_sheet(thumbs)
                yield channel_sheet(label, self._name(label)), self._channels(thumbs)
            else:
                for section, rows in thumbs.groupby("section"):
                    yield f"{section}.png", self._split_sheet(str(section), rows)

    def _name(self, label: int) -> str:
        return str(self._classes.loc[label, "label_name"])

    def _class_sheet(self, thumbs: pd.DataFrame) -> bytes:
        label = int(thumbs["label"].iloc[0])
        summary = self._classes.loc[label]
        subtitle = (
            f"{summary['n']:,} images · accuracy {percent(summary['accuracy'])} · "
            f"background share {percent(summary['background_share'])} · "
            f"transplant rate {percent(summary['transplant_rate'])}"
        )
        rows = [
            Row(
                heading=HEADINGS[section],
                tiles=[self._tile(t) for t in _in_order(thumbs, section)],
            )
            for section in CLASS_SECTIONS
        ]
        return sheet(f"Class: {self._name(label)}", subtitle, rows, _LEGEND)

    def _split_sheet(self, section: str, thumbs: pd.DataFrame) -> bytes:
        tiles = [self._tile(thumb) for thumb in _in_order(thumbs, section)]
        rows = [
            Row(
                heading="" if start else _ORDER.get(section, "The most confident first"),
                tiles=tiles[start : start + TILES],
            )
            for start in range(0, len(tiles), TILES)
        ]
        return sheet(HEADINGS[section], SPLIT_MEANING[section], rows, _LEGEND)

    def _tile(self, thumb: pd.Series) -> Tile:
        sample = self._samples.loc[thumb["index"]]
        image = picture(thumb["image"])
        mask = silhouette(thumb["mask"])
        inside, unknown = enlarged(mask == 255), enlarged(mask == UNKNOWN)
        heatmap = enlarge_map(sample["map"], self._grid, image.shape[:2])
        right = bool(sample["correct"]) if pd.notna(sample["correct"]) else False
        return Tile(
            pictures=[
                outline(veil(fit(image), unknown), inside),
                outline(fit(overlay(image, heatmap)), inside),
            ],
            captions=[
                Caption(text=f"label: {sample['label_name']}"),
                Caption(
                    text=f"model: {sample['predicted_name']} {percent(sample['confidence'])}",
                    colour=GOOD if right else BAD,
                ),
                Caption(text=f"background share {_with_range(sample, 'background_share')}"),
                _mask_caption(sample),
                Caption(text=str(sample["sample_id"]), colour=FAINT),
            ],
        )

    def _channels(self, thumbs: pd.DataFrame) -> bytes:
        label = int(thumbs["label"].iloc[0])
        firsts = [next(iter(_in_order(thumbs, section))) for section in CLASS_SECTIONS]
        rows = [
            Row(heading=HEADINGS[str(thumb["section"])], tiles=self._channel_tiles(thumb))
            for thumb in firsts
        ]
        return sheet(
            f"Class: {self._name(label)}, most active channels",
            "What the strongest channels of the target layer respond to, whatever the class",
            rows,
            "blue: the channel is silent · red: its strongest response",
        )

    def _channel_tiles(self, thumb: pd.Series) -> list[Tile]:
        sample = self._samples.loc[thumb["index"]]
        image = picture(thumb["image"])
        numbers = sample["top_channels"]
        maps = np.asarray(sample["channel_maps"], np.float32).reshape(len(numbers), -1)
        tiles = [self._tile(thumb)]
        for number, values in zip(numbers, maps, strict=True):
            response = enlarge_map(values, self._grid, image.shape[:2])
            tiles.append(
                Tile(
                    pictures=[fit(jet(response)), fit(overlay(image, response))],
                    captions=[Caption(text=f"channel {number}")],
                )
            )
        return tiles


SPLIT_MEANING = {
    "right_for_the_wrong_reason": "Correct predictions whose background points to the label and "
    "whose object points elsewhere, by contributions in feature space: a hint, not tested in "
    "pixels",
    "wrong_but_confident": "Wrong predictions with the highest probability",
    "least_trusted_masks": "The white line is an estimate; here it is most likely wrong",
    "most_trusted_masks": "The white line is an estimate; here it is most likely right",
}
assert set(SPLIT_MEANING) == set(SPLIT_SECTIONS)


def _mask_caption(sample: pd.Series) -> Caption:
    text = f"object {percent(sample['object_area'])}"
    if pd.notna(sample["mask_confidence"]):
        text += f" · mask confidence {percent(sample['mask_confidence'])}"
    return Caption(text=text)


def _with_range(sample: pd.Series, score: str) -> str:
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


def _in_order(thumbs: pd.DataFrame, section: str) -> list[pd.Series]:
    rows = thumbs[thumbs["section"] == section].sort_values("rank")
    return [row for _, row in rows.iterrows()]
