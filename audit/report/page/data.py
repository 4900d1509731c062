"""Everything a page shows besides its text, as JSON, from a run's stored tables alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.report.gallery import FLAGS, Flags, flag_names
from audit.report.language import Language
from audit.report.page.classes import class_views, section_numbers
from audit.report.page.edits import edited_views
from audit.report.page.plain import column, map_size, records
from audit.report.page.samples import Budget, Shown, place_pictures, sample_columns
from audit.report.page.words import words
from audit.report.phrases import label_kind, label_reason_in
from audit.report.pictures.tiles import colour_table
from audit.report.stored import Stored
from audit.report.thumbs import CHOSEN, FLAGGED
from audit.tables.totals import rank_classes

# Characters of a page's data in all, and of the pictures in it.
MOST_CHARACTERS = 17_000_000
PICTURE_CHARACTERS = 10_000_000
COLOURS = ("jet", "viridis", "cividis", "inferno")

_MATRIX = 40
_CONFUSIONS = 20
_OF_CONFUSION = 8
_LABELS = 100
_GIVEN_MASKS = ("dataset", "box")
# Of the room for pictures so much is for edits; of each section, and of flagged samples, so many
# come before the rest.
_EDITS_PART = 3
_FIRST_OF_SECTION = 3
_FIRST_FLAGGED = 200
_REASONS = ("object", "background", "both", "neither")


def page_data(
    stored: Stored, language: Language, *, colours: str = "jet", flags: Flags | None = None
) -> dict[str, Any]:
    """The data of ``index.html``.

    Args:
        stored: The run.
        language: Of the texts.
        colours: Of heatmaps, one of :data:`COLOURS`.
        flags: Of all samples, where they are known already.

    Returns:
        What JSON can hold: texts are in the language, numbers finite or null. See
        ``docs/report.md`` for the parts.
    """
    flags = stored.flags() if flags is None else flags
    shown = Shown.of(stored.thumbs)
    height, width = stored.facts["image_size"]
    rows, columns = stored.facts["grid"]
    family = stored.families[0]
    found = {
        "words": words(language),
        "meta": _meta(stored, language, colours, shown, flags),
        "class_names": list(stored.facts["classes"]),
        "colourmaps": {name: colour_table(name).tobytes().hex() for name in COLOURS},
        "flags": _flag_views(flags, stored.samples, shown, language),
        "samples": sample_columns(
            stored.samples,
            stored.thumbs,
            shown,
            flags.bits(),
            grid=(rows, columns),
            image_size=(height, width),
        ),
        "classes": class_views(
            stored.samples,
            stored.tables,
            stored.thumbs,
            shown,
            family=family,
            drawn=stored.drawn,
            language=language,
        ),
        "sections": section_numbers(stored.thumbs, shown).get(-1, {}),
        "transplant_matrix": _matrix(stored, family),
        "labels": label_views(stored.tables["labels"], shown, language),
        "labels_total": len(stored.tables["labels"]),
        "confusions": _confusion_views(stored, shown),
    }
    _add_pictures(found, stored, shown, language)
    return found


def _add_pictures(found: dict[str, Any], stored: Stored, shown: Shown, language: Language) -> None:
    """First what every class is to have, then the rest, while there is room."""
    text = len(json.dumps(found, ensure_ascii=False).encode())
    room = max(0, min(PICTURE_CHARACTERS, MOST_CHARACTERS - text))
    for_edits = Budget(room // _EDITS_PART)
    views = (
        []
        if stored.edited is None
        else edited_views(stored.edited, shown, stored.facts["classes"], language, for_edits)
    )
    of_class = {view["label"]: view for view in found["classes"]}
    for view in views:
        of_class[view.pop("label")]["edits"].append(view)
    thumbs = stored.thumbs
    flagged = thumbs["section"] == FLAGGED
    first = [
        thumbs.loc[thumbs["section"] == CHOSEN, "index"],
        thumbs.loc[~flagged & (thumbs["rank"] < _FIRST_OF_SECTION), "index"],
        stored.tables["labels"]["index"][:_LABELS],
        thumbs[flagged & (thumbs["rank"] < _FIRST_FLAGGED)].sort_values("rank")["index"],
        thumbs.loc[~flagged].sort_values("rank", kind="stable")["index"],
    ]
    budget = Budget(room - for_edits.taken)
    found["samples"]["image"] = place_pictures(
        thumbs, shown, budget, first, stored.facts["image_size"]
    )


def _meta(
    stored: Stored, language: Language, colours: str, shown: Shown, flags: Flags
) -> dict[str, Any]:
    facts, config = stored.facts, stored.facts["config"]
    family = stored.families[0]
    return {
        **{name: facts[name] for name in ("model", "dataset", "split", "run_id", "finished")},
        "image_size": list(facts["image_size"]),
        "grid": list(map_size(tuple(facts["grid"]))),
        "model_grid": list(facts["grid"]),
        "target": config["target"],
        "method": config["method"][0],
        "colours": colours,
        "lang": language.name,
        "samples": len(stored.samples),
        "shown": len(shown.index),
        "flagged": int(flags.any.sum()),
        "masks": family,
        "estimated": family not in _GIVEN_MASKS,
    }


def _flag_views(
    flags: Flags, samples: pd.DataFrame, shown: Shown, language: Language
) -> list[dict[str, Any]]:
    place = np.searchsorted(samples["index"].to_numpy(np.int64), shown.index)
    names = flag_names(language)
    return [
        {
            "key": key,
            "name": names[key][0],
            "meaning": names[key][1],
            "total": int(flags.raised[key].sum()),
            "shown": int(flags.raised[key][place].sum()),
        }
        for key in FLAGS
    ]


def _matrix(stored: Stored, family: str) -> dict[str, Any]:
    """Shares of transplants that follow the background, by background's and object's class."""
    transplants = stored.tables["transplants"]
    labels = rank_classes(stored.tables["classes"])["label"].to_numpy(np.int64)[:_MATRIX]
    if len(stored.tables["classes"]) <= _MATRIX:
        labels = np.sort(labels)
    place = np.full(len(stored.tables["classes"]), -1, np.int64)
    place[labels] = np.arange(len(labels))
    own = transplants[transplants["family"] == family]
    rows, columns = place[own["label"].to_numpy(np.int64)], place[own["object"].to_numpy(np.int64)]
    inside = (rows >= 0) & (columns >= 0)
    cells = np.full((len(labels), len(labels)), np.nan)
    cells[rows[inside], columns[inside]] = own["predicted_label"].to_numpy(np.float64)[inside]
    return {
        "family": family,
        "labels": labels.tolist(),
        "classes": len(stored.tables["classes"]),
        "cells": [column(row) for row in cells],
    }


def label_views(labels: pd.DataFrame, shown: Shown, language: Language) -> list[dict[str, Any]]:
    """The most suspect labels, with what speaks for and against each.

    Args:
        labels: The rows of ``labels.parquet``.
        shown: The samples on the page.
        language: Of the texts.

    Returns:
        The first :data:`_LABELS`; ``object_pred`` and ``background_pred`` are by pixels where
        ``evidence`` is.
    """
    first = labels[:_LABELS]
    regions = ("object_pred", "background_pred", "object_only_pred", "background_only_pred")
    names = (
        "sample_id", "index", "label", "suggested", "label_score", "suggested_probability",
        "evidence", "kind", *regions,
    )  # fmt: skip
    views = records(first, names, whole=regions)
    for view, row in zip(views, first.to_dict("records"), strict=True):
        by_pixels = view["evidence"] == "pixels"
        pixels = view.pop("object_only_pred"), view.pop("background_only_pred")
        if by_pixels:
            view["object_pred"], view["background_pred"] = pixels
        # What the object's own pixels say counts, whatever the kind rests on.
        view["object_is_label"] = not by_pixels and pixels[0] == view["label"]
        view["id"], view["s"] = view.pop("sample_id"), shown.number.get(view.pop("index"))
        view["kind_name"] = label_kind(language, view["kind"])
        view["reason"] = label_reason_in(language, row)
    return views


def _confusion_views(stored: Stored, shown: Shown) -> list[dict[str, Any]]:
    """The most frequent confusions, what the model looked at in them, and examples."""
    confusion, samples = stored.tables["confusion"], stored.samples
    wrong = confusion[confusion["label"] != confusion["predicted"]]
    largest = wrong.sort_values(["n", "label", "predicted"], ascending=[False, True, True])
    names = ("label", "predicted", "n", "share_of_label", "background_share")
    views = records(largest[:_CONFUSIONS], names)
    classes = len(stored.facts["classes"])
    pairs = _pairs(samples, classes)
    reasons = samples["reason"].astype(object).to_numpy()
    place = np.searchsorted(samples["index"].to_numpy(np.int64), shown.index)
    for view in views:
        pair = view["label"] * classes + view["predicted"]
        counts = pd.Series(reasons[pairs == pair]).value_counts()
        known = int(counts.sum())
        view["regions"] = {
            name: int(counts.get(name, 0)) / known if known else None for name in _REASONS
        }
        view["samples"] = np.flatnonzero(pairs[place] == pair)[:_OF_CONFUSION].tolist()
    return views


def _pairs(samples: pd.DataFrame, classes: int) -> NDArray[np.int64]:
    """Label and prediction of each sample as one number; −1 where one is unknown."""
    label = samples["label"].to_numpy(np.int64, na_value=-1)
    predicted = samples["predicted"].to_numpy(np.int64, na_value=-1)
    return np.where((label >= 0) & (predicted >= 0), label * classes + predicted, -1)
