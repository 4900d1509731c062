"""Grids, figures and page of a run, from what it has stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from audit.files import make_folder, write_atomically
from audit.report.language import load_language
from audit.report.page.render import write_page
from audit.report.pictures.drawing import Drawing, drawing_beside
from audit.report.pictures.figures import draw_figures
from audit.report.pictures.grids import Grids, remove_others
from audit.report.pictures.prototypes import background_drawings
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
    place = make_folder(folder / "grids")
    with_grids = config.get("grids", True)
    with drawing_beside(place, _sheets(stored, style) if with_grids else ()) as names:
        for name, content in (
            draw_figures(stored.samples, stored.tables, style) if with_grids else ()
        ):
            write_atomically(place / name, content)
            names.append(name)
        drawn = [f"grids/{name}" for name in names]
        # The page needs no fonts of ours: it can be in a language that pictures here cannot.
        language = load_language(config["lang"])
        write_page(folder, replace(stored, drawn=frozenset(drawn)), language, config["colours"])
    remove_others(place, names)
    return [*drawn, "index.html"]


def _sheets(stored: Stored, style: Style) -> Iterator[Drawing]:
    tables = stored.tables
    rows, columns = stored.facts["grid"]
    grid = rows, columns
    yield from Grids(stored.samples, stored.thumbs, tables["classes"], grid, style).drawings()
    yield from background_drawings(
        stored.samples, stored.thumbs, tables["backgrounds"], tables["channels"], grid, style
    )
