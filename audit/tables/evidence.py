"""``evidence.parquet``: what the edited pictures say of each class under each family of masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column, table_of
from audit.run.edit_rows import FILLS
from audit.tables.bootstrap import bca_intervals

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
_F64 = pa.float64()

# A background decides alone where at least this share of an image's transplants follow it, and at
# least this share would not have followed another class's background.
DECIDES = 0.8
LEAST_OWN = 0.5
# Fewer edited images than this are no evidence.
LEAST_EDITED = 20
# Fewer counted transplants of an image (of six) say nothing of it.
LEAST_COUNTED = 3

_NO_EDITS = "no image of the class was edited with a usable mask of this family"
EVIDENCE_COLUMNS: tuple[Column, ...] = (
    Column(name="label", type=pa.int32(), range="[0, K)", meaning="The class."),
    Column(name="label_name", type=pa.string(), range="class names", meaning="Its name."),
    Column(name="family", type=pa.string(), range="as in mask_source", meaning="Whose masks."),
    Column(name="n_images", type=pa.int64(), range="≥ 0",
           meaning="Edited images with at least three counted transplants."),
    Column(name="n", type=pa.int64(), range="≥ 0",
           meaning="Of them, different pictures: near-duplicates count as one, by their mean."),
    Column(name="pixel_transplant_rate", type=_F64, range="[0, 1]",
           meaning="Share of pixel transplants (this class's backgrounds under objects of other "
           "classes) that are predicted as this class.", null_when=_NO_EDITS),
    Column(name="effect", type=_F64, range="[−1, 1]",
           meaning="That share minus the share that backgrounds of all other classes get with the "
           "same objects: what the background itself moves.", null_when=_NO_EDITS),
    Column(name="effect_low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95% bootstrap interval (BCa, over different pictures).",
           null_when="n is below 2"),
    Column(name="effect_high", type=_F64, range="[−1, 1]", meaning="Upper end.",
           null_when="n is below 2"),
    Column(name="decided_share", type=_F64, range="[0, 1]",
           meaning="Share of images whose background decides alone: at least 5 of 6 transplants "
           "follow it, and half of them would not follow backgrounds of other classes.",
           null_when=_NO_EDITS),
    Column(name="decided_share_low", type=_F64, range="[0, 1]",
           meaning="Lower end of its 95% interval (Clopper–Pearson).", null_when=_NO_EDITS),
    Column(name="decided_share_high", type=_F64, range="[0, 1]", meaning="Upper end.",
           null_when=_NO_EDITS),
    Column(name="decided_elsewhere", type=_F64, range="[0, 1]",
           meaning="Share of other classes' images whose background decides for this class: it is "
           "the answer to four fifths of their transplants without this class's objects.",
           null_when="no image of another class was edited with a usable mask"),
    *(
        Column(name=f"effect_{fill}", type=_F64, range="[−1, 1]",
               meaning=f"The effect where holes are filled with {words}.", null_when=_NO_EDITS)
        for fill, words in zip(
            FILLS, ("clouds of colour", "the mean colour", "another image's background"),
            strict=True,
        )
    ),
    Column(name="background_only_rate", type=_F64, range="[0, 1]",
           meaning="Share of pictures with the object filled that are predicted as this class.",
           null_when=_NO_EDITS),
    Column(name="feature_transplant_rate", type=_F64, range="[0, 1]",
           meaning="Mean transplant rate in feature space over all of the class's samples.",
           null_when="no sample has one"),
)  # fmt: skip


@dataclass(frozen=True)
class Transplants:
    """The pixel transplants under one family of masks.

    Attributes:
        labels: Class of each background, N.
        objects: Class of each object, N×P; -1 where there is none.
        predictions: N×P; -1 where the transplant does not count.
        at_home: Predictions for each image's own object on other backgrounds of its class, N×Q; -1
            where there is none.
    """

    labels: Ids
    objects: Ids
    predictions: Ids
    at_home: Ids

    @classmethod
    def of(cls, edits: pd.DataFrame, prefix: str) -> Transplants:
        """From rows of edits."""
        return cls(
            edits["label"].to_numpy(np.int64),
            np.stack(list(edits["transplant_objects"])).astype(np.int64),
            np.stack(list(edits[f"{prefix}transplant_predictions"])).astype(np.int64),
            np.stack(list(edits["mixed_same_predictions"])).astype(np.int64),
        )

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which transplants count, N×P."""
        return (self.predictions >= 0) & (self.objects >= 0)

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Which of them are predicted as the background's class, N×P."""
        return self.counted & (self.predictions == self.labels[:, None])

    def effects(self, classes: int) -> Floats:
        """For each transplant: does it follow the background, more than objects do by themselves?

        An object may be taken for class c wherever it lies: one like it, or one that the mask cut
        away. So the share of transplants with the same object's class that are predicted as c on
        backgrounds of all classes but c is taken off. Where there are no such transplants (with
        two classes there never are), objects of that class on backgrounds of their own take their
        place.

        Args:
            classes: K.

        Returns:
            N×P in [−1, 1]; NaN where it does not count.

        Source:
            A difference of two interventional means: do(background = c) against do(another).

        Example:
            >>> two = Transplants(np.array([0, 2]), np.array([[1], [1]]), np.array([[0], [1]]),
            ...     np.array([[0], [2]]))
            >>> two.effects(3).tolist()
            [[1.0], [0.0]]
        """
        counted = self.counted
        background = np.broadcast_to(self.labels[:, None], counted.shape)[counted]
        objects, answers = self.objects[counted], self.predictions[counted]
        shape = (classes, classes)
        pairs, hits, own = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        np.add.at(pairs, (background, objects), 1)
        # How often an object's class is answered with each class, on any background …
        np.add.at(hits, (answers, objects), 1)
        # … and on backgrounds of the class that is answered.
        followed = answers == background
        np.add.at(own, (background[followed], objects[followed]), 1)
        elsewhere = pairs.sum(axis=0)[None] - pairs
        usual = np.where(
            elsewhere > 0, (hits - own) / np.maximum(elsewhere, 1), self._usual_at_home(classes)
        )
        found = np.full(counted.shape, np.nan)
        found[counted] = followed - usual[background, objects]
        return found

    def _usual_at_home(self, classes: int) -> Floats:
        """How often objects of each class are given each class on backgrounds of their own, K×K."""
        known = self.at_home >= 0
        objects = np.broadcast_to(self.labels[:, None], known.shape)[known]
        hits, total = np.zeros((classes, classes)), np.zeros(classes)
        np.add.at(hits, (self.at_home[known], objects), 1)
        np.add.at(total, objects, 1)
        return np.where(total > 0, hits / np.maximum(total, 1), np.nan)

    def decided_alone(self, effects: Floats) -> NDArray[np.bool_]:
        """Which images' backgrounds decide alone, N: nearly all their transplants follow them.

        Args:
            effects: Of :meth:`effects`; where NaN a transplant does not count.
        """
        counted = self.counted & np.isfinite(effects)
        number = counted.sum(axis=1)
        followed = (self.hits & counted).sum(axis=1) >= DECIDES * number
        own = np.where(counted, effects, 0).sum(axis=1) / np.maximum(number, 1)
        decided: NDArray[np.bool_] = followed & (own >= LEAST_OWN) & (number >= LEAST_COUNTED)
        return decided

    def decided_for(self, label: int) -> NDArray[np.bool_]:
        """Of images of other classes with enough transplants: do theirs nearly all say this one?"""
        free = self.counted & (self.objects != label) & (self.labels != label)[:, None]
        number = free.sum(axis=1)
        hits = (free & (self.predictions == label)).sum(axis=1)
        enough = number >= LEAST_COUNTED
        decided: NDArray[np.bool_] = hits[enough] >= DECIDES * number[enough]
        return decided


