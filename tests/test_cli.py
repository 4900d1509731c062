"""The command as a user runs it: one clear message for each mistake, and the right exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from audit import load_run, run_audit
from audit.config import AuditConfig, load_config
from audit.data.loader import iterate
from audit.errors import ConfigError, UsageError
from audit.explaining import explainer_of
from audit.inputs import open_inputs
from audit.models import build, evaluation
from audit.models.sources import WEIGHTS
from tests.conftest import CIFAR10, random_model, real_data
from tests.data.making import hub_parquet, image_folder, png

# The command in this process.
Here = Callable[..., subprocess.CompletedProcess[str]]


def audit(*arguments: str | Path, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "audit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload, no-any-return]


def fails(
    result: subprocess.CompletedProcess[str], code: int, *words: str, out: Path | None = None
) -> None:
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert len(re.findall(r"^(error|Error):", result.stderr, re.MULTILINE)) == 1, result.stderr
    for word in words:
        assert word in result.stderr
    if out is not None:
        assert not list(out.rglob("manifest.json"))
        assert not list(out.rglob("*.writing"))


def test_a_good_run_prints_a_summary_for_people(tmp_path: Path) -> None:
    result = audit("run", "--limit", 200, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    relying = lines.index("RELIES ON BACKGROUND: 2 of 10 classes")
    named = lines[relying + 1 : relying + 3]
    assert {line.split()[0].rstrip(":") for line in named} == {"three", "eight"}
    assert any("accuracy" in line for line in lines)
    report = next(line.removeprefix("Report: ") for line in lines if line.startswith("Report: "))
    assert Path(report).is_file()
    assert "200/200 images" in result.stderr


def test_flags_override_the_job_file(tmp_path: Path, audit_here: Here) -> None:
    job = tmp_path / "job.toml"
    job.write_text(f'dataset = "demo"\nlimit = 100\nmethod = "gradcam"\nout = "{tmp_path}/out"\n')
    assert (
        audit_here(
            "run", "--config", job, "--limit", 30, "--edits", "none", "--no-grids"
        ).returncode
        == 0
    )
    config = load_run(tmp_path / "out").manifest["config"]
    assert (config["limit"], config["method"]) == (30, ["gradcam"])


@pytest.mark.parametrize("job", ["demo", "cifar10"])
def test_the_job_files_are_valid(job: str) -> None:
    from audit.config import load_config

    assert load_config(Path(__file__).parents[1] / "jobs" / f"{job}.toml", {}).dataset == job


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset", "imagenet"], ["unknown dataset 'imagenet'", "demo | cifar10"]),
        (["--model", "vgg"], ["unknown model 'vgg'", "cnn | cnn-se | resnet20"]),
        (["--model", "resnet20"], ["no weights for 'resnet20' on 'demo'", "audit train"]),
        (["--split", "val"], ["no split named 'val'"]),
        (["--method", "magic"], ["--method", "hirescam", "'magic'"]),
        (["--method", "cam"], ["the method cam does not fit", "hirescam"]),
        (["--masks", "dataset", "--dataset", "cifar10", "--data-root", "{cifar}"],
         ["has no object masks"]),
        (["--device", "cuda:77"], ["the device 'cuda:77'"]),
        (["--limit", "0"], ["--limit", "a number of at least 1"]),
        (["--limit", "x"], ["--limit"]),
        (["--batch-size", "0"], ["--batch-size", "at least 1"]),
        (["--std", "0", "1", "1"], ["--std", "three numbers above 0"]),
        (["--mean", "nan", "0", "0"], ["--mean", "three finite numbers"]),
        (["--image-size", "5"], ["--image-size", "a number of at least 8"]),
        (["--image-size", "64xq"], ["--image-size", "192x256"]),
        (["--method", "gradcam,gradcam"], ["--method", "each method once"]),
        (["--target-layer", "layer9"], ["no layer 'layer9'", "features.2.2 (128×8×8)"]),
        (["--target-layer", "classifier.1"], ["no layer 'classifier.1'"]),
        (["--class-map", "absent.toml"], ["the class map absent.toml does not exist"]),
        (["--device", "meta"], ["the device 'meta'"]),
        (["--config", "absent.toml"], ["absent.toml does not exist"]),
        (["--frobnicate"], ["--frobnicate"]),
        (["--dataset", "cifar10", "--data-root", "nowhere"],
         ["cifar10 was not found in nowhere", "cifar-10-batches-py/", "--download"]),
        (["--checkpoint", "absent.pth"], ["absent.pth does not exist"]),
    ],
)  # fmt: skip
def test_usage_errors(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    audit_here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    hub_parquet(tmp_path / "cifar" / "test-0.parquet", [png(0)], [0], [*CIFAR10])
    filled = [argument.format(cifar=tmp_path / "cifar") for argument in arguments]
    result = audit_here("run", *filled, "--out", tmp_path / "out")
    fails(result, 2, *words, out=tmp_path)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("limit", "abc", "a whole number"),
        ("limit", 0, "a number of at least 1"),
        ("edits", "some", "'auto', 'all' or 'none', or a whole number"),
        ("max_bad", "x", "a number"),
        ("grids", "perhaps", "true or false"),
        ("mean", (0.5, "x", 0.5), "a number"),
        ("mean", (0.5, 0.5), "three numbers"),
        ("lang", "fr", "'en' or 'zh'"),
    ],
)
def test_values_that_are_not_valid_in_our_words(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError, match=f"the setting '{setting}'") as caught:
        load_config(None, {setting: value})
    assert caught.value.expected == expected


def test_what_is_given_as_network_and_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what was given as network is none") as caught:
        run_audit(network="resnet50", dataset="demo", limit=20, out=tmp_path)  # type: ignore[arg-type]
    assert caught.value.found == "str 'resnet50'"


def test_a_misspelt_setting_gets_a_suggestion(tmp_path: Path, audit_here: Here) -> None:
    (tmp_path / "job.toml").write_text('datset = "demo"')
    fails(
        audit_here("run", "--config", tmp_path / "job.toml"),
        2,
        "'datset'",
        "did you mean 'dataset'",
    )


def test_wrong_checkpoints(tmp_path: Path, audit_here: Here) -> None:
    state = random_model("cnn").state_dict()
    torch.save(state, tmp_path / "whole.pth")
    (tmp_path / "truncated.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:10_000])
    torch.save(build("cnn", 7).state_dict(), tmp_path / "seven.pth")
    nan = {n: t * torch.nan if t.is_floating_point() else t for n, t in state.items()}
    torch.save(nan, tmp_path / "nan.pth")
    torch.save({"state_dict": audit}, tmp_path / "code.pth")
    (tmp_path / "page.pth").write_text("<!doctype html><p>Not found")
    normalisation = ["--mean", 0.5, 0.5, 0.5, "--std", 0.2, 0.2, 0.2]
    for name, words in {
        "page.pth": ["page.pth is not a whole PyTorch checkpoint", "<!doctype"],
        "truncated.pth": ["truncated.pth is not a whole PyTorch checkpoint", "ends too early"],
        "seven.pth": ["another number of classes", "expected: 10", "found: 7"],
        "nan.pth": ["not finite"],
        "code.pth": ["holds more than tensors", "torch.save(model.state_dict()"],
    }.items():
        flags = ["--checkpoint", tmp_path / name, "--model", "cnn", *normalisation]
        fails(audit_here("run", *flags, "--out", tmp_path / "out"), 2, *words, out=tmp_path)
    flags = ["--checkpoint", tmp_path / "whole.pth", "--model", "resnet20", *normalisation]
    fails(audit_here("run", *flags, "--out", tmp_path / "out"), 2, "does not hold the weights of")


def test_output_that_cannot_be_written(tmp_path: Path, audit_here: Here) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "reports", Path("/proc/reports")):
        fails(audit_here("run", "--limit", 20, "--out", out), 1, "cannot write", "--out")
    cached = ["--masks", "estimated", "--limit", 20, "--cache", tmp_path / "file" / "masks"]
    fails(audit_here("run", *cached, "--out", tmp_path / "out"), 1, "cannot write", "with --cache")


def test_a_limit_on_file_sizes_loses_nothing_and_fakes_nothing(
    tmp_path: Path, audit_here: Here
) -> None:
    """The system refuses writes past 100 KiB: parts do not fit, and the run says so."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    flags = [
        "run",
        "--limit",
        500,
        "--shard-size",
        500,
        "--edits",
        "none",
        "--no-grids",
        "--out",
        tmp_path,
    ]
    fails(audit(*flags, preexec_fn=limit), 1, "cannot write", out=tmp_path)
    assert audit_here(*flags).returncode == 0


