from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image, ImageDraw

from audit.report.language import load_language
from audit.report.pictures import fonts
from audit.report.pictures.fonts import Face, can_draw_chinese, drawable, families, missing
from audit.report.pictures.grids import SHOWN, Grids, class_sheet, headings, split_meanings
from audit.report.pictures.masksheet import MaskCard, MaskSection, draw_masks
from audit.report.pictures.style import Style, choose_style
from audit.report.pictures.tiles import (
    WIDTH,
    Caption,
    Legend,
    Row,
    Tile,
    colour_table,
    coloured,
    missing_letters,
    overlay,
    resized,
    sheet,
    wrap,
)
from audit.report.selection import CLASS_SECTIONS, SPLIT_SECTIONS
from audit.viewing import Run

HOSTILE = [
    "<script>alert(1)</script>\"'&amp;",
    "w" * 200,
    "قطة في الحديقة",
    "猫" * 60,
    "a\nb\0c\u202e",
    "$\\frac{",
    "",
]
ENGLISH = load_language("en")


@pytest.fixture(scope="module")
def run(small_run: Run) -> Run:
    return small_run


@pytest.fixture(scope="module")
def thumbs(run: Run) -> pd.DataFrame:
    return pd.read_parquet(run.path / "thumbs.parquet")


def drawn(run: Run, thumbs: pd.DataFrame, style: Style | None = None) -> dict[str, bytes]:
    return dict(
        Grids(run.samples, thumbs, run.classes, tuple(run.manifest["grid"]), style).sheets()
    )


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def of_class(thumbs: pd.DataFrame, label: int) -> pd.DataFrame:
    return thumbs[thumbs["label"] == label]


def some(thumbs: pd.DataFrame) -> pd.DataFrame:
    """The pictures of one class, and of the whole split."""
    return thumbs[thumbs["label"] <= 0]


