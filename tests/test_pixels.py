"""The second look at a real run: who is found, what is kept, and that batches do not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from audit import merge_run, run_audit
from audit.errors import UsageError
from audit.explaining import Explainer
from audit.models import build, cut
from audit.run.edit_rows import edit_columns
from audit.score.edits import EditBank
from audit.score.masks import Family, Masks
from audit.step.edits import EditStep, passes
from audit.tables import AuditRun

LIMIT = 240


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AuditRun:
    return run_audit(dataset="demo", grids=False, limit=LIMIT, out=tmp_path_factory.mktemp("edits"))


def predictions(edits: pd.DataFrame) -> dict[str, np.ndarray]:
    return {
        name: np.stack(list(edits[name])) for name in edits if str(name).endswith("_predictions")
    }


def test_the_known_answer_is_found_in_pixels(run: AuditRun) -> None:
    classes = run.classes.set_index("label_name")
    relying = classes.index[classes["verdict"] == "relies on background"].tolist()
    assert relying == run.manifest["known_answer"]["planted_classes"]
    for name, row in classes.iterrows():
        assert f"'{name}'" in row["verdict_text"]
    assert run.manifest["totals"]["verdicts"]["relies on background"] == relying
    assert run.manifest["totals"]["trust"]["rank_correlation_low"] > 0.5


def test_edits_join_the_samples(run: AuditRun) -> None:
    edits = run.edits
    assert list(edits.columns) == [column.name for column in edit_columns()]
    joined = edits.merge(run.samples, on="sample_id", suffixes=("", "_row"))
    assert len(joined) == len(edits) == (run.samples["status"] == "ok").sum()
    for name in ("index", "label", "predicted"):
        assert (joined[name] == joined[f"{name}_row"]).all()
    objects = np.stack(list(edits["transplant_objects"]))
    assert (objects != edits["label"].to_numpy()[:, None]).all()
    for values in predictions(edits).values():
        assert values.min() >= -1 and values.max() < 10
    for probed in ("object_only", "background_only", "mixed_same", "mixed_rand"):
        low, mean, high = (edits[f"p_{probed}{end}"] for end in ("_low", "", "_high"))
        assert ((low <= mean + 1e-6) & (mean <= high + 1e-6)).all()


@pytest.mark.parametrize("setting", [{"batch_size": 37}, {"shard_size": 50}])
def test_edits_do_not_depend_on_batches_or_shards(
    run: AuditRun, tmp_path: Path, setting: dict[str, int]
) -> None:
    other = run_audit(dataset="demo", grids=False, limit=LIMIT, out=tmp_path, **setting).edits
    assert (other["sample_id"] == run.edits["sample_id"]).all()
    for name, values in predictions(run.edits).items():
        # A tie between two classes may fall either way in the last digit.
        assert (values != predictions(other)[name]).mean() < 1e-3, name
    for name in ("p_object_only", "p_mixed_rand"):
        assert np.allclose(other[name], run.edits[name], atol=1e-4)


def test_other_edits_keep_the_parts_and_replace_the_edits(run: AuditRun, tmp_path: Path) -> None:
    first = run_audit(dataset="demo", grids=False, limit=60, out=tmp_path, edits=40)
    part = first.path / "samples" / "part-000000.parquet"
    written = part.stat().st_mtime_ns
    assert len(first.edits) == 40
    second = run_audit(dataset="demo", grids=False, limit=60, out=tmp_path, edits="all")
    assert second.path == first.path and part.stat().st_mtime_ns == written
    assert len(second.edits) == 60
    same = run_audit(dataset="demo", grids=False, limit=60, out=tmp_path, edits="none")
    assert len(same.edits) == 60, "what is there is not thrown away"
    none = run_audit(dataset="demo", grids=False, limit=60, out=tmp_path / "none", edits="none")
    assert set(none.classes["verdict"]) == {"too few samples"}
    with pytest.raises(UsageError, match="no edits"):
        _ = none.edits


def test_edits_that_are_kept_or_replaced_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def notes(edits: str | int) -> list[str]:
        run_audit(dataset="demo", grids=False, limit=40, out=tmp_path, edits=edits, run="here")
        return [line for line in capsys.readouterr().err.splitlines() if "note: pixel" in line]

    assert notes(30) == notes(30) == []
    (kept,) = notes("none")
    assert kept.startswith("note: pixel edits of an earlier run are kept: 30 images (")
    assert notes(20) == ["note: pixel edits of 30 images are replaced by those of 20: --edits 20"]
    (place,) = tmp_path.glob("demo/cnn/here")
    merge_run(place, edits="none")
    assert "note: pixel edits of an earlier run are kept: 20 images" in capsys.readouterr().err
    # Of a run that was ended before its manifest was written.
    (place / "manifest.json").unlink()
    assert notes("none") == ["note: pixel edits of 20 images are removed: --edits none"]
    assert notes("none") == []


def test_parts_of_edits_that_are_whole_are_kept(tmp_path: Path) -> None:
    first = run_audit(dataset="demo", grids=False, limit=300, out=tmp_path, edits="all")
    before = first.edits
    kept, lost = (first.path / "edits" / f"part-{n:06d}.parquet" for n in (0, 1))
    written = kept.stat().st_mtime_ns
    lost.write_bytes(lost.read_bytes()[:-10])
    again = run_audit(dataset="demo", grids=False, limit=300, out=tmp_path, edits="all")
    assert kept.stat().st_mtime_ns == written
    pd.testing.assert_frame_equal(again.edits, before)


def test_every_family_is_edited(tmp_path: Path) -> None:
    found = run_audit(
        dataset="demo",
        grids=False,
        limit=60,
        masks="dataset,estimated,ellipse",
        out=tmp_path,
        edits=30,
    )
    assert len(found.edits) == 30
    assert {"estimated_transplant_predictions", "ellipse_transplant_predictions"} <= set(
        found.edits.columns
    )
    assert found.classes["verdict"].notna().all()


def _step(labels: torch.Tensor, masks: Masks) -> tuple[EditStep, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(labels), 3, 32, 32), generator=generator).to(torch.uint8)
    explainer = Explainer(
        cut(build("cnn", 4).eval(), (32, 32)), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
    )
    bank = EditBank.of(
        torch.arange(len(labels)), images, masks, labels,
        mean=explainer.mean, num_classes=4, seed=0,
    )  # fmt: skip
    return EditStep(explainer, bank), images


def _boxes(count: int) -> torch.Tensor:
    mask = torch.zeros(count, 32, 32)
    mask[:, 8:24, 8:24] = 1
    return mask


def test_unusable_masks_give_no_numbers() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])
    mask = _boxes(5)
    mask[0], mask[1] = 0, 1
    valid = torch.tensor([True, True, False, True, True])
    masks = Masks(main=mask, others={"x": Family(mask=_boxes(5), valid=valid)})
    step, images = _step(labels, masks)
    found = step(images, labels, masks, torch.arange(5))
    for name in ("transplant_predictions", "background_only_predictions", "mixed_rand_predictions"):
        assert (found[name][:2] == -1).all(), "one-sided masks"
    assert found["p_object_only"][:2].isnan().all() and found["p_object_only"][2:].isfinite().all()
    assert (found["noise_object_prediction"][:2] == -1).all()
    assert (found["x_transplant_predictions"][2] == -1).all(), "no mask of this family"
    # What the bank's third image would give to others does not count either.
    third = found["transplant_objects"][3] == -1
    assert not third.any()
    assert (found["x_transplant_predictions"][0] >= -1).all()


def test_one_class_alone_has_no_other_objects() -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    masks = Masks(main=_boxes(3))
    step, images = _step(labels, masks)
    found = step(images, labels, masks, torch.arange(3))
    assert (found["transplant_objects"] == -1).all()
    assert (found["transplant_predictions"] == -1).all()
    assert (found["mixed_rand_predictions"] == -1).all()
    assert (found["mixed_same_predictions"] >= 0).sum(dim=1).tolist() == [2, 2, 2], "two others"


def test_the_passes_that_are_said_are_the_passes_that_are_made() -> None:
    labels = torch.tensor([0, 1, 2])
    masks = Masks(main=_boxes(3), others={"x": Family(mask=_boxes(3))})
    step, images = _step(labels, masks)
    made = []
    handle = step.explainer.backbone.register_forward_hook(lambda *_: made.append(1))
    step(images, labels, masks, torch.arange(3))
    handle.remove()
    assert len(made) == passes(2)
