from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from audit.data import ArraySplit
from audit.errors import AuditError, UsageError
from audit.masks import MaskCache, enlarge, estimate_masks
from audit.masks.background_removal import RembgEstimator, fell_back

onnx = pytest.importorskip("onnx", reason="needs the packages onnx and rembg")
pytest.importorskip("rembg", reason="needs the package rembg")

SIZE = (136, 160)
CPU = torch.device("cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    return tmp_path


def write_network(file: Path, red: float = 1.0, channels: int = 3) -> Path:
    """A real network: one convolution that answers with how red each pixel is."""
    weight = onnx.helper.make_tensor("weight", 1, [1, 3, 1, 1], [red, 0.0, 0.0])
    shape = ["n", channels, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["image", "weight"], ["alpha"])],
        "redness",
        [onnx.helper.make_tensor_value_info("image", 1, shape)],
        [onnx.helper.make_tensor_value_info("alpha", 1, ["n", 1, "h", "w"])],
        [weight],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), file)
    return file


def pictures(count: int = 3) -> Tensor:
    """Grey pictures with a red box."""
    images = torch.full((count, 3, *SIZE), 90, dtype=torch.uint8)
    images[:, 0, 40:100, 50:120] = 255
    return images


def open_rembg(session: str = "u2net_custom", **settings: bool) -> RembgEstimator:
    return RembgEstimator(session, SIZE, CPU, **settings)


@pytest.mark.parametrize(
    ("session", "place"),
    [
        ("u2net_custom", "u2net_custom.onnx"),
        ("dis_custom", "models/dis_custom/dis_custom.onnx"),
        ("isnet-general-use", "models/isnet-general-use/isnet-general-use.onnx"),
        ("u2netp", "u2netp.onnx"),
    ],
)
def test_masks_are_what_the_network_sees(home: Path, session: str, place: str) -> None:
    write_network(home / place)
    images = pictures()
    found = open_rembg(session)(images)
    expected = torch.zeros(SIZE, dtype=torch.bool)
    expected[40:100, 50:120] = True
    assert found.planes.shape == (3, 2, *SIZE)
    wrong = (found.planes[:, 0] ^ expected).float().mean()
    assert wrong < 0.01
    assert fell_back(found).sum() == 0
    other = enlarge(estimate_masks(images).planes[:, 0], SIZE) > 0.5
    mask = found.planes[:, 0]
    overlap = (mask & other).sum(dim=(1, 2)) / (mask | other).sum(dim=(1, 2))
    torch.testing.assert_close(found.confidence, overlap)


def test_where_the_network_finds_nothing_the_default_stands(home: Path) -> None:
    write_network(home / "u2net_custom.onnx")
    images = pictures(2)
    images[1, :, :] = torch.arange(SIZE[1]) % 50 + 60
    images[1, 1:, 40:100, 50:120] = 255
    images[1, 0] = 90  # no pixel is redder than another
    found = open_rembg()(images)
    expected = estimate_masks(images)
    assert fell_back(found).sum() == 1
    assert torch.equal(found.planes[1, 0], enlarge(expected.planes[1:, 0], SIZE)[0] > 0.5)
    assert found.confidence[1] == expected.confidence[1]


def test_specks_and_slivers_of_background_are_nothing(home: Path) -> None:
    write_network(home / "u2net_custom.onnx")
    images = pictures(3)
    images[:, 0] = 90
    images[0, 0, 60:64, 60:70] = 255
    images[1, 0] = 255
    images[1, 0, 60:64, 60:70] = 90
    images[2, 0, 40:60, 50:120] = 255
    found = open_rembg()(images)
    assert found.planes[:, 1].flatten(1).all(dim=1).tolist() == [True, True, False]


def test_the_same_each_time_and_through_the_cache(home: Path, tmp_path: Path) -> None:
    write_network(home / "u2net_custom.onnx")
    images = pictures(11)
    images[4:, :, 60:80] = 200
    split = ArraySplit(
        name="red", part="test", classes=("a",), sample_ids=tuple(map(str, range(11))),
        images=images, labels=torch.zeros(11, dtype=torch.int64),
    )  # fmt: skip
    cache = MaskCache(split, "abc", tmp_path / "cache", open_rembg())
    assert "-rembg-u2net_custom-" in cache.folder.name
    found, again = cache.read(torch.arange(11)), open_rembg()(images)
    assert torch.equal(found.planes, again.planes)
    torch.testing.assert_close(found.confidence, again.confidence)


def test_another_network_is_another_estimator(home: Path) -> None:
    file = write_network(home / "u2net_custom.onnx")
    first = open_rembg().fingerprint()
    assert open_rembg().fingerprint() == first
    write_network(file, red=2.0)
    assert open_rembg().fingerprint() != first


@pytest.mark.usefixtures("home")
def test_an_absent_network_is_named_with_its_licence(home: Path) -> None:
    with pytest.raises(UsageError, match="isnet-general-use is not on this machine") as raised:
        open_rembg("isnet-general-use")
    said = str(raised.value)
    assert f"the file isnet-general-use.onnx in {home}" in said
    assert "Apache-2.0" in said
    assert "--download" in said
    with pytest.raises(UsageError, match="non-commercial"):
        open_rembg("bria-rmbg")
    with pytest.raises(UsageError, match="your own network, exported to ONNX"):
        open_rembg("u2net_custom", download=True)


@pytest.mark.usefixtures("home")
def test_a_download_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pooch = pytest.importorskip("pooch")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(AuditError, match="cannot be downloaded") as raised:
        open_rembg("u2netp", download=True)
    assert raised.value.exit_code == 1


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("session", "said"),
    [
        ("isnet-general", "no session 'isnet-general'.*did you mean rembg:isnet-general-use"),
        ("sam", "wants a prompt"),
        ("withoutbg", "sends the images to a service"),
    ],
)
def test_sessions_that_cannot_be_used(session: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_rembg(session)
    assert re.search(said, str(raised.value), re.DOTALL)


def test_small_images_are_refused() -> None:
    with pytest.raises(UsageError, match="32×32") as raised:
        RembgEstimator("u2net", (32, 32), CPU)
    assert "--masks estimated" in str(raised.value)


def test_rembg_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rembg", "rembg.sessions"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("audit.masks.background_removal.find_spec", lambda _: None)
    with pytest.raises(UsageError) as raised:
        open_rembg()
    assert "pip install 'audit[rembg]'" in str(raised.value)


def test_files_that_are_no_networks(home: Path) -> None:
    (home / "u2net_custom.onnx").write_bytes(b"<html>not found</html>")
    with pytest.raises(UsageError, match="cannot be used as rembg's network"):
        open_rembg()(pictures(1))
    write_network(home / "u2net_custom.onnx", channels=4)
    with pytest.raises(UsageError, match="cannot be used as rembg's network"):
        open_rembg()(pictures(1))


def test_facts_name_the_licence(home: Path) -> None:
    write_network(home / "u2netp.onnx")
    facts = open_rembg("u2netp").facts()
    assert facts["licence"] == "Apache-2.0"
    assert facts["model"] == "u2netp.onnx"
    assert len(facts["sha256"]) == 64