def test_a_full_disk(tmp_path: Path, audit_here: Here) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(disk)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, check=False, capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk needs privileges that this machine does not give")
    try:
        flags = [
            "run",
            "--limit",
            797,
            "--shard-size",
            200,
            "--edits",
            "none",
            "--no-grids",
            "--out",
            disk,
        ]
        fails(audit_here(*flags), 1, "No space left", "free some space", out=disk)
        kept = {p.name: p.stat().st_mtime_ns for p in disk.rglob("part-*.parquet")}
        assert kept
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        assert audit_here(*flags).returncode == 0
        now = {p.name: p.stat().st_mtime_ns for p in disk.rglob("part-*.parquet")}
        assert {name: now[name] for name in kept} == kept
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Path]:
    """100 images of ten classes, with masks, one class empty; and a checkpoint for them."""
    classes = {f"class-{k}": 0 if k == 3 else 11 for k in range(10)}
    image_folder(tmp_path / "images", classes, masks=tmp_path / "masks")
    torch.save(random_model("cnn").state_dict(), tmp_path / "model.pth")
    return tmp_path / "images", tmp_path / "masks"


def folder_flags(images: Path, masks: Path) -> list[str | Path | float]:
    return [
        "run", "--dataset", f"folder:{images}", "--mask-root", masks,
        "--checkpoint", images.parent / "model.pth", "--out", images.parent / "out",
        "--mean", 0.5, 0.5, 0.5, "--std", 0.2, 0.2, 0.2, "--no-grids",
    ]  # fmt: skip


