"""Whether a model is right more often than a guess would be."""

from __future__ import annotations

import pandas as pd
import pytest

from audit.report.page.guessing import guess_that_does_as_well


@pytest.mark.parametrize(
    ("counts", "accuracy", "expected"),
    [
        ([24, 24, 24], 0.014, 1 / 3),
        ([24, 24, 24], 1 / 3, 1 / 3),
        ([24, 24, 24], 0.34, None),
        ([90, 10, 0], 0.89, 0.9),
        ([90, 10, 0], 0.91, None),
        # One class is always right; without labels nobody knows.
        ([50, 0], 1.0, None),
        ([24, 24], None, None),
        ([0, 0], 0.5, None),
    ],
)
def test_a_model_that_is_no_better_than_a_guess(
    counts: list[int], accuracy: float | None, expected: float | None
) -> None:
    classes = pd.DataFrame({"n": counts})
    found = guess_that_does_as_well(classes, accuracy)
    assert found == (None if expected is None else pytest.approx(expected))
