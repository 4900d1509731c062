"""Grids, figures and page of a run, from what it has stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from audit.report.language import load_language
from audit.report.page.render import write_page
from audit.report.pictures.figures import draw_figures
from audit.report.pictures.grids import Grids, write_sheets
from audit.report.pictures.prototypes import background_sheets
from audit.report.pictures.style import Style, choose_style
from audit.report.stored import Stored


def write_report(folder: Path, stored: Stored) -> list[str]:
    """Draw everything that people look at, in the language and the colours of the run's settings.

    Args:
        folder: Where to.
        stored: The run; what is ``drawn`` is found out here.

    Returns:
        The names of what was written, relative to ``folder``.
    """
    config = stored.facts["config"]
    style = choose_style(config["colours"], config["lang"])
    drawn = write_sheets(folder, _sheets(stored, style) if config.get("grids", True) else ())
    # The page needs no fonts of ours: it can be in a language that pictures here cannot.
    language = load_language(config["lang"])
    write_page(folder, replace(stored, drawn=frozenset(drawn)), language, config["colours"])
    return [*drawn, "index.html"]


def _sheets(stored: Stored, style: Style) -> Iterator[tuple[str, bytes]]:
    tables = stored.tables
    rows, columns = stored.facts["grid"]
    grid = rows, columns
    yield from Grids(stored.samples, stored.thumbs, tables["classes"], grid, style).sheets()
    yield from background_sheets(
        stored.samples, stored.thumbs, tables["backgrounds"], tables["channels"], grid, style
    )
    yield from draw_figures(stored.samples, tables, style)
