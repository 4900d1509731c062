"""Names of classes, samples and files that hold HTML, scripts and worse are text, nothing else."""

from __future__ import annotations

import csv
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, expect

from audit import run_audit
from audit.comparing import compare_runs
from audit.models import build
from audit.redraw import open_stored
from audit.report.language import load_language
from audit.report.page.render import write_page
from audit.report.page.words import words
from audit.tables import AuditRun
from tests.data.making import png
from tests.report.browser import NARROW, WIDE, Visit, fill, unreachable, violations, visit
from tests.report.generated import Plan, write_run

pytestmark = pytest.mark.browser

HOSTILE = (
    "<script>window.hacked=1</script>",
    "</script><img src=x onerror=window.hacked=2>",
    '"><svg onload=window.hacked=3>',
    "'-window.hacked=4-'\\",
    "{{7*7}}${window.hacked=5}{% raw %}<%= 7*7 %>",
    "\u202egnp.live\u202c \u05d0\u05d1 \u0627\u0628",
    "two\nlines\tand a tab",
    "x" * 200,
    "猫 🐈‍⬛ e\u0301 &amp; &lt;b&gt;",
    "__proto__",
    "constructor",
    " javascript:window.hacked=6 ",
)
WORDS = words(load_language("en"))


def sample_name(index: int) -> str:
    """A hostile name of a file; unique."""
    return f"{HOSTILE[index % len(HOSTILE)]}/{index}"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    """Every hostile name as class and as sample."""
    folder = tmp_path_factory.mktemp("generated")
    return write_run(folder, Plan(classes=HOSTILE, samples=360, sample_id=sample_name))


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    """The whole way: labels in a table, files with hostile names, a network, edits."""
    folder = tmp_path_factory.mktemp("audited")
    classes = [name for name in HOSTILE if name == name.strip()][:10]
    rows = []
    for number in range(40):
        label = classes[number % 10]
        name = f"{number}-{label.replace('/', '⁄')[:60]}.png"
        (folder / name).write_bytes(png(number))
        rows.append((name, label))
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    torch.manual_seed(0)
    torch.save(build("cnn", 10).state_dict(), folder / "model.pth")
    return run_audit(
        dataset=f"manifest:{folder}/table.csv", checkpoint=folder / "model.pth",
        mean=(0.5,) * 3, std=(0.2,) * 3, model="cnn", grids=False, out=folder / "out",
    )  # fmt: skip


@pytest.fixture(scope="module", params=["generated", "audited"])
def run(request: pytest.FixtureRequest) -> AuditRun:
    found: AuditRun = request.getfixturevalue(request.param)
    return found


# Whatever a name could have put into the page or run there.
_HARM = """() => ({
  hacked: window.hacked ?? null,
  handlers: [...document.querySelectorAll("*")].filter((e) => [...e.attributes].some(
    (a) => a.name.startsWith("on") || (a.name === "href" && /^\\s*javascript:/i.test(a.value)),
  )).length,
  images: [...document.images].filter(
    (e) => e.hasAttribute("src") && !e.src.startsWith("data:"),
  ).length,
  scripts: [...document.scripts].filter((e) => e.textContent.includes("hacked")).length,
  bold: [...document.querySelectorAll("b")].filter((e) => e.textContent).length,
})"""


def harmless(visited: Visit) -> None:
    found: dict[str, Any] = visited.page.evaluate(_HARM)
    assert found == {"hacked": None, "handlers": 0, "images": 0, "scripts": 0, "bold": 0}
    assert visited.faults == []


def test_names_of_classes_are_text(run: AuditRun, browser: Browser) -> None:
    names = run.classes.set_index("label")["label_name"].to_dict()
    with visit(browser, run.path / "index.html") as visited:
        page = visited.page
        fill(page)
        harmless(visited)
        table = page.get_by_role("region", name=WORDS["classes_caption"]).get_by_role("table")
        shown = {
            link.get_attribute("href"): link.text_content()
            for link in table.locator("tbody th a").all()
        }
        assert shown == {f"#class-{label}": name for label, name in names.items()}
        # A direction of its own: a name written from the right moves nothing beside it.
        assert table.locator("tbody th a > bdi").count() == len(names)
        for label, name in names.items():
            page.evaluate("(hash) => { window.location.hash = hash }", f"#class-{label}")
            heading = page.locator("dialog#class[open] h2")
            expect(heading).to_be_visible()
            assert heading.text_content() == name
            harmless(visited)


