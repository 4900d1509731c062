from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from audit.report.pictures.figures import CLASSES, MOST_CLASSES, SHARES, TRANSPLANTS, draw_figures
from audit.report.pictures.style import Style
from audit.tables.verdicts import RELIES


def tables_of(count: int, **values: list[object]) -> dict[str, pd.DataFrame]:
    """Classes of falling reliance, and transplants between all of them."""
    labels = np.arange(count)
    reliance = np.linspace(0.9, 0.1, count)
    classes = pd.DataFrame(
        {
            "label": labels, "label_name": [f"class {label}" for label in labels], "n": 100,
            "n_scored": 100, "verdict": RELIES, "reliance": reliance,
            "reliance_low": reliance - 0.05, "reliance_high": reliance + 0.05,
            "transplant_rate": reliance, "transplant_rate_low": reliance - 0.05,
            "transplant_rate_high": reliance + 0.05, "background_share": 0.5,
            "transplant_highest": reliance,
        }
    ).assign(**values)  # fmt: skip
    background, thing = (side.ravel() for side in np.meshgrid(labels, labels, indexing="ij"))
    other = background != thing
    names = classes["label_name"].to_numpy()
    transplants = pd.DataFrame(
        {
            "family": "dataset", "label": background[other], "label_name": names[background[other]],
            "object": thing[other], "object_name": names[thing[other]],
            "predicted_label": ((background * 7 + thing) % 10 / 10)[other],
        }
    )  # fmt: skip
    return {"classes": classes, "transplants": transplants}


def samples_of(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(count), 20)
    return pd.DataFrame(
        {"label": pd.array(labels, "Int32"), "background_share": rng.random(len(labels))}
    )


def figures(
    samples: pd.DataFrame, tables: Mapping[str, pd.DataFrame], style: Style | None = None
) -> dict[str, bytes]:
    return dict(draw_figures(samples, tables, style))


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def test_slides_are_redrawn_alike() -> None:
    first = figures(samples_of(10), tables_of(10))
    assert first == figures(samples_of(10), tables_of(10))
    assert list(first) == [CLASSES, TRANSPLANTS, SHARES]
    assert {pixels(content).shape for content in first.values()} == {(720, 1280, 3)}


