"""What a run is called: everything that can change a row, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import audit.models
from audit import run_audit
from audit.config import load_config
from audit.data import ArraySplit, Geometry, Split, open_split
from audit.errors import ConfigError, UsageError
from audit.inputs import mask_families, open_inputs
from tests.conftest import random_model


def test_whatever_changes_rows_changes_the_run(tmp_path: Path) -> None:
    plain, averaged = (random_model("resnet20", seed).state_dict() for seed in (0, 1))
    file = tmp_path / "model.pth"
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, file)
    for name, order in (("a", [1, 0]), ("b", [0, 1])):
        members = "\n".join(
            f"{cls} = [{order[k] if k < 2 else k}]"
            for k, cls in enumerate(
                ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
            )
        )
        (tmp_path / f"{name}.toml").write_text(members)

    def run_id(**settings: object) -> str:
        given = {
            "dataset": "demo", "limit": 20, "model": "resnet20", "checkpoint": file,
            "mean": (0.5,) * 3, "std": (0.2,) * 3, "out": tmp_path / "out",
        }  # fmt: skip
        return open_inputs(load_config(None, given | settings)).run_id

    base = run_id()
    assert base == run_id(workers=2, batch_size="auto", sanity=True, max_bad=0.5)
    # The image size that the data has anyway, and the layer that is found anyway.
    assert base == run_id(image_size=32, target_layer="layer3")
    changed = [
        run_id(checkpoint_key="state_dict"),
        run_id(mean=(0.4,) * 3),
        run_id(image_size=48),
        run_id(image_size=48, interpolation="bicubic"),
        run_id(target_layer="layer2"),
        run_id(target_layer="layer2,layer3"),
        run_id(method="gradcam"),
        run_id(method="hirescam,gradcam"),
        run_id(smooth="flip"),
        run_id(faithfulness=True),
        run_id(class_map=tmp_path / "a.toml"),
        run_id(class_map=tmp_path / "b.toml"),
        run_id(class_map=tmp_path / "b.toml", class_map_by="sum"),
        run_id(seed=1),
        run_id(precision="bf16"),
        run_id(compile="always"),
    ]
    assert len({base, *changed}) == len(changed) + 1


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 10)
        self.slope = 1.0
        self.register_buffer("shift", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear((self.slope * self.conv(x) + self.shift).relu().mean(dim=(2, 3)))


def test_what_a_network_in_memory_computes_is_part_of_the_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Scaled().eval()
    settings = {"dataset": "demo", "limit": 20, "out": tmp_path}
    settings |= {"mean": (0.5,) * 3, "std": (0.2,) * 3}

    def run_id() -> str:
        return open_inputs(load_config(None, settings), network).run_id

    ids = [run_id(), run_id()]
    network.slope = -1.0
    ids.append(run_id())
    network.shift.fill_(2.0)
    ids.append(run_id())
    with torch.no_grad():
        network.linear.bias.add_(1)
    ids.append(run_id())
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_edited_code_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("helpers_of_net.py").write_text("def act(x):\n    return x.relu()\n")
    Path("net_of_helpers.py").write_text(
        "import torch\nfrom torch import nn\nimport helpers_of_net\n\n"
        "class Act(nn.Module):\n    def forward(self, x):\n        return helpers_of_net.act(x)\n\n"
        "def build():\n    torch.manual_seed(0)\n    return nn.Sequential("
        "nn.Conv2d(3, 4, 3), Act(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))\n"
    )
    config = load_config(
        None,
        {"dataset": "demo", "limit": 20, "model": "net_of_helpers:build", "out": tmp_path / "out",
         "mean": (0.5,) * 3, "std": (0.2,) * 3},
    )  # fmt: skip
    before = open_inputs(config).run_id
    assert open_inputs(config).run_id == before
    Path("helpers_of_net.py").write_text("def act(x):\n    return (x * -3).relu()\n")
    assert open_inputs(config).run_id != before


def test_a_network_at_hand_and_a_name_are_one_too_many(tmp_path: Path) -> None:
    config = load_config(None, {"dataset": "demo", "model": "cnn", "out": tmp_path})
    with pytest.raises(UsageError, match="a network was given"):
        open_inputs(config, Scaled())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mask_object": "1,2", "mask_unknown": "2"}, ("mask_unknown", "2 too")),
        ({"mask_object": "one"}, ("mask_object", "whole numbers")),
        ({"masks": "guess"}, ("masks", "estimated | component")),
        ({"masks": "ellipse,auto"}, ("masks", "auto first")),
        ({"masks": "estimated,estimated"}, ("masks", "once")),
        ({"masks": "rembg:../../etc"}, ("masks", "rembg:SESSION")),
    ],
)
def test_settings_of_masks_that_make_no_sense(
    settings: dict[str, str], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, settings)
    for word in words:
        assert word in str(caught.value)


def test_families_of_masks() -> None:
    demo = open_split("demo")
    bare = ArraySplit(
        name="bare",
        part="test",
        classes=("a",),
        sample_ids=("x",),
        images=torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        labels=torch.zeros(1).long(),
    )

    def families(masks: str, split: Split) -> tuple[str, ...]:
        return mask_families(load_config(None, {"masks": masks}), split)

    assert families("auto", demo) == ("dataset",)
    assert families("auto", bare) == ("estimated", "component", "ellipse")
    assert families("estimated,ellipse", demo) == ("estimated", "ellipse")
    assert families("auto,estimated", demo) == ("dataset", "estimated")
    assert families("rembg:u2netp", demo) == ("rembg:u2netp", "estimated", "component", "ellipse")
    with pytest.raises(UsageError, match="has no object masks"):
        families("estimated,dataset", bare)


def test_numbers_of_classes_take_the_names_that_the_weights_know(tmp_path: Path) -> None:
    demo = open_split("demo", "test", limit=60)
    batch = demo.__getitems__(range(60))
    for i, image in enumerate(batch.images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
    labels = [str(label) for label in batch.labels.tolist()]
    labels[7] = "x7"
    rows = [f"{i}.png,{label}" for i, label in enumerate(labels)]
    (tmp_path / "data.csv").write_text("\n".join(["image,label", *rows]))
    dataset = f"manifest:{tmp_path / 'data.csv'}"
    weights = Path(audit.models.__file__).parent / "weights" / "demo-cnn" / "model.safetensors"
    given = {"dataset": dataset, "model": "cnn", "checkpoint": weights, "out": tmp_path / "out"}
    opened = open_inputs(load_config(None, given))
    assert opened.split.classes == demo.classes == opened.classifier.classes
    assert opened.classifier.classmap is None
    assert opened.plan.facets["classes"] == {"names": list(demo.classes)}
    found = opened.split.__getitems__(range(60))
    assert found.status[7] == "bad_label"
    assert found.labels.tolist() == [-1 if i == 7 else int(n) for i, n in enumerate(labels)]
    assert opened.split.facts == {
        "classes": "by number",
        "odd labels": "1 of 60 labels is no number of a class: 'x7' in row 8",
    }
    # The names are the model's: the data are the same without them.
    alone = open_split(dataset)
    assert opened.data_fingerprint == alone.framed(Geometry.square(32)).fingerprint()
    said: list[str] = []
    run = run_audit(load_config(None, given | {"edits": "none"}), say=said.append)
    assert run.manifest["classes"] == list(demo.classes)
    assert "note: 1 of 60 labels is no number of a class: 'x7' in row 8" in said[0]
