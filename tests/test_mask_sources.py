"""Every source of masks, audited from files to the stored pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from audit import run_audit
from audit.data.split import Batch
from audit.errors import TooManyBadSamples
from audit.report.summary import summarise
from audit.report.thumbs import UNKNOWN
from audit.tables import AuditRun
from tests.data.making import (
    boxes_coco,
    boxes_csv,
    boxes_voc,
    coco_folder,
    encoded,
    filled,
    manifest,
    painted_folder,
    parquet_with_masks,
    pet_folder,
    voc_folder,
    write,
)

SIDE = 32


class Network(torch.nn.Module):
    """Sees where something is red, whatever its weights were drawn from."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool2d(4)
        )
        self.head = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, classes)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


def audit(out: Path, classes: int, **settings: Any) -> AuditRun:
    return run_audit(
        network=Network(classes).eval(),
        image_size=(SIDE, SIDE),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        out=out,
        grids=False,
        **settings,
    )


def a_manifest(root: Path) -> dict[str, Any]:
    return {"dataset": f"manifest:{manifest(root / 'all.csv')}"}


def a_coco(root: Path) -> dict[str, Any]:
    return {"dataset": "coco", "data_root": coco_folder(root), "split": "val", "max_bad": 0.5}


def a_voc(root: Path) -> dict[str, Any]:
    voc_folder(root)
    return {"dataset": "voc", "data_root": root, "split": "val", "max_bad": 0.5}


def some_pets(root: Path) -> dict[str, Any]:
    pet_folder(root)
    return {"dataset": "oxford-iiit-pet", "data_root": root}


def a_folder(root: Path) -> dict[str, Any]:
    painted_folder(root, masks="{stem}_mask.png")
    return {"dataset": f"folder:{root / 'images'}", "mask_root": root / "masks"}


def a_parquet(root: Path) -> dict[str, Any]:
    parquet_with_masks(root / "pets-0.parquet")
    return {"dataset": f"parquet:{root}/*.parquet", "max_bad": 1.0}


def boxed(make: Callable[[Path], Path], name: str) -> Callable[[Path], dict[str, Any]]:
    def source(root: Path) -> dict[str, Any]:
        painted_folder(root)
        return {"dataset": f"folder:{root / 'images'}", "boxes": make(root / name)}

    return source