def test_marks_stand_where_the_values_are() -> None:
    values = [0.6, 0.4, 0.2]
    image = pixels(
        figures(samples_of(3), tables_of(3, reliance=values, reliance_low=[0.5, 0.3, 0.1],
                                         reliance_high=[0.7, 0.5, 0.3]))[CLASSES]
    )  # fmt: skip
    orange = (np.abs(image.astype(int) - [0xD5, 0x5E, 0x00]).max(axis=2) < 8) & (
        np.arange(1280) < 1000
    )
    rows = np.flatnonzero(orange.sum(axis=1) > 50)
    # One bar a class, from top to bottom.
    bars = np.split(rows, np.flatnonzero(np.diff(rows) > 20) + 1)
    assert len(bars) == 3
    middles, widths = [], []
    for bar in bars:
        columns = np.flatnonzero(orange[bar[len(bar) // 2]])
        middles.append((columns[0] + columns[-1]) / 2)
        widths.append(columns[-1] - columns[0])
    step = middles[0] - middles[1]
    assert step == pytest.approx(middles[1] - middles[2], abs=2)
    # Bars of 20 percentage points at steps of 20.
    np.testing.assert_allclose(np.array(widths) / step, 1, atol=0.04)


def test_of_many_classes_the_most_reliant_are_shown() -> None:
    samples, tables = samples_of(150), tables_of(150)
    before = figures(samples, tables)
    for place, seen in ((MOST_CLASSES - 1, True), (MOST_CLASSES, False)):
        changed = tables["classes"].copy()
        changed.loc[place, "label_name"] = "something else"
        changed.loc[place, "reliance_low"] -= 0.04
        after = figures(samples, tables | {"classes": changed})
        assert (before[CLASSES] != after[CLASSES]) is seen
        assert (before[SHARES] != after[SHARES]) is seen
        transplants = tables["transplants"].copy()
        transplants.loc[transplants["label"] == place, "predicted_label"] = 1.0
        after = figures(samples, tables | {"transplants": transplants})
        assert (before[TRANSPLANTS] != after[TRANSPLANTS]) is seen


def test_a_matrix_cell_has_its_value_s_colour() -> None:
    tables = tables_of(2)
    tables["transplants"]["predicted_label"] = [1.0, 0.0]
    image = pixels(figures(samples_of(2), tables)[TRANSPLANTS]).astype(int)
    # viridis: yellow is all, violet is nothing.
    yellow = np.abs(image - [253, 231, 36]).max(axis=2) < 3
    violet = np.abs(image - [68, 1, 84]).max(axis=2) < 3
    for colour, (right, lower) in ((yellow, (True, False)), (violet, (False, True))):
        colour[:, 1150:] = False  # the colour bar
        rows, columns = np.nonzero(colour)
        assert len(rows) > 10_000
        assert (np.median(columns) > 640) is np.bool_(right)
        assert (np.median(rows) > 380) is np.bool_(lower)


def test_boxes_are_quartiles() -> None:
    tables = tables_of(1)
    samples = pd.DataFrame({"label": pd.array([0] * 101, "Int32"),
                            "background_share": np.linspace(0, 1, 101)})  # fmt: skip
    image = pixels(figures(samples, tables)[SHARES]).astype(int)
    box = np.abs(image - [0x9E, 0xCA, 0xE1]).max(axis=2) < 3
    line = np.abs(image - [0x08, 0x51, 0x9C]).max(axis=2) < 3
    filled = np.flatnonzero(box.any(axis=0))
    whiskers = np.flatnonzero(line.any(axis=0))
    # From a quarter to three quarters, and from a tenth to nine tenths.
    assert (filled[-1] - filled[0]) / (whiskers[-1] - whiskers[0]) == pytest.approx(5 / 8, abs=0.02)


def test_without_edits_classes_are_screened() -> None:
    nothing = pd.array([None] * 4, "Float64")
    tables = tables_of(4, reliance=nothing, reliance_low=nothing, reliance_high=nothing)
    screened = figures(samples_of(4), tables)
    assert screened[CLASSES] != figures(samples_of(4), tables_of(4))[CLASSES]
    tables = tables_of(
        4, reliance=nothing, transplant_rate=nothing, reliance_low=nothing, reliance_high=nothing
    )
    none = {"classes": tables["classes"], "transplants": tables["transplants"].iloc[:0]}
    undefined = samples_of(4).assign(background_share=np.nan)
    assert figures(undefined, none) == {}


@pytest.mark.parametrize(
    "name", ["<b>&amp;", "$\\frac{$", "猫" * 40, "قطة", "w" * 200, "a\nb\0", "", "%s {x}"]
)
def test_any_class_name_is_drawn(name: str) -> None:
    tables = tables_of(3)
    plain = figures(samples_of(3), tables)
    renamed = tables["classes"].replace({"label_name": {"class 0": name}})
    transplants = tables["transplants"].replace({"class 0": name})
    strange = figures(samples_of(3), {"classes": renamed, "transplants": transplants})
    for content, other in zip(plain.values(), strange.values(), strict=True):
        assert content != other
        assert pixels(other).shape == (720, 1280, 3)


@pytest.mark.parametrize("colours", ["viridis", "cividis", "inferno"])
def test_the_matrix_takes_the_run_s_colours(colours: str) -> None:
    usual = figures(samples_of(3), tables_of(3))
    styled = figures(samples_of(3), tables_of(3), Style(colours=colours))
    assert (styled[TRANSPLANTS] == usual[TRANSPLANTS]) is (colours == "viridis")
    assert styled[CLASSES] == usual[CLASSES]
