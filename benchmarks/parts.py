"""Single stages: decoding, encoding of rows, estimation of masks.

python -m benchmarks.parts [--data-root DIR] [--only decoding,encoding,masks]

DIR holds cifar10/ in the Hub's Parquet layout; without it generated pictures are decoded.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_image, decode_jpeg

from audit.config import AuditConfig
from audit.data import Split
from audit.data.geometry import Geometry
from audit.data.loader import iterate
from audit.inputs import open_data
from audit.masks import estimate_masks
from audit.run.store import PartStore, Shard
from audit.storage import open_storage
from benchmarks.asking import about, chosen, parser, settled
from benchmarks.ours import open_audits
from benchmarks.pictures import draw
from benchmarks.results import Row, keep
from benchmarks.subjects import SUBJECTS
from benchmarks.timing import Work, take_turns

ONLY = ("decoding", "encoding", "masks")
PHOTO = 320  # Of generated photos, height and width.
FRAME = Geometry(size=(224, 224), resize=256)


def encoded(number: int, side: int, kind: str) -> list[bytes]:
    """Generated pictures as files.

    Args:
        number: How many.
        side: Height and width.
        kind: ``jpeg`` (quality 90) or ``png``.
    """
    found = []
    for picture in draw(torch.arange(number), side)[0].permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, kind, quality=90)
        found.append(file.getvalue())
    return found


def as_folder(place: Path, files: Sequence[bytes], kind: str) -> Split:
    """Pictures as a folder of two classes, opened as the audit opens it."""
    for number, content in enumerate(files):
        target = place / f"class{number % 2}" / f"{number:06d}.{kind}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return open_data(AuditConfig(dataset=f"folder:{place}")).framed(FRAME)


def as_parquet(place: Path, files: Sequence[bytes]) -> Split:
    """Pictures in the Hub's layout."""
    image = [{"bytes": content, "path": None} for content in files]
    table = pa.table({"img": image, "label": [number % 10 for number in range(len(files))]})
    pq.write_table(table, place / "test.parquet")
    return open_data(AuditConfig(dataset=f"parquet:{place / 'test.parquet'}"))


def decoding(asked: argparse.Namespace) -> list[Row]:
    """Images a second of the audit's readers, in one process; and of the decoder alone."""
    small, large = (100, 20) if asked.quick else (5000, 200)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        files = encoded(small, 32, "png")
        split, name = as_parquet(home, files), "PNG, 32×32, in Parquet"
        if asked.data_root is not None:
            config = AuditConfig(dataset="cifar10", data_root=asked.data_root, limit=small)
            split, name = open_data(config), "CIFAR-10, JPEG in Parquet"
        rows += _timed(asked, name, {"audit's reader": _reading(split, 256)}, len(split))
        for kind in ("jpeg", "png"):
            files = encoded(large, PHOTO, kind)
            tensors = [torch.frombuffer(bytearray(f), dtype=torch.uint8) for f in files]
            work: dict[str, Work] = {
                "decoder alone": lambda t=tensors: [decode_image(f, ImageReadMode.RGB) for f in t],  # type: ignore[misc]
                "audit's reader": _reading(as_folder(home / kind, files, kind), 16),
            }
            if kind == "jpeg" and asked.device.startswith("cuda"):
                work["nvJPEG alone"] = lambda t=tensors: decode_jpeg(t, device=asked.device)  # type: ignore[misc]
            name = f"{kind.upper()}, {PHOTO}×{PHOTO} to 224×224, folder"
            rows += _timed(asked, name, work, large)
    return rows


def _reading(split: Split, batch: int) -> Work:
    return lambda: sum(map(len, iterate(split, range(len(split)), batch_size=batch)))


def _timed(
    asked: argparse.Namespace, subject: str, work: dict[str, Work], images: int
) -> list[Row]:
    seconds = take_turns(work, rounds=asked.rounds, warm=1, device=asked.device)
    shared = about(asked, "parts", subject, "one process")
    return shared.timed(seconds, images, list(work)[:1])


def encoding(asked: argparse.Namespace) -> list[Row]:
    """A shard's rows made a table, and a table made a part on disk."""
    subject, size = SUBJECTS["resnet20"], 256 if asked.quick else 1024
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        audits = open_audits(stack, subject, subject.open(), size, asked)
        rows = next(iter(audits.values())).rows()
        table, summary = rows.table()
        store = PartStore(open_storage(Path(folder)), "samples", "benchmark")
        numbers = count()

        def commit() -> object:
            shard = Shard(number=next(numbers), start=0, stop=size)
            return store.commit(shard, table, summary, {})

        work: dict[str, Work] = {"arrays to a table": rows.table, "table to a part": commit}
        seconds = take_turns(work, rounds=asked.rounds, warm=1)
        part = (Path(folder) / store.part(Shard(number=0, start=0, stop=size))).stat().st_size
    shared = about(asked, "parts", "rows of resnet20", f"{table.num_columns} columns")
    found = shared.timed(seconds, size, ["table to a part"])
    middle = next(row.seconds for row in found if row.variant == "table to a part")
    assert middle
    return [
        *found,
        shared.row("a row in memory", value=table.nbytes / size, unit="bytes"),
        shared.row("a row on disk", value=part / size, unit="bytes"),
        shared.row("table to a part, in memory", value=table.nbytes / middle / 1e6, unit="MB/s"),
    ]


def masks(asked: argparse.Namespace) -> list[Row]:
    """The mask estimator on pictures in memory."""
    rows = []
    for side, number in ((32, 1000), (224, 100)):
        pictures = draw(torch.arange(50 if asked.quick else number), side)[0].to(asked.device)
        work = {"estimated": lambda p=pictures: estimate_masks(p)}
        rows += _timed(asked, f"masks at {side}×{side}", work, len(pictures))  # type: ignore[arg-type]
    return rows


_SECTIONS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "decoding": decoding, "encoding": encoding, "masks": masks,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    made = parser(__doc__)
    made.add_argument("--data-root", type=Path, help="folder that holds cifar10/")
    made.add_argument("--only", help="some of " + ", ".join(ONLY))
    asked = settled(made, arguments)
    for name in chosen(asked.only, ONLY):
        keep(_SECTIONS[name](asked), asked.keep)


if __name__ == "__main__":
    main()