def weigh_evidence(
    edits: pd.DataFrame | None,
    samples: pd.DataFrame,
    classes: Sequence[str],
    families: Sequence[str],
    *,
    seed: int,
    clusters: Ids | None = None,
) -> pa.Table:
    """One row a class and family of masks.

    Args:
        edits: Rows of all edits; ``None`` where nothing was edited.
        samples: All rows.
        classes: Class names.
        families: Names of the families, the main one first.
        seed: Draws the bootstrap resamples.
        clusters: Which cluster of near-duplicates each edited sample belongs to.

    Returns:
        A table with :data:`EVIDENCE_COLUMNS`.
    """
    rows = [
        row
        for place, family in enumerate(families)
        for row in _family_rows(
            edits, samples, classes, family, "" if place == 0 else f"{family}_", seed, clusters
        )
    ]
    rows.sort(key=lambda row: int(str(row["label"])))
    return table_of(rows, EVIDENCE_COLUMNS)


def images_decided(edits: pd.DataFrame, classes: int, prefix: str) -> NDArray[np.bool_]:
    """Which edited images' backgrounds decide alone, as ``decided_share`` counts them.

    Args:
        edits: Rows of edits, E.
        classes: K.
        prefix: Of the columns of a family of masks; empty for the main one.

    Returns:
        E; false where fewer than three transplants count.
    """
    found = Transplants.of(edits, prefix)
    return found.decided_alone(found.effects(classes))


