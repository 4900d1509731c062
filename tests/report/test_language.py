"""The report in another language: the catalogue is whole and true, and the page has no holes."""

from __future__ import annotations

import ast
import io
import json
import re
import string
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import read_mo
from jinja2 import Environment

from audit.data.split import OK
from audit.errors import ConfigError
from audit.masks.families import SOURCES
from audit.redraw import open_stored
from audit.report import phrases
from audit.report.language import LANGUAGES, LOCALE, Language, load_language
from audit.report.page.render import write_page
from audit.score.reason import REASONS
from audit.step.statuses import STATUSES
from audit.tables import labels, verdicts
from audit.tables import verdict_words as words
from audit.tables.backgrounds import WORDS
from audit.tables.properties import PROPERTIES, compared, in_words
from audit.tables.verdicts import judge_classes
from tests.report.generated import Plan, write_run
from tests.report.messages import compiled, extract, file_of, messages, read, updated
from tests.tables.test_verdicts import CLEAN, SURE, evidence_of

PACKAGE = LOCALE.parents[1]
ENGLISH, CHINESE = load_language("en"), load_language("zh")
OTHERS = [name for name in LANGUAGES if name != "en"]
REMEDY = "run `make messages`, then translate what it lists"


def forms(message: Message) -> list[tuple[str, str]]:
    """Each translation with the message that it stands for."""
    if isinstance(message.id, str):
        return [(message.id, str(message.string))]
    return [(message.id[-1], form) for form in message.string]


def places(text: str) -> set[str]:
    """The names of the values that a message takes; a lone brace or percent sign is an error."""
    named = set(re.findall(r"%\((\w+)\)s", text))
    if named or "%%" in text:
        assert "%" not in re.sub(r"%%|%\(\w+\)s", "", text), text
        return named
    return {str(name) for _, name, *_ in string.Formatter().parse(text) if name is not None}


def forms_of(catalogue: Catalog) -> set[tuple[str, str]]:
    return {pair for message in messages(catalogue) for pair in forms(message)}


@pytest.fixture(scope="module")
def sources() -> Catalog:
    return extract()


@pytest.mark.parametrize("name", OTHERS)
def test_the_catalogue_has_every_message_of_the_sources(name: str, sources: Catalog) -> None:
    catalogue = read(name)
    lacking = [m.id for m in messages(sources) if catalogue.get(m.id, m.context) is None]
    assert not lacking, REMEDY
    empty = [m.id for m in messages(catalogue) if not all(form for _, form in forms(m))]
    assert not empty, REMEDY
    assert not [m.id for m in messages(catalogue) if m.fuzzy], REMEDY
    assert len(messages(sources)) > 100


@pytest.mark.parametrize("name", OTHERS)
def test_the_catalogue_has_nothing_else(name: str, sources: Catalog) -> None:
    left = [m.id for m in messages(read(name)) if sources.get(m.id, m.context) is None]
    assert not left, REMEDY


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_read_is_what_was_written(name: str) -> None:
    with file_of(name, "mo").open("rb") as file:
        stored = read_mo(file)
    made = read_mo(io.BytesIO(compiled(read(name))))
    assert forms_of(stored) == forms_of(made), REMEDY
    assert len(forms_of(stored)) > 100


@pytest.mark.parametrize("name", OTHERS)
def test_a_translation_takes_the_same_values_and_marks(name: str) -> None:
    marks = re.compile(r"</?\w+[^>]*>")
    for message in messages(read(name)):
        for original, form in forms(message):
            assert places(form) == places(original), form
            assert sorted(marks.findall(form)) == sorted(marks.findall(original)), form
            assert form == form.strip() or original != original.strip(), form


def test_chinese_has_one_form() -> None:
    assert read("zh").num_plurals == 1
    assert {len(forms(m)) for m in messages(read("zh"))} == {1}


def test_chinese_is_written_as_chinese() -> None:
    half, wide = (
        re.compile(r"[一-鿿] ?[,;:?!.()]|[,;:?!()] ?[一-鿿]"),
        re.compile(r"[一-鿿]\d|\d[一-鿿]"),
    )
    for message in messages(read("zh")):
        for _, form in forms(message):
            assert not half.search(form), form
            assert not wide.search(form), form


