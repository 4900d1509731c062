"""What comparisons are called and how they are said, in the language of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from audit.errors import visible
from audit.report.language import Language
from audit.report.wording import number, percent
from audit.tables.comparison import BETTER, SAME, SPLIT, UNDECIDED, WORSE

# Metrics in logits, and all that are no shares.
LOGITS = ("object_logit", "far_logit")
NUMBERS = (*LOGITS, "kappa")
# Classes that a sentence names.
_MOST_NAMED = 8
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Sentence:
    """A sentence with values that may come from data.

    Attributes:
        text: In the page's language, with ``{name}`` where a value goes.
        values: Texts; lists are names of classes.
    """

    text: str
    values: Mapping[str, str | Sequence[str]]

    def html(self) -> Markup:
        """For a page: values escaped, names with a direction of their own.

        Example:
            >>> str(Sentence("Worse: {names}.", {"names": ["<b>"]}).html())
            'Worse: <bdi>&lt;b&gt;</bdi>.'
        """
        made = {
            name: value if isinstance(value, str) else _named(value)
            for name, value in self.values.items()
        }
        return Markup(self.text).format(**made)  # noqa: S704, our own text; values are escaped

    def plain(self) -> str:
        r"""For a terminal.

        Example:
            >>> print(Sentence("Worse: {names}.", {"names": ["a", "\x1b[1mb"]}).plain())
            Worse: a, \x1b[1mb.
        """
        made = {
            name: value if isinstance(value, str) else ", ".join(map(_short, value))
            for name, value in self.values.items()
        }
        return self.text.format(**made)


def _named(names: Sequence[str]) -> Markup:
    return Markup(", ").join(Markup("<bdi>{}</bdi>").format(_short(name)) for name in names)


def _short(name: str) -> str:
    shown = visible(name)
    return shown if len(shown) <= _LONGEST_NAME else shown[: _LONGEST_NAME - 1] + "…"


def comparison_name(language: Language, verdict: str) -> str:
    """How a change is called.

    Args:
        language: Of the page.
        verdict: One of :data:`audit.tables.comparison.COMPARISONS`.

    Example:
        >>> from audit.report.language import load_language
        >>> comparison_name(load_language("en"), "no change")
        'no change'
    """
    return {
        BETTER: language.text("better"),
        WORSE: language.text("worse"),
        SAME: language.text("no change"),
        UNDECIDED: language.text("undecided"),
    }[verdict]


def metric_names(language: Language) -> dict[str, tuple[str, str]]:
    """Each metric's name and what it means, in the order of the page."""
    return {
        "accuracy": (
            language.text("Accuracy"),
            language.text("Share of images that are answered with their label."),
        ),
        "reliance": (
            language.text("Background moves answers"),
            language.text(
                "How many more answers become this class when its background is put under other "
                "objects, in pixels."
            ),
        ),
        "decided_share": (
            language.text("Background decides alone"),
            language.text(
                "Share of edited images whose background wins against at least five of six objects."
            ),
        ),
        "bg_gap": (
            language.text("Accuracy lost on other backgrounds"),
            language.text(
                "Accuracy on backgrounds of the same class, minus that on backgrounds of others."
            ),
        ),
        "transplant_rate": (
            language.text("Transplant rate (features)"),
            language.text(
                "How often answers follow the background when it is exchanged inside the network, "
                "for every image: a screening."
            ),
        ),
        "transplant_highest": (
            language.text("Transplant rate under the masks that show most"),
            language.text("Of several kinds of masks the one that shows most in either run."),
        ),
        "right_for_wrong_reason": (
            language.text("Right for the wrong reason"),
            language.text(
                "Right answers to which, in the model's features, only the background points: a "
                "hint, not tested in pixels."
            ),
        ),
        "background_share": (
            language.text("Heatmap on background"),
            language.text("Share of the evidence that lies outside the object; descriptive."),
        ),
        "kappa": (
            language.text("Heatmap on the object, beyond chance"),
            language.text("1: all of it; 0: as much as the object's size gives."),
        ),
        "pointing_hit": (
            language.text("Heatmap's peak on the object"),
            language.text("Share of images, of those explained for the same class in both runs."),
        ),
        "object_logit": (
            language.text("Evidence from the object"),
            language.text("In logits, each model's own unit."),
        ),
        "far_logit": (
            language.text("Evidence from the background far from the object"),
            language.text("In logits, each model's own unit."),
        ),
    }


def value_in(metric: str, value: object) -> str:
    """A value of a metric as people read it.

    Example:
        >>> value_in("accuracy", 0.8287), value_in("far_logit", 0.5)
        ('82.9%', '0.50')
    """
    if metric in NUMBERS or pd.isna(value):  # type: ignore[call-overload]
        return number(value)
    # Without the minus of a rounded −0.
    return percent(round(float(value), 3) + 0.0, 1)  # type: ignore[arg-type]


def change_in(language: Language, metric: str, value: object) -> str:
    """A change of a metric with its sign: in points, or in logits.

    Example:
        >>> from audit.report.language import load_language
        >>> change_in(load_language("en"), "accuracy", -0.0057)
        '-0.6 points'
    """
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    if metric in LOGITS:
        return language.text("{change} logits").format(change=_signed(float(value), 2))  # type: ignore[arg-type]
    if metric in NUMBERS:
        return _signed(float(value), 2)  # type: ignore[arg-type]
    return language.text("{change} points").format(change=_signed(100 * float(value), 1))  # type: ignore[arg-type]


def _signed(value: float, digits: int) -> str:
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def interval_in(language: Language, row: Mapping[Any, Any]) -> str:
    """The 95% interval of a row's change."""
    if pd.isna(row["low"]):
        return "–"
    scale, digits = (1, 2) if row["metric"] in NUMBERS else (100, 1)
    low, high = (_signed(scale * float(row[end]), digits) for end in ("low", "high"))
    return language.text("{low} to {high}").format(low=low, high=high)


def headline(language: Language, compare: pd.DataFrame, *, one_model: bool) -> str:
    """The one sentence that a reader should take along.

    Args:
        language: Of the page.
        compare: The rows of ``compare``.
        one_model: Whether both runs are of the same weights.
    """
    if one_model and (compare["verdict"] == SAME).all():
        return language.text("A and B are the same model: nothing differs")
    metric = "reliance" if (compare["metric"] == "reliance").any() else "transplant_highest"
    own = compare[compare["metric"] == metric]
    classes, split = own[own["label"] != SPLIT], own[own["label"] == SPLIT]
    worse, better = ((classes["verdict"] == verdict).sum() for verdict in (WORSE, BETTER))
    if worse and better:
        return language.text(
            "B relies more on background than A in {worse}, and less in {better}, of {n} classes"
        ).format(worse=worse, better=better, n=len(classes))
    if worse:
        return language.plural(
            "B relies more on background than A in {n} of {of} classes",
            "B relies more on background than A in {n} of {of} classes",
            int(worse),
        ).format(n=worse, of=len(classes))
    if better:
        return language.plural(
            "B relies less on background than A in {n} of {of} classes",
            "B relies less on background than A in {n} of {of} classes",
            int(better),
        ).format(n=better, of=len(classes))
    whole = split["verdict"].iloc[0] if len(split) else UNDECIDED
    return {
        WORSE: language.text("Over all classes, B relies more on background than A"),
        BETTER: language.text("Over all classes, B relies less on background than A"),
        SAME: language.text("B relies on background as much as A"),
        UNDECIDED: language.text("Whether B relies more on background than A is not sure"),
    }[whole]


def lead_sentences(language: Language, compare: pd.DataFrame) -> list[Sentence]:
    """What changed, the most important first: accuracy, then what background does.

    Args:
        language: Of the page.
        compare: The rows of ``compare``.
    """
    said = []
    split = compare[compare["label"] == SPLIT].set_index("metric", drop=False)
    if "accuracy" in split.index:
        said.append(_accuracy(language, split.loc["accuracy"].to_dict()))
    said += _classes(language, compare, "accuracy")
    if "reliance" in split.index:
        said.append(_reliance(language, split.loc["reliance"].to_dict()))
        said += _classes(language, compare, "reliance")
    else:
        said.append(
            Sentence(
                language.text(
                    "Pixels were not edited in both runs, so nothing can be said of cause; what "
                    "follows compares features and heatmaps."
                ),
                {},
            )
        )
        said += _classes(language, compare, "transplant_highest")
    return said


def _numbers(language: Language, row: Mapping[Any, Any]) -> dict[str, str]:
    metric = str(row["metric"])
    return {
        "a": value_in(metric, row["a"]),
        "b": value_in(metric, row["b"]),
        "change": change_in(language, metric, row["change"]),
        "interval": interval_in(language, row),
        "margin": change_in(language, metric, row["margin"]).lstrip("+"),
        "n": f"{int(row['n']):,}",
    }


def _accuracy(language: Language, row: Mapping[Any, Any]) -> Sentence:
    text = {
        BETTER: language.text(
            "B answers more images rightly: {b} against {a} ({change}, 95% interval {interval})."
        ),
        WORSE: language.text(
            "B answers fewer images rightly: {b} against {a} ({change}, 95% interval {interval})."
        ),
        SAME: language.text(
            "Both answer as many images rightly: {a} and {b}; they differ by less than {margin} "
            "(95% interval {interval})."
        ),
        UNDECIDED: language.text(
            "Which of them answers more images rightly is not sure after {n} images: {a} and {b} "
            "({change}, 95% interval {interval})."
        ),
    }[row["verdict"]]
    return Sentence(text, _numbers(language, row))


def _reliance(language: Language, row: Mapping[Any, Any]) -> Sentence:
    text = {
        BETTER: language.text(
            "Putting backgrounds under other objects moves fewer of B's answers: {b} against {a}, "
            "in the mean over classes ({change}, 95% interval {interval}, {n} images edited)."
        ),
        WORSE: language.text(
            "Putting backgrounds under other objects moves more of B's answers: {b} against {a}, "
            "in the mean over classes ({change}, 95% interval {interval}, {n} images edited)."
        ),
        SAME: language.text(
            "Putting backgrounds under other objects moves as many answers of both, in the mean "
            "over classes: {a} and {b}; they differ by less than {margin} (95% interval "
            "{interval}, {n} images edited)."
        ),
        UNDECIDED: language.text(
            "Whether backgrounds move more of B's answers than of A's is not sure after {n} edited "
            "images: {a} and {b} ({change}, 95% interval {interval})."
        ),
    }[row["verdict"]]
    return Sentence(text, _numbers(language, row))


def _classes(language: Language, compare: pd.DataFrame, metric: str) -> list[Sentence]:
    """Which classes are surely worse, and which better."""
    own = compare[(compare["metric"] == metric) & (compare["label"] != SPLIT)]
    said = []
    for verdict in (WORSE, BETTER):
        rows = own[own["verdict"] == verdict]
        if not len(rows):
            continue
        order = rows["change"].abs().sort_values(ascending=False, kind="stable").index
        names = [str(name) for name in rows.loc[order, "label_name"]]
        values: dict[str, str | Sequence[str]] = {"names": names[:_MOST_NAMED]}
        text = _of_classes(language, metric, verdict)
        if len(names) > _MOST_NAMED:
            values["more"] = str(len(names) - _MOST_NAMED)
            text = _of_many_classes(language, metric, verdict)
        said.append(Sentence(text, values))
    return said


def _of_classes(language: Language, metric: str, verdict: str) -> str:
    return {
        ("accuracy", WORSE): language.text("Less accurate in: {names}."),
        ("accuracy", BETTER): language.text("More accurate in: {names}."),
        ("reliance", WORSE): language.text("Relies more on background in: {names}."),
        ("reliance", BETTER): language.text("Relies less on background in: {names}."),
        ("transplant_highest", WORSE): language.text(
            "In features, background decides more often in: {names}."
        ),
        ("transplant_highest", BETTER): language.text(
            "In features, background decides less often in: {names}."
        ),
    }[metric, verdict]


def _of_many_classes(language: Language, metric: str, verdict: str) -> str:
    return {
        ("accuracy", WORSE): language.text("Less accurate in: {names} and {more} more."),
        ("accuracy", BETTER): language.text("More accurate in: {names} and {more} more."),
        ("reliance", WORSE): language.text(
            "Relies more on background in: {names} and {more} more."
        ),
        ("reliance", BETTER): language.text(
            "Relies less on background in: {names} and {more} more."
        ),
        ("transplant_highest", WORSE): language.text(
            "In features, background decides more often in: {names} and {more} more."
        ),
        ("transplant_highest", BETTER): language.text(
            "In features, background decides less often in: {names} and {more} more."
        ),
    }[metric, verdict]


def kind_names(language: Language) -> dict[str, str]:
    """What kinds of change of an image are called."""
    return {
        "reason": language.text("same answer, other reason"),
        "lost": language.text("right in A, wrong in B"),
        "gained": language.text("wrong in A, right in B"),
        "other answer": language.text("another wrong answer"),
        "flags": language.text("other flags"),
    }
