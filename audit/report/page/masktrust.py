"""How far the object masks of a run are to be trusted, for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from audit.report.language import Language
from audit.report.phrases import family_masks, placement_in
from audit.report.wording import number, percent
from audit.tables.classes import CONFIDENT_MASK


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a kind of mask does to the audit's numbers, where true masks are known.

    Attributes:
        bias: Mean background share with these masks minus that with true ones.
        rank_correlation: Of the background share over images.
        bad: Share of masks that overlap the true one by less than .3 (IoU).
    """

    bias: float
    rank_correlation: float
    bad: float


# benchmarks/masks.py: EfficientNet-Lite0 at 224 px on those crops of COCO photographs that had no
# part in making the estimator.
MEASURED = {
    "estimated": Measured(bias=-0.043, rank_correlation=0.59, bad=0.08),
    "component": Measured(bias=-0.039, rank_correlation=0.58, bad=0.10),
    "ellipse": Measured(bias=-0.086, rank_correlation=0.37, bad=0.15),
}

# Verdicts of the check whether masks lie where the images' edges are.
MISFITS = ("other placement fits better", "no fit")

# From this median |rank correlation| within classes on, the background share depends on the size.
DEPENDS = 0.25

# Families whose masks nobody drew.
_ESTIMATED = ("estimated", "component", "rembg")
# An average that masks shift by less is left as it is, in words.
_NO_BIAS = 0.005
# Rank correlations from which images come in much the same, and in a similar order.
_SAME_ORDER, _SIMILAR_ORDER = 0.8, 0.5
# From this |rank correlation| over all images on, the background share goes with the size.
_GOES_WITH_SIZE = 0.3
# Border pixels that are object, on average, from which masks look like background.
_MUCH_BORDER = 0.2


def trust_in_words(
    facts: Mapping[str, Any],
    masks: pd.DataFrame,
    classes: Sequence[Mapping[Any, Any]],
    language: Language,
) -> dict[str, Any]:
    """What the page says of masks.

    Args:
        facts: The manifest's content.
        masks: The rows of ``masks.parquet``.
        classes: Rows of ``classes.parquet``.
        language: Of the page.

    Returns:
        ``family``; ``estimated``, whether the main masks were estimated in one way or another;
        ``origin``, a sentence that says where masks come from; ``misfit``, a warning for the first
        screen or ``None``; ``intro``, a paragraph; ``points``, what was found, each with ``text``
        and ``warning``.
    """
    family = str(facts["masks"]).partition(":")[0]
    check = facts["mask_check"]
    return {
        "family": family,
        "estimated": family in _ESTIMATED,
        "origin": _origin(family, language),
        "misfit": _misfit(check, language) if check and check["verdict"] in MISFITS else None,
        "intro": language.sentences(_intro(facts, family, masks, language)),
        "points": [
            {"text": text, "warning": warning}
            for text, warning in _points(facts["totals"], check, classes, language)
            if text
        ],
    }


def _origin(family: str, language: Language) -> str:
    return {
        "dataset": language.text("The object masks came with the dataset."),
        "box": language.text("The object masks are soft shapes in the dataset's bounding boxes."),
        "estimated": language.text(
            "The object masks were estimated from each image's colours and borders, without the "
            "model."
        ),
        "component": language.text("The object masks are the central part of estimated ones."),
        "ellipse": language.text(
            "The object masks are the same ellipse in the centre of every image: a baseline, not a "
            "finding."
        ),
        "rembg": language.text("The object masks were made by a background removal network."),
    }[family]


def _caution(family: str, language: Language) -> str:
    cautions = {
        "box": language.text(
            "A box is no outline: how much of it is object is known on average only, and whether "
            "boxes fit their images cannot be checked. Read shares as rough."
        ),
        "rembg": language.text(
            "Such a network looks for what stands out, which need not be the labelled object."
        ),
        "ellipse": language.text("The ellipse knows nothing of the images."),
    }
    return cautions.get(family, "")


