"""The scripts of the page: all their words come from Python, and they never write HTML."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from audit.report.language import LANGUAGES, load_language
from audit.report.page.assets import PAGE_SCRIPTS, THEME, embedded_json, frame, static_text
from audit.report.page.words import words

STATIC = Path(str(resources.files("audit.report").joinpath("static")))
OURS = sorted(file.name for file in STATIC.glob("*.js"))
TEMPLATES = sorted(Path(str(resources.files("audit.report").joinpath("templates"))).glob("*.j2"))
# The page of a run; other pages have words of their own.
PAGE = [name for name in PAGE_SCRIPTS if "/" not in name]
_CALL = re.compile(r"\b(?:word|filled)\(")
_LITERAL = re.compile(r"\"([a-z][a-z0-9_]*)\"|`([^`]*)`")


def asked_for(source: str) -> list[str]:
    """Patterns of the keys in calls of word(): the literals of each first argument."""
    found = []
    for call in _CALL.finditer(source):
        argument = first_argument(source[call.end() :])
        # Of a choice (a ? "b" : "c") the results are keys, not what is compared.
        chosen = argument.partition("?")[2] or argument
        for plain, template in _LITERAL.findall(chosen):
            key = plain or re.sub(r"\$\{[^}]*\}", "\0", template)
            found.append(re.escape(key).replace("\0", r"\w+"))
    return found


def first_argument(rest: str) -> str:
    depth = 0
    for place, character in enumerate(rest):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            if depth == 0:
                return rest[:place]
            depth -= 1
        elif character == "," and depth == 0:
            return rest[:place]
    raise AssertionError("word( is not closed")


def patterns() -> list[str]:
    return asked_for("\n".join(static_text(name) for name in PAGE))


def test_the_first_argument_of_a_call_is_read_as_it_stands() -> None:
    assert asked_for('word("close")') == ["close"]
    assert asked_for('word(n ? "some" : "none", { n })') == ["some", "none"]
    assert asked_for('word(kind === "x" ? "of_x" : "other")') == ["of_x", "other"]
    assert asked_for("word(`sheet_${key}`)") == [r"sheet_\w+"]


def test_every_word_a_script_asks_for_is_there() -> None:
    known = words(load_language("en"))
    for pattern in patterns():
        assert any(re.fullmatch(pattern, key) for key in known), pattern


def test_every_word_is_asked_for() -> None:
    sources = "\n".join(static_text(name) for name in PAGE)
    # A key that is held in a list or a variable until it is used stands in the source as a string.
    held = set(re.findall(r"\"([a-z][a-z0-9_]*)\"", sources))
    found = patterns()
    for key in words(load_language("en")):
        assert key in held or any(re.fullmatch(pattern, key) for pattern in found), key


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_language_fills_in_the_same_values(name: str) -> None:
    english, translated = words(load_language("en")), words(load_language(name))
    assert translated.keys() == english.keys()
    for key, text in translated.items():
        assert text.strip(), key
        assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", english[key])), (
            key
        )


@pytest.mark.parametrize("name", OURS)
def test_scripts_write_text_and_never_html(name: str) -> None:
    source = static_text(name)
    assert source.startswith('"use strict";')
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                "new Function", "DOMParser", "srcdoc", "createContextualFragment"):  # fmt: skip
        assert way not in source, way


@pytest.mark.parametrize("name", OURS)
def test_scripts_ask_nobody(name: str) -> None:
    source = static_text(name)
    for way in ("fetch(", "XMLHttpRequest", "WebSocket", "sendBeacon", "import("):
        assert way not in source, way
    # The one address is SVG's name, which no browser opens.
    assert set(re.findall(r"https?://[^\"'` ]*", source)) <= {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda file: file.name)
def test_templates_hold_no_handlers(template: Path) -> None:
    source = template.read_text("utf-8")
    assert not re.search(r"<[^>]*\son\w+\s*=", source)
    assert "javascript:" not in source


@pytest.mark.parametrize("name", [*PAGE_SCRIPTS, THEME])
def test_no_script_ends_its_own_element(name: str) -> None:
    source = static_text(name).lower()
    assert "</script" not in source
    assert "<!--" not in source


def test_the_policy_allows_the_scripts_by_their_hashes_alone() -> None:
    found = frame(scripts=("core.js", "table.js"))
    (allowed,) = re.findall(r"script-src ([^;]*)", found["policy"])
    sources = [found["theme_script"].source, *(entry.source for entry in found["scripts"])]
    assert allowed.split() == sources
    assert len(set(sources)) == 3


def test_no_text_ends_the_element_of_the_data() -> None:
    text = str(embedded_json({"name": "</script><script>alert(1)</script>", "line": "\u2028"}))
    assert "<" not in text


@pytest.mark.parametrize("name", OURS)
def test_scripts_are_javascript(name: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; the tests in a browser run the scripts too")
    found = subprocess.run(
        [node, "--check", STATIC / name], check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
