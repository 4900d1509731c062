"""The page of a run as its reader meets it: in a browser, from disk."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from audit import run_audit
from audit.report.language import load_language
from audit.report.page.words import words
from audit.tables import AuditRun
from audit.tables.reading import enlarge_map
from tests.conftest import real_data
from tests.report.browser import NARROW, WIDE, Visit, fill, unreachable, violations, visit

pytestmark = pytest.mark.browser

WORDS = words(load_language("en"))
SECTIONS = ("classes", "gallery", "labels", "confusions", "matrix")
Open = Callable[..., AbstractContextManager[Visit]]


@pytest.fixture(scope="module", params=["demo", "cifar10"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    """A finished run, of real photographs where they are at hand."""
    if request.param == "demo":
        made: AuditRun = request.getfixturevalue("demo_run")
        return made
    root, out = real_data("cifar10"), tmp_path_factory.mktemp("browser")
    return run_audit(dataset="cifar10", data_root=root, limit=600, edits=250, grids=False, out=out)


@pytest.fixture(scope="module")
def opened(run: AuditRun, browser: Browser) -> Open:
    """Opens the page; leaving it fails if anything went wrong in it."""
    return partial(visit, browser, run.path / "index.html")


def class_table(page: Page) -> Locator:
    filled = page.locator("[data-fill=classes]:has(form)")
    return filled.get_by_role("region", name=WORDS["classes_caption"]).get_by_role("table")


def class_rows(page: Page) -> Locator:
    return class_table(page).locator("tbody tr")


def names_in_order(page: Page) -> list[str]:
    return class_rows(page).locator("th").all_inner_texts()


def dialog(page: Page, name: str) -> Locator:
    return page.locator(f"dialog#{name}[open]")


def open_class(page: Page, name: str) -> Locator:
    class_table(page).get_by_role("link", name=name, exact=True).click()
    box = dialog(page, "class")
    expect(box.get_by_role("heading", level=2)).to_have_text(name)
    return box


def gallery(page: Page) -> Locator:
    part = page.locator("[data-fill=gallery]")
    part.scroll_into_view_if_needed()
    expect(part.locator("a.tile").first).to_be_visible()
    return part


def open_sample(page: Page) -> Locator:
    gallery(page).locator("a.tile").first.click()
    box = dialog(page, "sample")
    expect(box).to_be_visible()
    return box


def loaded(pictures: Locator) -> None:
    """Wait until pictures are there, and whole."""
    expect(pictures.first).to_be_visible()
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).not_to_have_js_property("naturalWidth", 0)


def percent(value: float, digits: int = 0) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.{digits}f}%"


def test_it_opens_from_disk_alone(opened: Open, run: AuditRun) -> None:
    with opened() as visited:
        page = visited.page
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        fill(page)
        expect(class_rows(page)).to_have_count(len(run.classes))
        # What else is requested is a fault; data: needs no file.
        files = [url for url in visited.requests if not url.startswith("data:")]
        assert files == [(run.path / "index.html").as_uri()]


def test_it_stands_alone(run: AuditRun, browser: Browser, tmp_path: Path) -> None:
    shutil.copy(run.path / "index.html", tmp_path)
    with visit(browser, tmp_path / "index.html") as visited:
        fill(visited.page)
        loaded(gallery(visited.page).locator("a.tile img"))


def test_numbers_are_those_of_the_tables(opened: Open, run: AuditRun) -> None:
    with opened() as visited:
        page = visited.page
        fill(page)
        heads = class_table(page).locator("thead th").all_inner_texts()
        told = {cells[0]: dict(zip(heads, cells, strict=True)) for cells in cells_of(page)}
        assert set(told) == set(run.classes["label_name"])
        for row in run.classes.to_dict("records"):
            cells = told[row["label_name"]]
            assert cells[WORDS["images"]] == str(row["n"])
            assert cells[WORDS["accuracy"]] == percent(row["accuracy"], 1)
            assert cells[WORDS["moves"]] == percent(row["reliance"])
            assert cells[WORDS["share"]] == percent(row["background_share"])
            assert cells[WORDS["gap"]] == percent(row["bg_gap"])
            assert cells[WORDS["tested"]] == str(row["n_edited"])


def cells_of(page: Page) -> list[list[str]]:
    return [
        [text.strip() for text in row.locator("th, td").all_inner_texts()]
        for row in class_rows(page).all()
    ]


def test_the_class_table_sorts(opened: Open, run: AuditRun) -> None:
    with opened() as visited:
        page = visited.page
        fill(page)
        only = re.compile(f"^{WORDS['accuracy']}$")
        button = class_table(page).get_by_role("button").filter(has_text=only)
        head = button.locator("xpath=..")
        by_accuracy = run.classes.set_index("label_name")["accuracy"]
        for direction in ("descending", "ascending"):
            button.click()
            expect(head).to_have_attribute("aria-sort", direction)
            values = by_accuracy[names_in_order(page)].tolist()
            assert values == sorted(values, reverse=direction == "descending")
            assert values[0] != values[-1]
        expect(class_table(page).locator("th[aria-sort]")).to_have_count(1)


def test_the_class_table_filters(opened: Open, run: AuditRun) -> None:
    with opened() as visited:
        page = visited.page
        fill(page)
        name = run.classes["label_name"][3]
        search = page.get_by_label(WORDS["class_filter"])
        search.fill(name[:4].upper())
        wanted = {n for n in run.classes["label_name"] if name[:4].lower() in n.lower()}
        expect(class_rows(page)).to_have_count(len(wanted))
        assert set(names_in_order(page)) == wanted
        search.fill("no such class")
        expect(class_rows(page)).to_have_count(0)
        search.fill("")
        counts = run.classes["verdict"].value_counts()
        choice = page.locator("[data-fill=classes]").get_by_role("combobox")
        for verdict, count in counts.items():
            choice.select_option(str(verdict))
            expect(class_rows(page)).to_have_count(count)
            of_verdict = run.classes.loc[run.classes["verdict"] == verdict, "label_name"]
            assert set(names_in_order(page)) == set(of_verdict)


def test_a_class_opens_on_its_evidence_and_back_closes_it(opened: Open, run: AuditRun) -> None:
    worst = run.classes.sort_values("reliance", ascending=False).iloc[0]
    with opened() as visited:
        page = visited.page
        fill(page)
        box = open_class(page, worst["label_name"])
        assert page.url.endswith(f"#class-{worst['label']}")
        for title in ("edits", "examples", "families", "transplanted", "histogram"):
            expect(box.get_by_role("heading", name=WORDS[title], exact=True)).to_be_visible()
        assert percent(worst["reliance"]) in box.inner_text()
        loaded(box.locator("a.tile img"))
        loaded(box.locator("figure.edit img"))
        for plot in box.locator("div.plot[role=img]").all():
            plot.scroll_into_view_if_needed()
            expect(plot.locator("svg").first).to_be_visible()
        page.go_back()
        expect(page.locator("dialog[open]")).to_have_count(0)
        page.go_forward()
        expect(dialog(page, "class")).to_be_visible()


def test_every_class_opens_by_its_address(opened: Open, run: AuditRun) -> None:
    for label in run.classes["label"][:3]:
        with opened(hash_=f"#class-{label}") as visited:
            name = run.classes["label_name"][label]
            box = dialog(visited.page, "class")
            expect(box.get_by_role("heading", level=2)).to_have_text(name)
            box.get_by_role("button", name=WORDS["close"]).click()
            expect(visited.page.locator("dialog[open]")).to_have_count(0)


def test_a_sample_opens_with_its_numbers(opened: Open, run: AuditRun) -> None:
    samples = run.samples.set_index("sample_id")
    with opened() as visited:
        box = open_sample(visited.page)
        row = samples.loc[box.locator("dl.facts dd").first.inner_text()]
        said = {
            cells[2]: cells[1]
            for cells in (r.locator("th, td").all_inner_texts() for r in box.locator("tr").all())
        }
        assert said["confidence"] == percent(row["confidence"], 1)
        assert said["label_probability"] == percent(row["label_probability"], 1)
        assert said["background_share"] == percent(row["background_share"], 1)
        assert said["far_logit"].replace("−", "-") == f"{row['far_logit']:.2f}"
        assert row["label_name"] in box.locator("p.said").inner_text()
        # The line that is offered finds this row.
        query = box.locator("pre code").inner_text()
        found = eval(query, {"run": run})
        assert found["sample_id"].tolist() == [row.name]


def test_an_image_that_the_page_does_not_hold(opened: Open) -> None:
    with opened(hash_="#sample-no%20such%22one") as visited:
        box = dialog(visited.page, "sample")
        assert box.locator("pre code").inner_text() == 'run.show("no such\\"one")'
        box.get_by_role("button", name=WORDS["close"]).click()
        expect(visited.page.locator("dialog[open]")).to_have_count(0)


def test_neighbours_are_a_key_away(opened: Open) -> None:
    with opened() as visited:
        page = visited.page
        titles = [tile.get_attribute("title") for tile in gallery(page).locator("a.tile").all()]
        open_sample(page)
        name = dialog(page, "sample").locator("dl.facts dd").first
        expect(name).to_have_text(titles[0] or "")
        page.keyboard.press("ArrowRight")
        expect(name).to_have_text(titles[1] or "")
        page.keyboard.press("ArrowLeft")
        expect(name).to_have_text(titles[0] or "")


def pixels(canvas: Locator) -> NDArray[np.float64]:
    """What a canvas shows, RGB, H×W×3."""
    content = canvas.evaluate("(e) => e.toDataURL('image/png')").partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return np.asarray(image.convert("RGB"), np.float64)


def coloured(heatmap: NDArray[np.float32], name: str) -> NDArray[np.float64]:
    """A heatmap by the oracles: OpenCV's JET, matplotlib's others."""
    levels = (heatmap * 255).round().astype(np.uint8)
    if name == "jet":
        return cv2.applyColorMap(levels, cv2.COLORMAP_JET)[..., ::-1].astype(np.float64)
    return matplotlib.colormaps[name](levels)[..., :3] * 255


def test_heatmaps_are_those_of_the_tables(opened: Open, run: AuditRun) -> None:
    samples = run.samples.set_index("sample_id")
    with opened() as visited:
        box = open_sample(visited.page)
        row = samples.loc[box.locator("dl.facts dd").first.inner_text()]
        canvas = box.locator("canvas.heat")
        expect(canvas).to_be_visible()
        for name in ("jet", "viridis", "inferno"):
            box.get_by_role("combobox", name=WORDS["colours"]).select_option(name)
            shown = pixels(canvas)
            expected = enlarge_map(row["map"], run.manifest["grid"], shown.shape[:2])
            away = np.abs(shown - coloured(expected, name))
            # The page holds each cell as one of 256 levels.
            assert away.mean() <= 1.5, name
            assert away.max() <= 10, name
            assert np.abs(shown - shown.mean(axis=(0, 1))).max() > 30, name


def test_the_heatmap_and_the_outline_can_be_taken_off(opened: Open) -> None:
    with opened() as visited:
        box = open_sample(visited.page)
        canvas, outline = box.locator("canvas.heat"), box.locator("svg.outline")
        heat = box.get_by_role("checkbox", name=WORDS["heatmap"])
        expect(canvas).to_be_visible()
        heat.uncheck()
        expect(canvas).to_be_hidden()
        heat.check()
        expect(canvas).to_be_visible()
        line = box.get_by_role("checkbox").nth(1)
        expect(outline).to_be_visible()
        line.uncheck()
        expect(outline).to_be_hidden()
        line.check()
        strength = box.get_by_label(WORDS["opacity"])
        strength.fill("20")
        expect(canvas).to_have_css("opacity", "0.2")
        strength.fill("100")
        expect(canvas).to_have_css("opacity", "1")


def shown_of(page: Page) -> int:
    said = gallery_status(page).inner_text()
    found = re.match(r"(None|[\d,]+) of the", said)
    assert found is not None, said
    return 0 if found[1] == "None" else int(found[1].replace(",", ""))


def gallery_status(page: Page) -> Locator:
    return page.locator("[data-fill=gallery]").get_by_role("status")


def test_the_gallery_filters(opened: Open, run: AuditRun) -> None:
    samples = run.samples
    suspects = samples["sample_id"].isin(run.labels["sample_id"])
    wrong = ~samples["correct"].astype(bool)
    flags = {
        "right_for_wrong_reason": samples["right_for_wrong_reason"].fillna(value=False),
        "wrong_because_of_background": samples["wrong_because_of_background"].fillna(value=False),
        "context_driven": samples["context_driven"].fillna(value=False),
        "label_suspect": suspects,
        "wrong_but_confident": wrong & (samples["confidence"] >= 0.9),
    }
    with opened() as visited:
        page = visited.page
        part = gallery(page)
        flag = part.get_by_role("combobox", name=WORDS["filter_flag"], exact=True)
        for place, (name, raised) in enumerate(flags.items()):
            flag.select_option(str(place))
            assert shown_of(page) == raised.sum(), name
            assert part.locator("a.tile").count() == min(48, raised.sum())
        flag.select_option("3")
        part.get_by_label(WORDS["filter_least"]).fill("80")
        assert shown_of(page) == (suspects & (samples["confidence"] >= 0.8)).sum()
        part.get_by_role("button", name=WORDS["reset"]).click()
        flag.select_option("0")
        flagged = samples[flags["right_for_wrong_reason"].astype(bool)]
        for label, rows in flagged.groupby("label"):
            part.get_by_label(WORDS["filter_class"]).fill(run.manifest["classes"][label])
            part.get_by_role("combobox", name=WORDS["filter_side"], exact=True).select_option(
                "label"
            )
            assert shown_of(page) == len(rows)
        part.get_by_role("button", name=WORDS["reset"]).click()
        part.get_by_label(WORDS["filter_from"]).fill("60")
        flag.select_option("0")
        assert shown_of(page) == (flagged["background_share"] >= 0.6).sum()
        order = part.get_by_role("combobox", name=WORDS["filter_order"], exact=True)
        order.select_option(label=WORDS["order_background_share"])
        tiles = [tile.get_attribute("title") for tile in part.locator("a.tile").all()]
        share = samples.set_index("sample_id")["background_share"][tiles].tolist()
        assert share == sorted(share, reverse=True)


def test_light_and_dark(opened: Open) -> None:
    def background(page: Page) -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return float(np.mean([int(value) for value in re.findall(r"\d+", colour)[:3]]))

    with opened() as visited:
        page = visited.page
        assert background(page) > 200
        button = page.locator("#theme")
        button.click()
        assert background(page) > 200
        button.click()
        assert background(page) < 60
        button.click()
        page.emulate_media(color_scheme="dark")
        assert background(page) < 60


def test_the_keyboard_suffices(opened: Open, run: AuditRun) -> None:
    with opened() as visited:
        page = visited.page
        fill(page)
        focused = "document.activeElement.getAttribute('href') || ''"
        for _ in range(150):
            page.keyboard.press("Tab")
            here = page.evaluate(focused)
            if re.fullmatch(r"#class-\d+", here):
                break
        else:
            pytest.fail("no class is reached with Tab")
        page.keyboard.press("Enter")
        expect(dialog(page, "class")).to_be_visible()
        assert page.evaluate(
            "document.querySelector('dialog[open]').contains(document.activeElement)"
        )
        page.keyboard.press("Escape")
        expect(page.locator("dialog[open]")).to_have_count(0)
        assert page.evaluate(focused) == here
        assert page.evaluate("document.activeElement.matches(':focus-visible')")


def test_it_prints_with_nothing_hidden(opened: Open, run: AuditRun, tmp_path: Path) -> None:
    with opened() as visited:
        page = visited.page
        page.evaluate("window.addEventListener('beforeprint', () => { window.printing = true })")
        content = page.pdf(format="A4")
        assert page.evaluate("window.printing")
        assert content.startswith(b"%PDF")
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        for name in run.classes["label_name"]:
            row = class_table(page).get_by_role("link", name=name, exact=True)
            expect(row).to_be_visible()
        expect(page.locator("#theme")).to_be_hidden()
        expect(page.locator("[data-fill=classes]").get_by_role("searchbox")).to_be_hidden()
    if shutil.which("pdftotext"):
        (tmp_path / "page.pdf").write_bytes(content)
        command = ["pdftotext", str(tmp_path / "page.pdf"), "-"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert set(run.classes["label_name"]) <= set(text.split())


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_overflows(width: int, opened: Open, run: AuditRun) -> None:
    worst = run.classes.sort_values("reliance", ascending=False).iloc[0]
    with opened(width=width) as visited:
        page = visited.page
        fill(page)
        assert unreachable(page) == []
        open_class(page, worst["label_name"])
        assert unreachable(page) == []
        page.keyboard.press("Escape")
        open_sample(page)
        assert unreachable(page) == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_axe_finds_nothing_serious(width: int, opened: Open, run: AuditRun) -> None:
    def check(page: Page) -> None:
        assert violations(page) == []
        # Contrast is what the dark changes.
        page.emulate_media(color_scheme="dark")
        assert violations(page, "color-contrast") == []
        page.emulate_media(color_scheme="light")

    worst = run.classes.sort_values("reliance", ascending=False).iloc[0]
    with opened(width=width) as visited:
        page = visited.page
        fill(page)
        check(page)
        open_class(page, worst["label_name"])
        check(page)
        page.keyboard.press("Escape")
        open_sample(page)
        check(page)
