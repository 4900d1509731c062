"""Networks by name, by function and at hand."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn
from torchvision.models import (
    VisionTransformer,
    get_model,
    get_model_weights,
    shufflenet_v2_x0_5,
)

from audit.errors import ModelError
from audit.models import PreprocessingFlags, Request, Wanted, build, open_classifier
from audit.models.checkpoint import load_into, read_checkpoint
from audit.models.libraries import _as_torchvision_names, _side_of, torchvision_names
from audit.models.sources import WEIGHTS
from tests.models.test_frozen import state_of, tiny

CATEGORIES = tuple(get_model_weights("resnet18").DEFAULT.meta["categories"])
SMALL = "shufflenet_v2_x0_5"
HALF: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
NO_NETWORK = "http://127.0.0.1:9"


def opened(
    model: str | nn.Module | None,
    classes: tuple[str, ...] | None = CATEGORIES,
    *,
    native: tuple[int, int] | None = None,
    flags: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    count = len(classes) if classes else None
    source = model if isinstance(model, nn.Module) else Request(
        model=model, num_classes=count, **more
    )  # fmt: skip
    given = PreprocessingFlags(**(flags or {}))
    return open_classifier(source, Wanted(classes=classes, native_size=native, flags=given))


def drawn(model: nn.Module) -> nn.Module:
    """With statistics of batch norms that are not the identity, so that weights are told apart."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of torch and of the Hub, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, NO_NETWORK)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    return tmp_path


def in_torch_cache(caches: Path, name: str, state: dict[str, Any]) -> Path:
    """A pretrained file of torchvision, as torch itself would have fetched it."""
    url = get_model_weights(name).DEFAULT.url
    file = caches / "torch" / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, file)
    return file


def in_hub_cache(caches: Path, name: str, model: nn.Module) -> None:
    """A pretrained file of timm, as the Hub's client keeps it."""
    repository = f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    snapshot = caches / "hub" / repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (caches / "hub" / repository / "refs").mkdir()
    (caches / "hub" / repository / "refs" / "main").write_text("0" * 40)
    save_file(model.state_dict(), snapshot / "model.safetensors")


