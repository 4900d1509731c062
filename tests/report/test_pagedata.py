"""The data of the page: each part by hand, and the whole of generated runs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from audit.redraw import open_stored
from audit.report.gallery import FLAGS
from audit.report.language import load_language
from audit.report.page import data as pagedata
from audit.report.page.classes import (
    background_rows,
    evidence_rows,
    section_numbers,
    share_histograms,
    strata_rows,
    transplant_rows,
)
from audit.report.page.data import page_data
from audit.report.page.edits import edited_views, picture_name
from audit.report.page.plain import column, data_uri, encoded_map, map_size, plain, records
from audit.report.page.render import render_page
from audit.report.page.samples import Budget, Shown, borders_of, place_pictures, sample_columns
from audit.report.stored import Stored
from audit.report.thumbs import UNKNOWN, encode_mask, encode_picture
from tests.report.generated import Plan, write_run

ENGLISH = load_language("en")
HOSTILE = (
    "</script><script>alert(1)</script>", "<!--", "\"'&amp;", "\u202eright to left",
    "line\nbreak\u2028", "x" * 200, "{{ 7 * 7 }}", "{name} %(name)s %s",
)  # fmt: skip


def test_nothing_but_json_leaves_a_table() -> None:
    frame = pd.DataFrame(
        {
            "float": [0.1234567, np.nan, np.inf],
            "half": np.array([0.5, np.nan, 1], np.float16),
            "int": pd.array([3, None, 5], "Int32"),
            "whole": [2.0, np.nan, 4.0],
            "bool": pd.array([True, None, False], "boolean"),
            "text": ["a", None, np.nan],
        }
    )
    found = records(frame, [*frame, "absent"], whole=["whole"])
    assert found[0] == {
        "float": 0.12346, "half": 0.5, "int": 3, "whole": 2, "bool": True, "text": "a",
        "absent": None,
    }  # fmt: skip
    assert set(found[1].values()) == {None}
    assert found[2] == {
        "float": None, "half": 1.0, "int": 5, "whole": 4, "bool": False, "text": None,
        "absent": None,
    }  # fmt: skip
    assert [type(found[0][name]) for name in ("int", "whole", "bool")] == [int, int, bool]
    assert str(plain(-1e-300 * 1e-300)) == "0.0"
    assert column(np.array([1.0, np.nan])) == [1.0, None]


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([0.5, 1.0, -1.0, 0.0], [128, 255, 0, 0]),
        ([-1.0, -0.5, 0.0, 0.0], [0, 0, 0, 0]),
        ([np.nan, 1.0, 0.0, 0.0], [0, 255, 0, 0]),
    ],
)
def test_maps_are_their_positive_part_over_the_peak(values: list[float], cells: list[int]) -> None:
    content = encoded_map(np.array(values, np.float16), (2, 2))
    assert content is not None
    assert list(base64.b64decode(content)) == cells


def test_large_maps_are_reduced_and_absent_ones_null() -> None:
    assert encoded_map(None, (2, 2)) is None
    assert encoded_map(np.nan, (2, 2)) is None
    wide = np.zeros((56, 28), np.float32)
    wide[:2] = 1
    content = base64.b64decode(encoded_map(wide.ravel(), (56, 28)) or "")
    assert map_size((56, 28)) == (28, 14) and len(content) == 28 * 14
    assert content[:14] == b"\xff" * 14 and not any(content[14:])


def thumbs_of(*rows: tuple[str, int, int, int], side: int = 4) -> pd.DataFrame:
    """Thumbnails: section, label, rank and index; each picture is of its own grey."""
    frame = pd.DataFrame(rows, columns=["section", "label", "rank", "index"])
    frame["sample_id"] = [f"s{index}" for index in frame["index"]]
    frame["image"] = [
        encode_picture(np.full((side, side, 3), index, np.uint8)) for index in frame["index"]
    ]
    frame["mask"] = encode_mask(np.full((side, side), 255, np.uint8))
    return frame


def test_flagged_samples_come_first_in_their_order() -> None:
    thumbs = thumbs_of(
        ("worst", 0, 0, 9), ("flagged", -1, 1, 3), ("flagged", -1, 0, 7), ("best", 0, 0, 3),
        ("wrong_but_confident", -1, 0, 1),
    )  # fmt: skip
    shown = Shown.of(thumbs)
    assert shown.index.tolist() == [7, 3, 1, 9]
    assert shown.numbers([1, 5, 9]) == [2, 3], "what is not shown is left out"
    assert section_numbers(thumbs, shown) == {
        -1: {"flagged": [0, 1], "wrong_but_confident": [2]},
        0: {"worst": [3], "median": [], "best": [1], "random": [], "background": [],
            "background_channel": []},
    }  # fmt: skip


def test_pictures_keep_to_the_budget_in_their_order() -> None:
    thumbs = thumbs_of(("flagged", -1, 0, 0), ("flagged", -1, 1, 1), ("worst", 0, 0, 2))
    shown = Shown.of(thumbs)
    sizes = [len(data_uri(content)) for content in thumbs["image"]]
    every = place_pictures(thumbs, shown, Budget(sum(sizes)), [[2]], (4, 4))
    assert every == [data_uri(content) for content in thumbs["image"]]
    two = place_pictures(thumbs, shown, Budget(sizes[2] + sizes[0]), [[2]], (4, 4))
    assert two == [every[0], None, every[2]]
    assert place_pictures(thumbs, shown, Budget(0), [], (4, 4)) == [None] * 3


def test_large_pictures_are_made_smaller_before_any_is_left_out() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    thumbs = thumbs_of(("flagged", -1, 0, 0), ("flagged", -1, 1, 1))
    thumbs["image"] = encode_picture(noise)
    full = len(data_uri(thumbs["image"][0]))
    found = place_pictures(thumbs, Shown.of(thumbs), Budget(full), [], (200, 200))
    for picture in found:
        assert picture is not None
        content = base64.b64decode(picture.partition(",")[2])
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None and decoded.shape == (112, 112, 3)


def test_borders_of_object_and_unknown() -> None:
    mask = np.array([[255, 0, 0], [0, 0, UNKNOWN], [0, 0, UNKNOWN]], np.uint8)
    assert borders_of(encode_mask(mask), (3, 3)) == ("M0 0V1H1V0Z", "M2 1V3H3V1Z")
    assert borders_of(encode_mask(mask * 0), (3, 3)) == (None, None)


def test_columns_of_samples_follow_the_order_of_the_page() -> None:
    samples = pd.DataFrame(
        {
            "index": [0, 1, 2],
            "sample_id": ["a", HOSTILE[0], "c"],
            "label": pd.array([0, None, 1], "Int32"),
            "predicted": pd.array([0, 1, None], "Int32"),
            "label_probability": [0.75, np.nan, np.nan],
            "reason": pd.Categorical(["object", None, None]),
            "status": pd.Categorical(["ok", "bad_label", "unreadable"]),
            "map": [np.array([1, 0, 0, 0], np.float16), None, None],
        }
    )
    for name in (
        "confidence", "background_share", "transplant_rate", "object_logit", "near_logit",
        "far_logit", "mask_confidence", "object_area",
    ):  # fmt: skip
        samples[name] = np.array([0.5, np.nan, np.nan], np.float32)
    thumbs = thumbs_of(("flagged", -1, 0, 2), ("worst", 0, 0, 0), ("best", 0, 0, 1))
    found = sample_columns(
        samples, thumbs, Shown.of(thumbs), np.array([0, 0, 5]), grid=(2, 2), image_size=(4, 4)
    )
    assert found["id"] == ["c", "a", HOSTILE[0]]
    assert found["index"] == [2, 0, 1] and found["flags"] == [5, 0, 0]
    assert found["label"] == [1, 0, None] and found["predicted"] == [None, 0, 1]
    assert found["p_label"] == [None, 0.75, None] and found["confidence"] == [None, 0.5, None]
    assert found["reason"] == [None, "object", None]
    assert found["status"] == ["unreadable", "ok", "bad_label"]
    assert found["map"] == [None, base64.b64encode(b"\xff\0\0\0").decode(), None]
    assert found["outline"] == ["M0 0V4H4V0Z"] * 3 and found["unknown"] == [None] * 3
    assert {len(values) for values in found.values()} == {3}


def test_histograms_count_each_class() -> None:
    samples = pd.DataFrame(
        {
            "label": pd.array([0, 0, 0, 1, None, 1], "Int32"),
            "background_share": [0.0, 0.049, 0.05, 1.0, 0.5, np.nan],
        }
    )
    found = share_histograms(samples, 3)
    assert found.shape == (3, 20)
    assert found[0, :3].tolist() == [2, 1, 0] and found[1, 19] == 1
    assert found.sum(axis=1).tolist() == [3, 1, 0]


def test_transplants_that_follow_most_come_first_and_long_lists_are_cut() -> None:
    many = 25
    table = pd.DataFrame(
        {
            "family": ["dataset"] * many + ["ellipse"],
            "label": 0,
            "object": [*range(1, many + 1), 1],
            "n": [1] * (many - 1) + [10, 4],
            "predicted_label": [0.0] * (many - 2) + [1.0, 0.5, 1.0],
            "predicted_object": 0.25,
        }
    )
    rows, totals = transplant_rows(table, "dataset")
    # Five of ten weigh more than one of one.
    assert rows[0][0] == {"object": 25, "n": 10, "to_class": 0.5, "kept": 0.25}
    assert rows[0][1]["object"] == 24 and rows[0][2]["object"] == 1
    assert len(rows[0]) == 20 and totals == {0: many}


def test_evidence_of_families_that_were_tested() -> None:
    table = pd.DataFrame(
        {
            "label": [1, 1], "label_name": ["b", "b"], "family": ["dataset", "ellipse"],
            "n": [20, 0], "effect": [0.5, np.nan], "effect_low": [0.25, np.nan],
            "effect_high": [0.75, np.nan], "decided_share": [0.1, np.nan],
            "decided_share_low": [0.0, np.nan], "decided_share_high": [0.2, np.nan],
            "background_only_rate": [0.3, np.nan], "feature_transplant_rate": [0.4, 0.5],
        }
    )  # fmt: skip
    assert evidence_rows(table) == {
        1: [
            {"family": "dataset", "effect": 0.5, "low": 0.25, "high": 0.75, "n": 20,
             "decided_share": 0.1, "decided_low": 0.0, "decided_high": 0.2,
             "background_only": 0.3, "transplant_rate": 0.4}
        ]
    }  # fmt: skip


def test_kinds_of_background_with_their_samples() -> None:
    table = pd.DataFrame(
        {
            "label": [0, 0, 1], "cluster": [0, 1, 0], "description": ["dark, green", None, np.nan],
            "n": [5, 3, 8], "share": [0.6, 0.4, 1.0], "accuracy": [0.5, np.nan, 1.0],
            "spuriosity_gap": [0.2, 0.2, np.nan], "spuriosity_low": [0.1, 0.1, np.nan],
            "spuriosity_high": [0.3, 0.3, np.nan], "spuriosity_p": [0.01, 0.01, np.nan],
            "spuriosity_q": [0.02, 0.02, np.nan], "spuriosity_n": [9.0, 9.0, np.nan],
        }
    )  # fmt: skip
    # Ranks from kind × 6 on.
    thumbs = thumbs_of(
        ("background", 0, 1, 11), ("background", 0, 0, 10), ("background", 0, 6, 12),
        ("background", 1, 0, 10),
    )  # fmt: skip
    rows, spuriosity = background_rows(table, thumbs, Shown.of(thumbs), ENGLISH)
    assert [kind["samples"] for kind in rows[0]] == [[0, 1], [2]]
    assert rows[1][0]["samples"] == [0]
    assert [kind["description"] for kind in rows[0]] == ["dark, green", None]
    assert spuriosity == {0: {"gap": 0.2, "low": 0.1, "high": 0.3, "p": 0.01, "q": 0.02, "n": 9}}


def test_strata_have_names_in_the_pages_language() -> None:
    table = pd.DataFrame(
        {"label": [0, 1], "stratum": "object_area", "value": "low", "n": [3, 4], "accuracy": 0.5}
    )
    rows = strata_rows(table, [0], ENGLISH)
    assert list(rows) == [0]
    assert rows[0][0]["name"] == "small objects" and rows[0][0]["n"] == 3
    assert strata_rows(table, [0], load_language("zh"))[0][0]["name"] != "small objects"


def pictures(index: int, *edits: tuple[str, int | None, int | None]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "index": index, "sample_id": f"s{index}", "label": 0, "background_decides": True,
            "edit": [edit for edit, *_ in edits], "family": "ellipse", "fill": None,
            "object": [thing for _, thing, _ in edits],
            "background": [where for *_, where in edits], "predicted": 1, "p_label": 0.25,
            "image": encode_picture(np.zeros((4, 4, 3), np.uint8)),
        }
    )  # fmt: skip


def test_edited_pictures_come_as_whole_samples() -> None:
    edited = pd.concat(
        [
            pictures(3, ("original", 0, 0), ("object_only", 0, None), ("transplant", 1, 0)),
            pictures(9, ("original", 0, 0)),
        ]
    )
    names = ["cat", HOSTILE[0]]
    thumbs = thumbs_of(("worst", 0, 0, 3))
    length = len(data_uri(edited["image"].iloc[0]))
    budget = Budget(3 * length)
    (view,) = edited_views(edited, Shown.of(thumbs), names, ENGLISH, budget)
    assert budget.taken == 3 * length, "the second sample has no room"
    assert (view["label"], view["s"], view["id"]) == (0, 0, "s3")
    assert view["family"] == "ellipse" and view["background_decides"] is True
    told = [(p["edit"], p["object"], p["background"], p["predicted"]) for p in view["pictures"]]
    assert told == [("original", 0, 0, 1), ("object_only", 0, None, 1), ("transplant", 1, 0, 1)]
    assert view["pictures"][2]["name"].endswith(HOSTILE[0])
    both = edited_views(edited, Shown.of(thumbs), names, ENGLISH, Budget(10**6))
    assert [each["s"] for each in both] == [0, None]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_in_sentences_stay_what_they_are(name: str) -> None:
    shown = picture_name({"edit": "mixed_rand", "background": 1}, ["cat", name], ENGLISH)
    assert name in shown


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    classes = [f"{place}{text}" for place, text in enumerate((*HOSTILE, "a", "b", "c", "d"))]
    folder = tmp_path_factory.mktemp("small") / "run"
    plan = Plan(
        classes=classes, samples=600, edited=300,
        sample_id=lambda index: f"{index}/{HOSTILE[index % len(HOSTILE)]}",
    )  # fmt: skip
    write_run(folder, plan)
    return open_stored(folder)


@pytest.fixture(scope="module")
def data(small: Stored) -> dict[str, Any]:
    return page_data(small, ENGLISH, colours="viridis")


def test_the_data_is_json(data: dict[str, Any]) -> None:
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data


def test_the_facts_of_the_run_are_told(small: Stored, data: dict[str, Any]) -> None:
    meta = data["meta"]
    assert meta["samples"] == 600 and meta["shown"] == len(data["samples"]["id"])
    assert meta["colours"] == "viridis" and meta["lang"] == "en" and meta["estimated"] is True
    assert meta["flagged"] == int(small.flags().any.sum())
    assert data["class_names"] == list(small.facts["classes"])
    assert {len(colours) for colours in data["colourmaps"].values()} == {256 * 6}
    assert list(data["colourmaps"]) == ["jet", "viridis", "cividis", "inferno"]


def test_flags_are_counted(small: Stored, data: dict[str, Any]) -> None:
    bits = np.array(data["samples"]["flags"])
    for place, (key, flag) in enumerate(zip(FLAGS, data["flags"], strict=True)):
        assert flag["key"] == key and flag["name"] and flag["meaning"]
        assert flag["shown"] == int((bits >> place & 1).sum())
        assert flag["total"] == int(small.flags().raised[key].sum()) >= flag["shown"]
    # All flagged samples of so small a split are shown.
    assert int((bits > 0).sum()) == data["meta"]["flagged"]


def test_samples_are_those_of_the_rows(small: Stored, data: dict[str, Any]) -> None:
    columns = data["samples"]
    assert len({len(values) for values in columns.values()}) == 1
    rows = small.samples.set_index("index").loc[columns["index"]]
    assert columns["id"] == rows["sample_id"].tolist()
    assert columns["predicted"] == rows["predicted"].tolist()
    assert np.allclose(columns["confidence"], rows["confidence"], rtol=1e-4)
    assert all(picture.startswith("data:image/png;base64,") for picture in columns["image"])


def test_classes_hold_their_rows(small: Stored, data: dict[str, Any]) -> None:
    classes = small.tables["classes"].set_index("label")
    assert sorted(view["label"] for view in data["classes"]) == list(range(12))
    of_sample = data["samples"]["label"]
    for view in data["classes"]:
        row = classes.loc[view["label"]]
        assert view["name"] == row["label_name"] and view["n"] == row["n"]
        assert view["undefined"] == row["n"] - row["n_scored"]
        assert view["text"] == row["verdict_text"] and view["limits"] == row["verdict_limits"]
        assert sum(view["histogram"]) == row["n_scored"]
        for section in ("worst", "median", "best", "random"):
            assert len(view["sections"][section]) == 6
            assert {of_sample[s] for s in view["sections"][section]} == {view["label"]}
        for kind in view["backgrounds"]:
            assert {of_sample[s] for s in kind["samples"]} <= {view["label"]}
        for edit in view["edits"]:
            assert of_sample[edit["s"]] == view["label"] if edit["s"] is not None else True


def test_the_matrix_holds_the_table(small: Stored, data: dict[str, Any]) -> None:
    matrix, table = data["transplant_matrix"], small.tables["transplants"]
    assert matrix["labels"] == list(range(12)) and matrix["classes"] == 12
    own = table[table["family"] == matrix["family"]]
    filled = sum(cell is not None for row in matrix["cells"] for cell in row)
    assert filled == len(own)
    for row in own.head(20).to_dict("records"):
        cell = matrix["cells"][row["label"]][row["object"]]
        assert cell == pytest.approx(row["predicted_label"], rel=1e-4)
    assert all(row[place] is None for place, row in enumerate(matrix["cells"]))


def test_labels_and_confusions_point_to_samples(small: Stored, data: dict[str, Any]) -> None:
    suspects = small.tables["labels"]
    assert data["labels_total"] == len(suspects) > 0
    assert [row["id"] for row in data["labels"]] == suspects["sample_id"].tolist()[:100]
    for row in data["labels"]:
        assert row["s"] is None or data["samples"]["id"][row["s"]] == row["id"]
    samples = small.samples
    for view in data["confusions"]:
        pair = (samples["label"] == view["label"]) & (samples["predicted"] == view["predicted"])
        assert view["n"] == int(pair.sum()) and view["label"] != view["predicted"]
        for s in view["samples"]:
            assert bool(pair[data["samples"]["index"][s]])
        shares = samples.loc[pair, "reason"].value_counts(normalize=True)
        for name, share in view["regions"].items():
            assert share == pytest.approx(shares.get(name, 0.0))


def test_the_page_holds_the_data_whatever_names_say(small: Stored, data: dict[str, Any]) -> None:
    page = render_page(small, data, ENGLISH)
    _, found, rest = page.partition('<script type="application/json" id="audit-data">')
    content, _, _ = rest.partition("</script>")
    assert found and json.loads(content) == data
    assert "<" not in content
    assert "<script>alert(1)" not in page


def test_the_budget_holds_for_all_pictures(small: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagedata, "PICTURE_CHARACTERS", 200_000)
    data = page_data(small, ENGLISH)
    images = [picture for picture in data["samples"]["image"] if picture is not None]
    edits = [p["image"] for c in data["classes"] for e in c["edits"] for p in e["pictures"]]
    assert 100_000 < sum(map(len, images)) + sum(map(len, edits)) <= 200_000
    assert images and edits
    monkeypatch.setattr(pagedata, "MOST_CHARACTERS", 0)
    bare = page_data(small, ENGLISH)
    assert set(bare["samples"]["image"]) == {None}
    assert not any(view["edits"] for view in bare["classes"])


def test_a_thousand_classes_stay_small(tmp_path: Path) -> None:
    plan = Plan(classes=[f"class {n}" for n in range(1000)], samples=10_000, blocks=50, edited=40)
    write_run(tmp_path / "run", plan)
    stored = open_stored(tmp_path / "run")
    data = page_data(stored, ENGLISH)
    assert len(data["classes"]) == 1000
    assert len(data["transplant_matrix"]["labels"]) == 40
    assert sum(bool(view["sections"]) for view in data["classes"]) == 50
    page = render_page(stored, data, ENGLISH)
    assert len(page.encode()) < 20_000_000
