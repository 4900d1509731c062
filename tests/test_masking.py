from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from audit.config import AuditConfig
from audit.data import open_split
from audit.data.demo import open_demo
from audit.inputs import open_inputs, settle_geometry
from audit.masking import make_masks
from audit.masking.judging import roc_auc
from audit.masking.opening import open_masking
from tests.conftest import real_data

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty images of the demo as a folder, with a parallel folder of their true masks."""
    root = tmp_path_factory.mktemp("pictures")
    split = open_demo("test")
    batch = split.__getitems__(range(40))
    assert batch.object_mask is not None
    for row in range(40):
        label = split.classes[int(batch.labels[row])]
        for kind in ("images", "masks"):
            (root / kind / label).mkdir(parents=True, exist_ok=True)
        image = batch.images[row].permute(1, 2, 0).numpy()[..., ::-1]
        cv2.imwrite(str(root / "images" / label / f"{row:02d}.png"), image)
        mask = (batch.object_mask[row].numpy() * 255).astype(np.uint8)
        cv2.imwrite(str(root / "masks" / label / f"{row:02d}.png"), mask)
    return root


def test_what_it_tells(audit_here: Command, tmp_path: Path) -> None:
    flags = ("masks", "--dataset", "demo", "--limit", 60, "--out", tmp_path)
    first = audit_here(*flags)
    assert first.returncode == 0
    assert "demo, test: 60 images of 32×32 (size as in the dataset)" in first.stdout
    assert "estimated: 60 computed" in first.stdout
    assert "mean confidence 0." in first.stdout
    again = audit_here(*flags)
    assert "estimated: 0 computed" in again.stdout
    assert "60 found in the cache" in again.stdout
    (folder,) = (tmp_path / ".cache" / "masks").iterdir()
    assert str(folder) in again.stdout


def test_a_run_finds_the_masks(tmp_path: Path) -> None:
    config = AuditConfig(dataset="demo", limit=60, masks=("estimated",), out=tmp_path)
    make_masks(config)
    opened = open_inputs(config)
    assert opened.families.missing(0, 60) == 0


def test_a_run_on_another_geometry_finds_them_too(pictures: Path, tmp_path: Path) -> None:
    config = AuditConfig(
        dataset=f"folder:{pictures / 'images'}", masks=("estimated",), out=tmp_path,
        model="tests.test_masking:tiny", preprocessing="imagenet", image_size=(48, 40),
    )  # fmt: skip
    assert make_masks(config).title.endswith(
        "40 images of 48×40 (resized to 48×40 (bilinear), cropped to 48×40)"
    )
    opened = open_inputs(config)
    assert opened.families.missing(0, 40) == 0


def tiny(num_classes: int) -> torch.nn.Module:
    """A network of the user's."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, num_classes),
    )


def test_size_without_a_model(pictures: Path) -> None:
    demo = open_demo("test")
    assert settle_geometry(AuditConfig(dataset="demo"), demo) is None
    folder = AuditConfig(dataset=f"folder:{pictures / 'images'}")
    split = open_split(folder.dataset)
    usual = settle_geometry(folder, split)
    assert usual is not None
    assert usual.size == (224, 224)
    said = settle_geometry(folder.model_copy(update={"image_size": (64, 48)}), split)
    assert said is not None
    assert said.size == (64, 48)


def test_true_masks_of_the_dataset(tmp_path: Path) -> None:
    config = AuditConfig(
        dataset="demo", limit=80, masks=("estimated", "component", "ellipse"), out=tmp_path
    )
    done = make_masks(config, against="dataset")
    estimated, component, ellipse = done.judgements
    assert [j.family for j in done.judgements] == ["estimated", "component", "ellipse"]
    assert estimated.n == component.n == ellipse.n == 80
    assert estimated.iou is not None and ellipse.iou is not None
    assert estimated.iou > ellipse.iou + 0.1
    assert estimated.mae is not None and 0 < estimated.mae < 0.5
    assert len(done.made) == 1  # one estimate serves both
    assert [quarter.n for quarter in estimated.quarters] == [20] * 4
    assert estimated.quarters[0].confidence < estimated.quarters[3].confidence
    assert ellipse.auc is None
    assert ellipse.quarters == ()


