"""How many images at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audit.errors import OutputError
from audit.inference.batching import LARGEST, Measured, best_batch_size, plain_batch_size
from audit.run.plan import BATCH, settle_batch_size
from audit.storage import open_storage


def a_device(*, fixed: float, each: float, bytes_each: int, memory: int = 2**60):  # type: ignore[no-untyped-def]
    tried: list[int] = []

    def measure(size: int) -> Measured:
        tried.append(size)
        if size * bytes_each > memory:
            raise torch.OutOfMemoryError
        return Measured(seconds=fixed + each * size, bytes=size * bytes_each)

    return measure, tried


def test_it_doubles_until_more_gains_less_than_a_twentieth() -> None:
    # From n to 2n throughput grows by n/(n + 1000·…): 1,000 fixed against 1 each.
    measure, tried = a_device(fixed=1000, each=1, bytes_each=1)
    gains = {n: (2 * n / (1000 + 2 * n)) / (n / (1000 + n)) for n in (8 * 2**k for k in range(12))}
    found = best_batch_size(measure, bound=2**60)
    assert found == next(n for n, gain in gains.items() if gain < 1.05)
    assert tried == [8 * 2**k for k in range(len(tried))] and tried[-1] == 2 * found


@pytest.mark.parametrize(
    ("bytes_each", "memory", "bound", "best"),
    [
        (10, 2**60, 700, 64),
        (10, 700, 2**60, 64),
        (10, 50, 2**60, 4),
        (10, 2**60, 25, 2),
        (10, 5, 2**60, 1),
        (0, 2**60, 2**60, LARGEST),
    ],
)
def test_memory_ends_it(bytes_each: int, memory: int, bound: int, best: int) -> None:
    measure, _ = a_device(fixed=1e9, each=1, bytes_each=bytes_each, memory=memory)
    assert best_batch_size(measure, bound) == best


def test_on_a_cpu_a_formula_decides() -> None:
    sides = (32, 64, 65, 96, 224, 299, 512, 4096)
    assert [plain_batch_size((s, s)) for s in sides] == [512, 512, 256, 128, 32, 16, 8, 1]


def test_the_first_process_of_a_run_decides(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    assert settle_batch_size(storage, lambda: 64) == 64
    assert settle_batch_size(storage, lambda: 128) == 64
    (tmp_path / BATCH).write_text("{}")
    with pytest.raises(OutputError, match="batch size"):
        settle_batch_size(storage, lambda: 64)


def test_the_probe_runs_the_real_step(demo_step) -> None:  # type: ignore[no-untyped-def]
    import time

    from audit.work import _step_over

    sizes: list[int] = []

    def measure(size: int) -> Measured:
        started = time.perf_counter()
        _step_over(demo_step, size)
        sizes.append(size)
        return Measured(seconds=time.perf_counter() - started, bytes=size)

    assert best_batch_size(measure, bound=16) in (8, 16)
    assert sizes[0] == 8
