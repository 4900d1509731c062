"""A verdict for each class, the sentence that says it, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from audit.run.columns import Column
from audit.tables import verdict_words as words
from audit.tables.nulls import adjusted_p
from audit.tables.thresholds import THRESHOLDS, Thresholds

Floats = NDArray[np.float64]
_F64 = pa.float64()

RELIES = "relies on background"
SUSPECT = "suspect"
CLEAR = "no evidence"
MASK_LIMITED = "mask-limited"
TOO_FEW = "too few samples"
VERDICTS = (RELIES, SUSPECT, MASK_LIMITED, CLEAR, TOO_FEW)

_NOT_TOLD = f"no property reaches an AUC of {THRESHOLDS.told_apart}"
_NOT_TESTED = "verdict is too few samples, or nothing was edited"
VERDICT_COLUMNS: tuple[Column, ...] = (
    Column(name="verdict", type=pa.string(), range=", ".join(VERDICTS),
           meaning="What the evidence allows to say of the class."),
    Column(name="verdict_text", type=pa.string(), range="text",
           meaning="The same as a sentence, with the numbers that justify it."),
    Column(name="verdict_limits", type=pa.string(), range="text",
           meaning="What this verdict cannot tell."),
    Column(name="verdict_reason", type=pa.string(), range=", ".join(words.REASONS),
           meaning="What tipped the verdict over; with the numbers below it makes verdict_text."),
    Column(name="verdict_limit_keys", type=pa.list_(pa.string()), range=", ".join(words.LIMITS),
           meaning="The sentences of verdict_limits by name."),
    Column(name="told_by", type=pa.string(), range="as property in properties.parquet",
           meaning="The property of whole images that tells the class from the others best.",
           null_when=_NOT_TOLD),
    Column(name="told_by_auc", type=_F64, range=f"[{THRESHOLDS.told_apart}, 1]",
           meaning="How well: its AUC towards the side that it is on.", null_when=_NOT_TOLD),
    Column(name="reliance", type=_F64, range="[−1, 1]",
           meaning="What this class's background moves in pixel transplants: the effect (see "
           "evidence) under the usable family of masks that shows it most surely.",
           null_when=_NOT_TESTED),
    Column(name="reliance_low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95% interval (BCa).", null_when=_NOT_TESTED),
    Column(name="reliance_high", type=_F64, range="[−1, 1]", meaning="Upper end.",
           null_when=_NOT_TESTED),
    Column(name="decided_share", type=_F64, range="[0, 1]",
           meaning="Share of images whose background decides alone, under the same masks.",
           null_when=_NOT_TESTED),
    Column(name="reliance_family", type=pa.string(), range="as in mask_source",
           meaning="The masks that it rests on.", null_when=_NOT_TESTED),
    Column(name="reliance_n", type=pa.int64(), range="≥ 1",
           meaning="The different pictures that it rests on (n in evidence).",
           null_when=_NOT_TESTED),
    Column(name="reliance_p", type=_F64, range="[0, 1]",
           meaning="How often a class no more reliant than clean ones would show this much "
           "(the least over families and two tests, times their number).",
           null_when=_NOT_TESTED),
    Column(name="reliance_q", type=_F64, range="[0, 1]",
           meaning="The same corrected for the number of classes (Benjamini–Hochberg).",
           null_when=_NOT_TESTED),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MaskTrust:
    """What is known of the masks.

    Attributes:
        misfit: Whether the dataset's masks do not lie where their images' edges are.
        estimated: Whether the main masks are estimated.
    """

    misfit: bool
    estimated: bool


def judge_classes(
    classes: pa.Table,
    evidence: pd.DataFrame,
    edited: Sequence[Mapping[str, object]],
    trust: MaskTrust,
    thresholds: Thresholds = THRESHOLDS,
    properties: pd.DataFrame | None = None,
) -> list[dict[str, object]]:
    """Judge every class.

    Args:
        classes: ``classes.parquet`` as far as it is made, one row a class.
        evidence: Rows of ``evidence.parquet``.
        edited: For each class the values of :data:`audit.tables.edited.EDITED_COLUMNS`.
        trust: What is known of the masks.
        thresholds: What separates.
        properties: Rows of ``properties.parquet``.

    Returns:
        For each class the values of :data:`VERDICT_COLUMNS`.
    """
    usable = _usable(evidence, edited, thresholds)
    usable["p"] = chance(usable, thresholds)
    tested = [_strongest(usable, label) for label in range(len(edited))]
    p = np.array([np.nan if row is None else row["p_class"] for row in tested])
    q = adjusted_p(p)
    screened = _screened(evidence, len(edited), thresholds)
    told = _told_apart(properties, thresholds)
    rows: list[dict[str, object]] = []
    for row, found, own, q_value, stands_out in zip(
        classes.to_pylist(), tested, edited, q, screened, strict=True
    ):
        case = _Case(
            name=str(row["label_name"]), row=row, found=found, edited=own, q=float(q_value),
            stands_out=bool(stands_out), trust=trust, thresholds=thresholds,
            told_by=told.get(len(rows)),
        )  # fmt: skip
        rows.append(case.verdict())
    return rows


def _usable(
    evidence: pd.DataFrame, edited: Sequence[Mapping[str, object]], thresholds: Thresholds
) -> pd.DataFrame:
    """The rows of evidence that rest on enough images."""
    numbers = evidence["label"].map(lambda label: int(str(edited[int(label)]["n_edited"])))
    least = thresholds.least_usable * numbers
    enough = (evidence["n"] >= thresholds.least_edited) & (evidence["n_images"] >= least)
    return evidence[enough].copy()


def chance(evidence: pd.DataFrame, thresholds: Thresholds = THRESHOLDS) -> Floats:
    """How often a class no more reliant than clean ones would show so much, for each row.

    Two tests, for a cue in some of the images and for one that pulls in all of them: the number of
    images whose background decides alone is binomial with the share that backgrounds of other
    classes reach, plus the clean reference; the mean effect follows t about the clean reference.
    The smaller, times two.

    Args:
        evidence: Rows of ``evidence.parquet``, ``n`` at least 2.
        thresholds: Hold the clean references.

    Returns:
        In [0, 1].

    Example:
        >>> row = {"family": "ellipse", "n": 100, "decided_share": 0.3, "effect": 0.3,
        ...     "effect_low": 0.2, "effect_high": 0.4, "decided_elsewhere": 0.0}
        >>> bool(chance(pd.DataFrame([row]))[0] < 1e-9)
        True
    """
    if evidence.empty:
        return np.zeros(0)
    from scipy import stats

    n = evidence["n"].to_numpy(np.float64)
    decided = np.round(evidence["decided_share"].to_numpy(np.float64) * n)
    elsewhere = evidence["decided_elsewhere"].to_numpy(np.float64, na_value=0.0)
    usual = np.minimum(1.0, np.nan_to_num(elsewhere) + thresholds.clean_decided)
    by_share = stats.binom.sf(decided - 1, n, usual)
    spread = (evidence["effect_high"] - evidence["effect_low"]).to_numpy(np.float64)
    # Where all images agree the bootstrap has no spread: one more image might differ.
    error = np.maximum(spread / (2 * stats.norm.ppf(0.975)), 1 / (n + 1))
    reference = evidence["family"].map(thresholds.clean_effect_under).to_numpy(np.float64)
    excess = evidence["effect"].to_numpy(np.float64) - reference
    by_effect = stats.t.sf(excess / error, n - 1)
    return np.minimum(1.0, 2 * np.minimum(by_share, by_effect))


def _strongest(usable: pd.DataFrame, label: int) -> dict[str, Any] | None:
    """The surest family of one class, of equals the highest; ``None`` without evidence."""
    own = usable[usable["label"] == label]
    if own.empty:
        return None
    ranked = own.sort_values(["p", "effect"], ascending=[True, False], kind="stable")
    row = {str(name): value for name, value in ranked.iloc[0].to_dict().items()}
    return row | {"p_class": min(1.0, float(row["p"]) * len(own))}


def _screened(evidence: pd.DataFrame, classes: int, thresholds: Thresholds) -> Floats:
    """Which classes stand out in feature space, under any family."""
    stands = np.zeros(classes, bool)
    for _, rows in evidence.groupby("family"):
        rates = rows.set_index("label")["feature_transplant_rate"].astype(float)
        high = rates > rates.median() + thresholds.screened
        stands[rates.index.to_numpy(np.int64)[high.to_numpy()]] = True
    return stands


def _told_apart(
    properties: pd.DataFrame | None, thresholds: Thresholds
) -> dict[int, tuple[str, float]]:
    """For each class the property that tells it best from the others, if any does well."""
    if properties is None:
        return {}
    told: dict[int, tuple[str, float]] = {}
    for row in properties[properties["label"].notna()].to_dict("records"):
        auc = max(row["label_auc"], 1 - row["label_auc"])
        label = int(row["label"])
        if auc >= thresholds.told_apart and auc > told.get(label, ("", 0.0))[1]:
            told[label] = str(row["property"]), float(auc)
    return told


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Everything that is known of one class."""

    name: str
    row: Mapping[str, Any]
    found: Mapping[str, Any] | None
    edited: Mapping[str, Any]
    q: float
    stands_out: bool
    trust: MaskTrust
    thresholds: Thresholds
    told_by: tuple[str, float] | None

    def verdict(self) -> dict[str, object]:
        kind = self._kind()
        numbers: dict[str, object] = {}
        if self.found is not None:
            numbers = {
                "reliance": self.found["effect"],
                "reliance_low": self.found["effect_low"],
                "reliance_high": self.found["effect_high"],
                "decided_share": self.found["decided_share"],
                "reliance_family": self.found["family"],
                "reliance_n": self.found["n"],
                "reliance_p": self.found["p_class"],
                "reliance_q": self.q,
            }
        reason, limits = self._reason(kind), self._limits(kind)
        said = {"label_name": self.name, "verdict_reason": reason} | dict(self.edited) | numbers
        name, auc = self.told_by or (None, None)
        return {
            "verdict": kind,
            "verdict_text": " ".join(words.sentences(said, self.thresholds.least_edited)),
            "verdict_limits": " ".join(words.limits(limits, self.told_by)),
            "verdict_reason": reason,
            "verdict_limit_keys": limits,
            "told_by": name,
            "told_by_auc": auc,
            **numbers,
        }

    def _kind(self) -> str:
        if self.found is None:
            return TOO_FEW if self._few() else MASK_LIMITED
        if self.trust.misfit:
            return MASK_LIMITED
        if self._accused():
            return RELIES
        if self._worth_a_look():
            return SUSPECT
        return MASK_LIMITED if self._masks_are_poor() or self._cutting_destroys() else CLEAR

    def _few(self) -> bool:
        return int(self.edited["n_edited"]) < self.thresholds.least_edited

    def _accused(self) -> bool:
        assert self.found is not None
        thresholds = self.thresholds
        large = (
            self.found["effect"] >= thresholds.least_effect_under(self.found["family"])
            or self.found["decided_share"] >= thresholds.least_decided
        )
        moved = self.found["effect_low"] > 0
        return bool(self.q <= thresholds.error_rate and large and moved and self._holds())

    def _holds(self) -> bool:
        """Whether every fill shows it."""
        assert self.found is not None
        fills = [self.found[f"effect_{fill}"] for fill in ("noise", "mean", "other")]
        return bool(np.nanmin(fills) >= self.thresholds.held_by_fills * self.found["effect"])

    def _worth_a_look(self) -> bool:
        assert self.found is not None
        reference = self._reference()
        high = self.found["effect"] >= reference and self.found["effect_low"] > 0
        unsure = high or self.found["p_class"] <= self.thresholds.error_rate
        cleared = self.found["effect_high"] < reference
        return bool(unsure or self._needs_its_background() or (self.stands_out and not cleared))

    def _reference(self) -> float:
        assert self.found is not None
        return self.thresholds.clean_effect_under(self.found["family"])

    def _needs_its_background(self) -> bool:
        low = self.edited.get("bg_gap_low")
        return low is not None and bool(low >= self.thresholds.least_gap)

    def _masks_are_poor(self) -> bool:
        confidence = self.row.get("mask_confidence")
        return bool(
            self.trust.estimated
            and confidence is not None
            and confidence < self.thresholds.least_confidence
        )

    def _cutting_destroys(self) -> bool:
        """Whether its objects are lost by being cut out, so that no transplant says anything."""
        kept, whole = self.edited.get("acc_mixed_same"), self.edited.get("acc_unedited")
        if kept is None or whole is None:
            return False
        return bool(kept < self.thresholds.least_kept * whole)

    def _reason(self, kind: str) -> str:
        """What tipped it over."""
        if self.found is None:
            return words.FEW_TESTED if kind == TOO_FEW else words.NONE_COUNTS
        if kind == SUSPECT:
            return self._why_suspect()
        if kind == MASK_LIMITED:
            return self._why_not_judged()
        return words.RELIES_ON_BACKGROUND if kind == RELIES else words.NO_EVIDENCE

    def _why_suspect(self) -> str:
        assert self.found is not None
        if self._needs_its_background():
            return words.NEEDS_ITS_BACKGROUND
        little = self.found["effect"] < self._reference()
        return words.FEATURE_SPACE_ONLY if little else words.NOT_SURE_ENOUGH

    def _why_not_judged(self) -> str:
        if self.trust.misfit:
            return words.MISFIT
        return words.POOR_MASKS if self._masks_are_poor() else words.DESTROYED

    def _limits(self, kind: str) -> list[str]:
        """What the verdict cannot tell."""
        applies = {
            words.RAISE_EDITS: kind == TOO_FEW,
            words.ESTIMATED_MASKS: kind != TOO_FEW and self.trust.estimated,
            words.CUE_ON_OBJECT: kind == CLEAR,
            words.WHICH_PART: kind == RELIES,
            words.TOLD_APART: self.told_by is not None,
            words.LOOK_AT_MASKS: self.trust.misfit,
        }
        return [key for key in words.LIMITS if applies[key]]


def count_verdicts(classes: pd.DataFrame) -> dict[str, list[str]]:
    """The classes of each verdict that occurs, by name, the gravest first."""
    found = {
        verdict: classes.loc[classes["verdict"] == verdict, "label_name"].astype(str).tolist()
        for verdict in VERDICTS
    }
    return {verdict: names for verdict, names in found.items() if names}
