"""Choices by position and by hash."""

from __future__ import annotations

import numpy as np
import torch

from audit.score import positions
from audit.tables.scale.sampling import (
    first_of_each,
    group_of,
    is_counted,
    is_drawn,
    mixed,
    scramble,
)


def test_positions_are_those_of_the_step() -> None:
    index = np.concatenate([np.arange(2000), np.arange(10**9, 10**9 + 2000)])
    assert (scramble(index) == positions.scramble(torch.from_numpy(index)).numpy()).all()
    kept = positions.is_kept(torch.from_numpy(index), 0.1).numpy()
    # Evidence by channel is stored for a smaller share: all of it is drawn.
    assert (is_drawn(index, 0.2) >= kept).all()
    assert (is_drawn(index, 0.1) == kept).all()


def test_a_drawn_share_is_spread_over_the_split() -> None:
    index = np.arange(2_000_000)
    drawn = index[is_drawn(index, 0.02)]
    assert abs(len(drawn) - 40_000) < 600
    for period in (7, 10, 64, 100, 1000):
        seen = np.bincount(drawn % period, minlength=period)
        expected = len(drawn) / period
        spread = ((seen - expected) ** 2 / expected).sum()
        # Not above what chance would do; a regular spread is welcome.
        assert spread < period + 5 * np.sqrt(2 * period)


def test_copies_share_a_group_and_others_are_dealt_evenly() -> None:
    pictures, index = np.arange(64_000) // 2, np.arange(64_000)
    groups = group_of(pictures, index, 32, 0)
    assert (groups[::2] == groups[1::2]).all()
    assert (abs(np.bincount(groups, minlength=32) - 2000) < 5 * np.sqrt(2 * 2000)).all()
    assert (group_of(pictures, index, 32, 1) != groups).mean() > 0.9
    unknown = group_of(np.full(1000, -1), index[:1000], 32, 0)
    assert len(np.unique(unknown)) == 32


def test_hashes_of_different_numbers_differ() -> None:
    assert len(np.unique(mixed(np.arange(100_000)))) == 100_000
    counted = is_counted(np.arange(-1, 100_000), 0.25)
    assert not counted[0]
    assert abs(counted.sum() - 25_000) < 700
    # Which pictures are counted says nothing of their groups.
    groups = group_of(np.arange(100_000), np.arange(100_000), 32, 0)
    assert abs(np.bincount(groups[counted[1:]], minlength=32) - 781).max() < 150


def test_first_of_each_breaks_ties_by_the_next_key() -> None:
    groups = np.array([2, 1, 1, 1, 2])
    key, index = np.array([0.0, 5.0, 5.0, 1.0, 0.0]), np.array([9, 8, 7, 6, 5])
    found = first_of_each(groups, (key, index), np.array([1, 2, 2, 2, 1]))
    assert found.tolist() == [3, 2, 4]
    nothing = np.zeros(0, np.int64)
    assert first_of_each(nothing, (nothing,), nothing).tolist() == []
