"""What an audit found against what was measured: ``summary.parquet``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from audit.certify.plan import CHECKS
from audit.certify.tables import as_table
from audit.run.columns import Column
from audit.tables.verdicts import RELIES, TOO_FEW

# Cues that move other classes' answers by more than this are relied on.
RELIED_ON = 0.2
# The group that nobody may accuse, for its cue moves with the object.
CONTROL = "cue on the object"

_RESAMPLES = 2000
_LEAST_FOR_CORRELATION = 10
_F64 = pa.float64()

Floats = NDArray[np.floating[Any]]

SUMMARY_COLUMNS: tuple[Column, ...] = (
    Column(name="measure", type=pa.string(), range="text", meaning="What is told."),
    Column(name="of", type=pa.string(), range="text",
           meaning="The score, cue or check that it is told of."),
    Column(name="strength", type=_F64, range="[0, 1]", meaning="At this strength.",
           null_when="at all of them"),
    Column(name="value", type=_F64, range="[−1, 1]", meaning="The number.",
           null_when="there is nothing to count"),
    Column(name="low", type=_F64, range="[−1, 1]",
           meaning="Lower end of its 95% interval: bootstrap over models for AUROC, "
           "Clopper–Pearson for shares, Fisher's z for correlations.", null_when="value is null, "
           "or all are of one model"),
    Column(name="high", type=_F64, range="[−1, 1]", meaning="Upper end.", null_when="low is null"),
    Column(name="n", type=pa.int64(), range="≥ 0", meaning="Classes or samples counted."),
    Column(name="positive", type=pa.int64(), range="≥ 0",
           meaning="Of them, those relied on, accused, or otherwise positive.",
           null_when="it is a correlation"),
    Column(name="not_tested", type=pa.int64(), range="≥ 0",
           meaning="Further classes that are not counted: too few of their images were edited for "
           "a verdict.", null_when="it is not a share of verdicts"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One row of the summary; the fields are its columns."""

    measure: str
    of: str
    strength: float | None = None
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    positive: int | None = None
    not_tested: int | None = None


def summarise(classes: pd.DataFrame, samples: pd.DataFrame) -> pa.Table:
    """All figures of a benchmark.

    Args:
        classes: Rows of ``certify.parquet``.
        samples: Rows of its ``samples.parquet``.

    Returns:
        Rows of :data:`SUMMARY_COLUMNS`.
    """
    figures = [
        *_class_figures(classes),
        *_accusations(classes),
        *_detection(classes),
        *_properties(classes),
        *_sample_figures(samples),
        *_correlations(classes, samples),
    ]
    return as_table([vars(figure) for figure in figures], SUMMARY_COLUMNS)


def relied_on(classes: pd.DataFrame) -> pd.Series[bool]:
    """Which classes are relied on through a cue in the background, as measured.

    A model without a cue in its training may still answer to it (a blue frame looks like sea); in
    its images the cue never occurs, so there is nothing that an audit of them could find.
    """
    planted = classes["strength"] > 0
    return planted & (classes["place"] == "background") & (classes["pull"] > RELIED_ON)


def tested(classes: pd.DataFrame) -> pd.Series[bool]:
    """Which classes got a verdict on evidence: the others can be neither accused nor spared."""
    return classes["verdict"].notna() & (classes["verdict"] != TOO_FEW)


def judged(classes: pd.DataFrame) -> pd.DataFrame:
    """Classes of trained models that have a right answer.

    Left out are cues that lie on object and background alike: neither answer would be wrong.
    """
    trained = classes["kind"].isin(["planted", "clean"])
    both = (classes["place"] == "both") & (classes["pull"] > RELIED_ON)
    return classes[trained & ~both]


def _class_figures(classes: pd.DataFrame) -> Iterator[Figure]:
    """How well scores rank classes that are relied on above all others."""
    rows = judged(classes)
    positive = relied_on(rows)
    for score in ("reliance", "transplant_rate", "background_share", "far_logit"):
        yield _auroc_figure("class AUROC", score, rows[score], positive, rows["case"])
    for cue in rows.loc[rows["place"] == "background", "cue"].unique():
        kept = ~positive | (rows["cue"] == cue)
        some = rows[kept]
        figure = _auroc_figure(
            "class AUROC by cue", cue, some["reliance"], positive[kept], some["case"]
        )
        yield figure


