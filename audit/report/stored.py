"""What a run has stored, as the report reads it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from audit.report.gallery import Flags, flag_samples


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a run has stored, as the page reads it.

    Attributes:
        facts: The manifest's content.
        tables: Its tables by the names of their files.
        samples: All rows.
        edits: Rows of edited samples; ``None`` where nothing was edited.
        thumbs: The rows of ``thumbs.parquet``.
        edited: The rows of ``edited.parquet``; ``None`` where nothing was edited.
        drawn: Contact sheets beside the page, relative to it.
    """

    facts: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    samples: pd.DataFrame
    edits: pd.DataFrame | None
    thumbs: pd.DataFrame
    edited: pd.DataFrame | None
    drawn: Collection[str] = ()

    @property
    def families(self) -> list[str]:
        """The families of masks as tables name them, the main one first."""
        return [name.partition(":")[0] for name in self.facts["mask_families"]]

    def flags(self) -> Flags:
        """Which samples are flagged."""
        labels, classes = self.tables["labels"], self.tables["classes"]
        return flag_samples(self.samples, labels, self.edits, classes, self.families)