def test_names_of_samples_are_text(run: AuditRun, browser: Browser) -> None:
    with visit(browser, run.path / "index.html") as visited:
        page = visited.page
        fill(page)
        part = page.locator("[data-fill=gallery]")
        part.get_by_role("combobox", name=WORDS["filter_flag"], exact=True).select_option("all")
        titles = [tile.get_attribute("title") for tile in part.locator("a.tile").all()]
        assert set(titles) <= set(run.samples["sample_id"])
        kinds = {title.partition("/")[0].partition("-")[2] or title for title in titles if title}
        assert len(kinds) >= 10
        part.locator("a.tile").first.click()
        name = page.locator("dialog#sample[open] dl.facts dd").first
        for title in titles[:24]:
            expect(name).to_be_visible()
            assert name.text_content() == title
            harmless(visited)
            page.keyboard.press("ArrowRight")


def test_a_sample_is_found_by_its_address(run: AuditRun, browser: Browser) -> None:
    with visit(browser, run.path / "index.html") as visited:
        part = visited.page.locator("[data-fill=gallery]")
        part.scroll_into_view_if_needed()
        tiles = part.locator("a.tile").all()[:12:3]
        found = {tile.get_attribute("href"): tile.get_attribute("title") for tile in tiles}
    for address, title in found.items():
        with visit(browser, run.path / "index.html", hash_=address or "") as visited:
            name = visited.page.locator("dialog#sample[open] dl.facts dd").first
            expect(name).to_be_visible()
            assert name.text_content() == title


def test_in_chinese_too(run: AuditRun, browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path, open_stored(run.path), load_language("zh"))
    with visit(browser, tmp_path / "index.html", width=NARROW) as visited:
        page = visited.page
        fill(page)
        harmless(visited)
        expect(page.locator("html")).to_have_attribute("lang", re.compile("^zh"))
        expect(page.get_by_role("heading", level=2).first).to_contain_text(
            re.compile("[\u4e00-\u9fff]")
        )
        assert unreachable(page) == []
        page.evaluate("window.location.hash = '#class-1'")
        heading = page.locator("dialog#class[open] h2")
        expect(heading).to_be_visible()
        assert heading.text_content() == run.classes["label_name"][1]


def test_two_runs_compared(generated: AuditRun, browser: Browser, tmp_path: Path) -> None:
    plan = Plan(classes=HOSTILE, samples=360, sample_id=sample_name, seed=1)
    other = write_run(tmp_path / "other", plan)
    compared = compare_runs(generated, other, out=tmp_path / "compared")
    assert len(compared.changes)
    page = compared.path / "index.html"
    for width in (WIDE, NARROW):
        with visit(browser, page, width=width) as visited:
            visited.page.mouse.wheel(0, 100_000)
            harmless(visited)
            text = visited.page.locator("body").text_content() or ""
            for name in HOSTILE:
                assert name in text
            assert unreachable(visited.page) == []
            assert violations(visited.page) == []


def test_what_is_typed_is_text(run: AuditRun, browser: Browser) -> None:
    with visit(browser, run.path / "index.html") as visited:
        page = visited.page
        fill(page)
        for name in run.classes["label_name"]:
            typed = name.replace("\n", " ").replace("\t", " ")
            for box in page.get_by_role("searchbox").all():
                box.fill(typed)
        harmless(visited)


def test_long_names_do_not_push_the_page_apart(run: AuditRun, browser: Browser) -> None:
    longest = run.classes["label_name"].str.len().idxmax()
    visited_page = partial(visit, browser, run.path / "index.html", width=NARROW)
    with visited_page() as visited:
        fill(visited.page)
        assert unreachable(visited.page) == []
    with visited_page(hash_=f"#class-{run.classes['label'][longest]}") as visited:
        expect(visited.page.locator("dialog#class[open]")).to_be_visible()
        assert unreachable(visited.page) == []
