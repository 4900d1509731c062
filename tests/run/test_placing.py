"""Columns from a device to the host in few transfers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audit.run import placing
from audit.run.placing import placed_ahead, to_host, unpacked


def _columns() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "bool": torch.tensor([True, False, True]),
        "half": torch.randn(3, 5, generator=generator).half(),
        "byte": torch.arange(3, dtype=torch.uint8),
        "long": torch.tensor([-1, 2**40, 3]),
        "float": torch.tensor([[1.5], [float("nan")], [-2.0]]),
        "double": torch.randn(3, 2, 2, generator=generator, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "turned": torch.arange(6, dtype=torch.int32).reshape(2, 3).T,
    }


@pytest.mark.parametrize("most", [1, 40, 2**20])
def test_tensors_come_back_as_they_were(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_PACK", most)
    columns = _columns()
    found = unpacked(columns)
    assert list(found) == list(columns)
    for name, values in columns.items():
        assert found[name].dtype == values.numpy().dtype
        np.testing.assert_array_equal(found[name], values.numpy())


def test_pieces_are_joined() -> None:
    pieces = {name: [values, values[:1]] for name, values in _columns().items()}
    for name, found in to_host(pieces).items():
        np.testing.assert_array_equal(found, torch.cat(pieces[name]).numpy())


def test_on_a_cpu_batches_are_placed_one_by_one() -> None:
    placed: list[object] = []

    def place(batch: object) -> object:
        placed.append(batch)
        return batch

    found = placed_ahead(iter("ab"), place, torch.device("cpu"))  # type: ignore[arg-type]  # any
    assert next(found) == "a"
    assert placed == ["a"]
