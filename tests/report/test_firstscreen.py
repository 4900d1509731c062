"""What the first screen names and shows."""

from __future__ import annotations

from typing import Any

from audit.report.page.firstscreen import ROWS, first_screen, reliance_chart, strongest_proof


def entry(
    label: int, severity: int = 0, reliance: float | None = 0.5, **more: Any
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": label,
        "severity": severity,
        "reliance": reliance,
        "reliance_low": None if reliance is None else reliance - 0.1,
        "reliance_high": None if reliance is None else reliance + 0.1,
        "family": "estimated",
        "transplant_highest": 0.2,
        "n": 9,
        "undefined": 0,
        "edits": [],
    }
    return found | more


def picture(edit: str, *, predicted: int, shown: int | None = None, p: float | None = 0.5,
            image: str | None = "data:,") -> dict[str, Any]:  # fmt: skip
    return {"edit": edit, "object": shown, "predicted": predicted, "p_label": p, "image": image}


def page(**more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "samples": {"image": ["data:,a", None, "data:,c"]},
        "classes": [],
        "labels": [],
        "sections": {},
    }
    return found | more


def test_the_chart_shows_the_gravest_classes_by_how_far_their_backgrounds_move_answers() -> None:
    harmless = [entry(label, severity=3, reliance=0.2) for label in range(ROWS)]
    accused = [entry(100, reliance=0.15), entry(101, reliance=0.6)]
    chart = reliance_chart([*harmless, *accused, entry(102, severity=4, reliance=None)])
    assert chart is not None
    labels = [row["entry"]["label"] for row in chart["rows"]]
    assert labels[0] == 101
    assert labels[-1] == 100
    assert len(labels) == ROWS
    assert chart["more"] == 2


def test_the_chart_says_what_classes_without_a_cue_show() -> None:
    estimated = reliance_chart([entry(0, reliance=0.13), entry(1, severity=3, reliance=0.1)])
    assert estimated is not None
    # The axis goes from 0% to 25%.
    assert estimated["clean"] == {"value": 0.2, "at": 80}
    exact = reliance_chart([entry(0, reliance=0.13, family="dataset")])
    assert exact is not None
    assert exact["clean"] == {"value": 0.05, "at": 20}
    mixed = reliance_chart([entry(0), entry(1, family="dataset")])
    assert mixed is not None
    assert mixed["clean"] is None


def test_places_in_the_chart_are_shares_of_its_axis() -> None:
    chart = reliance_chart([entry(0, reliance=0.5), entry(1, reliance=0.0)])
    assert chart is not None
    # From -25% (the interval reaches -10%) to 75%.
    assert [tick["value"] for tick in chart["ticks"]] == [-0.25, 0, 0.25, 0.5, 0.75]
    assert chart["zero"] == 25
    assert [row["at"] for row in chart["rows"]] == [75, 25]
    assert [row["left"] for row in chart["rows"]] == [65, 15]
    assert [row["right"] for row in chart["rows"]] == [15, 65]


def test_a_class_without_an_interval_is_a_dot_alone() -> None:
    chart = reliance_chart([entry(0, reliance_low=None, reliance_high=None)])
    assert chart is not None
    (row,) = chart["rows"]
    assert row["left"] == row["at"] == 100 - row["right"] == 100


def test_nothing_tested_is_no_chart() -> None:
    assert reliance_chart([entry(0, severity=4, reliance=None)]) is None
    assert first_screen(page(classes=[entry(0, severity=4, reliance=None)]))["chart"] is None


def test_the_clearest_example_is_an_exchange_that_the_model_follows() -> None:
    original = picture("original", predicted=3)
    clearest = picture("transplant", predicted=3, shown=1, p=0.9)
    edits = [
        {
            "pictures": [
                original,
                picture("transplant", predicted=1, shown=1, p=0.99),
                picture("transplant", predicted=3, shown=3, p=1.0),
                picture("background_only", predicted=3, p=1.0),
                picture("transplant", predicted=3, shown=2, p=0.6),
                picture("transplant", predicted=3, shown=2, p=0.95, image=None),
                clearest,
            ]
        }
    ]
    found = strongest_proof([entry(3, edits=edits)])
    assert found is not None
    assert found["picture"] is clearest
    assert found["original"] is original
    assert found["entry"]["label"] == 3


def test_a_class_that_is_not_accused_proves_nothing() -> None:
    edits = [{"pictures": [picture("transplant", predicted=3, shown=1)]}]
    assert strongest_proof([entry(3, severity=3, edits=edits)]) is None
    worse, bad = (
        entry(3, severity=1, reliance=0.9, edits=edits),
        entry(3, reliance=0.3, edits=edits),
    )
    found = strongest_proof([worse, bad])
    assert found is not None
    assert found["entry"] is bad


def test_label_and_sample_need_a_picture() -> None:
    labels = [
        {"s": None, "kind": "likely label error"},
        {"s": 1, "kind": "likely label error"},
        {"s": 0, "kind": "model and label disagree"},
        {"s": 2, "kind": "likely label error"},
    ]
    found = first_screen(page(labels=labels, sections={"right_for_the_wrong_reason": [1, 2]}))
    assert found["label"] is labels[3]
    assert found["sample"] == 2
    assert first_screen(page(labels=labels[:3]))["label"] is labels[2]
    assert first_screen(page())["label"] is None
    assert first_screen(page())["sample"] is None


def test_feature_space_names_five_classes_at_most_and_none_without_a_rate() -> None:
    none = [entry(0, transplant_highest=0.0), entry(1, transplant_highest=None)]
    found = first_screen(page(classes=[*none, *(entry(label) for label in range(2, 9))]))
    assert [shown["label"] for shown in found["screened"]["ranked"]] == [2, 3, 4, 5, 6]
    assert first_screen(page(classes=none))["screened"] == {"ranked": [], "few": []}


def test_feature_space_ranks_by_its_rate_and_sets_classes_of_few_images_apart() -> None:
    classes = [
        entry(0, transplant_highest=0.14),
        entry(1, transplant_highest=0.69, n=9, undefined=5),
        entry(2, transplant_highest=0.3),
    ]
    found = first_screen(page(classes=classes))["screened"]
    assert [shown["label"] for shown in found["ranked"]] == [2, 0]
    assert [shown["label"] for shown in found["few"]] == [1]
