"""Messages show what others named without letting it control the display."""

from __future__ import annotations

import pickle

import pytest

from audit.errors import AuditError, DataError, visible

CONTROLS = [*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]


def test_every_control_character_is_escaped() -> None:
    for code in CONTROLS:
        shown = visible(f"a{chr(code)}b")
        assert shown.isascii()
        assert shown.isprintable()
        assert eval(f"'{shown}'") == f"a{chr(code)}b"
    assert visible("\udcff\ud800") == "\\xff\\ud800"
    plain = "a b …/café “x” \\n \u200f猫 🐈"
    assert visible(plain) == visible(visible(plain)) == plain


def test_messages_have_no_control_characters_but_their_own_line_ends() -> None:
    odd = "\x1b[31mx\r\ny\u202e"
    error = DataError(f"no {odd}", expected=odd, found=odd, remedy=odd)
    shown = r"\x1b[31mx\r\ny\u202e"
    said = f"no {shown}\n  expected: {shown}\n  found: {shown}\n  remedy: {shown}"
    assert str(error) == said
    assert (error.problem, error.found) == (f"no {shown}", shown)


@pytest.mark.parametrize("kind", [AuditError, DataError])
def test_messages_survive_pickling(kind: type[AuditError]) -> None:
    error = kind("no \x1b", expected="one", remedy="look")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "no \\x1b\n  expected: one\n  remedy: look"
    assert (again.problem, again.expected, again.found, again.remedy) == (
        error.problem, "one", None, "look",
    )  # fmt: skip
