"""Values of tables as JSON can hold them: numbers or null, never NaN."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Iterable
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Enough for any text on the page; a page of a thousand classes has a hundred thousand numbers.
_DIGITS = 5
# Larger maps are reduced: a map is drawn over a picture of at most 224 pixels.
LARGEST_MAP = 28


def plain(value: Any) -> Any:
    """A cell of a table: text as it is, whole numbers whole, others to five digits.

    Example:
        >>> plain(np.float32(0.1)), plain(np.int64(3)), plain(float("nan")), plain(pd.NA)
        (0.1, 3, None, None)
    """
    if isinstance(value, str):
        return value
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    return _rounded(float(value))


def column(values: pd.Series | Iterable[Any]) -> list[Any]:
    """A column of a table, cell by cell as :func:`plain` gives them.

    Example:
        >>> column(pd.Series([1, None], dtype="Int32")), column(pd.Series([0.25, np.nan]))
        ([1, None], [0.25, None])
    """
    if isinstance(values, pd.Series):
        return [plain(value) for value in values.astype(object).tolist()]
    return [plain(value) for value in values]


def records(
    frame: pd.DataFrame, names: Iterable[str], whole: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Some columns of a table, one dict a row; columns that it lacks are null.

    Args:
        frame: The table.
        names: Of the columns.
        whole: Columns of whole numbers, which pandas holds as floats where some are null.

    Example:
        >>> records(pd.DataFrame({"n": [1.0]}), ["n", "p"], whole=["n"])
        [{'n': 1, 'p': None}]
    """
    names = list(names)
    columns = [column(frame[name]) if name in frame else [None] * len(frame) for name in names]
    for name, values in zip(names, columns, strict=True):
        if name in whole:
            values[:] = [None if value is None else round(value) for value in values]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    # Without the minus of a rounded −0.
    return float(f"{value:.{_DIGITS}g}") + 0.0


def map_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Height and width of maps on the page.

    Args:
        grid: Of the maps as they are stored.

    Example:
        >>> map_size((8, 8)), map_size((56, 40))
        ((8, 8), (28, 20))
    """
    scale = min(1.0, LARGEST_MAP / max(grid))
    return max(1, round(grid[0] * scale)), max(1, round(grid[1] * scale))


def encoded_map(values: Any, grid: tuple[int, int]) -> str | None:
    """A stored map for the page.

    Args:
        values: h·w numbers, row by row; anything else where there is no map.
        grid: h and w.

    Returns:
        base64 of one byte a cell of :func:`map_size`: the positive part, 255 at its peak, all 0
        where nothing is positive; ``None`` without a map.

    Example:
        >>> base64.b64decode(encoded_map([2.0, 1.0, -1.0, 0.0], (2, 2))).hex()
        'ff800000'
    """
    if not isinstance(values, list | np.ndarray):
        return None
    positive = np.nan_to_num(np.asarray(values, np.float32)).reshape(grid).clip(min=0)
    height, width = map_size(grid)
    if (height, width) != tuple(grid):
        positive = cv2.resize(positive, (width, height), interpolation=cv2.INTER_AREA)
    peak = float(positive.max())
    levels = np.floor(positive / peak * 255 + 0.5) if peak > 0 else positive
    return encoded(np.asarray(levels, np.uint8))


def encoded(levels: NDArray[np.uint8]) -> str:
    """Bytes as base64."""
    return base64.b64encode(levels.tobytes()).decode()


def data_uri(picture: bytes) -> str:
    r"""A stored PNG or JPEG picture as the address of an image.

    Example:
        >>> data_uri(b"\xff\xd8\xff")
        'data:image/jpeg;base64,/9j/'
    """
    kind = "jpeg" if picture[:2] == b"\xff\xd8" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
