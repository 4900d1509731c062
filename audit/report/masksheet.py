"""A contact sheet of estimated masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.report.tiles import (
    FAINT,
    Caption,
    Picture,
    Row,
    Tile,
    enlarged,
    fit,
    jet,
    outline,
    sheet,
)
from audit.report.wording import percent

_IN_A_ROW = 4
_LEGEND = "blue: surely background · red: surely object · white line: the mask"


@dataclass(frozen=True, kw_only=True)
class MaskCard:
    """One sample with its mask.

    Attributes:
        image: RGB, H×W×3.
        mask: 0 or 1, H×W.
        soft: Probability of object, H×W.
        sample_id: The sample.
        confidence: Of the mask; ``None`` where there is none.
    """

    image: Picture
    mask: NDArray[np.float32]
    soft: NDArray[np.float32]
    sample_id: str
    confidence: float | None


@dataclass(frozen=True, kw_only=True)
class MaskSection:
    """Samples under a heading."""

    heading: str
    cards: Sequence[MaskCard]


def draw_masks(title: str, subtitle: str, sections: Sequence[MaskSection]) -> bytes:
    """Images, the masks' outlines on them and soft masks beside each other, as PNG.

    Args:
        title: In large letters.
        subtitle: Under it.
        sections: From top to bottom.
    """
    rows = [
        Row(
            heading=section.heading if start == 0 else "",
            tiles=[_tile(card) for card in section.cards[start : start + _IN_A_ROW]],
        )
        for section in sections
        for start in range(0, len(section.cards), _IN_A_ROW)
    ]
    return sheet(title, subtitle, rows, _LEGEND)


def _tile(card: MaskCard) -> Tile:
    image = fit(card.image)
    trust = "no confidence" if card.confidence is None else f"confidence {card.confidence:.2f}"
    return Tile(
        pictures=[image, outline(image, enlarged(card.mask >= 0.5)), fit(jet(card.soft))],
        captions=[
            Caption(text=f"{trust} · area {percent(float(card.mask.mean()))}"),
            Caption(text=card.sample_id, colour=FAINT),
        ],
    )
