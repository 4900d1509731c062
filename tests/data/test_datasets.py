"""Each source of pictures with masks, on tiny copies of its layout that show their own masks."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from torch.utils.data import Dataset

from audit.data import Batch, Geometry, MaskFiles, Split, iterate, open_split
from audit.data.boxes import soft_box
from audit.data.maskvalues import BadMask, OtherSize
from audit.data.pictures import PictureSplit, Window
from audit.data.rle import fill
from audit.data.tablefile import read_table
from audit.errors import DataError
from tests.conftest import real_data
from tests.data.making import (
    CROWD,
    DOGS,
    HEIGHT,
    OBJECT,
    WIDTH,
    annotation,
    boxes_coco,
    boxes_csv,
    boxes_voc,
    coco_folder,
    encoded,
    filled,
    manifest,
    painted,
    painted_folder,
    palette_png,
    parquet_with_masks,
    pet_folder,
    run_lengths,
    voc_folder,
    write,
)

# Half the size, and 24 columns of 40 in the middle: columns 16 to 64 of the original.
HALF = Geometry(size=(24, 24), resize=24)


def fetch(split: Split, geometry: Geometry = HALF) -> Batch:
    return split.framed(geometry).__getitems__(range(len(split)))


def assert_shown(batch: Batch, *rows: int) -> None:
    """The red channel is the object and the green one what is unknown."""
    assert batch.object_mask is not None
    for row in rows:
        red, green, _ = batch.images[row] / 255
        assert (red - batch.object_mask[row]).abs().max() <= 1.5 / 255
        if batch.unknown is None:
            assert green.max() == 0
        else:
            assert (green - batch.unknown[row]).abs().max() <= 1.5 / 255
            assert (batch.object_mask[row] + batch.unknown[row]).max() <= 1


def halved(inside: np.ndarray) -> torch.Tensor:
    """By hand: means of 2×2 pixels, columns 8 to 32 of 40."""
    share = torch.from_numpy(inside).float().reshape(HEIGHT // 2, 2, WIDTH // 2, 2)
    return share.mean(dim=(1, 3))[:, 8:32]


def same_from_workers(split: Split) -> None:
    alone = fetch(split)
    parts = list(iterate(split.framed(HALF), range(len(split)), batch_size=1, workers=2))
    assert [part.sample_id[0] for part in parts] == alone.sample_id
    assert [part.problem[0] for part in parts] == alone.problem
    assert alone.object_mask is not None
    for row, part in enumerate(parts):
        assert torch.equal(part.images[0], alone.images[row])
        assert part.object_mask is not None
        assert torch.equal(part.object_mask[0], alone.object_mask[row])


# -- oxford-iiit-pet


def test_pets(tmp_path: Path) -> None:
    pet_folder(tmp_path)
    split = open_split("oxford-iiit-pet", root=tmp_path)
    batch = fetch(split)
    assert split.classes == ("Abyssinian", "American Bulldog")
    assert split.name == "oxford-iiit-pet"
    assert split.stored_size is None
    assert batch.sample_id == ["Abyssinian_1.jpg", "american_bulldog_2.jpg", "Abyssinian_3.jpg"]
    assert batch.labels.tolist() == [0, 1, 0]
    assert batch.status == ["ok"] * 3
    assert_shown(batch, 0, 1, 2)
    # Antialiased bilinear at half the size is no plain mean; inside and outside it agrees.
    assert batch.object_mask is not None
    assert ((batch.object_mask[0] - halved(filled((10, 20, 30, 50)))).abs() < 0.3).all()
    assert len(open_split("oxford-iiit-pet", "train", root=tmp_path)) == 1
    same_from_workers(split)


def test_pets_that_are_damaged(tmp_path: Path) -> None:
    folder = pet_folder(tmp_path)
    before = open_split("oxford-iiit-pet", root=tmp_path).fingerprint()
    (folder / "annotations" / "trimaps" / "Abyssinian_1.png").unlink()
    (folder / "images" / "Abyssinian_3.jpg").write_bytes(b"broken")
    split = open_split("oxford-iiit-pet", root=tmp_path)
    assert fetch(split).status == ["mask_missing", "ok", "unreadable"]
    assert split.fingerprint() != before
    write(folder / "annotations" / "test.txt", "Abyssinian_1 first 1 1\n")
    with pytest.raises(DataError, match=r"test\.txt cannot be read"):
        open_split("oxford-iiit-pet", root=tmp_path)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("oxford-iiit-pet", ("images/", "--data-root", "--download")),
        ("voc", ("VOCdevkit/VOC2012/", "SegmentationObject/", "--data-root", "--download")),
        ("coco", ("annotations/instances_val2017.json", "--data-root")),
    ],
)
def test_absent_data_names_the_remedy(dataset: str, words: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_split(dataset, "val" if dataset != "oxford-iiit-pet" else "test", root=tmp_path)
    assert "was not found" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_unknown_parts_name_those_that_exist(tmp_path: Path) -> None:
    pet_folder(tmp_path)
    voc_folder(tmp_path)
    coco_folder(tmp_path)
    for dataset, part, words in (
        ("oxford-iiit-pet", "val", "test or trainval"),
        ("voc", "test", "train | trainval | val"),
        ("coco", "test", "expected: val"),
    ):
        with pytest.raises(DataError, match="has no split named") as caught:
            open_split(dataset, part, root=tmp_path)
        assert words in str(caught.value)


# -- voc


def test_voc_takes_the_largest_objects_class(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    split = open_split("voc", "val", root=tmp_path)
    batch = fetch(split)
    assert split.classes[9] == "cow"
    assert batch.labels.tolist() == [9, -1]
    assert batch.status == ["ok", "bad_label"]
    assert batch.problem[1] == "2007_000002.jpg: no object is marked in it"
    assert_shown(batch, 0, 1)
    assert batch.unknown is not None
    assert batch.unknown[0].sum() > 0
    same_from_workers(split)


def test_voc_cuts_out_each_object(tmp_path: Path) -> None:
    voc_folder(tmp_path)
    split = open_split("voc", "val", root=tmp_path, samples="instances")
    assert split.facts == {"instances_too_small": 2}
    batch = fetch(split, Geometry.square(44))
    assert batch.sample_id == ["2007_000001.jpg@1"]
    assert batch.labels.tolist() == [9]
    # The box is 34 long, so the square's side is 44; round (23, 20) it starts at row 1, column 0.
    inside = torch.from_numpy(filled((6, 11, 40, 29)))[1:45, :44].float()
    assert batch.object_mask is not None
    assert torch.equal(batch.object_mask[0], inside)
    assert_shown(batch, 0)


def test_other_objects_of_the_class_are_unknown_in_a_cutout(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path)
    things = np.where(filled((4, 4, 44, 30)), 1, np.where(filled((8, 40, 44, 70)), 2, 0))
    write(folder / "SegmentationObject" / "2007_000001.png", palette_png(things))
    write(folder / "SegmentationClass" / "2007_000001.png", palette_png((things > 0) * 15))
    batch = fetch(open_split("voc", "val", root=tmp_path, samples="instances"), Geometry.square(48))
    assert batch.sample_id == ["2007_000001.jpg@1", "2007_000001.jpg@2"]
    assert batch.object_mask is not None
    assert batch.unknown is not None
    assert torch.equal(batch.object_mask[0], torch.from_numpy(things == 1)[:, :48].float())
    assert torch.equal(batch.unknown[0], torch.from_numpy(things == 2)[:, :48].float())
    assert torch.equal(batch.unknown[1], torch.from_numpy(things == 1)[:, 31:79].float())


def test_voc_masks_that_are_damaged(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path)
    before = open_split("voc", "val", root=tmp_path).fingerprint()
    (folder / "SegmentationClass" / "2007_000001.png").write_bytes(b"broken")
    (folder / "SegmentationClass" / "2007_000002.png").unlink()
    split = open_split("voc", "val", root=tmp_path)
    batch = fetch(split)
    assert batch.status == ["mask_unreadable", "mask_missing"]
    assert "SegmentationClass/2007_000001.png" in batch.problem[0]
    assert split.fingerprint() != before


def test_a_damaged_mask_of_objects_is_told_and_keeps_its_row(tmp_path: Path) -> None:
    folder = voc_folder(tmp_path) / "SegmentationObject"
    (folder / "2007_000002.png").write_bytes(b"broken")
    batch = fetch(open_split("voc", "val", root=tmp_path))
    assert batch.status == ["ok", "mask_unreadable"]
    assert "SegmentationObject/2007_000002.png cannot be read" in batch.problem[1]
    split = open_split("voc", "val", root=tmp_path, samples="instances")
    batch = fetch(split)
    assert batch.sample_id == ["2007_000001.jpg@1", "2007_000002.jpg"]
    assert batch.status == ["ok", "mask_unreadable"]
    assert batch.labels.tolist() == [9, -1]
    assert "its label is not known" in batch.problem[1]
    same_from_workers(split)
    (folder / "2007_000001.png").unlink()
    for samples in ("images", "instances"):
        batch = fetch(open_split("voc", "val", root=tmp_path, samples=samples))
        assert batch.status == ["mask_missing", "mask_unreadable"]
        assert batch.images[0].sum() > 0


# -- coco


def test_coco_takes_the_largest_objects_class(tmp_path: Path) -> None:
    split = open_split("coco", "val", root=coco_folder(tmp_path))
    batch = fetch(split)
    assert split.classes == ("cat", "dog")
    assert split.facts == {"pictures_without_objects": 1}
    assert batch.sample_id == ["000000000001.jpg", "000000000003.jpg", "000000000004.jpg"]
    assert batch.labels.tolist() == [1, 0, 0]
    assert batch.status == ["ok", "ok", "unreadable"]
    assert "No such file" in batch.problem[2]
    assert_shown(batch, 0, 1)
    assert batch.unknown is not None
    assert batch.unknown[0].sum() > 0
    same_from_workers(split)


def test_coco_at_full_size_is_what_the_annotations_say(tmp_path: Path) -> None:
    split = open_split("coco", "val", root=coco_folder(tmp_path))
    whole = Geometry(size=(HEIGHT, WIDTH), resize=(HEIGHT, WIDTH))
    batch = fetch(split, whole)
    assert batch.object_mask is not None
    assert batch.unknown is not None
    assert torch.equal(batch.object_mask[0], torch.from_numpy(filled(*DOGS)).float())
    assert torch.equal(batch.unknown[0], torch.from_numpy(filled(CROWD)).float())


def test_coco_cuts_out_each_object(tmp_path: Path) -> None:
    split = open_split("coco", "val", root=coco_folder(tmp_path), samples="instances")
    assert split.facts == {"instances_too_small": 2}
    batch = fetch(split, Geometry.square(48))
    assert batch.sample_id == [f"00000000000{n}.jpg@{n}1" for n in (1, 3, 4)]
    # 38 pixels and 30% are more than the 48 rows; round column 25 the square starts at 1.
    inside = torch.from_numpy(filled(DOGS[0]))[:, 1:49].float()
    assert batch.object_mask is not None
    assert batch.unknown is None
    assert torch.equal(batch.object_mask[0], inside)
    assert torch.equal(batch.images[0, 0] / 255, inside)


@pytest.mark.parametrize("place", ["images", "images/val2017", "val2017", "val", "annotations"])
def test_coco_pictures_are_found_in_the_usual_places(place: str, tmp_path: Path) -> None:
    coco_folder(tmp_path)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    if place == "annotations":
        for picture in (tmp_path / "val2017").iterdir():
            picture.rename(tmp_path / place / picture.name)
    else:
        (tmp_path / "val2017").rename(tmp_path / place)
    file = tmp_path / "annotations" / "instances_val2017.json"
    split = open_split(f"coco:{file}", "val")
    assert split.name == "val2017"
    assert fetch(split).status == ["ok", "ok", "unreadable"]


def edited(root: Path, **changes: object) -> Split:
    """The split after its first dog's annotation was changed."""
    file = root / "annotations" / "instances_val2017.json"
    said = json.loads(file.read_text())
    said["annotations"][0] |= changes
    file.write_text(json.dumps(said))
    return open_split("coco", "val", root=root)


