"""How pictures were stored travels with their batch and ends in the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from audit import run_audit
from audit.data import Geometry, LimitedSplit, open_split
from tests.conftest import random_model
from tests.data.making import encoded, hub_parquet, image_folder, png

CIFAR10_NAMES = [str(n) for n in range(10)]


class Pictures:
    """A user's dataset of arrays."""

    classes = ("a",)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return (np.zeros((20, 30, 3), np.uint8), 0) if i else (png(0, (50, 40)), 0)


def test_files_tell_their_size_before_the_geometry(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3})
    wide, turned = png(0, (64, 48)), Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[ExifTags.Base.Orientation] = 6
    (tmp_path / "a" / "000.png").write_bytes(wide)
    (tmp_path / "a" / "001.jpg").write_bytes(encoded(turned, "JPEG", exif=exif))
    (tmp_path / "a" / "001.png").write_bytes(b"broken")
    split = open_split(f"folder:{tmp_path}", image_size=16)
    stored = split.__getitems__([2, 0, 1, 3]).stored
    assert stored is not None
    small = (tmp_path / "a" / "002.png").stat().st_size
    jpeg = (tmp_path / "a" / "001.jpg").stat().st_size
    assert split.__getitems__(range(4)).sample_id[1:3] == ["a/001.jpg", "a/001.png"]
    assert stored.tolist() == [[-1, -1, -1], [48, 64, len(wide)], [40, 20, jpeg], [32, 32, small]]


def test_framed_and_limited_splits_keep_it(tmp_path: Path) -> None:
    images = [png(n) for n in range(6)]
    hub_parquet(tmp_path / "test-0.parquet", images, [0] * 6, CIFAR10_NAMES)
    split = open_split("cifar10", root=tmp_path).framed(Geometry.square(48))
    stored = LimitedSplit(split, 3).__getitems__([1, 2]).stored
    assert stored is not None
    assert stored.tolist() == [[32, 32, len(images[2])], [32, 32, len(images[4])]]


def test_arrays_have_a_size_but_no_file() -> None:
    stored = open_split(f"{__name__}:Pictures").__getitems__([0, 1]).stored
    assert stored is not None
    assert stored.tolist() == [[40, 50, len(png(0, (50, 40)))], [20, 30, -1]]
    assert open_split("demo").__getitems__([0]).stored is None


def test_rows_hold_sizes_properties_and_nulls(tmp_path: Path) -> None:
    image_folder(tmp_path / "i", dict.fromkeys(CIFAR10_NAMES, 4))
    (tmp_path / "i" / "0" / "001.png").write_bytes(b"broken")
    (tmp_path / "i" / "1" / "000.png").write_bytes((tmp_path / "i" / "0" / "000.png").read_bytes())
    run = run_audit(
        dataset=f"folder:{tmp_path}/i", network=random_model("cnn"), edits="none", grids=False,
        max_bad=0.1,
        image_size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), out=tmp_path / "out",
    )  # fmt: skip
    rows = run.samples.set_index("sample_id")
    broken, first, copy = rows.loc["0/001.png"], rows.loc["0/000.png"], rows.loc["1/000.png"]
    assert broken["status"] == "unreadable"
    names = ["brightness", "entropy", "image_hash", "stored_height", "stored_width", "file_bytes"]
    assert broken[names].isna().all()
    assert first[names].equals(copy[names])
    assert rows["image_hash"].nunique() == 38
    assert (first["stored_height"], first["stored_width"]) == (32, 32)
    assert first["file_bytes"] == (tmp_path / "i" / "0" / "000.png").stat().st_size
    assert 0.4 < first["brightness"] < 0.6
    of_split = run.properties[run.properties["label"].isna()].set_index("property")
    assert of_split.loc["brightness", "n"] == 39, "the copy has another label"
    assert of_split.loc["pixels", "median"] == 1024
