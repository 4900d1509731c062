"""What mask files mean, and what is said of those that mean nothing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from audit.data import MaskFiles, open_split
from audit.data.maskvalues import BadMask, OtherSize, decode_mask
from audit.errors import DataError
from tests.data.making import encoded, filled, painted, painted_folder, palette_png, png, write

INSIDE = filled((12, 16, 36, 64))
SEAM = filled((10, 14, 38, 66)) & ~INSIDE


def levels(inside: int, seam: int = 0) -> np.ndarray:
    return np.where(INSIDE, inside, np.where(SEAM, seam, 0)).astype(np.uint8)


def with_alpha(mode: str) -> Image.Image:
    image = Image.new(mode, (80, 48), "white")
    image.putalpha(Image.fromarray(levels(255)))
    return image


def tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


PLAIN = {
    "one bit": encoded(Image.fromarray(INSIDE)),
    "0 and 255": encoded(Image.fromarray(levels(255))),
    "0 and 1": encoded(Image.fromarray(levels(1))),
    "0 and 38": encoded(Image.fromarray(levels(38))),
    "16 bit": encoded(Image.fromarray(INSIDE.astype(np.uint16) * 65535)),
    "16 bit, 0 and 1": encoded(Image.fromarray(INSIDE.astype(np.uint16))),
    "float TIFF": tiff(INSIDE.astype(np.float32)),
    "float TIFF of 255": tiff(INSIDE.astype(np.float32) * 255),
    "32 bit TIFF": tiff(INSIDE.astype(np.int32) * 9),
    "RGB": encoded(Image.fromarray(levels(255)).convert("RGB")),
    "RGB of one colour": encoded(Image.fromarray(np.stack([levels(128), *[levels(0)] * 2], 2))),
    "RGBA": encoded(with_alpha("RGBA")),
    "LA": encoded(with_alpha("LA")),
    "RGBA, all opaque": encoded(Image.fromarray(levels(255)).convert("RGBA")),
    "palette": palette_png(levels(7)),
    "BMP": encoded(Image.fromarray(levels(255)), "BMP"),
    "GIF": encoded(Image.fromarray(levels(255)), "GIF"),
    "lossless WebP": encoded(Image.fromarray(levels(255)).convert("RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_every_plain_kind_is_the_same_mask(kind: str) -> None:
    shares = decode_mask(PLAIN[kind])
    assert shares.object.dtype == torch.float32
    assert shares.unknown is None
    assert torch.equal(shares.object, torch.from_numpy(INSIDE).float())


def test_all_or_nothing_are_plain_masks() -> None:
    for value in (0, 1, 255):
        share = decode_mask(encoded(Image.new("L", (5, 4), value))).object
        assert share.tolist() == [[float(value > 0)] * 5] * 4


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_the_noise_of_lossy_files_is_no_object(form: str) -> None:
    data = encoded(Image.fromarray(levels(255)).convert("RGB"), form, quality=70)
    share = decode_mask(data).object
    assert torch.equal(share > 0.5, torch.from_numpy(INSIDE))
    assert (share - torch.from_numpy(INSIDE).float()).abs().mean() < 0.03
    again = Image.open(io.BytesIO(data)).convert("L")
    copied = decode_mask(encoded(again)).object
    assert torch.equal(copied > 0.5, torch.from_numpy(INSIDE))


def test_smooth_edges_are_shares() -> None:
    large = Image.fromarray(filled((31, 45, 142, 250), size=(192, 320)).astype(np.uint8) * 255)
    for small in (large.resize((80, 48), Image.Resampling.BOX), large.rotate(20).resize((80, 48))):
        share = decode_mask(encoded(small)).object
        np.testing.assert_allclose(share.numpy() * 255, np.asarray(small), atol=1e-4)
    blurred = large.filter(ImageFilter.GaussianBlur(20))
    share = decode_mask(encoded(blurred)).object
    np.testing.assert_allclose(share.numpy() * 255, np.asarray(blurred), atol=1e-4)
    deep = (np.asarray(large.rotate(20).resize((80, 48))).astype(np.uint16)) * 257
    np.testing.assert_allclose(
        decode_mask(encoded(Image.fromarray(deep))).object, deep / 65535, atol=1e-6
    )
    shares = np.asarray(blurred, np.float32) / 300
    assert torch.equal(decode_mask(tiff(shares)).object, torch.from_numpy(shares))


TILES = np.kron(np.arange(24, dtype=np.uint8).reshape(4, 6), np.ones((12, 12), np.uint8))
SEVERAL = {
    "0, 1, 2": (encoded(Image.fromarray(levels(1, 2))), "0, 1, 2"),
    "0, 1, 255": (encoded(Image.fromarray(levels(1, 255))), "0, 1, 255"),
    "0, 128, 255": (encoded(Image.fromarray(levels(255, 128))), "0, 128, 255"),
    "two in a palette": (palette_png(levels(3, 5)), "0, 3, 5"),
    "no zero": (encoded(Image.fromarray(np.where(INSIDE, 1, 2).astype(np.uint8))), "1, 2"),
    "many classes": (
        encoded(Image.fromarray(TILES)),
        "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (24 in all)",
    ),
    "many classes up to 255": (encoded(Image.fromarray(TILES * 11)), "0, 11, 22, 33"),
    "half a range": (
        encoded(Image.fromarray(np.tile(np.arange(100, dtype=np.uint8), (20, 1)))), "0, 1, 2",
    ),
    "float above 1": (tiff(np.where(INSIDE, 2.5, 0.25).astype(np.float32)), "0.25, 2.5"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_levels_are_never_guessed(kind: str) -> None:
    data, listed = SEVERAL[kind]
    with pytest.raises(BadMask) as caught:
        decode_mask(data, source="a/x.png")
    assert caught.value.status == "mask_unreadable"
    for words in ("a/x.png", f"values {listed}", "--mask-object", "--mask-unknown"):
        assert words in str(caught.value)


def test_stated_values_decide() -> None:
    data = encoded(Image.fromarray(levels(1, 255)))
    inside, seam = (torch.from_numpy(part).float() for part in (INSIDE, SEAM))
    for files in (MaskFiles(unknown_values=(255,)), MaskFiles(object_values=(1,))):
        shares = decode_mask(data, files)
        assert torch.equal(shares.object, inside)
        if files.unknown_values:
            assert shares.unknown is not None
            assert torch.equal(shares.unknown, seam)
        else:
            assert shares.unknown is None
    both = decode_mask(data, MaskFiles(object_values=(1, 255)))
    assert torch.equal(both.object, inside + seam)
    turned = decode_mask(data, MaskFiles(object_values=(0,)))
    assert torch.equal(turned.object, 1 - inside - seam)


def test_stated_values_that_do_not_occur_are_told() -> None:
    data = encoded(Image.fromarray(levels(1)))
    with pytest.raises(BadMask) as caught:
        decode_mask(data, MaskFiles(object_values=(255, 254)), "a/x.png")
    assert caught.value.status == "mask_unreadable"
    assert str(caught.value) == (
        "none of the values stated with --mask-object (255, 254) occurs in its mask a/x.png, "
        "which holds 0, 1"
    )
    empty = encoded(Image.fromarray(levels(0)))
    assert decode_mask(empty, MaskFiles(object_values=(255,))).object.max() == 0
    void = decode_mask(data, MaskFiles(object_values=(255,), unknown_values=(1,)))
    assert void.unknown is not None
    assert void.object.max() == 0


def test_pictures_of_one_bit_answer_to_255_as_well() -> None:
    for value in (1, 255):
        share = decode_mask(PLAIN["one bit"], MaskFiles(object_values=(value,))).object
        assert torch.equal(share, torch.from_numpy(INSIDE).float())
    with pytest.raises(BadMask, match="holds 0, 1"):
        decode_mask(PLAIN["one bit"], MaskFiles(object_values=(7,)))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_stated_values_of_lossy_files_are_the_nearest(form: str) -> None:
    plain = Image.fromarray(levels(255, 128)).convert("RGB")
    data = encoded(plain, form, quality=80)
    for files in (MaskFiles(object_values=(255,)), MaskFiles(object_values=(255, 128))):
        share = decode_mask(data, files).object
        assert set(share.unique().tolist()) == {0, 1}
    shares = decode_mask(data, MaskFiles(object_values=(255,), unknown_values=(128,)))
    assert (shares.object - torch.from_numpy(INSIDE).float()).abs().mean() < 0.02
    assert shares.unknown is not None
    assert (shares.unknown - torch.from_numpy(SEAM).float()).abs().mean() < 0.05
    with pytest.raises(BadMask, match="values 0 and 1 cannot be told apart"):
        decode_mask(data, MaskFiles(object_values=(1,)))
    with pytest.raises(BadMask, match="which holds 0, 255"):
        decode_mask(
            encoded(Image.fromarray(levels(255)).convert("RGB"), form, quality=100),
            MaskFiles(object_values=(100,)),
        )


def test_vocs_palette_says_what_is_unknown() -> None:
    shares = decode_mask(palette_png(levels(3, 255)))
    assert torch.equal(shares.object, torch.from_numpy(INSIDE).float())
    assert shares.unknown is not None
    assert torch.equal(shares.unknown, torch.from_numpy(SEAM).float())
    grey = encoded(Image.fromarray(levels(3, 255)).convert("P"))
    with pytest.raises(BadMask, match="0, 3, 255"):
        decode_mask(grey)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no image of a known format"),
        (b"broken", "no image of a known format"),
        (png(0, (64, 64))[:-600], "truncated"),
        (tiff(np.full((4, 4), np.nan, np.float32)), "not finite"),
        (png(0), "colours (#"),
    ],
)
def test_damaged_masks_say_why(data: bytes, words: str) -> None:
    with pytest.raises(BadMask) as caught:
        decode_mask(data)
    assert caught.value.status == "mask_unreadable"
    assert words in str(caught.value)
    assert "0x" not in str(caught.value)


def test_another_size_is_told_before_odd_values() -> None:
    with pytest.raises(OtherSize):
        decode_mask(png(0, (20, 30)), size=(20, 30))


HABITS = (
    "{stem}.png", "{stem}.TIF", "{stem}_mask.png", "{stem}-mask.png", "{stem}.mask.png",
    "mask_{stem}.png", "{stem}_seg.png", "{stem}_segmentation.png", "{stem}_gt.gif", "{name}.png",
    "{stem}_Mask.png", "{name}_mask.png",
)  # fmt: skip


@pytest.mark.parametrize("habit", HABITS)
def test_masks_are_found_by_any_usual_name(habit: str, tmp_path: Path) -> None:
    painted_folder(tmp_path, masks=habit.replace("TIF", "png"))
    if "TIF" in habit:
        for file in (tmp_path / "masks").rglob("*.png"):
            file.rename(file.with_suffix(".TIF"))
    split = open_split(
        f"folder:{tmp_path}/images", masks=MaskFiles(root=tmp_path / "masks"), image_size=24
    )
    batch = split.__getitems__([0, 1])
    assert batch.status == ["ok", "ok"]
    assert batch.object_mask is not None
    assert (batch.images[:, 0] / 255 - batch.object_mask).abs().max() < 1.5 / 255
    assert split.facts == {}


def test_a_file_in_the_place_of_the_mask_folder_is_told(tmp_path: Path) -> None:
    painted_folder(tmp_path)
    write(tmp_path / "boxes.csv", "")
    with pytest.raises(DataError, match="is a file, where a folder") as caught:
        open_split(f"folder:{tmp_path}/images", masks=MaskFiles(root=tmp_path / "boxes.csv"))
    assert "--boxes" in str(caught.value)


def test_two_masks_of_one_picture_are_told(tmp_path: Path) -> None:
    painted_folder(tmp_path, masks="{stem}_mask.png")
    write(tmp_path / "masks" / "a" / "p0.png", painted(INSIDE))
    write(tmp_path / "masks" / "a" / "other.png", painted(INSIDE))
    write(tmp_path / "masks" / "a" / "notes.txt", b"")
    split = open_split(f"folder:{tmp_path}/images", masks=MaskFiles(root=tmp_path / "masks"))
    batch = split.__getitems__([0, 1])
    assert batch.status == ["mask_unreadable", "ok"]
    assert "a/p0.png, a/p0_mask.png" in batch.problem[0]
    assert split.facts == {"surplus_masks": 1}


def test_a_tree_of_other_masks_is_refused(tmp_path: Path) -> None:
    painted_folder(tmp_path, masks="number {stem}.png")
    with pytest.raises(DataError) as caught:
        open_split(f"folder:{tmp_path}/images", masks=MaskFiles(root=tmp_path / "masks"))
    for words in ("a/p0_mask.png", "a/number p0.png"):
        assert words in str(caught.value)


def turned_by_exif(inside: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.open(io.BytesIO(painted(inside))), "JPEG", exif=exif)


def test_every_bad_mask_of_a_folder_says_why(tmp_path: Path) -> None:
    whole = INSIDE.astype(np.uint8) * 255
    half = Image.fromarray(whole).resize((40, 24), Image.Resampling.NEAREST)
    masks = {
        "absent": None,
        "broken": b"broken",
        "exif": encoded(Image.fromarray(whole)),
        "half": encoded(half),
        "halfturned": encoded(half.transpose(Image.Transpose.ROTATE_90)),
        "ok": encoded(Image.fromarray(whole)),
        "other": encoded(Image.fromarray(whole[:40])),
        "three": encoded(Image.fromarray(levels(1, 2))),
        "truncated": png(1, (80, 48))[:400],
        "turned": encoded(Image.fromarray(whole.T.copy())),
    }
    for name, mask in masks.items():
        picture = turned_by_exif(INSIDE) if name == "exif" else painted(INSIDE)
        write(tmp_path / "i" / "a" / f"{name}.jpg", picture)
        if mask is not None:
            write(tmp_path / "m" / "a" / f"{name}_mask.png", mask)
    split = open_split(f"folder:{tmp_path}/i", masks=MaskFiles(root=tmp_path / "m"))
    batch = split.__getitems__(range(len(masks)))
    expected = {
        "absent": ("mask_missing", "it has no mask"),
        "broken": ("mask_unreadable", "no image of a known format"),
        "exif": ("mask_mismatch", "before its EXIF orientation"),
        "half": ("mask_mismatch", "same shape, at 0.5 times"),
        "halfturned": ("mask_mismatch", "transposed, at 0.5 times"),
        "ok": ("ok", ""),
        "other": ("mask_mismatch", "is 80×40 pixels, the picture 80×48 pixels: it was made for"),
        "three": ("mask_unreadable", "values 0, 1, 2"),
        "truncated": ("mask_unreadable", "truncated"),
        "turned": ("mask_mismatch", "it is transposed"),
    }
    for name, status, problem, picture in zip(
        masks, batch.status, batch.problem, batch.images, strict=True
    ):
        assert status == expected[name][0], name
        assert expected[name][1] in problem, problem
        assert problem.startswith(f"a/{name}.jpg: ") == (status != "ok"), problem
        assert str(tmp_path) not in problem
        assert picture.sum() > 0
        if status not in ("ok", "mask_missing"):
            assert f"a/{name}_mask.png" in problem


def test_unreadable_pictures_say_why(tmp_path: Path) -> None:
    for name, data in (("broken", b"broken"), ("empty", b""), ("half", png(1, (80, 48))[:2000])):
        write(tmp_path / "i" / "a" / f"{name}.png", data)
    (tmp_path / "i" / "a" / "lost.png").symlink_to(tmp_path / "nowhere")
    batch = open_split(f"folder:{tmp_path}/i").__getitems__(range(4))
    assert batch.status == ["unreadable"] * 4
    for said, words in zip(
        batch.problem, ("no image", "it is empty", "truncated", "No such file"), strict=True
    ):
        assert words in said
        assert str(tmp_path) not in said
        assert "0x" not in said


def test_fingerprints_follow_masks_and_what_they_mean(tmp_path: Path) -> None:
    painted_folder(tmp_path, masks="{stem}.png")
    root = tmp_path / "masks"

    def fingerprint(files: MaskFiles | None = None) -> str:
        return open_split(f"folder:{tmp_path}/images", masks=files).fingerprint()

    prints = [
        fingerprint(),
        fingerprint(MaskFiles(root=root)),
        fingerprint(MaskFiles(root=root, object_values=(255,))),
        fingerprint(MaskFiles(root=root, unknown_values=(255,))),
    ]
    assert fingerprint(MaskFiles(root=root)) == prints[1]
    write(root / "a" / "p0.png", encoded(Image.fromarray(levels(255))))
    (root / "a" / "p0.png").write_bytes(encoded(Image.fromarray(~INSIDE)))
    prints.append(fingerprint(MaskFiles(root=root)))
    (root / "b" / "p1.png").unlink()
    prints.append(fingerprint(MaskFiles(root=root)))
    assert len(set(prints)) == len(prints)


def test_images_and_masks_in_sub_folders_and_parts(tmp_path: Path) -> None:
    write(tmp_path / "i" / "val" / "a" / "deep" / "x.jpg", painted(INSIDE))
    write(tmp_path / "m" / "val" / "a" / "deep" / "x.png", encoded(Image.fromarray(INSIDE)))
    split = open_split(f"folder:{tmp_path}/i", "val", masks=MaskFiles(root=tmp_path / "m"))
    batch = split.__getitems__([0])
    assert batch.status == ["ok"]
    assert batch.sample_id == ["a/deep/x.jpg"]


@pytest.mark.parametrize(
    ("dataset", "files", "words"),
    [
        ("demo", MaskFiles(root=Path("x")), "--mask-root goes with folder:PATH"),
        ("voc", MaskFiles(unknown_values=(3,)), "--mask-object and --mask-unknown go with"),
        ("parquet:x", MaskFiles(boxes=Path("x")), "--boxes goes with folder:PATH and manifest"),
        ("folder:x", MaskFiles(root=Path("m"), boxes=Path("b")), "either --mask-root or --boxes"),
        ("folder:x", MaskFiles(object_values=(1,)), "without --mask-root"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(
    dataset: str, files: MaskFiles, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        open_split(dataset, masks=files)


def test_cutouts_are_of_voc_and_coco_alone() -> None:
    with pytest.raises(DataError, match="--samples instances goes with voc and coco"):
        open_split("demo", samples="instances")
