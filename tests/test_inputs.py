"""What a run is called: everything that can change a row, and nothing else."""

from __future__ import annotations

from pathlib import Path

import torch

from audit.config import load_config
from audit.inputs import open_inputs
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
    ]
    assert len({base, *changed}) == len(changed) + 1
