"""Samples that a reader should see: what flags them, and which of them are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.language import Language
from audit.tables.evidence import images_decided

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# A wrong prediction is confident from this probability on.
CONFIDENT = 0.9
# Flagged samples that are shown where nobody says how many.
GALLERY = 1000

BY_ROW = ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")
FLAGS = (*BY_ROW, "label_suspect", "wrong_but_confident", "background_decides")


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Which samples of a split are flagged, and how telling each is.

    Attributes:
        raised: For each flag of :data:`FLAGS` whether a sample has it, N.
        telling: For each flag a number, higher = shown first, N; read where it is raised.
    """

    raised: Mapping[str, Bools]
    telling: Mapping[str, Floats]

    @property
    def any(self) -> Bools:
        """Whether a sample has any flag, N."""
        return np.logical_or.reduce(list(self.raised.values()))

    def bits(self) -> NDArray[np.int64]:
        """All flags of a sample in one number, N: bit i stands for the i-th of :data:`FLAGS`."""
        numbers = np.zeros(len(self.any), np.int64)
        for place, name in enumerate(FLAGS):
            numbers |= self.raised[name].astype(np.int64) << place
        return numbers


def flag_samples(
    samples: pd.DataFrame,
    labels: pd.DataFrame,
    edits: pd.DataFrame | None = None,
    classes: pd.DataFrame | None = None,
    families: Sequence[str] = (),
) -> Flags:
    """Find every flagged sample.

    Args:
        samples: All rows, N.
        labels: The rows of ``labels.parquet``.
        edits: Rows of edited samples; ``None`` where nothing was edited.
        classes: The rows of ``classes.parquet``; needed where there are edits.
        families: Names of the families of masks, the main one first; likewise.

    Returns:
        The flags, in the order of ``samples``.
    """
    count = len(samples)
    index = samples["index"].to_numpy(np.int64)
    confidence = _numbers(samples, "confidence")
    # How much more of the logit the background supplies than the object.
    surplus = np.nan_to_num(
        _numbers(samples, "near_logit")
        + _numbers(samples, "far_logit")
        - _numbers(samples, "object_logit")
    )
    raised: dict[str, Bools] = {}
    telling: dict[str, Floats] = dict.fromkeys(BY_ROW, surplus)
    for name in BY_ROW:
        raised[name] = samples[name].fillna(value=False).to_numpy(bool)
    rank = np.full(count, np.inf)
    # A large run keeps the rows of the first suspects alone.
    suspects = labels[labels["index"].isin(index)]
    place = _places(index, suspects["index"].to_numpy(np.int64))
    rank[place] = suspects["label_rank"].to_numpy(np.float64)
    raised["label_suspect"], telling["label_suspect"] = np.isfinite(rank), -rank
    wrong = ~samples["correct"].fillna(value=True).to_numpy(bool)
    raised["wrong_but_confident"] = wrong & (confidence >= CONFIDENT)
    telling["wrong_but_confident"] = confidence
    decides = np.zeros(count, bool)
    if edits is not None and classes is not None and len(edits):
        found = decided_by_background(edits, classes, families)
        decides[_places(index, edits["index"].to_numpy(np.int64)[found])] = True
    raised["background_decides"], telling["background_decides"] = decides, confidence
    return Flags(raised=raised, telling=telling)


def decided_by_background(
    edits: pd.DataFrame, classes: pd.DataFrame, families: Sequence[str]
) -> Bools:
    """Whose background decides in pixels, under the masks that the class's reliance rests on.

    Args:
        edits: Rows of edited samples, E.
        classes: The rows of ``classes.parquet``.
        families: Names of the families of masks, the main one first.

    Returns:
        E.
    """
    rests = classes.set_index("label")["reliance_family"]
    family = rests.reindex(edits["label"]).astype(object).to_numpy()
    decides = np.zeros(len(edits), bool)
    for place, name in enumerate(families):
        own = (family == name) | (pd.isna(family) & (place == 0))
        if own.any():
            found = images_decided(edits, len(classes), "" if place == 0 else f"{name}_")
            decides |= own & found
    return decides


def choose_flagged(samples: pd.DataFrame, flags: Flags, most: int = GALLERY) -> pd.DataFrame:
    """Choose the flagged samples to show.

    Flags take turns, and within a flag classes do, the most telling sample of each first: so a
    class or a flag with many samples does not crowd out the others.

    Args:
        samples: All rows.
        flags: Theirs.
        most: At most so many.

    Returns:
        ``section`` (``flagged``), ``label`` (−1), ``rank`` and ``index``, as
        :func:`audit.report.selection.choose_samples` gives them.
    """
    labels = samples["label"].to_numpy(np.int64, na_value=-1)
    turns = [
        _in_turns(np.flatnonzero(flags.raised[name]), flags.telling[name], labels)[:most]
        for name in FLAGS
    ]
    length = max(map(len, turns), default=0)
    # Column by column: the first of each flag, then the second of each …
    padded = np.full((len(turns), length), -1, np.int64)
    for row, places in zip(padded, turns, strict=True):
        row[: len(places)] = places
    order = padded.T.ravel()
    order = order[order >= 0]
    _, first = np.unique(order, return_index=True)
    chosen = order[np.sort(first)][:most]
    return pd.DataFrame(
        {
            "section": "flagged",
            "label": -1,
            "rank": np.arange(len(chosen)),
            "index": samples["index"].to_numpy(np.int64)[chosen],
        }
    )


def _in_turns(places: Places, telling: Floats, labels: Places) -> Places:
    """The most telling of each class, then the second of each; within a turn by how telling."""
    order = places[np.lexsort((places, -telling[places]))]
    turn = pd.Series(labels[order]).groupby(labels[order]).cumcount().to_numpy()
    return order[np.argsort(turn, kind="stable")]


def flag_names(language: Language) -> dict[str, tuple[str, str]]:
    """What each flag is called, and what it means.

    Args:
        language: In which.
    """
    text = language.text
    return {
        "right_for_wrong_reason": (
            text("Right for the wrong reason"),
            text(
                "The prediction is right, but by contributions in feature space the background "
                "points to it and the object does not. A hint, not tested in pixels."
            ),
        ),
        "wrong_because_of_background": (
            text("Wrong because of the background"),
            text(
                "The prediction is wrong, and by contributions in feature space the background "
                "points to it while the object does not. A hint, not tested in pixels."
            ),
        ),
        "context_driven": (
            text("Label goes with the background"),
            text(
                "The background points to the label and the object to another class, by "
                "contributions in feature space: the label may stem from the surroundings."
            ),
        ),
        "label_suspect": (
            text("Label looks wrong"),
            text(
                "By the model's probabilities the label is among the most doubtful, those that "
                "labels.parquet lists; it may as well be the model that errs."
            ),
        ),
        "wrong_but_confident": (
            text("Wrong but confident"),
            text("The prediction is wrong, with a probability of at least {share}.").format(
                share=f"{CONFIDENT:.0%}"
            ),
        ),
        "background_decides": (
            text("Background decides, in pixels"),
            text(
                "With its background under objects of other classes, nearly all answers are its "
                "class, and with other backgrounds most of them would not be."
            ),
        ),
    }


def _places(index: Places, wanted: Places) -> Places:
    """Where samples stand among the rows, which are in the split's order."""
    place = np.searchsorted(index, wanted)
    assert len(wanted) == 0 or (index[place] == wanted).all()
    return place


def _numbers(samples: pd.DataFrame, name: str) -> Floats:
    return samples[name].to_numpy(np.float64, na_value=np.nan)