def test_every_message_is_written_out_where_it_is_said() -> None:
    said = []
    for file in [*PACKAGE.glob("report/**/*.py"), *PACKAGE.glob("tables/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            of_language = isinstance(node.func, ast.Attribute) and "language" in ast.dump(node.func)
            if name == "say" or (name in ("text", "plural") and of_language):
                said.append(file)
                count = 2 if name == "plural" else 1
                assert all(isinstance(each, ast.Constant) for each in node.args[:count]), file
    assert len(set(said)) > 5


def test_updating_keeps_what_was_translated_and_drops_what_is_gone() -> None:
    old, new = Catalog(locale="zh"), Catalog()
    old.add("kept", "保留")
    old.add("gone", "消失")
    for text in ("kept", "new"):
        new.add(text)
    new.add(("{n} image", "{n} images"))
    found = updated(old, new)
    assert found["kept"].string == "保留"
    assert found.get("gone") is None
    assert not found["new"].string
    assert len(messages(found)) == 3


def test_an_unknown_language_is_the_users_mistake(
    audit_here: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="en or zh"):
        load_language("xx")
    done = audit_here("run", "--dataset", "demo", "--lang", "xx", "--out", tmp_path)
    assert done.returncode == 2
    assert "lang" in done.stderr and "'xx'" in done.stderr and "'zh'" in done.stderr
    assert not any(tmp_path.iterdir())


def test_every_language_has_a_catalogue() -> None:
    assert {folder.name for folder in LOCALE.iterdir()} == set(OTHERS)
    assert all(load_language(name).tag for name in LANGUAGES)


def test_templates_escape_values_in_both_languages() -> None:
    template = (
        '{{ _("Class %(name)s", name=name) }} {% trans n=2 %}\n one\n{% pluralize %}\n {{ n }}%\n'
        "{% endtrans %}"
    )
    for language in (ENGLISH, CHINESE):
        environment = Environment(autoescape=True)
        language.install(environment)
        text = environment.from_string(template).render(name="<b>%(x)s")
        assert text == "Class &lt;b&gt;%(x)s 2%"


def test_names_and_sentences_in_a_row() -> None:
    assert CHINESE.sentences(["甲。", "", "乙。"]) == "甲。乙。"
    assert ENGLISH.sentences(["One.", "", "Two."]) == "One. Two."
    assert CHINESE.things(["cat", "dog"]) == "cat、dog"


def table_of_verdicts() -> list[dict[str, Any]]:
    """A row of classes.parquet for every reason, numbers and all."""
    edited = {
        "n_edited": 100, "bg_gap": 0.3, "bg_gap_low": 0.22, "bg_gap_high": 0.4,
        "acc_mixed_same": 0.8, "acc_mixed_rand": 0.5, "acc_unedited": 0.9,
    }  # fmt: skip
    found = evidence_of(0, 0.6, 0.5) | {"effect": 0.6}
    rows: list[dict[str, Any]] = []
    for reason in words.REASONS:
        for effect, family in ((0.6, "estimated"), (-0.03, "ellipse")):
            row = edited | {
                "label_name": "c<0>", "verdict_reason": reason, "reliance": effect,
                "reliance_low": effect - 0.1, "reliance_high": effect + 0.1,
                "reliance_n": found["n"], "reliance_family": family, "decided_share": 0.5,
                "verdict_limit_keys": list(words.LIMITS), "told_by": "sharpness",
                "told_by_auc": 0.96,
            }  # fmt: skip
            rows.append(row)
    return rows


def test_verdicts_are_made_anew_as_they_are_stored() -> None:
    rows = [evidence_of(0, 0.6, 0.5), *CLEAN[1:]]
    table = pa.table({"label_name": [f"c{n}" for n in range(5)], "mask_confidence": [0.6] * 5})
    properties = pd.DataFrame(
        {"label": [0.0, 1.0], "property": ["sharpness", "brightness"], "label_auc": [0.04, 0.5]}
    )
    edited = [{"n_edited": 100}] * 5
    found = judge_classes(table, pd.DataFrame(rows), edited, SURE, properties=properties)
    # As parquet gives them back.
    schema = pa.schema([(column.name, column.type) for column in verdicts.VERDICT_COLUMNS])
    frame = pa.Table.from_pylist(found, schema).to_pandas()
    frame["label_name"] = table["label_name"].to_pylist()
    frame["n_edited"] = 100
    for row in frame.to_dict("records"):
        assert phrases.verdict_in(ENGLISH, row) == (row["verdict_text"], row["verdict_limits"])
    assert "fineness of detail" in frame["verdict_limits"][0]
    assert "细节丰富程度" in phrases.verdict_in(CHINESE, frame.iloc[0])[1]


def english_in(text: str) -> list[str]:
    """Words of English, other than names of this tool and of what it measures."""
    allowed = {
        "audit", "masks", "show", "edits", "auc", "kappa", "q", "logit", "px", "bg", "gap", "c",
        "rembg", "ellipse", "estimated", "of", "other",
    }  # fmt: skip
    words_of = re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", "", text))
    return [word for word in words_of if word.lower() not in allowed]


def test_verdicts_in_chinese_hold_no_english() -> None:
    for row in table_of_verdicts():
        text, limits = phrases.verdict_in(CHINESE, row)
        english, more = phrases.verdict_in(ENGLISH, row)
        assert english_in(text + limits) == []
        for said, original in ((text, english), (limits, more)):
            numbers = re.compile(r"-?\d+(?:\.\d+)?%?")
            assert sorted(numbers.findall(said)) == sorted(numbers.findall(original)) or (
                row["verdict_reason"] == words.FEW_TESTED
            )
            assert not re.search(r"[{}]", said)


def everything_named(language: Language) -> list[str]:
    """What each phrase is for every name that a table can hold."""
    strata = [
        (name, value)
        for name in ("object_area", "brightness", "contrast", "sharpness")
        for value in ("low", "middle", "high")
    ]
    strata += [("correct", "yes"), ("correct", "no")]
    strata += [("mask_confidence", "low"), ("mask_confidence", "high")]
    strata += [("reason", reason) for reason in REASONS]
    edits = ["original", "object_only", "background_only", "mixed_same", "mixed_rand", "transplant"]
    suspects = [
        {"kind": kind, "label": 1, "label_name": "甲", "suggested_name": "乙",
         "object_agrees_with_suggestion": agrees, "object_only_pred": 1.0}
        for kind in labels.KINDS
        for agrees in (True, False, None)
    ]  # fmt: skip
    return [
        *(phrases.verdict_name(language, name) for name in verdicts.VERDICTS),
        *(phrases.verdict_meaning(language, name) for name in verdicts.VERDICTS),
        *(phrases.label_kind(language, name) for name in labels.KINDS),
        *(phrases.label_reason_in(language, row) for row in suspects),
        *(phrases.evidence_name(language, name) for name in ("pixels", "contributions")),
        *(phrases.reason_name(language, name) for name in REASONS),
        *(phrases.family_name(language, name) for name in SOURCES),
        *(phrases.family_masks(language, name) for name in SOURCES),
        *(phrases.edit_name(language, name) for name in edits),
        *(phrases.status_name(language, name) for name in STATUSES),
        *(phrases.stratum_name(language, *stratum) for stratum in strata),
        *(str(phrases.background_in(language, ", ".join(pair))) for pair in WORDS.values()),
        *(in_words(name, language.text) for name in PROPERTIES),
        *(compared(name, more=more, say=language.text)
          for name in PROPERTIES for more in (True, False)),
    ]  # fmt: skip


def test_every_name_of_the_tables_has_its_words() -> None:
    english, chinese = everything_named(ENGLISH), everything_named(CHINESE)
    assert all(english)
    assert [text for text in chinese if english_in(text)] == []
    assert OK in STATUSES


def test_a_label_that_the_objects_pixels_speak_for_is_said_to_be() -> None:
    row = {"kind": labels.DISAGREEMENT, "label": 1, "label_name": "cat", "suggested_name": "dog",
           "object_only_pred": 1.0, "object_agrees_with_suggestion": True}  # fmt: skip
    assert "pixels alone it says cat" in phrases.label_reason_in(ENGLISH, row)
    for other in ({"object_agrees_with_suggestion": None}, {"object_only_pred": float("nan")}):
        assert "pixels" not in phrases.label_reason_in(ENGLISH, row | other)


def placements() -> list[str]:
    from audit.masks.alignment import _placements

    return [placement.words for placement in _placements((64, 64), 3.5)][1:]


def test_every_placement_of_masks_has_its_words() -> None:
    for words_of in placements():
        assert phrases.placement_in(ENGLISH, words_of) == words_of
        assert english_in(phrases.placement_in(CHINESE, words_of)) == [], words_of
    assert (
        phrases.placement_in(CHINESE, "shifted 4 px up and 14 px right") == "上移 4 px 并右移 14 px"
    )


class VisibleText(HTMLParser):
    """What a reader of the page sees, as far as it is not built by scripts; and the page's data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.data = ""
        self.tag = ""
        self._within: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tag = self.tag or (given.get("lang") or "" if tag == "html" else "")
        spoken = ("title", "aria-label", "alt", "placeholder")
        self.found += [value for name, value in attrs if name in spoken and value]
        if tag == "script":
            self._within.append("data" if given.get("id") == "audit-data" else "script")
        elif tag in ("style", "code", "pre", "bdi"):
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style", "code", "pre", "bdi"):
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if self._within == ["data"]:
            self.data += data
        elif not self._within:
            self.found.append(data)


def texts_in(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts of the page's data, each with its key."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from texts_in(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from texts_in(each, key)
    elif isinstance(value, str):
        yield key, value


@pytest.fixture(scope="module")
def chinese_page(tmp_path_factory: pytest.TempPathFactory) -> VisibleText:
    folder = tmp_path_factory.mktemp("chinese")
    plan = Plan(classes=["cat", "dog", "owl", "fox"], samples=400, edited=200)
    run = write_run(folder / "run", plan)
    assert run.classes["verdict"].nunique() > 1
    write_page(folder, open_stored(run.path), CHINESE)
    page = VisibleText()
    page.feed((folder / "index.html").read_text(encoding="utf-8"))
    return page


# Keys of the data whose texts are names, numbers' names or pictures, not words for people.
CODES = {
    "id", "image", "map", "outline", "unknown", "verdict", "verdict_reason", "name", "class_names",
    "model", "dataset", "split", "run_id", "finished", "method", "colours", "lang", "masks",
    "target", "family", "key", "jet", "viridis", "cividis", "inferno", "reason", "status", "edit",
    "evidence", "kind", "stratum", "value", "undefined", "examples", "channels", "background",
    "background_channels", "families", "regions",
}  # fmt: skip
# Names of methods, files and measures; the data's and the model's own.
NAMES = {
    "hirescam", "jet", "viridis", "cividis", "inferno", "png", "parquet", "python", "bg",
    "utc", "id", "iou", "road", "deletion", "insertion", "drop", "average", "run", "load",
    "samples", "labels", "classes", "properties", "transplants", "cnn", "demo", "test", "class",
    "cat", "dog", "owl", "fox", "folder", "generated", "features", "fx",
}  # fmt: skip


def test_the_chinese_page_holds_no_sentence_in_english(chinese_page: VisibleText) -> None:
    assert chinese_page.tag == "zh-Hans"
    assert sum("背景" in text for text in chinese_page.found) > 20
    page = json.loads(chinese_page.data)
    told = [text for key, text in texts_in(page) if key not in CODES]
    assert len(told) > 200
    holes = []
    for text in [*chinese_page.found, *told]:
        left = [word for word in english_in(text) if word.lower() not in NAMES]
        if len(left) > 1 and not re.fullmatch(r"\S+", text.strip()):
            holes.append(text)
    assert holes == []


def test_the_chinese_page_tells_verdicts_in_chinese(chinese_page: VisibleText) -> None:
    classes = json.loads(chinese_page.data)["classes"]
    assert len(classes) == 4
    for row in classes:
        assert row["verdict"] in verdicts.VERDICTS
        for text in (row["verdict_name"], row["text"]):
            assert re.search(r"[一-鿿]", text)