def _misfit(check: Mapping[str, Any], language: Language) -> str:
    if check["verdict"] == "no fit":
        return language.text(
            "Look at the object masks first: their borders follow the edges of their images no "
            "better than the borders of other images' masks do, so they may belong to other "
            "images. All numbers on this page may be wrong."
        )
    text = language.text(
        "Look at the object masks first: they fit their images better when {placement}; a flip, a "
        "shift or another size may have been lost on the way. All numbers on this page may be "
        "wrong."
    )
    return text.format(placement=placement_in(language, check["placement"]))


def _intro(
    facts: Mapping[str, Any], family: str, masks: pd.DataFrame, language: Language
) -> Iterator[str]:
    yield language.text("Everything here rests on knowing where the object is.")
    yield _origin(family, language)
    for name, count in facts["totals"]["mask_sources"].items():
        if name != family:
            text = language.plural(
                "For {n} image these are {masks} instead.",
                "For {n} images these are {masks} instead.",
                count,
            )
            yield text.format(n=f"{count:,}", masks=family_masks(language, name))
    if facts["mask_network"]:
        text = language.text("The network is {name} (licence: {licence}).")
        network = facts["mask_network"]
        yield text.format(name=network["session"], licence=network["licence"])
    yield _caution(family, language)
    if family in _ESTIMATED:
        scored = int(masks["n"].iloc[0]) if len(masks) else 0
        yield _confidence(facts["totals"], scored, language)
    if family in MEASURED:
        yield from _measured(MEASURED[family], language)


def _confidence(totals: Mapping[str, Any], scored: int, language: Language) -> str:
    text = language.text(
        "Their confidence is the overlap with the object that is to be expected (intersection over "
        "union): {mean} on average; {confident} of {scored} images have a confident mask, "
        "{threshold} or more."
    )
    return text.format(
        mean=percent(totals["mask_confidence"]),
        confident=f"{totals['mask_confident']:,}",
        scored=f"{scored:,}",
        threshold=percent(CONFIDENT_MASK),
    )


def _measured(measured: Measured, language: Language) -> Iterator[str]:
    if measured.bias < -_NO_BIAS:
        text = language.text(
            "Where true masks are known (photographs of animals and vehicles), such masks made the "
            "background share come out {n} percentage points too low."
        )
    elif measured.bias > _NO_BIAS:
        text = language.text(
            "Where true masks are known (photographs of animals and vehicles), such masks made the "
            "background share come out {n} percentage points too high."
        )
    else:
        text = language.text(
            "Where true masks are known (photographs of animals and vehicles), such masks left the "
            "average background share as it is."
        )
    yield text.format(n=round(100 * abs(measured.bias)))
    if measured.rank_correlation >= _SAME_ORDER:
        text = language.text(
            "They put images into much the same order as true ones (rank correlation {r}); {bad} "
            "of them missed the object."
        )
    elif measured.rank_correlation >= _SIMILAR_ORDER:
        text = language.text(
            "They put images into a similar order as true ones (rank correlation {r}); {bad} of "
            "them missed the object."
        )
    else:
        text = language.text(
            "They put images into only a loosely similar order as true ones (rank correlation "
            "{r}); {bad} of them missed the object."
        )
    yield text.format(r=number(measured.rank_correlation), bad=percent(measured.bad))
    yield language.text("Use the numbers to rank and compare, not as measurements.")


def _points(
    totals: Mapping[str, Any],
    check: Mapping[str, Any] | None,
    classes: Sequence[Mapping[Any, Any]],
    language: Language,
) -> Iterator[tuple[str, bool]]:
    text = language.text(
        "The heatmap's background share is {share}. With every mask's border up to one cell of the "
        "heatmap further out or in, it would be between {low} and {high}."
    )
    ends = {end: percent(totals[f"background_share_mask_{end}"]) for end in ("low", "high")}
    yield text.format(share=percent(totals["background_share"]), **ends), False
    if check is not None:
        yield _checked(check, language), check["verdict"] in MISFITS
    if totals["area_correlation"] is not None:
        yield _goes_with_size(float(totals["area_correlation"]), classes, language), False
    if totals["border_touch"] and totals["border_touch"] > _MUCH_BORDER:
        text = language.text(
            "In {share} of the images more than a quarter of the border is object: such masks "
            "often take background for object."
        )
        yield text.format(share=percent(totals["border_touch"])), True
    if totals["unknown_area"]:
        text = language.text(
            "{share} of the pixels are marked as unknown; they count neither as object nor as "
            "background."
        )
        yield text.format(share=percent(totals["unknown_area"], 1)), False