def _accusations(classes: pd.DataFrame) -> Iterator[Figure]:
    """How often classes are accused that must not be."""
    planted = classes[classes["kind"] == "planted"]
    groups = {
        "clean models": classes[classes["kind"] == "clean"],
        "classes without cue in planted models": planted[planted["cue"].isna()],
        CONTROL: planted[planted["place"] == "object"],
        "cue on object and background": planted[planted["place"] == "both"],
        "cue in the background, not relied on": planted[
            (planted["place"] == "background") & (planted["pull"] <= RELIED_ON)
        ],
    }
    groups |= {kind.replace("_", " "): classes[classes["kind"] == kind] for kind in CHECKS}
    for name, rows in groups.items():
        # That there is no negative control has to be told.
        if len(rows) or name == CONTROL:
            yield _accused_figure("accused", name, rows)


def _detection(classes: pd.DataFrame) -> Iterator[Figure]:
    """How often a cue that is relied on is found, by cue and strength."""
    rows = classes[relied_on(classes) & (classes["kind"] == "planted")]
    if len(rows):
        yield _accused_figure("found", "all cues", rows)
    for cue, strength in rows[["cue", "strength"]].drop_duplicates().itertuples(index=False):
        some = rows[(rows["cue"] == cue) & (rows["strength"] == strength)]
        yield _accused_figure("found", cue, some, strength)


def _properties(classes: pd.DataFrame) -> Iterator[Figure]:
    """How often image properties tell a class: another way to a cue that covers the picture."""
    trained = classes[classes["kind"].isin(["planted", "clean"])]
    relied = trained[(trained["kind"] == "planted") & (trained["pull"] > RELIED_ON)]
    groups = {str(cue): relied[relied["cue"] == cue] for cue in relied["cue"].dropna().unique()}
    groups["classes without cue"] = trained[trained["cue"].isna() | (trained["kind"] == "clean")]
    for name, rows in groups.items():
        if len(rows):
            hits = int((rows["told_by"] != "").sum())
            yield _share_figure("told by a property", name, hits, len(rows))


def _sample_figures(samples: pd.DataFrame) -> Iterator[Figure]:
    """How well scores rank the images that are answered because of their background's cue."""
    rows = samples[(samples["kind"] == "planted") & samples["transplant_rate"].notna()]
    # Of cues elsewhere the right answer is open, so their classes are left out.
    rows = rows[rows["place"].isna() | (rows["place"] == "background")]
    within = rows[rows["place"] == "background"]
    for where, some in (("all", rows), ("within planted classes", within)):
        for name, score in _scores_of(some).items():
            yield _auroc_figure(f"sample AUROC, {where}", name, score, some["reliant"],
                                some["case"])  # fmt: skip


