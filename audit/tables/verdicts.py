"""A verdict for each class, the sentence that says it, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from audit.run.rows import Column
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

_NOT_TESTED = "verdict is too few samples, or nothing was edited"
VERDICT_COLUMNS: tuple[Column, ...] = (
    Column(name="verdict", type=pa.string(), range=", ".join(VERDICTS),
           meaning="What the evidence allows to say of the class."),
    Column(name="verdict_text", type=pa.string(), range="text",
           meaning="The same as a sentence, with the numbers that justify it."),
    Column(name="verdict_limits", type=pa.string(), range="text",
           meaning="What this verdict cannot tell."),
    Column(name="reliance", type=_F64, range="[−1, 1]",
           meaning="What this class's background moves in pixel transplants: the effect (see "
           "evidence) under the usable family of masks that shows it most surely.",
           null_when=_NOT_TESTED),
    Column(name="reliance_low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95 % interval (BCa).", null_when=_NOT_TESTED),
    Column(name="reliance_high", type=_F64, range="[−1, 1]", meaning="Upper end.",
           null_when=_NOT_TESTED),
    Column(name="decided_share", type=_F64, range="[0, 1]",
           meaning="Share of images whose background decides alone, under the same masks.",
           null_when=_NOT_TESTED),
    Column(name="reliance_family", type=pa.string(), range="as in mask_source",
           meaning="The masks that it rests on.", null_when=_NOT_TESTED),
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
    least = np.maximum(thresholds.least_edited, thresholds.least_usable * numbers)
    return evidence[evidence["n"] >= least].copy()


def chance(evidence: pd.DataFrame, thresholds: Thresholds = THRESHOLDS) -> Floats:
    """How often a class no more reliant than clean ones would show so much, for each row.

    Two tests, for a cue in some of the images and for one that pulls in all of them: the number of
    images whose background decides alone is binomial with the clean reference; the mean effect
    is normal about the clean reference. The smaller, times two.

    Args:
        evidence: Rows of ``evidence.parquet``, ``n`` at least 2.
        thresholds: Hold the clean references.

    Returns:
        In [0, 1].

    Example:
        >>> row = {"family": "ellipse", "n": 100, "decided_share": 0.3, "effect": 0.3,
        ...     "effect_low": 0.2, "effect_high": 0.4}
        >>> bool(chance(pd.DataFrame([row]))[0] < 1e-9)
        True
    """
    n = evidence["n"].to_numpy(np.float64)
    decided = np.round(evidence["decided_share"].to_numpy(np.float64) * n)
    by_share = stats.binom.sf(decided - 1, n, thresholds.clean_decided)
    spread = (evidence["effect_high"] - evidence["effect_low"]).to_numpy(np.float64)
    # Where all images agree the bootstrap has no spread: one more image might differ.
    error = np.maximum(spread / (2 * stats.norm.ppf(0.975)), 1 / (n + 1))
    reference = evidence["family"].map(thresholds.clean_effect_under).to_numpy(np.float64)
    by_effect = stats.norm.sf((evidence["effect"].to_numpy(np.float64) - reference) / error)
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
                "reliance_p": self.found["p_class"],
                "reliance_q": self.q,
            }
        return {
            "verdict": kind,
            "verdict_text": self._sentence(kind),
            "verdict_limits": " ".join(self._limits(kind)),
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
        return MASK_LIMITED if self._masks_are_poor() else CLEAR

    def _few(self) -> bool:
        return int(self.edited["n_edited"]) < self.thresholds.least_edited

    def _accused(self) -> bool:
        assert self.found is not None
        limits = self.thresholds
        large = (
            self.found["effect"] >= limits.least_effect_under(self.found["family"])
            or self.found["decided_share"] >= limits.least_decided
        )
        return self.q <= limits.error_rate and large and self._holds()

    def _holds(self) -> bool:
        """Whether every fill shows it."""
        assert self.found is not None
        fills = [self.found[f"effect_{fill}"] for fill in ("noise", "mean", "other")]
        return bool(np.nanmin(fills) >= self.thresholds.held_by_fills * self.found["effect"])

    def _worth_a_look(self) -> bool:
        assert self.found is not None
        reference = self._reference()
        unsure = self.found["effect"] >= reference or self.found["p_class"] <= 0.05
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

    def _sentence(self, kind: str) -> str:
        if self.found is None:
            return self._untested()
        shown = self.found
        body = (
            f"Put behind objects of other classes, backgrounds of '{self.name}' turn "
            f"{_points(shown['effect'])} more of the answers into '{self.name}' than other "
            f"backgrounds do (95% interval {_points(shown['effect_low'])} to "
            f"{_points(shown['effect_high'])}; {int(shown['n'])} images, "
            f"{_family(shown['family'])} masks). They decide alone in "
            f"{_points(shown['decided_share'])} of the images."
        )
        lead = {
            RELIES: "Relies on background.",
            SUSPECT: "Suspect: above what clean classes show, but not sure enough to accuse.",
            CLEAR: "No evidence of reliance on background.",
            MASK_LIMITED: "Cannot be judged: the object masks are not good enough.",
        }[kind]
        if kind == SUSPECT and self._needs_its_background():
            lead = "Suspect: its objects are recognised less on other backgrounds."
        elif kind == SUSPECT and shown["effect"] < self._reference():
            lead = "Suspect in feature space only; edited pixels do not confirm it."
        return f"{lead} {body}{self._gap()}"

    def _gap(self) -> str:
        gap, low, high = (self.edited.get(f"bg_gap{end}") for end in ("", "_low", "_high"))
        if gap is None or low is None or high is None or np.isnan([gap, low, high]).any():
            return ""
        own, other = self.edited["acc_mixed_same"], self.edited["acc_mixed_rand"]
        return (
            f" Its own objects are recognised in {_points(own)} on backgrounds of their class and "
            f"in {_points(other)} on those of others ({_points(gap)} less, {_points(low)} to "
            f"{_points(high)})."
        )

    def _untested(self) -> str:
        if self._few():
            number = int(self.edited["n_edited"])
            return (
                f"Too few samples: {number or 'no'} images of '{self.name}' were tested in pixels, "
                f"{self.thresholds.least_edited} are needed."
            )
        return (
            f"Cannot be judged: in more than half of the tested images of '{self.name}' the mask "
            "leaves no object or no background."
        )

    def _limits(self, kind: str) -> list[str]:
        limits = []
        if self.trust.estimated:
            limits.append(
                "Object and background are told apart by estimated masks: what lies on the "
                "estimated object is not tested."
            )
        if kind == CLEAR:
            limits.append(
                "A cue that lies on the object, or that object and background share (blur, "
                "lighting), is not found this way."
            )
        elif kind == RELIES:
            limits.append(
                "Which part of the background it is, only the pictures tell; where masks cut the "
                "object, its remains count as background."
            )
        if self.told_by is not None:
            name, auc = self.told_by
            limits.append(
                f"The property {name} of whole images tells this class from the others (AUC "
                f"{auc:.2f}); object and background share it, so it is not tested."
            )
        if self.trust.misfit:
            limits.append("The masks do not follow the edges of their images.")
        return limits


def _points(value: float) -> str:
    # Without the minus of a rounded −0.
    return f"{round(100 * value) + 0:.0f}%"


def _family(name: str) -> str:
    return {"ellipse": "centre-ellipse", "component": "central-part", "box": "box"}.get(name, name)


def count_verdicts(classes: pd.DataFrame) -> dict[str, list[str]]:
    """The classes of each verdict that occurs, by name, the gravest first."""
    found = {
        verdict: classes.loc[classes["verdict"] == verdict, "label_name"].astype(str).tolist()
        for verdict in VERDICTS
    }
    return {verdict: names for verdict, names in found.items() if names}
