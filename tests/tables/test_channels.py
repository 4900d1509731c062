from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from audit.tables.channels import (
    CHANNEL_COLUMNS,
    MOST_ROWS,
    STRONGEST,
    lean,
    read_channels,
    summarise_channels,
    unpack,
)
from tests.tables.making import random_head, scaled

# Half precision over the largest magnitude: half of 2⁻¹⁰, and a little for float32.
HALF = 6e-4


def rows_of(vectors: np.ndarray, targets: list[int | None]) -> pd.DataFrame:
    stored, scale = scaled(np.asarray(vectors, float))
    return pd.DataFrame(
        {
            "target": pd.array(targets, "Int32"),
            "channel_logits": list(stored),
            "channel_logits_scale": scale,
        }
    )


def test_two_samples_by_hand() -> None:
    # object | near | far, two channels each.
    rows = rows_of([[1, 0, 0.5, 0, 2, -1], [3, 0, 0.5, 0, 4, 1]], [1, 1])
    table = summarise_channels(rows, ["a", "b"]).to_pandas()
    assert table.columns.tolist() == [column.name for column in CHANNEL_COLUMNS]
    first, second = (table.loc[n] for n in range(2))
    assert (first["target"], first["target_name"], first["channel"], first["n"]) == (1, "b", 0, 2)
    assert (first["object_logit"], first["near_logit"], first["far_logit"]) == (2, 0.5, 3)
    # The standard deviation of 1 and 3 is √2; over √2.
    assert_allclose([first["object_error"], first["near_error"], first["far_error"]], [1, 0, 1])
    assert (first["far_positive"], second["far_positive"]) == (1.0, 0.5)
    assert (first["background_rank"], second["background_rank"]) == (1, 2)
    assert first["lean"] == pytest.approx(3.5 / 5.5)
    assert second["far_logit"] == 0
    assert np.isnan(second["lean"]), "nothing from anywhere leans nowhere"


def test_means_equal_those_of_the_unpacked_vectors() -> None:
    rng = np.random.default_rng(0)
    head = random_head(rng, n=60, channels=5, classes=3)
    samples = head.rows()
    table = summarise_channels(samples, ["a", "b", "c"]).to_pandas()
    targets = samples["target"].to_numpy(np.int64)
    for region, values in zip(("object", "near", "far"), head.supplied(targets), strict=True):
        for target in np.unique(targets):
            found = table.loc[table["target"] == target]
            of_target = values[targets == target]
            room = HALF * samples["channel_logits_scale"].max()
            assert_allclose(found[f"{region}_logit"], of_target.mean(axis=0), atol=room)
            error = of_target.std(axis=0, ddof=1) / np.sqrt(len(of_target))
            assert_allclose(found[f"{region}_error"], error, atol=room)
    assert len(table) == 5 * len(np.unique(targets))
    for _, of_class in table.groupby("target"):
        by_rank = of_class.sort_values("background_rank")
        assert by_rank["background_rank"].tolist() == [1, 2, 3, 4, 5]
        assert by_rank["far_logit"].is_monotonic_decreasing


def test_samples_without_vectors_do_not_count() -> None:
    rows = rows_of([[1, 1, 1], [9, 9, 9], [5, 5, 5], [2, 2, 2]], [0, 0, None, 1])
    rows.loc[1, "channel_logits"] = None
    rows.loc[1, "channel_logits_scale"] = np.nan
    table = summarise_channels(rows, ["a", "b", "c"]).to_pandas()
    assert table["target"].tolist() == [0, 1], "no row for a class that nothing is explained as"
    assert table["n"].tolist() == [1, 1]
    assert table["object_logit"].tolist() == [1, 2]
    assert table["far_error"].isna().all(), "one sample has no error"
    assert table["lean"].tolist() == pytest.approx([2 / 3, 2 / 3])


@pytest.mark.parametrize("empty", ["no column", "no row", "all null"])
def test_without_vectors_the_table_is_empty(empty: str) -> None:
    rows = rows_of([[1, 1, 1]], [0])
    if empty == "no column":
        rows = rows[["target"]]
    elif empty == "no row":
        rows = rows.iloc[:0]
    else:
        rows["channel_logits"] = None
    table = summarise_channels(rows, ["a"])
    assert table.num_rows == 0
    assert table.column_names == [column.name for column in CHANNEL_COLUMNS]


def test_silent_samples_are_zeros() -> None:
    rows = rows_of([[0, 0, 0], [0, 0, 0]], [0, 0])
    table = summarise_channels(rows, ["a"]).to_pandas()
    assert table["far_logit"].tolist() == [0]
    assert table["far_positive"].tolist() == [0]


def test_a_large_table_keeps_the_strongest_channels_of_each_class() -> None:
    rng = np.random.default_rng(1)
    channels, classes = 200, 3
    vectors = rng.normal(size=(30, 3 * channels))
    rows = rows_of(vectors, [n % classes for n in range(30)])
    names = ["a", "b", "c"]
    whole = summarise_channels(rows, names, most_rows=channels * classes).to_pandas()
    assert len(whole) == channels * classes
    table = summarise_channels(rows, names, most_rows=channels * classes - 1).to_pandas()
    for target, kept in table.groupby("target"):
        of_class = whole[whole["target"] == target]
        wanted = {
            channel
            for column in ("far_logit", "object_logit")
            for channel in of_class.loc[
                of_class[column].abs().sort_values(ascending=False).index[:STRONGEST], "channel"
            ]
        }
        assert set(kept["channel"]) == wanted
        # What is kept is as in the whole table: ranks are among all channels.
        same = of_class.set_index("channel").loc[kept["channel"]]
        assert (same["background_rank"].to_numpy() == kept["background_rank"].to_numpy()).all()
    assert MOST_ROWS == 1_000_000


def test_a_thousand_classes() -> None:
    rng = np.random.default_rng(2)
    rows = rows_of(rng.normal(size=(3000, 12)), (np.arange(3000) % 1000).tolist())
    table = summarise_channels(rows, [f"c{n}" for n in range(1000)]).to_pandas()
    assert len(table) == 4000
    assert (table["n"] == 3).all()
    assert table["target_name"].iloc[-1] == "c999"


def test_vectors_come_back_at_their_scale() -> None:
    vectors = np.array([[1e-6, -5e-7], [2e5, 1e5]])
    stored, scale = scaled(vectors)
    frame = pd.DataFrame({"v": list(stored), "v_scale": scale})
    place, found = unpack(frame, "v", np.array([True, True]))
    assert place.tolist() == [0, 1]
    assert_allclose(found, vectors, rtol=1e-3)
    place, found = unpack(frame, "v", np.array([False, True]))
    assert place.tolist() == [1]
    assert_allclose(found, vectors[1:], rtol=1e-3)


def test_classes_are_found_whatever_their_order() -> None:
    rows = rows_of([[1, 0, 0], [2, 0, 0], [3, 0, 0]], [2, 0, 2])
    evidence = read_channels(rows, np.ones(3, bool))
    found = {target: members.tolist() for target, members in evidence.of_classes()}
    assert found == {0: [1], 2: [0, 2]}


def test_lean_is_bounded() -> None:
    rng = np.random.default_rng(3)
    values = lean(*rng.normal(size=(3, 1000)))
    assert abs(values).max() <= 1
    ends = lean(np.zeros(2), np.array([1.0, -1.0]), np.array([2.0, -0.5]))
    assert ends.tolist() == [1, -1]
