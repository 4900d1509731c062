from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit.errors import OutputError
from audit.report.pictures.drawing import Drawing, drawing_beside, drawn
from audit.report.pictures.png import png_of


def of(*names: str) -> Drawing:
    return Drawing(names=names, draw=lambda: iter([name.encode() for name in names]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (40, 31)])
def test_png_is_lossless_and_always_the_same(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    content = png_of(picture)
    opened = Image.open(io.BytesIO(content))
    assert (opened.format, opened.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(opened), picture)
    assert png_of(picture) == content
    # A cut-out is no contiguous array.
    assert png_of(picture[::-1, ::-1]) == png_of(np.ascontiguousarray(picture[::-1, ::-1]))


def test_drawings_come_in_turn() -> None:
    assert list(drawn([of("b", "a"), of("c")])) == [("b", b"b"), ("a", b"a"), ("c", b"c")]


def test_names_are_known_while_sheets_are_drawn(tmp_path: Path) -> None:
    go_on = threading.Event()

    def waits() -> Iterator[bytes]:
        assert go_on.wait(60)
        yield b"late"

    late = Drawing(names=("late",), draw=waits)
    with drawing_beside(tmp_path, [late, of("x", "y")]) as names:
        assert names == ["late", "x", "y"]
        assert not (tmp_path / "late").exists()
        go_on.set()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        "late": b"late", "x": b"x", "y": b"y",
    }  # fmt: skip


def test_a_sheet_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="cannot write"),
        drawing_beside(tmp_path / "missing", [of("a")]),
    ):
        pass


def test_after_a_failure_nothing_more_is_drawn(tmp_path: Path) -> None:
    begun, go_on = threading.Barrier(3, timeout=60), threading.Event()

    def waits() -> Iterator[bytes]:
        begun.wait()
        assert go_on.wait(60)
        yield b""

    slow = [Drawing(names=(f"slow{n}",), draw=waits) for n in range(2)]
    with pytest.raises(KeyboardInterrupt), drawing_beside(tmp_path, [*slow, of("never")]):
        begun.wait()
        threading.Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt
    assert not (tmp_path / "never").exists()