BIT = filled(DOGS[0])
OUTLINES = {
    "polygon over the edge": ([[-0.5, 6, 40, 6, 40, 44, -0.5, 44]], "ok", ""),
    "packed run lengths": (
        {
            "size": [HEIGHT, WIDTH],
            "counts": coco.encode(np.asfortranarray(BIT.astype("u1")))["counts"].decode(),
        },
        "ok",
        "",
    ),
    "another size": (
        run_lengths(BIT.T.copy()), "mask_mismatch", "instances_val2017.json is 48×80 pixels",
    ),
    "short": ({"size": [HEIGHT, WIDTH], "counts": [5]}, "mask_unreadable", "do not add up"),
    "negative": ({"size": [HEIGHT, WIDTH], "counts": [-5, 5]}, "mask_unreadable", "add up"),
    "empty text": ({"size": [HEIGHT, WIDTH], "counts": ""}, "mask_unreadable", "do not add up"),
    "broken text": ({"size": [HEIGHT, WIDTH], "counts": "~~"}, "mask_unreadable", "no number"),
    "half text": ({"size": [HEIGHT, WIDTH], "counts": "P"}, "mask_unreadable", "within a number"),
    "no size": ({"counts": [5]}, "mask_unreadable", "size"),
    "a wrapping sum": (
        {"size": [HEIGHT, WIDTH], "counts": [2**62] * 4 + [HEIGHT * WIDTH]},
        "mask_unreadable",
        "do not add up",
    ),
    "huge": ({"size": [HEIGHT, WIDTH], "counts": [10**30]}, "mask_unreadable", "do not add up"),
    "huge size": ({"size": [10**400, 5], "counts": [5]}, "mask_unreadable", "size"),
    "far beyond floats": ([[0, 0, 10**400, 0, 5, 5]], "mask_mismatch", "beyond the picture"),
    "a number among polygons": ([[0, 0, 2, 0, 2, 2], 5], "mask_unreadable", "no polygon"),
    "counts among polygons": ([[0, 0, 2, 0, 2, 2], {"counts": []}], "mask_unreadable", "polygon"),
    "a number among counts": ([run_lengths(BIT), 5], "mask_unreadable", "no run lengths"),
    "far away": ([[0, 0, 1e12, 0, 5, 5]], "mask_mismatch", "beyond the picture"),
    "odd": ([[0, 0, 5, 5, 5, 6, 7]], "mask_unreadable", "pairs"),
    "two corners": ([[0, 0, 5, 5]], "mask_unreadable", "three corners"),
    "a box alone": ([], "mask_missing", "no outline"),
    "null": (None, "mask_missing", "no outline"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OUTLINES)
def test_outlines_of_every_kind(kind: str, tmp_path: Path) -> None:
    outline, status, words = OUTLINES[kind]
    before = open_split("coco", "val", root=coco_folder(tmp_path)).fingerprint()
    split = edited(tmp_path, segmentation=outline)
    batch = fetch(split)
    assert batch.status[:2] == [status, "ok"]
    assert words in batch.problem[0]
    assert split.fingerprint() != before
    if kind == "packed run lengths":
        assert_shown(batch, 0)


def test_run_lengths_equal_pycocotools(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        size = tuple(rng.integers(1, 60, 2).tolist())
        inside = rng.random(size) < rng.random()
        packed = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
        as_text = {"size": list(size), "counts": packed["counts"].decode()}
        for said in (as_text, packed, run_lengths(inside), json.dumps(as_text), [as_text]):
            assert np.array_equal(fill(said, size, "x"), inside)
        assert np.array_equal(fill(run_lengths(inside)["counts"], size, "x"), inside)
        with pytest.raises((OtherSize, BadMask)):
            fill(as_text, (size[0] + 1, size[1]), "x")


NUMBERS = st.one_of(
    st.integers(),
    st.integers(-2, 30),
    st.floats(),
    st.sampled_from([2**31, 2**62, 2**63, 10**30, 10**400, -(10**400), True, None, "3"]),
)
SIZES = st.one_of(st.just([4, 5]), st.lists(NUMBERS, max_size=3), NUMBERS)
COUNTS = st.one_of(
    st.lists(st.integers(0, 20), max_size=6), st.lists(NUMBERS), st.text("0123`aoP~é", max_size=9)
)
RUNS = st.fixed_dictionaries({}, optional={"size": SIZES, "counts": COUNTS | NUMBERS})
POLYGON = st.lists(st.integers(-4, 8) | st.floats(-5, 9) | NUMBERS, max_size=9)
SAID = st.one_of(
    RUNS, st.lists(RUNS | POLYGON | NUMBERS, max_size=3), COUNTS, NUMBERS, st.text(), st.binary()
)


@settings(deadline=None, max_examples=300)
@given(SAID, st.booleans())
def test_no_outline_ends_a_run(said: object, as_json: bool) -> None:
    if as_json and not isinstance(said, bytes):
        said = json.dumps(said)
    try:
        filled_in = fill(said, (4, 5), "x")
    except BadMask as error:
        assert error.status in ("mask_unreadable", "mask_mismatch")
        assert "x" in str(error)
    except OtherSize as error:
        assert error.size[0] / 4 > 0
    else:
        assert (filled_in.shape, filled_in.dtype) == ((4, 5), np.bool_)


def test_crafted_outlines_are_unreadable() -> None:
    for said in (
        {"size": [4, 4], "counts": [2**62] * 4 + [16]},
        "[" * 200_000,
        "[" * 900 + "]" * 900,
        b"\xff\xfe",
        json.dumps("0"),
    ):
        with pytest.raises(BadMask, match="cannot be read") as caught:
            fill(said, (4, 4), "x")
        assert caught.value.status == "mask_unreadable"


def instances_of(root: Path, changes: dict[int, dict[str, object]]) -> Split:
    """Cut-outs of a picture with two dogs of 32 pixels or more, after some were changed."""
    coco_folder(root)
    file = root / "annotations" / "instances_val2017.json"
    said = json.loads(file.read_text())
    dogs = [annotation(n, 1, 18, region) for n, region in ((11, TWO[0]), (12, TWO[1]))]
    said["annotations"] = [one | changes.get(one["id"], {}) for one in dogs]
    said["images"] = [one for one in said["images"] if one["id"] == 1]
    file.write_text(json.dumps(said))
    return open_split("coco", "val", root=root, samples="instances")


TWO = ((6, 4, 44, 20), (4, 30, 44, 60))


@pytest.mark.parametrize("outline", [[], None, {"size": [HEIGHT, WIDTH], "counts": [5]}])
def test_a_neighbour_without_outline_is_its_box(outline: object, tmp_path: Path) -> None:
    before = instances_of(tmp_path, {})
    assert fetch(before).status == ["ok", "ok"]
    box = [29.5, -3, 33.2, 20]
    split = instances_of(tmp_path, {12: {"segmentation": outline, "bbox": box}})
    assert split.fingerprint() != before.fingerprint()
    batch = fetch(split, Geometry.square(48))
    assert batch.status[0] == "ok"
    assert batch.status[1] in ("mask_missing", "mask_unreadable")
    assert batch.object_mask is not None
    assert batch.unknown is not None
    # The square starts at column 0.
    assert torch.equal(batch.object_mask[0], torch.from_numpy(filled(TWO[0]))[:, :48].float())
    neighbour = torch.from_numpy(filled((0, 29, 17, 63)))[:, :48].float()
    assert torch.equal(batch.unknown[0], neighbour)
    gone = {"segmentation": outline, "bbox": None}
    assert fetch(instances_of(tmp_path, {12: gone})).status == [batch.status[1]]


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), float("-inf"), 1e308, 10**400, -(10**400)]
)
def test_boxes_that_are_no_numbers_are_none(number: float, tmp_path: Path) -> None:
    for place in range(4):
        box: list[float] = [4, 6, 16, 38]
        box[place] = number
        split = instances_of(tmp_path, {11: {"bbox": box, "area": number}})
        assert split.facts == {"instances_without_box": 1}
        assert fetch(split).status == ["ok"]
        assert len(split.fingerprint()) == 64
        whole = open_split("coco", "val", root=tmp_path)
        assert fetch(whole).status == ["ok"]