def test_bad_images_and_masks_are_rows_with_a_status(
    folder: tuple[Path, Path], audit_here: Here
) -> None:
    images, masks = folder
    (images / "class-0" / "000.png").write_bytes(b"broken")
    (masks / "class-1" / "000.png").write_bytes(png(1, (16, 16)))
    result = audit_here(*folder_flags(images, masks))
    assert result.returncode == 0, result.stderr
    assert "1 unreadable" in result.stdout
    assert "1 mask_mismatch" in result.stdout
    run = load_run(images.parent / "out")
    assert len(run.samples) == 99
    bad = run.samples[run.samples["status"] != "ok"].set_index("sample_id")["status"]
    assert bad.to_dict() == {
        "class-0/000.png": "unreadable", "class-1/000.png": "mask_mismatch",
    }  # fmt: skip
    classes = run.classes.set_index("label_name")
    assert classes.loc["class-3", "n"] == 0
    assert classes.loc["class-0", "undefined_share"] == pytest.approx(1 / 11)
    page = (run.path / "index.html").read_text(encoding="utf-8")
    assert "The split holds no image of this class" in page
    assert "1 unreadable" in page


def test_too_many_bad_images_fail_the_run_but_keep_its_rows(
    folder: tuple[Path, Path], audit_here: Here
) -> None:
    images, masks = folder
    for file in sorted((images / "class-5").iterdir()):
        file.write_bytes(b"broken")
    flags = [*folder_flags(images, masks), "--edits", "none"]
    out = images.parent / "out"
    fails(
        audit_here(*flags),
        1,
        "11 of 99 samples cannot be audited",
        "--max-bad",
        "11 unreadable",
        out=out,
    )
    assert list(out.rglob("part-000000.parquet"))
    assert audit_here(*flags, "--max-bad", "0.2").returncode == 0
    again = audit_here(*flags)
    assert again.returncode == 1, "a finished run is held to today's limit"


def test_rows_are_read_under_any_folder_name_and_by_pandas_alone(
    tmp_path: Path, audit_here: Here
) -> None:
    out = tmp_path / "label=7" / "lr=0.1"
    assert (
        audit_here("run", "--limit", 30, "--edits", "none", "--no-grids", "--out", out).returncode
        == 0
    )
    run = load_run(out)
    assert "lr" not in run.samples.columns
    plain = pd.read_parquet(run.path / "samples", partitioning=None)
    assert len(plain) == 30


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, audit_here: Here
) -> None:
    flags = [
        "run",
        "--limit",
        30,
        "--masks",
        "estimated",
        "--edits",
        "none",
        "--no-grids",
        "--out",
        tmp_path,
    ]
    assert audit_here(*flags).returncode == 0
    run, here = load_run(tmp_path).path, socket.gethostname()
    (cache,) = (tmp_path / ".cache" / "masks").iterdir()
    (run / "manifest.json").unlink()
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead, alive = int(gone.stdout), os.getppid()
    for folder in (run, cache):
        for process in (dead, alive):
            (folder / f"x.{here}.{process}.writing").write_text("half")
    assert audit_here(*flags).returncode == 0
    for folder in (run, cache):
        assert [p.name for p in folder.rglob("*.writing")] == [f"x.{here}.{alive}.writing"]