SOURCES: dict[str, tuple[Callable[[Path], dict[str, Any]], int, str, dict[str, int]]] = {
    "pets": (some_pets, 2, "dataset", {"ok": 3}),
    "voc": (a_voc, 20, "dataset", {"ok": 1, "empty_mask": 1}),
    "coco": (a_coco, 2, "dataset", {"ok": 2, "unreadable": 1}),
    "folder": (a_folder, 2, "dataset", {"ok": 2}),
    "parquet": (
        a_parquet,
        2,
        "dataset",
        {"ok": 2, "mask_missing": 1, "mask_unreadable": 1, "mask_mismatch": 1},
    ),
    "manifest": (a_manifest, 2, "dataset", {"ok": 2}),
    "boxes in CSV": (boxed(boxes_csv, "boxes.csv"), 2, "box", {"ok": 2}),
    "boxes in COCO JSON": (boxed(boxes_coco, "boxes.json"), 2, "box", {"ok": 2}),
    "boxes in VOC XML": (boxed(boxes_voc, "boxes"), 2, "box", {"ok": 2}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_audited_end_to_end(name: str, tmp_path: Path) -> None:
    source, classes, kind, statuses = SOURCES[name]
    run = audit(tmp_path / "out", classes, **source(tmp_path))
    samples = run.samples
    assert Counter(samples["status"]) == statuses
    scored = samples[samples["status"] == "ok"]
    assert set(scored["mask_source"]) == {kind}
    assert scored["background_share"].between(0, 1).all()
    assert (samples["problem"].isna() == (samples["status"] == "ok")).all()
    thumbs = pd.read_parquet(run.path / "thumbs.parquet")
    # A wrong but confident answer is shown whether or not its image has a mask.
    for _, thumb in thumbs[thumbs["sample_id"].isin(scored["sample_id"])].iterrows():
        picture = cv2.imdecode(np.frombuffer(thumb["image"], np.uint8), cv2.IMREAD_COLOR)
        mask = cv2.imdecode(np.frombuffer(thumb["mask"], np.uint8), cv2.IMREAD_GRAYSCALE)
        red, green = picture[..., 2] > 127, picture[..., 1] > 127
        if kind == "box":  # likely object in the middle of the box, and nothing beyond it
            assert (mask == 255).sum() > 0.4 * red.sum()
            assert not (mask == 255)[~red].any()
        else:
            assert ((mask == 255) == red).mean() > 0.99
            assert ((mask == UNKNOWN) == green).mean() > 0.97
    if (samples["unknown_area"] > 0).any():
        parts = ["object", "near", "far", "unknown", "bias", "residual"]
        total = scored[[f"{part}_logit" for part in parts]].sum(axis=1)
        np.testing.assert_allclose(total, scored["target_logit"], atol=1e-4)


def test_masks_that_do_not_fit_fail_the_run_and_name_both_files(tmp_path: Path) -> None:
    settings = a_folder(tmp_path)
    for file in (tmp_path / "masks").rglob("*.png"):
        Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file)
    with pytest.raises(TooManyBadSamples) as caught:
        audit(tmp_path / "out", 2, **settings)
    for words in ("2 mask_mismatch", "p0.png", "p0_mask.png", "80", "48"):
        assert words in str(caught.value)


def test_masks_of_other_images_are_called_out_on_the_page(tmp_path: Path) -> None:
    """Flipped masks have the right size; only the images' edges tell."""
    rng = np.random.default_rng(0)
    for n in range(60):
        top, left = (int(v) for v in rng.integers(2, 10, 2))
        inside = filled((top, left, top + 12, left + 16), size=(SIDE, SIDE))
        noise = rng.integers(0, 60, (SIDE, SIDE, 3))
        picture = (noise + inside[..., None] * np.array([150, 90, 20])).astype(np.uint8)
        write(tmp_path / "images" / "ab"[n % 2] / f"{n}.png", encoded(Image.fromarray(picture)))
        write(
            tmp_path / "masks" / "ab"[n % 2] / f"{n}.png",
            encoded(Image.fromarray(inside[:, ::-1].copy())),
        )
    run = audit(
        tmp_path / "out", 2, dataset=f"folder:{tmp_path / 'images'}", mask_root=tmp_path / "masks"
    )
    assert run.manifest["mask_check"]["placement"] == "flipped left to right"
    page = (run.path / "index.html").read_text()
    assert "Look at the object masks first" in page
    assert "flipped left to right" in page
    said = summarise(run, seconds=1.0)
    assert "WARNING: the object masks would fit their images better flipped left to right" in said


def test_many_bad_masks_are_rows_and_never_a_crash(tmp_path: Path) -> None:
    inside = filled((8, 8, 24, 24), size=(SIDE, SIDE))
    grey = inside.astype(np.uint8)
    alpha = np.stack([grey * 0, grey * 0, grey * 0, grey * 255], axis=2)
    several = grey + np.eye(SIDE, dtype=np.uint8)
    not_a_number = np.where(inside, np.nan, 0).astype(np.float32)
    masks: dict[str, tuple[bytes | None, str]] = {
        "good": (encoded(Image.fromarray(grey * 255)), "ok"),
        "one": (encoded(Image.fromarray(grey)), "ok"),
        "sixteen-bit": (encoded(Image.fromarray(grey.astype(np.uint16) * 65535)), "ok"),
        "alpha": (encoded(Image.fromarray(alpha)), "ok"),
        "palette": (encoded(Image.fromarray(grey * 3).convert("P")), "ok"),
        "all-zero": (encoded(Image.fromarray(grey * 0)), "empty_mask"),
        "all-one": (encoded(Image.fromarray(grey * 0 + 255)), "full_mask"),
        "classes": (encoded(Image.fromarray(several)), "mask_unreadable"),
        "nan": (encoded(Image.fromarray(not_a_number), "TIFF"), "mask_unreadable"),
        "cut-off": (encoded(Image.fromarray(grey * 255))[:60], "mask_unreadable"),
        "half": (encoded(Image.fromarray(grey[::2, ::2] * 255)), "mask_mismatch"),
        "absent": (None, "mask_missing"),
    }  # fmt: skip
    for name, (data, _) in masks.items():
        write(tmp_path / "images" / "a" / f"{name}.png", encoded(Image.fromarray(grey * 200)))
        if data is not None:
            write(tmp_path / "masks" / "a" / f"{name}.{'tif' if name == 'nan' else 'png'}", data)
    (tmp_path / "images" / "b").mkdir()
    run = audit(
        tmp_path / "out",
        2,
        dataset=f"folder:{tmp_path / 'images'}",
        mask_root=tmp_path / "masks",
        max_bad=1.0,
    )
    found = dict(zip(run.samples["sample_id"], run.samples["status"], strict=True))
    assert found == {f"a/{name}.png": status for name, (_, status) in masks.items()}
    troubled = run.samples[run.samples["problem"].notna()]
    for name in ("classes", "nan", "cut-off", "half", "absent"):
        (text,) = troubled.loc[troubled["sample_id"] == f"a/{name}.png", "problem"]
        assert name in text
    areas = run.samples.loc[run.samples["status"] == "ok", "object_area"]
    np.testing.assert_allclose(areas, 0.25)


def test_a_batch_without_words_has_an_empty_problem_for_each_sample() -> None:
    batch = Batch(
        index=torch.arange(2),
        sample_id=["a", "b"],
        images=torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
        labels=torch.zeros(2).long(),
        object_mask=None,
        status=["ok", "ok"],
    )
    assert batch.problem == ["", ""]


def test_a_datasets_bad_mask_does_not_matter_under_other_masks(tmp_path: Path) -> None:
    settings = a_folder(tmp_path)
    (absent,) = (tmp_path / "masks" / "a").iterdir()
    absent.unlink()
    run = audit(tmp_path / "out", 2, **settings, masks=("estimated", "dataset"))
    first, second = (run.samples.iloc[n] for n in range(2))
    assert (first["status"], second["status"]) == ("ok", "ok")
    assert "p0.png" in first["problem"]
    assert first["background_share"] >= 0
    under_dataset = run.samples.filter(like="dataset_")
    assert under_dataset.iloc[0].isna().all()
    # The only donor of another class has no mask of this family: nothing to transplant.
    transplants = under_dataset.filter(like="transplant")
    assert transplants.iloc[1].isna().all()
    assert under_dataset.drop(columns=transplants.columns).iloc[1].notna().all()
    assert run.masks.set_index("family").loc["dataset", "n"] == 1


def test_unknown_pixels_count_on_no_side_under_a_second_family_either(tmp_path: Path) -> None:
    settings = some_pets(tmp_path)
    as_main = audit(tmp_path / "one", 2, **settings, masks=("dataset", "ellipse")).samples
    beside = audit(tmp_path / "two", 2, **settings, masks=("ellipse", "dataset")).samples
    assert (as_main["unknown_area"] > 0).all()
    for score in ("object_area", "background_share", "kappa", "object_logit", "far_logit"):
        np.testing.assert_allclose(
            beside[f"dataset_{score}"], as_main[score], rtol=1e-4, atol=1e-5, err_msg=score
        )
    # Overlap over the pixels that both know, whichever is the main one.
    np.testing.assert_allclose(beside["dataset_mask_iou"], as_main["ellipse_mask_iou"], atol=1e-6)