class TestTorchvision:
    def test_a_head_for_other_classes(self, tmp_path: Path) -> None:
        network = drawn(shufflenet_v2_x0_5(num_classes=5))
        torch.save({"state_dict": network.state_dict()}, tmp_path / "five.pth")
        for name in (SMALL, f"torchvision:{SMALL}"):
            classifier = opened(name, tuple("abcde"), checkpoint=tmp_path / "five.pth")
            assert classifier.architecture == SMALL
            assert classifier.classes == tuple("abcde")
            assert classifier.preprocessing.describe() == (
                "resized to 256 (bilinear), cropped to 224×224; mean 0.485 0.456 0.406, std 0.229 "
                f"0.224 0.225 (torchvision's for {SMALL})"
            )
            images = torch.randn(2, 3, 64, 64)
            assert torch.equal(classifier.module(images), network(images))

    def test_weights_from_the_cache(self, caches: Path) -> None:
        network = drawn(shufflenet_v2_x0_5())
        file = in_torch_cache(caches, SMALL, network.state_dict())
        classifier = opened(SMALL)
        assert classifier.weights == "torchvision/ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
        assert classifier.classmap is None
        assert classifier.notes == ()
        assert torch.equal(classifier.module.fc.weight, network.fc.weight)
        # Nobody says that the weights were trained on other sizes: small images are enlarged.
        assert opened(SMALL, native=(32, 32)).preprocessing.geometry.size == (224, 224)
        some = opened(SMALL, ("tench", "golden_retriever", "Crane bird"))
        assert some.classmap.members == ((0,), (207,), (134,))
        synsets = tuple(f"n{n:08}" for n in range(1000))
        (note,) = opened(SMALL, synsets).notes
        assert "output 0 is 'n00000000', usually 'tench'" in note
        with pytest.raises(ModelError, match="another number of classes") as caught:
            opened(SMALL, ("cat", "dog"))
        assert "found: 1000" in str(caught.value)
        assert "--class-map" in str(caught.value)
        file.write_bytes(file.read_bytes()[:1000])
        with pytest.raises(ModelError, match="not a whole PyTorch checkpoint"):
            opened(SMALL)

    def test_weights_that_are_nowhere(self, caches: Path) -> None:
        with pytest.raises(ModelError, match=f"no weights were given for.*'{SMALL}'") as caught:
            opened(SMALL)
        assert "hub/checkpoints/shufflenetv2_x0.5-f707e7126e.pth" in str(caught.value)
        assert "--download" in str(caught.value)
        with pytest.raises(ModelError, match=r"weights of https://\S* cannot be fetched") as caught:
            opened(SMALL, download=True)
        assert "refused" in str(caught.value)
        assert "--checkpoint FILE" in str(caught.value)

    def test_weights_of_another_network(self, tmp_path: Path) -> None:
        torch.save(tiny().state_dict(), tmp_path / "tiny.pth")
        with pytest.raises(ModelError, match="does not hold the weights of 'resnet18'") as caught:
            opened("resnet18", checkpoint=tmp_path / "tiny.pth")
        assert "--model timm:resnet18" in str(caught.value)

    def test_names_of_old_densenet_files(self, caches: Path) -> None:
        network = drawn(get_model("densenet121", weights=None))
        old = {
            re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12]\.)", r"\1.\2", name): tensor
            for name, tensor in network.state_dict().items()
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in old
        in_torch_cache(caches, "densenet121", old)
        module = opened("densenet121", flags={"image_size": (64, 64)}).module
        assert torch.equal(module.classifier.weight, network.classifier.weight)

    def test_names_of_old_transformer_files_and_their_size(self, tmp_path: Path) -> None:
        """On a small one: those with names have a hundred million weights."""
        network = VisionTransformer(
            image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
        )
        old = network.state_dict()
        for new, former in {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}.items():
            old = {name.replace(new, former): tensor for name, tensor in old.items()}
        torch.save({"model": {f"module.{n}": t for n, t in old.items()}}, tmp_path / "vit.pth")
        read = read_checkpoint(tmp_path / "vit.pth")
        assert _side_of(read) == 64
        tensors = replace(read, tensors=_as_torchvision_names("vit_b_16", read))
        assert load_into(network, tensors, "vit_b_16") == []

    @pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
    def test_networks_that_normalise_again(self, name: str, tmp_path: Path) -> None:
        network = get_model(name, weights=None, init_weights=False, num_classes=3)
        state = network.state_dict()
        assert any("aux" in key.lower() for key in state)
        torch.save(state, tmp_path / "net.pth")
        classifier = opened(name, tuple("abc"), checkpoint=tmp_path / "net.pth")
        assert classifier.module.transform_input
        note, order = classifier.notes
        assert "normalises its images once more" in note
        assert "in the data's order" in order

    def test_a_network_that_reads_which_release_named_its_tensors(self, tmp_path: Path) -> None:
        network = drawn(get_model("mnasnet0_5", weights=None, num_classes=3))
        torch.save(network.state_dict(), tmp_path / "net.pth")
        classifier = opened("mnasnet0_5", tuple("abc"), checkpoint=tmp_path / "net.pth")
        images = torch.randn(1, 3, 64, 64)
        assert torch.equal(classifier.module(images), network(images))

    def test_every_network_says_what_images_it_wants(self) -> None:
        from audit.models.preprocessing import from_torchvision

        for name in torchvision_names():
            transforms = get_model_weights(name).DEFAULT.transforms()
            found = from_torchvision(transforms, name)
            assert found.geometry is not None
            assert found.geometry.size == (transforms.crop_size[0], transforms.crop_size[0])
            assert found.mean == tuple(transforms.mean)

    def test_names_that_are_none(self) -> None:
        with pytest.raises(ModelError, match="torchvision has no model 'resnt18'") as caught:
            opened("torchvision:resnt18")
        assert "did you mean resnet18" in str(caught.value)
        with pytest.raises(ModelError, match="unknown model 'resnt18'") as caught:
            opened("resnt18")
        assert "did you mean 'resnet18'?" in str(caught.value)


TIMM = "test_resnet"
TAGGED = "test_resnet.r160_in1k"


