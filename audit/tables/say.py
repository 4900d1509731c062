"""In which language a sentence is said: the caller's matter."""

from __future__ import annotations

from collections.abc import Callable

# Takes a whole message, with {names} where values go, and returns it in the reader's language.
# Written out as say("…"), messages are found for translation.
Say = Callable[[str], str]


def in_english(message: str) -> str:
    """The message as it is written.

    Example:
        >>> in_english("{n} images")
        '{n} images'
    """
    return message
