from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models import get_weight
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from audit.data import Geometry, LimitedSplit, MaskFiles, Split, iterate, open_split
from audit.data.decode import decode_rgb
from audit.data.demo import open_demo
from audit.data.geometry import Interpolation
from audit.data.split import FramedSplit
from audit.errors import DataError
from tests.conftest import CIFAR10
from tests.data.making import hub_parquet, image_folder, png

SIZES = ((500, 375), (333, 500), (224, 224), (256, 256), (37, 29), (1, 1), (3, 90), (257, 401))
KERNELS: tuple[Interpolation, ...] = ("bilinear", "bicubic")
OTHER = Geometry(size=(48, 40), resize=(50, 44), interpolation="bicubic")


def noise(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def torchvisions(geometry: Geometry) -> v2.Transform:
    kernel = v2.InterpolationMode(geometry.interpolation)
    return v2.Compose(
        [v2.Resize(geometry.resize, kernel, antialias=True), v2.CenterCrop(geometry.size)]
    )


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_torchvisions_resize_and_crop(
    size: tuple[int, int], interpolation: Interpolation
) -> None:
    geometry = Geometry(size=(224, 224), resize=256, interpolation=interpolation)
    image = noise(*size)
    framed, _ = geometry(image, None)
    assert framed.dtype == torch.uint8
    assert torch.equal(framed, torchvisions(geometry)(image))


SIDE = st.integers(1, 60)
WANTED = st.integers(2, 60)


@given(SIDE, SIDE, WANTED, WANTED, WANTED)
@settings(deadline=None, max_examples=200)
def test_equals_torchvision_at_every_size(
    height: int, width: int, rows: int, columns: int, resize: int
) -> None:
    """Also where the crop is the larger and zeros surround the image, to the odd pixel."""
    geometry = Geometry(size=(rows, columns), resize=resize)
    image = noise(height, width)
    assert torch.equal(geometry(image, None)[0], torchvisions(geometry)(image))


def geometry_of(preset: Any) -> Geometry:
    return Geometry(
        size=(preset.crop_size[0],) * 2,
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
    )


@pytest.mark.parametrize(
    "weights",
    [
        "ResNet18_Weights.IMAGENET1K_V1",
        "ResNet50_Weights.IMAGENET1K_V2",
        "EfficientNet_B0_Weights.IMAGENET1K_V1",
        "Inception_V3_Weights.IMAGENET1K_V1",
        "Swin_V2_T_Weights.IMAGENET1K_V1",
        "ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1",
    ],
)
def test_equals_the_presets_of_torchvisions_weights(weights: str) -> None:
    """Tensors go through float there, pictures through Pillow: so to the rounding only."""
    preset = get_weight(weights).transforms()
    image = noise(301, 402)
    framed = geometry_of(preset)(image, None)[0].float()
    for source in (image, F.to_pil_image(image)):
        mean, std = (torch.tensor(x)[:, None, None] for x in (preset.mean, preset.std))
        expected = (preset(source) * std + mean) * 255
        assert framed.shape == expected.shape
        assert (framed - expected).abs().mean() < 0.5


@pytest.mark.parametrize("interpolation", KERNELS)
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("size", [(224, 224), (192, 256), (300, 200)])
def test_equals_timms_preprocessing(
    size: tuple[int, int], mode: str, interpolation: Interpolation
) -> None:
    factory = pytest.importorskip("timm.data.transforms_factory")
    theirs = factory.transforms_imagenet_eval(
        size, crop_pct=0.9, crop_mode=mode, interpolation=interpolation, normalize=False
    )
    ours = Geometry(
        size=size,
        resize=(int(size[0] / 0.9), int(size[1] / 0.9)),
        interpolation=interpolation,
        squash=mode == "squash",
    )
    for height, width in SIZES:
        image = noise(height, width)
        difference = ours(image, None)[0].float() - theirs(F.to_pil_image(image)).float()
        assert difference.abs().mean() < 0.5


def test_nearest_takes_pixels_as_pillow_does() -> None:
    geometry = Geometry(size=(20, 31), resize=20, interpolation="nearest")
    image = noise(61, 97)
    resized = F.resize(F.to_pil_image(image), [20], v2.InterpolationMode.NEAREST)
    assert torch.equal(geometry(image, None)[0], F.pil_to_tensor(resized))


BOXED = (
    Geometry(size=(224, 224), resize=256),
    Geometry(size=(192, 256), resize=(200, 270)),
    Geometry(size=(256, 192), resize=(256, 192)),
    Geometry(size=(160, 224), resize=(180, 240), squash=True),
    Geometry(size=(240, 240), resize=151),
    Geometry(size=(301, 177), resize=(160, 211), interpolation="nearest"),
    Geometry(size=(96, 96), resize=97, interpolation="bicubic"),
)


@pytest.mark.parametrize("geometry", BOXED)
@pytest.mark.parametrize("size", [(480, 640), (501, 333), (100, 90)])
def test_the_box_says_where_a_mark_was(geometry: Geometry, size: tuple[int, int]) -> None:
    """A painted rectangle, found in the framed image, lies where it was painted."""
    height, width = size
    mark = (int(height * 0.4), int(width * 0.42), int(height * 0.62), int(width * 0.55))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, mark[0] : mark[2], mark[1] : mark[3]] = 255
    framed, _ = geometry(image, None)
    top, left, bottom, right = geometry.box(height, width)
    y, x = (bottom - top) / geometry.size[0], (right - left) / geometry.size[1]
    rows, columns = (framed[0] > 127).nonzero(as_tuple=True)
    edges = (rows.min() * y, columns.min() * x, (rows.max() + 1) * y, (columns.max() + 1) * x)
    for edge, start, painted, pixel in zip(
        edges, (top, left, top, left), mark, (y, x, y, x), strict=True
    ):
        # Half a pixel of the coarser of the two pictures: thresholding rounds to that.
        assert abs(start + float(edge) - painted) <= max(1.0, pixel) / 2 + 1e-6


