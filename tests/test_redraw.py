"""Drawing a finished run again, and the edited pictures that it keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from audit import load_run, run_audit
from audit.config import AuditConfig, load_config
from audit.errors import AuditError, ConfigError, UsageError
from audit.explaining import explainer_of
from audit.files import sole_writer
from audit.inputs import open_inputs
from audit.models import build
from audit.redraw import open_stored, redraw, with_pictures
from audit.report.thumbs import picture, silhouette
from audit.run.manifest import checksums, read_manifest
from audit.viewing import Run

EDITED = 30


def draw_dataset(folder: Path) -> None:
    """Red and blue squares with their masks; some masks do not know their border."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("blue", "red")):
        for tree in ("images", "masks"):
            (folder / tree / name).mkdir(parents=True)
        for number in range(40):
            image = rng.integers(0, 160, (32, 32, 3)).astype(np.uint8)
            mask = np.zeros((32, 32), np.uint8)
            top, left = rng.integers(2, 14, 2)
            if number % 4 == 0:
                mask[top - 1 : top + 15, left - 1 : left + 15] = 9
            mask[top : top + 14, left : left + 14] = 1
            image[mask == 1] = (40, 40, 40)
            image[mask == 1, 2 * place] = 250  # OpenCV's order
            cv2.imwrite(str(folder / "images" / name / f"{number:02d}.png"), image)
            cv2.imwrite(str(folder / "masks" / name / f"{number:02d}.png"), mask)


def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return build("cnn", 2).eval()


def audit_squares(folder: Path, out: Path, **settings: object) -> Run:
    return run_audit(
        load_config(
            None,
            {
                "dataset": f"folder:{folder / 'images'}",
                "mask_root": folder / "masks",
                "mask_object": (1,),
                "mask_unknown": (9,),
                "image_size": (32, 32),
                "mean": (0.5, 0.5, 0.5),
                "std": (0.25, 0.25, 0.25),
                "masks": ("dataset", "ellipse"),
                "edits": EDITED,
                "out": out,
                **settings,
            },
        ),
        network=network(),
    )


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    draw_dataset(folder)
    return folder


