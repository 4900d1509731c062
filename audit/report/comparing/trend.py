"""``index.html`` of a line of runs: one curve for each number, and what moved."""

from __future__ import annotations

from typing import Any

import pandas as pd

from audit.report.comparing.page import environment_of, shown_metrics
from audit.report.comparing.words import (
    NUMBERS,
    change_in,
    comparison_name,
    interval_in,
    metric_names,
    value_in,
)
from audit.report.language import Language, load_language
from audit.report.page.assets import D3, PLOT, embedded_json, frame
from audit.report.page.plain import column
from audit.report.page.words import words
from audit.tables.comparison import BETTER, COMPARISONS, SPLIT, WORSE
from audit.tables.trend import Line

_SCRIPTS = ("core.js", "table.js", "trend.js", D3, PLOT)
# Classes that moved most, of each number.
_MOVED = 8
# Classes whose curves a page offers to draw; the table has all.
MOST_CURVES = 200
_NUMBERS = ("value", "low", "high", "change", "change_low", "change_high")


def trend_page(line: Line, trend: pd.DataFrame, *, lang: str) -> str:
    """The page.

    Args:
        line: The runs.
        trend: Rows of ``trend.parquet``.
        lang: ``en`` or ``zh``.

    Returns:
        HTML that needs nothing from outside.
    """
    language = load_language(lang)
    trend = shown_metrics(trend)
    names = metric_names(language)
    there = [name for name in names if (trend["metric"] == name).any()]
    return environment_of(language).get_template("trend.html.j2").render(
        **frame(styles=("report.css", "compare.css"), scripts=_SCRIPTS),
        lang=language.tag,
        data_json=embedded_json(_data(line, trend, there, language)),
        runs=[run.manifest | {"path": str(run.path)} for run in line.runs],
        left_out=[
            {"run_id": run.manifest["run_id"], "model": run.manifest["model"],
             "path": str(run.path), "why": why}
            for run, why in line.left_out
        ],
        steps=_steps(line, trend, there, language),
        metrics=[(name, *names[name]) for name in there],
        moved=_moved(trend, language),
    )  # fmt: skip


def _steps(
    line: Line, trend: pd.DataFrame, there: list[str], language: Language
) -> list[dict[str, Any]]:
    """For each run its numbers over the split, and what the comparison says of the step to it."""
    split = by_step(trend)
    steps = []
    for place, run in enumerate(line.runs):
        cells = []
        for metric in there:
            row = split.get((place, metric))
            said = row is not None and pd.notna(row["verdict"])
            cells.append(
                {
                    "value": value_in(metric, row["value"] if row else None),
                    "change": change_in(language, metric, row["change"]) if row and said else None,
                    "verdict": row["verdict"] if row and said else None,
                    "verdict_name": comparison_name(language, row["verdict"])
                    if row and said else None,
                }
            )  # fmt: skip
        steps.append({"run": run.manifest, "place": place, "cells": cells,
                      "classes": _class_counts(trend, place, language)})  # fmt: skip
    return steps


def by_step(trend: pd.DataFrame) -> dict[tuple[int, str], dict[Any, Any]]:
    """The split's rows by the run's place and the metric."""
    split = trend[trend["label"] == SPLIT].to_dict("records")
    return {(int(row["place"]), str(row["metric"])): row for row in split}


def _class_counts(trend: pd.DataFrame, place: int, language: Language) -> list[str]:
    """How many classes became surely worse or better in the step to a run."""
    rows = trend[(trend["place"] == place) & (trend["label"] != SPLIT)]
    names = metric_names(language)
    said = []
    for metric in ("accuracy", "reliance"):
        verdicts = rows.loc[rows["metric"] == metric, "verdict"]
        worse, better = int((verdicts == WORSE).sum()), int((verdicts == BETTER).sum())
        if worse or better:
            said.append(
                language.text("{metric}: {worse} worse, {better} better").format(
                    metric=names[metric][0], worse=worse, better=better
                )
            )
    return said


