"""A benchmark's result in sentences."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from audit.certify.evaluation import CONTROL, RELIED_ON, figure_of
from audit.certify.plan import CHECKS
from audit.report.wording import number, percent
from audit.tables.verdicts import MASK_LIMITED, SUSPECT, TOO_FEW

# Models that answer fewer clean images rightly were trained too short to speak for others. Half of
# the base's accuracy is never more.
_LEAST_ACCURACY = 0.5
NOTHING_LEARNT = (
    f"No cue in the background was learnt (pull above {number(RELIED_ON, 1)}), so nothing could be "
    f"found or missed."
)


def headline(summary: pd.DataFrame) -> list[str]:
    """The result in a few sentences.

    Args:
        summary: Rows of ``summary.parquet``.

    Returns:
        Sentences; what could not be tested or was not learnt is said.
    """
    told = []
    ranking = figure_of(summary, "class AUROC", "reliance")
    if ranking is not None and pd.notna(ranking["value"]):
        told.append(
            f"Classes that a model relies on through their background are ranked above the "
            f"others with AUROC {_with_interval(ranking)} ({ranking['positive']:.0f} of "
            f"{ranking['n']} classes of all models)."
        )
    told.append(_found_sentence(figure_of(summary, "found", "all cues")))
    for of, words in (
        ("clean models", "of clean models"),
        ("classes without cue in planted models", "without a cue in planted models"),
        (CONTROL, "whose cue lies on the object"),
    ):
        wrong = figure_of(summary, "accused", of)
        if wrong is not None:
            told.append(_accused_sentence(wrong, words))
    checks = [figure_of(summary, "accused", kind.replace("_", " ")) for kind in CHECKS]
    counted = [check for check in checks if check is not None]
    if counted:
        sums = {
            name: sum(int(check[name]) for check in counted)
            for name in ("positive", "n", "not_tested")
        }
        told.append(
            f"Networks and masks that know nothing: {sums['positive']} of "
            f"{plural(sums['n'], 'tested class', 'tested classes')} accused{_left_out(sums)}."
        )
    return told


def _found_sentence(found: dict[str, Any] | None) -> str:
    if found is None:
        return NOTHING_LEARNT
    if not found["n"]:
        return f"Found: nothing, for no such class could be tested{_left_out(found)}."
    classes = plural(int(found["n"]), "such class", "such classes")
    return f"Found: {found['positive']:.0f} of {classes}{_left_out(found)}."


def _accused_sentence(wrong: dict[str, Any], words: str) -> str:
    if not wrong["n"] and not wrong["not_tested"]:
        return "No model was trained with a cue on the object: there is no negative control."
    if not wrong["n"]:
        return f"Not one class {words} could be tested{_left_out(wrong)}."
    classes = plural(int(wrong["n"]), "tested class", "tested classes")
    return (
        f"Accused wrongly: {wrong['positive']:.0f} of {classes} {words} "
        f"(at most {percent(wrong['high'], 1)}, 95% bound){_left_out(wrong)}."
    )


def _left_out(figure: dict[str, Any]) -> str:
    """How many classes are not counted, because they could not be tested."""
    number_left = int(figure["not_tested"])
    if not number_left:
        return ""
    if not figure["n"]:
        return f" (too few samples in {number_left} of {number_left})"
    return f"; {number_left} more could not be tested"


def short_training(accuracies: dict[str, float], classes: pd.DataFrame) -> str | None:
    """A warning where trained models know little: their verdicts then say little of others.

    Args:
        accuracies: Of each model on the clean test images.
        classes: Rows of ``certify.parquet``.

    Returns:
        A sentence; ``None`` where each model with or without cues answers half of the images
        rightly.

    Example:
        >>> rows = pd.DataFrame({"case": ["seed0-clean"], "kind": ["clean"]})
        >>> short_training({"seed0-clean": 0.18}, rows)[:49]
        'Short training: accuracy 18% on clean images (see'
    """
    trained = classes.loc[classes["kind"].isin(["planted", "clean"]), "case"].unique()
    known = {name: accuracies[name] for name in trained if name in accuracies}
    short = {name: value for name, value in known.items() if value < _LEAST_ACCURACY}
    if not short:
        return None
    lowest = min(short, key=lambda name: short[name])
    return (
        f"Short training: accuracy {percent(short[lowest])} on clean images ({lowest}), below "
        f"{percent(_LEAST_ACCURACY)} in {len(short)} of {plural(len(known), 'model')}. What is "
        f"found in such networks says little of well trained ones."
    )


def how_many_accused(row: dict[str, Any]) -> str:
    """Of the classes of :func:`planted_rows`, how many of the tested ones are accused.

    Example:
        >>> how_many_accused({"accused": 1.0, "tested": 2, "n": 3})
        '1 of 2 (1 not tested)'
        >>> how_many_accused({"accused": 0.0, "tested": 0, "n": 1})
        'not tested'
    """
    if not row["tested"]:
        return "not tested"
    left = row["n"] - row["tested"]
    return f"{row['accused']:.0f} of {row['tested']}" + (f" ({left} not tested)" if left else "")


def why_missed(row: dict[str, Any]) -> str:
    """Why an audit may have missed a class, from its own numbers."""
    if pd.isna(row["verdict"]) or row["verdict"] == TOO_FEW:
        return "too few images of the class could be edited"
    if row["verdict"] == MASK_LIMITED:
        return "neither masks nor cut-out objects can be trusted enough to say anything"
    if row["verdict"] == SUSPECT:
        return "suspected, but edited pixels do not make it certain"
    if pd.notna(row["reliance"]) and row["reliance"] > RELIED_ON / 2:
        return "the effect on edited pixels is below what an accusation needs"
    if row["cue"] == "texture":
        return "a transplanted object brings a border of its own background along"
    return "under every family of masks the cue counts as object, so it moves with the object"


def plural(count: int, one: str, many: str = "") -> str:
    """A number and what is counted.

    Args:
        count: How many.
        one: The word for one.
        many: For several; empty adds an s.

    Example:
        >>> plural(1, "model"), plural(2, "model"), plural(0, "class", "classes")
        ('1 model', '2 models', '0 classes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def singular(recipe: str) -> str:
    """A recipe's words for a single epoch."""
    return re.sub(r"\b1 epochs\b", "1 epoch", recipe)


def _with_interval(figure: dict[str, Any]) -> str:
    if pd.isna(figure["low"]):
        return number(figure["value"], 3)
    ends = f"{number(figure['low'], 3)} to {number(figure['high'], 3)}"
    return f"{number(figure['value'], 3)} (95% interval {ends})"
