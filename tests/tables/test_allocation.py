"""Which samples are edited: within budget, stratified, repeatable."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from audit.tables.allocation import (
    ENOUGH,
    LEAST_IN_ALL,
    MOST_A_CLASS,
    choose_bank,
    choose_edited,
    feature_space_rates,
)


def rows(sizes: list[int], rates: list[float]) -> pd.DataFrame:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(0).permutation(len(labels))
    return pd.DataFrame(
        {
            "index": np.arange(len(labels)),
            "label": pd.array(labels[order], "Int32"),
            "status": "ok",
            "transplant_rate": np.asarray(rates)[labels[order]],
        }
    )


def counts(samples: pd.DataFrame, chosen: np.ndarray, classes: int) -> list[int]:
    labels = samples.set_index("index").loc[chosen, "label"].to_numpy(np.int64)
    return np.bincount(labels, minlength=classes).tolist()


def test_a_large_split_gets_a_bounded_share_with_most_where_feature_space_is_high() -> None:
    samples = rows([500] * 20, [0.1] * 18 + [0.6, 0.9])
    chosen = choose_edited(samples, "auto", 0)
    assert len(chosen) == LEAST_IN_ALL == len(set(chosen))
    found = counts(samples, chosen, 20)
    assert min(found) == ENOUGH
    assert found[18] == found[19] == MOST_A_CLASS == max(found)


def test_many_classes_get_what_a_verdict_needs() -> None:
    samples = rows([100] * 100, list(np.linspace(0, 1, 100)))
    found = counts(samples, choose_edited(samples, "auto", 0), 100)
    assert sum(found) == 100 * ENOUGH and min(found) == max(found) == ENOUGH
    crowd = rows([10] * 1000, list(np.linspace(0, 1, 1000)))
    found = counts(crowd, choose_edited(crowd, "auto", 0), 1000)
    assert sum(found) == 5000 and found[500:] == [10] * 500


def test_a_small_budget_goes_to_whole_classes() -> None:
    samples = rows([90] * 10, [0.1] * 8 + [0.9, 0.8])
    assert counts(samples, choose_edited(samples, 50, 0), 10)[8:] == [ENOUGH, ENOUGH]


def test_a_small_split_is_edited_whole_up_to_the_bound_a_class() -> None:
    samples = rows([30, 150, 7], [0.1, 0.2, 0.3])
    assert counts(samples, choose_edited(samples, "auto", 0), 3) == [30, MOST_A_CLASS, 7]
    assert counts(samples, choose_edited(samples, "all", 0), 3) == [30, 150, 7]
    assert len(choose_edited(samples, "none", 0)) == 0


@pytest.mark.parametrize("budget", [1, 7, 60, 150, 10_000])
def test_a_number_is_a_budget(budget: int) -> None:
    samples = rows([50, 60, 70], [0.1, 0.9, 0.2])
    chosen = choose_edited(samples, budget, 0)
    assert len(chosen) == min(budget, 180)
    found = counts(samples, chosen, 3)
    assert found[1] == max(found) or found[1] == 60


def test_more_classes_than_budget_serve_the_highest() -> None:
    samples = rows([3] * 50, list(np.linspace(0, 1, 50)))
    found = counts(samples, choose_edited(samples, 10, 0), 50)
    assert sum(found) == 10 and found[:40] == [0] * 40


def test_only_what_can_be_edited() -> None:
    samples = rows([20, 20], [0.1, 0.2])
    samples.loc[:4, "status"] = "empty_mask"
    samples.loc[5:9, "label"] = pd.NA
    assert choose_edited(samples, "all", 0).tolist() == list(range(10, 40))
    samples["status"] = "unreadable"
    assert len(choose_edited(samples, "auto", 0)) == 0


def test_the_choice_repeats_and_follows_the_seed() -> None:
    samples = rows([500] * 4, [0.1, 0.2, 0.3, 0.4])
    first, again, other = (choose_edited(samples, 100, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    shuffled = samples.sample(frac=1, random_state=1).sort_values("index")
    assert np.array_equal(first, choose_edited(shuffled, 100, 0))


def test_rates_take_the_highest_family() -> None:
    samples = rows([2, 2], [0.1, 0.2]).assign(ellipse_transplant_rate=0.15, kappa=9.0)
    assert feature_space_rates(samples).tolist() == pytest.approx([0.15, 0.2])


def test_the_bank_has_so_many_of_each_class() -> None:
    samples = rows([40, 5, 60], [0.1] * 3)
    assert counts(samples, choose_bank(samples, 16, 0), 3) == [16, 5, 16]
