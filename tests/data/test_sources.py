from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from audit.data import LimitedSplit, MaskFiles, iterate, open_split
from audit.data.decode import UnreadableImage, decode_rgb
from audit.data.demo import open_demo
from audit.data.labels import labels_of
from audit.data.maskvalues import BadMask, decode_mask
from audit.data.pictures import BadLabel
from audit.errors import DataError
from tests.conftest import CIFAR10
from tests.data.making import coco_folder, hub_parquet, image_folder, png


def test_demo_is_the_same_every_time_and_says_what_is_planted() -> None:
    split = open_demo("test")
    again = open_demo.__wrapped__("test")
    assert split.fingerprint() == again.fingerprint() != open_demo("train").fingerprint()
    assert split.facts["planted_classes"] == ["three", "eight"]
    assert split.masks is not None
    assert set(split.masks.unique().tolist()) == {0, 1}
    assert len(set(split.sample_ids)) == len(split) == 797
    area = split.masks.float().mean(dim=(1, 2))
    assert area.min() > 0.05
    assert area.max() < 0.6


def test_demo_shows_no_digit_in_both_parts() -> None:
    digits = [{i[-4:] for i in open_demo(part).sample_ids} for part in ("train", "test")]
    assert not digits[0] & digits[1]


def test_demo_masks_hold_the_digit_and_not_the_texture() -> None:
    """Digits are nearly black and nearly white; textures keep to the middle of the range."""
    split = open_demo("test")
    assert split.masks is not None
    grey = split.images.float().mean(dim=1)
    extreme = ((grey < 60) | (grey > 195)).float()
    inside, outside = split.masks.bool(), ~split.masks.bool()
    assert extreme[inside].mean() > 3 * extreme[outside].mean()
    assert extreme[inside].mean() > 0.6


@pytest.mark.parametrize("place", ["", "cifar10", "plain_text", "data"])
def test_hub_layout_is_found_in_the_usual_places(place: str, tmp_path: Path) -> None:
    images = [png(n) for n in range(5)]
    hub_parquet(
        tmp_path / place / "test-00000-of-00001.parquet", images, [0, 1, 2, 9, 3], [*CIFAR10]
    )
    split = open_split("cifar10", root=tmp_path)
    batch = split.__getitems__([4, 0])
    assert split.classes == CIFAR10
    assert batch.labels.tolist() == [3, 0]
    assert batch.sample_id == ["test-000004", "test-000000"]
    expected = np.asarray(Image.open(io.BytesIO(images[4])))
    assert np.array_equal(batch.images[0].permute(1, 2, 0).numpy(), expected)


def test_bad_rows_get_a_status(tmp_path: Path) -> None:
    images = [png(0), b"not an image", b"", png(1)[:200], png(2, (16, 16)), png(3)]
    hub_parquet(tmp_path / "test-0.parquet", images, [0, 1, 2, 3, 4, 77], [*CIFAR10])
    batch = open_split("cifar10", root=tmp_path).__getitems__(range(6))
    assert batch.status == ["ok", *["unreadable"] * 4, "bad_label"]
    assert batch.labels.tolist() == [0, 1, 2, 3, 4, -1]
    assert batch.images[1].sum() == 0


