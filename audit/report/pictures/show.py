"""One sample on one picture: image, heatmap, outline, and what the tables say of it in words."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.errors import UsageError
from audit.files import write_atomically
from audit.report.language import Language
from audit.report.pictures.style import Style
from audit.report.pictures.tiles import (
    MARGIN,
    WIDTH,
    Legend,
    Picture,
    Row,
    Tile,
    captions_of,
    enlarged,
    fit,
    outline,
    overlay,
    sheet,
    veil,
)
from audit.report.wording import number, percent
from audit.tables.reading import enlarge_map

_SIDE = 618
_MOST_CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A sample as a picture; a notebook shows it by itself.

    Attributes:
        sample_id: The sample.
        lines: What the tables say of it.
        png: The picture, with these lines under it.
    """

    sample_id: str
    lines: Sequence[str]
    png: bytes = field(repr=False)

    def __str__(self) -> str:
        return "\n".join([self.sample_id, *self.lines])

    def _repr_png_(self) -> bytes:
        return self.png

    def _repr_html_(self) -> str:
        text = html.escape(str(self))
        source = "data:image/png;base64," + base64.b64encode(self.png).decode()
        return f'<img style="max-width:100%" alt="{text}" src="{source}">'

    def save(self, path: str | Path) -> Path:
        """Write the picture.

        Args:
            path: A file whose name ends in ``.png``, or in ``.html`` for a page with the lines as
                text.

        Returns:
            The same path.

        Raises:
            UsageError: If it ends otherwise.
        """
        path = Path(path)
        if path.suffix == ".png":
            write_atomically(path, self.png, flag=None)
        elif path.suffix == ".html":
            title = html.escape(self.sample_id)
            items = "".join(f"<li><bdi>{html.escape(line)}</bdi></li>" for line in self.lines)
            page = (
                '<!doctype html><meta charset="utf-8">'
                '<meta name="viewport" content="width=device-width">'
                f"<title>{title}</title><h1><bdi>{title}</bdi></h1>{self._repr_html_()}"
                f"<ul>{items}</ul>"
            )
            write_atomically(path, page.encode(), flag=None)
        else:
            raise UsageError(
                "a sample is saved as a picture or as a page",
                expected="a name that ends in .png or .html",
                found=path.name,
            )
        return path


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A sample's picture and what is known of its object.

    Attributes:
        image: RGB, H×W×3.
        mask: H×W, 255 = object, 128 = unknown; ``None`` where there is none.
        exact: Whether the mask is the one that was scored, not only its shares of the map's cells.
    """

    image: Picture
    mask: NDArray[np.uint8] | None
    exact: bool = True


def draw_sample(
    row: pd.Series,
    seen: Seen,
    *,
    classes: Sequence[str],
    grid: tuple[int, int],
    target: str = "main",
    style: Style | None = None,
) -> Shown:
    """Draw a sample.

    Args:
        row: From :meth:`audit.tables.AuditRun.sample`.
        seen: Its picture and mask.
        classes: Class names.
        grid: h and w of the maps.
        target: ``main`` for the map of the explained class, ``alt`` for that of the other of
            predicted and labelled class.
        style: Colours and language.

    Returns:
        The picture with its lines.
    """
    style = style or Style()
    language = style.language
    sample_id, values = str(row.name), row["map" if target == "main" else "alt_map"]
    pictures = [fit(seen.image, _SIDE)]
    if values is not None:
        heatmap = enlarge_map(values, grid, seen.image.shape[:2])
        pictures.append(fit(overlay(seen.image, heatmap, style.colours), _SIDE))
    if seen.mask is not None:
        inside, unknown = (enlarged(seen.mask == value, _SIDE) for value in (255, 128))
        pictures[0] = veil(pictures[0], unknown)
        pictures = [outline(drawn, inside) for drawn in pictures]
    lines = describe_sample(row, classes, target=target, language=language)
    captions = [c for line in lines for c in captions_of(line, WIDTH - 2 * MARGIN)]
    tile = Tile(pictures=pictures, captions=captions, room=WIDTH - 2 * MARGIN)
    legend = Legend(
        colours=style.colours,
        low=language.text("no evidence for the explained class"),
        high=language.text("the strongest in this image"),
        note=_about_line(seen, language),
    )
    rows = [Row(heading="", tiles=[tile])]
    png = sheet(sample_id, "", rows, legend, language)
    return Shown(sample_id=sample_id, lines=lines, png=png)


def _about_line(seen: Seen, language: Language) -> str:
    if seen.mask is None:
        return ""
    if seen.exact:
        return language.text("White line: the object mask. Grey stripes: unknown.")
    return language.text("White line: the object mask, as coarse as the heatmap.")


def describe_sample(
    row: pd.Series, classes: Sequence[str], *, target: str, language: Language
) -> list[str]:
    """What the tables say of a sample, a sentence a line.

    Args:
        row: From :meth:`audit.tables.AuditRun.sample`.
        classes: Class names.
        target: ``main`` or ``alt``.
        language: Of the lines.
    """
    lines = [*_answers(row, classes, language)]
    explained = row["target" if target == "main" else "alt_target"]
    if pd.notna(explained):
        name = classes[int(explained)]
        lines.append(language.text("The heatmap explains {name}.").format(name=name))
        lines += _reason(row, name, language) if target == "main" else []
    lines += _scores(row, target, language)
    return [*lines, *_flags(row, language), *_suspicion(row, language), *_edits(row, language)]


def _answers(row: pd.Series, classes: Sequence[str], language: Language) -> list[str]:
    if row["status"] != "ok":
        problem = "" if pd.isna(row["problem"]) else f": {row['problem']}"
        yielded = language.text("Not all scores are defined ({status}){problem}.")
        lines = [yielded.format(status=row["status"], problem=problem)]
    else:
        lines = []
    if pd.notna(row["label_name"]):
        lines.append(
            language.text("Label: {name}, probability {share}.").format(
                name=row["label_name"], share=percent(row["label_probability"])
            )
        )
    if pd.notna(row["predicted_name"]):
        best = zip(row["top_classes"], row["top_probabilities"], strict=True)
        listed = ", ".join(f"{classes[label]} {percent(share)}" for label, share in
                           list(best)[:_MOST_CLASSES])  # fmt: skip
        lines.append(
            language.text("Prediction: {name} ({listed}).").format(
                name=row["predicted_name"], listed=listed
            )
        )
    return lines


def _reason(row: pd.Series, name: str, language: Language) -> list[str]:
    if pd.isna(row["reason"]):
        return []
    sentence = {
        "object": language.text("The object alone points to {name}; the background does not."),
        "background": language.text("The background alone points to {name}; the object does not."),
        "both": language.text("Object and background each point to {name} by themselves."),
        "neither": language.text("Neither object nor background points to {name} by itself."),
    }[row["reason"]]
    caution = language.text("(By contributions in feature space, not tested in pixels.)")
    return [f"{sentence.format(name=name)} {caution}"]


def _scores(row: pd.Series, target: str, language: Language) -> list[str]:
    own = "" if target == "main" else "alt_"
    lines = []
    if pd.notna(row[f"{own}background_share"]):
        lines.append(
            language.text("{share} of the heatmap lies on background.").format(
                share=percent(row[f"{own}background_share"])
            )
        )
    if pd.notna(row[f"{own}object_logit"]):
        lines.append(
            language.text(
                "Logits from the object {object}, from near background {near}, from far {far}."
            ).format(
                object=number(row[f"{own}object_logit"]),
                near=number(row[f"{own}near_logit"]),
                far=number(row[f"{own}far_logit"]),
            )
        )
    if pd.notna(row["mask_confidence"]):
        lines.append(
            language.text("The object mask is an estimate with a confidence of {share}.").format(
                share=percent(row["mask_confidence"])
            )
        )
    return lines


def _flags(row: pd.Series, language: Language) -> list[str]:
    sentences = {
        "right_for_wrong_reason": language.text("Right for the wrong reason."),
        "wrong_because_of_background": language.text("Wrong because of the background."),
        "context_driven": language.text("The label may stem from the surroundings."),
    }
    return [text for name, text in sentences.items() if pd.notna(row[name]) and row[name]]


def _suspicion(row: pd.Series, language: Language) -> list[str]:
    if pd.isna(row["suspect_kind"]):
        return []
    text = language.text("The label is suspect: the model suggests {name} ({share}).")
    return [
        text.format(name=row["suggested_name"], share=percent(row["suggested_probability"])),
    ]


def _edits(row: pd.Series, language: Language) -> list[str]:
    lines = []
    if pd.notna(row["p_object_only"]) and pd.notna(row["p_background_only"]):
        text = language.text(
            "In edited pictures the label's probability is {object} with the object alone, and "
            "{background} with the background alone."
        )
        object_only, background_only = (
            percent(row[name]) for name in ("p_object_only", "p_background_only")
        )
        lines.append(text.format(object=object_only, background=background_only))
    if pd.notna(row["background_decides"]) and row["background_decides"]:
        lines.append(language.text("The background decides: under other objects the answer stays."))
    return lines
