"""Tiny datasets on disk."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(seed: int, size: tuple[int, int] = (32, 32)) -> bytes:
    """A random picture; size is width and height."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def hub_parquet(path: Path, images: list[bytes], labels: list[int], names: list[str]) -> None:
    """A file in the Hub's layout."""
    features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    schema = pa.schema(
        [
            ("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    rows = [
        {"img": {"bytes": image, "path": None}, "label": label}
        for image, label in zip(images, labels, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path)


def image_folder(
    root: Path, classes: dict[str, int], *, masks: Path | None = None, size: int = 32
) -> None:
    """So many pictures a class, and a centred square as mask of each."""
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            (root / name / f"{n:03d}.png").write_bytes(png(100 * number + n, (size, size)))
            if masks is not None:
                (masks / name).mkdir(parents=True, exist_ok=True)
                mask = np.zeros((size, size), np.uint8)
                mask[size // 4 : size // 2, size // 4 : -size // 4] = 255
                Image.fromarray(mask).save(masks / name / f"{n:03d}.png")


# What follows paints each object red and what is unknown green, so that the red and green channels
# of a framed picture are its object and unknown shares, wherever the geometry puts them.

HEIGHT, WIDTH = 48, 80
VOC_PALETTE = [0] * 768
for _k in range(256):
    for _bit in range(8):
        for _channel in range(3):
            VOC_PALETTE[3 * _k + _channel] |= (_k >> (3 * _bit + _channel) & 1) << (7 - _bit)

Region = tuple[int, int, int, int]  # top, left, bottom, right


def filled(*regions: Region, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """True inside rectangles; size is height and width."""
    inside = np.zeros(size, bool)
    for top, left, bottom, right in regions:
        inside[top:bottom, left:right] = True
    return inside


def encoded(image: Image.Image, form: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def painted(inside: np.ndarray, unknown: np.ndarray | None = None) -> bytes:
    """A picture that shows its masks: red is object, green unknown, blue neither."""
    neither = np.zeros_like(inside) if unknown is None else unknown & ~inside
    pixels = np.stack([inside, neither, ~inside & ~neither], axis=2).astype(np.uint8) * 255
    return encoded(Image.fromarray(pixels))


def palette_png(values: np.ndarray) -> bytes:
    """A palette image with PASCAL VOC's colours."""
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putpalette(VOC_PALETTE)
    return encoded(image)


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


PETS = (("Abyssinian_1", 1), ("american_bulldog_2", 2), ("Abyssinian_3", 1))


def pet_folder(root: Path) -> Path:
    """Three pets in torchvision's layout, a seam of two pixels round each animal."""
    folder = root / "oxford-iiit-pet"
    for n, (name, _) in enumerate(PETS):
        inside = filled((10 + n, 20, 30, 50 + n))
        outer = filled((8 + n, 18, 32, 52 + n))
        write(folder / "images" / f"{name}.jpg", painted(inside, outer))
        trimap = np.where(inside, 1, np.where(outer, 3, 2)).astype(np.uint8)
        write(folder / "annotations" / "trimaps" / f"{name}.png", encoded(Image.fromarray(trimap)))
    lines = "".join(f"{name} {label} 1 1\n" for name, label in PETS)
    write(folder / "annotations" / "test.txt", lines)
    write(folder / "annotations" / "trainval.txt", lines.splitlines()[0] + "\n")
    return folder


COW, PERSON = 10, 15  # values of VOC's class masks


def voc_folder(root: Path) -> Path:
    """A picture with two cows (1 and 3) and a person (2), and one without objects."""
    folder = root / "VOCdevkit" / "VOC2012"
    things = np.zeros((HEIGHT, WIDTH), np.uint8)
    things[filled((5, 10, 41, 30))] = 255
    things[filled((6, 11, 40, 29))] = 1
    things[filled((10, 35, 20, 45))] = 2
    things[filled((30, 60, 40, 75))] = 3
    kinds = np.array([0, COW, PERSON, COW], np.uint8)[np.where(things == 255, 0, things)]
    kinds[things == 255] = 255
    empty = np.zeros_like(things)
    for name, kind, thing in (("2007_000001", kinds, things), ("2007_000002", empty, empty)):
        write(folder / "JPEGImages" / f"{name}.jpg", painted(kind == COW, kind == 255))
        write(folder / "SegmentationClass" / f"{name}.png", palette_png(kind))
        write(folder / "SegmentationObject" / f"{name}.png", palette_png(thing))
    for part in ("train", "val", "trainval"):
        write(folder / "ImageSets" / "Segmentation" / f"{part}.txt", "2007_000001\n2007_000002\n")
    return folder


def polygon(region: Region) -> list[float]:
    top, left, bottom, right = region
    return [left, top, right, top, right, bottom, left, bottom]


def run_lengths(inside: np.ndarray) -> dict[str, object]:
    """COCO's uncompressed run lengths."""
    counts, last, length = [], False, 0
    for value in inside.T.ravel().tolist():
        if value != last:
            counts.append(length)
            last, length = value, 0
        length += 1
    return {"size": list(inside.shape), "counts": [*counts, length]}


def annotation(number: int, image: int, kind: int, region: Region, **more: object) -> dict:
    top, left, bottom, right = region
    return {
        "id": number,
        "image_id": image,
        "category_id": kind,
        "iscrowd": 0,
        "area": (bottom - top) * (right - left),
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": [polygon(region)],
    } | more


DOGS = ((6, 10, 44, 40), (4, 50, 10, 60))
CROWD, CAT = (20, 60, 40, 78), (0, 0, 4, 4)


def coco_folder(root: Path) -> Path:
    """Pictures: 1 two dogs, a crowd of dogs, a cat; 2 nothing; 3 a cat; 4 has no file."""
    crowd = {"iscrowd": 1, "segmentation": run_lengths(filled(CROWD))}
    said = {
        "info": {"description": "made by a test", "url": "", "id": 7},
        "licenses": [{"url": "", "id": 1, "name": "any"}],
        "images": [
            {"id": n, "file_name": f"{n:012d}.jpg", "height": HEIGHT, "width": WIDTH}
            for n in (4, 3, 2, 1)
        ],
        "annotations": [
            annotation(11, 1, 18, DOGS[0]),
            annotation(12, 1, 18, DOGS[1], segmentation=run_lengths(filled(DOGS[1]))),
            annotation(13, 1, 18, CROWD, **crowd),
            annotation(14, 1, 17, CAT),
            annotation(31, 3, 17, DOGS[0]),
            annotation(41, 4, 17, DOGS[0]),
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }
    write(root / "annotations" / "instances_val2017.json", json.dumps(said))
    for n, picture in (
        (1, painted(filled(*DOGS), filled(CROWD))),
        (2, painted(filled())),
        (3, painted(filled(DOGS[0]))),
    ):
        write(root / "val2017" / f"{n:012d}.jpg", picture)
    return root


OBJECT = (12, 16, 36, 64)


def parquet_with_masks(path: Path, *, rows_a_group: int = 2) -> None:
    """Five pictures of many sizes with masks: as PNG, missing, broken, of another size."""
    sizes = [(48, 80), (40, 40), (48, 80), (50, 30), (48, 80)]
    inside = [filled(OBJECT, size=size) for size in sizes]
    masks: list[bytes | None] = [encoded(Image.fromarray(m)) for m in inside]
    masks[1], masks[2] = None, b"broken"
    masks[3] = encoded(Image.fromarray(inside[3].T.copy()))
    rows = [
        {
            "image": {"bytes": painted(m), "path": f"{n}.png"},
            "label": ["dog", "cat", "dog", None, "cat"][n],
            "mask": None if masks[n] is None else {"bytes": masks[n], "path": None},
        }
        for n, m in enumerate(inside)
    ]
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", picture), ("label", pa.string()), ("mask", picture)])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=rows_a_group)


def manifest(path: Path, columns: str = "image,label,mask") -> Path:
    """Two pictures beside a CSV file, with masks; columns are as many as the lines have."""
    for n in range(2):
        inside = filled(OBJECT)
        write(path.parent / "pictures" / f"{n}.png", painted(inside))
        write(path.parent / "masks" / f"{n}.png", encoded(Image.fromarray(inside)))
    lines = ["pictures/0.png,dog,masks/0.png", "pictures/1.png,cat,masks/1.png"]
    kept = len(columns.split(","))
    text = "\n".join([columns, *(",".join(line.split(",")[:kept]) for line in lines)])
    write(path, text + "\n")
    return path


def painted_folder(root: Path, *, masks: str | None = None, classes: str = "ab") -> None:
    """One picture a class below ``images``; masks below ``masks``, named by a pattern."""
    for n, name in enumerate(classes):
        inside = filled((OBJECT[0], OBJECT[1] + n, *OBJECT[2:]))
        write(root / "images" / name / f"p{n}.png", painted(inside))
        if masks is not None:
            file = masks.format(stem=f"p{n}", name=f"p{n}.png")
            write(root / "masks" / name / file, encoded(Image.fromarray(inside)))


def boxes_csv(path: Path, columns: str = "image,x1,y1,x2,y2") -> Path:
    """A box for each picture of :func:`painted_folder`."""
    extent = columns.endswith(("w,h", "width,height"))
    lines = [columns]
    for n, name in enumerate("ab"):
        left, top, right, bottom = OBJECT[1] + n, OBJECT[0], OBJECT[3], OBJECT[2]
        end = (right - left, bottom - top) if extent else (right, bottom)
        lines.append(f"{name}/p{n}.png,{left},{top},{end[0]},{end[1]}")
    write(path, "\n".join(lines))
    return path


def boxes_coco(path: Path) -> Path:
    said = {
        "images": [{"id": n, "file_name": f"p{n}.png"} for n in range(2)],
        "annotations": [
            annotation(n, n, 1, (OBJECT[0], OBJECT[1] + n, OBJECT[2], OBJECT[3])) for n in range(2)
        ],
        "categories": [{"id": 1, "name": "something"}],
    }
    write(path, json.dumps(said))
    return path


def boxes_voc(folder: Path) -> Path:
    for n, name in enumerate("ab"):
        top, left, bottom, right = OBJECT[0], OBJECT[1] + n, OBJECT[2], OBJECT[3]
        write(
            folder / name / f"p{n}.xml",
            f"<annotation><filename>other.jpg</filename><object><name>{name}</name><bndbox>"
            f"<xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object></annotation>",
        )
    return folder
