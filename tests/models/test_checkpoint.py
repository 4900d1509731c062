"""Files of weights: every way they are wrapped and named, and nothing in them that runs."""

from __future__ import annotations

import argparse
import datetime
import enum
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from audit.errors import ModelError
from audit.models import PreprocessingFlags, Request, Wanted, build, open_classifier
from audit.models.checkpoint import HEADER, Checkpoint, fitted, load_into, read_checkpoint
from audit.models.sources import WEIGHTS
from tests.conftest import CIFAR10, random_model
from tests.models.scripting import scripted

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def open_from(
    path: Path,
    architecture: str | None = "resnet20",
    classes: tuple[str, ...] = CIFAR10,
    key: str | None = None,
    **flags: Any,
) -> Any:
    return open_classifier(
        Request(model=architecture, checkpoint=path, key=key, dataset="cifar10", num_classes=10),
        Wanted(
            classes=classes,
            native_size=(32, 32),
            flags=PreprocessingFlags(**(IMAGENET | flags)),
        ),
    )


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(random_model("resnet20").state_dict())


@pytest.mark.parametrize(
    "prefix",
    [
        "", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model.module.", "net.model.",
        "model._orig_mod.module.", "student.backbone.model.",
    ],
)  # fmt: skip
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model", "net"])
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
    assert opened.weights == f"{tmp_path / 'file.pth'}" + (f" ({wrapper})" if wrapper else "")


