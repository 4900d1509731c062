"""Numbers as people read them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

import pandas as pd


def percent(value: object, digits: int = 0) -> str:
    """A share as a percentage; a dash where it is undefined.

    Example:
        >>> percent(0.256), percent(0.125), percent(None)
        ('26%', '13%', '–')
    """
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{rounded(100 * float(value), digits):.{digits}f}%"  # type: ignore[arg-type]


def rounded(value: float, digits: int = 0) -> float:
    """A number with so many digits, halves away from zero, as the page's scripts round them.

    Example:
        >>> rounded(12.5), rounded(-0.125, 2), rounded(float("inf"))
        (13.0, -0.13, inf)
    """
    exact = Decimal(value)
    if not exact.is_finite():
        return value
    return float(exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))


def number(value: object, digits: int = 2) -> str:
    """A number with so many digits; a dash where it is undefined.

    Example:
        >>> number(-0.001), number(None)
        ('0.00', '–')
    """
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{rounded(float(value), digits) + 0.0:.{digits}f}"  # type: ignore[arg-type]


def points(value: object) -> str:
    """A difference of shares as a percentage without "−0"; a dash where it is undefined.

    Example:
        >>> points(-0.001), points(-0.25), points(None)
        ('0%', '-25%', '–')
    """
    if pd.isna(value):  # type: ignore[call-overload]
        return "–"
    return f"{rounded(100 * float(value)) + 0.0:.0f}%"  # type: ignore[arg-type]


def width(value: object) -> str:
    """How wide a bar is for a value in [−1, 1]; nothing below 0.

    Example:
        >>> width(0.256), width(-0.1), width(None)
        ('26%', '0%', '0%')
    """
    if pd.isna(value):  # type: ignore[call-overload]
        return "0%"
    return f"{100 * min(1.0, max(0.0, float(value))):.0f}%"  # type: ignore[arg-type]
