from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit import run_audit
from audit.report.masktrust import within_classes
from audit.report.page import write_page
from audit.tables import AuditRun

TABLES = ("classes", "confusion", "masks", "properties", "labels", "backgrounds")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    out = tmp_path_factory.mktemp("findings")
    return run_audit(dataset="demo", limit=120, edits="none", out=out)


@pytest.fixture
def tables(run: AuditRun) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(run.path / f"{name}.parquet") for name in TABLES}


def page(run: AuditRun, folder: Path, tables: dict[str, pd.DataFrame], **totals: object) -> str:
    # The kinds of background are told only beside a class's pictures.
    (folder / "grids").mkdir(exist_ok=True)
    for file in (run.path / "grids").glob("class-*.png"):
        (folder / "grids" / file.name).touch()
    write_page(
        folder, facts=run.manifest | {"totals": run.manifest["totals"] | totals}, tables=tables
    )
    return (folder / "index.html").read_text(encoding="utf-8")


def section(text: str, first: str, last: str) -> str:
    """What is between two marks."""
    assert text.count(first) == 1
    return text.split(first)[1].split(last, maxsplit=1)[0]


def cells(row: str) -> list[str]:
    return [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]


def suspect(**values: object) -> dict[str, Any]:
    """A row of labels.parquet as it is read, by contributions."""
    return {
        "sample_id": "one", "label": 3, "label_name": "three", "suggested_name": "five",
        "label_score": 0.01, "suggested_probability": 0.9, "kind": "a kind", "reason": "why",
        "object_pred_name": "five", "background_pred_name": "six",
        "object_only_pred": np.nan, "object_only_pred_name": None,
        "background_only_pred_name": None, "evidence": "contributions",
    } | values  # fmt: skip


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ["five", "six", "features"]),
        (
            {"evidence": "pixels", "object_only_pred": 7.0, "object_only_pred_name": "seven",
             "background_only_pred_name": "eight"},
            ["seven", "eight", "pixels"],
        ),
        (
            {"object_only_pred": 3.0, "object_only_pred_name": "three"},
            ["five (in pixels: three)", "six", "features"],
        ),
        (
            {"evidence": None, "object_pred_name": None, "background_pred_name": np.nan},
            ["–", "–", "–"],
        ),
        (
            {"evidence": np.nan, "object_only_pred": 3.0, "object_only_pred_name": "three",
             "object_pred_name": np.nan, "background_pred_name": None, "reason": None},
            ["–", "–", "–"],
        ),
    ],
)  # fmt: skip
def test_labels_show_what_their_kind_rests_on(
    run: AuditRun,
    tables: dict[str, pd.DataFrame],
    tmp_path: Path,
    values: dict[str, object],
    said: list[str],
) -> None:
    tables["labels"] = pd.DataFrame([suspect(**values)])
    text = page(run, tmp_path, tables, label_issues=1, label_issue_share=0.01)
    table = section(text, "<h2>Labels to look at</h2>", "</table>")
    heads = re.findall(r"<th>(.*?)</th>", table)
    (row,) = re.findall(r"<tr>(<td.*?)</tr>", table, re.DOTALL)
    assert len(cells(row)) == len(heads)
    shown = dict(zip(heads, cells(row), strict=True))
    assert [shown[name] for name in ("Object says", "Background says", "By")] == said
    assert "nan" not in row
    assert "None" not in row


def of_class(tables: dict[str, pd.DataFrame], **values: object) -> None:
    """Leave one kind of background of class 3."""
    rows = tables["backgrounds"]
    row = rows[rows["label"] == 3].iloc[:1].assign(**values)
    tables["backgrounds"] = row