@pytest.mark.parametrize("suffix", ["pt", "pth", "th", "bin", "ckpt", "tar", "safetensors"])
def test_any_suffix_will_do(suffix: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"file.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(state, path)
    assert torch.equal(open_from(path).module.linear.weight, state["linear.weight"])


def test_safetensors_are_known_by_their_content(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "file.bin")
    assert torch.equal(
        open_from(tmp_path / "file.bin").module.linear.weight, state["linear.weight"]
    )


def test_a_network_saved_inside_dataparallel(tmp_path: Path) -> None:
    model = nn.DataParallel(random_model("cnn"))
    torch.save(model.state_dict(), tmp_path / "file.pth")
    opened = open_from(tmp_path / "file.pth", "cnn")
    assert torch.equal(opened.module.classifier[4].weight, model.module.classifier[4].weight)


def test_dataparallel_around_a_part_of_the_network(tmp_path: Path) -> None:
    """As PyTorch's own ImageNet example saves AlexNet and VGG."""
    model = random_model("cnn")
    model.features = nn.DataParallel(model.features)
    torch.save({"state_dict": model.state_dict(), "arch": "cnn"}, tmp_path / "file.pth")
    opened = open_from(tmp_path / "file.pth", None)
    assert torch.equal(opened.module.features[0][0].weight, model.features.module[0][0].weight)


def test_names_of_the_network_that_look_like_wrappers_stay() -> None:
    inner = nn.Sequential(OrderedDict(module=nn.Linear(2, 2), head=nn.Linear(2, 2)))
    tensors = {f"model.{name}": tensor for name, tensor in inner.state_dict().items()}
    named, left = fitted(Checkpoint(path=Path("x"), tensors=tensors, about={}, sha256=""),
                         inner.state_dict())  # fmt: skip
    assert named.keys() == inner.state_dict().keys()
    assert left == []


def test_averaged_weights_come_first(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    averaged = {name: tensor * 2 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": averaged}, tmp_path / "file.pth")
    opened = open_from(tmp_path / "file.pth")
    assert torch.equal(opened.module.linear.weight, averaged["linear.weight"])
    assert opened.weights.endswith("file.pth (state_dict_ema)")
    plain = open_from(tmp_path / "file.pth", key="state_dict")
    assert torch.equal(plain.module.linear.weight, state["linear.weight"])
    assert plain.sha256 == opened.sha256


def test_a_model_that_torch_averaged(tmp_path: Path) -> None:
    averaged = AveragedModel(random_model("resnet20"))
    averaged.update_parameters(random_model("resnet20", seed=1))
    averaged.update_parameters(random_model("resnet20", seed=2))
    torch.save({"model_ema": averaged.state_dict(), "model": {}}, tmp_path / "file.pth")
    opened = open_from(tmp_path / "file.pth")
    assert torch.equal(opened.module.linear.weight, averaged.module.linear.weight)
    (note,) = opened.notes  # nothing was left out; only the classes have no names
    assert "names of the model's classes are not known" in note


def test_the_key_of_an_entry(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    content = {"teacher": {"network": state}, "student.head": state, "state_dict": {}, "epoch": 3}
    torch.save(content, tmp_path / "file.pth")
    for key in ("teacher", "teacher.network", "student.head"):
        opened = open_from(tmp_path / "file.pth", key=key)
        assert torch.equal(opened.module.linear.weight, state["linear.weight"])
    with pytest.raises(ModelError, match="no state dict under 'epoch'") as caught:
        open_from(tmp_path / "file.pth", key="epoch")
    assert "teacher" in str(caught.value)
    with pytest.raises(ModelError, match="holds no state dict") as caught:
        open_from(tmp_path / "file.pth")
    assert "--checkpoint-key" in str(caught.value)
    save_file(state, tmp_path / "file.safetensors")
    with pytest.raises(ModelError, match="has no entry 'ema'"):
        open_from(tmp_path / "file.safetensors", key="ema")


def lightning(state: dict[str, torch.Tensor], **more: Any) -> dict[str, Any]:
    """What Lightning's trainer writes, with what people put into it."""
    weights = {f"model.{name}": tensor for name, tensor in state.items()}
    weights |= {"loss.weight": torch.ones(10), "metric.total": torch.tensor(3)}
    return {
        "epoch": 3,
        "global_step": 900,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(weights),
        "callbacks": {
            "ModelCheckpoint": {
                "best_model_score": torch.tensor(0.9),
                "best": np.float64(0.91),
                "epochs": np.int64(3),
                "history": np.arange(4.0),
                "names": np.array(["a", "b"]),
                "dirpath": Path("/somewhere/checkpoints"),
            }
        },
        "hyper_parameters": {
            "args": argparse.Namespace(lr=0.1, out=Path("runs"), seed=np.random.rand()),
            "started": datetime.datetime(2024, 1, 2),
            "half": np.float16(0.5),
            "flags": {True, False},
            **more,
        },
        "lr_schedulers": [],
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_what_lightning_writes(
    zipped: bool, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    content = lightning(state, class_to_idx={name: n for n, name in enumerate(CIFAR10)})
    torch.save(content, tmp_path / "file.ckpt", _use_new_zipfile_serialization=zipped)
    opened = open_from(tmp_path / "file.ckpt")
    assert torch.equal(opened.module.linear.weight, state["linear.weight"])
    (note,) = opened.notes
    assert note.startswith("2 tensors of ")
    assert note.endswith("loss.weight, metric.total")


class Mode(enum.Enum):
    FAST = 1


def test_a_class_of_the_trainers_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(lightning(state, mode=Mode.FAST), tmp_path / "file.ckpt")
    with pytest.raises(ModelError, match="holds more than tensors") as caught:
        open_from(tmp_path / "file.ckpt")
    assert "pickled objects that need tests.models.test_checkpoint.Mode" in str(caught.value)


def test_names_that_other_versions_write(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """NumPy 1 and Python 3.13 have other homes for the same things, and Windows other paths."""
    torch.save(lightning(state), tmp_path / "file.ckpt", _use_new_zipfile_serialization=False)
    raw = (tmp_path / "file.ckpt").read_bytes()
    for now, other in {
        b"numpy._core.multiarray": b"numpy.core.multiarray",
        b"cpathlib\nPosixPath": b"cpathlib._local\nPosixPath",
    }.items():
        assert now in raw
        (tmp_path / "other.ckpt").write_bytes(raw.replace(now, other))
        open_from(tmp_path / "other.ckpt")
    (tmp_path / "other.ckpt").write_bytes(raw.replace(b"PosixPath", b"WindowsPath"))
    open_from(tmp_path / "other.ckpt")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", list(CIFAR10)),
        ("class_names", CIFAR10),
        ("class_to_idx", {name: n for n, name in reversed(list(enumerate(CIFAR10)))}),
        ("idx_to_class", dict(enumerate(CIFAR10))),
        ("idx_to_class", {str(n): name for n, name in enumerate(CIFAR10)}),
        ("meta", {"CLASSES": CIFAR10}),
        ("hyper_parameters", {"classes": list(CIFAR10)}),
    ],
)
def test_class_names_in_the_file(
    key: str, value: object, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": state, key: value}, tmp_path / "file.pth")
    assert read_checkpoint(tmp_path / "file.pth").classes == CIFAR10
    opened = open_from(tmp_path / "file.pth", classes=tuple(reversed(CIFAR10)))
    assert opened.classmap.members[0] == (9,)
    with pytest.raises(ModelError, match="trained on other classes"):
        open_from(tmp_path / "file.pth", classes=(*CIFAR10[:9], "lorry"))


def test_class_names_that_do_not_fit_are_left_aside(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": state, "classes": ["a", "b"]}, tmp_path / "file.pth")
    note, order = open_from(tmp_path / "file.pth").notes
    assert note.startswith("2 class names come with")
    assert "taken in the data's order" in order
    torch.save({"state_dict": state, "class_to_idx": {"a": 0, "b": 2}}, tmp_path / "file.pth")
    assert read_checkpoint(tmp_path / "file.pth").classes is None


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_of_a_gpu_load_without_one(
    zipped: bool,
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    torch.save(state, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
    assert b"cuda:0" in (tmp_path / "file.pth").read_bytes()
    opened = open_from(tmp_path / "file.pth")
    assert opened.module.linear.weight.device.type == "cpu"
    assert torch.equal(opened.module.linear.weight, state["linear.weight"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_another_precision(
    dtype: torch.dtype, suffix: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    other = {n: t.to(dtype) if t.is_floating_point() else t for n, t in state.items()}
    path = tmp_path / f"file.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(other, path)
    weight = open_from(path).module.linear.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, other["linear.weight"].float())


def test_files_of_old_releases(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Not zipped, and without the counters that batch norms have had since."""
    old = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "file.th", _use_new_zipfile_serialization=False)
    assert (tmp_path / "file.th").read_bytes()[:2] == b"\x80\x02"
    assert torch.equal(open_from(tmp_path / "file.th").module.linear.weight, state["linear.weight"])


def test_safetensors_say_what_they_are(tmp_path: Path) -> None:
    header = {HEADER: '{"architecture": "cnn-se", "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'}
    save_file(random_model("cnn-se").state_dict(), tmp_path / "m.safetensors", metadata=header)
    opened = open_from(tmp_path / "m.safetensors", None, mean=None, std=None)
    assert opened.architecture == "cnn-se"
    assert opened.mean == (0.5, 0.5, 0.5)
    assert open_from(tmp_path / "m.safetensors", None).mean == IMAGENET["mean"]


def test_an_architecture_that_only_the_trainer_knows(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save({"state_dict": state, "arch": "my_net"}, tmp_path / "file.pth")
    with pytest.raises(ModelError, match="names a network that is not known here: 'my_net'"):
        open_from(tmp_path / "file.pth", None)
    assert open_from(tmp_path / "file.pth").architecture == "resnet20"


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_code_in_a_file_never_runs(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"state_dict": Malicious(marker)}, tmp_path / "zip.pth")
    torch.save({"state_dict": state, "args": Malicious(marker)}, tmp_path / "beside.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Malicious(marker)))
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Malicious(marker), protocol=2))
    for name in ("zip.pth", "beside.pth", "bare.pth", "old.pth"):
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
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:")
    (tmp_path / "keras.pth").write_bytes(b"\x89HDF\r\n")
    (tmp_path / "folder.pth").mkdir()
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
    scripted(nn.Conv2d(3, 2, 1)).save(tmp_path / "program.pth")
    for name, message in {
        "absent.pth": "does not exist",
        "folder.pth": "is a folder",
        "truncated.pth": "not a whole PyTorch checkpoint",
        "empty.pth": "not a whole PyTorch checkpoint",
        "text.pth": "not a whole PyTorch checkpoint",
        "pointer.pth": "not a whole PyTorch checkpoint(?s:.*)git lfs pull",
        "keras.pth": "not a whole PyTorch checkpoint(?s:.*)Keras",
        "cut.safetensors": "not a whole safetensors file",
        "cnn.pth": "does not hold the weights of 'resnet20'",
        "nothing.pth": "holds no state dict",
        "list.pth": "holds no state dict",
        "nan.pth": "not finite",
        "hundred.pth": "another number of classes",
        "program.pth": "is a whole program",
    }.items():
        with pytest.raises(ModelError, match=message) as caught:
            open_from(tmp_path / name)
        assert name in str(caught.value)
        assert caught.value.exit_code == 2


def test_infinite_masks_are_no_fault() -> None:
    network = nn.Linear(2, 2)
    network.register_buffer("mask", torch.zeros(2))
    tensors = network.state_dict() | {"mask": torch.tensor([0.0, -torch.inf])}
    given = Checkpoint(path=Path("x"), tensors=tensors, about={}, sha256="")
    assert load_into(network, given, "net") == []
    tensors["weight"][0, 0] = torch.inf
    with pytest.raises(ModelError, match="not finite"):
        load_into(network, given, "net")


def test_unknown_model_and_missing_weights(no_shipped_weights: None) -> None:
    def opened(model: str, dataset: str) -> None:
        request = Request(model=model, dataset=dataset, num_classes=10)
        open_classifier(request, Wanted(classes=CIFAR10, native_size=(32, 32)))

    with pytest.raises(ModelError, match="unknown model 'vgg'"):
        opened("vgg", "demo")
    for dataset in ("cifar10", "demo", "folder:/some/where"):
        with pytest.raises(ModelError, match=f"no weights for 'resnet20' on '{dataset}'"):
            opened("resnet20", dataset)


def test_normalisation_is_asked_for_where_unknown(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(ModelError, match="--mean R G B"):
        open_from(tmp_path / "m.pth", mean=None)
    with pytest.raises(ModelError, match="--std R G B"):
        open_from(tmp_path / "m.pth", std=None)


def test_constants_of_a_file_must_be_valid(tmp_path: Path) -> None:
    header = {HEADER: '{"mean": [0.5, 0.5, 0.5], "std": [0, 1, 1]}'}
    save_file(random_model("cnn").state_dict(), tmp_path / "m.safetensors", metadata=header)
    with pytest.raises(ModelError, match="above 0"):
        open_from(tmp_path / "m.safetensors", "cnn")


def test_classes_of_the_file_must_be_those_of_the_split() -> None:
    with pytest.raises(ModelError, match="trained on other classes"):
        open_from(WEIGHTS / "demo-cnn" / "model.safetensors", "cnn", mean=None, std=None)


def test_shipped_files_are_read_as_written() -> None:
    for folder in sorted(WEIGHTS.iterdir()):
        about = read_checkpoint(folder / "model.safetensors").about
        assert f"{about['dataset']}-{about['architecture']}" == folder.name
        assert {"README.md", "card.json", "epochs.csv"} <= {f.name for f in folder.iterdir()}


def test_shipped_weights_are_found_by_the_dataset() -> None:
    classes = read_checkpoint(WEIGHTS / "demo-cnn" / "model.safetensors").classes
    assert classes is not None
    opened = open_classifier(
        Request(model=None, dataset="demo", num_classes=len(classes)),
        Wanted(classes=classes, native_size=(32, 32)),
    )
    assert (opened.architecture, opened.weights) == ("cnn", "shipped with audit")
    assert opened.classmap is None
    assert build("cnn", len(classes)).state_dict().keys() == opened.module.state_dict().keys()