def _family_rows(
    edits: pd.DataFrame | None,
    samples: pd.DataFrame,
    classes: Sequence[str],
    family: str,
    prefix: str,
    seed: int,
    clusters: Ids | None,
) -> list[dict[str, object]]:
    rate = f"{prefix}transplant_rate"
    screened = samples.groupby("label", observed=True)[rate].mean() if rate in samples else None
    rows: list[dict[str, object]] = [
        {"label": label, "label_name": name, "family": family, "n": 0, "n_images": 0,
         "feature_transplant_rate": None if screened is None else screened.get(label)}
        for label, name in enumerate(classes)
    ]  # fmt: skip
    if edits is None or not len(edits):
        return rows
    found = Transplants.of(edits, prefix)
    effects, counted, hits = found.effects(len(classes)), found.counted, found.hits
    alone = np.stack(list(edits[f"{prefix}background_only_predictions"])).astype(np.int64)
    # Without anything to compare with a transplant tells nothing.
    counted &= np.isfinite(effects)
    enough = counted.sum(axis=1) >= LEAST_COUNTED
    decided = found.decided_alone(effects)
    ids = np.arange(len(edits)) if clusters is None else clusters
    for label in np.unique(found.labels[enough]).tolist():
        own = (found.labels == label) & enough
        rng = np.random.default_rng((seed, label))
        rows[label] |= _class_row(
            effects[own], hits[own], counted[own], decided[own], ids[own], rng
        )
        rows[label]["decided_elsewhere"] = _mean(found.decided_for(label).astype(np.float64))
        rows[label]["background_only_rate"] = _share(alone[own] == label, alone[own] >= 0)
    return rows


def _class_row(
    effects: Floats,
    hits: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    decided: NDArray[np.bool_],
    clusters: Ids,
    rng: np.random.Generator,
) -> dict[str, object]:
    # Behind it are hundreds of modules, which a run without edits does not need.
    from scipy import stats

    own = np.nanmean(effects, axis=1)
    ids = np.unique(clusters, return_inverse=True)[1]
    sizes = np.bincount(ids)
    # Of copies the mean counts; they decide where most of them do.
    by_picture = np.bincount(ids, own) / sizes
    n, k = len(sizes), int((np.bincount(ids, decided) / sizes >= 0.5).sum())
    interval = stats.binomtest(k, n).proportion_ci(method="exact")
    low, high = bca_intervals(by_picture[:, None], rng).means[0]
    return {
        "n_images": len(own),
        "n": n,
        "pixel_transplant_rate": _share(hits, counted),
        "effect": float(by_picture.mean()),
        "effect_low": float(low),
        "effect_high": float(high),
        "decided_share": k / n,
        "decided_share_low": float(interval.low),
        "decided_share_high": float(interval.high),
        **{
            f"effect_{fill}": _mean(effects[:, place :: len(FILLS)])
            for place, fill in enumerate(FILLS)
        },
    }


def _share(hits: NDArray[np.bool_], counted: NDArray[np.bool_]) -> float:
    total = int(counted.sum())
    return float((hits & counted).sum() / total) if total else np.nan


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
