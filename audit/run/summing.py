"""When a run's tables are made of sums instead of all rows."""

from __future__ import annotations

# Up to so many samples tables are made of all rows.
EXACT_ROWS = 200_000


def is_summed(count: int) -> bool:
    """Whether tables of so many samples are made of partial results.

    Args:
        count: Samples of the split.

    Example:
        >>> is_summed(200_000), is_summed(200_001)
        (False, True)
    """
    return count > EXACT_ROWS
