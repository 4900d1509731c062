"""Numbers as people read them."""

from __future__ import annotations

import pandas as pd


def percent(value: object, digits: int = 0) -> str:
    """A share as a percentage; a dash where it is undefined.

    Example:
        >>> percent(0.256), percent(None)
        ('26%', '–')
    """
    return "–" if pd.isna(value) else f"{float(value):.{digits}%}"  # type: ignore[arg-type, call-overload]


def number(value: object, digits: int = 2) -> str:
    """A number with so many digits; a dash where it is undefined.

    Example:
        >>> number(-0.001), number(None)
        ('0.00', '–')
    """
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    rounded = round(float(value), digits)  # type: ignore[arg-type]
    return f"{rounded + 0.0:.{digits}f}"
