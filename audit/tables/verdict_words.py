"""Verdicts in words, each with the numbers that justify it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from audit.tables.properties import in_words

_LEADS = {
    "relies on background": "Relies on background.",
    "no evidence": "No evidence of reliance on background.",
    "needs its background": "Suspect: its objects are recognised less on other backgrounds.",
    "feature space only": "Suspect in feature space only; edited pixels do not confirm it.",
    "not sure enough": "Suspect: more than clean classes show, but not surely or for every fill.",
    "misfit": "Cannot be judged: the object masks do not follow the edges of their images.",
    "poor masks": "Cannot be judged: nothing was found, but the estimated masks are too doubtful "
    "to clear the class.",
    "destroyed": "Cannot be judged: nothing was found, but cutting its objects out destroys them.",
}


def sentence(name: str, reason: str, found: Mapping[str, Any], edited: Mapping[str, Any]) -> str:
    """What was found, in three sentences at most.

    Args:
        name: The class.
        reason: What tipped the verdict over, one of the keys above.
        found: The row of ``evidence.parquet`` that the verdict rests on.
        edited: The class's values of :data:`audit.tables.edited.EDITED_COLUMNS`.
    """
    own = (
        f"Of 100 objects of other classes, {_more(found['effect'])} are called '{name}' in front "
        f"of its backgrounds than in front of others (95% interval {_points(found['effect_low'])} "
        f"to {_points(found['effect_high'])}; {int(found['n'])} images, "
        f"{_family(found['family'])} masks); in {_share(found['decided_share'])} "
        "of the images the background alone decides."
    )
    return " ".join(part for part in (_LEADS[reason], own, _gap(edited, reason)) if part)


def _gap(edited: Mapping[str, Any], reason: str) -> str:
    gap, low, high = (edited.get(f"bg_gap{end}") for end in ("", "_low", "_high"))
    if gap is None or low is None or high is None or np.isnan([gap, low, high]).any():
        return ""
    own, other = edited["acc_mixed_same"], edited["acc_mixed_rand"]
    text = (
        f"Of its own objects, cut out, {_share(own)} are recognised on backgrounds of their class "
        f"and {_share(other)} on those of others ({_points(gap)} points apart, 95% interval "
        f"{_points(low)} to {_points(high)})"
    )
    if reason == "destroyed":
        text += f"; as they are, {_share(edited['acc_unedited'])}"
    return text + "."


def untested(name: str, number: int, needed: int) -> str:
    """Why a class was not judged at all.

    Args:
        name: The class.
        number: How many of its images were edited.
        needed: How many it takes.

    Example:
        >>> untested("cat", 0, 20)
        "Too few samples: no image of 'cat' was tested in pixels, 20 are needed."
    """
    if number < needed:
        tested = "no image" if number == 0 else "1 image" if number == 1 else f"{number} images"
        verb = "were" if number > 1 else "was"
        return (
            f"Too few samples: {tested} of '{name}' {verb} tested in pixels, {needed} are needed."
        )
    return (
        f"Cannot be judged: for most of the tested images of '{name}' no exchange counts, because "
        "masks leave no object or no background, or no other class has usable objects, or because "
        "the images are nearly the same picture."
    )


def limits(
    *,
    accused: bool,
    cleared: bool,
    few: bool,
    estimated: bool,
    misfit: bool,
    told_by: tuple[str, float] | None,
) -> list[str]:
    """What a verdict cannot tell, a sentence each."""
    found = []
    if few:
        found.append("Raise --edits if the split holds more images of the class.")
    elif estimated:
        found.append(
            "Object and background are told apart by estimated masks: what lies on the estimated "
            "object is not tested."
        )
    if cleared:
        found.append(
            "A cue that lies on the object, or that object and background share (blur, lighting), "
            "is not found this way."
        )
    if accused:
        found.append(
            "Which part of the background it is, only the pictures tell; where masks cut the "
            "object, its remains count as background."
        )
    if told_by is not None:
        name, auc = told_by
        found.append(
            f"One property of whole images, {in_words(name)}, tells this class from the others "
            f"(AUC {auc:.2f}); transplants cannot test it."
        )
    if misfit:
        found.append("Look at the masks first: audit masks --show.")
    return found


def _more(effect: float) -> str:
    points = round(100 * effect)
    return "no more" if points <= 0 else f"{points} more"


def _points(value: float) -> str:
    # Without the minus of a rounded −0.
    return f"{round(100 * value) + 0:.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"


def _family(name: str) -> str:
    return {"ellipse": "centre-ellipse", "component": "central-part"}.get(name, name)