def test_a_box_lies_beyond_the_picture_where_zeros_surround_it() -> None:
    geometry = Geometry(size=(40, 40), resize=20)
    image, mask = geometry(torch.full((3, 100, 100), 255, dtype=torch.uint8), torch.ones(100, 100))
    assert mask is not None
    expected = torch.zeros(40, 40)
    expected[10:30, 10:30] = 1
    torch.testing.assert_close(mask, expected)
    assert torch.equal(image[0].float() / 255, expected)
    assert geometry.box(100, 100) == (-50, -50, 150, 150)


def blob(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image with a bright ellipse, and where its channel is bright."""
    y = torch.linspace(-1, 1, height)[:, None] - 0.12
    x = torch.linspace(-1, 1, width)[None] + 0.07
    mask = (((y / 0.6) ** 2 + (x / 0.4) ** 2) < 1).float()
    return (mask * 255).to(torch.uint8).expand(3, -1, -1).contiguous(), mask


@pytest.mark.parametrize("geometry", [*BOXED, Geometry(size=(7, 500), resize=3)])
@pytest.mark.parametrize("size", [(480, 640), (501, 333), (31, 47)])
def test_image_and_mask_keep_one_geometry(geometry: Geometry, size: tuple[int, int]) -> None:
    image, mask = geometry(*blob(*size))
    assert mask is not None
    assert mask.dtype == torch.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    if geometry.interpolation == "bicubic":
        assert ((image[0] > 127) != (mask > 0.5)).float().mean() < 0.002
    else:
        assert (image[0].float() / 255 - mask).abs().max() <= 1.5 / 255


def test_masks_do_not_ring_where_bicubic_images_do() -> None:
    """On an edge between background and object no pixel is less than background beside it."""
    image = torch.full((3, 64, 64), 100, dtype=torch.uint8)
    image[:, :, 32:] = 200
    mask = torch.zeros(64, 64)
    mask[:, 32:] = 1
    framed, soft = Geometry(size=(150, 150), resize=150, interpolation="bicubic")(image, mask)
    assert soft is not None
    assert framed.min() < 100
    assert (soft.diff(dim=1) >= 0).all()


def test_a_batch_equals_its_samples() -> None:
    samples = [blob(60, 80), (noise(60, 80), torch.rand(60, 80))]
    for geometry in BOXED:
        images, masks = geometry(
            torch.stack([image for image, _ in samples]), torch.stack([mask for _, mask in samples])
        )
        assert masks is not None
        for row, (image, mask) in enumerate(samples):
            one, soft = geometry(image, mask)
            assert soft is not None
            assert torch.equal(images[row], one)
            torch.testing.assert_close(masks[row], soft)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": (1, 8)}, "size without pixels"),
        ({"resize": -1}, "size without pixels"),
        ({"interpolation": "cubic"}, "unknown interpolation 'cubic'"),
    ],
)
def test_geometries_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        replace(Geometry.square(8), **wrong)
    with pytest.raises(DataError, match="size without pixels"):
        open_split("demo", image_size=0)


KINDS = ("demo", "hub", "folder", "limited")


def split_of(kind: str, root: Path) -> Split:
    """Splits at 32×32, those from files with a second sample that cannot be read."""
    if kind == "demo":
        return open_demo("test")
    if kind == "hub":
        hub_parquet(
            root / "test-0.parquet", [png(0), b"broken", png(2), png(3)], [0, 1, 2, 3], [*CIFAR10]
        )
        return open_split("cifar10", root=root)
    image_folder(root / "i", {"a": 3, "b": 4}, masks=root / "m", size=64)
    (root / "i" / "a" / "001.png").write_bytes(b"broken")
    split = open_split(f"folder:{root}/i", masks=MaskFiles(root=root / "m"))
    return LimitedSplit(split, 7) if kind == "limited" else split


@pytest.mark.parametrize("kind", KINDS)
def test_every_split_can_be_framed(kind: str, tmp_path: Path) -> None:
    split = split_of(kind, tmp_path)
    framed = split.framed(OTHER)
    before, after = split.__getitems__([3, 0, 1]), framed.__getitems__([3, 0, 1])
    assert framed.image_size == (48, 40)
    assert after.images.shape == (3, 3, 48, 40)
    assert after.images.dtype == torch.uint8
    assert after.sample_id == before.sample_id
    assert after.status == before.status
    assert torch.equal(after.index, before.index)
    assert torch.equal(after.labels, before.labels)
    assert (after.object_mask is None) == (not split.has_masks)
    if after.object_mask is not None:
        assert after.object_mask.shape == (3, 48, 40)
    for name in ("name", "part", "classes", "has_masks", "in_memory", "facts"):
        assert getattr(framed, name) == getattr(split, name)
    assert len(framed) == len(split)


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprints_follow_the_geometry(kind: str, tmp_path: Path) -> None:
    split = split_of(kind, tmp_path)
    geometries = [
        Geometry.square(32),
        Geometry.square(48),
        OTHER,
        replace(OTHER, interpolation="bilinear"),
        replace(OTHER, squash=True),
        replace(OTHER, resize=60),
    ]
    prints = [split.framed(geometry).fingerprint() for geometry in geometries]
    assert len(set(prints)) == len(geometries)
    assert prints[0] == split.fingerprint()
    assert prints[2] == split.framed(replace(OTHER)).fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_a_geometry_applies_to_the_stored_picture(kind: str, tmp_path: Path) -> None:
    """Framed twice is framed once, and back again is where it was."""
    split = split_of(kind, tmp_path)
    twice = split.framed(Geometry.square(8)).framed(OTHER)
    assert twice.fingerprint() == split.framed(OTHER).fingerprint()
    back = twice.framed(Geometry.square(32))
    assert torch.equal(back.__getitems__([0, 2]).images, split.__getitems__([0, 2]).images)


def test_a_geometry_that_changes_nothing_costs_nothing(tmp_path: Path) -> None:
    for split in (open_demo("test"), split_of("hub", tmp_path)):
        assert split.framed(Geometry.square(32)) is split
        assert split.framed(Geometry(size=(32, 32), resize=(32, 32), squash=True)) is split
        assert isinstance(split.framed(Geometry(size=(32, 32), resize=36)), FramedSplit)


def test_a_folder_is_framed_from_its_files_without_another_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = split_of("folder", tmp_path)
    geometry = Geometry(size=(64, 64), resize=64)
    monkeypatch.setattr("audit.data.folder._images_in", None)
    framed = split.framed(geometry)
    stored = decode_rgb((tmp_path / "i" / "a" / "000.png").read_bytes())
    assert torch.equal(framed.__getitems__([0]).images[0], stored)
    assert split.image_size == (32, 32)


def test_samples_that_cannot_be_read_stay_rows(tmp_path: Path) -> None:
    for kind in ("hub", "folder", "limited"):
        (tmp_path / kind).mkdir()
        batch = split_of(kind, tmp_path / kind).framed(OTHER).__getitems__([0, 1, 2])
        assert batch.status == ["ok", "unreadable", "ok"]
        assert batch.images[1].sum() == 0
        assert batch.images[2].sum() > 0


def test_a_limit_stays_on_the_same_samples() -> None:
    whole = open_demo("test")
    framed = LimitedSplit(whole, 10).framed(OTHER)
    every = range(10)
    expected = LimitedSplit(whole.framed(OTHER), 10)
    assert framed.fingerprint() == expected.fingerprint()
    assert framed.__getitems__(every).sample_id == expected.__getitems__(every).sample_id
    assert torch.equal(framed.__getitems__(every).images, expected.__getitems__(every).images)


@pytest.mark.parametrize("kind", KINDS)
def test_worker_processes_give_the_same_framed_batches(kind: str, tmp_path: Path) -> None:
    framed = split_of(kind, tmp_path).framed(OTHER)
    alone = list(iterate(framed, range(4), batch_size=2))
    shared = list(iterate(framed, range(4), batch_size=2, workers=1))
    for one, other in zip(alone, shared, strict=True):
        assert one.sample_id == other.sample_id
        assert torch.equal(one.images, other.images)


def test_every_dataset_takes_an_image_size(tmp_path: Path) -> None:
    demo = open_split("demo", image_size=64, limit=5)
    assert demo.image_size == (64, 64)
    assert demo.in_memory
    assert demo.facts["planted_classes"] == ["three", "eight"]
    assert demo.__getitems__([4]).images.shape == (1, 3, 64, 64)
    assert open_split("demo", image_size=32) is open_split("demo")
    split_of("hub", tmp_path)
    assert open_split("cifar10", root=tmp_path, image_size=96).image_size == (96, 96)