def test_absent_cifar_names_both_remedies(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_split("cifar10", root=tmp_path / "nowhere")
    for words in ("cifar-10-batches-py/", "test-*.parquet", "--data-root", "--download"):
        assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_folder_with_masks(tmp_path: Path) -> None:
    image_folder(tmp_path / "images", {"b": 2, "a": 3}, masks=tmp_path / "masks", size=64)
    split = open_split(
        f"folder:{tmp_path}/images", masks=MaskFiles(root=tmp_path / "masks"), image_size=32
    )
    batch = split.__getitems__(range(5))
    assert split.classes == ("a", "b")
    assert batch.labels.tolist() == [0, 0, 0, 1, 1]
    assert batch.sample_id[3] == "b/000.png"
    assert batch.status == ["ok"] * 5
    assert batch.object_mask is not None
    expected = torch.zeros(32, 32)
    expected[8:16, 8:24] = 1
    assert (batch.object_mask[0] - expected).abs().mean() < 0.05
    assert ((batch.object_mask[0] > 0.5).float() == expected).all()


def test_image_and_mask_keep_one_geometry(tmp_path: Path) -> None:
    """An image that is its own mask stays equal to it through resize and crop."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "masks" / "a").mkdir(parents=True)
    shape = np.zeros((90, 140), np.uint8)
    shape[20:60, 50:100] = 255
    Image.fromarray(shape).convert("RGB").save(tmp_path / "images" / "a" / "x.png")
    Image.fromarray(shape).save(tmp_path / "masks" / "a" / "x.png")
    split = open_split(
        f"folder:{tmp_path}/images", masks=MaskFiles(root=tmp_path / "masks"), image_size=48
    )
    batch = split.__getitems__([0])
    assert batch.object_mask is not None
    difference = batch.images[0, 0].float() / 255 - batch.object_mask[0]
    assert difference.abs().max() <= 1.5 / 255


def test_folder_samples_that_cannot_be_used_get_a_status(tmp_path: Path) -> None:
    image_folder(tmp_path / "i", {"a": 5}, masks=tmp_path / "m")
    (tmp_path / "i" / "a" / "001.png").write_bytes(b"broken")
    (tmp_path / "m" / "a" / "002.png").unlink()
    (tmp_path / "m" / "a" / "003.png").write_bytes(b"broken")
    (tmp_path / "m" / "a" / "004.png").write_bytes(png(0, (32, 31)))
    split = open_split(f"folder:{tmp_path}/i", masks=MaskFiles(root=tmp_path / "m"))
    assert split.__getitems__(range(5)).status == [
        "ok", "unreadable", "mask_missing", "mask_unreadable", "mask_mismatch",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("imagenet", "unknown dataset 'imagenet'"),
        ("folder:", "unknown dataset 'folder:'"),
        ("folder:{tmp}/absent", "does not exist"),
        ("folder:{tmp}/flat", "holds no classes"),
        ("folder:{tmp}/empty", "is empty"),
    ],
)
def test_datasets_that_cannot_be_opened(dataset: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=message):
        open_split(dataset.format(tmp=tmp_path))


def test_limit_keeps_every_class_of_a_sorted_split(tmp_path: Path) -> None:
    image_folder(tmp_path / "i", {"a": 4, "b": 4, "c": 4})
    whole = open_split(f"folder:{tmp_path}/i")
    few = LimitedSplit(whole, 3)
    assert few.__getitems__(range(3)).labels.tolist() == [0, 1, 2]
    assert few.fingerprint() != whole.fingerprint()


def test_fingerprint_follows_the_content_not_the_place(tmp_path: Path) -> None:
    image_folder(tmp_path / "one", {"a": 2})
    image_folder(tmp_path / "two", {"a": 2})
    prints = [open_split(f"folder:{tmp_path}/{n}").fingerprint() for n in ("one", "two")]
    assert prints[0] == prints[1]
    (tmp_path / "two" / "a" / "000.png").write_bytes(png(9))
    assert open_split(f"folder:{tmp_path}/two").fingerprint() != prints[0]


def test_worker_processes_give_the_same_batches(tmp_path: Path) -> None:
    image_folder(tmp_path / "i", {"a": 5, "b": 6})
    split = open_split(f"folder:{tmp_path}/i")
    alone = list(iterate(split, range(11), batch_size=3))
    shared = list(iterate(split, range(11), batch_size=3, workers=2))
    assert [b.sample_id for b in alone] == [b.sample_id for b in shared]
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one.images, other.images)


def encoded(image: Image.Image, form: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def test_every_usual_format_decodes_to_rgb() -> None:
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    images = {
        "grey": encoded(grey, "PNG"),
        "palette": encoded(grey.convert("P"), "PNG"),
        "alpha": encoded(grey.convert("RGBA"), "PNG"),
        "16 bit": encoded(Image.fromarray(np.full((8, 8), 40000, np.uint16)), "PNG"),
        "cmyk": encoded(grey.convert("CMYK"), "JPEG"),
        "bmp": encoded(grey.convert("RGB"), "BMP"),
        "webp": encoded(grey.convert("RGB"), "WEBP"),
        "gif": encoded(grey, "GIF"),
    }
    for name, data in images.items():
        decoded = decode_rgb(data)
        assert decoded.shape == (3, 8, 8), name
        assert decoded.dtype == torch.uint8, name
    assert decode_rgb(images["16 bit"])[0, 0, 0] == 40000 >> 8


def test_a_truncated_jpeg_is_not_half_an_image() -> None:
    whole = encoded(
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG"
    )
    assert decode_rgb(whole).shape == (3, 64, 64)
    with pytest.raises(UnreadableImage):
        decode_rgb(whole[: len(whole) // 2])


def test_rotated_by_exif() -> None:
    image = Image.new("RGB", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_rgb(encoded(image, "JPEG", exif=exif)).shape == (3, 8, 4)


def test_masks_of_every_usual_kind() -> None:
    shape = np.zeros((6, 6), np.uint8)
    shape[2:4, 2:5] = 1
    expected = torch.from_numpy(shape).float()
    kinds = {
        "0/1": Image.fromarray(shape),
        "0/255": Image.fromarray(shape * 255),
        "bits": Image.fromarray(shape > 0),
        "16 bit": Image.fromarray(shape.astype(np.uint16) * 65535),
        "palette": Image.fromarray(shape).convert("P"),
        "rgb": Image.fromarray(np.repeat(shape[..., None] * 255, 3, axis=2)),
    }
    for name, image in kinds.items():
        torch.testing.assert_close(decode_mask(encoded(image, "PNG")).object, expected, msg=name)
    assert decode_mask(encoded(Image.new("L", (4, 4)), "PNG")).object.sum() == 0


def test_no_flipped_bit_ends_the_process() -> None:
    """Every damaged file is an image or unreadable; torchvision's PNG decoder would crash here."""
    rng = np.random.default_rng(0)
    for form in ("PNG", "JPEG"):
        whole = encoded(Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)), form)
        for _ in range(200):
            damaged = bytearray(whole)
            damaged[rng.integers(8, len(whole))] ^= 1 << rng.integers(8)
            with contextlib.suppress(UnreadableImage):
                assert decode_rgb(bytes(damaged)).shape[0] == 3