def test_enlarging_does_not_ring() -> None:
    rng = np.random.default_rng(0)
    small = rng.choice(np.array([20, 235], np.uint8), (7, 9, 3))
    large = resized(small, 70, 90)
    assert large.shape == (70, 90, 3)
    padded = np.pad(small, ((2, 2), (2, 2), (0, 0)), mode="edge")
    for y in range(70):
        for x in range(90):
            # A pixel's neighbours in the small picture, and theirs.
            around = padded[y // 10 : y // 10 + 5, x // 10 : x // 10 + 5]
            assert (large[y, x] >= around.min((0, 1))).all()
            assert (large[y, x] <= around.max((0, 1))).all()


def test_enlarging_is_smooth_and_keeps_flat_pictures_flat() -> None:
    flat = np.full((4, 4, 3), 77, np.uint8)
    assert (resized(flat, 40, 40) == 77).all()
    step = np.repeat(np.uint8([[40, 40, 40, 40, 210, 210, 210, 210]]), 8, axis=0)[..., None]
    row = resized(step, 80, 80).reshape(80, 80)[40].astype(int)
    assert (np.diff(row) >= 0).all()
    assert len(set(row.tolist())) > 5, "not in blocks"


def test_reducing_averages() -> None:
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    expected = image.reshape(2, 2, 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(resized(image, 2, 2), expected, atol=1)
    assert resized(image, 4, 4) is image


@pytest.mark.parametrize("name", ["jet", "viridis", "cividis", "inferno"])
def test_colours_run_from_nothing_to_the_strongest(name: str) -> None:
    table = colour_table(name)
    assert table.shape == (256, 3)
    assert len(np.unique(table, axis=0)) > 200
    heat = np.array([[0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(coloured(heat, name)[0], table[[0, 255]])
    if name != "jet":
        light = table @ np.array([0.299, 0.587, 0.114])
        assert (np.diff(np.convolve(light, np.ones(9) / 9, "valid")) > 0).all(), "in greys too"
    else:
        levels = np.arange(256, dtype=np.uint8)[None]
        expected = cv2.applyColorMap(levels, cv2.COLORMAP_JET)[0, :, ::-1]
        np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("name", ["jet", "cividis"])
def test_the_legend_shows_the_colours_that_were_used(
    name: str, run: Run, thumbs: pd.DataFrame
) -> None:
    ramp = coloured(np.linspace(0, 1, 240, dtype=np.float32)[None], name)[0]
    for content in drawn(run, some(thumbs), Style(colours=name)).values():
        image = pixels(content)[-120:]
        assert any(
            (image[y, x : x + 240] == ramp).all()
            for y in range(0, 120, 10)
            for x in np.flatnonzero((image[y] == ramp[0]).all(axis=-1))
        )


def test_colours_change_heatmaps_and_nothing_else(run: Run, thumbs: pd.DataFrame) -> None:
    name = class_sheet(0, "zero")
    jet, cividis = (
        pixels(drawn(run, of_class(thumbs, 0), Style(colours=colours))[name])
        for colours in ("jet", "cividis")
    )
    changed = (jet != cividis).any(axis=2)
    assert not changed[:, :216].any(), "the first column holds plain pictures"
    assert changed[:, 221:421].any()


def test_sheets_are_as_wide_as_a_slide_and_redrawn_alike(run: Run, thumbs: pd.DataFrame) -> None:
    first, second = drawn(run, thumbs), drawn(run, thumbs)
    assert first == second
    assert (
        len(first) == 20 + thumbs.loc[thumbs["section"].isin(SPLIT_SECTIONS), "section"].nunique()
    )
    assert {pixels(content).shape[1] for content in first.values()} == {WIDTH}


def test_every_tile_bears_its_sample_id(run: Run, thumbs: pd.DataFrame) -> None:
    own = of_class(thumbs, 0)
    shown = pd.concat(
        own[own["section"] == section].sort_values("rank")[: 2 * SHOWN]
        for section in CLASS_SECTIONS
    )
    name = class_sheet(0, "zero")
    before = pixels(drawn(run, own)[name])
    worst = own[own["section"] == "worst"].sort_values("rank")["index"]
    never = sorted(set(run.samples["index"]) - set(shown["index"]))[0]
    for index, seen in (*((i, True) for i in worst[:SHOWN]), (never, False)):
        samples = run.samples.copy()
        samples.loc[samples["index"] == index, "sample_id"] = "another"
        grids = Grids(samples, own, run.classes, tuple(run.manifest["grid"]))
        after = pixels(dict(grids.sheets())[name])
        assert (before != after).any() == seen


@pytest.mark.parametrize("name", HOSTILE)
def test_any_class_name_is_drawn(name: str, run: Run, thumbs: pd.DataFrame) -> None:
    samples, classes = run.samples.copy(), run.classes.copy()
    for column in ("label_name", "predicted_name"):
        samples[column] = samples[column].cat.rename_categories({"zero": name})
    classes.loc[classes["label"] == 0, "label_name"] = name
    grids = Grids(samples, of_class(thumbs, 0), classes, tuple(run.manifest["grid"]))
    sheets = dict(grids.sheets())
    assert {pixels(content).shape[1] for content in sheets.values()} == {WIDTH}


def test_undefined_values_are_dashes(run: Run, thumbs: pd.DataFrame) -> None:
    samples = run.samples.copy()
    empty = samples["index"].isin(of_class(thumbs, 0)["index"])
    samples.loc[empty, ["correct", "mask_confidence", "label_name", "background_share"]] = None
    grids = Grids(samples, of_class(thumbs, 0), run.classes, tuple(run.manifest["grid"]))
    assert len(dict(grids.sheets())) == 2


def test_sections_have_names_in_both_languages() -> None:
    for language in (ENGLISH, load_language("zh")):
        assert set(headings(language)) == {*CLASS_SECTIONS, *SPLIT_SECTIONS}
        assert set(split_meanings(language)) == set(SPLIT_SECTIONS)


def test_tiles_that_do_not_fit_go_below() -> None:
    grey = np.full((100, 300, 3), 128, np.uint8)
    legend = Legend(colours="jet", low="low", high="high")

    def height(count: int) -> int:
        tiles = [Tile(pictures=[grey], captions=[Caption(text="one")])] * count
        row = Row(heading="", tiles=tiles)
        return len(pixels(sheet("title", "", [row], legend, ENGLISH)))

    assert height(1) == height(4) < height(5) == height(8) < height(9)


@pytest.mark.parametrize("text", [*HOSTILE, "one two three", "一二三四五六七八九十" * 9])
@pytest.mark.parametrize("size", [12, 40])
def test_texts_keep_to_their_room(text: str, size: int) -> None:
    face = Face(size)
    for room in (60, 200, 1000):
        assert face.width(face.fit(text, room)) <= room
        assert face.width(face.fit_ends(text, room)) <= room
        assert all(face.width(line) <= room for line in wrap(text, room, face))


def test_both_ends_of_a_long_name_stay() -> None:
    shown = Face(20).fit_ends("train/" + "x" * 300 + "_0042.png", 250)
    assert shown.startswith("train/")
    assert shown.endswith("0042.png")
    assert "…" in shown


def test_wrapping_loses_no_word() -> None:
    text = "Kinds of background by what they add to the class"
    lines = wrap(text, 150, Face(20))
    assert len(lines) > 2
    assert " ".join(lines) == text


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Fonts are looked for anew, before and after."""

    def forget() -> None:
        for function in (fonts._installed, fonts._font_of):
            function.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def only_dejavu(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without other fonts."""
    fonts._list_new_fonts()
    known = [entry for entry in fontManager.ttflist if entry.name.startswith("DejaVu")]
    monkeypatch.setattr(fontManager, "ttflist", known)


def font_with(folder: Path, characters: str) -> Path:
    """A font in which each of these characters is a filled square."""
    names = [".notdef", *(f"u{ord(c):04x}" for c in characters)]
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in ((900, 0), (900, 800), (100, 800)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, names[1:], strict=True)})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(folder / "squares.ttf")
    return folder / "squares.ttf"


@pytest.mark.usefixtures("only_dejavu")
def test_characters_that_no_font_has_are_boxes_with_a_hint(run: Run, thumbs: pd.DataFrame) -> None:
    assert missing("猫")
    assert not missing("cat, Katze, кошка, قطة")
    assert drawable("a猫b") == "a□b"
    assert "Noto Sans CJK" in missing_letters(["cat", "猫"], ENGLISH)
    assert missing_letters(["cat"], ENGLISH) == ""
    classes = run.classes.copy()
    classes.loc[classes["label"] == 0, "label_name"] = "猫"
    grids = Grids(run.samples, of_class(thumbs, 0), classes, tuple(run.manifest["grid"]))
    hinted = pixels(dict(grids.sheets())[class_sheet(0, "猫")])
    plain = pixels(drawn(run, of_class(thumbs, 0))[class_sheet(0, "zero")])
    assert len(hinted) > len(plain), "a line tells what to install"


@pytest.mark.usefixtures("only_dejavu")
def test_without_a_font_for_chinese_pictures_are_in_english() -> None:
    assert not can_draw_chinese()
    assert choose_style("viridis", "zh") == Style(colours="viridis", language=ENGLISH)


@pytest.mark.usefixtures("only_dejavu")
def test_an_installed_font_is_found_for_characters_that_need_it(tmp_path: Path) -> None:
    fontManager.addfont(font_with(tmp_path, "猫类别背景图像样本"))
    assert not missing("猫")
    assert families(["cat"]) == ["DejaVu Sans"]
    assert families(["猫 cat"]) == ["DejaVu Sans", "Squares"]
    assert can_draw_chinese()
    assert choose_style("jet", "zh").language.name == "zh"
    face = Face(50)
    # DejaVu's letters stay as they are; the other character takes its own font's width.
    assert face.width("cat猫") == pytest.approx(face.width("cat") + 50, abs=1)
    page = Image.new("RGB", (100, 60), "#ffffff")
    face.draw(ImageDraw.Draw(page), (0, 0), "猫", "#000000")
    dark = (np.asarray(page).max(axis=2) < 100).sum()
    assert dark == pytest.approx(40 * 40, rel=0.1)


def test_mask_sheets_keep_to_the_slide(run: Run) -> None:
    card = MaskCard(
        image=np.full((32, 48, 3), 90, np.uint8),
        mask=np.eye(32, 48, dtype=np.float32),
        soft=np.linspace(0, 1, 32 * 48, dtype=np.float32).reshape(32, 48),
        sample_id="a/" + "b" * 300,
        confidence=None,
    )
    content = draw_masks("Masks", "of all", [MaskSection(heading="some", cards=[card] * 5)])
    assert pixels(content).shape[1] == WIDTH


def test_an_overlay_is_a_mixture() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 0] = 100
    heat = np.ones((4, 4), np.float32)
    expected = 0.3 * colour_table("jet")[255].astype(float) + [50, 0, 0]
    np.testing.assert_allclose(overlay(image, heat)[0, 0], expected, atol=1)
    expected = 0.6 * colour_table("inferno")[255].astype(float) + 0.4 * 29.9
    np.testing.assert_allclose(overlay(image, heat, "inferno")[0, 0], expected, atol=1)
