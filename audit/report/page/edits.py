"""Edited pictures on the page, as they were shown to the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from audit.report.language import Language
from audit.report.page.plain import data_uri, records
from audit.report.page.samples import Budget, Shown
from audit.report.phrases import edit_name

_CELLS = ("edit", "fill", "object", "background", "predicted", "p_label")


def edited_views(
    edited: pd.DataFrame, shown: Shown, names: Sequence[str], language: Language, budget: Budget
) -> list[dict[str, Any]]:
    """One entry an edited sample, in the order of the table, as many as there is room for.

    Args:
        edited: The rows of ``edited.parquet``.
        shown: The samples on the page.
        names: Of the classes.
        language: Of the texts.
        budget: What the pictures may take.
    """
    views = []
    for _, rows in edited.groupby("index", sort=False):
        images = [data_uri(content) for content in rows["image"]]
        if budget.take("".join(images)) is None:
            break
        pictures = records(rows, _CELLS, whole=("object", "background", "predicted"))
        for picture, image in zip(pictures, images, strict=True):
            picture |= {"name": picture_name(picture, names, language), "image": image}
        first = rows.iloc[0]
        moved = rows.loc[rows["edit"] == "transplant", "family"]
        views.append(
            {
                "label": int(first["label"]),
                "s": shown.number.get(int(first["index"])),
                "id": str(first["sample_id"]),
                "family": str(moved.iloc[0] if len(moved) else first["family"]),
                "background_decides": bool(first["background_decides"]),
                "pictures": pictures,
            }
        )
    return views


def picture_name(picture: dict[str, Any], names: Sequence[str], language: Language) -> str:
    """What a picture shows.

    Args:
        picture: Its ``edit``, and the classes of its ``object`` and ``background``.
        names: Of the classes.
        language: Of the text.
    """
    if picture["edit"] == "mixed_rand":
        text = language.text("on a background of {name}")
        return text.format(name=names[picture["background"]])
    if picture["edit"] == "transplant":
        text = language.text("its background behind an object of {name}")
        return text.format(name=names[picture["object"]])
    return edit_name(language, picture["edit"])
