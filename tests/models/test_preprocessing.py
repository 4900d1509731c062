"""What is done to images before a network sees them, and who says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchvision.models import get_model_weights

from audit.data.geometry import Geometry
from audit.errors import ModelError
from audit.models import PreprocessingFlags, Request, Wanted, build, open_classifier
from audit.models.checkpoint import HEADER
from audit.models.preprocessing import (
    IMAGENET,
    Preprocessing,
    from_header,
    from_timm,
    from_torchvision,
)
from tests.models.test_frozen import tiny

OWN = Preprocessing(
    geometry=Geometry(size=(96, 96), resize=110, interpolation="bicubic"),
    mean=(0.1, 0.2, 0.3),
    std=(1.0, 2.0, 3.0),
    origin="net",
)
BARE = Preprocessing()


def flags(**given: Any) -> PreprocessingFlags:
    return PreprocessingFlags(**given)


def picture(height: int, width: int) -> Image.Image:
    """Smooth, and different everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * y / height, 255 * x / width, 127 + 90 * np.sin(x / 9 + y / 13)], 2)
    return Image.fromarray(pixels.astype(np.uint8))


def framed(said: Preprocessing, image: Image.Image) -> torch.Tensor:
    """As the audit feeds it."""
    assert said.geometry is not None
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    image_size, _ = said.geometry(pixels, None)
    mean, std = (torch.tensor(values)[:, None, None] for values in (said.mean, said.std))
    return (image_size.float() / 255 - mean) / std


@pytest.mark.parametrize("size", [(300, 400), (511, 300), (120, 100), (64, 64)])
@pytest.mark.parametrize(
    "more",
    [
        {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bilinear"},
        {"input_size": (3, 160, 160), "crop_pct": 0.95, "interpolation": "bicubic"},
        {"input_size": (3, 96, 96), "crop_pct": 1.0, "crop_mode": "squash"},
        {"input_size": (3, 96, 128), "crop_pct": 0.9, "crop_mode": "squash"},
        {"input_size": (3, 128, 96), "crop_pct": 0.9, "crop_mode": "center"},
    ],
)
def test_timm_frames_pictures_alike(size: tuple[int, int], more: Mapping[str, Any]) -> None:
    config = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "interpolation": "bicubic", **more}
    theirs = create_transform(**resolve_data_config(pretrained_cfg=dict(config)))
    image = picture(*size)
    expected, found = theirs(image), framed(from_timm(config, "timm"), image)
    assert expected.shape == found.shape
    # Pillow rounds between its two passes.
    assert float((expected - found).abs().max()) < 0.06
    assert float((expected - found).abs().mean()) < 0.01


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b1", "swin_v2_t", "inception_v3"])
def test_torchvision_frames_pictures_alike(name: str) -> None:
    theirs = get_model_weights(name).DEFAULT.transforms()
    said = from_torchvision(theirs, name)
    image = picture(300, 400)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    # One level of grey, divided by the smallest deviation: each rounds in its own way.
    torch.testing.assert_close(framed(said, image), theirs(pixels), rtol=0, atol=1.01 / 255 / 0.224)


def test_every_configuration_of_timm_is_understood() -> None:
    """But for a crop that borders its pictures, which nine of its networks want."""
    odd = {}
    for name in timm.list_pretrained():
        config = timm.get_pretrained_cfg(name).to_dict()
        said = from_timm(config, "timm")
        assert said.geometry is not None
        assert said.geometry.size == config["input_size"][1:]
        assert said.mean == tuple(config["mean"])
        if said.origin != "timm":
            odd[name] = said.origin
    assert set(odd.values()) <= {"timm, but crop at the centre instead of border"}


def test_what_timm_wants_and_cannot_be_done_is_told() -> None:
    config = {"input_size": (3, 64, 64), "crop_mode": "border", "interpolation": "lanczos"}
    assert from_timm(config, "timm").describe() == (
        "resized to 73 (bicubic), cropped to 64×64; mean unknown, std unknown (timm, but crop at "
        "the centre instead of border, but bicubic instead of lanczos)"
    )


