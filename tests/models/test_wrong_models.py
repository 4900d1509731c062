"""Ten models that cannot be audited: through the command, one clear message each."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audit.cli import main
from audit.models import PreprocessingFlags, Wanted, build, cut, open_classifier
from tests.data.making import png
from tests.models.scripting import scripted
from tests.models.test_frozen import tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")

NETS = '''
import torch
from torch import nn
from tests.models.test_frozen import tiny

def flat(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, num_classes))

def nan(num_classes):
    network = tiny(num_classes)
    nn.init.constant_(network[-1].bias, torch.nan)
    return network

class Branching(nn.Module):
    """Goes one way or the other by what the whole batch holds."""

    def __init__(self, num_classes):
        super().__init__()
        self.body = tiny()[:5]
        self.heads = nn.ModuleList(nn.Linear(8, num_classes) for _ in range(2))

    def forward(self, images):
        pooled = self.body(images).mean(dim=(2, 3))
        return self.heads[int(pooled.sum() * 1000) % 2](pooled)

class Paired(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = tiny(num_classes)

    def forward(self, images, age):
        return self.body(images) + age

class Picky(nn.Module):
    """Fails on more images than it is tried on."""

    def __init__(self, num_classes=10):
        super().__init__()
        torch.manual_seed(3)
        self.body = tiny(num_classes)

    def forward(self, images):
        if len(images) > 7:
            raise ValueError("one week has seven days")
        return self.body(images)
'''


Audit = Callable[..., subprocess.CompletedProcess[str]]


class Bound(nn.Module):
    """Makes a tensor on a device that its code names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny(10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits + torch.ones(1, device="cuda")


class Methods(nn.Module):
    @torch.jit.export
    def encode(self, images: Tensor) -> Tensor:
        return images


def picture(folder: Path) -> list[str | Path]:
    (folder / "cat.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100))
    return ["--checkpoint", folder / "cat.jpg"]


def other_keys(folder: Path) -> list[str | Path]:
    torch.save(build("resnet20", 10).state_dict(), folder / "resnet20.pth")
    return ["--model", "cnn", "--checkpoint", folder / "resnet20.pth"]


def other_count(folder: Path) -> list[str | Path]:
    torch.save(build("cnn", 7).state_dict(), folder / "seven.pth")
    return ["--model", "cnn", "--checkpoint", folder / "seven.pth"]


def script_of_a_gpu(folder: Path) -> list[str | Path]:
    scripted(Bound().eval()).save(folder / "bound.pt")
    return ["--model", folder / "bound.pt"]


def script_without_forward(folder: Path) -> list[str | Path]:
    scripted(Methods()).save(folder / "methods.pt")
    return ["--model", folder / "methods.pt"]


def pickled_network(folder: Path) -> list[str | Path]:
    torch.save(tiny(10), folder / "whole.pth")
    return ["--model", "nets:flat", "--checkpoint", folder / "whole.pth"]


def function(name: str) -> Callable[[Path], list[str | Path]]:
    return lambda folder: ["--model", f"nets:{name}"]


Made = Callable[[Path], list[str | Path]]

WRONG: dict[str, tuple[Made, str, str, str]] = {
    "a picture": (
        picture,
        r"\S*/cat.jpg is not a whole PyTorch checkpoint",
        "a JPEG picture",
        "copy or download it again",
    ),
    "other keys": (
        other_keys,
        r"\S*/resnet20.pth does not hold the weights of 'cnn'",
        "22 missing: features.0.0.weight, ",
        "name the architecture that the file was trained with: --model NAME",
    ),
    "another number of classes": (
        other_count,
        r"\S*/seven.pth has another number of classes than the data",
        "7",
        "say which outputs make up each class: --class-map FILE",
    ),
    "no spatial layer": (
        function("flat"),
        "the model has no layer with a map to explain",
        "no 4-D activation",
        "class activation maps need a network",
    ),
    "logits that are NaN": (
        function("nan"),
        "'nets-nan' gives logits that are not finite",
        "20 NaN or infinite of 20",
        "check the weights",
    ),
    "a branch on the batch": (
        function("Branching"),
        "'nets-Branching' gives an image other logits beside other images",
        "a branch on the whole batch",
        "let nothing depend on the batch",
    ),
    "two inputs": (
        function("Paired"),
        "'nets-Paired' does not take images alone",
        "2 inputs: images, age",
        "wrap it in a module that fixes the others",
    ),
    "a program of a GPU": (
        script_of_a_gpu,
        "'bound' insists on a GPU: its code or its graph names the device",
        "cuda" if torch.cuda.is_available() else "NVIDIA",
        "export it on the CPU",
    ),
    "a program without forward": (
        script_without_forward,
        r"the TorchScript file \S*/methods.pt has no forward method",
        "methods: encode",
        "save torch.jit.script(network) of the network itself",
    ),
    "a pickled network": (
        pickled_network,
        r"\S*/whole.pth holds more than tensors and was not loaded",
        "pickled objects that need torch.nn.modules.",
        "torch.save(model.state_dict(), FILE)",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    (tmp_path / "nets.py").write_text(NETS)
    return tmp_path


def audited(*arguments: str | Path) -> list[str]:
    return [
        "audit", "run", "--dataset", "demo", *map(str, arguments), "--out", "out",
        "--mean", "0.5", "0.5", "0.5", "--std", "0.25", "0.25", "0.25", "--limit", "20",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_one_clear_message(
    wrong: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, problem, found, remedy = WRONG[wrong]
    monkeypatch.setattr(sys, "argv", audited(*made(folder)))
    with pytest.raises(SystemExit) as left:
        main()
    sys.modules.pop("nets", None)
    said = capsys.readouterr()
    assert left.value.code == 2, said.err
    one_message(said.err, problem, found, remedy)
    assert said.out == ""
    assert not list((folder / "out").rglob("*"))


def one_message(said: str, problem: str, found: str, remedy: str) -> None:
    opening, *lines = said.splitlines()
    assert re.fullmatch(r"audit \S+: demo, opening …", opening)
    assert "Traceback" not in said
    assert re.fullmatch(f"error: {problem}", lines[0]), said
    fields = dict(line.strip().split(": ", 1) for line in lines[1:])
    assert fields.keys() <= {"expected", "found", "remedy"}, said
    assert found in fields["found"], said
    assert remedy in fields.get("remedy", ""), said


@pytest.mark.parametrize("wrong", ["a program of a GPU", "a branch on the batch"])
def test_nothing_else_reaches_the_terminal(wrong: str, folder: Path) -> None:
    """In a process of its own, where libraries write their warnings to the terminal."""
    made, problem, found, remedy = WRONG[wrong]
    command = [sys.executable, "-m", *audited(*made(folder))]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env={"PATH": "", "PYTHONPATH": ":".join([str(folder), *sys.path])},
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    one_message(result.stderr, problem, found, remedy)


class Choosing(nn.Module):
    """Goes one way or the other by each image for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = tiny()[:5], nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        pooled = self.body(images).mean(dim=(2, 3))
        return torch.stack([self.head(p if p.mean() > 0.1 else 2 * p) for p in pooled])


def test_a_branch_on_each_image_is_no_fault() -> None:
    flags = PreprocessingFlags(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    wanted = Wanted(classes=("a", "b", "c"), native_size=(32, 32), flags=flags)
    assert cut(open_classifier(Choosing(), wanted).module, (32, 32)).how == "hooks"


def test_a_picture_as_the_model(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "cat.png").write_bytes(png(0))
    monkeypatch.setattr(sys, "argv", audited("--model", "cat.png"))
    with pytest.raises(SystemExit):
        main()
    one_message(
        capsys.readouterr().err, "cat.png is not a model program", "a PNG picture", "--checkpoint"
    )


@pytest.mark.parametrize("command", ["run", "explain"])
def test_a_network_that_fails_later(command: str, folder: Path, audit_here: Audit) -> None:
    constants = ["--mean", 0, 0, 0, "--std", 1, 1, 1]
    if command == "run":
        said = audit_here("run", "--limit", 20, "--model", "nets:Picky", *constants, "--out", "out")
    else:
        for number in range(8):
            (folder / f"{number}.png").write_bytes(png(number))
        shown = ["--image-size", 32, "--out", "out"]
        said = audit_here("explain", ".", "--model", "nets:Picky", *constants, *shown)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    error = said.stderr[said.stderr.index("error: ") :].splitlines()
    assert re.fullmatch(r"error: the model 'nets-Picky' fails on a batch of \d+ images", error[0])
    assert re.fullmatch(
        r"  found: ValueError: one week has seven days, at nets\.py:\d+", error[1]
    ), error
    assert error[2].startswith("  remedy: mend the network, or ")
