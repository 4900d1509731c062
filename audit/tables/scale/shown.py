"""The rows that a report of a large run is made of, and where they are found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from audit.tables.frames import typed_samples
from audit.tables.scale.extremes import winners
from audit.tables.scale.gathering import Gathered
from audit.tables.scale.numbers import Ids, whole
from audit.tables.scale.setting import FLAGGED
from audit.tables.totals import rank_classes

KEPT_ROWS = "kept.parquet"


def shown_rows(
    gathered: Gathered, classes: pd.DataFrame, most_classes: int, flagged: int = FLAGGED
) -> pd.DataFrame:
    """The kept rows, and those of the samples that come first on some list.

    Args:
        gathered: From the digests of all parts.
        classes: The rows of ``classes.parquet``.
        most_classes: Classes that get pictures.
        flagged: Flagged samples in all.

    Returns:
        Rows in the split's order.
    """
    first = rank_classes(classes)["label"][:most_classes].to_numpy(np.int64)
    wanted = winners(gathered.extremes, first, flagged)
    missing = np.setdiff1d(wanted, gathered.kept["index"].to_numpy(np.int64))
    if not len(missing):
        return gathered.kept
    fetched = typed_samples(gathered.fetch(missing))
    frame = pd.concat([gathered.kept, fetched], ignore_index=True)
    for name, kind in gathered.kept.dtypes.items():
        # Categories of two tables become plain names where they differ.
        if isinstance(kind, pd.CategoricalDtype):
            frame[name] = frame[name].astype("category")
    return frame.sort_values("index", ignore_index=True)


def kept_table(gathered: Gathered, shown: pd.DataFrame) -> pa.Table:
    """``kept.parquet``: the rows that a large run's report is made of.

    Args:
        gathered: From the digests of all parts.
        shown: From :func:`shown_rows`.

    Returns:
        All columns of samples, and ``kept_as``: ``split``, drawn from the whole split; ``class``,
        added for a class of which few were drawn; ``list``, as it comes first on some list.
    """
    index = shown["index"].to_numpy(np.int64)
    kept = gathered.kept["index"].to_numpy(np.int64)
    of_split = np.isin(index, kept[gathered.uniform.to_numpy()])
    why = np.select([of_split, np.isin(index, kept)], ["split", "class"], "list")
    return pa.Table.from_pandas(shown.assign(kept_as=why), preserve_index=False)


def read_kept(folder: Path) -> pd.DataFrame:
    """The rows of ``kept.parquet``, typed as those of :func:`audit.tables.frames.read_samples`."""
    return typed_samples(pq.read_table(folder / KEPT_ROWS, partitioning=None))


@dataclass(frozen=True, kw_only=True)
class PartRows:
    """Rows at some positions, read from their parts, one part in memory at a time.

    Attributes:
        starts: Where each part begins in the split, ascending.
        read: Gives a part's table by its place in ``starts``.
    """

    starts: Sequence[int]
    read: Callable[[int], pa.Table]

    def __call__(self, positions: Ids) -> pa.Table:
        """The rows at these positions, given ascending."""
        place = np.searchsorted(np.asarray(self.starts), positions, side="right") - 1
        found = []
        for part in np.unique(place).tolist():
            rows = self.read(part)
            wanted = positions[place == part]
            at = np.searchsorted(whole(rows, "index"), wanted)
            found.append(rows.take(pa.array(at)))
        return pa.concat_tables(found)
