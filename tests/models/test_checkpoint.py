from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from audit.errors import ModelError
from audit.models import open_classifier
from audit.models.checkpoint import HEADER, read_checkpoint
from audit.models.opening import WEIGHTS
from tests.conftest import CIFAR10, random_model

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def open_from(path: Path, architecture: str | None = "resnet20", **settings: Any) -> Any:
    return open_classifier(
        architecture, path, dataset="cifar10", classes=CIFAR10, **(IMAGENET | settings)
    )


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(random_model("resnet20").state_dict())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_wrappers_and_prefixes_are_removed(
    prefix: str, wrapper: str | None, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    tensors: dict[str, Any] = {prefix + name: tensor for name, tensor in state.items()}
    content = {wrapper: tensors, "epoch": 3} if wrapper else tensors
    torch.save(content, tmp_path / "file.pth")
    opened = open_from(tmp_path / "file.pth")
    assert torch.equal(opened.module.linear.weight, state["linear.weight"])
    assert not opened.module.training
    assert not any(p.requires_grad for p in opened.module.parameters())


def test_safetensors_say_what_they_are(tmp_path: Path) -> None:
    header = {HEADER: '{"architecture": "cnn-se", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'}
    save_file(random_model("cnn-se").state_dict(), tmp_path / "m.safetensors", metadata=header)
    opened = open_from(tmp_path / "m.safetensors", None, mean=None, std=None)
    assert opened.architecture == "cnn-se"
    assert opened.mean == (0.5, 0.5, 0.5)
    assert open_from(tmp_path / "m.safetensors", None).mean == IMAGENET["mean"]


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_code_in_a_file_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": Malicious(marker)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Malicious(marker)))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(ModelError, match="holds more than tensors"):
            open_from(tmp_path / name)
    assert not marker.exists()


def test_every_wrong_file_has_one_clear_message(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    good = tmp_path / "good.pth"
    torch.save(state, good)
    (tmp_path / "truncated.pth").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("hello")
    save_file(state, tmp_path / "good.safetensors")
    whole = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:5000])
    torch.save(random_model("cnn").state_dict(), tmp_path / "cnn.pth")
    torch.save({"epoch": 3}, tmp_path / "nothing.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    nan = state | {"linear.weight": torch.full_like(state["linear.weight"], torch.nan)}
    torch.save(nan, tmp_path / "nan.pth")
    hundred = state | {"linear.weight": torch.zeros(100, 64), "linear.bias": torch.zeros(100)}
    torch.save(hundred, tmp_path / "hundred.pth")
    for name, message in {
        "absent.pth": "does not exist",
        "truncated.pth": "not a whole PyTorch checkpoint",
        "empty.pth": "not a whole PyTorch checkpoint",
        "text.pth": "not a whole PyTorch checkpoint",
        "cut.safetensors": "not a whole safetensors file",
        "cnn.pth": "does not hold the weights of 'resnet20'",
        "nothing.pth": "holds no state dict",
        "list.pth": "holds no state dict",
        "nan.pth": "not finite",
        "hundred.pth": "another number of classes",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            open_from(tmp_path / name)
        assert name in str(caught.value)
        assert caught.value.exit_code == 2


def test_unknown_model_and_missing_weights() -> None:
    with pytest.raises(ModelError, match="unknown model 'vgg'"):
        open_classifier("vgg", None, dataset="demo", classes=CIFAR10)
    with pytest.raises(ModelError, match="no weights for 'resnet20' on 'cifar10'"):
        open_classifier("resnet20", None, dataset="cifar10", classes=CIFAR10)


def test_normalisation_is_asked_for_where_unknown(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(ModelError, match="--mean R G B"):
        open_from(tmp_path / "m.pth", mean=None)
    with pytest.raises(ModelError, match="above 0"):
        open_from(tmp_path / "m.pth", std=(0.0, 1.0, 1.0))


def test_classes_of_the_file_must_be_those_of_the_split() -> None:
    with pytest.raises(ModelError, match="trained on other classes"):
        open_classifier(
            "cnn", WEIGHTS / "demo-cnn" / "model.safetensors", dataset="cifar10", classes=CIFAR10
        )


def test_shipped_files_are_read_as_written() -> None:
    for folder in sorted(WEIGHTS.iterdir()):
        about = read_checkpoint(folder / "model.safetensors").about
        assert f"{about['dataset']}-{about['architecture']}" == folder.name
        assert {"README.md", "card.json", "epochs.csv"} <= {f.name for f in folder.iterdir()}
