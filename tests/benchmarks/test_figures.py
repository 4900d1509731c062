"""Statistics, the file of figures, the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import everything, speed, targets
from benchmarks.libraries import WAYS
from benchmarks.results import About, Row, keep, load
from benchmarks.timing import fastest, ratios, spread, take_turns


def about(section: str = "step", subject: str = "resnet20, 32×32", **changed: str) -> About:
    given = {"machine": "a machine", "setting": "256 images at a time, float32, 2 threads"}
    return About(**{**given, **changed}, section=section, subject=subject)


def test_spread_is_the_median_with_quartiles() -> None:
    found = spread([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.low, found.middle, found.high) == (2.0, 3.0, 4.0)
    few = spread([2.0, 1.0, 9.0])
    assert (few.low, few.middle, few.high) == (1.0, 2.0, 9.0)


def test_contestants_take_turns_in_either_order() -> None:
    calls: list[str] = []
    work = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = take_turns(work, rounds=2, warm=1)
    assert "".join(calls) == "baabba"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2}


def test_ratios_are_of_the_same_round() -> None:
    # A machine that is twice as slow in the second round changes no ratio.
    assert ratios([3.0, 6.0, 3.0], [1.0, 2.0, 1.0]).middle == 3.0


def test_the_base_is_the_fastest_of_those_that_may_be() -> None:
    seconds = {"bare": [2.0, 2.0], "bare, compiled": [1.0, 1.0], "audit": [0.5, 0.5]}
    assert fastest(seconds, ["bare", "bare, compiled"]) == "bare, compiled"
    rows = about().timed(seconds, 10, ["bare", "bare, compiled"])
    assert {row.variant: row.ratio for row in rows} == {
        "bare": 2.0, "bare, compiled": 1.0, "audit": 0.5
    }  # fmt: skip
    assert rows[1].images_per_second == 10.0


def test_a_later_measurement_replaces_its_group_alone(tmp_path: Path) -> None:
    file = tmp_path / "results.parquet"
    keep([about().row("audit", seconds=1.0), about().row("bare", seconds=1.0)], file)
    keep([about(machine="another").row("audit", seconds=3.0)], file)
    keep([about().row("audit", seconds=2.0, value=1.5, unit="MiB")], file)
    found = load(file)
    assert [(r.machine, r.variant, r.seconds) for r in found] == [
        ("a machine", "audit", 2.0), ("another", "audit", 3.0)
    ]  # fmt: skip
    assert (found[0].value, found[0].unit, found[0].ratio) == (1.5, "MiB", None)
    assert load(tmp_path / "absent.parquet") == []


def measured() -> list[Row]:
    step = {"as loaded": [2.0, 2.0], "compiled": [1.0, 1.0], "audit": [1.02, 1.02]}
    floor = about().row("floor, operations", seconds=0.5, value=3.0, unit="operations")
    libraries: dict[str, Any] = {
        f"{library}, {way}": [2.0 + number]
        for library in ("torch-cam CAM", "torch-cam Grad-CAM", "captum", "pytorch-grad-cam")
        for number, way in enumerate(WAYS)
    }
    peers = about("peers").timed(
        {"bare, compiled": [0.9], "audit": [1.0], **libraries}, 100, ["audit"]
    )
    return [*about().timed(step, 100, ["as loaded", "compiled"]), floor, *peers]


def test_the_page_has_a_place_for_every_section(tmp_path: Path) -> None:
    page, plot = tmp_path / "speed.md", tmp_path / "speed.svg"
    page.write_text(speed.PAGE.read_text())
    speed.write_page(measured(), page, plot)
    text = page.read_text()
    assert "| resnet20, 32×32 | 256 images at a time, float32, 2 threads | compiled: 100 |" in text
    assert "| 2.00 | 1.00 | 1.02 | 1.02 |  | 0.50 |" in text
    assert "| captum, by the manual | 2.00 | 2.00 to 2.00 | 50 |" in text
    assert plot.read_text().count("torch-cam") == 2
    # Nothing but what stands between markers changes, and once more changes nothing.
    speed.write_page(measured(), page, plot)
    assert page.read_text() == text
    assert text.startswith(speed.PAGE.read_text().partition("<!--")[0])


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for step"):
        speed.replaced("a page", "step", "text")


def test_aims_say_whether_they_were_reached() -> None:
    found = {target.what: target for target in targets.targets(measured())}
    setting = "resnet20, 32×32; 256 images at a time, float32, 2 threads"
    for over in ("the best usual pass", "the audit's own bare pass too"):
        step = found[f"step over {over}, {setting}"]
        assert (step.reached, round(step.found, 2)) == (True, 1.02)
    assert found["resnet20, 32×32, times as fast as torch-cam CAM, by the manual"].reached
    assert not found["resnet20, 32×32, times as fast as captum, by the manual"].reached


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_section_is_a_script(device: str) -> None:
    options = ["--device", device]
    asked = everything.options().parse_args(options)
    scripts = {script for script, *_ in everything.plan(asked)}
    folder = Path(everything.__file__).parent
    assert scripts == set(everything.SECTIONS)
    assert all((folder / f"{script}.py").exists() for script in scripts)
