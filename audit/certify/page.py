"""``index.html``, the benchmark on one self-contained page, and ``results.md``, its short form."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from audit.certify.evaluation import CONTROL, RELIED_ON, figure_of, relied_on, tested
from audit.certify.known import Images, KnownData
from audit.certify.plants import CUES
from audit.certify.plots import draw_cues, draw_scores
from audit.certify.settings import CertifySettings
from audit.certify.wording import (
    NOTHING_LEARNT,
    headline,
    how_many_accused,
    plural,
    short_training,
    singular,
    why_missed,
)
from audit.files import write_atomically
from audit.report.wording import number, percent
from audit.tables.verdicts import RELIES


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the page tells besides the tables.

    Attributes:
        settings: Of the benchmark.
        data: The clean images.
        test: The clean test images with object masks.
        base: Where the base's weights came from.
        recipe: Of each training, in words.
        accuracies: Of each model on the clean test images.
        refused: Networks that cannot be audited, because nothing in them depends on the image.
    """

    settings: CertifySettings
    data: KnownData
    test: Images
    base: str
    recipe: str
    accuracies: dict[str, float]
    refused: tuple[str, ...] = ()


def write_page(folder: Path, story: Story, classes: pd.DataFrame, summary: pd.DataFrame) -> None:
    """Write the page, and its tables as Markdown.

    Args:
        folder: Of the benchmark.
        story: What is told besides the tables.
        classes: Rows of ``certify.parquet``.
        summary: Rows of ``summary.parquet``.
    """
    environment = Environment(
        loader=PackageLoader("audit.certify"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.filters["number"] = number
    page = environment.get_template("certify.html.j2").render(
        settings=story.settings,
        classes=story.data.classes,
        n_train=len(story.data.train),
        n_test=len(story.data.test),
        base=singular(story.base),
        recipe=singular(story.recipe),
        models=plural(len(story.accuracies), "model"),
        exact_masks=story.data.exact and story.settings.mask_sources[0] in ("auto", "dataset"),
        accuracies=story.accuracies,
        warning=short_training(story.accuracies, classes),
        refused=story.refused,
        relied_on=RELIED_ON,
        nothing_learnt=None if _learnt(summary) else NOTHING_LEARNT,
        headline=headline(summary),
        cues=[(name, CUES[name].meaning, CUES[name].place) for name in story.settings.cues],
        found=_records(summary, "found"),
        told=_records(summary, "told by a property"),
        accused=[row | {"note": _note(row)} for row in _records(summary, "accused")],
        rankings=_known(summary, "class AUROC", "class AUROC by cue"),
        samples=_known(summary, "sample AUROC, all", "sample AUROC, within planted classes"),
        correlations=_known(
            summary, "score and measured reliance", "clean: transplant_rate follows"
        ),
        planted=[row | {"accused": how_many_accused(row)} for row in planted_rows(classes)],
        missed=[row | {"why": why_missed(row)} for row in missed_rows(classes)],
        wrong=_wrong_rows(classes),
        cues_picture=_inline(draw_cues(story.test, story.settings.cues)),
        scores_picture=_inline(draw_scores(classes)),
    )
    write_atomically(folder / "index.html", page.encode())
    write_atomically(folder / "results.md", as_markdown(story, classes, summary).encode())


def as_markdown(story: Story, classes: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The result for a document.

    Args:
        story: What is told besides the tables.
        classes: Rows of ``certify.parquet``.
        summary: Rows of ``summary.parquet``.

    Returns:
        What it was run on, the headline, a table of cues and strengths, and what was missed.
    """
    settings = story.settings
    warning = short_training(story.accuracies, classes)
    sentences = [*([] if warning is None else [warning]), *headline(summary)]
    lines = [
        f"{plural(len(story.accuracies), 'model')} of `{settings.model}` on "
        f"`{settings.dataset}`, "
        f"{len(story.data.train):,} training and {len(story.data.test):,} test images, seeds: "
        f"{settings.seeds}, masks: {settings.masks}. Base: {singular(story.base)}. Each model: "
        f"{percent(settings.kept)} of the base, then {singular(story.recipe)}.",
        "",
        *(f"- {sentence}" for sentence in sentences),
        "",
        "| cue | on | with cue | accuracy with / without | pull | score | accused |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['cue']} | {row['place']} | {percent(row['strength'])} "
        f"| {percent(row['accuracy_with'])} / {percent(row['accuracy_without'])} "
        f"| {number(row['pull'])} | {number(row['reliance'])} "
        f"| {how_many_accused(row)} |"
        for row in planted_rows(classes)
    ]
    missed = missed_rows(classes)
    if missed:
        lines += ["", "| missed | cue | pull | score | verdict | why |"]
        lines.append("| --- | --- | --- | --- | --- | --- |")
    lines += [
        f"| {row['case']} | {row['cue']} | {number(row['pull'])} | {number(row['reliance'])} "
        f"| {row['verdict']} | {why_missed(row)} |"
        for row in missed
    ]
    return "\n".join(lines) + "\n"


def describe(path: Path, classes: pd.DataFrame, summary: pd.DataFrame, seconds: float) -> str:
    """The result for a terminal.

    Args:
        path: The benchmark's folder.
        classes: Rows of ``certify.parquet``.
        summary: Rows of ``summary.parquet``.
        seconds: How long it took.

    Returns:
        Lines.
    """
    lines = [
        "",
        f"{'cue':<14} {'on':<10} {'with cue':>8} {'pull':>6} {'score':>6} {'accused':>10}",
    ]
    for row in planted_rows(classes):
        accused = how_many_accused(row)
        lines.append(
            f"{row['cue']:<14} {row['place']:<10} {percent(row['strength']):>8} "
            f"{number(row['pull']):>6} {number(row['reliance']):>6} {accused:>10}"
        )
    models = plural(classes["case"].nunique(), "model")
    lines += ["", *headline(summary), "", f"{models}, {seconds:.0f} s"]
    return "\n".join([*lines, f"Report: {path / 'index.html'}", f"Tables: {path}"])


def planted_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """Each cue at each strength: means over seeds of what was measured and found."""
    rows = classes[classes["cue"].notna() & classes["kind"].isin(["planted", "clean"])]
    rows = rows.assign(
        accused=(rows["verdict"] == RELIES).astype(float),
        tested=tested(rows).astype(int),
        told=(rows["told_by"] != "").astype(float),
    )
    order = {cue: place for place, cue in enumerate(CUES)}
    told = rows.groupby(["cue", "place", "strength"], sort=False).agg(
        n=("case", "size"),
        pull=("pull", "mean"),
        accuracy_with=("accuracy_with", "mean"),
        accuracy_without=("accuracy_without", "mean"),
        reliance=("reliance", "mean"),
        transplant_rate=("transplant_rate", "mean"),
        background_share=("background_share", "mean"),
        accused=("accused", "sum"),
        tested=("tested", "sum"),
        told=("told", "sum"),
    )
    told = told.reset_index()
    told["order"] = told["cue"].map(order)
    return list(told.sort_values(["order", "strength"]).to_dict("records"))  # type: ignore[arg-type]


def missed_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """Classes that are relied on through their background and were not accused, or not tested."""
    wanted = relied_on(classes) & (classes["kind"] == "planted")
    return list(classes[wanted & (classes["verdict"] != RELIES)].to_dict("records"))  # type: ignore[arg-type]


def _wrong_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """Classes that were accused and should not have been."""
    wrong = (classes["verdict"] == RELIES) & ~relied_on(classes) & ~(classes["place"] == "both")
    return list(classes[wrong].to_dict("records"))  # type: ignore[arg-type]


def _learnt(summary: pd.DataFrame) -> bool:
    """Whether any planted model relies on a cue in the background."""
    return figure_of(summary, "found", "all cues") is not None


def _note(row: dict[str, Any]) -> str:
    """What has to be known of a group's share of wrong accusations."""
    notes = ["the negative control"] if row["of"] == CONTROL else []
    if not row["n"]:
        notes.append("could not be tested" if row["not_tested"] else "none was planted")
    return ", ".join(notes)


def _known(summary: pd.DataFrame, *measures: str) -> list[dict[str, Any]]:
    """Figures of which at least one could be computed, else none."""
    rows = _records(summary, *measures)
    return rows if any(pd.notna(row["value"]) for row in rows) else []


def _records(summary: pd.DataFrame, *measures: str) -> list[dict[str, Any]]:
    return list(summary[summary["measure"].isin(measures)].to_dict("records"))  # type: ignore[arg-type]


def _inline(picture: bytes | None) -> str | None:
    if picture is None:
        return None
    return "data:image/png;base64," + base64.b64encode(picture).decode()
