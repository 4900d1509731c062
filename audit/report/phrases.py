"""What stands in the tables by an English name, in the language of the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from audit.report.language import Language
from audit.tables import labels, verdicts
from audit.tables.labels import label_reason
from audit.tables.properties import confounders
from audit.tables.thresholds import THRESHOLDS
from audit.tables.verdict_words import limits, masks_in_words, sentences


def verdict_in(language: Language, row: Mapping[Any, Any]) -> tuple[str, str]:
    """A verdict's sentence and what it cannot tell, made anew from the numbers.

    Args:
        language: Of the page.
        row: The class's row of ``classes.parquet``.

    Returns:
        What ``verdict_text`` and ``verdict_limits`` say in English.
    """
    told = None if pd.isna(row["told_by"]) else (str(row["told_by"]), float(row["told_by_auc"]))
    keys = [str(key) for key in row["verdict_limit_keys"]]
    said = sentences(row, THRESHOLDS.least_edited, language.text)
    return language.sentences(said), language.sentences(limits(keys, told, language.text))


def verdict_name(language: Language, verdict: str) -> str:
    """A verdict's name.

    Args:
        language: Of the page.
        verdict: One of :data:`audit.tables.verdicts.VERDICTS`.

    Example:
        >>> from audit.report.language import load_language
        >>> verdict_name(load_language("en"), "mask-limited")
        'limited by masks'
    """
    return {
        verdicts.RELIES: language.text("relies on background"),
        verdicts.SUSPECT: language.text("suspect"),
        verdicts.MASK_LIMITED: language.text("limited by masks"),
        verdicts.CLEAR: language.text("no evidence"),
        verdicts.TOO_FEW: language.text("too few samples"),
    }[verdict]


def verdict_meaning(language: Language, verdict: str) -> str:
    """What a verdict means, in a sentence.

    Args:
        language: Of the page.
        verdict: One of :data:`audit.tables.verdicts.VERDICTS`.
    """
    return {
        verdicts.RELIES: language.text(
            "Exchanging the background changes the answer to this class, surely and by much."
        ),
        verdicts.SUSPECT: language.text("Something points to the background, but it is no proof."),
        verdicts.MASK_LIMITED: language.text(
            "The object masks do not allow a verdict on this class."
        ),
        verdicts.CLEAR: language.text(
            "The tests found no more than models without a background cue show, too; that is not "
            "proof that there is no reliance."
        ),
        verdicts.TOO_FEW: language.text("Too few images of this class were tested in pixels."),
    }[verdict]


def label_kind(language: Language, kind: str) -> str:
    """What kind of suspect a label is.

    Args:
        language: Of the page.
        kind: One of :data:`audit.tables.labels.KINDS`.
    """
    return {
        labels.LABEL_ERROR: language.text("likely label error"),
        labels.CONTEXT_DRIVEN: language.text("context-driven"),
        labels.BACKGROUND_SUGGESTS: language.text("suggested by background"),
        labels.DISAGREEMENT: language.text("model and label disagree"),
    }[kind]


def label_reason_in(language: Language, row: Mapping[Any, Any]) -> str:
    """What speaks against a label, as a sentence.

    Args:
        language: Of the page.
        row: A row of ``labels.parquet``.
    """
    return label_reason(row, language.text)


def evidence_name(language: Language, evidence: str) -> str:
    """What the kind of a suspect label rests on.

    Args:
        language: Of the page.
        evidence: ``pixels`` or ``contributions``.
    """
    return {"pixels": language.text("pixels"), "contributions": language.text("features")}[evidence]


def confounders_in(language: Language, properties: pd.DataFrame) -> list[dict[str, Any]]:
    """Properties of whole images that go with label or error, with sentences in this language.

    Args:
        language: Of the page.
        properties: The rows of ``properties.parquet``.

    Returns:
        As :func:`audit.tables.properties.confounders`.
    """
    return confounders(properties, language.text)


def reason_name(language: Language, reason: str) -> str:
    """Which region a prediction rests on.

    Args:
        language: Of the page.
        reason: As in ``samples``: object, background, both or neither.

    Example:
        >>> from audit.report.language import load_language
        >>> reason_name(load_language("en"), "both")
        'either alone'
    """
    return {
        "object": language.text("object"),
        "background": language.text("background"),
        "both": language.text("either alone"),
        "neither": language.text("neither alone"),
    }[reason]


def family_name(language: Language, family: str) -> str:
    """A family of masks as a name in a table; one that is not known stays as it is.

    Args:
        language: Of the page.
        family: As in ``mask_source``, or as in ``--masks``.

    Example:
        >>> from audit.report.language import load_language
        >>> family_name(load_language("en"), "rembg:isnet-general-use")
        'background removal'
    """
    names = {
        "dataset": language.text("dataset"),
        "box": language.text("boxes"),
        "estimated": language.text("estimated"),
        "component": language.text("central part"),
        "ellipse": language.text("centre ellipse"),
        "rembg": language.text("background removal"),
    }
    return names.get(family.partition(":")[0], family)


def family_masks(language: Language, family: str) -> str:
    """A family's masks, as a part of a sentence.

    Args:
        language: Of the page.
        family: As in ``mask_source``.
    """
    return masks_in_words(family, language.text)


def edit_name(language: Language, edit: str) -> str:
    """What was done to a picture before the model was asked.

    Args:
        language: Of the page.
        edit: original, object_only, background_only, mixed_same, mixed_rand or transplant.
    """
    return {
        "original": language.text("as it is"),
        "object_only": language.text("object alone"),
        "background_only": language.text("background alone"),
        "mixed_same": language.text("on a background of its class"),
        "mixed_rand": language.text("on a background of another class"),
        "transplant": language.text("its background behind another object"),
    }[edit]


def status_name(language: Language, status: str) -> str:
    """What is wrong with a sample.

    Args:
        language: Of the page.
        status: As in ``samples``.
    """
    return {
        "unreadable": language.text("image cannot be read"),
        "nonfinite": language.text("the model's output is not finite"),
        "mask_missing": language.text("no mask"),
        "mask_unreadable": language.text("mask cannot be read"),
        "mask_mismatch": language.text("mask of another size"),
        "empty_mask": language.text("mask without object"),
        "full_mask": language.text("mask without background"),
        "zero_map": language.text("no evidence for the class"),
        "bad_label": language.text("no valid label"),
        "ok": language.text("in order"),
    }[status]


def stratum_name(language: Language, stratum: str, value: str) -> str:
    """A kind of a class's images.

    Args:
        language: Of the page.
        stratum: As in ``strata.parquet``.
        value: Likewise.

    Example:
        >>> from audit.report.language import load_language
        >>> stratum_name(load_language("en"), "object_area", "low")
        'small objects'
    """
    if stratum == "reason":
        text = language.text("what decides: {region}")
        return text.format(region=reason_name(language, value))
    return {
        ("correct", "yes"): language.text("answered rightly"),
        ("correct", "no"): language.text("answered wrongly"),
        ("mask_confidence", "low"): language.text("doubtful masks"),
        ("mask_confidence", "high"): language.text("confident masks"),
        ("object_area", "low"): language.text("small objects"),
        ("object_area", "middle"): language.text("objects of middle size"),
        ("object_area", "high"): language.text("large objects"),
        ("brightness", "low"): language.text("dark images"),
        ("brightness", "middle"): language.text("images of middle brightness"),
        ("brightness", "high"): language.text("bright images"),
        ("contrast", "low"): language.text("images of low contrast"),
        ("contrast", "middle"): language.text("images of middle contrast"),
        ("contrast", "high"): language.text("images of high contrast"),
        ("sharpness", "low"): language.text("smooth images"),
        ("sharpness", "middle"): language.text("images of middling detail"),
        ("sharpness", "high"): language.text("images rich in detail"),
    }[stratum, value]


def background_in(language: Language, description: str | None) -> str | None:
    """The words that describe a kind of background.

    Args:
        language: Of the page.
        description: As in ``backgrounds.parquet``: words with commas between.

    Example:
        >>> from audit.report.language import load_language
        >>> background_in(load_language("en"), "dark, green")
        'dark, green'
    """
    if description is None or pd.isna(description):
        return None
    words = {
        "dark": language.text("dark"),
        "bright": language.text("bright"),
        "pale": language.text("pale"),
        "colourful": language.text("colourful"),
        "green": language.text("green"),
        "red": language.text("red"),
        "blue": language.text("blue"),
        "yellow": language.text("yellow"),
        "smooth": language.text("smooth"),
        "detailed": language.text("detailed"),
    }
    return language.things(words.get(word, word) for word in description.split(", "))


_SHIFT = re.compile(r"shifted (?:(?P<y>\d+) px (?P<v>down|up))?(?: and )?"
                    r"(?:(?P<x>\d+) px (?P<h>right|left))?")  # fmt: skip
_RIM = re.compile(r"made (?P<way>wider|narrower) by (?P<rim>\d+) px all round")


def placement_in(language: Language, placement: str) -> str:
    """How masks would fit their images better.

    Args:
        language: Of the page.
        placement: As the check of masks names it: ``shifted 4 px up and 14 px right``.

    Example:
        >>> from audit.report.language import load_language
        >>> placement_in(load_language("en"), "shifted 4 px up and 14 px right")
        'shifted 4 px up and 14 px right'
    """
    if found := _SHIFT.fullmatch(placement):
        return _shift_in(language, found)
    if found := _RIM.fullmatch(placement):
        wider = language.text("made wider by {n} px all round")
        narrower = language.text("made narrower by {n} px all round")
        return (wider if found["way"] == "wider" else narrower).format(n=found["rim"])
    known = {
        "flipped left to right": language.text("flipped left to right"),
        "flipped upside down": language.text("flipped upside down"),
        "turned by 180°": language.text("turned by 180°"),
        "transposed": language.text("transposed"),
        "transposed and turned by 180°": language.text("transposed and turned by 180°"),
        "turned by 90° to the left": language.text("turned by 90° to the left"),
        "turned by 90° to the right": language.text("turned by 90° to the right"),
        "shrunk to half their size about the centre": language.text(
            "shrunk to half their size about the centre"
        ),
        "shrunk to half their size from the upper left corner": language.text(
            "shrunk to half their size from the upper left corner"
        ),
        "enlarged to double size about the centre": language.text(
            "enlarged to double size about the centre"
        ),
        "enlarged to double size from the upper left corner": language.text(
            "enlarged to double size from the upper left corner"
        ),
    }
    return known.get(placement, placement)


def _shift_in(language: Language, found: re.Match[str]) -> str:
    text = {
        ("down", None): language.text("shifted {y} px down"),
        ("up", None): language.text("shifted {y} px up"),
        (None, "right"): language.text("shifted {x} px right"),
        (None, "left"): language.text("shifted {x} px left"),
        ("down", "right"): language.text("shifted {y} px down and {x} px right"),
        ("down", "left"): language.text("shifted {y} px down and {x} px left"),
        ("up", "right"): language.text("shifted {y} px up and {x} px right"),
        ("up", "left"): language.text("shifted {y} px up and {x} px left"),
    }[found["v"], found["h"]]
    return text.format(y=found["y"], x=found["x"])
