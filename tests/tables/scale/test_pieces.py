"""Histograms, sums by key and the buffer they are stored in."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from audit.errors import OutputError
from audit.tables.scale import sums
from audit.tables.scale.packing import pack, unpack_content
from audit.tables.scale.quantiles import (
    BINS,
    BOUNDED_ERROR,
    LARGEST,
    RELATIVE_ERROR,
    SMALLEST,
    bins_of,
    read_quantiles,
    values_of,
)

SHARES = np.array([0, 0.1, 0.5, 0.9, 1])


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_quantiles_of_bounded_scores(size: int) -> None:
    rng = np.random.default_rng(size)
    values = np.where(rng.random(size) < 0.2, rng.integers(0, 2, size), rng.random(size))
    counts = np.bincount(bins_of("background_share", values), minlength=BINS)
    found = read_quantiles("background_share", counts, SHARES)
    assert abs(found - np.quantile(values, SHARES)).max() <= BOUNDED_ERROR + 1e-12


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_quantiles_of_other_scores(size: int) -> None:
    rng = np.random.default_rng(size)
    values = rng.normal(0, 1, size) * 10.0 ** rng.integers(-2, 4, size)
    counts = np.bincount(bins_of("far_logit", values), minlength=BINS)
    order = np.sort(values)
    # Where a rank is hit exactly, the value is told to one part in a hundred.
    found = read_quantiles("far_logit", counts, np.arange(size) / max(size - 1, 1))
    assert (abs(found - order) <= RELATIVE_ERROR * abs(order) * 1.02 + SMALLEST).all()


def test_ends_of_the_histograms() -> None:
    values = values_of("kappa")
    assert (np.diff(values[np.isfinite(values)]) > 0).all()
    found = values[bins_of("kappa", np.array([0.0, 5e-4, -5e-4, 1e9, -1e9]))]
    assert found[:3].tolist() == [0, 0, 0]
    assert abs(found[3] / LARGEST - 1) < 0.05
    assert found[4] == -found[3]
    assert values_of("iou_50")[bins_of("iou_50", np.array([0.0, 1.0]))].tolist() == [0, 1]
    assert np.isnan(read_quantiles("kappa", np.zeros(BINS, np.int64), SHARES)).all()


def test_few_and_many_keys_add_up_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for _ in range(40):
        keys = np.unique(rng.integers(0, 500, 60))
        parts.append((keys, rng.integers(1, 9, (len(keys), 2)).astype(np.float64)))
    dense = sums.KeyedSums(500, 2)
    monkeypatch.setattr(sums, "_DENSE_BYTES", 0)
    monkeypatch.setattr(sums, "_WAITING", 100)
    sparse = sums.KeyedSums(500, 2)
    for keys, values in parts:
        dense.add(keys, values)
        sparse.add(keys, values)
    slow = np.zeros((500, 2))
    for keys, values in parts:
        for key, value in zip(keys, values, strict=True):
            slow[key] += value
    for one in (dense, sparse):
        assert (one.of(np.arange(500)) == slow).all()
        keys, values = one.found()
        assert keys.tolist() == np.flatnonzero(slow[:, 0]).tolist()
        assert (values == slow[keys]).all()


def test_nothing_added_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_DENSE_BYTES", 0)
    assert sums.KeyedSums(10, 3).of(np.arange(4)).tolist() == [[0, 0, 0]] * 4


def test_what_is_packed_comes_back() -> None:
    table = pa.table({"a": pa.array([1, None]), "b": pa.array([[1.5], None])})
    content = {
        "numbers": np.arange(6.0).reshape(2, 3),
        "none": np.zeros((0, 2), np.int64),
        "table": table,
        "facts": {"rows": 2},
    }
    found = unpack_content(pack(content))
    assert found["numbers"].tolist() == content["numbers"].tolist()
    assert found["none"].shape == (0, 2)
    assert found["table"].equals(table)
    assert found["facts"] == {"rows": 2}
    assert pack(content) == pack(content)


def test_other_bytes_are_refused() -> None:
    with pytest.raises(OutputError, match="cannot be read"):
        unpack_content(b"PAR1 and more")
    whole = pack({"facts": {"rows": 2}})
    with pytest.raises(OutputError, match="cannot be read"):
        unpack_content(whole[:-1])
