"""A contact sheet of estimated masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audit.report.pictures.style import Style
from audit.report.pictures.tiles import (
    FAINT,
    Caption,
    Legend,
    Picture,
    Row,
    Tile,
    coloured,
    enlarged,
    fit,
    outline,
    sheet,
)
from audit.report.wording import percent


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


def draw_masks(
    title: str, subtitle: str, sections: Sequence[MaskSection], style: Style | None = None
) -> bytes:
    """Images, the masks' outlines on them and soft masks beside each other, as PNG.

    Args:
        title: In large letters.
        subtitle: Under it.
        sections: From top to bottom.
        style: Colours and language of what is written here.
    """
    style = style or Style()
    language = style.language
    rows = [
        Row(heading=section.heading, tiles=[_tile(card, style) for card in section.cards])
        for section in sections
    ]
    legend = Legend(
        colours=style.colours,
        low=language.text("surely background"),
        high=language.text("surely object"),
        note=language.text("White line: the mask."),
    )
    return sheet(title, subtitle, rows, legend, language)


def _tile(card: MaskCard, style: Style) -> Tile:
    image, language = fit(card.image), style.language
    if card.confidence is None:
        trust = language.text("no confidence")
    else:
        trust = language.text("confidence {value}").format(value=f"{card.confidence:.2f}")
    area = language.text("area {share}").format(share=percent(float(card.mask.mean())))
    return Tile(
        pictures=[
            image,
            outline(image, enlarged(card.mask >= 0.5)),
            fit(coloured(card.soft, style.colours)),
        ],
        captions=[
            Caption(text=f"{trust} · {area}"),
            Caption(text=card.sample_id, colour=FAINT, ends=True),
        ],
    )
