"""Chinese on pictures: with a font that has it, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ImageFont

from audit.report.pictures import fonts
from audit.report.pictures.style import choose_style


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without fonts of its own."""
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    fonts._font_of.cache_clear()
    yield
    fonts._font_of.cache_clear()


def test_signs_for_missing_characters_are_no_characters() -> None:
    # matplotlib brings a font that has such a sign for every character.
    assert not any("LastResort" in Path(file).name for file in fonts._installed())


@pytest.mark.usefixtures("only_dejavu")
def test_without_a_chinese_font_pictures_are_in_english() -> None:
    assert not fonts.can_draw_chinese()
    assert choose_style("jet", "zh").language.name == "en"
    assert fonts.drawable("a类") == "a" + fonts.BOX
    assert choose_style("jet", "en").language.name == "en"


def test_with_a_chinese_font_pictures_are_in_chinese() -> None:
    if not fonts.can_draw_chinese():
        pytest.skip("needs a font with Chinese characters: apt-get install fonts-noto-cjk")
    assert choose_style("jet", "zh").language.name == "zh"
    file = fonts._font_of("背")
    assert file is not None
    # One character is as wide as it is high; a missing one would be DejaVu's narrow box.
    assert fonts.Face(20).width("背景") == pytest.approx(40, abs=2)
    with_faces = [f for f in fonts._installed() if Path(f).name == "NotoSansCJK-Regular.ttc"]
    for collection in with_faces:
        face = ImageFont.truetype(collection, index=fonts._face(collection))
        assert face.getname()[0] == "Noto Sans CJK SC"


def test_a_font_that_was_installed_since_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import font_manager

    known = font_manager.fontManager.ttflist
    kept = [entry for entry in known if Path(entry.fname).name != "DejaVuSans-Bold.ttf"]
    lost = {entry.fname for entry in known} - {entry.fname for entry in kept}
    assert lost
    monkeypatch.setattr(font_manager.fontManager, "ttflist", kept)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*lost, "nowhere/none.ttf"])
    for function in (fonts._installed, fonts._list_new_fonts):
        function.cache_clear()
    try:
        assert lost <= set(fonts._installed())
    finally:
        fonts._installed.cache_clear()