class TestTimm:
    def test_a_head_for_other_classes(self, tmp_path: Path) -> None:
        network = drawn(timm.create_model(TIMM, num_classes=5))
        torch.save(network.state_dict(), tmp_path / "five.pth")
        for name in (TIMM, f"timm:{TIMM}", f"timm:{TAGGED}"):
            classifier = opened(name, tuple("abcde"), checkpoint=tmp_path / "five.pth")
            assert classifier.architecture == name.removeprefix("timm:")
            assert classifier.preprocessing.geometry.size == (160, 160)
            images = torch.randn(2, 3, 96, 96)
            assert torch.equal(classifier.module(images), network(images))
        small = opened(TIMM, tuple("abcde"), native=(64, 64), checkpoint=tmp_path / "five.pth")
        assert small.preprocessing.geometry is None
        assert small.mean == (0.5, 0.5, 0.5)

    def test_what_timm_trains_is_read_as_it_is(self, tmp_path: Path) -> None:
        network = drawn(timm.create_model(TIMM, num_classes=3))
        averaged = {name: tensor * 1 for name, tensor in network.state_dict().items()}
        content = {"arch": TIMM, "state_dict": {}, "state_dict_ema": averaged, "epoch": 3}
        torch.save(content, tmp_path / "last.pth.tar")
        classifier = opened(None, tuple("abc"), checkpoint=tmp_path / "last.pth.tar")
        assert classifier.architecture == TIMM
        assert classifier.weights.endswith("last.pth.tar (state_dict_ema)")

    def test_weights_from_the_cache(self, caches: Path) -> None:
        network = drawn(timm.create_model(TIMM))
        in_hub_cache(caches, TAGGED, network)
        tagged, plain = opened(f"timm:{TAGGED}"), opened(TIMM)
        assert tagged.weights == plain.weights == f"timm/{TAGGED}"
        assert tagged.sha256 == plain.sha256
        assert torch.equal(tagged.module.fc.weight, network.fc.weight)
        assert tagged.classes[0] == "tench"
        assert opened(TIMM, None).classes[0] == "tench, Tinca tinca"
        some = opened(TIMM, ("golden retriever", "TENCH"))
        assert some.classmap.members == ((207,), (0,))
        # Two classes of ImageNet are called so; none is guessed.
        with pytest.raises(ModelError, match="another number of classes"):
            opened(TIMM, ("crane", "tench"))

    def test_weights_in_a_format_of_their_own(self, caches: Path) -> None:
        """What the Hub keeps of them are safetensors all the same."""
        name = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
        assert timm.get_pretrained_cfg(name).custom_load
        network = timm.create_model(name)
        in_hub_cache(caches, name, network)
        assert torch.equal(opened(name).module.head.weight, network.head.weight)

    def test_weights_that_are_nowhere(self, caches: Path) -> None:
        with pytest.raises(ModelError, match=f"no weights were given for timm's '{TIMM}'"):
            opened(TIMM)
        with pytest.raises(ModelError, match="cannot be fetched") as caught:
            opened(TIMM, download=True)
        assert "refused" in str(caught.value)

    def test_weights_without_a_classifier(
        self, caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "vit_tiny_patch16_dinov3_qkvb"
        network = timm.create_model(name, depth=1)
        assert network.num_classes == 0
        monkeypatch.setattr("audit.models.libraries._pretrained_timm", lambda *_: network)
        with pytest.raises(ModelError, match="have no classifier"):
            opened(f"timm:{name}")

    def test_a_classifier_on_a_network_without_one(self, tmp_path: Path) -> None:
        name = "vit_small_patch16_224.dino"
        network = timm.create_model(name, num_classes=3)
        torch.save(network.state_dict(), tmp_path / "net.pth")
        classifier = opened(f"timm:{name}", tuple("abc"), checkpoint=tmp_path / "net.pth")
        assert torch.equal(classifier.module.head.weight, network.head.weight)

    @pytest.mark.parametrize("name", ["test_resne", "test_resnet.r161_in1k"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(ModelError, match=f"timm has no model '{name}'") as caught:
            opened(f"timm:{name}")
        assert "did you mean test_resnet" in str(caught.value)

    def test_timm_that_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *a: None if name == "timm" else find(name, *a)
        )
        with pytest.raises(ModelError, match=f"'timm:{TIMM}' needs timm") as caught:
            opened(f"timm:{TIMM}")
        assert "pip install 'audit[timm]'" in str(caught.value)
        with pytest.raises(ModelError, match=f"unknown model '{TIMM}'") as caught:
            opened(TIMM)
        assert "timm is not installed" in str(caught.value)


MODULE = """
import torch
from tests.models.test_frozen import tiny

def plain():
    return tiny(4)

def sized(num_classes=2):
    return tiny(num_classes)

def told():
    return tiny(4), {"mean": [0.1, 0.2, 0.3], "std": torch.ones(3), "image_size": (24, 40),
                     "classes": ["d", "c", "b", "a"]}

def numbered():
    return tiny(4), {"mean": (0.0,) * 3, "std": (1.0,) * 3, "classes": {"b": 1, "a": 0, "c": 2,
                     "d": 3}}

class Net(torch.nn.Sequential):
    def __init__(self, num_classes=7):
        super().__init__(tiny(num_classes))

class Zoo:
    small = tiny(4)

instance = tiny(4)
wrapped = torch.nn.DataParallel(tiny(4))
number = 3

def compiled():
    return torch.compile(tiny(4))

def lazy():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))

def absent():
    with torch.device("meta"):
        return tiny(4)

def odd():
    return tiny(4), {"means": 0}

def triple():
    return tiny(4), {}, 3

def path():
    return "net.pth"

def misnamed():
    return tiny(4), {"classes": "abcd"}

def resized():
    return tiny(4), {"resize": 40}

def picky(width):
    return tiny(width)

def broken():
    raise RuntimeError("no such\\nlayer")

def leaving():
    raise SystemExit(3)

def pretrained():
    import timm
    return timm.create_model("test_resnet", num_classes=4)
"""


class TestFunctions:
    @pytest.fixture(autouse=True)
    def nets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A module `nets` in the current folder, and others that cannot be imported."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", sys.path.copy())
        names = ("nets", "pack.nets", "pack", "nosuch", "asking", "wrong", "early")
        for name in names:
            monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / "nets.py").write_text(MODULE)
        (tmp_path / "pack").mkdir()
        (tmp_path / "pack" / "nets.py").write_text(MODULE)
        (tmp_path / "asking.py").write_text("import ask")
        (tmp_path / "wrong.py").write_text("def net(:\n")
        (tmp_path / "early.py").write_text("import argparse\nargparse.nothing\n")
        yield tmp_path
        for name in names:
            sys.modules.pop(name, None)

    @pytest.mark.parametrize(
        "spec",
        ["nets:plain", "nets:sized", "nets:Net", "nets:Zoo.small", "nets:instance",
         "nets:wrapped", "nets:compiled", "pack.nets:plain"],
    )  # fmt: skip
    def test_whatever_gives_a_network(self, spec: str) -> None:
        classifier = opened(spec, tuple("abcd"), native=(32, 32), flags=HALF)
        assert classifier.module(torch.randn(2, 3, 32, 32)).shape == (2, 4)
        assert classifier.weights == f"as {spec} gives them"
        assert classifier.architecture == spec.replace(":", "-")
        assert not isinstance(classifier.module, nn.DataParallel)
        assert not hasattr(classifier.module, "_orig_mod")

    def test_what_it_says_of_its_network(self) -> None:
        classifier = opened("nets:told", tuple("abcd"), native=(32, 32))
        assert classifier.mean == (0.1, 0.2, 0.3)
        assert classifier.preprocessing.geometry.size == (24, 40)
        assert classifier.preprocessing.origin == "nets:told"
        assert classifier.classmap.members == ((3,), (2,), (1,), (0,))
        assert opened("nets:numbered", tuple("abcd"), native=(32, 32)).classmap is None
        with pytest.raises(ModelError, match="trained on other classes"):
            opened("nets:told", tuple("abce"), native=(32, 32))

    def test_its_network_with_other_weights(self, nets: Path) -> None:
        for count, spec in ((4, "nets:plain"), (6, "nets:sized"), (6, "nets:Net")):
            network = drawn(tiny(count, seed=3))
            names = {f"0.{n}" if "Net" in spec else n: t for n, t in network.state_dict().items()}
            torch.save({"state_dict": names}, nets / "w.pth")
            classes = tuple("abcdef"[:count])
            more: dict[str, Any] = {"native": (32, 32), "flags": HALF, "checkpoint": nets / "w.pth"}
            classifier = opened(spec, classes, **more)
            assert classifier.weights == f"{nets / 'w.pth'} (state_dict)"
            images = torch.randn(2, 3, 32, 32)
            assert torch.equal(classifier.module(images), network(images))
            # As many outputs as the weights have, whatever the data has.
            if spec != "nets:plain":
                with pytest.raises(ModelError, match="another number of classes"):
                    opened(spec, tuple("abc"), **more)
            assert len(opened(spec, None, **more).classes) == count

    def test_its_identity_is_that_of_weights_and_code(self) -> None:
        first = opened("nets:plain", tuple("abcd"), native=(32, 32), flags=HALF)
        again = opened("nets:instance", tuple("abcd"), native=(32, 32), flags=HALF)
        other = opened(tiny(4, seed=1), tuple("abcd"), native=(32, 32), flags=HALF)
        assert first.sha256 == again.sha256 != other.sha256

    def test_a_network_of_timm_for_other_classes_keeps_small_images(self) -> None:
        classifier = opened("nets:pretrained", tuple("abcd"), native=(64, 64))
        assert classifier.preprocessing.geometry is None
        assert opened("nets:pretrained", tuple("abcd")).preprocessing.geometry.size == (160, 160)

    @pytest.mark.parametrize(
        ("spec", "words"),
        [
            ("nosuch:net", ["there is no module 'nosuch'", "PYTHONPATH"]),
            ("pack.other:net", ["there is no module 'pack.other'"]),
            ("nets.py:plain", ["there is no module 'nets.py'", "not a file's"]),
            ("nets:nothing", ["'nets' has no 'nothing'", "plain, sized"]),
            ("nets:Zoo.large", ["'nets' has no 'Zoo.large'", "small"]),
            ("nets:number", ["does not give a network", "found: int"]),
            ("nets:path", ["does not give a network", "found: str"]),
            ("nets:triple", ["does not give a network", "found: tuple"]),
            ("nets:odd", ["says something unknown", "found: means"]),
            ("nets:misnamed", ["the classes that nets:misnamed names", "'abcd'"]),
            ("nets:resized", ["names a resize but no image size"]),
            ("nets:lazy", ["weights without values", "lazy", "run it once"]),
            ("nets:absent", ["weights without values", "on the device meta"]),
            ("nets:picky", ["failed to give a network", "missing 1 required", "without arguments"]),
            ("nets:broken", ["failed to give a network", "RuntimeError: no such, at nets.py:"]),
            ("nets:leaving", ["failed to give a network", "SystemExit: 3"]),
            ("asking:net", ["failed to give a network", "No module named 'ask', at asking.py:1"]),
            ("wrong:net", ["failed to give a network", "SyntaxError"]),
            ("early:net", ["failed to give a network", "AttributeError", "early.py:2"]),
        ],
    )
    def test_whatever_does_not(self, spec: str, words: list[str]) -> None:
        with pytest.raises(ModelError) as caught:
            opened(spec, tuple("abcd"), native=(32, 32), flags=HALF)
        assert all(word in str(caught.value) for word in words), caught.value