def _scores_of(samples: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """The audit's score of a sample, and what is simpler."""
    return {
        "transplant_rate": samples["transplant_rate"],
        "1 − confidence": 1 - samples["confidence"],
        "wrong": 1 - samples["correct"].astype(float),
        "1 − object_area": 1 - samples["object_area"],
    }


def _correlations(classes: pd.DataFrame, samples: pd.DataFrame) -> Iterator[Figure]:
    """Does the score follow what was measured, and does it follow what it should not?"""
    rows = judged(classes)
    rows = rows[rows["pull"].notna() & (rows["place"] == "background")]
    yield _correlation_figure("score and measured reliance", "reliance", rows["reliance"],
                              rows["pull"])  # fmt: skip
    clean = samples[samples["kind"] == "clean"]
    for name in ("object_area", "brightness", "contrast", "confidence"):
        yield _correlation_figure(
            "clean: transplant_rate follows", name, clean["transplant_rate"], clean[name]
        )


def _auroc_figure(
    measure: str,
    of: str,
    score: pd.Series[float],
    positive: pd.Series[bool],
    models: pd.Series[str],
) -> Figure:
    known = score.notna().to_numpy()
    values = score.to_numpy(np.float64)[known]
    wanted = positive.to_numpy(np.bool_)[known]
    value = auroc(values, wanted)
    groups = pd.factorize(models[known])[0]
    low, high = auroc_interval(values, wanted, groups)
    return Figure(
        measure=measure, of=of, value=value, low=low, high=high, n=len(values),
        positive=int(wanted.sum()),
    )  # fmt: skip


def _accused_figure(
    measure: str, of: str, classes: pd.DataFrame, strength: float | None = None
) -> Figure:
    """The share of accused classes among those that could be tested."""
    known = classes[tested(classes)]
    hits = int((known["verdict"] == RELIES).sum())
    figure = _share_figure(measure, of, hits, len(known))
    return replace(figure, strength=strength, not_tested=len(classes) - len(known))


def _share_figure(measure: str, of: str, hits: int, n: int) -> Figure:
    if not n:
        return Figure(measure=measure, of=of, value=None, n=0, positive=0)
    low, high = clopper_pearson(hits, n)
    return Figure(measure=measure, of=of, value=hits / n, low=low, high=high, n=n, positive=hits)


def _correlation_figure(
    measure: str, of: str, left: pd.Series[float], right: pd.Series[float]
) -> Figure:
    known = (left.notna() & right.notna()).to_numpy()
    found = spearman(left.to_numpy(np.float64)[known], right.to_numpy(np.float64)[known])
    value, low, high = found or (None, None, None)
    return Figure(measure=measure, of=of, value=value, low=low, high=high, n=int(known.sum()))


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """How often a positive's score is above a negative's; ties count half.

    Args:
        scores: N numbers.
        positive: bool, N.

    Returns:
        In [0, 1]; ``None`` where one of both kinds is absent.

    Source:
        Mann and Whitney 1947; Hanley and McNeil 1982.

    Example:
        >>> auroc(np.array([0.1, 0.9, 0.9]), np.array([False, True, False]))
        0.75
    """
    up, down = int(positive.sum()), int((~positive).sum())
    if not up or not down:
        return None
    ranks = stats.rankdata(scores)
    return float((ranks[positive].sum() - up * (up + 1) / 2) / (up * down))


def auroc_interval(
    scores: Floats, positive: NDArray[np.bool_], groups: NDArray[np.int64], *, seed: int = 0
) -> tuple[float | None, float | None]:
    """A bootstrap interval of :func:`auroc` that draws whole models.

    Args:
        scores: N numbers.
        positive: bool, N.
        groups: N, the number of each one's model; its classes hang together.
        seed: Of the 2,000 resamples; those without both kinds are left out.

    Returns:
        The 2.5th and 97.5th percentile; ``None`` where there is one model, or one kind.

    Example:
        >>> both = np.array([False, True] * 3)
        >>> auroc_interval(both.astype(float), both, np.arange(6) // 2)
        (1.0, 1.0)
    """
    models = int(groups.max()) + 1 if len(groups) else 0
    if models < 2 or auroc(scores, positive) is None:
        return None, None
    wins = _wins_between(scores, positive, groups, models)
    ups = np.bincount(groups[positive], minlength=models)
    downs = np.bincount(groups[~positive], minlength=models)
    drawn = np.random.default_rng(seed).multinomial(models, np.full(models, 1 / models), _RESAMPLES)
    pairs = (drawn @ ups) * (drawn @ downs)
    won = np.einsum("rg,gh,rh->r", drawn, wins, drawn, optimize=True)
    values = won[pairs > 0] / pairs[pairs > 0]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _wins_between(
    scores: Floats, positive: NDArray[np.bool_], groups: NDArray[np.int64], models: int
) -> Floats:
    """How many pairs the positives of model g win against the negatives of model h, G×G."""
    wins = np.zeros((models, models))
    for h in range(models):
        others = np.sort(scores[~positive & (groups == h)])
        below = np.searchsorted(others, scores[positive], side="left")
        not_above = np.searchsorted(others, scores[positive], side="right")
        wins[:, h] = np.bincount(
            groups[positive], weights=(below + not_above) / 2, minlength=models
        )
    return wins


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share.

    Args:
        hits: How often.
        n: Of how many; above 0.
        level: Of confidence.

    Returns:
        Lower and upper end.

    Source:
        Clopper and Pearson 1934.

    Example:
        >>> [round(end, 3) for end in clopper_pearson(0, 10)]
        [0.0, 0.308]
    """
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def spearman(left: Floats, right: Floats) -> tuple[float, float, float] | None:
    """Rank correlation with its 95% interval.

    Args:
        left: N numbers.
        right: N numbers.

    Returns:
        Spearman's ρ and the ends of its interval by Fisher's z, with the standard error of
        Bonett and Wright 2000; ``None`` for fewer than ten pairs or where one side is constant.

    Example:
        >>> spearman(np.arange(10.0), np.arange(10.0) ** 3)[0]
        1.0
    """
    if len(left) < _LEAST_FOR_CORRELATION or not np.ptp(left) or not np.ptp(right):
        return None
    rho = round(float(np.corrcoef(stats.rankdata(left), stats.rankdata(right))[0, 1]), 12)
    if abs(rho) >= 1:
        return rho, rho, rho
    z, error = np.arctanh(rho), np.sqrt((1 + rho**2 / 2) / (len(left) - 3))
    reach = float(stats.norm.ppf(0.975)) * error
    return rho, float(np.tanh(z - reach)), float(np.tanh(z + reach))


def figure_of(summary: pd.DataFrame, measure: str, of: str) -> dict[str, Any] | None:
    """One figure over all strengths; ``None`` where it was not computed."""
    rows = summary[
        (summary["measure"] == measure) & (summary["of"] == of) & summary["strength"].isna()
    ]
    return None if rows.empty else dict(zip(rows.columns, rows.iloc[0], strict=True))
