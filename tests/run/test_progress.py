from __future__ import annotations

import os
import pty
import sys

import pytest

from audit.run.progress import Progress


def test_a_terminal_gets_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = pty.openpty()  # a terminal that says it has no columns
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress("audit", 100, done=20) as progress:
            progress(30)
            assert progress._bar is not None
            progress._bar.refresh()
    shown = _everything(reader)
    assert "50/100" in shown
    assert "images/s" in shown
    assert "<" in shown  # elapsed<left


def _everything(reader: int) -> str:
    """What a closed terminal was sent; it may come in pieces."""
    pieces = []
    while True:
        try:
            pieces.append(os.read(reader, 10_000))
        except OSError:  # the end, as Linux tells it
            os.close(reader)
            return b"".join(pieces).decode()


def test_a_log_gets_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Progress("masks", 1000) as progress:
        progress(1000)
    assert "masks: 1,000/1,000 images" in capsys.readouterr().err
    monkeypatch.setattr("audit.run.progress._SECONDS_BETWEEN_LINES", 0.0)
    with Progress("masks", 1000) as progress:
        progress(400)
        progress(600)
    assert capsys.readouterr().err.count("masks: 1,000/1,000 images") == 1, "the end is told once"
    with pytest.raises(RuntimeError), Progress("masks", 1000):
        raise RuntimeError
    assert capsys.readouterr().err == "", "a failed stage does not claim its end"
