"""Where a dataset's own object masks lie, and how their files are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class MaskFiles:
    """Where the object masks of a dataset lie, for sources that do not bring their own.

    Attributes:
        root: A parallel tree of mask files.
        boxes: A CSV or COCO JSON file, or a folder of VOC XML files, with boxes round objects.
        object_values: Which values of a mask file mean object; empty for every value but 0.
        unknown_values: Which values mean neither; such pixels count on no side.

    Example:
        >>> MaskFiles(root=Path("masks"), unknown_values=(255,)).boxes is None
        True
    """

    root: Path | None = None
    boxes: Path | None = None
    object_values: tuple[int, ...] = ()
    unknown_values: tuple[int, ...] = ()
