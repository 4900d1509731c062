"""The samples that a report may show: the first of each class by some number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.tables.scale.numbers import Floats, Ids, column, whole
from audit.tables.scale.sampling import first_of_each
from audit.tables.scale.setting import Digesting

# As many as the report shows of a class and of the split, and from which probability on a wrong
# prediction is confident.
OF_CLASS, OF_SPLIT = 6, 12
_CONFIDENT = 0.9

# Lists of the class's samples, of the split's, and of flagged samples by class.
CLASS_LISTS = ("worst", "best", "most_transplanted")
SPLIT_LISTS = (
    "right_for_the_wrong_reason", "wrong_but_confident", "least_trusted_masks",
    "most_trusted_masks",
)  # fmt: skip
FLAG_LISTS = (
    "flag_right_for_wrong_reason", "flag_wrong_because_of_background", "flag_context_driven",
    "flag_wrong_but_confident", "flag_label_suspect",
)  # fmt: skip
LISTS = (*CLASS_LISTS, *SPLIT_LISTS, *FLAG_LISTS)
# Of equal ones the last comes first, as the report orders them.
_BACKWARDS = frozenset(("best", "least_trusted_masks"))
# Entries that wait before all but the first of each list and class are dropped.
_WAITING = 500_000

Entries = dict[str, NDArray[np.generic]]


def list_extremes(rows: pa.Table, setting: Digesting) -> Entries:
    """A part's candidates for every list.

    Args:
        rows: Of the part.
        setting: What they do not say.

    Returns:
        ``group`` (list·(K + 1) + class, the last for none), ``key`` (higher first) and ``index``.
    """
    index, label = whole(rows, "index"), whole(rows, "label")
    found = []
    for place, (keys, chosen) in enumerate(_candidates(rows, label).values()):
        of = label[chosen] if LISTS[place] not in SPLIT_LISTS else np.full(chosen.sum(), -1)
        group = place * (len(setting.classes) + 1) + of % (len(setting.classes) + 1)
        found.append((group, keys[chosen], index[chosen]))
    group, key, places = (np.concatenate(part) for part in zip(*found, strict=True))
    return first({"group": group, "key": key, "index": places}, setting)


def first(entries: Mapping[str, NDArray[np.generic]], setting: Digesting) -> Entries:
    """The first of each list and class."""
    group = entries["group"].astype(np.int64)
    number = group // (len(setting.classes) + 1)
    most = np.array([_most(name, setting) for name in LISTS])[number]
    backwards = np.array([name in _BACKWARDS for name in LISTS])[number]
    index = entries["index"].astype(np.int64)
    order = (-entries["key"].astype(np.float64), np.where(backwards, -index, index))
    kept = first_of_each(group, order, most)
    return {name: values[kept] for name, values in entries.items()}


def _most(name: str, setting: Digesting) -> int:
    if name in SPLIT_LISTS:
        return OF_SPLIT
    return setting.flagged if name in FLAG_LISTS else OF_CLASS


def _candidates(rows: pa.Table, label: Ids) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """For each list what orders it, and which rows may be on it."""
    share, rate = column(rows, "background_share"), column(rows, "transplant_rate")
    confidence, trust = column(rows, "confidence"), column(rows, "mask_confidence")
    probability, correct = column(rows, "label_probability"), column(rows, "correct")
    surplus = np.nan_to_num(
        column(rows, "near_logit") + column(rows, "far_logit") - column(rows, "object_logit")
    )
    scored, labelled = np.isfinite(share), label >= 0
    flags = {
        name: column(rows, name) == 1
        for name in ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")
    }
    masked = np.isfinite(trust) & _has(rows, "map")
    sure = np.isfinite(confidence)
    disagrees = np.isfinite(probability) & (whole(rows, "predicted") != label) & labelled
    found = (
        (share, scored & labelled),
        (-share, scored & labelled),
        (rate, np.isfinite(rate) & labelled),
        (confidence, flags["right_for_wrong_reason"] & scored & sure),
        (confidence, (correct != 1) & labelled & scored & sure),
        (-trust, masked),
        (trust, masked),
        *((surplus, raised) for raised in flags.values()),
        (confidence, (correct == 0) & (confidence >= _CONFIDENT)),
        (-probability, disagrees),
    )
    return dict(zip(LISTS, found, strict=True))


def _has(rows: pa.Table, name: str) -> NDArray[np.bool_]:
    if name not in rows.column_names:
        return np.zeros(rows.num_rows, bool)
    return np.asarray(rows[name].is_valid().to_numpy(), bool)


@dataclass
class Extremes:
    """The lists of all parts so far.

    Attributes:
        setting: What rows do not say.
    """

    setting: Digesting

    def __post_init__(self) -> None:
        self._parts: list[Entries] = []
        self._waiting = 0

    def add(self, entries: Entries) -> None:
        """Add a part's candidates."""
        self._parts.append(entries)
        self._waiting += len(entries["index"])
        if self._waiting > _WAITING:
            self._waiting = 0
            self._parts = [self._reduced()]

    def frame(self) -> pd.DataFrame:
        """All candidates in the order of lists, classes and ranks.

        Returns:
            ``list``, ``label`` (−1 for lists of the split, or unknown), ``rank``, ``key`` and
            ``index``.
        """
        found = self._reduced()
        classes = len(self.setting.classes)
        group = found["group"].astype(np.int64)
        label = group % (classes + 1)
        frame = pd.DataFrame(
            {
                "list": np.array(LISTS, object)[group // (classes + 1)],
                "label": np.where(label == classes, -1, label),
                "key": found["key"].astype(np.float64),
                "index": found["index"].astype(np.int64),
            }
        )
        frame.insert(2, "rank", frame.groupby(["list", "label"]).cumcount())
        return frame

    def _reduced(self) -> Entries:
        if not self._parts:
            nothing = np.zeros(0, np.int64)
            return {"group": nothing, "key": np.zeros(0), "index": nothing}
        names = self._parts[0]
        together = {name: np.concatenate([p[name] for p in self._parts]) for name in names}
        return first(together, self.setting)


def winners(extremes: pd.DataFrame, shown: Ids, flagged: int) -> Ids:
    """Positions of the samples whose rows a report needs.

    Args:
        extremes: From :meth:`Extremes.frame`.
        shown: Classes that get pictures.
        flagged: Flagged samples in all.

    Returns:
        Positions in the split, ascending: the first of the shown classes and of the split, and as
        many flagged ones, lists taking turns, and within a list classes.
    """
    lists = extremes["list"]
    of_class = lists.isin(CLASS_LISTS[:2]) & extremes["label"].isin(shown.tolist())
    chosen = extremes[of_class | lists.isin(SPLIT_LISTS)]["index"]
    flags = extremes[lists.isin(FLAG_LISTS)].sort_values(["rank", "key"], ascending=[True, False])
    turn = flags.groupby("list").cumcount()
    taken = flags.iloc[np.argsort(turn, kind="stable")].drop_duplicates("index")[:flagged]
    return np.unique(np.concatenate([chosen, taken["index"]]).astype(np.int64))