class TestAtHand:
    @pytest.mark.parametrize(
        "wrap",
        [lambda n: n, nn.DataParallel, torch.compile, lambda n: torch.compile(nn.DataParallel(n))],
    )
    def test_a_network_is_used_as_it_is(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        network = tiny().train().half()
        before = state_of(network)
        classifier = opened(wrap(network), tuple("abc"), native=(32, 32), flags=HALF)
        assert classifier.module is network
        assert (classifier.architecture, classifier.weights) == ("Sequential", "in memory")
        assert state_of(network) == before

    def test_a_network_of_timm_says_what_it_wants(self) -> None:
        network = timm.create_model(TIMM, num_classes=3)
        classifier = opened(network, tuple("abc"))
        assert classifier.preprocessing.describe() == (
            "resized to 168 (bilinear), cropped to 160×160; mean 0.5 0.5 0.5, std 0.5 0.5 0.5 "
            "(ResNet)"
        )
        assert opened(network, tuple("abc"), native=(64, 64)).preprocessing.geometry is None

    def test_its_own_outputs_as_classes(self) -> None:
        classifier = opened(tiny(), None, native=(32, 32), flags=HALF)
        assert classifier.classes == ("class 0", "class 1", "class 2")

    @pytest.mark.parametrize(
        ("network", "words"),
        [
            (tiny(1), ["another number of classes", "found: 1", "two logits"]),
            (tiny()[:5], ["does not give logits", "found: 2×8×8×8"]),
            (nn.Linear(3, 3), ["does not run on 32×32 images"]),
            (nn.Module(), ["does not take images alone", "found: no input"]),
        ],
    )
    def test_networks_that_do_not_fit(self, network: nn.Module, words: list[str]) -> None:
        with pytest.raises(ModelError) as caught:
            opened(network, tuple("abc"), native=(32, 32), flags=HALF)
        assert all(word in str(caught.value) for word in words), caught.value


def test_ours_by_name_and_by_file(no_shipped_weights: None, tmp_path: Path) -> None:
    file = WEIGHTS / "cifar10-cnn" / "model.safetensors"
    classifier = opened("cnn", None, checkpoint=file)
    assert classifier.weights == str(file)
    assert classifier.preprocessing.geometry.size == (32, 32)
    assert len(classifier.classes) == 10
    torch.save(build("cnn", 4).state_dict(), tmp_path / "four.pth")
    four = opened("cnn", tuple("abcd"), flags=HALF, checkpoint=tmp_path / "four.pth")
    assert "usual for cnn" in four.preprocessing.describe()
    with pytest.raises(ModelError, match="no weights for 'cnn' on 'cifar10'"):
        opened("cnn", None, dataset="cifar10")


def test_random_weights_to_look_at_layers(caches: Path) -> None:
    for name in (SMALL, TIMM, "cnn"):
        classifier = opened(name, None, flags=HALF, random_weights=True)
        assert classifier.weights == "random"