def test_an_empty_split(tmp_path: Path, audit_here: Here) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    result = audit_here("run", "--dataset", f"folder:{tmp_path}/images", "--out", tmp_path / "out")
    fails(result, 2, "is empty", out=tmp_path)


def test_a_second_audit_of_the_same_run_waits_its_turn(tmp_path: Path, audit_here: Here) -> None:
    import fcntl

    assert (
        audit_here(
            "run", "--limit", 20, "--edits", "none", "--no-grids", "--out", tmp_path
        ).returncode
        == 0
    )
    (manifest,) = tmp_path.rglob("manifest.json")
    handle = os.open(manifest.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    fails(
        audit_here("run", "--limit", 20, "--edits", "none", "--no-grids", "--out", tmp_path),
        1,
        "another audit is writing",
    )
    os.close(handle)


def accuracy_of(config: AuditConfig) -> float:
    """Of the network that an audit opens, over its whole split; the audit itself is left out."""
    opened = open_inputs(config)
    explainer = explainer_of(opened.config, opened.classifier, opened.parts)
    batches = list(iterate(opened.split, range(len(opened.split)), batch_size=256))
    with evaluation(opened.classifier.module), torch.no_grad():
        right = [
            explainer.network(explainer.normalised(batch.images)).argmax(dim=1) == batch.labels
            for batch in batches
        ]
    return float(torch.cat(right).double().mean())


def card_of(model: str) -> dict[str, Any]:
    """What was measured when a model of CIFAR-10 was trained."""
    text = (WEIGHTS / f"cifar10-{model}" / "card.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    assert card["test_accuracy"] >= 0.82
    assert min(card["held_out_accuracy"]) >= card["test_accuracy"] - 0.02
    return card


def test_a_published_checkpoint_keeps_its_accuracy(tmp_path: Path, audit_here: Here) -> None:
    """ResNet-20, trained by someone else: 81.0% on these JPEG-recompressed images."""
    result = audit_here(
        "run", "--dataset", "cifar10", "--data-root", real_data("cifar10"), "--model", "resnet20",
        "--checkpoint", real_data("weights") / "resnet20-12fca82f.th", "--out", tmp_path,
        "--mean", 0.485, 0.456, 0.406, "--std", 0.229, 0.224, 0.225, "--masks", "ellipse",
        "--edits", "none", "--no-grids",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert load_run(tmp_path).manifest["totals"]["accuracy"] == pytest.approx(0.810, abs=0.001)


def test_a_run_of_all_images_has_the_accuracy_of_the_card(tmp_path: Path, audit_here: Here) -> None:
    card = card_of("cnn")
    result = audit_here(
        "run", "--dataset", "cifar10", "--data-root", real_data("cifar10"), "--masks", "ellipse",
        "--edits", "none", "--no-grids", "--out", tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    run = load_run(tmp_path)
    assert len(run.samples) == 10_000
    assert run.manifest["totals"]["accuracy"] == card["test_accuracy"]


def test_other_shipped_weights_reach_the_accuracy_of_their_card(tmp_path: Path) -> None:
    config = AuditConfig(
        dataset="cifar10", data_root=real_data("cifar10"), model="cnn-se", masks=("ellipse",),
        out=tmp_path,
    )  # fmt: skip
    assert accuracy_of(config) == card_of("cnn-se")["test_accuracy"]


def test_train_from_the_command_line(tmp_path: Path, audit_here: Here) -> None:
    data = tmp_path / "data"
    for part, count in (("train", 30), ("test", 10)):
        hub_parquet(data / f"{part}-0.parquet", [png(n) for n in range(count)],
                    [n % 10 for n in range(count)], [*CIFAR10])  # fmt: skip
    flags = ["--dataset", "cifar10", "--data-root", data, "--epochs", 2, "--hold-out", 5]
    result = audit_here("train", *flags, "--batch-size", 8, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "acc=" in result.stderr
    assert "Test accuracy" in result.stdout
    fails(audit_here("train", *flags, "--lr", -1), 2, "--lr", "a number above 0")
    fails(audit_here("train", *flags, "--hold-out", 0), 2, "a number of at least 1")
    other = audit_here("train", *flags, "--model", "vgg", "--out", tmp_path / "x")
    fails(other, 2, "unknown model")


def test_help_and_version_answer() -> None:
    assert "run" in audit("--help").stdout
    assert "--checkpoint" in audit("run", "--help").stdout
    assert audit("--version").stdout.startswith("audit, version ")
    assert audit().returncode in (0, 2)
