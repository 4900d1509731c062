"""What the page says of suspicious labels, kinds of background and families of masks."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit.redraw import open_stored
from audit.report.language import load_language
from audit.report.page.data import label_views, page_data
from audit.report.page.labellist import list_in_words
from audit.report.page.render import render_page
from audit.report.page.samples import Shown
from audit.report.stored import Stored
from tests.report.generated import Plan, write_run

ENGLISH = load_language("en")
NOBODY = Shown(index=np.zeros(0, np.int64), number={})


def suspect(**values: object) -> dict[str, Any]:
    """A row of labels.parquet as it is read, by contributions."""
    return {
        "sample_id": "one", "index": 4, "label": 3, "label_name": "three", "suggested": 5,
        "suggested_name": "five", "label_score": 0.01, "suggested_probability": 0.9,
        "kind": "likely label error", "object_pred": 5.0, "background_pred": 6.0,
        "object_only_pred": np.nan, "background_only_pred": np.nan, "evidence": "contributions",
        "object_agrees_with_suggestion": True,
    } | values  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, (5, 6, "contributions", False)),
        (
            {"evidence": "pixels", "object_only_pred": 7.0, "background_only_pred": 8.0},
            (7, 8, "pixels", False),
        ),
        # The object's own pixels say the label, though one of the two is unknown.
        ({"object_only_pred": 3.0}, (5, 6, "contributions", True)),
        (
            {"evidence": None, "object_pred": np.nan, "background_pred": None},
            (None, None, None, False),
        ),
        (
            {"evidence": np.nan, "object_only_pred": 3.0, "object_pred": None,
             "background_pred": np.nan, "object_agrees_with_suggestion": None},
            (None, None, None, True),
        ),
    ],
)  # fmt: skip
def test_labels_show_what_their_kind_rests_on(
    values: dict[str, object], said: tuple[object, ...]
) -> None:
    (view,) = label_views(pd.DataFrame([suspect(**values)]), NOBODY, ENGLISH)
    assert (
        view["object_pred"], view["background_pred"], view["evidence"], view["object_is_label"]
    ) == said  # fmt: skip
    assert view["s"] is None and view["id"] == "one"
    assert view["kind_name"] == "likely label error"
    assert "five" in view["reason"] and "three" in view["reason"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    folder = tmp_path_factory.mktemp("findings") / "run"
    write_run(folder, Plan(classes=list("abcde"), samples=300, edited=100))
    return open_stored(folder)


def page(stored: Stored) -> str:
    return render_page(stored, page_data(stored, ENGLISH), ENGLISH)


def test_other_masks_are_spoken_of_only_where_there_are_some(stored: Stored) -> None:
    assert len(stored.tables["masks"]) == 2
    assert "The same heatmaps under masks from elsewhere" in page(stored)
    alone = {**stored.tables, "masks": stored.tables["masks"].iloc[:1]}
    assert "under masks from elsewhere" not in page(replace(stored, tables=alone))


def test_sheets_are_linked_where_they_were_drawn(stored: Stored) -> None:
    views = page_data(stored, ENGLISH)["classes"]
    assert {file for view in views for file in view["sheets"].values()} == {None}
    drawn = replace(stored, drawn={"grids/class-0003-d.png"})
    sheets = {view["label"]: view["sheets"] for view in page_data(drawn, ENGLISH)["classes"]}
    assert sheets[3]["examples"] == "grids/class-0003-d.png"
    assert sheets[3]["channels"] is None and sheets[1]["examples"] is None


def test_the_page_asks_for_nothing_outside_its_folder(stored: Stored) -> None:
    text = page(stored)
    policy = html.unescape(text.partition("Content-Security-Policy")[2].partition(">")[0])
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert "<link" not in text.replace('<link rel="icon" href="data:,">', "")
    assert ' src="http' not in text and "@import" not in text


def test_names_from_data_are_text_on_the_page(stored: Stored) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    tables = {
        name: table.replace({"label_name": {"a": evil}}) if "label_name" in table else table
        for name, table in stored.tables.items()
    }
    tables["properties"] = tables["properties"].assign(
        predicts_label=True, predicts_error=True, is_followed=True
    )
    totals = stored.facts["totals"] | {
        "problems": [evil], "statuses": {"ok": 1, "unreadable": 1}
    }  # fmt: skip
    facts = {
        **stored.facts, "dataset": evil, "model": evil, "weights": evil, "split": evil,
        "classes": [evil, *stored.facts["classes"][1:]], "known_answer": {"x": evil},
        "data_facts": {"y": evil}, "totals": totals,
    }  # fmt: skip
    text = page(replace(stored, facts=facts, tables=tables))
    assert "alert(1)" in text
    assert "<script>alert" not in text and "<img src=x" not in text


def test_a_model_that_is_no_better_than_a_guess_is_announced_first(stored: Stored) -> None:
    warning = "always naming the most frequent class would be right in"
    totals = stored.facts["totals"]
    shares = stored.tables["classes"]["n"] / stored.tables["classes"]["n"].sum()
    worse = replace(stored, facts={**stored.facts, "totals": totals | {"accuracy": 0.014}})
    better = replace(stored, facts={**stored.facts, "totals": totals | {"accuracy": 0.9}})
    text = page(worse)
    assert f"right in 1.4% of the images; {warning} {shares.max():.1%}." in text
    assert text.index(warning) < text.index('id="short-title"')
    assert warning not in page(better)


def test_the_page_names_every_table_beside_it(stored: Stored) -> None:
    text = page(stored)
    for name in [*stored.tables, "thumbs", "edited", "edits/*", "samples/*"]:
        assert f"<code>{name}.parquet</code>" in text
    bare = page(replace(stored, edits=None, edited=None))
    assert "<code>thumbs.parquet</code>" in bare
    assert "<code>edited.parquet</code>" not in bare
    assert "<code>edits/*.parquet</code>" not in bare


def test_classes_that_cannot_be_judged_are_named(stored: Stored) -> None:
    data = page_data(stored, ENGLISH)
    for entry in data["classes"]:
        entry["severity"] = 2 if entry["label"] == 3 else 3
    text = html.unescape(render_page(stored, data, ENGLISH))
    _, found, rest = text.partition("1 of 5 classes cannot be judged:")
    said, _, _ = rest.partition("</p>")
    assert found and 'href="#class-3"' in said and said.count("<a ") == 1


def test_one_of_a_kind_is_said_in_the_singular(stored: Stored) -> None:
    totals = stored.facts["totals"] | {"statuses": {"ok": 299, "unreadable": 1}, "label_issues": 1}
    one = replace(stored, facts={**stored.facts, "totals": totals})
    data = page_data(one, ENGLISH)
    data["meta"]["flagged"] = 1
    for entry in data["classes"]:
        entry["severity"] = 0 if entry["label"] == 3 else 3
    text = render_page(one, data, ENGLISH)
    assert "1 of 5 classes relies on background" in text
    assert "in front of its backgrounds, and the model often answers with this class" in text
    assert "1 image lacks some or all scores" in text
    assert "1 of 300 images is flagged: something about it" in text
    assert "1 label may be wrong" in text


def test_a_list_of_labels_that_is_not_all_of_them_says_why(stored: Stored) -> None:
    listed = len(stored.tables["labels"])
    assert listed > 1

    def said(**totals: object) -> str:
        changed = {**stored.facts, "totals": stored.facts["totals"] | totals}
        text = html.unescape(page(replace(stored, facts=changed)))
        _, _, section = text.partition('<section id="labels"')
        return section.partition("</p>")[0]

    assert "The list has" not in said(label_issues=listed)
    assert (
        f"The list has {listed} of them, the most doubtful: a fifth of the labelled images (or "
        "100,000) at most."
    ) in said(label_issues=listed + 61)
    assert (
        f"The list has {listed}: where the model is sure of another class, a label of a "
        "probability below 1% is doubtful, too."
    ) in said(label_issues=listed - 1)
    flags = {flag["key"]: flag for flag in page_data(stored, ENGLISH)["flags"]}
    assert flags["label_suspect"]["total"] == listed
    assert "those that labels.parquet lists" in flags["label_suspect"]["meaning"]


def test_of_a_summed_run_the_number_of_wrong_labels_is_an_estimate() -> None:
    totals = {"label_issues": 900, "basis": {"how": "summed"}}
    said = list_in_words(totals, 700, ENGLISH)
    assert said is not None
    assert said.startswith("The list has 700, of each class the most doubtful;")