def test_data_after_the_end_of_a_jpeg_is_no_damage() -> None:
    whole = encoded(Image.new("RGB", (16, 16), (200, 30, 30)), "JPEG")
    assert torch.equal(decode_rgb(whole + b"motion" * 1000), decode_rgb(whole))


def test_a_limit_beyond_the_end_keeps_every_sample_once() -> None:
    whole = open_demo("test")
    every = LimitedSplit(whole, 2000)
    assert len(every) == 797
    assert every.__getitems__(range(797)).sample_id == list(whole.sample_ids)
    assert LimitedSplit(whole, 400).fingerprint() != LimitedSplit(whole, 399).fingerprint()


def test_a_folder_of_splits_is_not_a_folder_of_classes(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 1})
    image_folder(tmp_path / "val", {"a": 1})
    with pytest.raises(DataError, match="no split named 'test'"):
        open_split(f"folder:{tmp_path}")
    assert open_split(f"folder:{tmp_path}", "val").classes == ("a",)


def test_images_are_not_taken_for_their_masks(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1})
    with pytest.raises(DataError, match="not their masks"):
        open_split(f"folder:{tmp_path}", masks=MaskFiles(root=tmp_path))


def test_hidden_folders_are_no_classes_and_names_need_not_be_utf8(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, ".ipynb_checkpoints": 1})
    (tmp_path / "a" / "000.png").rename(
        tmp_path / "a" / b"caf\xe9.png".decode(errors="surrogateescape")
    )
    split = open_split(f"folder:{tmp_path}")
    assert split.classes == ("a",)
    assert split.__getitems__([0]).sample_id == ["a/caf\\xe9.png"]
    assert len(split.fingerprint()) == 64


ODD, SHOWN = "\x1b[31mx\x9b\u2028\u202ey", "\\x1b[31mx\\x9b\\u2028\\u202ey"


def refuse_controls(*texts: str) -> None:
    assert all(text.isprintable() for text in texts), texts


