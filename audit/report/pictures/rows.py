"""The few rows that pictures are drawn from, as plain mappings.

A frame builds a row anew each time that it is asked for one, from a hundred columns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

Row = Mapping[str, Any]

# What tiles and their captions say.
SHOWN = (
    "sample_id", "label_name", "predicted_name", "correct", "confidence", "object_area",
    "mask_confidence", "mask_source", "background_share", "background_share_low",
    "background_share_high", "map", "target", "far_logit", "alt_map", "alt_far_logit",
    "top_channels", "channel_maps", "channel_logits", "channel_logits_scale",
)  # fmt: skip


def is_known(value: Any) -> bool:
    """Whether a cell holds something.

    Example:
        >>> is_known(0.0), is_known(pd.NA), is_known(None)
        (True, False, False)
    """
    return bool(pd.notna(value))


def rows_by_index(samples: pd.DataFrame, wanted: Collection[int]) -> dict[int, dict[str, Any]]:
    """Some samples' rows by their positions in the split.

    Args:
        samples: All rows.
        wanted: Positions; those that there are no rows of are left out.

    Returns:
        What :data:`SHOWN` names and the rows have, as the frame holds it.

    Example:
        >>> samples = pd.DataFrame({"index": [4, 7], "sample_id": ["a", "b"], "kappa": [0.1, 0.2]})
        >>> rows_by_index(samples, [7])
        {7: {'sample_id': 'b'}}
    """
    names = [name for name in SHOWN if name in samples]
    chosen = samples.loc[samples["index"].isin(list(wanted)), ["index", *names]]
    columns = [list(chosen[name].array) for name in names]
    return {
        int(index): dict(zip(names, values, strict=True))
        for index, values in zip(chosen["index"], zip(*columns, strict=True), strict=True)
    }
