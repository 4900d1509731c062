"""Tar files in WebDataset's layout, read from their middle; hostile ones too."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from audit.data import Batch, MaskFiles, Split, open_split
from audit.data.identity import Stamp
from audit.data.reading import Reader
from audit.data.tarindex import index_of
from audit.data.webdataset import braces_opened
from audit.errors import DataError
from tests.data.making import encoded, filled, image_folder, png, write
from tests.data.web import Site, website

Member = tuple[str, bytes] | tarfile.TarInfo
INSIDE = encoded(Image.fromarray(filled((8, 8, 20, 20), size=(32, 32))))


@pytest.fixture
def site() -> Iterator[Site]:
    with website() as served:
        yield served


def tar(members: Iterable[Member], form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                file.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                file.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def sample(key: str, seed: int, label: str, *, mask: bool = False) -> list[Member]:
    members: list[Member] = [(f"{key}.png", png(seed)), (f"{key}.cls", label.encode())]
    return [*members, (f"{key}.mask.png", INSIDE)] if mask else members


def opened(place: Path | str, members: Iterable[Member], **more: int) -> Split:
    write(Path(place), tar(members, **more))
    return open_split(f"webdataset:{place}")


def fetch(split: Split) -> Batch:
    return split.__getitems__(range(len(split)))


# -- what is read


def test_tars_give_the_same_batches_as_a_folder(tmp_path: Path) -> None:
    image_folder(tmp_path / "i", {"cat": 5, "dog": 4}, masks=tmp_path / "m")
    (tmp_path / "i" / "cat" / "002.png").write_bytes(b"broken")
    (tmp_path / "m" / "dog" / "001.png").unlink()
    files = sorted((tmp_path / "i").rglob("*.png"))
    for shard in range(2):
        members: list[Member] = []
        for file in files[5 * shard : 5 * shard + 5]:
            key = f"{file.parent.name}/{file.stem}"
            mask = tmp_path / "m" / file.parent.name / file.name
            members += [(f"{key}.png", file.read_bytes()), (f"{key}.cls", key[:3].encode())]
            members += [(f"{key}.seg.png", mask.read_bytes())] if mask.exists() else []
        write(tmp_path / "t" / f"test-{shard:06d}.tar", tar(members))
    folder = fetch(open_split(f"folder:{tmp_path}/i", masks=MaskFiles(root=tmp_path / "m")))
    for pattern in ("", "/*.tar", "/test-{000000..000001}.tar"):
        split = open_split(f"webdataset:{tmp_path}/t{pattern}")
        batch = fetch(split)
        assert (split.name, split.classes) == ("t", ("cat", "dog"))
        assert batch.status == folder.status
        assert set(batch.status) == {"ok", "unreadable", "mask_missing"}
        for one, other in (
            (batch.images, folder.images), (batch.labels, folder.labels),
            (batch.object_mask, folder.object_mask), (batch.stored, folder.stored),
        ):  # fmt: skip
            assert one is not None
            assert other is not None
            assert torch.equal(one, other)
    assert batch.sample_id[0] == "test-000000/cat/000"
    assert batch.sample_id[-1] == "test-000001/dog/003"
    again = pickle.loads(pickle.dumps(split))
    assert fetch(again).sample_id == batch.sample_id


def test_labels_are_numbers_names_or_in_json(tmp_path: Path) -> None:
    def labelled(*labels: Member) -> list[Member]:
        pictures: list[Member] = [(f"{n}.jpg", png(n)) for n in range(len(labels))]
        return [*pictures, *labels]

    split = opened(tmp_path / "a.tar", labelled(("0.cls", b" 2\n"), ("1.cls", b"0")))
    assert (split.classes, fetch(split).labels.tolist()) == (("0", "1", "2"), [2, 0])
    assert split.name == "a"
    said = [
        ("0.json", b'{"label": "dog", "caption": "x"}'),
        ("1.json", b'{"label": [1]}'),
        ("2.json", b"{"),
        ("3.json", b'{"caption": "no label"}'),
        ("4.json", b'{"label": "ignored"}'),
    ]
    split = opened(tmp_path / "b.tar", [*labelled(*said), ("4.cls", b"cat")])
    batch = fetch(split)
    assert (split.classes, batch.labels.tolist()) == (("cat", "dog"), [1, -1, -1, -1, 0])
    assert batch.status == ["ok", "bad_label", "bad_label", "bad_label", "ok"]
    assert "the label in 1.json is neither a number nor text" in batch.problem[1]
    assert "2.json is no JSON" in batch.problem[2]
    assert "it has no label" in batch.problem[3]
    with pytest.raises(DataError, match="has a label"):
        opened(tmp_path / "c.tar", [("0.jpg", png(0)), ("0.txt", b"a caption")])


def test_class_names_lie_beside_or_within(tmp_path: Path) -> None:
    members = [*sample("x", 0, "1"), *sample("y", 1, "0"), *sample("z", 2, "7")]
    split = opened(tmp_path / "a.tar", [("classes.json", b'{"dog": 1, "cat": 0}'), *members])
    assert split.classes == ("cat", "dog")
    batch = fetch(split)
    assert batch.labels[:2].tolist() == [1, 0]
    assert "its label 7 is none of the 2 classes" in batch.problem[2]
    write(tmp_path / "classes.txt", "bird\n\nfish\n")
    assert open_split(f"webdataset:{tmp_path}/a.tar").classes == ("bird", "fish")
    write(tmp_path / "classes.txt", b"\xff\xfe")
    with pytest.raises(DataError, match="no list of classes"):
        open_split(f"webdataset:{tmp_path}/a.tar")


def test_members_of_one_key_need_not_be_neighbours(tmp_path: Path) -> None:
    members = sample("a/x.y", 0, "0", mask=True)
    members[0] = ("./a/x.PNG", png(0))
    members[1:1] = [("b.JPG", png(1)), ("b.cls", b"1"), ("notes.txt", b"hello"), ("README", b"")]
    members[-2:] = [("a/x.cls", b"0"), ("a/x.mask.png", INSIDE)]
    batch = fetch(opened(tmp_path / "t.tar", members))
    assert batch.sample_id == ["t/a/x", "t/b"]
    assert batch.status == ["ok", "mask_missing"]


def test_tars_of_one_name_and_of_other_parts(tmp_path: Path) -> None:
    for name in ("a/s.tar", "b/s.tar", "p/train-0.tar", "p/test-0.tar"):
        write(tmp_path / name, tar(sample("k", 0, "0")))
    split = open_split(f"webdataset:{tmp_path}/{{a,b}}/s.tar")
    assert fetch(split).sample_id == ["a/s/k", "b/s/k"]
    assert fetch(open_split(f"webdataset:{tmp_path}/p", "train")).sample_id == ["train-0/k"]
    with pytest.raises(DataError, match="no split named 'val'"):
        open_split(f"webdataset:{tmp_path}/p", "val")


def test_braces() -> None:
    assert braces_opened("x-{8..11}.tar") == ["x-8.tar", "x-9.tar", "x-10.tar", "x-11.tar"]
    assert braces_opened("{a,b}-{01..00}") == ["a-01", "a-00", "b-01", "b-00"]
    with pytest.raises(DataError, match="more than 1,000,000"):
        braces_opened("{0..9999999999}")
    with pytest.raises(DataError, match="more than 1,000,000"):
        braces_opened("{0..9999}{0..9999}")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_any_form(form: int, tmp_path: Path) -> None:
    key = "d" * 150 + "/" + "k" * 150 + "ü"
    split = opened(tmp_path / "t.tar", sample(key, 0, "0"), form=form)
    batch = fetch(split)
    assert (batch.sample_id, batch.status) == ([f"t/{key}"], ["ok"])


# -- hostile tars


def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path) -> None:
    members = [
        *sample("/etc/x", 0, "0"), *sample("../../x", 1, "0"),
        *sample("\x1b[31m", 2, "0"), ("._x.png", b"resource fork"), ("..png", b"x"),
    ]  # fmt: skip
    inside = tmp_path / "in" / "deep"
    batch = fetch(opened(inside / "t.tar", members))
    assert batch.status == ["ok"] * 3
    assert batch.sample_id == ["t//etc/x", "t/../../x", "t/\\x1b[31m"]
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "deep", "t.tar"]


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret.png", png(0))
    members: list[Member] = [
        special("a.png", tarfile.SYMTYPE, str(tmp_path / "secret.png")), ("a.cls", b"0"),
        special("b.png", tarfile.LNKTYPE, "a.png"), ("b.cls", b"0"),
        special("c.png", tarfile.CHRTYPE), ("c.cls", b"0"),
        special("d.png", tarfile.DIRTYPE),
        special("e.cls", tarfile.SYMTYPE, "/etc/passwd"), ("e.png", png(1)),
        *sample("f", 2, "0"), special("f.mask.png", tarfile.FIFOTYPE),
    ]  # fmt: skip
    batch = fetch(opened(tmp_path / "t.tar", members))
    assert batch.sample_id == ["t/a", "t/b", "t/c", "t/e", "t/f"]
    assert batch.status == ["unreadable"] * 3 + ["mask_missing", "mask_unreadable"]
    assert "a.png is a link or the like, which is not followed" in batch.problem[0]
    assert batch.labels.tolist() == [0, 0, 0, -1, 0]


def test_repeated_and_incomplete_keys(tmp_path: Path) -> None:
    members: list[Member] = [
        *sample("twice", 0, "0"), ("twice.png", png(1)),
        ("both.jpg", png(0)), ("both.png", png(0)), ("both.cls", b"0"),
        *sample("labels", 2, "0"), ("labels.cls", b"1"),
        *sample("masks", 2, "0", mask=True), ("masks.seg.png", INSIDE),
        ("lonely.cls", b"0"), ("said.json", b'{"label": 0}'), ("other.json", b"{}"),
        ("empty.png", b""), ("empty.cls", b""),
    ]  # fmt: skip
    batch = fetch(opened(tmp_path / "t.tar", members))
    assert batch.sample_id == [
        f"t/{key}" for key in ("twice", "both", "labels", "masks", "lonely", "said", "empty")
    ]
    assert batch.status == ["unreadable"] * 2 + [
        "mask_missing", "mask_unreadable", "unreadable", "unreadable", "unreadable"
    ]  # fmt: skip
    for n, words in (
        (0, "which member is its picture is not clear: twice.png, twice.png"),
        (1, "both.jpg, both.png"),
        (2, "which member is its label is not clear"),
        (3, "which member is its mask is not clear"),
        (4, "no member of the tar is its picture"),
        (6, "it is empty; it has no label"),
    ):
        assert words in batch.problem[n]


WHOLE = tar([*sample("a", 0, "0"), *sample("b", 1, "0")])


def with_size(data: bytes, size: bytes) -> bytes:
    """The tar with another size in its first header, whose sum is right."""
    header = bytearray(data[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WHOLE[:700], id="in the first picture"),
        pytest.param(WHOLE[:-10240], id="in the last member"),
        pytest.param(WHOLE.rstrip(b"\0"), id="in the last label"),
        pytest.param(WHOLE[:300], id="in a header"),
        pytest.param(WHOLE + WHOLE, id="two tars"),
        pytest.param(WHOLE + bytes(2**21), id="a long tail"),
        pytest.param(b"", id="empty"),
        pytest.param(b"no tar at all" * 100, id="something else"),
        pytest.param(WHOLE[:512].replace(b"a.png", b"b.png") + WHOLE[512:], id="checksum"),
        pytest.param(with_size(WHOLE, b"77777777777\0"), id="larger than the file"),
        pytest.param(with_size(WHOLE, b"\xff" * 12), id="negative"),
        pytest.param(with_size(WHOLE, b"\xff" * 10 + b"\xfe\0"), id="backwards"),
    ],
)
def test_damaged_tars_are_refused(data: bytes, tmp_path: Path) -> None:
    write(tmp_path / "t.tar", data)
    with pytest.raises(DataError, match="is damaged"):
        open_split(f"webdataset:{tmp_path}/t.tar")


def test_damage_in_a_picture_is_its_own(tmp_path: Path) -> None:
    write(tmp_path / "t.tar", WHOLE[:1024] + b"\xff" * 512 + WHOLE[1536:])
    assert fetch(open_split(f"webdataset:{tmp_path}/t.tar")).status == ["unreadable", "ok"]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_huge_extended_headers_are_not_read(kind: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 2**21
    write(tmp_path / "t.tar", info.tobuf(tarfile.USTAR_FORMAT) + bytes(2**21) + WHOLE)
    with pytest.raises(DataError, match="a header of 2097"):
        open_split(f"webdataset:{tmp_path}/t.tar")


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 10 + b"\xfc\0"])
@pytest.mark.parametrize(
    "kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE]
)
def test_negative_extended_headers_end(kind: bytes, size: bytes, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, 512
    data = info.tobuf(tarfile.USTAR_FORMAT) + bytes(512) + WHOLE
    write(tmp_path / "t.tar", with_size(data, size))
    with pytest.raises(DataError, match="is damaged"):
        open_split(f"webdataset:{tmp_path}/t.tar")


def test_compressed_tars_are_refused(tmp_path: Path) -> None:
    for name in ("t.tar.gz", "t.tar"):
        write(tmp_path / name, gzip.compress(WHOLE))
        with pytest.raises(DataError, match="gunzip"):
            open_split(f"webdataset:{tmp_path}/{name}")


def test_absent_tars_are_named(tmp_path: Path) -> None:
    write(tmp_path / "t-0.tar", WHOLE)
    with pytest.raises(DataError, match=r"t-1\.tar cannot be read"):
        open_split(f"webdataset:{tmp_path}/t-{{0..2}}.tar")
    for pattern in ("u-*.tar", "none/"):
        with pytest.raises(DataError, match=r"no file matches|cannot be read"):
            open_split(f"webdataset:{tmp_path}/{pattern}")


# -- the index


def test_the_index_is_kept_and_follows_the_file(tmp_path: Path) -> None:
    place, cache = tmp_path / "t.tar", tmp_path / "cache"
    write(place, WHOLE)
    name = f"webdataset:{place}"
    first = fetch(open_split(name, cache=cache))
    kept = list((cache / "tars").iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    split = open_split(name, cache=cache)
    assert (kept[0].stat().st_mtime_ns, fetch(split).sample_id) == (before, first.sample_id)
    # Indexes do not travel to worker processes: they read them.
    assert len(pickle.dumps(split)) < len(pickle.dumps(open_split(name)))
    assert fetch(pickle.loads(pickle.dumps(split))).status == ["ok", "ok"]
    kept[0].write_bytes(b"PAR1 damaged")
    assert fetch(open_split(name, cache=cache)).sample_id == first.sample_id
    write(place, tar(sample("other", 5, "0")))
    assert fetch(open_split(name, cache=cache)).sample_id == ["t/other"]


def test_an_index_is_used_instead_of_the_tar(tmp_path: Path) -> None:
    write(tmp_path / "t.tar", WHOLE)
    stamp = Stamp(len(WHOLE), "7")
    first = index_of(str(tmp_path / "t.tar"), stamp, tmp_path, Reader())
    (tmp_path / "t.tar").unlink()
    again = index_of(str(tmp_path / "t.tar"), stamp, tmp_path, Reader())
    assert again.equals(first)
    with pytest.raises(DataError, match="cannot be read"):
        index_of(str(tmp_path / "t.tar"), Stamp(len(WHOLE), "8"), tmp_path, Reader())


def test_a_folder_that_cannot_be_written_keeps_no_index(tmp_path: Path) -> None:
    write(tmp_path / "t.tar", WHOLE)
    write(tmp_path / "cache", b"a file")
    split = open_split(f"webdataset:{tmp_path}/t.tar", cache=tmp_path / "cache")
    assert fetch(split).status == ["ok", "ok"]


def test_fingerprints_follow_the_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a" / "t.tar", WHOLE)
    write(tmp_path / "b" / "t.tar", WHOLE)
    one, other = (open_split(f"webdataset:{tmp_path}/{n}/t.tar") for n in "ab")
    assert one.fingerprint() == other.fingerprint()
    assert one.facts == {"classes": "by number"}
    write(tmp_path / "b" / "t.tar", tar([*sample("a", 0, "0"), *sample("b", 2, "0")]))
    assert open_split(f"webdataset:{tmp_path}/b/t.tar").fingerprint() != one.fingerprint()


# -- stores


def test_tars_in_a_store_are_read_by_range(site: Site, tmp_path: Path) -> None:
    members = [m for n in range(40) for m in sample(f"{n:03d}", n, "0", mask=True)]
    site.files = {f"/t-{k}.tar": tar(members) for k in range(2)}
    write(tmp_path / "t-0.tar", site.files["/t-0.tar"])
    name = f"webdataset:{site.address}/t-{{0..1}}.tar"
    split = open_split(name, cache=tmp_path / "cache")
    assert split.facts == {"data_fingerprint": "digest of listing", "classes": "by number"}
    assert len(split) == 80
    site.ranges_seen.clear()
    site.seen.clear()
    batch = split.__getitems__([45, 46, 3])
    local = open_split(f"webdataset:{tmp_path}/t-0.tar").__getitems__([5, 6, 3])
    assert torch.equal(batch.images, local.images)
    assert batch.object_mask is not None
    assert local.object_mask is not None
    assert torch.equal(batch.object_mask, local.object_mask)
    assert batch.sample_id == ["t-1/005", "t-1/006", "t-0/003"]
    # Neighbours come in one answer: two for pictures, two for masks.
    assert len(site.seen) == len(site.ranges_seen) == 4
    site.seen.clear()
    again = open_split(name, cache=tmp_path / "cache")
    assert {method for method, path in site.seen if path.endswith(".tar")} == {"HEAD"}
    before = again.fingerprint()
    assert {method for method, path in site.seen if path.endswith(".tar")} == {"HEAD"}
    site.files["/t-1.tar"] = tar(members[3:])
    assert open_split(name).fingerprint() != before


def test_a_shard_that_fails_later_leaves_rows(site: Site) -> None:
    from audit.data import ReadPolicy

    site.files = {"/t.tar": WHOLE, "/u.tar": WHOLE}
    policy = ReadPolicy(tries=2, first_wait=0.01)
    split = open_split(f"webdataset:{site.address}/{{t,u}}.tar", policy=policy)
    site.status = {"/u.tar": 503}
    batch = fetch(split)
    assert batch.status == ["ok", "ok", "unreadable", "unreadable"]
    assert "HTTP status 503, Service Unavailable (asked 2 times)" in batch.problem[3]


def test_what_json_says_of_classes(tmp_path: Path) -> None:
    for said in (["cat", "dog"], {"cat": 0, "dog": 1}, {"0": "cat", "1": "dog"}):
        write(tmp_path / "classes.json", json.dumps(said))
        split = opened(tmp_path / "t.tar", sample("x", 0, "dog"))
        assert (split.classes, fetch(split).labels.tolist()) == (("cat", "dog"), [1])
    for wrong in ("3", '{"cat": 5}', '[["cat"]]', "{"):
        write(tmp_path / "classes.json", wrong)
        with pytest.raises(DataError, match="no list of classes"):
            open_split(f"webdataset:{tmp_path}/t.tar")