def test_control_characters_of_folders_are_escaped(tmp_path: Path) -> None:
    home = tmp_path / ODD
    image_folder(home, {ODD: 2, "b": 1})
    (home / ODD / "001.png").rename(home / ODD / f"{ODD}<b>.png")
    (home / ODD / f"{ODD}<b>.png").write_bytes(b"broken")
    split = open_split(f"folder:{home}")
    assert (split.name, split.classes) == (SHOWN, (SHOWN, "b"))
    batch = split.__getitems__([0, 1, 2])
    assert batch.sample_id[0] == f"{SHOWN}/{SHOWN}<b>.png"
    assert batch.status == ["unreadable", "ok", "ok"]
    assert batch.problem[0].startswith(f"{SHOWN}/{SHOWN}<b>.png: ")
    refuse_controls(*batch.sample_id, *batch.problem)
    boxes = f"image,x1,y1,x2,y2,label\n{ODD}/000.png,2,2,9,9,{ODD}\nb/000.png,2,2,9,9,{ODD}\n"
    (tmp_path / "b.csv").write_text(boxes)
    boxed = open_split(f"folder:{home}", masks=MaskFiles(boxes=tmp_path / "b.csv"))
    assert boxed.__getitems__([1, 2]).status == ["ok", "mask_missing"]
    with pytest.raises(DataError) as caught:
        open_split(f"folder:{home}/{ODD}")
    assert SHOWN in str(caught.value)
    refuse_controls(*str(caught.value).splitlines())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_control_characters_of_tables_are_escaped(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"{ODD}.png").write_bytes(png(0))
    names = [f"{ODD}.png", f"absent{ODD}.png", *(["a\0.png"] if kind == "parquet" else [])]
    table = pa.table(
        {"image": names, "label": [ODD] * len(names), "mask": ["", ODD, "a\0"][: len(names)]}
    )
    file = tmp_path / f"m.{kind}"
    if kind == "csv":
        pa.csv.write_csv(table, file)
    else:
        pq.write_table(table, file)
    split = open_split(f"manifest:{file}")
    assert split.classes == (SHOWN,)
    assert len(split.fingerprint()) == 64
    batch = split.__getitems__(range(len(split)))
    assert batch.sample_id[:2] == [f"{SHOWN}.png", f"absent{SHOWN}.png"]
    assert batch.status == ["mask_missing", *["unreadable"] * (len(names) - 1)]
    refuse_controls(*batch.sample_id, *batch.problem)
    if kind == "parquet":
        assert batch.problem[2] == "a\\x00.png: it cannot be read: no file can have such a name"
    hub_parquet(tmp_path / "h.parquet", [png(0)], [0], [ODD])
    assert open_split(f"parquet:{tmp_path}/h.parquet").classes == (SHOWN,)


def test_control_characters_of_coco_are_escaped(tmp_path: Path) -> None:
    coco_folder(tmp_path)
    file = tmp_path / "annotations" / "instances_val2017.json"
    said = json.loads(file.read_text())
    said["images"][1]["file_name"] = "\ud800.jpg"
    said["images"][0]["file_name"] = f"{ODD}.jpg"
    said["categories"][0]["name"] = ODD
    file.write_text(json.dumps(said))
    for samples in ("images", "instances"):
        split = open_split("coco", "val", root=tmp_path, samples=samples)
        assert split.classes == ("cat", SHOWN)
        assert len(split.fingerprint()) == 64
        batch = split.__getitems__(range(len(split)))
        refuse_controls(*batch.sample_id, *batch.problem)
        assert sorted(batch.status) == ["ok", "unreadable", "unreadable"]


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint64(), pa.int16(), pa.float32()])
def test_labels_are_numbers_of_any_type(kind: pa.DataType) -> None:
    labels = labels_of(pa.chunked_array([pa.array([2, None, 0], kind)]), (), "x")
    assert labels.values.tolist() == [2, -1, 0]
    assert labels.classes == ("0", "1", "2")


@pytest.mark.parametrize("strange", ["-1", "1.5", "x7"])
def test_what_is_no_number_among_numbers_is_no_label(strange: str) -> None:
    texts = [*map(str, range(3))] * 10
    shifted = [*texts[:17], strange, *texts[17:], ""]
    column = pa.chunked_array([shifted])
    for said in (column, column.dictionary_encode()):
        labels = labels_of(said, (), "x")
        assert labels.classes == ("0", "1", "2")
        known = np.delete(labels.values, [17, 31])
        assert known.tolist() == [int(text) for text in texts]
        with pytest.raises(BadLabel, match=f"its label '{strange}' is no number of a class"):
            labels.at(17)
        with pytest.raises(BadLabel, match="it has no label"):
            labels.at(31)
        assert labels.odd == f"1 of 31 labels is no number of a class: '{strange}' in row 18"


