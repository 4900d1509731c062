"""The outcome in JSON, Markdown, JUnit and on a terminal, with hostile names."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from audit.errors import visible
from audit.gate import as_markdown, evaluate, outcome_lines, read_outcome, write_results
from audit.gate.evaluation import Evaluation
from audit.gate.markdown import literal
from tests.gate.making import UNTESTED, a_class, a_run, settings

HOSTILE = (
    "a|b|c",
    "`code` **bold** _it_ [x](http://evil.example) ![i](x.png)",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "line\nbreak\r\n# heading",
    "@someone #12 http://evil.example www.evil.example",
    "\x00\x1b[31m\x08\ufffe",
    "\u202eright to left",
    "]]> & \"quotes\" 'single' <!--",
    "x" * 200,
    "\\`|",
)


def outcome(path: Path) -> Evaluation:
    relies = {"verdict": "relies on background", "reliance": 0.5, "reliance_low": 0.4,
              "reliance_high": 0.6}  # fmt: skip
    classes = [a_class(place, name, **relies) for place, name in enumerate(HOSTILE)]
    last = len(HOSTILE)
    run = a_run(path, *classes, a_class(last, "good"), a_class(last + 1, "un|known", **UNTESTED))
    return evaluate(run, settings(forbid=["relies on background"], max_reliance=0.45))


def test_junit_holds_every_check(tmp_path: Path) -> None:
    evaluation = outcome(tmp_path)
    write_results(evaluation)
    root = ElementTree.parse(tmp_path / "gate.xml").getroot()
    (suite,) = root
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "24", "failures": "10", "errors": "0", "skipped": "2"}
    cases = suite.findall("testcase")
    assert len(cases) == 24
    failed = [case for case in cases if case.find("failure") is not None]
    assert len(failed) == 10
    for case, name in zip(failed, HOSTILE, strict=True):
        assert case.get("classname") == "gate.forbid"
        assert case.get("name") == visible(name).replace("\ufffe", "�")
        failure = case.find("failure")
        assert failure is not None
        message = failure.get("message") or ""
        assert message.endswith(
            "relies on background, reliance 0.5 (0.4 to 0.6); "
            "limit: no class may be 'relies on background'"
        )
        assert failure.text == message
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert {case.get("name") for case in skipped} == {"un|known"}


def test_json_holds_every_check(tmp_path: Path) -> None:
    evaluation = outcome(tmp_path)
    json_file, _, _ = write_results(evaluation)
    content = json.loads(json_file.read_text(encoding="utf-8"))
    assert content["outcome"] == "failed"
    assert content["counts"] == {"passed": 12, "failed": 10, "not evaluated": 2}
    assert content["settings"] == {"forbid": ["relies on background"], "max_reliance": 0.45}
    first = content["checks"][0]
    assert first["class"] == "a|b|c"
    assert (first["value"], first["low"], first["high"], first["limit"]) == (0.5, 0.4, 0.6, None)
    assert content["checks"][-1] == {
        "rule": "max_reliance", "scope": "class", "label": 11, "class": "un|known",
        "status": "not evaluated", "value": None, "low": None, "high": None, "limit": 0.45,
        "verdict": None, "message": "class 'un|known': reliance is undefined",
    }  # fmt: skip


def test_results_may_go_elsewhere_and_are_read_back_while_current(tmp_path: Path) -> None:
    evaluation = outcome(tmp_path / "run")
    files = write_results(evaluation, tmp_path / "ci" / "out")
    assert [file.name for file in files] == ["gate.json", "gate.md", "gate.xml"]
    assert read_outcome(evaluation.run) is None
    write_results(evaluation)
    found = read_outcome(evaluation.run)
    assert found is not None and found["outcome"] == "failed"
    evaluation.run.manifest["finished"] = "later"
    assert read_outcome(evaluation.run) is None


class _Text(HTMLParser):
    """Tags, and the text of each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name not in ("style",)]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_markdown_shows_hostile_names_as_they_are(tmp_path: Path) -> None:
    markdown = pytest.importorskip("markdown")
    text = as_markdown(outcome(tmp_path))
    parser = _Text()
    parser.feed(markdown.markdown(text, extensions=["tables"]))
    assert parser.tags <= {"h2", "h3", "p", "code", "table", "thead", "tbody", "tr", "th", "td"}
    failed = parser.rows[1:11]
    assert all(len(row) == 4 for row in failed)
    for row, name in zip(failed, HOSTILE, strict=True):
        shown = visible(name)
        shown = shown if len(shown) <= 120 else shown[:119] + "…"
        assert row == ["forbid", shown, "relies on background, 0.5 (0.4 to 0.6)",
                       "not relies on background"]  # fmt: skip


def test_markdown_has_no_sign_of_a_foreign_text() -> None:
    for name in HOSTILE:
        inner = literal(name).removeprefix("<code>").removesuffix("</code>")
        assert re.fullmatch(r"(?:&#\d+;|[^!-/:-@\[-`{-~\x00-\x1f])*", inner)


def test_markdown_is_bounded_and_failures_come_first(tmp_path: Path) -> None:
    relies = {"verdict": "relies on background"}
    run = a_run(tmp_path, *(a_class(k, "|" * 200, **relies) for k in range(2000)))
    text = as_markdown(evaluate(run, settings(forbid=["relies on background"])))
    assert "… and 1,950 more in gate.json" in text
    assert len(text.encode()) < 100_000
    assert text.startswith("## Gate failed: 2,000 of 2,000 checks\n")
    assert text.index("### Failed") < text.index("### Rules")


def test_a_terminal_gets_one_line_a_failure(tmp_path: Path) -> None:
    lines = list(outcome_lines(outcome(tmp_path)))
    assert lines[0] == "GATE FAILED: 10 of 22 checks"
    assert len(lines) == 12
    assert lines[1] == (
        "   forbid: class 'a|b|c': relies on background, reliance 0.5 (0.4 to 0.6); "
        "limit: no class may be 'relies on background'"
    )
    assert lines[-1] == "   not judged by every rule: un|known"
    assert all(line.isprintable() for line in lines if "\ufffe" not in line)


def test_a_gate_that_passes(tmp_path: Path) -> None:
    run = a_run(tmp_path, a_class(0, "dog"))
    evaluation = evaluate(run, settings(max_reliance=0.5))
    assert list(outcome_lines(evaluation)) == ["GATE PASSED: 1 check"]
    assert as_markdown(evaluation).startswith("## Gate passed: 1 check\n")
