"""Class names as parts of metric names: safe, and no two alike."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from audit.export.names import safe_names


def test_plain_names_stay() -> None:
    assert safe_names(["cat", "fire-truck", "猫", "été"]) == ["cat", "fire-truck", "猫", "été"]


def test_collisions_are_numbered() -> None:
    assert safe_names(["a b", "a/b", "A.B"]) == ["a_b_0", "a_b_1", "A_B_2"]
    # Nobody takes the name of a class that has it alone.
    assert safe_names(["x", "X", "x_0"]) == ["x_0_", "X_1", "x_0"]
    assert safe_names(["..", "", "/"]) == ["class_0", "class_1", "class_2"]


@given(st.lists(st.text(), max_size=8))
def test_any_names(names: list[str]) -> None:
    found = safe_names(names)
    assert len({name.casefold() for name in found}) == len(found) == len(names)
    assert all(re.fullmatch(r"[\w-]{1,80}", name) for name in found)
