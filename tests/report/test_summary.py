"""What the command says of classes at the end: as the page does, and why a verdict fell."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from audit.redraw import open_stored
from audit.report.language import load_language
from audit.report.page.data import page_data
from audit.report.page.render import render_page
from audit.report.summary import summarise
from audit.tables import AuditRun
from audit.tables.verdict_words import FEATURE_SPACE_ONLY, NEEDS_ITS_BACKGROUND, NOT_SURE_ENOUGH
from audit.tables.verdicts import RELIES, SUSPECT, TOO_FEW
from tests.report.generated import Plan, write_run

# Rate in feature space and images scored of five classes.
SCREENED = {
    "elephant": (0.14, 7),
    "giraffe": (0.004, 9),
    "train": (0.69, 3),
    "zebra": (0.3, 5),
    "kite": (np.nan, 0),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    folder = tmp_path_factory.mktemp("summary") / "run"
    return write_run(folder, Plan(classes=list(SCREENED), samples=400, edited=100))


def told(run: AuditRun, classes: Any) -> list[str]:
    """The lines about a run with other classes."""
    changed = SimpleNamespace(path=run.path, manifest=run.manifest, classes=classes)
    return summarise(cast(AuditRun, changed), 1.0).splitlines()


def test_terminal_and_page_name_the_same_classes_of_feature_space(run: AuditRun) -> None:
    classes = run.classes.assign(verdict=TOO_FEW, verdict_reason="few tested", n_edited=3)
    for name in ("reliance", "reliance_low", "reliance_high"):
        classes[name] = np.nan
    rates, scored = zip(*SCREENED.values(), strict=True)
    classes["transplant_highest"] = classes["transplant_rate"] = list(rates)
    classes["n"] = classes["n_scored"] = list(scored)
    lines = told(run, classes)
    first = lines.index("feature space, where a high rate is a reason to look, no proof:") + 1
    assert lines[first : first + 3] == [
        "   zebra: transplant rate 30%, n = 5",
        "   elephant: transplant rate 14%, n = 7",
        "   not ranked, fewer than 5 images scored: train: transplant rate 69%",
    ]
    stored = open_stored(run.path)
    stored = replace(stored, tables={**stored.tables, "classes": classes})
    english = load_language("en")
    page = render_page(stored, page_data(stored, english), english)
    _, _, card = page.partition("Leaning most on the background")
    said = unescape(re.sub(r"<[^>]*>", "", card.partition("</div>")[0]))
    assert said.split("\n")[2:4] == [
        "zebra: transplant rate 30%, n = 5",
        "elephant: transplant rate 14%, n = 7",
    ]
    assert "Not ranked, because fewer than 5 of their images could be scored" in said
    assert "train 69%." in said
    assert "giraffe" not in said


def test_nothing_is_called_highest_where_no_rate_is_above_0(run: AuditRun) -> None:
    classes = run.classes.assign(verdict=TOO_FEW, n_edited=0, reliance=np.nan)
    classes["transplant_highest"] = 0.0
    lines = told(run, classes)
    assert "Nothing was tested in pixels, so no class is accused or cleared." in lines
    assert not any("ighest" in line for line in lines)


@pytest.mark.parametrize(
    ("verdict", "reason", "said"),
    [
        (
            SUSPECT,
            NEEDS_ITS_BACKGROUND,
            "of its objects, cut out, 70% are recognised on backgrounds of their class and 35% on "
            "those of others (a gap of 22% to 45%, 35 of 40 images), accuracy 86%",
        ),
        (
            SUSPECT,
            FEATURE_SPACE_ONLY,
            "in feature space only (transplant rate 61%), edited pixels do not confirm it: its "
            "background moves 13% of the answers (8% to 19%, 35 of 40 images, estimated masks), "
            "accuracy 86%",
        ),
        (
            SUSPECT,
            NOT_SURE_ENOUGH,
            "its background moves 13% of the answers (8% to 19%, 35 of 40 images, estimated "
            "masks), but not surely or not for every fill, accuracy 86%",
        ),
        (
            RELIES,
            "relies on background",
            "its background moves 13% of the answers (8% to 19%, 35 of 40 images, estimated "
            "masks), accuracy 86%",
        ),
    ],
)
def test_the_numbers_are_those_that_made_the_verdict(
    verdict: str, reason: str, said: str, run: AuditRun
) -> None:
    classes = run.classes[:1].assign(
        label_name="airplane", verdict=verdict, verdict_reason=reason, reliance=0.13,
        reliance_low=0.08, reliance_high=0.19, reliance_family="estimated", n_edited=35, n=40,
        accuracy=0.86, acc_mixed_same=0.7, acc_mixed_rand=0.35, bg_gap_low=0.22, bg_gap_high=0.45,
        transplant_highest=0.61,
    )  # fmt: skip
    assert f"   airplane: {said}" in told(run, classes)
