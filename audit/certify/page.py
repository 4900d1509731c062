"""``index.html``, the benchmark on one self-contained page, and ``results.md``, its short form."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from audit.certify.evaluation import RELIED_ON, figure_of, relied_on
from audit.certify.known import Images, KnownData
from audit.certify.plan import CHECKS
from audit.certify.plants import CUES
from audit.certify.plots import draw_cues, draw_scores
from audit.certify.settings import CertifySettings
from audit.files import write_atomically
from audit.report.wording import number, percent
from audit.tables.verdicts import MASK_LIMITED, RELIES, SUSPECT, TOO_FEW


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
        exact=story.data.exact,
        base=story.base,
        recipe=story.recipe,
        accuracies=story.accuracies,
        refused=story.refused,
        relied_on=RELIED_ON,
        headline=headline(summary),
        cues=[(name, CUES[name].meaning, CUES[name].place) for name in story.settings.cues],
        found=_records(summary, "found"),
        told=_records(summary, "told by a property"),
        accused=_records(summary, "accused"),
        rankings=_records(summary, "class AUROC", "class AUROC by cue"),
        samples=_records(summary, "sample AUROC, all", "sample AUROC, within planted classes"),
        correlations=_records(
            summary, "score and measured reliance", "clean: transplant_rate follows"
        ),
        planted=planted_rows(classes),
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
    lines = [
        f"{len(story.accuracies)} models of `{settings.model}` on `{settings.dataset}`, "
        f"{len(story.data.train):,} training and {len(story.data.test):,} test images, seeds: "
        f"{settings.seeds}, masks: {settings.masks}. Base: {story.base}. Each model: "
        f"{percent(settings.kept)} of the base, then {story.recipe}.",
        "",
        *(f"- {sentence}" for sentence in headline(summary)),
        "",
        "| cue | on | with cue | accuracy with / without | pull | score | accused |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['cue']} | {row['place']} | {percent(row['strength'])} "
        f"| {percent(row['accuracy_with'])} / {percent(row['accuracy_without'])} "
        f"| {number(row['pull'])} | {number(row['reliance'])} "
        f"| {number(row['accused'], 0)} of {row['n']} |"
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


def headline(summary: pd.DataFrame) -> list[str]:
    """The result in a few sentences.

    Args:
        summary: Rows of ``summary.parquet``.

    Returns:
        Sentences; those whose figure is missing are left out.
    """
    told = []
    ranking = figure_of(summary, "class AUROC", "reliance")
    if ranking is not None and pd.notna(ranking["value"]):
        told.append(
            f"Classes that a model relies on through their background are ranked above the "
            f"others with AUROC {_with_interval(ranking)} ({ranking['positive']:.0f} of "
            f"{ranking['n']} classes of all models)."
        )
    found = figure_of(summary, "found", "all cues")
    if found is not None:
        told.append(f"Found: {found['positive']:.0f} of {found['n']} such classes.")
    for of, words in (
        ("clean models", "classes of clean models"),
        ("classes without cue in planted models", "classes without a cue in planted models"),
        ("cue on the object", "classes whose cue lies on the object"),
    ):
        wrong = figure_of(summary, "accused", of)
        if wrong is not None:
            told.append(
                f"Accused wrongly: {wrong['positive']:.0f} of {wrong['n']} {words} "
                f"(at most {percent(wrong['high'], 1)}, 95 % bound)."
            )
    checks = [figure_of(summary, "accused", kind.replace("_", " ")) for kind in CHECKS]
    counted = [check for check in checks if check is not None]
    if counted:
        wrong_n = sum(int(check["positive"]) for check in counted)
        total = sum(int(check["n"]) for check in counted)
        told.append(f"Networks and masks that know nothing: {wrong_n} of {total} classes accused.")
    return told


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
        f"{'cue':<14} {'on':<10} {'with cue':>8} {'pull':>6} {'score':>6} {'accused':>8}",
    ]
    for row in planted_rows(classes):
        accused = f"{number(row['accused'], 0)} of {row['n']}"
        lines.append(
            f"{row['cue']:<14} {row['place']:<10} {percent(row['strength']):>8} "
            f"{number(row['pull']):>6} {number(row['reliance']):>6} {accused:>8}"
        )
    models = classes["case"].nunique()
    lines += ["", *headline(summary), "", f"{models} models, {seconds:.0f} s"]
    return "\n".join([*lines, f"Report: {path / 'index.html'}", f"Tables: {path}"])


def planted_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """Each cue at each strength: means over seeds of what was measured and found."""
    rows = classes[classes["cue"].notna() & classes["kind"].isin(["planted", "clean"])]
    rows = rows.assign(
        accused=(rows["verdict"] == RELIES).astype(float),
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
        told=("told", "sum"),
    )
    told = told.reset_index()
    told["order"] = told["cue"].map(order)
    return list(told.sort_values(["order", "strength"]).to_dict("records"))  # type: ignore[arg-type]


def missed_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """Classes that are relied on through their background and were not accused."""
    wanted = relied_on(classes) & (classes["kind"] == "planted") & classes["verdict"].notna()
    return list(classes[wanted & (classes["verdict"] != RELIES)].to_dict("records"))  # type: ignore[arg-type]


def why_missed(row: dict[str, Any]) -> str:
    """Why an audit may have missed a class, from its own numbers."""
    if row["verdict"] == TOO_FEW:
        return "too few images of the class could be edited"
    if row["verdict"] == MASK_LIMITED:
        return "the masks are not trusted enough: they may count the cue as object"
    if row["verdict"] == SUSPECT:
        return "suspected, but edited pixels do not make it certain"
    if pd.notna(row["reliance"]) and row["reliance"] > RELIED_ON / 2:
        return "the effect on edited pixels is below what an accusation needs"
    if row["cue"] == "texture":
        return "a transplanted object brings a border of its own background along"
    return "under every family of masks the cue counts as object, so it moves with the object"


def _wrong_rows(classes: pd.DataFrame) -> list[dict[str, Any]]:
    """Classes that were accused and should not have been."""
    wrong = (classes["verdict"] == RELIES) & ~relied_on(classes) & ~(classes["place"] == "both")
    return list(classes[wrong].to_dict("records"))  # type: ignore[arg-type]


def _records(summary: pd.DataFrame, *measures: str) -> list[dict[str, Any]]:
    return list(summary[summary["measure"].isin(measures)].to_dict("records"))  # type: ignore[arg-type]


def _with_interval(figure: dict[str, Any]) -> str:
    if pd.isna(figure["low"]):
        return number(figure["value"], 3)
    ends = f"{number(figure['low'], 3)} to {number(figure['high'], 3)}"
    return f"{number(figure['value'], 3)} (95 % interval {ends})"


def _inline(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode()
