"""What pydantic finds wrong with a setting, in the words of this package's messages."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "a text",
    "path": "a path",
    "list": "a list",
    "tuple": "a list",
    "missing": "three numbers",
    "greater_than_equal": "a number of at least {ge}",
    "greater_than": "a number above {gt}",
    "less_than_equal": "a number of at most {le}",
    "less_than": "a number below {lt}",
}


def expected_of(error: ValidationError) -> str:
    """What would have been right, of the first setting that is wrong.

    Args:
        error: Of a model whose fields are the settings.

    Example:
        >>> from pydantic import create_model
        >>> try:
        ...     create_model("Bed", rows=(int, 1))(rows="some")
        ... except ValidationError as error:
        ...     expected_of(error)
        'a whole number'
    """
    every = error.errors()
    about = [each for each in every if each["loc"][:1] == every[0]["loc"][:1]]
    return ", or ".join(dict.fromkeys(map(_words_of, about)))


def _words_of(found: Any) -> str:
    kind = str(found["type"])
    words = _WORDS.get(kind) or _WORDS.get(kind.partition("_")[0])
    if words is not None:
        return words.format(**found.get("ctx", {}))
    return str(found["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