def _checked(check: Mapping[str, Any], language: Language) -> str:
    text = {
        "fits": language.text(
            "Do the masks belong to these images? Yes: on {n} images looked at, their borders "
            "follow the images' edges better than when flipped, shifted or exchanged."
        ),
        "too few": language.text(
            "Do the masks belong to these images? There are too few images to tell."
        ),
        "no fit": language.text(
            "Do the masks belong to these images? Probably not: on {n} images looked at, their "
            "borders follow the edges no better than those of other images' masks."
        ),
        "other placement fits better": language.text(
            "Do the masks belong to these images? Probably not as they are: on {n} images looked "
            "at, their borders follow the edges better when {placement}."
        ),
    }[check["verdict"]]
    return text.format(n=check["n"], placement=placement_in(language, check["placement"]))


def _goes_with_size(
    overall: float, classes: Sequence[Mapping[Any, Any]], language: Language
) -> str:
    within = within_classes(classes)
    smaller = language.text(
        "The smaller the object, the more of the heatmap lies outside it, as with any heatmap."
    )
    advice = language.text(
        "Compare classes and images of like object size, or by kappa, which takes the size out."
    )
    if overall < -_GOES_WITH_SIZE:
        found = [smaller, advice]
    elif overall > _GOES_WITH_SIZE:
        found = [
            language.text(
                "Unusually, the larger the object, the more of the heatmap lies outside it."
            )
        ]
    elif within is not None and within.depends:
        found = [
            language.text(
                "Within classes the background share depends on the object's size, though over all "
                "images this shows little."
            ),
            *([smaller] if within.high < 0 else []),
            advice,
        ]
    else:
        found = [language.text("The background share hardly depends on the object's size.")]
    return language.sentences([*found, _correlations(overall, within, language)])


def _correlations(overall: float, within: Within | None, language: Language) -> str:
    if within is None:
        text = language.text("(Rank correlation {overall} over all images.)")
        return text.format(overall=number(overall))
    low, high = number(within.low), number(within.high)
    if low == high:
        text = language.text(
            "(Rank correlation {overall} over all images, {within} within classes.)"
        )
        return text.format(overall=number(overall), within=low)
    text = language.text(
        "(Rank correlation {overall} over all images, {low} to {high} within classes.)"
    )
    return text.format(overall=number(overall), low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class Within:
    """How far the background share depends on the object's size within single classes.

    Attributes:
        low: The least ``area_correlation`` of a class.
        high: The largest.
        depends: Whether the median of their magnitudes is at least :data:`DEPENDS`.
    """

    low: float
    high: float
    depends: bool


def within_classes(classes: Sequence[Mapping[Any, Any]]) -> Within | None:
    """How far the background share depends on the object's size within single classes.

    Over all images this can be hidden: classes of small objects may have small shares.

    Args:
        classes: Rows of ``classes.parquet``.

    Returns:
        ``None`` where no class has an ``area_correlation``.

    Example:
        >>> within_classes([{"area_correlation": -0.3}, {"area_correlation": -0.68}])
        Within(low=-0.68, high=-0.3, depends=True)
    """
    given = [row["area_correlation"] for row in classes]
    known = [float(value) for value in given if pd.notna(value)]
    if not known:
        return None
    depends = bool(np.median(np.abs(known)) >= DEPENDS)
    return Within(low=min(known), high=max(known), depends=depends)
