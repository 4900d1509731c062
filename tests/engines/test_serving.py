"""What a process does that serves another one, here without a process."""

from __future__ import annotations

import pickle
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from audit.config import AuditConfig
from audit.engines.cluster import require_cluster
from audit.engines.messages import Counted, Done, Failed, Message, Order, Ready, Refused
from audit.engines.serving import serve
from audit.errors import AuditError
from audit.inputs import open_inputs
from audit.run.plan import settle_plan
from audit.run.store import Shard
from audit.stopping import Stopping
from audit.work import shards_of
from tests.engines.conftest import run_in
from tests.engines.running import BATCH, SETTINGS, SHARD, parts, poison

Fault = Callable[[str], object]


class Script:
    """Gives parts in the order written, and keeps what is told."""

    def __init__(self, *lots: Sequence[Shard]) -> None:
        self._lots = list(lots)
        self.told: list[Message] = []

    def receive(self) -> Sequence[Shard]:
        return self._lots.pop(0) if self._lots else ()

    def send(self, message: Message) -> None:
        self.told.append(message)


def order_of(
    out: Path, *, settled: bool = True, model: str = SETTINGS["model"]
) -> tuple[Order, list[Shard]]:
    config = AuditConfig(out=out, **{**SETTINGS, "model": model})
    opened = open_inputs(config)
    if settled:
        settle_plan(opened.storage, opened.plan)
    order = Order(
        config=config,
        plan=opened.plan,
        rank="",
        threads=torch.get_num_threads(),
        folder=str(Path.cwd()),
        paths=tuple(sys.path),
    )
    return order, shards_of(opened)


def test_parts_are_counted_and_committed(undisturbed: Path, tmp_path: Path) -> None:
    order, shards = order_of(tmp_path)
    script = Script([shards[2]], shards[3:5])
    serve(order, script, Stopping(0))
    assert script.told[0] == Ready()
    assert sum(m.samples for m in script.told if isinstance(m, Counted)) == 3 * SHARD
    assert max(m.samples for m in script.told if isinstance(m, Counted)) == BATCH
    assert sum(isinstance(m, Done) for m in script.told) == 3
    expected = parts(undisturbed)
    made = parts(run_in(tmp_path))
    assert made == {name: expected[name] for name in sorted(expected)[2:5]}


def test_where_the_run_is_not_seen_nothing_is_written(place: Path, tmp_path: Path) -> None:
    order, shards = order_of(tmp_path, settled=False)
    script = Script(shards)
    serve(order, script, Stopping(0))
    (refused,) = script.told
    assert isinstance(refused, Refused)
    assert "does not see the run in" in str(refused.error)
    assert parts(run_in(tmp_path)) == {}


def test_other_data_or_code_is_refused(place: Path, tmp_path: Path) -> None:
    order, shards = order_of(tmp_path)
    facets = {**order.plan.facets, "code": "another"}
    other = replace(order, plan=replace(order.plan, fingerprint="another", facets=facets))
    script = Script(shards)
    serve(other, script, Stopping(0))
    (refused,) = script.told
    assert isinstance(refused, Refused)
    assert refused.error.exit_code == 2
    assert str(refused.error.found).startswith("code: another there, ")
    assert parts(run_in(tmp_path)) == {}


def test_an_exception_is_told_in_a_line(place: Path, tmp_path: Path, fault: Fault) -> None:
    order, shards = order_of(tmp_path)
    sample = poison()
    fault(f"raise {sample}")
    script = Script([shards[sample // SHARD]], [shards[0]])
    serve(order, script, Stopping(0))
    last = script.told[-1]
    assert isinstance(last, Failed)
    assert last.how.startswith("RuntimeError: a picture of a unicorn, at faulty.py:")
    # Its state is unknown, so it computed nothing after that.
    assert parts(run_in(tmp_path)) == {}


def test_a_network_that_fails_is_refused_and_not_tried_again(place: Path, tmp_path: Path) -> None:
    order, shards = order_of(tmp_path, model="faulty:Picky")
    script = Script(shards)
    serve(order, script, Stopping(0))
    (refused,) = script.told
    assert isinstance(refused, Refused)
    error = pickle.loads(pickle.dumps(refused)).error
    assert type(error) is AuditError
    assert error.problem == f"the model 'faulty-Picky' fails on a batch of {BATCH} images"
    assert error.found.startswith("ValueError: ten are one too many, at faulty.py:")


def test_an_end_that_is_wished_for_comes_after_the_part(place: Path, tmp_path: Path) -> None:
    order, shards = order_of(tmp_path)
    stopping = Stopping(60)
    script = Script(shards)
    ask = script.send

    def send(message: Message) -> None:
        ask(message)
        if message == Counted(BATCH):
            stopping.ask()

    script.send = send  # type: ignore[method-assign]
    serve(order, script, stopping)
    assert list(parts(run_in(tmp_path))) == ["part-000000.parquet"]


def test_an_address_at_which_nothing_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        require_cluster(f"127.0.0.1:{port}")
    with pytest.raises(AuditError, match="no Ray cluster answers at") as caught:
        require_cluster(f"127.0.0.1:{port}")
    assert caught.value.exit_code == 1
    for left_to_ray in (None, "", "auto", "ray://head:10001"):
        require_cluster(left_to_ray)