def _moved(trend: pd.DataFrame, language: Language) -> list[dict[str, Any]]:
    """The classes that moved most between the first and the last run, surely ones first."""
    last = trend[(trend["place"] == trend["place"].max()) & (trend["label"] != SPLIT)]
    names = metric_names(language)
    tables = []
    for metric in ("reliance", "accuracy", "transplant_highest"):
        rows = last[(last["metric"] == metric) & last["first_change"].notna()]
        sure = rows["first_verdict"].isin([WORSE, BETTER])
        order = rows.assign(sure=sure, size=rows["first_change"].abs()).sort_values(
            ["sure", "size"], ascending=False, kind="stable"
        )
        entries = [
            {
                "name": str(row["label_name"]),
                "change": change_in(language, metric, row["first_change"]),
                "interval": interval_in(
                    language,
                    {
                        "metric": metric,
                        "low": row["first_change_low"],
                        "high": row["first_change_high"],
                    },
                ),
                "verdict": row["first_verdict"],
                "verdict_name": comparison_name(language, row["first_verdict"]),
            }
            for row in order.head(_MOVED).to_dict("records")
            if row["first_change"] != 0
        ]
        if entries:
            tables.append({"name": names[metric][0], "rows": entries})
    return tables


def _data(line: Line, trend: pd.DataFrame, there: list[str], language: Language) -> dict[str, Any]:
    """What the scripts of the page read."""
    names = metric_names(language)
    labels = [SPLIT, *_curves(trend)]
    classes = list(line.runs[0].manifest["classes"])
    shown = trend[trend["label"].isin(labels)]
    series: dict[str, dict[str, list[Any]]] = {metric: {} for metric in there}
    columns = [column(shown[name]) for name in _NUMBERS]
    verdicts = [COMPARISONS.index(v) if isinstance(v, str) else None for v in shown["verdict"]]
    for metric, label, place, verdict, *numbers in zip(
        shown["metric"], shown["label"], shown["place"], verdicts, *columns, strict=True
    ):
        series[metric].setdefault(str(label), []).append([int(place), *numbers, verdict])
    return {
        "words": words(language) | _words(language),
        "meta": {"lang": language.tag},
        "runs": [
            {"id": str(run.manifest["run_id"]), "model": str(run.manifest["model"]),
             "finished": str(run.manifest["finished"])}
            for run in line.runs
        ],
        "metrics": [
            {"key": key, "name": names[key][0], "meaning": names[key][1], "plain": key in NUMBERS}
            for key in there
        ],
        "verdicts": [[name, comparison_name(language, name)] for name in COMPARISONS],
        "classes": [[label, classes[label]] for label in labels[1:]],
        "series": series,
    }  # fmt: skip


def _curves(trend: pd.DataFrame) -> list[int]:
    """The classes whose curves are offered: all, or those that moved most in any number."""
    rows = trend[trend["label"] != SPLIT]
    if rows["label"].nunique() <= MOST_CURVES:
        return sorted(int(label) for label in rows["label"].unique())
    spread = rows.groupby(["metric", "label"])["value"].agg(
        lambda values: values.max() - values.min()
    )
    ranks = spread.groupby("metric").rank(ascending=False, method="first").groupby("label").min()
    return sorted(int(label) for label in ranks.sort_values(kind="stable").index[:MOST_CURVES])


def _words(language: Language) -> dict[str, str]:
    """The words of this page's scripts."""
    return {
        "metric": language.text("Number"),
        "of_class": language.text("Class"),
        "whole_split": language.text("the whole split"),
        "plot_label": language.text(
            "{metric} of {scope} in each run, with 95% intervals; the numbers are in the table."
        ),
        "run": language.text("Run"),
        "value": language.text("Value"),
        "interval_95": language.text("95% interval"),
        "change": language.text("Change"),
        "interval_of_change": language.text("95% interval of the change"),
        "judged": language.text("Judgement"),
        "caption": language.text("{metric} of {scope} in each run"),
        "no_rows": language.text("No run has this number."),
    }
