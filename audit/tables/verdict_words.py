"""Verdicts in words, each with the numbers that justify it.

Sentences are made of what ``classes.parquet`` holds, so that a report in another language can make
them again. None is put together from parts that other languages order otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from audit.tables.properties import in_words
from audit.tables.say import Say, in_english

# What tips a verdict over.
RELIES_ON_BACKGROUND = "relies on background"
NO_EVIDENCE = "no evidence"
NEEDS_ITS_BACKGROUND = "needs its background"
FEATURE_SPACE_ONLY = "feature space only"
NOT_SURE_ENOUGH = "not sure enough"
MISFIT = "misfit"
POOR_MASKS = "poor masks"
DESTROYED = "destroyed"
FEW_TESTED = "few tested"
NONE_COUNTS = "none counts"
REASONS = (
    RELIES_ON_BACKGROUND, NEEDS_ITS_BACKGROUND, FEATURE_SPACE_ONLY, NOT_SURE_ENOUGH, MISFIT,
    POOR_MASKS, DESTROYED, NO_EVIDENCE, FEW_TESTED, NONE_COUNTS,
)  # fmt: skip

# What a verdict cannot tell.
RAISE_EDITS = "raise edits"
ESTIMATED_MASKS = "estimated masks"
CUE_ON_OBJECT = "cue on object"
WHICH_PART = "which part"
TOLD_APART = "told apart"
LOOK_AT_MASKS = "look at masks"
LIMITS = (
    RAISE_EDITS, ESTIMATED_MASKS, CUE_ON_OBJECT, WHICH_PART, TOLD_APART, LOOK_AT_MASKS,
)  # fmt: skip


def sentences(row: Mapping[str, Any], needed: int, say: Say = in_english) -> list[str]:
    """What was found in a class, in three sentences at most.

    Args:
        row: The class's row of ``classes.parquet``; of it ``label_name``, ``verdict_reason``, the
            columns of reliance and those of edits.
        needed: How many edited images a verdict takes.
        say: The language.

    Returns:
        Whole sentences; a language that puts spaces between them joins them with one.

    Example:
        >>> row = {"label_name": "cat", "verdict_reason": FEW_TESTED, "n_edited": 0}
        >>> sentences(row, 20)
        ["Too few samples: no image of 'cat' was tested in pixels, 20 are needed."]
    """
    if row["verdict_reason"] == FEW_TESTED:
        return [_untested(row, needed, say)]
    if row["verdict_reason"] == NONE_COUNTS:
        text = say(
            "Cannot be judged: for most of the tested images of '{name}' no exchange counts, "
            "because masks leave no object or no background, or no other class has usable objects, "
            "or because the images are nearly the same picture."
        )
        return [text.format(name=row["label_name"])]
    return [_lead(row["verdict_reason"], say), _effect(row, say), *_gap(row, say)]


def _lead(reason: str, say: Say) -> str:
    return {
        RELIES_ON_BACKGROUND: say("Relies on background."),
        NO_EVIDENCE: say("No evidence of reliance on background."),
        NEEDS_ITS_BACKGROUND: say(
            "Suspect: its objects are recognised less on other backgrounds."
        ),
        FEATURE_SPACE_ONLY: say(
            "Suspect in feature space only; edited pixels do not confirm it."
        ),
        NOT_SURE_ENOUGH: say(
            "Suspect: more than clean classes show, but not surely or for every fill."
        ),
        MISFIT: say("Cannot be judged: the object masks do not follow the edges of their images."),
        POOR_MASKS: say(
            "Cannot be judged: nothing was found, but the estimated masks are too doubtful to "
            "clear the class."
        ),
        DESTROYED: say(
            "Cannot be judged: nothing was found, but cutting its objects out destroys them."
        ),
    }[reason]  # fmt: skip


def _untested(row: Mapping[str, Any], needed: int, say: Say) -> str:
    number = int(row["n_edited"])
    if number == 0:
        text = say(
            "Too few samples: no image of '{name}' was tested in pixels, {needed} are needed."
        )
    elif number == 1:
        text = say(
            "Too few samples: 1 image of '{name}' was tested in pixels, {needed} are needed."
        )
    else:
        text = say(
            "Too few samples: {number} images of '{name}' were tested in pixels, {needed} are "
            "needed."
        )
    return text.format(name=row["label_name"], number=number, needed=needed)


def _effect(row: Mapping[str, Any], say: Say) -> str:
    more = round(100 * row["reliance"])
    if more > 0:
        text = say(
            "Of 100 objects of other classes, {more} more are called '{name}' in front of its "
            "backgrounds than in front of others (95% interval {low} to {high}; {n} images, "
            "{masks}); in {decided} of the images the background alone decides."
        )
    else:
        text = say(
            "Of 100 objects of other classes, no more are called '{name}' in front of its "
            "backgrounds than in front of others (95% interval {low} to {high}; {n} images, "
            "{masks}); in {decided} of the images the background alone decides."
        )
    return text.format(
        more=more,
        name=row["label_name"],
        low=_points(row["reliance_low"]),
        high=_points(row["reliance_high"]),
        n=int(row["reliance_n"]),
        masks=masks_in_words(row["reliance_family"], say),
        decided=_share(row["decided_share"]),
    )


def _gap(row: Mapping[str, Any], say: Say) -> list[str]:
    ends: list[Any] = [row.get(f"bg_gap{end}") for end in ("", "_low", "_high")]
    if any(pd.isna(end) for end in ends):
        return []
    if row["verdict_reason"] == DESTROYED:
        text = say(
            "Of its own objects, cut out, {own} are recognised on backgrounds of their class and "
            "{other} on those of others ({gap} points apart, 95% interval {low} to {high}); as "
            "they are, {whole}."
        )
    else:
        text = say(
            "Of its own objects, cut out, {own} are recognised on backgrounds of their class and "
            "{other} on those of others ({gap} points apart, 95% interval {low} to {high})."
        )
    gap, low, high = (_points(end) for end in ends)
    whole: Any = row.get("acc_unedited")
    filled = text.format(
        own=_share(row["acc_mixed_same"]),
        other=_share(row["acc_mixed_rand"]),
        gap=gap,
        low=low,
        high=high,
        whole="–" if pd.isna(whole) else _share(whole),
    )
    return [filled]


def limits(
    keys: Sequence[str], told_by: tuple[str, float] | None = None, say: Say = in_english
) -> list[str]:
    """What a verdict cannot tell, a sentence each.

    Args:
        keys: Of :data:`LIMITS`, in the order to say them.
        told_by: The property that tells the class apart and its AUC, for :data:`TOLD_APART`.
        say: The language.

    Example:
        >>> limits([LOOK_AT_MASKS])
        ['Look at the masks first: audit masks --show.']
    """
    return [_limit(key, told_by, say) for key in keys]


def _limit(key: str, told_by: tuple[str, float] | None, say: Say) -> str:
    name, auc = told_by or ("", 0.0)
    text = {
        RAISE_EDITS: say("Raise --edits if the split holds more images of the class."),
        ESTIMATED_MASKS: say(
            "Object and background are told apart by estimated masks: what lies on the estimated "
            "object is not tested."
        ),
        CUE_ON_OBJECT: say(
            "A cue that lies on the object, or that object and background share (blur, lighting), "
            "is not found this way."
        ),
        WHICH_PART: say(
            "Which part of the background it is, only the pictures tell; where masks cut the "
            "object, its remains count as background."
        ),
        TOLD_APART: say(
            "One property of whole images, {property}, tells this class from the others (AUC "
            "{auc}); transplants cannot test it."
        ),
        LOOK_AT_MASKS: say("Look at the masks first: audit masks --show."),
    }[key]
    return text.format(property=in_words(name, say) if name else "", auc=f"{auc:.2f}")


def masks_in_words(family: str, say: Say = in_english) -> str:
    """A family's masks, as a part of a sentence.

    Args:
        family: As in ``mask_source``.
        say: The language.

    Example:
        >>> masks_in_words("ellipse")
        'centre-ellipse masks'
    """
    known = {
        "dataset": say("dataset masks"),
        "box": say("box masks"),
        "estimated": say("estimated masks"),
        "component": say("central-part masks"),
        "ellipse": say("centre-ellipse masks"),
        "rembg": say("rembg masks"),
    }
    return known.get(family) or say("{family} masks").format(family=family)


def _points(value: float) -> str:
    # Without the minus of a rounded −0.
    return f"{round(100 * value) + 0:.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"