@pytest.mark.parametrize(
    ("given", "own", "words"),
    [
        ({}, BARE, "size as in the dataset; mean unknown, std unknown (unknown)"),
        ({}, OWN, "resized to 110 (bicubic), cropped to 96×96; mean 0.1 0.2 0.3, std 1 2 3 (net)"),
        ({"preset": "imagenet"}, OWN,
         "resized to 256 (bilinear), cropped to 224×224; mean 0.485 0.456 0.406, "
         "std 0.229 0.224 0.225 (--preprocessing imagenet)"),
        ({"preset": "imagenet", "image_size": (96, 96), "mean": (0.0, 0.0, 0.0)}, OWN,
         "resized to 96 (bilinear), cropped to 96×96; mean 0 0 0, std 0.229 0.224 0.225 "
         "(--preprocessing imagenet, --image-size, --mean)"),
        ({"image_size": (64, 64)}, OWN,
         "resized to 64 (bicubic), cropped to 64×64; mean 0.1 0.2 0.3, std 1 2 3 "
         "(net, --image-size)"),
        ({"image_size": (64, 48)}, OWN,
         "resized to 64×48 (bicubic), cropped to 64×48; mean 0.1 0.2 0.3, std 1 2 3 "
         "(net, --image-size)"),
        ({"image_size": (64, 48), "resize": 60}, OWN,
         "resized to 80×60 (bicubic), cropped to 64×48; mean 0.1 0.2 0.3, std 1 2 3 "
         "(net, --image-size, --resize)"),
        ({"resize": 96}, OWN,
         "resized to 96 (bicubic), cropped to 96×96; mean 0.1 0.2 0.3, std 1 2 3 (net, --resize)"),
        ({"interpolation": "nearest"}, OWN,
         "resized to 110 (nearest), cropped to 96×96; mean 0.1 0.2 0.3, std 1 2 3 "
         "(net, --interpolation)"),
        ({"mean": (0.5, 0.5, 0.5)}, OWN,
         "resized to 110 (bicubic), cropped to 96×96; mean 0.5 0.5 0.5, std 1 2 3 (net, --mean)"),
        ({"std": (0.5, 0.5, 0.5)}, OWN,
         "resized to 110 (bicubic), cropped to 96×96; mean 0.1 0.2 0.3, std 0.5 0.5 0.5 "
         "(net, --std)"),
        ({"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}, BARE,
         "size as in the dataset; mean 0 0 0, std 1 1 1 (--mean, --std)"),
        ({"image_size": (64, 64), "resize": 72, "interpolation": "bicubic",
          "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}, BARE,
         "resized to 72 (bicubic), cropped to 64×64; mean 0 0 0, std 1 1 1 "
         "(--image-size, --resize, --interpolation, --mean, --std)"),
    ],
)  # fmt: skip
def test_flags_alone_and_together(given: dict[str, Any], own: Preprocessing, words: str) -> None:
    assert flags(**given).applied_to(own).describe() == words


@pytest.mark.parametrize("given", [{"resize": 64}, {"interpolation": "bicubic"}])
def test_a_resize_needs_a_size(given: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="size of the network's images is not known"):
        flags(**given).applied_to(BARE)


def test_a_squash_stays_where_only_the_kernel_changes() -> None:
    geometry = Geometry(size=(64, 64), resize=(70, 70), squash=True)
    own = Preprocessing(geometry=geometry, origin="net")
    assert (
        "squashed to 70×70 (nearest)" in flags(interpolation="nearest").applied_to(own).describe()
    )
    assert "resized to 32" in flags(image_size=(32, 32)).applied_to(own).describe()


def test_facts_are_for_the_manifest() -> None:
    assert OWN.facts() == {
        "geometry": {"size": [96, 96], "resize": 110, "interpolation": "bicubic", "squash": False},
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0, 2.0, 3.0],
        "origin": "net",
    }
    assert BARE.facts()["geometry"] is None


@pytest.mark.parametrize(
    ("about", "geometry"),
    [
        ({}, None),
        ({"image_size": 32}, Geometry.square(32)),
        ({"image_size": [32, 48]}, Geometry(size=(32, 48), resize=(32, 48))),
        ({"image_size": np.int64(32), "resize": np.int64(36)}, Geometry(size=(32, 32), resize=36)),
        ({"image_size": torch.tensor([32, 48]), "resize": (40, 60)},
         Geometry(size=(32, 48), resize=(40, 60))),
        ({"image_size": 32, "resize": 36, "interpolation": "bicubic"},
         Geometry(size=(32, 32), resize=36, interpolation="bicubic")),
    ],
)  # fmt: skip
def test_what_a_header_says_of_sizes(about: dict[str, Any], geometry: Geometry | None) -> None:
    assert from_header(about, "file").geometry == geometry


@pytest.mark.parametrize("values", [[0.5, 0.25, 1], (0.5, 0.25, 1.0), np.array([0.5, 0.25, 1])])
def test_what_a_header_says_of_colours(values: Any) -> None:
    assert from_header({"mean": values, "std": values}, "file").std == (0.5, 0.25, 1.0)


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"image_size": "32"}, "image size that is not valid"),
        ({"image_size": [32]}, "image size that is not valid"),
        ({"image_size": [32, 0]}, "image size that is not valid"),
        ({"image_size": 32.0}, "image size that is not valid"),
        ({"image_size": 32, "resize": [1, 2, 3]}, "resize that is not valid"),
        ({"image_size": 32, "resize": 0}, "resize that is not valid"),
        ({"image_size": 32, "interpolation": "lanczos"}, "resize that is not valid"),
        ({"resize": 32}, "names a resize but no image size"),
        ({"mean": [0.5, 0.5]}, "the mean of the normalisation is not valid"),
        ({"mean": 0.5}, "the mean of the normalisation is not valid"),
        ({"mean": [0.5, 0.5, float("nan")]}, "the mean of the normalisation is not valid"),
        ({"std": [0.5, 0.5, 0]}, "the std of the normalisation is not valid"),
        ({"std": ["1", "1", "1"]}, "the std of the normalisation is not valid"),
    ],
)
def test_headers_that_are_not_valid(about: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        from_header(about, "file")


class TestOfAClassifier:
    """Who wins: flags, then the file, then the library's usual, then the dataset's size."""

    CLASSES = tuple("abcdefghij")

    def opened(
        self,
        source: Request | nn.Module,
        native: tuple[int, int] | None = (32, 32),
        **given: Any,
    ) -> Preprocessing:
        wanted = Wanted(classes=self.CLASSES, native_size=native, flags=flags(**given))
        return open_classifier(source, wanted).preprocessing

    def file(self, folder: Path, header: str, model: nn.Module) -> Path:
        save_file(model.state_dict(), folder / "m.safetensors", metadata={HEADER: header})
        return folder / "m.safetensors"

    def test_a_header(self, tmp_path: Path) -> None:
        header = '{"image_size": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}'
        file = self.file(tmp_path, header, build("cnn", 10))
        said = self.opened(Request(model="cnn", checkpoint=file), native=(64, 64))
        assert said.describe() == (
            f"resized to 32 (bilinear), cropped to 32×32; mean 0 0 0, std 1 1 1 ({file})"
        )
        said = self.opened(Request(model="cnn", checkpoint=file), mean=(0.5, 0.5, 0.5))
        assert said.describe().endswith(f"mean 0.5 0.5 0.5, std 1 1 1 ({file}, --mean)")

    def test_a_header_that_says_half(self, tmp_path: Path) -> None:
        network = timm.create_model("test_resnet", num_classes=10)
        file = self.file(tmp_path, '{"mean": [0, 0, 0], "std": [1, 1, 1]}', network)
        said = self.opened(Request(model="timm:test_resnet", checkpoint=file), native=None)
        assert said.describe() == (
            "resized to 168 (bilinear), cropped to 160×160; mean 0 0 0, std 1 1 1 "
            f"({file}; the rest timm's for test_resnet)"
        )

    @pytest.mark.parametrize("size", [(32, 32), (64, 48)])
    def test_ones_own_weights_see_images_of_one_size_as_they_are(
        self, size: tuple[int, int], tmp_path: Path
    ) -> None:
        network = timm.create_model("test_resnet", num_classes=10)
        torch.save(network.state_dict(), tmp_path / "m.pth")
        request = Request(model="timm:test_resnet", checkpoint=tmp_path / "m.pth")
        assert self.opened(request, native=size).describe() == (
            "size as in the dataset; mean 0.5 0.5 0.5, std 0.5 0.5 0.5 (timm's for test_resnet)"
        )
        enlarged = self.opened(request, native=size, image_size=(96, 96))
        assert enlarged.geometry == Geometry.square(96)
        assert self.opened(request, native=size, preset="imagenet") == IMAGENET

    def test_nothing_is_known(self) -> None:
        network = tiny(10)
        colours = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        with pytest.raises(ModelError, match="the size of the images that 'Sequential'") as caught:
            self.opened(network, native=None, **colours)
        assert "--image-size N or HxW" in str(caught.value)
        assert "--preprocessing imagenet" in str(caught.value)
        for left_out, given in (("mean", "std"), ("std", "mean")):
            with pytest.raises(ModelError, match=r"how the images .* were normalised") as caught:
                self.opened(network, **{given: colours[given]})
            assert f"--{left_out} R G B" in str(caught.value)
            assert f"none says: {left_out}\n" in str(caught.value)
        with pytest.raises(ModelError, match=r"the size of the images .* how they were") as caught:
            self.opened(network, native=None)
        for flag in ("--image-size N or HxW", "--mean R G B", "--std R G B"):
            assert flag in str(caught.value.expected)
        assert str(caught.value.remedy).endswith(
            "--image-size 224 --resize 256 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"
        )
        assert self.opened(network, **colours).geometry is None
        assert self.opened(network, native=None, preset="imagenet") == IMAGENET
