"""Class names as parts of metric names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# MLflow: letters, digits, _ - . and blanks (and / between parts); a name may become a file's.
_NOT_ALLOWED = re.compile(r"[^\w-]+")
_LONGEST = 60


def safe_name(text: str) -> str:
    r"""Letters, digits, ``_`` and ``-`` of any script; everything else as one ``_``.

    Args:
        text: Anything.

    Returns:
        At most 60 characters; empty if nothing is left.

    Example:
        >>> safe_name("<b>../fire truck</b>\n"), safe_name("猫"), safe_name("!")
        ('b_fire_truck_b', '猫', '')
    """
    return _NOT_ALLOWED.sub("_", text).strip("_")[:_LONGEST].strip("_")


def safe_names(names: Sequence[str]) -> list[str]:
    """A safe name for each class, no two alike, not even without regard to case.

    Where two would be alike, or nothing is left of a name, the class's number is added.

    Args:
        names: Class names, in the order of labels.

    Returns:
        As many names.

    Example:
        >>> safe_names(["a/b", "a b", "?", "cat"])
        ['a_b_0', 'a_b_1', 'class_2', 'cat']
    """
    wanted = [safe_name(name) for name in names]
    often = Counter(name.casefold() for name in wanted)
    alone = [bool(name) and often[name.casefold()] == 1 for name in wanted]
    taken = {name.casefold() for name, only in zip(wanted, alone, strict=True) if only}
    found = []
    for label, (name, only) in enumerate(zip(wanted, alone, strict=True)):
        free = name if only else f"{name or 'class'}_{label}"
        while not only and free.casefold() in taken:
            free += "_"
        taken.add(free.casefold())
        found.append(free)
    return found
