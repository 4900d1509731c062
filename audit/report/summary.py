"""What the command prints at the end."""

from __future__ import annotations

from typing import Any

import pandas as pd

from audit.report.page.guessing import guess_that_does_as_well
from audit.report.page.masktrust import MISFITS
from audit.report.wording import percent, points
from audit.run.gaps import gaps_in_words
from audit.tables.reading import AuditRun
from audit.tables.totals import ENOUGH_TO_RANK, highest_in_features, rank_classes
from audit.tables.verdict_words import FEATURE_SPACE_ONLY, NEEDS_ITS_BACKGROUND, NOT_SURE_ENOUGH
from audit.tables.verdicts import RELIES, SUSPECT

# Longer names are cut.
_LONGEST_NAME = 60
# Classes named of each verdict.
_MOST_NAMED = 10


def summarise(run: AuditRun, seconds: float) -> str:
    """A few lines that a person can read.

    Args:
        run: The finished run.
        seconds: How long it took.
    """
    facts, totals = run.manifest, run.manifest["totals"]
    ranked = rank_classes(run.classes)
    scored = ranked[ranked["transplant_rate"].notna()]
    lines = [
        "",
        f"{facts['model']} on {facts['dataset']} ({facts['split']}): "
        f"{totals['samples']:,} images, accuracy {percent(totals['accuracy'], 2)}, "
        f"{seconds:.1f} s",
        *_missing(facts),
        *_bad(totals["statuses"]),
        *_masks(facts["mask_check"]),
        *_guess(guess_that_does_as_well(ranked, totals["accuracy"])),
        "",
        *_verdicts(ranked),
    ]
    if scored.empty:
        lines.append(f"   no class could be scored: {_why_not(totals['statuses'])}")
    planted = facts["known_answer"].get("planted_classes")
    if planted:
        lines += ["", f"Known answer: the background was planted in {', '.join(planted)}."]
    lines += ["", f"Report: {run.path / 'index.html'}", f"Tables: {run.path}"]
    return "\n".join(lines)


def _verdicts(ranked: pd.DataFrame) -> list[str]:
    """The classes that stand out, and what became of the others."""
    if ranked["reliance"].isna().all():
        return _only_screened(ranked)
    lines = []
    for verdict, group in ranked.groupby("verdict", sort=False):
        names = [_one_line(name) for name in group["label_name"]]
        if verdict in (RELIES, SUSPECT):
            lines.append(f"{str(verdict).upper()}: {len(names)} of {len(ranked)} classes")
            lines += [f"   {_tested(row)}" for _, row in group[:_MOST_NAMED].iterrows()]
            lines += [f"   and {len(names) - _MOST_NAMED} more"] * (len(names) > _MOST_NAMED)
        else:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            lines.append(f"{verdict}: {', '.join(names[:_MOST_NAMED])}{more}")
    return lines


def _too_little(edited: int) -> str:
    if not edited:
        return "Nothing was tested in pixels, so no class is accused or cleared."
    return f"{edited:,} images were tested in pixels, too few of any class for a verdict."


def _only_screened(classes: pd.DataFrame) -> list[str]:
    """What feature space says, for a run that tested too little in pixels."""
    said = _too_little(int(classes["n_edited"].sum()))
    ranked, few = highest_in_features(
        classes["transplant_highest"].tolist(), classes["n_scored"].tolist()
    )
    if not ranked and not few:
        return [said]
    lines = [f"{said} Highest in",
             "feature space, where a high rate is a reason to look, no proof:"]  # fmt: skip
    lines += [f"   {_named(row)}, n = {row['n']:,}" for _, row in classes.iloc[ranked].iterrows()]
    if few:
        named = ", ".join(_named(row) for _, row in classes.iloc[few].iterrows())
        lines.append(f"   not ranked, fewer than {ENOUGH_TO_RANK} images scored: {named}")
    return lines


def _named(row: pd.Series) -> str:
    return f"{_one_line(row['label_name'])}: transplant rate {percent(row['transplant_highest'])}"


def _tested(row: pd.Series) -> str:
    """The numbers that made the verdict."""
    reason = row["verdict_reason"]
    if reason == NEEDS_ITS_BACKGROUND:
        said = (
            f"of its objects, cut out, {percent(row['acc_mixed_same'])} are recognised on "
            f"backgrounds of their class and {percent(row['acc_mixed_rand'])} on those of others "
            f"(a gap of {points(row['bg_gap_low'])} to {points(row['bg_gap_high'])}, "
            f"{row['n_edited']:,} of {row['n']:,} images)"
        )
    elif reason == FEATURE_SPACE_ONLY:
        said = (
            f"in feature space only (transplant rate {percent(row['transplant_highest'])}), edited "
            f"pixels do not confirm it: {_moves(row)}"
        )
    elif reason == NOT_SURE_ENOUGH:
        said = f"{_moves(row)}, but not surely or not for every fill"
    else:
        said = _moves(row)
    return f"{_one_line(row['label_name'])}: {said}, accuracy {percent(row['accuracy'])}"


def _moves(row: pd.Series) -> str:
    return (
        f"its background moves {points(row['reliance'])} of the answers "
        f"({points(row['reliance_low'])} to {points(row['reliance_high'])}, "
        f"{row['n_edited']:,} of {row['n']:,} images, {row['reliance_family']} masks)"
    )


def _one_line(name: object) -> str:
    """A class name for a terminal: no control characters."""
    text = "".join(c if c.isprintable() else "�" for c in str(name))
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _why_not(statuses: dict[str, int]) -> str:
    if statuses.get("ok"):
        return (
            "transplants need objects of at least two classes, and a head that reads\n"
            "   nothing but the features"
        )
    return "the columns status and problem of the samples say why"


def _masks(check: dict[str, Any] | None) -> list[str]:
    """A warning where the dataset's masks do not lie where the images' edges are."""
    if check is None or check["verdict"] not in MISFITS:
        return []
    if check["verdict"] == "no fit":
        found = "follow the edges of their images no better than other images' masks do"
    else:
        found = f"would fit their images better {check['placement']}"
    return [f"WARNING: the object masks {found} ({check['n']} looked at).",
            "Do not trust the numbers below before you have looked at the masks."]  # fmt: skip


def _guess(share: float | None) -> list[str]:
    """A warning where the model is no better than a guess."""
    if share is None:
        return []
    return ["WARNING: always naming the most frequent class would be right as often or more "
            f"({percent(share, 2)}).",
            "Check the weights, --mean and --std, and the order of the classes."]  # fmt: skip


def _missing(manifest: dict[str, Any]) -> list[str]:
    """A warning where parts of the split were never audited."""
    said = gaps_in_words(manifest)
    return [] if said is None else [f"WARNING: {said}.", "Every number below is without them."]


def _bad(statuses: dict[str, int]) -> list[str]:
    other = {name: count for name, count in statuses.items() if name != "ok"}
    if not other:
        return []
    return ["without all scores: " + ", ".join(f"{n:,} {name}" for name, n in other.items())]
