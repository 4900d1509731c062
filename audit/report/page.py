"""``index.html``: the run on one page, drawn from its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from audit.files import write_atomically
from audit.report.grids import HEADINGS, SPLIT_MEANING, channel_sheet, class_sheet
from audit.report.masktrust import mask_view
from audit.report.prototypes import KINDS, background_channel_sheet, background_sheet
from audit.report.selection import SPLIT_SECTIONS
from audit.report.wording import number, percent, points, width
from audit.tables.properties import confounders
from audit.tables.totals import rank_classes
from audit.tables.verdicts import MASK_LIMITED, RELIES, SUSPECT, TOO_FEW, VERDICTS

_PLACES_SHOWN = 3
# Classes that the first lines name, of each verdict.
_CLASSES_NAMED = 10
# Confounders and label suspects that the page lists; the tables hold all.
_FINDINGS = 8
_LABELS = 20
# Maps that still correlate by this much when no weight is left follow the image, not the network.
_UNRELATED = 0.3


def write_page(folder: Path, *, facts: dict[str, Any], tables: dict[str, pd.DataFrame]) -> None:
    """Write the page.

    Args:
        folder: The run's folder, with its grids in place.
        facts: The manifest's content.
        tables: The rows of ``classes.parquet``, ``confusion.parquet`` and whatever else the run
            has, by name.
    """
    classes, confusion = tables["classes"], tables["confusion"]
    environment = Environment(
        loader=PackageLoader("audit.report"),
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "number": number, "points": points, "width": width}
    ranked = rank_classes(classes)
    found = confounders(tables["properties"])
    page = environment.get_template("index.html.j2").render(
        facts=facts,
        totals=facts["totals"],
        classes=[_class_view(folder, row) for row in ranked.to_dict("records")],
        backgrounds=_by_label(tables["backgrounds"]) if "backgrounds" in tables else {},
        first=[row for row in ranked.to_dict("records") if pd.notna(row["transplant_rate"])][
            :_PLACES_SHOWN
        ],
        explained={"predicted": "predicted", "label": "labelled"}[facts["config"]["target"]],
        typical=ranked["transplant_rate"].median(),
        shown=_CLASSES_NAMED,
        files=["samples/*.parquet", *(f"{name}.parquet" for name in tables)],
        tested=bool(ranked["reliance"].notna().any()),
        relies=_of_verdict(ranked, RELIES),
        suspects=_of_verdict(ranked, SUSPECT),
        edited=int(ranked["n_edited"].sum()),
        unjudged=int(ranked["verdict"].isin([MASK_LIMITED, TOO_FEW]).sum()),
        trust=facts["totals"]["trust"],
        confounders=found[:_FINDINGS],
        more_confounders=max(0, len(found) - _FINDINGS),
        labels=tables["labels"][:_LABELS].to_dict("records"),
        sections=[
            {"title": HEADINGS[name], "meaning": SPLIT_MEANING[name], "file": f"grids/{name}.png"}
            for name in SPLIT_SECTIONS
            if (folder / "grids" / f"{name}.png").exists()
        ],
        problems=facts["totals"]["problems"],
        confusions=_largest_confusions(confusion),
        methods=tables["methods"].to_dict("records") if "methods" in tables else [],
        masks=mask_view(facts, tables["masks"]),
        faithful=facts["config"]["faithfulness"],
        sanity=_sanity_view(tables["sanity"]) if "sanity" in tables else [],
        undefined={k: v for k, v in facts["totals"]["statuses"].items() if k != "ok"},
    )
    write_atomically(folder / "index.html", page.encode())


def _class_view(folder: Path, row: dict[Any, Any]) -> dict[Any, Any]:
    label, name = int(row["label"]), str(row["label_name"])
    sheets = {
        "sheet": class_sheet(label, name),
        "channels": channel_sheet(label, name),
        "background_sheet": background_sheet(label, name),
        "background_channels": background_channel_sheet(label, name),
    }
    return (
        row
        | {"severity": VERDICTS.index(row["verdict"])}
        | {
            key: f"grids/{quote(file)}" if (folder / "grids" / file).exists() else None
            for key, file in sheets.items()
        }
    )


def _of_verdict(ranked: pd.DataFrame, verdict: str) -> list[dict[Any, Any]]:
    return list(ranked[ranked["verdict"] == verdict].to_dict("records"))


def _by_label(backgrounds: pd.DataFrame) -> dict[int, list[dict[Any, Any]]]:
    """The kinds of background of each class, as many as are drawn."""
    return {
        int(rows["label"].iloc[0]): rows.to_dict("records")[:KINDS]
        for _, rows in backgrounds.groupby("label")
    }


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


def _largest_confusions(confusion: pd.DataFrame) -> list[dict[Any, Any]]:
    wrong = confusion[confusion["label"] != confusion["predicted"]]
    largest = wrong.sort_values(["n", "label", "predicted"], ascending=[False, True, True])[:10]
    return list(largest.to_dict("records"))
