"""What the page says of the object masks, for every kind of them and every finding."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit.masks.families import SOURCES
from audit.report.language import load_language
from audit.report.page.masktrust import Within, trust_in_words, within_classes

ENGLISH, CHINESE = load_language("en"), load_language("zh")
TOTALS = {
    "background_share": 0.45, "background_share_mask_low": 0.3, "background_share_mask_high": 0.6,
    "mask_confidence": 0.55, "mask_confident": 1200, "mask_sources": {"estimated": 2000},
    "area_correlation": None, "border_touch": 0.0, "unknown_area": 0.0,
}  # fmt: skip


def facts(masks: str = "estimated", check: dict[str, Any] | None = None, **totals: object) -> dict:
    return {
        "masks": masks, "mask_check": check, "mask_network": None, "totals": TOTALS | totals,
    }  # fmt: skip


def said(given: dict[str, Any], *within: float | None, language: Any = ENGLISH) -> dict[str, Any]:
    masks = pd.DataFrame({"n": [2000]})
    classes = [{"area_correlation": value} for value in within]
    return trust_in_words(given, masks, classes, language)


@pytest.mark.parametrize(
    ("overall", "within", "told", "untold"),
    [
        (-0.12, [-0.3, -0.68, None],
         ["Within classes", "-0.12 over all", "-0.68 to -0.30 within", "The smaller"],
         ["hardly", "Unusually"]),
        (0.1, [0.3, 0.5], ["Within classes", "0.30 to 0.50 within"], ["hardly", "The smaller"]),
        (-0.12, [-0.2, 0.1], ["hardly depends", "-0.20 to 0.10 within"], ["Within classes"]),
        (-0.12, [None, None], ["hardly depends", "-0.12 over all images.)"], ["within"]),
        (-0.5, [-0.2, -0.4], ["The smaller the object", "-0.40 to -0.20 within"], ["hardly"]),
        (0.5, [0.1, 0.1], ["Unusually", "0.50 over all images, 0.10 within"], ["hardly"]),
    ],
)  # fmt: skip
def test_the_size_of_objects_is_told_within_classes_too(
    overall: float, within: list[float | None], told: list[str], untold: list[str]
) -> None:
    found = said(facts(area_correlation=overall), *within)
    (text,) = [point["text"] for point in found["points"] if "over all images" in point["text"]]
    assert all(words in text for words in told)
    assert not any(words in text for words in untold)


def test_dependence_within_classes_by_hand() -> None:
    def found(*values: float | None) -> Within | None:
        return within_classes([{"area_correlation": value} for value in values])

    assert found() is None
    assert found(None, np.nan) is None
    assert found(-0.5, None) == Within(low=-0.5, high=-0.5, depends=True)
    assert found(-0.25, 0.25) == Within(low=-0.25, high=0.25, depends=True)
    assert found(0.24, 0.9, 0.1) == Within(low=0.1, high=0.9, depends=False)


def test_estimated_masks_are_called_so_and_judged_by_what_was_measured() -> None:
    found = said(facts())
    assert found["estimated"] and "estimated from each image's colours" in found["origin"]
    for words in ("55% on average; 1,200 of 2,000 images", "4 percentage points too low",
                  "a similar order", "0.59", "8% of them missed"):  # fmt: skip
        assert words in found["intro"]
    assert "between 30% and 60%" in found["points"][0]["text"]
    assert not any(point["warning"] for point in found["points"])


def test_masks_of_the_dataset_are_not_called_estimated() -> None:
    found = said(facts("dataset", mask_sources={"dataset": 2000}))
    assert not found["estimated"]
    text = found["intro"] + found["origin"] + "".join(p["text"] for p in found["points"])
    assert "estimat" not in text and "confidence" not in text


def test_other_masks_and_networks_are_named() -> None:
    given = facts("rembg:isnet", mask_sources={"rembg": 1990, "estimated": 1, "ellipse": 1234})
    given["mask_network"] = {"session": "isnet-general-use", "licence": "Apache-2.0"}
    found = said(given)
    assert found["family"] == "rembg" and found["estimated"]
    assert "For 1 image these are estimated masks instead." in found["intro"]
    assert "For 1,234 images these are centre-ellipse masks instead." in found["intro"]
    assert "The network is isnet-general-use (licence: Apache-2.0)." in found["intro"]
    assert "need not be the labelled object" in found["intro"]


@pytest.mark.parametrize(
    ("verdict", "warned", "words"),
    [("fits", False, "Yes: on 256 images"), ("too few", False, "too few images to tell"),
     ("no fit", True, "Probably not: on 256 images"),
     ("other placement fits better", True, "better when shifted 4 px up")],
)  # fmt: skip
def test_masks_that_do_not_fit_are_warned_of(verdict: str, warned: bool, words: str) -> None:
    check = {"verdict": verdict, "n": 256, "placement": "shifted 4 px up"}
    found = said(facts("dataset", check, mask_sources={"dataset": 2000}))
    (point,) = [point for point in found["points"] if "belong to these images" in point["text"]]
    assert words in point["text"] and point["warning"] == warned
    assert (found["misfit"] is not None) == warned
    if warned:
        assert "Look at the object masks first" in found["misfit"]
        chinese = said(facts("dataset", check, mask_sources={}), language=CHINESE)
        assert chinese["misfit"].startswith("请先查看物体掩码")


def test_borders_and_unknown_pixels_are_told_where_there_are_some() -> None:
    found = said(facts(border_touch=0.3, unknown_area=0.012))
    texts = {point["text"]: point["warning"] for point in found["points"]}
    assert any("In 30% of the images" in text and warning for text, warning in texts.items())
    assert any("1.2% of the pixels" in text for text in texts)
    assert len(said(facts(border_touch=0.1, unknown_area=None))["points"]) == 1


@pytest.mark.parametrize("family", SOURCES)
def test_every_family_is_spoken_of_in_chinese(family: str) -> None:
    check = {"verdict": "fits", "n": 256, "placement": "as given"}
    given = facts(
        family, check, area_correlation=-0.2, border_touch=0.3, unknown_area=0.01,
        mask_sources={family: 9, **dict.fromkeys(SOURCES, 2)},
    )  # fmt: skip
    found = said(given, -0.4, 0.1, language=CHINESE)
    text = found["origin"] + found["intro"] + "".join(point["text"] for point in found["points"])
    assert set(re.findall(r"[A-Za-z]+", text)) <= {"kappa"}
    assert "{" not in text and " 。" not in text
