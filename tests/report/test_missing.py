"""Parts that were never audited: on the page, in the summary, for comparisons and gates."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from audit.comparing import compare_runs
from audit.errors import UsageError
from audit.gate import as_markdown, evaluate, outcome_lines
from audit.redraw import open_stored
from audit.report.comparing.summary import summarise_comparison
from audit.report.language import load_language
from audit.report.page.data import page_data
from audit.report.page.render import render_page
from audit.report.stored import Stored
from audit.report.summary import summarise
from audit.run.gaps import compressed, gaps_of
from audit.tables import AuditRun
from tests.gate.making import a_class, a_run, settings
from tests.report.generated import Plan, write_run

EVIL = '<script>alert(1)</script> & "it\'s" gone'


def part(shard: int, reason: str = "never computed", size: int = 100) -> dict[str, Any]:
    return {"shard": shard, "start": shard * size, "stop": (shard + 1) * size, "samples": size,
            "reason": reason}  # fmt: skip


THREE_AND_SEVEN = [part(3), part(7, EVIL)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    folder = tmp_path_factory.mktemp("missing") / "run"
    return write_run(folder, Plan(classes=list("abcd"), samples=400, edited=100))


@pytest.fixture(scope="module")
def stored(run: AuditRun) -> Stored:
    return open_stored(run.path)


class Page(HTMLParser):
    """Text by the id of the element that it stands in or after, in order, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        name = dict(attrs).get("id")
        if name:
            self.ids.append(name)
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        if self.ids:
            self.texts[self.ids[-1]] = self.texts.get(self.ids[-1], "") + data


def page_of(stored: Stored, missing: list[dict[str, Any]], lang: str = "en") -> str:
    language = load_language(lang)
    shown = replace(stored, facts={**stored.facts, "missing": missing})
    return render_page(shown, page_data(shown, language), language)


def test_neighbours_are_told_as_one_where_their_reason_is_one() -> None:
    found = gaps_of({"missing": [part(4), part(3), part(5, "it crashes"), part(7, "it crashes")]})
    assert [(gap.first, gap.last, gap.start, gap.stop, gap.samples) for gap in found] == [
        (3, 4, 300, 500, 200), (5, 5, 500, 600, 100), (7, 7, 700, 800, 100)
    ]  # fmt: skip
    assert gaps_of({}) == () == gaps_of({"missing": []})
    assert compressed(range(0, 60, 2)).endswith("36, 38 and 10 more ranges")


def test_the_first_screen_says_what_is_missing(stored: Stored) -> None:
    page = Page(page_of(stored, THREE_AND_SEVEN))
    said = page.texts["missing-notice"]
    assert "200 of 600 images were not audited: parts 3, 7 are missing." in said
    assert "Every number below is without them." in said
    # Before anything else of the page's body says a number.
    assert page.ids.index("missing-notice") == page.ids.index("short") + 1
    assert page.ids.index("missing-notice") < page.ids.index("short-title")
    one = Page(page_of(stored, [part(3)])).texts["missing-notice"]
    assert "100 of 500 images were not audited: part 3 is missing." in one


def test_reasons_are_listed_as_text(stored: Stored) -> None:
    text = page_of(stored, THREE_AND_SEVEN)
    said = " ".join(Page(text).texts["missing"].split())
    assert "3 300–399 100 never computed" in said
    assert f"7 700–799 100 {EVIL}" in said
    assert "<script>alert" not in text


def test_many_gaps_are_cut_and_counted(stored: Stored) -> None:
    page = Page(page_of(stored, [part(number) for number in range(0, 2000, 2)]))
    assert "parts 0, 2, 4" in page.texts["missing-notice"]
    assert "38 and others are missing" in page.texts["missing-notice"]
    assert page.texts["missing"].count("never computed") == 50
    assert "And 950 more; manifest.json has all." in page.texts["missing"]
    joined = Page(page_of(stored, [part(number) for number in range(2000)]))
    assert (
        "200,000 of 200,400 images were not audited: parts 0–1999 are missing"
        in (joined.texts["missing-notice"])
    )


