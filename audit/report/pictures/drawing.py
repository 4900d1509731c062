"""Pictures that are still to be drawn: in turn, or several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audit.files import write_atomically

# Scaling and encoding, most of the work, go on beside other threads; to lay out a sheet does not.
_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Sheets that are drawn together, since they share pictures.

    Attributes:
        names: Of their files.
        draw: Gives the files' contents, one after the other.
    """

    names: tuple[str, ...]
    draw: Callable[[], Iterator[bytes]]


def drawn(drawings: Iterable[Drawing]) -> Iterator[tuple[str, bytes]]:
    """Draw in turn.

    Args:
        drawings: What to draw.

    Yields:
        Names and contents.

    Example:
        >>> one = Drawing(names=("a.png", "b.png"), draw=lambda: iter([b"a", b"b"]))
        >>> list(drawn([one]))
        [('a.png', b'a'), ('b.png', b'b')]
    """
    for drawing in drawings:
        yield from zip(drawing.names, drawing.draw(), strict=True)


@contextmanager
def drawing_beside(folder: Path, drawings: Iterable[Drawing]) -> Iterator[list[str]]:
    """Draw and write in other threads while the caller does something else.

    Args:
        folder: Where to; it must exist.
        drawings: What to draw.

    Yields:
        The names of all files, which are there when the context is left.

    Raises:
        OutputError: On leaving, if a file cannot be written.

    Example:
        >>> one = Drawing(names=("a.png",), draw=lambda: iter([b"a"]))
        >>> with drawing_beside(tmp, [one]) as names:
        ...     names
        ['a.png']
        >>> (tmp / "a.png").read_bytes()
        b'a'
    """
    planned = list(drawings)

    def write(drawing: Drawing) -> None:
        for name, content in drawn([drawing]):
            write_atomically(folder / name, content)

    threads = ThreadPoolExecutor(_THREADS)
    try:
        begun: list[Future[None]] = [threads.submit(write, drawing) for drawing in planned]
        yield [name for drawing in planned for name in drawing.names]
        for each in begun:
            each.result()
    finally:
        threads.shutdown(cancel_futures=True)
