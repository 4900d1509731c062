"""A page of 1,000 classes and 100,000 samples; how fast it opens: benchmarks/page.py."""

from __future__ import annotations

import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from audit.tables import AuditRun
from tests.report.browser import NARROW, WIDE, fill, unreachable, visit
from tests.report.generated import Plan, write_run

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CLASSES, SAMPLES, MOST_BYTES = 1000, 100_000, 20_000_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    names = [f"class {number}" for number in range(CLASSES)]
    plan = Plan(classes=names, samples=SAMPLES, blocks=10)
    return write_run(tmp_path_factory.mktemp("large"), plan)


def test_the_run_is_as_large_as_it_says(run: AuditRun) -> None:
    assert len(run.samples) == SAMPLES
    assert run.samples["sample_id"].is_unique
    assert (run.samples.groupby("label").size() == SAMPLES // CLASSES).all()
    assert len(run.classes) == CLASSES
    assert run.classes["label"].tolist() == list(range(CLASSES))
    accuracy = run.samples.groupby("label")["correct"].mean().astype(float)
    pd.testing.assert_series_equal(
        accuracy, run.classes.set_index("label")["accuracy"].astype(float),
        check_names=False, check_index_type=False,
    )  # fmt: skip
    assert pd.read_parquet(run.path / "thumbs.parquet")["index"].nunique() >= 1000


def test_the_page_stays_small(run: AuditRun, browser: Browser) -> None:
    page = run.path / "index.html"
    assert page.stat().st_size < MOST_BYTES
    with visit(browser, page) as visited:
        fill(visited.page)
        # All of it is in the one file.
        assert {u for u in visited.requests if not u.startswith("data:")} == {page.as_uri()}


def test_what_is_not_looked_at_is_not_made(run: AuditRun, browser: Browser) -> None:
    with visit(browser, run.path / "index.html") as visited:
        fill(visited.page)
        assert visited.page.locator("img").count() < 400
        assert visited.page.locator("*").count() < 20_000


def test_the_last_class_is_found(run: AuditRun, browser: Browser) -> None:
    with visit(browser, run.path / "index.html") as visited:
        page = visited.page
        fill(page)
        part = page.locator("[data-fill=classes]")
        expect(part.get_by_role("status")).to_contain_text("1,000")
        part.get_by_role("searchbox").fill("class 999")
        rows = part.locator("tbody tr")
        expect(rows).to_have_count(1)
        rows.get_by_role("link").click()
        expect(page.locator("dialog#class[open] h2")).to_have_text("class 999")
        page.keyboard.press("Escape")
        # Rows come as they are scrolled to, to the last.
        part.get_by_role("searchbox").fill("")
        table = part.get_by_role("region")
        for _ in range(40):
            if rows.count() == CLASSES:
                break
            table.evaluate("(e) => { e.scrollTop = e.scrollHeight }")
            page.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
        expect(rows).to_have_count(CLASSES)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_overflows(width: int, run: AuditRun, browser: Browser) -> None:
    with visit(browser, run.path / "index.html", width=width) as visited:
        fill(visited.page)
        assert unreachable(visited.page) == []