@pytest.mark.parametrize("missing", [None, np.nan])
def test_kinds_of_background_without_words(
    run: AuditRun, tables: dict[str, pd.DataFrame], tmp_path: Path, missing: object
) -> None:
    of_class(tables, description="dark, blue")
    told = section(page(run, tmp_path, tables), "What background speaks for it", "</details>")
    assert "<td>1 (dark, blue)</td>" in told
    assert "The words describe" in told
    of_class(tables, description=missing)
    told = section(page(run, tmp_path, tables), "What background speaks for it", "</details>")
    assert "<td>1</td>" in told
    assert "nan" not in told
    assert "The words describe" not in told


def test_a_gap_that_does_not_outlast_all_classes_is_called_unsure(
    run: AuditRun, tables: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    gap = {"spuriosity_gap": 0.1, "spuriosity_low": 0.01, "spuriosity_high": 0.2}
    of_class(tables, **gap, spuriosity_n=40, spuriosity_q=0.1)
    text = page(run, tmp_path, tables)
    assert "1 to 20 points; not sure after allowing for all classes, q = 0.10)." in text
    assert "by chance" not in section(text, "What background speaks for it", "</details>")
    of_class(tables, **gap, spuriosity_n=40, spuriosity_q=0.03)
    text = page(run, tmp_path, tables)
    assert "1 to 20 points)." in text
    assert "not sure" not in text


def masks_section(text: str) -> str:
    return section(text, '<h2 id="masks">', "<h2>")


@pytest.mark.parametrize(
    ("overall", "within", "said", "unsaid"),
    [
        (-0.12, [-0.3, -0.68, None], ["Within classes", "-0.12 over all", "-0.68 to -0.30 within"],
         ["hardly", "Unusually"]),
        (0.1, [0.3, 0.5], ["Within classes", "0.30 to 0.50 within"], ["hardly", "The smaller"]),
        (-0.12, [-0.2, 0.1], ["hardly depends", "-0.20 to 0.10 within"], ["Within classes"]),
        (-0.12, [None, None], ["hardly depends", "-0.12 over all images)"], ["within"]),
        (-0.5, [-0.2, -0.4], ["The smaller the object", "-0.40 to -0.20 within"], ["hardly"]),
        (0.5, [0.1, 0.1], ["Unusually", "0.50 over all images, 0.10 within"], ["hardly"]),
    ],
)  # fmt: skip
def test_the_size_of_objects_is_told_within_classes_too(
    run: AuditRun,
    tables: dict[str, pd.DataFrame],
    tmp_path: Path,
    overall: float,
    within: list[float | None],
    said: list[str],
    unsaid: list[str],
) -> None:
    number = len(tables["classes"])
    tables["classes"]["area_correlation"] = pd.Series(
        [within[k % len(within)] for k in range(number)], dtype=np.float64
    )
    text = masks_section(page(run, tmp_path, tables, area_correlation=overall))
    (line,) = [line for line in text.splitlines() if "over all images" in line]
    assert all(words in line for words in said)
    assert not any(words in line for words in unsaid)


def test_dependence_within_classes_by_hand() -> None:
    def found(*values: float | None) -> dict[str, Any] | None:
        return within_classes([{"area_correlation": value} for value in values])

    assert found() is None
    assert found(None, np.nan) is None
    assert found(-0.5, None) == {"range": "-0.50", "depends": True, "falls": True}
    assert found(-0.25, 0.25) == {"range": "-0.25 to 0.25", "depends": True, "falls": False}
    assert found(0.24, 0.9, 0.1) == {"range": "0.10 to 0.90", "depends": False, "falls": False}


@pytest.mark.parametrize("families", [1, 2])
def test_other_masks_are_spoken_of_only_where_there_are_some(
    run: AuditRun, tables: dict[str, pd.DataFrame], tmp_path: Path, families: int
) -> None:
    main = tables["masks"].iloc[:1]
    others = [main.assign(family="ellipse")] * (families - 1)
    tables["masks"] = pd.concat([main, *others])
    text = masks_section(page(run, tmp_path, tables))
    assert "under other masks" not in text
    assert ("The first row's masks are those of" in text) == (families == 2)
    assert "All other numbers" not in text
    assert "Class by class, with the masks’ borders moved</summary>" in text