@pytest.mark.parametrize("strange", [-1, -7, 1.5, float("inf")])
def test_so_it_is_in_columns_of_numbers(strange: float) -> None:
    numbers = [0, 1, 2] * 10
    numbers[4:4] = [strange, strange]  # type: ignore[list-item]
    labels = labels_of(pa.chunked_array([pa.array(map(float, [*numbers, *[0] * 10]))]), (), "x")
    assert labels.classes == ("0", "1", "2")
    assert labels.values[6:9].tolist() == [1, 2, 0]
    for row in (4, 5):
        with pytest.raises(BadLabel):
            labels.at(row)
    assert labels.odd == (
        f"2 of 42 labels are no numbers of classes, the first '{strange:g}' in row 5"
    )


def test_gaps_among_floating_point_numbers_are_no_labels() -> None:
    labels = labels_of(pa.chunked_array([pa.array([1.0, float("nan"), None, 0.0])]), (), "x")
    assert labels.values.tolist() == [1, -1, -1, 0]
    assert not labels.odd


def test_names_of_digits_stay_names() -> None:
    column = pa.chunked_array([["7", "3"] * 20 + ["x"]])
    named = labels_of(column, ("3", "7"), "x")
    assert named.values[:2].tolist() == [1, 0]
    # Too few numbers for the others to be mistakes.
    mixed = labels_of(pa.chunked_array([["0", "1", "2", "x"]]), (), "x")
    assert mixed.classes == ("0", "1", "2", "x")
    assert mixed.odd == (
        "3 of 4 labels are whole numbers, but 'x' in row 4 is not: all are taken as names"
    )
    assert not mixed.by_number
    assert not labels_of(pa.chunked_array([["b", "a", "1"]]), (), "x").odd
    # Positions in a list of names, but for one.
    placed = labels_of(column, tuple("abcdefgh"), "x")
    assert placed.values[:2].tolist() == [7, 3]
    assert placed.values[40] == -1


def test_labels_beyond_all_bounds_are_names_or_refused() -> None:
    for text in ("9" * 20, "9" * 5000):
        labels = labels_of(pa.chunked_array([[text, "1"]]), (), "x")
        assert labels.classes == ("1", text)
    for column in (pa.array([2**64 - 1], pa.uint64()), pa.array([float("inf")])):
        with pytest.raises(DataError, match="labels in x are no positions"):
            labels_of(pa.chunked_array([column]), (), "x")


def crafted_tiff(kind: int) -> bytes:
    """A TIFF whose first entry that Pillow wants as a number is of another type."""
    data = bytearray(encoded(Image.new("RGB", (10, 10), "red"), "TIFF"))
    start = int.from_bytes(data[4:8], "little")
    for place in range(start + 2, len(data) - 12, 12):
        if int.from_bytes(data[place : place + 2], "little") == 273:  # where the pixels are
            data[place + 2] = kind
            return bytes(data)
    raise AssertionError("no such entry")


@pytest.mark.parametrize("kind", [2, 5, 7, 11])
def test_whatever_pillow_raises_is_unreadable(kind: int) -> None:
    with pytest.raises(TypeError):
        Image.open(io.BytesIO(crafted_tiff(kind))).load()
    with pytest.raises(UnreadableImage, match="TypeError"):
        decode_rgb(crafted_tiff(kind))
    with pytest.raises(BadMask, match="TypeError") as caught:
        decode_mask(crafted_tiff(kind))
    assert caught.value.status == "mask_unreadable"


def test_hub_files_without_metadata_keep_the_usual_names(tmp_path: Path) -> None:
    hub_parquet(tmp_path / "test-0.parquet", [png(0)], [3], [*CIFAR10])
    table = pq.read_table(tmp_path / "test-0.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "test-0.parquet")
    assert open_split("cifar10", root=tmp_path).classes == CIFAR10


def test_other_parquet_files_are_refused(tmp_path: Path) -> None:
    for number, table in enumerate(
        [
            pa.table({"img": [b"x"], "label": [1]}),
            pa.table({"img": [{"path": "x"}], "label": [1]}),
            pa.table({"img": [{"bytes": b"x"}], "label": ["cat"]}),
            pa.table({"x": [1]}),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        pq.write_table(table, tmp_path / str(number) / "test-0.parquet")
        with pytest.raises(DataError, match="not an image dataset"):
            open_split("cifar10", root=tmp_path / str(number))
    (tmp_path / "0" / "test-0.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        open_split("cifar10", root=tmp_path / "0")