def test_numbers_by_hand(tmp_path: Path) -> None:
    """The judge's numbers are those of plain loops over the samples."""
    config = AuditConfig(dataset="demo", limit=12, out=tmp_path)
    (found,) = make_masks(config, against="dataset").judgements
    opened = open_masking(config, "dataset")
    assert opened.families.estimated is not None
    batch = opened.split.__getitems__(range(12))
    assert batch.object_mask is not None
    masks = opened.families.estimated.read(batch.index).planes[:, 0].numpy()
    true = batch.object_mask.numpy() >= 0.5
    overlaps = [(m & t).sum() / (m | t).sum() for m, t in zip(masks, true, strict=True)]
    assert found.iou == pytest.approx(np.mean(overlaps), abs=1e-6)
    assert found.area_bias == pytest.approx(masks.mean() - true.mean(), abs=1e-6)


def test_auc_counts_pairs() -> None:
    draw = np.random.default_rng(0)
    confidence = draw.integers(0, 5, 40) / 5
    bad = draw.random(40) < 0.4
    pairs = [
        1.0 if low < high else 0.5 if low == high else 0.0
        for low in confidence[bad]
        for high in confidence[~bad]
    ]
    assert roc_auc(confidence, bad) == pytest.approx(np.mean(pairs))


def test_a_folder_of_true_masks(audit_here: Command, pictures: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    shutil.copytree(pictures / "masks", masks)
    files = sorted(masks.rglob("*.png"))
    files[0].unlink()
    files[1].write_bytes(b"no picture")
    cv2.imwrite(str(files[2]), np.zeros((32, 32), np.uint8))
    cv2.imwrite(str(files[3]), np.full((32, 32), 255, np.uint8))
    cv2.imwrite(str(files[4]), np.full((30, 30), 255, np.uint8))
    done = audit_here(
        "masks", "--dataset", f"folder:{pictures / 'images'}", "--image-size", 32,
        "--against", masks, "--out", tmp_path / "out", "--show", tmp_path / "out" / "sheet.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Against true masks (35 samples)" in done.stdout
    for said in (
        "1 without a true mask",
        "1 with an empty true mask",
        "1 with a true mask that covers everything",
        "1 with a true mask of another size",
    ):
        assert said in done.stdout
    assert "least trusted quarter" in done.stdout
    sheet = cv2.imread(str(tmp_path / "out" / "sheet.png"))
    assert sheet is not None
    assert sheet.shape[1] == 1280
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000


def test_the_sheet_of_few_images(tmp_path: Path) -> None:
    for family in ("estimated", "ellipse"):
        config = AuditConfig(dataset="demo", limit=3, masks=(family,), out=tmp_path)
        sheet = tmp_path / "sheets" / f"{family}.png"
        assert make_masks(config, show=sheet).sheet == sheet
        assert cv2.imread(str(sheet)) is not None


def test_a_job_file_names_the_masks(audit_here: Command, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'dataset = "demo"\nlimit = 20\nmasks = ["ellipse"]\nout = "{tmp_path}"\n')
    done = audit_here("masks", "--config", job)
    assert done.returncode == 0
    assert "nothing to compute" in done.stdout
    assert "20 computed" in audit_here("masks", "--config", job, "--masks", "component").stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--masks", "dataset"), "need no estimating"),
        (("--masks", "ellipsis"), "the setting 'masks'"),
        (("--against", "/no/such/folder"), "--against FOLDER goes with folder:PATH"),
        (("--show", "sheet.jpg"), "--show draws a PNG file"),
        (("--masks", "rembg:isnet-general-use"), "find nothing in images of 32×32"),
        (("--dataset", "folder:/no/such/folder"), "does not exist"),
        (("--device", "abacus"), "the device 'abacus' cannot be used"),
        (("--limit", "0"), "the setting 'limit'"),
    ],
)
def test_wrong_usage(
    audit_here: Command, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    done = audit_here("masks", *flags, "--out", tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_folders(audit_here: Command, pictures: Path, tmp_path: Path) -> None:
    images = ("--dataset", f"folder:{pictures / 'images'}", "--image-size", 32, "--out", tmp_path)
    absent = audit_here("masks", *images, "--against", tmp_path / "absent")
    assert absent.returncode == 2
    assert "does not exist" in absent.stderr
    without = audit_here("masks", *images, "--against", "dataset")
    assert without.returncode == 2
    assert "has no object masks to judge by" in without.stderr


def test_photos_with_true_masks(tmp_path: Path) -> None:
    root = real_data("coco-crops")
    config = AuditConfig(
        dataset=f"folder:{root / 'images'}", image_size=(64, 64), out=tmp_path,
        masks=("estimated", "ellipse"),
    )  # fmt: skip
    estimated, ellipse = make_masks(config, against=str(root / "masks")).judgements
    assert estimated.n == 109
    assert estimated.iou is not None and ellipse.iou is not None
    assert estimated.iou > ellipse.iou + 0.05
    assert estimated.auc is not None
    assert estimated.auc > 0.6
