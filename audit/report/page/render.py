"""``index.html``: the run on one page, drawn from its tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemBytecodeCache, PackageLoader, select_autoescape

from audit.files import write_atomically
from audit.report.language import Language
from audit.report.page.assets import PAGE_SCRIPTS, embedded_json, frame
from audit.report.page.data import page_data
from audit.report.page.firstscreen import first_screen
from audit.report.page.guessing import guess_that_does_as_well
from audit.report.page.labellist import list_in_words
from audit.report.page.masktrust import trust_in_words
from audit.report.page.missing import missing_view
from audit.report.phrases import confounders_in, family_name, verdict_meaning, verdict_name
from audit.report.pictures.grids import headings, split_meanings
from audit.report.selection import SPLIT_SECTIONS
from audit.report.stored import Stored
from audit.report.wording import number, percent, points, width
from audit.tables.totals import ENOUGH_TO_RANK, rank_classes
from audit.tables.verdicts import VERDICTS

# Confounders that the page lists; the table holds all.
_FINDINGS = 8
# Maps that still correlate by this much when no weight is left follow the image, not the network.
_UNRELATED = 0.3


def write_page(folder: Path, stored: Stored, language: Language, colours: str = "jet") -> None:
    """Write the page.

    Args:
        folder: Where ``index.html`` goes.
        stored: The run.
        language: Of the page.
        colours: Of heatmaps.
    """
    page = render_page(stored, page_data(stored, language, colours=colours), language)
    write_atomically(folder / "index.html", page.encode())


def render_page(stored: Stored, data: Mapping[str, Any], language: Language) -> str:
    """The page as HTML.

    Args:
        stored: The run.
        data: From :func:`audit.report.page.data.page_data`.
        language: Of the page.
    """
    template = _templates(language).get_template("index.html.j2")
    return template.render(
        **frame(styles=("report.css",), scripts=PAGE_SCRIPTS),
        lang=language.tag,
        data=data,
        data_json=embedded_json(data),
        screen=first_screen(dict(data)),
        verdicts=[
            (name, verdict_name(language, name), verdict_meaning(language, name))
            for name in VERDICTS
        ],
        **_found(stored, language),
    )


def _compiled() -> FileSystemBytecodeCache | None:
    """Where compiled templates are kept: beside them, as Python keeps compiled modules.

    To compile them takes longer than to fill them in.
    """
    folder = Path(__file__).parent.parent / "templates" / "__pycache__"
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    if sys.dont_write_bytecode or not os.access(folder, os.W_OK):
        return None
    # What one version of Jinja has compiled another may not run.
    return FileSystemBytecodeCache(str(folder), f"jinja-{version('jinja2')}-%s.cache")


@cache
def _templates(language: Language) -> Environment:
    """Templates in a language, compiled once."""
    environment = Environment(
        loader=PackageLoader("audit.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_compiled(),
    )
    language.install(environment)
    environment.filters |= {"percent": percent, "number": number, "points": points, "width": width}
    return environment


def _found(stored: Stored, language: Language) -> dict[str, Any]:
    """What the page says besides its data."""
    facts, tables, totals = stored.facts, stored.tables, stored.facts["totals"]
    classes = rank_classes(tables["classes"]).to_dict("records")
    confounders = confounders_in(language, tables["properties"])
    return {
        "facts": facts,
        "totals": totals,
        "missing": missing_view(facts, language),
        "classes": classes,
        "enough_to_rank": ENOUGH_TO_RANK,
        "label_list": list_in_words(totals, len(tables["labels"]), language),
        "trust": totals["trust"],
        "guess": guess_that_does_as_well(tables["classes"], totals["accuracy"]),
        "trust_words": trust_in_words(facts, tables["masks"], classes, language),
        "masks": {
            "rows": [
                row | {"family_name": family_name(language, row["family"])}
                for row in tables["masks"].to_dict("records")
            ]
        },
        "confounders": confounders[:_FINDINGS],
        "more_confounders": max(0, len(confounders) - _FINDINGS),
        "methods": tables["methods"].to_dict("records") if "methods" in tables else [],
        "faithful": facts["config"]["faithfulness"],
        "sanity": _sanity_view(tables["sanity"]) if "sanity" in tables else [],
        "problems": totals["problems"],
        "undefined": {k: v for k, v in totals["statuses"].items() if k != "ok"},
        "files": _files(stored),
        "sections": [
            {
                "title": headings(language)[name],
                "meaning": split_meanings(language)[name],
                "file": f"grids/{name}.png",
            }
            for name in SPLIT_SECTIONS
            if f"grids/{name}.png" in stored.drawn
        ],
    }


def _files(stored: Stored) -> list[str]:
    """The tables beside the page, those in parts first."""
    parts = ["samples/*.parquet", *(["edits/*.parquet"] if stored.edits is not None else [])]
    pictures = ["thumbs", *(["edited"] if stored.edited is not None else [])]
    return [*parts, *(f"{name}.parquet" for name in sorted([*stored.tables, *pictures]))]


def _sanity_view(sanity: pd.DataFrame) -> list[dict[str, Any]]:
    """For each method the correlations by stage, and whether its maps follow the weights."""
    views = []
    for method, rows in sanity.groupby("method", sort=False):
        last = rows.iloc[-1]
        correlation = last["rank_correlation"]
        views.append(
            {
                "method": method,
                "stages": rows.to_dict("records"),
                "follows": None if pd.isna(correlation) else bool(abs(correlation) < _UNRELATED),
                "last": correlation,
            }
        )
    return views
