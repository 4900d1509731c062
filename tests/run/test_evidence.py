"""Long lists are held and stored for a share of the samples only."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from audit.config import load_config
from audit.inputs import open_inputs
from audit.run import engine
from audit.run.store import plan_shards
from audit.score.positions import is_kept
from audit.work import open_worker

LONG = ["channel_logits", "channel_logits_scale", "far_features", "far_features_scale"]


def rows_of(out: Path, shard_size: int = 16) -> pd.DataFrame:
    config = load_config(None, {"dataset": "demo", "limit": 40, "masks": "ellipse", "out": out})
    auditor = open_worker(open_inputs(config, None)).auditor
    shards = plan_shards(40, shard_size)
    tables = [rows.table()[0] for _, rows in auditor.run_shards(shards, lambda _: None)]
    return pd.concat([table.to_pandas() for table in tables], ignore_index=True)


def test_a_share_of_the_samples_keeps_its_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = rows_of(tmp_path)
    assert every[LONG].notna().all(axis=None)
    monkeypatch.setattr(engine, "EVIDENCE_BYTES", 0.25 * 40 * 128 * 8)
    some = rows_of(tmp_path)
    kept = is_kept(torch.arange(40), 0.25).numpy()
    assert 3 <= kept.sum() <= 20
    for name in LONG:
        assert some[name].notna().tolist() == kept.tolist(), name
        for one, other in zip(every[name][kept], some[name][kept], strict=True):
            assert (one == other) if name.endswith("_scale") else (one == other).all(), name
    pd.testing.assert_frame_equal(every.drop(columns=LONG), some.drop(columns=LONG))


def test_nothing_kept_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "EVIDENCE_BYTES", 0)
    assert rows_of(tmp_path, shard_size=40)[LONG].isna().all(axis=None)


def test_the_share_keeps_to_the_bound() -> None:
    for total, channels in ((1, 1), (10_000, 128), (50_000, 2048), (10**9, 4096)):
        share = engine.evidence_share(total, channels)
        assert 0 < share <= 1
        assert share * total * channels * 8 <= engine.EVIDENCE_BYTES * (1 + 1e-9)
    assert engine.evidence_share(0, 64) == 1