def test_a_whole_run_says_nothing_of_it(stored: Stored) -> None:
    assert not {"missing-notice", "missing"} & set(Page(page_of(stored, [])).ids)


def test_it_is_said_in_chinese(stored: Stored) -> None:
    page = Page(page_of(stored, [part(3), part(4), part(7)], "zh"))
    assert "700 张图像中有 300 张未被审计：缺少分片 3–4、7。" in page.texts["missing-notice"]
    assert "从未计算" in page.texts["missing"]


def test_the_command_says_it(run: AuditRun) -> None:
    lines = summarise(replace(run, manifest=run.manifest | {"missing": [part(3)]}), 1.0)
    assert (
        "WARNING: 100 of 500 images were not audited: part 3 is missing.\n"
        "Every number below is without them." in lines
    )
    assert "not audited" not in summarise(run, 1.0)


def test_runs_are_compared_only_where_the_same_is_missing(run: AuditRun, tmp_path: Path) -> None:
    lacking = replace(run, manifest=run.manifest | {"missing": [part(7)]})
    with pytest.raises(UsageError) as refused:
        compare_runs(run, lacking, out=tmp_path / "refused")
    assert "parts that are missing differs" in str(refused.value)
    assert "none is missing and 100 of 500 images were not audited: part 7 is" in str(refused.value)
    # The same images in parts of half the size.
    halves = replace(
        run, manifest=run.manifest | {"missing": [part(14, size=50), part(15, size=50)]}
    )
    found = compare_runs(lacking, halves, out=tmp_path / "same")
    said = summarise_comparison(found.path, found.manifest, found.compare, found.changes)
    warning = "WARNING: in both runs 100 of 500 images were not audited: part 7 is missing."
    assert warning in said
    page = Page((found.path / "index.html").read_text(encoding="utf-8"))
    assert (
        "100 of 500 images were audited in neither run: part 7 is missing."
        in (page.texts["missing-notice"])
    )


def test_a_gate_lets_no_part_be_missing_unless_told(tmp_path: Path) -> None:
    lacking = a_run(tmp_path, a_class(0, "dog"))
    lacking.manifest["missing"] = [part(3)]
    failed = evaluate(lacking, settings(forbid=["suspect"]))
    assert [check.rule for check in failed.failed] == ["allow_missing"]
    assert failed.failed[0].value == 0.5
    assert (
        "   allow_missing: the split: 100 of 200 images were not audited: part 3 is missing; "
        in ("\n".join(outcome_lines(failed)))
    )
    assert "`allow_missing` | the split | 0.5 | 0 |" in as_markdown(failed)
    allowed = evaluate(lacking, settings(forbid=["suspect"], allow_missing=True))
    assert allowed.passed and len(allowed.checks) == 2
    whole = evaluate(a_run(tmp_path, a_class(0, "dog")), settings(forbid=["suspect"]))
    assert [check.rule for check in whole.checks] == ["forbid"]


def test_the_page_of_a_summed_run_says_what_its_numbers_rest_on(stored: Stored) -> None:
    basis = {
        "how": "summed",
        "sketched": {
            "absolute_error_bounded_scores": 1 / 3200,
            "relative_error_other_scores": 0.01,
        },
        "estimated": {"share_of_pictures": 0.25},
        "kept_rows": {"rows": 44_000, "of_the_split": 39_000},
    }  # fmt: skip
    facts = dict(stored.facts)
    facts["totals"] = facts["totals"] | {"basis": basis, "samples": 300_000}
    page = Page(page_of(replace(stored, facts=facts), []))
    said = page.texts["basis"]
    assert "300,000 images are too many to hold all rows at once" in said
    assert "at most 0.0003 for scores between 0 and 1 and by at most 1%" in said
    assert "From 44,000 kept rows, 39,000 of them drawn evenly" in said
    assert "basis" not in Page(page_of(stored, [])).ids
