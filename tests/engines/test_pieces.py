"""Pieces of a run: together they are all of it, and schedulers tell which one is meant."""

from __future__ import annotations

import pytest

from audit.engines.pieces import Piece, read_piece
from audit.errors import UsageError
from audit.run.store import plan_shards


@pytest.mark.parametrize("shards", [0, 1, 3, 4, 5, 17])
@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_pieces_are_all_of_a_run_and_nothing_twice(shards: int, count: int) -> None:
    planned = plan_shards(shards * 10, 10)
    pieces = [Piece(index, count).of(planned) for index in range(count)]
    assert [shard for piece in pieces for shard in piece] == planned
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("0/1", {}, Piece(0, 1)),
        ("3/4", {"SLURM_ARRAY_TASK_ID": "0"}, Piece(3, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"}, Piece(2, 3)),
        (
            "auto/auto",
            {
                "SLURM_ARRAY_TASK_ID": "12",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            Piece(2, 3),
        ),
        ("auto/5", {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "0"}, Piece(4, 5)),
        ("auto/5", {"JOB_COMPLETION_INDEX": "4"}, Piece(4, 5)),
    ],
)
def test_which_piece(given: str, environment: dict[str, str], expected: Piece) -> None:
    assert read_piece(given, environment) == expected


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        ("4/4", {}, "no piece 4 of 4"),
        ("0/0", {}, "no piece 0 of 0"),
        ("-1/4", {}, "names no piece"),
        ("1", {}, "names no piece"),
        ("1/4/2", {}, "names no piece"),
        ("", {}, "names no piece"),
        ("auto", {}, "JOB_COMPLETION_INDEX"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "SLURM_ARRAY_TASK_COUNT"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "two"}, "JOB_COMPLETION_INDEX=two"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "²"}, "JOB_COMPLETION_INDEX"),
        ("auto/2", {"SLURM_ARRAY_TASK_ID": "2"}, "no piece 2 of 2"),
    ],
)
def test_what_is_no_piece(given: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        read_piece(given, environment)
    assert raised.value.exit_code == 2