def test_numbers_of_coco_that_cannot_be(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    text = file.read_text()
    said = json.loads(text)
    said["images"][3] |= {"height": 10**400}
    file.write_text(json.dumps(said))
    assert fetch(open_split("coco", "val", root=tmp_path)).status[0] == "ok"
    deep = '"id": 11, "more": ' + "[" * 200_000 + "]" * 200_000
    for wrong in ('"id": Infinity', deep):
        file.write_text(text.replace('"id": 11', wrong, 1))
        with pytest.raises(DataError, match="no COCO instances file"):
            open_split("coco", "val", root=tmp_path)


def test_pictures_of_another_size_than_coco_says(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    write(tmp_path / "val2017" / "000000000001.jpg", painted(filled(size=(WIDTH, HEIGHT))))
    batch = fetch(open_split("coco", "val", root=tmp_path))
    assert batch.status[0] == "mask_mismatch"
    assert "transposed" in batch.problem[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2", "no COCO instances file"),
        ('{"images": []}', "no list 'annotations' among images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image that lacks"),
        (
            '{"images": [], "annotations": [{"id": 7, "image_id": "x", "category_id": 1}], '
            '"categories": []}',
            "annotation 7, whose",
        ),
        ("[]", "a list on its top level"),
    ],
)
def test_files_that_are_no_annotations(text: str, words: str, tmp_path: Path) -> None:
    write(tmp_path / "x.json", text)
    with pytest.raises(DataError, match=words):
        open_split(f"coco:{tmp_path}/x.json")
    with pytest.raises(DataError, match="cannot be read"):
        open_split(f"coco:{tmp_path}/absent.json")


def test_coco_without_its_pictures_says_where_they_were_sought(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="pictures of") as caught:
        open_split("coco", "val", root=tmp_path)
    assert "000000000001.jpg" in str(caught.value)


def test_coco_files_and_pictures_are_sought_under_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coco_folder(tmp_path / "data")
    file = tmp_path / "elsewhere" / "deep" / "my.json"
    write(file, (tmp_path / "data" / "annotations" / "instances_val2017.json").read_text())
    assert fetch(open_split(f"coco:{file}", "val", root=tmp_path / "data")).status[0] == "ok"
    with pytest.raises(DataError, match="name their folder with --data-root") as caught:
        open_split(f"coco:{file}", "val", root=tmp_path)
    assert f"put them into {file.parent}," in str(caught.value)
    monkeypatch.chdir(tmp_path)
    split = open_split("coco:annotations/instances_val2017.json", "val", root=Path("data"))
    assert fetch(split).status[0] == "ok"


def test_coco_counts_annotations_of_nothing_known(tmp_path: Path) -> None:
    file = coco_folder(tmp_path) / "annotations" / "instances_val2017.json"
    said = json.loads(file.read_text())
    said["annotations"][3]["category_id"] = 99
    said["annotations"][1]["image_id"] = 99
    write(file, json.dumps(said))
    facts = open_split("coco", "val", root=tmp_path).facts
    assert facts["annotations_of_unknown_categories"] == 1
    assert facts["annotations_of_unknown_pictures"] == 1


def test_windows_stay_inside_the_picture() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        size = (int(rng.integers(1, 90)), int(rng.integers(1, 90)))
        left, top = rng.uniform(0, size[1]), rng.uniform(0, size[0])
        box = (left, top, left + rng.uniform(0, 60), top + rng.uniform(0, 60))
        window = Window.around(box, size, 0.3)
        assert 0 <= window.top < window.bottom <= size[0]
        assert 0 <= window.left < window.right <= size[1]
        assert window.bottom - window.top == window.right - window.left


# -- parquet


def test_parquet_of_any_size_with_masks(tmp_path: Path) -> None:
    parquet_with_masks(tmp_path / "p" / "x.parquet")
    split = open_split(f"parquet:{tmp_path}/p/*.parquet")
    batch = fetch(split)
    assert (split.name, split.classes, split.has_masks) == ("p", ("cat", "dog"), True)
    assert batch.labels.tolist() == [1, 0, 1, -1, 0]
    assert batch.status == ["ok", "mask_missing", "mask_unreadable", "mask_mismatch", "ok"]
    assert "transposed" in batch.problem[3]
    assert "no label" in batch.problem[3]
    assert batch.problem[1] == "test-000001: its column mask is empty"
    assert_shown(batch, 0, 4)
    same_from_workers(split)
    assert len(pickle.dumps(split)) < 10_000


def test_parquet_fingerprints_follow_the_masks(tmp_path: Path) -> None:
    parquet_with_masks(tmp_path / "x.parquet")
    parquet_with_masks(tmp_path / "y.parquet", rows_a_group=5)
    one, stated = (
        open_split(f"parquet:{tmp_path}/x.parquet", masks=files).fingerprint()
        for files in (MaskFiles(), MaskFiles(object_values=(1,)))
    )
    other = open_split(f"parquet:{tmp_path}/y.parquet")
    assert len({one, stated, other.fingerprint()}) == 3
    assert fetch(other).status == fetch(open_split(f"parquet:{tmp_path}/x.parquet")).status


@pytest.mark.parametrize(
    ("kind", "mask"),
    [
        ("text", pa.array([json.dumps(run_lengths(BIT)), None])),
        ("struct", pa.array([run_lengths(BIT), None])),
        ("counts", pa.array([run_lengths(BIT)["counts"], None])),
        ("list of structs", pa.array([[run_lengths(BIT)], None])),
        ("polygons", pa.array([[[10.0, 6, 40, 6, 40, 44, 10, 44]], None])),
        ("bytes", pa.array([encoded(Image.fromarray(BIT)), b""])),
    ],
)
def test_parquet_masks_in_every_form(kind: str, mask: pa.Array, tmp_path: Path) -> None:
    table = pa.table({"image": [painted(BIT)] * 2, "label": [1, 7], "mask": mask})
    pq.write_table(table, tmp_path / "x.parquet")
    split = open_split(f"parquet:{tmp_path}/x.parquet")
    batch = fetch(split)
    assert split.classes == tuple("01234567")
    assert batch.status == ["ok", "mask_missing"], kind
    assert_shown(batch, 0)


@pytest.mark.parametrize("declared", [True, False])
def test_parquet_masks_as_nested_lists(declared: bool, tmp_path: Path) -> None:
    arrays = [BIT, BIT * 40, BIT * 0, BIT + 2 * (~BIT), BIT[:, :64]]
    features = {"mask": {"shape": [HEIGHT, WIDTH], "dtype": "int64", "_type": "Array2D"}}
    told = {"huggingface": json.dumps({"info": {"features": features}})} if declared else None
    table = pa.table(
        {
            "image": [painted(BIT)] * len(arrays),
            "label": [1] * len(arrays),
            "mask": [array.astype(int).tolist() for array in arrays],
        }
    )
    pq.write_table(table.replace_schema_metadata(told), tmp_path / "x.parquet")
    batch = fetch(open_split(f"parquet:{tmp_path}/x.parquet"))
    assert batch.status == ["ok", "ok", "ok", "mask_unreadable", "mask_mismatch"]
    assert_shown(batch, 0, 1)
    assert batch.object_mask is not None
    assert batch.object_mask[2].max() == 0
    assert "values 1, 2: say which" in batch.problem[3]
    files = MaskFiles(object_values=(1,))
    batch = fetch(open_split(f"parquet:{tmp_path}/x.parquet", masks=files))
    assert batch.status == ["ok", "mask_unreadable", "ok", "ok", "mask_mismatch"]
    assert_shown(batch, 0, 3)


def test_parquet_takes_the_files_of_its_part(tmp_path: Path) -> None:
    for n, part in enumerate(("train", "test", "test")):
        table = pa.table({"image": [painted(BIT)], "label": [n]})
        pq.write_table(table, tmp_path / f"{part}-0000{n}-of-00003.parquet")
    for pattern in (f"{tmp_path}", f"{tmp_path}/*.parquet"):
        assert fetch(open_split(f"parquet:{pattern}")).labels.tolist() == [1, 2]
        assert len(open_split(f"parquet:{pattern}", "train")) == 1
    with pytest.raises(DataError, match=r"test \| train"):
        open_split(f"parquet:{tmp_path}", "val")


def test_parquet_that_holds_no_dataset(tmp_path: Path) -> None:
    for name, columns, words in (
        ("a", {"picture": [b"x"], "label": [1]}, "picture: binary"),
        ("b", {"image": [b"x"]}, "image: binary"),
        ("c", {"image": [b"x"], "label": [[1]]}, "names no class"),
        ("d", {"image": [b"x"], "label": [10**9]}, "no positions"),
    ):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=words):
            open_split(f"parquet:{tmp_path}/{name}.parquet")
    with pytest.raises(DataError, match="other columns"):
        open_split(f"parquet:{tmp_path}/[ab].parquet")
    write(tmp_path / "e.parquet", b"PAR1 nonsense PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        open_split(f"parquet:{tmp_path}/e.parquet")
    with pytest.raises(DataError, match="no file matches"):
        open_split(f"parquet:{tmp_path}/z*.parquet")


# -- manifest


def test_manifest_of_paths(tmp_path: Path) -> None:
    split = open_split(f"manifest:{manifest(tmp_path / 'm' / 'list.csv')}")
    batch = fetch(split)
    assert (split.name, split.classes) == ("list", ("cat", "dog"))
    assert batch.labels.tolist() == [1, 0]
    assert batch.sample_id == ["pictures/0.png", "pictures/1.png"]
    assert batch.status == ["ok", "ok"]
    assert_shown(batch, 0, 1)
    same_from_workers(split)
    before = split.fingerprint()
    write(tmp_path / "m" / "masks" / "1.png", encoded(Image.fromarray(BIT)))
    assert split.fingerprint() != before


def test_manifest_rows_that_cannot_be_used(tmp_path: Path) -> None:
    file = manifest(tmp_path / "list.csv")
    with file.open("a") as lines:
        lines.write(
            "pictures/9.png,dog,masks/0.png\npictures/0.png,,\npictures/0.png,cat,m/9.png\n"
        )
        lines.write(",cat,masks/0.png\n")
    batch = fetch(open_split(f"manifest:{file}"))
    assert batch.status == ["ok", "ok", "unreadable", "mask_missing", "mask_missing", "unreadable"]
    assert batch.labels.tolist() == [1, 0, 1, -1, 0, 0]
    assert batch.sample_id[3:5] == ["pictures/0.png@2", "pictures/0.png@3"]
    assert "m/9.png does not exist" in batch.problem[4]
    assert "no file is named" in batch.problem[5]


def test_manifest_as_parquet_with_addresses_and_outlines(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/1.png", painted(BIT))
    write(tmp_path / "x y" / "2.png", painted(BIT))
    table = pa.table(
        {
            "Image": ["memory://bucket/1.png", f"file://{tmp_path}/x y/2.png", "memory://no/3.png"],
            "label": [3, 0, 1],
            "rle": [json.dumps(run_lengths(BIT)), json.dumps(run_lengths(BIT.T.copy())), None],
        }
    )
    pq.write_table(table, tmp_path / "list.parquet")
    split = open_split(f"manifest:{tmp_path}/list.parquet")
    batch = fetch(split)
    assert split.classes == ("0", "1", "2", "3")
    assert batch.status == ["ok", "mask_mismatch", "unreadable"]
    assert "No such file" in batch.problem[2]
    assert_shown(batch, 0)
    before = split.fingerprint()
    memory.pipe("/bucket/1.png", painted(~BIT))
    assert split.fingerprint() != before
    memory.pipe("/bucket/list.csv", b"image,label\n1.png,3\n")
    assert fetch(open_split("manifest:memory://bucket/list.csv")).status == ["ok"]


def test_manifests_that_cannot_be_opened(tmp_path: Path) -> None:
    for text, words in (
        ("file,label\nx.png,1\n", "no column image"),
        ("a,b\n1,2\n", "no column image and no column label"),
        ("image,label\nweird://x.png,1\n", "weird:// addresses"),
        ("image,label\nx.png\n", "cannot be read"),
        ("image,Image,label\nx,x,1\n", "two columns"),
        ("image,label,x1,y1,x2,y2\nx.png,a,0.1,0.2,0.3,0.9\n", "not in pixels"),
        ("", "an empty file"),
        ('image,label\n"x.png,1\ny.png,2\n', "cannot be read"),
        ("image,label\n\nx.png,1\ny.png,1,2\n", "line 4 has 3 cells, the first 2"),
    ):
        write(tmp_path / "list.csv", text)
        with pytest.raises(DataError, match=words):
            open_split(f"manifest:{tmp_path}/list.csv")
    with pytest.raises(DataError, match="does not exist"):
        open_split(f"manifest:{tmp_path}/absent.csv")


def test_manifests_of_bytes_are_refused(tmp_path: Path) -> None:
    data, names = pa.array([painted(BIT)]), pa.array(["x.png"])
    wrapped = pa.StructArray.from_arrays([data, names], ["bytes", "path"])
    for columns, words in (
        ({"image": data}, "column image .* holds bytes"),
        ({"image": wrapped}, "--dataset parquet:"),
        ({"image": names, "mask": data}, "column mask .* holds bytes"),
        ({"image": pa.array([3])}, "column image .* holds int64"),
    ):
        pq.write_table(pa.table(columns | {"label": [1]}), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=words):
            open_split(f"manifest:{tmp_path}/x.parquet")


def test_a_process_may_end_after_it_read_a_table(tmp_path: Path) -> None:
    write(tmp_path / "x.csv", "image,label\n")
    code = "import sys; from audit.data.tablefile import read_table; read_table(sys.argv[1], 'x')"
    command = [sys.executable, "-c", f"{code}; sys.exit(2)", str(tmp_path / "x.csv")]
    assert {subprocess.run(command, check=False).returncode for _ in range(3)} == {2}


def test_long_and_quoted_cells_of_tables(tmp_path: Path) -> None:
    long = "1 " * 100_000
    write(tmp_path / "x.csv", f'\ufeffimage;"label"\r\n"a;""b"";\nc";007\r\n\r\n{long};\r\n')
    table = read_table(str(tmp_path / "x.csv"), "table")
    assert table.to_pydict() == {"image": ['a;"b";\nc', long], "label": ["007", ""]}


@pytest.mark.parametrize(
    ("address", "module", "package"),
    [("s3://b/x.png", "s3fs", "s3fs"), ("gs://b/x.png", "gcsfs", "gcsfs")],
)
def test_missing_backends_say_what_to_install(
    address: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    write(tmp_path / "list.csv", f"image,label\n{address},1\n")
    for dataset in (f"manifest:{tmp_path}/list.csv", f"manifest:{address}"):
        with pytest.raises(DataError, match=f"pip install {package}"):
            open_split(dataset)


def test_absolute_paths_are_shown_from_their_common_folder(tmp_path: Path) -> None:
    manifest(tmp_path / "list.csv")
    text = f"image;label;mask\n{tmp_path}/pictures/0.png;007;{tmp_path}/masks/9.png\n"
    write(tmp_path / "list.csv", "\ufeff" + text)
    split = open_split(f"manifest:{tmp_path}/list.csv")
    batch = fetch(split)
    assert batch.sample_id == ["0.png"]
    assert batch.problem == ["0.png: its mask …/masks/9.png does not exist"]
    assert split.classes == tuple(map(str, range(8)))


# -- boxes


def test_a_soft_box_is_highest_in_the_middle_and_nothing_outside() -> None:
    share = soft_box((16, 12, 64, 36), (HEIGHT, WIDTH))
    assert share.shape == (HEIGHT, WIDTH)
    assert torch.equal(share > 0, torch.from_numpy(filled((12, 16, 36, 64))))
    assert abs(float(share.max()) - 0.81) < 0.005
    middle = share[24, 16:64]
    assert (middle[:24].diff() > 0).all()
    torch.testing.assert_close(share, share.flip(0, 1))
    assert abs(float(share[12:36, 16:64].mean()) - 0.53) < 0.01
    half = soft_box((16.5, 12, 17, 36), (HEIGHT, WIDTH))
    assert float(half[:, 17:].sum()) == 0 == float(half[:, :16].sum())


@pytest.mark.parametrize(
    "columns",
    ["image,x1,y1,x2,y2", "filename,xmin,ymin,xmax,ymax", "image,x,y,w,h", "path,x,y,width,height"],
)
def test_boxes_from_tables(columns: str, tmp_path: Path) -> None:
    painted_folder(tmp_path)
    boxes_are_soft(tmp_path, boxes_csv(tmp_path / "boxes.csv", columns))


def test_boxes_from_coco_and_voc(tmp_path: Path) -> None:
    painted_folder(tmp_path)
    boxes_are_soft(tmp_path, boxes_coco(tmp_path / "boxes.json"))
    boxes_are_soft(tmp_path, boxes_voc(tmp_path / "xml"))


def boxes_are_soft(root: Path, boxes: Path) -> None:
    split = open_split(f"folder:{root}/images", masks=MaskFiles(boxes=boxes))
    whole = Geometry(size=(HEIGHT, WIDTH), resize=(HEIGHT, WIDTH))
    batch = fetch(split, whole)
    assert (split.mask_kind, split.has_masks) == ("box", True)
    assert batch.status == ["ok", "ok"]
    assert batch.object_mask is not None
    for row in range(2):
        expected = soft_box((OBJECT[1] + row, OBJECT[0], OBJECT[3], OBJECT[2]), (HEIGHT, WIDTH))
        torch.testing.assert_close(batch.object_mask[row], expected)
        assert torch.equal(batch.object_mask[row] > 0, batch.images[row, 0] > 0)


def test_boxes_that_cannot_be(tmp_path: Path) -> None:
    rows = {
        "0": "5,5,90,20", "1": "5,5,5,20", "2": "-1,0,81,49", "3": "30,30,20,40", "4": "x,1,2,3",
        "5": "200,0,240,9", "6": ",,,",
    }  # fmt: skip
    for name in rows:
        write(tmp_path / "images" / "a" / f"{name}.png", painted(BIT))
    text = "image,x1,y1,x2,y2\n" + "".join(f"a/{n}.png,{box}\n" for n, box in rows.items())
    write(tmp_path / "boxes.csv", text + "a/99.png,1,2,3,4\n")
    split = open_split(f"folder:{tmp_path}/images", masks=MaskFiles(boxes=tmp_path / "boxes.csv"))
    batch = fetch(split)
    wrong = "mask_mismatch"
    assert batch.status == [wrong, wrong, "ok", wrong, wrong, wrong, "mask_missing"]
    for row, words in (
        (0, "5, 5, 90, 20 in …"), (0, "80×48 pixels"), (1, "no area"), (3, "no area"),
        (4, "x, 1, 2, 3 in …"), (4, "not four numbers"), (5, "beyond"), (6, "no box"),
    ):  # fmt: skip
        assert words.partition(" in …")[0] in batch.problem[row]
    assert split.facts == {"surplus_boxes": 1}


@pytest.mark.parametrize("kind", ["json", "xml"])
def test_boxes_made_for_another_size_are_told(kind: str, tmp_path: Path) -> None:
    painted_folder(tmp_path)
    place = boxes_coco(tmp_path / "b.json") if kind == "json" else boxes_voc(tmp_path / "b")
    split = f"folder:{tmp_path}/images"
    for (width, height), status in (
        ((WIDTH, HEIGHT), "ok"),
        ((0, 0), "ok"),
        ((2 * WIDTH, 2 * HEIGHT), "mask_mismatch"),
    ):
        if kind == "json":
            said = json.loads(place.read_text())
            for image in said["images"]:
                image |= {"width": width, "height": height}
            write(place, json.dumps(said))
        else:
            size = f"<size><width>{width}</width><height>{height}</height></size>"
            for file in boxes_voc(tmp_path / "b").rglob("*.xml"):
                write(file, file.read_text().replace("<object>", f"{size}<object>"))
        batch = fetch(open_split(split, masks=MaskFiles(boxes=place)))
        assert batch.status == [status] * 2
    assert "is 160×96 pixels, the picture 80×48 pixels" in batch.problem[0]


def test_boxes_of_other_classes_are_left_out_and_overlaps_take_the_higher(tmp_path: Path) -> None:
    painted_folder(tmp_path)
    write(
        tmp_path / "boxes.csv",
        "image,x1,y1,x2,y2,label\na/p0.png,4,4,40,40,a\na/p0.png,20,10,60,46,a\n"
        "a/p0.png,60,0,80,20,b\nb/p1.png,4,4,40,40,a\n",
    )
    split = open_split(f"folder:{tmp_path}/images", masks=MaskFiles(boxes=tmp_path / "boxes.csv"))
    batch = fetch(split, Geometry(size=(HEIGHT, WIDTH), resize=(HEIGHT, WIDTH)))
    assert batch.status == ["ok", "mask_missing"]
    assert "no box of its class" in batch.problem[1]
    size = (HEIGHT, WIDTH)
    expected = torch.maximum(soft_box((4, 4, 40, 40), size), soft_box((20, 10, 60, 46), size))
    assert batch.object_mask is not None
    torch.testing.assert_close(batch.object_mask[0], expected)


JSON_BOX = (
    '{"images": [{"id": 1, "file_name": "a/p0.png"}], '
    '"annotations": [{"id": 5, "image_id": 1, "bbox": BOX}]}'
)


def test_files_that_hold_no_boxes(tmp_path: Path) -> None:
    painted_folder(tmp_path)
    entity = '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    cases = {
        "a.csv": ("image,left,right\nx,1,2\n", "holds no boxes"),
        "b.csv": ("image,x1,y1,x2,y2\nother.png,1,2,3,4\n", "belongs to any picture"),
        "c.csv": ("image,x1,y1,x2,y2\na/p0.png,0.1,0.2,0.3,0.4\n", "not in pixels"),
        "d.json": ('{"images": 3}', "'images' that is no list"),
        "l.json": ('{"images": []}', "no 'annotations' among images"),
        "h.json": ("[]", "a list on its top level"),
        "i.json": (
            JSON_BOX.replace("BOX", "[1, 2, 3]"),
            r"annotation 5 with bbox \[1, 2, 3\], not",
        ),
        "j.json": (JSON_BOX.replace('"bbox": BOX', '"a": 1'), "annotation 5 without bbox"),
        "k.json": (JSON_BOX.replace('1, "bbox": BOX', '2, "bbox": []'), "of image 2, which is not"),
        "e/x.xml": (entity, "declares a document type"),
        "f/x.xml": ("<annotation><object/></annotation>", "without bndbox"),
        "g/x.txt": ("", "holds no boxes"),
        "absent.csv": (None, "do not exist"),
    }
    for name, (text, words) in cases.items():
        if text is not None:
            write(tmp_path / name, text)
        place = tmp_path / name.split("/")[0]
        with pytest.raises(DataError, match=words):
            open_split(f"folder:{tmp_path}/images", masks=MaskFiles(boxes=place))


def test_manifests_with_boxes(tmp_path: Path) -> None:
    manifest(tmp_path / "m.csv")
    boxes = "16,12,64,36"
    for columns, cells in (
        ("x1,y1,x2,y2", boxes),
        ("box", f'"{boxes}"'),
        ("box", f'"[{boxes}]"'),
        ("x,y,w,h", "16,12,48,24"),
    ):
        text = f"image,label,{columns}\npictures/0.png,dog,{cells}\n"
        text += f"pictures/1.png,cat,{',' * columns.count(',')}\n"
        write(tmp_path / "m.csv", text)
        split = open_split(f"manifest:{tmp_path}/m.csv")
        batch = fetch(split, Geometry(size=(HEIGHT, WIDTH), resize=(HEIGHT, WIDTH)))
        assert split.mask_kind == "box"
        assert batch.status == ["ok", "mask_missing"]
        assert batch.object_mask is not None
        torch.testing.assert_close(
            batch.object_mask[0], soft_box((16, 12, 64, 36), (HEIGHT, WIDTH))
        )
    for columns, cells in (("x1,y1,x2,y2", "what,5,none,9"), ("box", '"[what,5,none]"')):
        write(tmp_path / "m.csv", f"image,label,{columns}\npictures/0.png,dog,{cells}\n")
        batch = fetch(open_split(f"manifest:{tmp_path}/m.csv"))
        assert batch.status == ["mask_mismatch"]
        assert "what" in batch.problem[0]
        assert "nan" not in batch.problem[0]
    write(tmp_path / "m.csv", "image,label\npictures/0.png,dog\n")
    write(tmp_path / "b.csv", "image,x1,y1,x2,y2\n0.png,16,12,64,36\n")
    files = MaskFiles(boxes=tmp_path / "b.csv")
    split = open_split(f"manifest:{tmp_path}/m.csv", masks=files)
    assert (split.mask_kind, fetch(split).status) == ("box", ["ok"])
    before = split.fingerprint()
    write(tmp_path / "b.csv", "image,x1,y1,x2,y2\n0.png,16,12,63,36\n")
    assert open_split(f"manifest:{tmp_path}/m.csv", masks=files).fingerprint() != before


# -- module:function


class Painted(Dataset):  # type: ignore[type-arg]
    """What a user may have written."""

    classes = ("cat", "dog")
    kind = "pil"

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[object, ...]:
        if i == 2:
            raise RuntimeError("cannot open it")
        image = torch.from_numpy(np.stack([BIT, BIT * 0, ~BIT])).to(torch.uint8) * 255
        given = {
            "pil": Image.fromarray(image.permute(1, 2, 0).numpy()),
            "array": image.permute(1, 2, 0).numpy(),
            "tensor": image,
            "bytes": painted(BIT),
        }[self.kind]
        mask = {"pil": Image.fromarray(BIT), "array": BIT, "tensor": torch.from_numpy(BIT)[None]}
        return given, ("dog", 0, 0, 5)[i], mask.get(self.kind) if i else None


class Unlabelled(Painted):
    classes = ()


class Floats(Painted):
    def __getitem__(self, i: int) -> tuple[object, ...]:
        return torch.zeros(3, 8, 8), 0


def build(split: str) -> Painted:
    made = Painted()
    made.kind = split
    return made


def build_split() -> PictureSplit:
    split = open_split("tests.data.test_datasets:Painted")
    assert isinstance(split, PictureSplit)
    return split


def fails() -> None:
    raise KeyError("no such thing")


@pytest.mark.parametrize("kind", ["pil", "array", "tensor"])
def test_a_dataset_of_the_users_own(kind: str) -> None:
    split = open_split("tests.data.test_datasets:build", kind)
    batch = fetch(split)
    assert split.name == "tests.data.test_datasets.build"
    assert batch.labels.tolist() == [1, 0, -1, -1]
    assert batch.status == ["mask_missing", "ok", "unreadable", "bad_label"]
    assert "RuntimeError: cannot open it, at test_datasets.py" in batch.problem[2]
    assert "label 5 is none of the 2" in batch.problem[3]
    assert_shown(batch, 1, 3)
    assert split.fingerprint() == open_split("tests.data.test_datasets:build", kind).fingerprint()


def test_other_things_that_a_function_may_give() -> None:
    from_class = open_split("tests.data.test_datasets:Painted")
    same_from_workers(from_class)
    assert fetch(open_split("tests.data.test_datasets:build_split")).labels.tolist()[0] == 1
    assert fetch(open_split("tests.data.test_datasets:build", "bytes")).status[1] == "mask_missing"


class Several(Painted):
    """Masks of three values."""

    def __getitem__(self, i: int) -> tuple[object, ...]:
        mask = BIT.astype(np.uint8)
        mask[0] = 7
        return Image.open(io.BytesIO(painted(BIT, mask == 7))), 0, mask


class Dicts(Painted):
    def __getitem__(self, i: int) -> tuple[object, ...]:
        return {"image": 1, "label": 2}  # type: ignore[return-value]


class Alone(Painted):
    def __getitem__(self, i: int) -> tuple[object, ...]:
        return Image.new("RGB", (8, 8))  # type: ignore[return-value]


class Raising(Painted):
    def __getitem__(self, i: int) -> tuple[object, ...]:
        raise KeyError("no such thing")


def nothing() -> None:
    return None


def numbers() -> Iterator[int]:
    return iter([1])


def test_stated_values_of_a_dataset_of_the_users_own() -> None:
    spec = "tests.data.test_datasets:Several"
    split = open_split(spec)
    assert "--mask-object" in fetch(split).problem[0]
    stated = open_split(spec, masks=MaskFiles(object_values=(1,), unknown_values=(7,)))
    batch = fetch(stated)
    assert batch.status == ["ok"] * 4
    assert_shown(batch, 0)
    assert stated.fingerprint() != split.fingerprint()
    with pytest.raises(DataError, match="masks of its own"):
        open_split("tests.data.test_datasets:build_split", masks=MaskFiles(object_values=(1,)))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Dicts", "return a tuple"),
        ("Alone", "return a tuple"),
        ("Raising", "in Python to see why"),
        ("nothing", "let the function return the dataset"),
        ("numbers", "__getitem__ and __len__"),
        ("absent", "has no 'absent'"),
        ("Unlabelled", "does not name its classes"),
        ("Floats", r"torch\.float32, 3×8×8"),
        ("fails", "KeyError"),
        ("HEIGHT", "does not give a dataset"),
    ],
)
def test_functions_that_give_no_dataset(name: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_split(f"tests.data.test_datasets:{name}")
    with pytest.raises(DataError, match="no module 'no_such_module'"):
        open_split("no_such_module:build")


# -- real data


@pytest.mark.data
@pytest.mark.parametrize("part", ["train", "val"])
def test_real_coco_equals_pycocotools(part: str) -> None:
    root = real_data("coco200")
    split = open_split("coco", part, root=root)
    said = json.loads((root / "annotations" / f"instances_{part}2017.json").read_text())
    names = {image["file_name"]: image for image in said["images"]}
    of_picture: dict[int, list[dict]] = {}
    for one in said["annotations"]:
        of_picture.setdefault(one["image_id"], []).append(one)
    kinds = {kind["id"]: kind["name"] for kind in said["categories"]}
    for position in range(0, len(split), 7):
        batch = split.__getitems__([position])
        image = names[batch.sample_id[0]]
        size = (image["height"], image["width"])
        batch = split.framed(Geometry(size=size, resize=size)).__getitems__([position])
        largest = max(of_picture[image["id"]], key=lambda one: one["area"])
        assert split.classes[int(batch.labels[0])] == kinds[largest["category_id"]]
        expected = np.zeros(size, bool)
        for one in of_picture[image["id"]]:
            if one["category_id"] == largest["category_id"]:
                parts = coco.frPyObjects(one["segmentation"], *size)
                expected |= coco.decode(coco.merge(parts)).astype(bool)
        assert batch.object_mask is not None
        assert torch.equal(batch.object_mask[0], torch.from_numpy(expected).float())


@pytest.mark.data
def test_real_cutouts_are_usable() -> None:
    split = open_split("coco", "val", root=real_data("coco200"), samples="instances", limit=60)
    batch = split.__getitems__(range(60))
    assert Counter(batch.status) == {"ok": 60}
    assert batch.object_mask is not None
    area = batch.object_mask.mean(dim=(1, 2))
    assert area.min() > 0.005
    assert 0.1 < area.mean() < 0.5


@pytest.mark.data
def test_the_soft_box_is_what_real_outlines_are_on_average() -> None:
    root = real_data("coco200")
    found = []
    for part in ("train", "val"):
        said = json.loads((root / "annotations" / f"instances_{part}2017.json").read_text())
        sizes = {image["id"]: (image["height"], image["width"]) for image in said["images"]}
        for one in said["annotations"]:
            if min(one["bbox"][2:]) >= 32:
                inside = fill(one["segmentation"], sizes[one["image_id"]], "x")
                rows, columns = inside.any(axis=1).nonzero()[0], inside.any(axis=0).nonzero()[0]
                cut = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
                cut = torch.from_numpy(cut).float()[None, None]
                found.append(torch.nn.functional.interpolate(cut, (20, 20), mode="area")[0, 0])
    mean = torch.stack(found).mean(dim=0)
    mean = (mean + mean.flip(0) + mean.flip(1) + mean.flip(0, 1)) / 4
    difference = (mean + mean.T) / 2 - soft_box((0, 0, 20, 20), (20, 20))
    assert difference.square().mean().sqrt() < 0.015


@pytest.mark.data
def test_real_crops_and_their_masks() -> None:
    root = real_data("coco-crops")
    files = MaskFiles(root=root / "masks")
    split = open_split(f"folder:{root}/images", masks=files, image_size=64)
    batch = split.__getitems__(range(len(split)))
    assert Counter(batch.status) == {"ok": 109}
    assert len(split.classes) == 17
    assert batch.object_mask is not None
    assert 0.2 < batch.object_mask.mean() < 0.5
