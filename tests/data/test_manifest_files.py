"""Manifests in Parquet: read a row group at a time, with the same rows as one held in memory."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.data import Batch, Split, open_split
from audit.data.columns import OneEach, TextColumn, digests_of, scan, unique_names
from audit.data.labels import labels_of
from audit.data.manifest import _ids
from audit.data.parquet import ParquetRows
from audit.errors import DataError
from tests.data.making import manifest, png, write

NAMES = st.lists(
    st.text(st.sampled_from("ab/. \u00a0@"), max_size=9)
    | st.sampled_from(["/d/a.png", "/d/e/b.png", "s3://b/x", "gs://b/é", "  c.png\t", "", "/"])
)


def fetch(split: Split) -> Batch:
    return split.__getitems__(range(len(split)))


def column(folder: Path, names: Sequence[str | None], group: int = 3) -> TextColumn:
    table = pa.table({"image": pa.array(names, pa.string())})
    pq.write_table(table, folder / "c.parquet", row_group_size=group)
    return TextColumn(ParquetRows([folder / "c.parquet"]), "image")


@settings(max_examples=150, deadline=None)
@given(names=NAMES)
def test_names_are_those_of_a_table_in_memory(
    names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = column(tmp_path_factory.getbasetemp(), names)
    held = [name.strip() for name in names]
    assert list(texts) == held
    found = unique_names(texts, scan(texts).common)
    assert [found[i] for i in range(len(names))] == _ids(held)
    assert set(scan(texts).addresses) == {
        f"{name.partition('://')[0]}://" for name in held if "://" in name
    }


def test_white_space_of_every_kind_is_stripped(tmp_path: Path) -> None:
    spaces = [chr(n) for n in range(0x3100) if chr(n).isspace()]
    texts = column(tmp_path, [f"{space}x y{space}" for space in spaces])
    assert set(texts) == {"x y"}
    stripped = {text for _, part in texts.parts() for text in part.to_pylist()}
    assert stripped == {"x y"}


def test_digests_differ_where_texts_do() -> None:
    texts = [f"s3://bucket/{n // 1000:04d}/{n:07d}.jpg" for n in range(30_000)]
    texts += ["", "a", "a\0", "\0", "ab", "ba", "aab", "baa"]
    array = pa.array(texts, pa.large_string())
    digests = digests_of(array)
    assert len(np.unique(digests)) == len(texts)
    # Whatever the text lies among.
    assert (digests_of(array.slice(17, 9000)) == digests[17:9017]).all()
    assert len(digests_of(pa.array([], pa.large_string()))) == 0


def test_repeated_names_are_numbered_across_row_groups(tmp_path: Path) -> None:
    names = ["a", "b", "a", "c", "a", "b", None, "d", ""]
    texts = column(tmp_path, names)
    found = unique_names(texts, "")
    expected = ["a", "b", "a@2", "c", "a@3", "b@2", "no name", "d", "no name@2"]
    assert [found[i] for i in range(9)] == expected
    assert [found[i] for i in (8, 0, 4)] == ["no name@2", "a", "a@3"]


def test_csv_and_parquet_give_the_same_split(tmp_path: Path) -> None:
    file = manifest(tmp_path / "list.csv")
    with file.open("a") as lines:
        lines.write("pictures/0.png,dog,\npictures/9.png,,masks/0.png\n,cat,\n")
        lines.write(f"{tmp_path}/pictures/1.png,cat,{tmp_path}/masks/1.png\n")
    table = pa.csv.read_csv(file)
    table = table.set_column(1, "label", table["label"].dictionary_encode())
    (tmp_path / "index").mkdir()
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=2)
    plain = table.set_column(1, "label", table["label"].cast(pa.string()))
    for n, start in enumerate((0, 4)):
        part = plain.slice(start, 4)
        pq.write_table(part, tmp_path / f"part-{n}.parquet", row_group_size=3)
    held = open_split(f"manifest:{file}")
    one, several = (
        open_split(f"manifest:{tmp_path}/{name}") for name in ("list.parquet", "part-*.parquet")
    )
    assert (one.name, several.name) == ("list", tmp_path.name)
    for split in (one, several, pickle.loads(pickle.dumps(several))):
        batch, expected = fetch(split), fetch(held)
        assert split.classes == held.classes
        assert (batch.sample_id, batch.status) == (expected.sample_id, expected.status)
        assert batch.problem == expected.problem
        assert (batch.images == expected.images).all()
        assert (batch.labels == expected.labels).all()
        assert split.fingerprint() == held.fingerprint()
    assert fetch(one).sample_id[-1] == "1.png"


def test_folders_and_globs_of_manifests(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for n in range(3):
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"image": [f"{n}.png"], "label": ["ab"[n % 2]]}), buffer)
        memory.pipe(f"/m1/index/part-{n}.parquet", buffer.getvalue().to_pybytes())
        memory.pipe(f"/m1/index/{n}.png", png(n))
        write(tmp_path / "index" / f"part-{n}.parquet", buffer.getvalue().to_pybytes())
        write(tmp_path / "index" / f"{n}.png", png(n))
    memory.pipe("/m1/index/notes.txt", b"no table")
    for place in (
        f"{tmp_path}/index", f"{tmp_path}/index/", f"{tmp_path}/index/*.parquet",
        "memory://m1/index/", "memory://m1/index/part-*.parquet",
    ):  # fmt: skip
        split = open_split(f"manifest:{place}")
        batch = fetch(split)
        assert (split.name, batch.status) == ("index", ["ok"] * 3)
        assert batch.sample_id == ["0.png", "1.png", "2.png"]
        assert batch.labels.tolist() == [0, 1, 0]
    for place in (f"{tmp_path}/none-*.parquet", "memory://m1/none/"):
        with pytest.raises(DataError, match="no file matches"):
            open_split(f"manifest:{place}")
    pq.write_table(pa.table({"image": ["x"], "name": ["a"]}), tmp_path / "index" / "z.parquet")
    with pytest.raises(DataError, match=r"z\.parquet has other columns than part-0\.parquet"):
        open_split(f"manifest:{tmp_path}/index")


def test_outlines_are_read_where_they_lie(tmp_path: Path) -> None:
    write(tmp_path / "0.png", png(0))
    outlines = ['{"size": [32, 32], "counts": [100, 200, 724]}', None, ""]
    table = pa.table({"image": ["0.png"] * 3, "label": [0] * 3, "rle": outlines})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=1)
    batch = fetch(open_split(f"manifest:{tmp_path}/m.parquet"))
    assert batch.status == ["ok", "mask_missing", "mask_missing"]
    assert batch.object_mask is not None
    assert batch.object_mask[0].sum() == 200


def test_boxes_of_parquet_manifests(tmp_path: Path) -> None:
    write(tmp_path / "0.png", png(0))
    edges = {"X1": [2.0, None], "y1": [2.0, None], "x2": [20, None], "y2": [20, None]}
    pq.write_table(
        pa.table({"image": ["0.png"] * 2, "label": [0] * 2} | edges), tmp_path / "m.parquet"
    )
    split = open_split(f"manifest:{tmp_path}/m.parquet")
    assert (split.mask_kind, fetch(split).status) == ("box", ["ok", "mask_missing"])


def test_only_the_row_groups_asked_for_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 4000
    names = [f"{n}.png" for n in range(count)]
    pq.write_table(
        pa.table({"image": names, "label": [0] * count}), tmp_path / "m.parquet",
        row_group_size=500,
    )  # fmt: skip
    split = open_split(f"manifest:{tmp_path}/m.parquet")
    read: Counter[int] = Counter()
    true = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, number: int, **more: object) -> pa.Table:
        read[number] += 1
        return true(self, number, **more)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    assert split.__getitems__([1203, 1201, 2001]).sample_id == ["1203.png", "1201.png", "2001.png"]
    assert read == {2: 1, 4: 1}


def test_very_long_manifests_stand_for_their_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("audit.data.manifest.MOST_LISTED", 1)
    for kind in ("csv", "parquet"):
        table = pa.table({"image": ["0.png", "1.png"], "label": ["a", "b"]})
        file = tmp_path / f"m.{kind}"
        if kind == "csv":
            pa.csv.write_csv(table, file)
        else:
            pq.write_table(table, file)
        split = open_split(f"manifest:{file}")
        assert split.facts == {"data_fingerprint": "digest of manifest"}
        before = split.fingerprint()
        write(tmp_path / "0.png", png(3))
        assert pickle.loads(pickle.dumps(split)).fingerprint() == before
        table = pa.table({"image": ["0.png", "2.png"], "label": ["a", "b"]})
        if kind == "csv":
            pa.csv.write_csv(table, file)
        else:
            pq.write_table(table, file)
        assert open_split(f"manifest:{file}").fingerprint() != before


def test_names_one_each() -> None:
    names = OneEach(["a", "", "b"])
    assert list(names) == [("a",), (), ("b",)]
    assert [names[i] for i in range(3)] == list(names)
    assert len(names) == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_coded_labels_are_those_of_their_text(kind: pa.DataType) -> None:
    texts = [" dog", "cat", None, "", "dog ", "unused", "zebra"]
    chunks = [pa.array(texts[:3], kind), pa.array(texts[3:], kind)]
    plain = pa.chunked_array(chunks)
    coded = pa.chunked_array([chunk.dictionary_encode() for chunk in chunks])
    for column_, rows in ((plain, 5), (coded, 5)):
        labels = labels_of(column_.slice(0, rows), (), "x")
        assert labels.classes == ("cat", "dog")
        assert labels.values.tolist() == [1, 0, -1, -1, 1]
    strange = labels_of(coded, ("dog", "cat"), "x")
    assert strange.values.tolist() == [0, 1, -1, -1, 0, -1, -1]
    assert strange.remarks == {
        5: "its label 'unused' is none of the 2 classes",
        6: "its label 'zebra' is none of the 2 classes",
    }
    numbers = pa.chunked_array([pa.array(["007", " 3", None], kind)]).dictionary_encode()
    assert labels_of(numbers, (), "x").values.tolist() == [7, 3, -1]
