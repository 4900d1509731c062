"""What the outputs of a network are called, and which of them are meant."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from audit.errors import UsageError
from audit.models import Classifier
from audit.models.classmap import match_names


def read_names(given: Sequence[str] | Path | str) -> tuple[str, ...]:
    """Class names in the order of a network's outputs.

    Args:
        given: The names; or text with commas between them; or a file: one name a line, or JSON,
            which may be a list, ``{"0": "daisy", …}`` or ``{"daisy": 0, …}``.

    Raises:
        UsageError: If the file is absent or is nothing of that.

    Example:
        >>> read_names("daisy, roses")
        ('daisy', 'roses')
    """
    if not isinstance(given, (str, Path)):
        return tuple(map(str, given))
    path = Path(given)
    if isinstance(given, Path) or path.is_file():
        return _names_in(path)
    if path.suffix in (".txt", ".json", ".names") or (os.sep in given and "," not in given):
        raise UsageError(f"the file of class names {given} does not exist")
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _names_in(file: Path) -> tuple[str, ...]:
    expected = 'one name a line, or JSON: ["daisy", …], {"0": "daisy", …} or {"daisy": 0, …}'
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        if text and (file.suffix == ".json" or text[0] in "[{"):
            names = _from_json(json.loads(text))
        else:
            names = [line.strip() for line in text.splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise UsageError(f"the file of class names {file} does not exist") from error
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"the class names in {file} cannot be read", expected=expected, found=reason[:200]
        ) from error
    if not names:
        raise UsageError(f"{file} holds no class names", expected=expected, found="nothing")
    return tuple(names)


def _from_json(content: object) -> list[str]:
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if not isinstance(content, dict):
        raise ValueError("neither a list of names nor names with their numbers")
    pairs = {
        int(value if isinstance(value, int) else key): str(key if isinstance(value, int) else value)
        for key, value in content.items()
    }
    if sorted(pairs) != list(range(len(content))):
        raise ValueError(f"the numbers are not 0 to {len(content) - 1}, each once")
    return [pairs[number] for number in range(len(content))]


def labels_of(
    names: tuple[str, ...] | None, classifier: Classifier
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A name for each output, no two alike.

    Args:
        names: What the user calls them, or ``None`` for the classifier's own names. Where these
            are the same in another order, the classifier's order holds.
        classifier: The classifier.

    Returns:
        The names, and what to tell the user of them.

    Raises:
        UsageError: If there are more or fewer names than outputs.
    """
    own = classifier.classes
    if names is None:
        return _distinct(own), ()
    if len(names) != len(own):
        raise UsageError(
            f"--classes does not fit '{classifier.architecture}'",
            expected=f"{len(own)} names, one for each output",
            found=f"{len(names)}: {_some(names)}",
            remedy="name the outputs in the order of the training",
        )
    matched = match_names(names, own)
    if matched is None or len(set(matched.members)) < len(own):
        return _distinct(names), ()
    places = {output: name for name, (output,) in zip(names, matched.members, strict=True)}
    ordered = tuple(places[output] for output in range(len(own)))
    if ordered == tuple(names):
        return _distinct(names), ()
    note = f"the classes are taken in the order of {classifier.weights}: {_some(own)}"
    return _distinct(ordered), (note,)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names that occur twice get their number."""
    return tuple(
        f"{name} #{number}" if names.count(name) > 1 else name for number, name in enumerate(names)
    )


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")


def number_of(target: str, labels: Sequence[str]) -> int:
    """The output that is meant.

    Args:
        target: A name, whose capitals and punctuation do not count where that is clear, or a
            number.
        labels: The outputs' names.

    Raises:
        UsageError: If there is no such output, or several.

    Example:
        >>> number_of("Maine coon", ["siamese", "maine_coon"]), number_of("0", ["yes", "no"])
        (1, 0)
    """
    if target in labels:
        return labels.index(target)
    if target.isdecimal() and int(target) < len(labels):
        return int(target)
    same = [number for number, label in enumerate(labels) if _folded(label) == _folded(target)]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(target, labels, n=3)
    raise UsageError(
        f"there is no class '{target}'",
        expected=f"a number from 0 to {len(labels) - 1}, or one of: {_some(labels, 10)}",
        remedy="did you mean " + " or ".join(map(repr, near)) + "?" if near else None,
    )


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