@pytest.fixture(scope="module")
def made(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return audit_squares(squares, tmp_path_factory.mktemp("redraw"))


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Path:
    """A copy in another place, as on another machine."""
    return Path(shutil.copytree(made.path, tmp_path / "moved" / "run"))


def forget(run: Path, count: int) -> list[str]:
    """Take the pictures of some samples out of a run; returns the samples."""
    table = pq.read_table(run / "thumbs.parquet")
    names = load_run(run).samples["sample_id"].tolist()[:count]
    keep = [name not in names for name in table["sample_id"].to_pylist()]
    pq.write_table(table.filter(keep), run / "thumbs.parquet")
    change(run, files=checksums(run, ["thumbs.parquet"]))
    return names


def change(run: Path, **facts: dict[str, Any]) -> None:
    """Other facts in a manifest."""
    file = run / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    changed = {name: manifest[name] | values for name, values in facts.items()}
    file.write_text(json.dumps(manifest | changed), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def data_of(page: Path) -> dict[str, object]:
    text = page.read_text(encoding="utf-8")
    content = text.partition('id="audit-data">')[2].partition("</script>")[0]
    return dict(json.loads(content))


def test_drawn_again_everything_is_the_same_to_the_byte(run: Path) -> None:
    before = contents(run)
    assert redraw(run) == run / "index.html"
    assert contents(run) == before
    assert read_manifest(run) is not None


def test_a_moved_run_takes_another_look_and_the_old_one_again(run: Path) -> None:
    before = contents(run)
    redraw(run, lang="zh", colours="viridis")
    found = load_run(run)
    assert (found.manifest["config"]["lang"], found.manifest["config"]["colours"]) == (
        "zh", "viridis"
    )  # fmt: skip
    changed = {name for name, content in contents(run).items() if before.get(name) != content}
    assert {"index.html", "manifest.json"} < changed
    assert all(name in ("index.html", "manifest.json") or name[:6] == "grids/" for name in changed)
    meta = data_of(run / "index.html")["meta"]
    assert isinstance(meta, dict) and (meta["lang"], meta["colours"]) == ("zh", "viridis")
    # As before where nothing is said.
    middle = contents(run)
    redraw(run)
    assert contents(run) == middle
    redraw(run, lang="en", colours="jet")
    assert contents(run) == before


def test_elsewhere_the_run_is_left_alone(run: Path, tmp_path: Path) -> None:
    before = contents(run)
    page = redraw(run, out=tmp_path / "there", colours="inferno", samples=["blue/00.png"])
    assert page == tmp_path / "there" / "index.html"
    assert contents(run) == before
    assert {file.name for file in (tmp_path / "there").iterdir()} == {"index.html", "grids"}
    with pytest.raises(UsageError, match="another run"):
        redraw(run, out=shutil.copytree(run, tmp_path / "other"))


def test_samples_that_were_asked_for_are_shown(run: Path) -> None:
    (new,) = forget(run, 1)
    kept = str(pq.read_table(run / "thumbs.parquet")["sample_id"][0])
    redraw(run, samples=[new, kept, new])
    table = pd.read_parquet(run / "thumbs.parquet")
    chosen = table[table["section"] == "chosen"].sort_values("rank")
    assert chosen["sample_id"].tolist() == [new, kept]
    found = data_of(run / "index.html")
    sections, samples = found["sections"], found["samples"]
    assert isinstance(sections, dict) and isinstance(samples, dict)
    assert [samples["id"][s] for s in sections["chosen"]] == [new, kept]
    assert all(samples["image"][s] for s in sections["chosen"])
    assert read_manifest(run) is not None
    before = contents(run)
    redraw(run)
    assert contents(run) == before, "they stay"
    redraw(run, samples=[])
    assert "chosen" not in set(pd.read_parquet(run / "thumbs.parquet")["section"])


def test_pictures_from_the_dataset_are_those_that_the_run_stored(run: Path) -> None:
    before = pq.read_table(run / "thumbs.parquet")
    wanted = before.to_pandas()[["section", "label", "rank", "index"]]
    forget(run, 40)
    poorer = open_stored(run)
    assert len(poorer.thumbs) < len(wanted)
    assert with_pictures(poorer, wanted, None).equals(before)


@pytest.mark.parametrize("family", ["estimated", "ellipse"])
def test_masks_of_other_families_are_made_again(squares: Path, tmp_path: Path, family: str) -> None:
    settings = {"masks": (family,), "edits": "none", "limit": 12}
    made = audit_squares(squares, tmp_path, **settings)
    before = open_stored(made.path).thumbs
    forget(made.path, 6)
    wanted = before[["section", "label", "rank", "index"]]
    after = with_pictures(open_stored(made.path), wanted, None).to_pandas()
    for old, new in zip(before["mask"], after["mask"], strict=True):
        # Of the ellipse the rows keep only the shares of cells.
        assert (silhouette(old) != silhouette(new)).mean() < (0.05 if family == "ellipse" else 1e-9)
    assert (before["image"] == after["image"]).all()


def test_a_gallery_of_some_size(run: Path) -> None:
    before = contents(run)

    def flagged(page: Path) -> int:
        sections = data_of(page)["sections"]
        assert isinstance(sections, dict)
        return len(sections.get("flagged", []))

    stored = flagged(run / "index.html")
    assert stored > 3
    redraw(run, gallery=3)
    assert flagged(run / "index.html") == 3
    assert contents(run)["thumbs.parquet"] == before["thumbs.parquet"], "nothing is thrown away"
    redraw(run, gallery=10**6)
    assert contents(run) == before, "no more are flagged"


def test_unknown_samples_and_settings_are_refused(run: Path) -> None:
    before = contents(run)
    with pytest.raises(UsageError, match="no such sample") as caught:
        redraw(run, samples=["blue/00.png", "../etc/passwd", "\x1b[31m"])
    assert caught.value.found == r"'../etc/passwd', '\x1b[31m'"
    with pytest.raises(ConfigError, match="lang"):
        redraw(run, lang="de")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="colours"):
        redraw(run, colours="hot")  # type: ignore[arg-type]
    assert contents(run) == before


def test_a_dataset_that_is_away_is_one_clear_message(run: Path) -> None:
    new, other = forget(run, 2)
    config = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["config"]
    change(run, config={"dataset": "cifar10", "data_root": "gone"})
    with pytest.raises(UsageError, match="pictures of 2 of these") as caught:
        redraw(run, samples=[new, other])
    assert "--data-root" in str(caught.value)
    change(run, config={**config, "limit": 30})
    with pytest.raises(UsageError, match="cannot be opened") as caught:
        redraw(run, samples=[new])
    assert caught.value.found == "30 samples instead of 80"
    kept = str(pq.read_table(run / "thumbs.parquet")["sample_id"][0])
    redraw(run, samples=[kept])


def test_another_dataset_in_its_place_is_refused(squares: Path, run: Path, tmp_path: Path) -> None:
    (new,) = forget(run, 1)
    other = shutil.copytree(squares, tmp_path / "other")
    for tree in ("images", "masks"):
        (other / tree / "blue" / "00.png").rename(other / tree / "blue" / "000.png")
    change(run, config={"dataset": f"folder:{other / 'images'}", "mask_root": f"{other / 'masks'}"})
    with pytest.raises(UsageError, match="not the one that was audited") as caught:
        redraw(run, samples=[new])
    assert "000.png" in str(caught.value.found)


def test_a_report_that_was_cut_off_is_mended_and_broken_rows_are_refused(run: Path) -> None:
    whole = contents(run)
    (run / "index.html").write_text("half", encoding="utf-8")
    next((run / "grids").glob("*.png")).unlink()
    (run / "grids" / "stale.png").write_bytes(b"old")
    with pytest.raises(UsageError, match="not whole"):
        load_run(run)
    redraw(run)
    assert contents(run) == whole
    part = run / "samples" / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(UsageError, match="not whole"):
        redraw(run)


def test_a_run_of_another_version_is_refused(run: Path) -> None:
    file = run / "classes.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["reliance"]), file)
    change(run, files=checksums(run, ["classes.parquet"]))
    with pytest.raises(UsageError, match="another version") as caught:
        redraw(run)
    assert caught.value.found == "classes.parquet without reliance"


def test_two_do_not_write_at_once(run: Path) -> None:
    with sole_writer(run), pytest.raises(AuditError, match="another audit is writing"):
        redraw(run)


def test_the_command(
    run: Path, tmp_path: Path, audit_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    names = tmp_path / "names.txt"
    names.write_text("blue/01.png\n\nred/02.png\n", encoding="utf-8")
    asked = ("--sample", "blue/00.png", "--samples", names, "--out", tmp_path / "there")
    done = audit_here("report", run, *asked, "--gallery", 5, "--lang", "zh")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Report: {tmp_path / 'there' / 'index.html'}\n"
    found = data_of(tmp_path / "there" / "index.html")
    sections, samples = found["sections"], found["samples"]
    assert isinstance(sections, dict) and isinstance(samples, dict)
    chosen = [samples["id"][s] for s in sections["chosen"]]
    assert chosen == ["blue/00.png", "blue/01.png", "red/02.png"]
    refused = audit_here("report", run, "--sample", "nobody")
    assert refused.returncode == 2 and "'nobody'" in refused.stderr
    absent = audit_here("report", run, "--samples", tmp_path / "none.txt")
    assert absent.returncode == 2 and "none.txt" in absent.stderr


def test_a_second_audit_in_another_language_draws_the_report_again(
    squares: Path, tmp_path: Path
) -> None:
    first = audit_squares(squares, tmp_path, limit=10, edits="none")
    part = first.path / "samples" / "part-000000.parquet"
    written = part.stat().st_mtime_ns
    second = audit_squares(squares, tmp_path, limit=10, edits="none", lang="zh")
    assert second.path == first.path and part.stat().st_mtime_ns == written
    assert second.manifest["config"]["lang"] == "zh"
    assert 'lang="zh-Hans"' in (second.path / "index.html").read_text(encoding="utf-8")
    assert read_manifest(second.path) == second.manifest
    assert "edited.parquet" not in second.manifest["files"]


def test_edited_pictures_are_what_the_rows_are_about(made: Run) -> None:
    edited = pd.read_parquet(made.path / "edited.parquet", dtype_backend="numpy_nullable")
    edits = made.edits.set_index("index")
    assert edited.groupby("label")["index"].nunique().max() <= 3
    assert set(edited["edit"]) == {
        "original", "object_only", "background_only", "mixed_same", "mixed_rand", "transplant"
    }  # fmt: skip
    fills = ["noise", "mean", "other"]
    for row in edited.to_dict("records"):
        of_row = edits.loc[row["index"]]
        prefix = "" if row["family"] == "dataset" else f"{row['family']}_"
        if row["edit"] == "original":
            assert row["predicted"] == of_row["predicted"] and pd.isna(row["fill"])
        elif row["edit"] == "transplant":
            places = np.flatnonzero(of_row["transplant_objects"] == row["object"])
            answers = of_row[f"{prefix}transplant_predictions"][places]
            assert row["predicted"] in answers
            assert row["background"] == row["label"] != row["object"]
        else:
            place = fills.index(row["fill"])
            name = f"{prefix if row['edit'] == 'background_only' else ''}{row['edit']}"
            assert row["predicted"] == of_row[f"{name}_predictions"][place]
            low, high = of_row[f"p_{name}_low"], of_row[f"p_{name}_high"]
            assert low - 1e-5 <= row["p_label"] <= high + 1e-5
            assert pd.isna(row["object"]) == (row["edit"] == "background_only")
            assert pd.isna(row["background"]) == (row["edit"] == "object_only")


def test_asked_again_the_model_says_the_same_of_the_stored_pictures(made: Run) -> None:
    edited = pd.read_parquet(made.path / "edited.parquet")
    opened = open_inputs(AuditConfig.model_validate(made.manifest["config"]), network())
    explainer = explainer_of(opened.config, opened.classifier, opened.parts)
    images = np.stack([picture(content) for content in edited["image"]])
    with torch.no_grad():
        shown = torch.from_numpy(images).permute(0, 3, 1, 2).float()
        chances = explainer.network(explainer.normalised(shown)).softmax(dim=1).numpy()
    # Rounded to whole grey levels.
    of_label = chances[np.arange(len(edited)), edited["label"]]
    assert np.abs(of_label - edited["p_label"]).max() < 0.03
    sure = abs(chances[:, 0] - chances[:, 1]) > 0.03
    assert sure.mean() > 0.8
    assert (chances.argmax(axis=1) == edited["predicted"])[sure].all()
    originals = edited[edited["edit"] == "original"]
    split = opened.split.__getitems__(originals["index"].tolist())
    for row, content in enumerate(originals["image"]):
        assert (picture(content) == split.images[row].permute(1, 2, 0).numpy()).all()
