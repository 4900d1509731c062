from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audit import load_run, run_audit
from audit.errors import UsageError
from audit.tables.frames import join_samples


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(dataset="demo", limit=20, grids=False, out=tmp_path_factory.mktemp("run")).path


def copied(run: Path, folder: Path, seconds: int) -> Path:
    shutil.copytree(run, folder)
    os.utime(folder / "manifest.json", (seconds, seconds))
    return folder


def test_runs_of_benchmarks_are_nobodys(run: Path, tmp_path: Path) -> None:
    reports = tmp_path / "certify" / "reports"
    audited = copied(run, reports / "demo" / "cnn" / "a", 1000)
    planted = copied(run, reports / "certify" / "demo" / "cnn" / "b" / "runs" / "p" / "c", 2000)
    assert load_run(reports).path == audited
    # Asked for by name, or from inside, they open.
    assert load_run(planted).path == planted
    assert load_run(reports / "certify").path == planted
    assert load_run(planted.parents[1]).path == planted
    shutil.rmtree(audited)
    with pytest.raises(UsageError, match="no complete run") as caught:
        load_run(reports)
    assert "certify" in str(caught.value.expected)


def test_a_run_that_is_not_whole_says_what_is_wrong(run: Path, tmp_path: Path) -> None:
    def found() -> str | None:
        with pytest.raises(UsageError, match="is not whole") as caught:
            load_run(folder)
        return caught.value.found

    folder = copied(run, tmp_path / "run", 1000)
    table = folder / "classes.parquet"
    content = table.read_bytes()
    table.write_bytes(content[:-1] + b"?")
    assert found() == "classes.parquet holds something else than the manifest says"
    table.write_bytes(content[:-1])
    size = len(content)
    assert found() == f"classes.parquet has {size - 1:,} bytes, the manifest says {size:,}"
    table.write_bytes(content)
    (folder / "samples/part-000000.parquet").rename(tmp_path / "part")
    assert found() == "samples/part-000000.parquet is missing"
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text()[:300])
    assert found() == "manifest.json cannot be read: it is cut off or altered"


def test_columns_are_typed(run: Path) -> None:
    samples = load_run(run).samples
    for name in ("label", "predicted", "target", "alt_target", "object_pred", "background_pred"):
        assert samples[name].dtype == "Int32"
    for name in ("correct", "right_for_wrong_reason", "context_driven"):
        assert samples[name].dtype == "boolean"
    for name in ("status", "label_name", "predicted_name", "mask_source", "reason"):
        assert isinstance(samples[name].dtype, pd.CategoricalDtype)
    assert samples["background_share"].dtype == np.float32
    assert samples.index.equals(pd.RangeIndex(20))


def test_undefined_values_meet_no_condition(run: Path) -> None:
    samples = load_run(run).samples.copy()
    samples.loc[0, ["correct", "reason"]] = None
    samples.loc[1, ["correct", "reason"]] = [True, "background"]
    samples.loc[2, ["correct", "reason"]] = [None, "background"]
    samples.loc[3:, "correct"] = False
    found = samples.query("reason == 'background' and correct")
    assert found.index.tolist() == [1]
    assert samples.query("not correct").index.tolist() == list(range(3, 20))


def test_a_sample_s_row_holds_what_all_tables_say(run: Path) -> None:
    opened = load_run(run)
    sample_id = opened.samples["sample_id"].iloc[4]
    row = opened.sample(sample_id)
    assert row.name == sample_id
    assert row["index"] == opened.samples["index"].iloc[4]
    assert {"suspect_kind", "p_object_only", "background_decides"} <= set(row.index)
    with pytest.raises(UsageError, match="no sample 'nobody'") as caught:
        opened.sample("nobody")
    assert opened.samples["sample_id"].iloc[0] in str(caught.value.expected)


def samples_of(count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {"sample_id": [f"s{place}" for place in range(count)], "index": range(count)}
    )


def edits_of(labels: list[int], objects: list[list[int]], answers: list[list[int]]) -> pd.DataFrame:
    count = len(labels)
    shares = {
        f"p_{edit}": np.linspace(0.1, 0.9, count, dtype=np.float32)
        for edit in ("object_only", "background_only", "mixed_same", "mixed_rand")
    }
    return pd.DataFrame(
        {"sample_id": [f"s{place}" for place in range(count)], "label": labels,
         "transplant_objects": objects, "transplant_predictions": answers,
         "mixed_same_predictions": [[label] * 3 for label in labels], **shares}
    )  # fmt: skip


NO_SUSPECTS = pd.DataFrame(
    columns=["sample_id", "kind", "label_score", "suggested", "suggested_name",
             "suggested_probability"]
)  # fmt: skip


def test_edits_are_joined_by_hand() -> None:
    """Objects of class 2 on backgrounds of 0 follow it always, on backgrounds of 1 never."""
    edits = edits_of([0, 1, 0], [[2] * 6, [2] * 6, [2, 2, -1, -1, -1, -1]],
                     [[0] * 6, [2] * 6, [0, 0, -1, -1, -1, -1]])  # fmt: skip
    joined = join_samples(samples_of(4), NO_SUSPECTS, edits, classes=3)
    assert joined.index.tolist() == ["s0", "s1", "s2", "s3"]
    np.testing.assert_allclose(joined["edit_effect"].to_numpy(), [1.0, 0.0, np.nan, np.nan])
    assert joined["background_decides"].tolist() == [True, False, pd.NA, pd.NA]
    np.testing.assert_allclose(joined["p_object_only"].to_numpy(), [0.1, 0.5, 0.9, np.nan])


def test_suspects_are_joined_where_they_are_some() -> None:
    labels = pd.DataFrame(
        {"sample_id": ["s2"], "kind": ["likely label error"], "label_score": [0.01],
         "suggested": [1], "suggested_name": ["dog"], "suggested_probability": [0.98]}
    )  # fmt: skip
    joined = join_samples(samples_of(3), labels, None, classes=3)
    assert joined["suspect_kind"].isna().tolist() == [True, True, False]
    assert joined.loc["s2", "suggested_name"] == "dog"
    assert joined["background_decides"].isna().all()
    assert joined["background_decides"].dtype == "boolean"
    assert joined.query("background_decides").empty
