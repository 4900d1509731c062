from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from audit.report.page.outlines import EXACT_SIDE, outline_path


def filled(path: str | None, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """What an even-odd fill paints, for polygons along the borders of pixels."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.int64)
    for polygon in (path or "").split("Z")[:-1]:
        x = y = 0
        points = []
        for kind, numbers in re.findall(r"([MHV])([\d ]+)", polygon):
            if kind == "M":
                x, y = map(int, numbers.split())
            elif kind == "H":
                x = int(numbers)
            else:
                y = int(numbers)
            points.append((x, y))
        for (x, y), (next_x, next_y) in zip(points, points[1:] + points[:1], strict=True):
            assert (x == next_x) != (y == next_y), "a step along one border"
            if x == next_x:
                crossed[min(y, next_y) : max(y, next_y), x:] += 1
    return crossed[:, :-1] % 2 == 1


@pytest.mark.parametrize(
    ("drawn", "path"),
    [
        (["...", ".#.", "..."], "M1 1V2H2V1Z"),
        (["###", "#.#", "###"], "M0 0V3H3V0ZM1 1H2V2H1Z"),
        (["#..", "##.", "..."], "M0 0V2H2V1H1V0Z"),
        (["...", "...", "..."], None),
        (["###", "###", "###"], "M0 0V3H3V0Z"),
    ],
)
def test_outlines_drawn_by_hand(drawn: list[str], path: str | None) -> None:
    mask = np.array([[cell == "#" for cell in row] for row in drawn])
    assert outline_path(mask) == path


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_outlines_of_small_masks_are_exact(height: int, width: int, random: object) -> None:
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    mask = rng.random((height, width)) < rng.random()
    assert (filled(outline_path(mask), mask.shape) == mask).all()


def test_outlines_are_in_the_pictures_coordinates() -> None:
    mask = np.zeros((4, 8), bool)
    mask[1:3, 2:4] = True
    assert outline_path(mask, (40, 40)) == "M10 10V30H20V10Z"


def test_large_masks_are_simplified() -> None:
    side = 2 * EXACT_SIDE
    rows, columns = np.indices((side, side))
    away = np.hypot(rows - side / 2, columns - side / 2)
    path = outline_path(away < side / 3)
    assert path is not None and len(path) < 800
    # A single pixel of doubt is not worth a polygon there.
    assert outline_path(away < 0.1) is None
    points = np.array(re.findall(r"[ML](\S+) ([\d.]+)", path), float)
    assert abs(np.hypot(*(points - side / 2).T) - side / 3).max() < 1.5
