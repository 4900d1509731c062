"""All tables of a run, from its stored rows alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa

from audit.tables.backgrounds import summarise_backgrounds
from audit.tables.channels import summarise_channels
from audit.tables.classes import count_confusions, summarise_classes
from audit.tables.clusters import find_clusters
from audit.tables.edited import EDITED_COLUMNS, summarise_edits
from audit.tables.evidence import weigh_evidence
from audit.tables.labels import find_suspects, majority_predictions
from audit.tables.masks import compare_masks
from audit.tables.methods import compare_methods
from audit.tables.properties import relate_properties
from audit.tables.strata import summarise_strata
from audit.tables.transplants import tabulate_transplants
from audit.tables.verdicts import VERDICT_COLUMNS, MaskTrust, judge_classes

# Tables that are made at a time, the longest first; most of their arithmetic runs side by side.
_THREADS = 2
_ORDER = (
    "masks", "transplants", "evidence", "classes", "confusion", "strata", "properties", "labels",
    "channels", "backgrounds", "methods",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the rows do not say themselves.

    Attributes:
        classes: Class names.
        families: Names of the families of masks, the main one first.
        methods: For each method the prefix of its columns, the first method first; empty where
            methods are not compared.
        grid: h and w of the maps.
        trust: What is known of the masks.
        seed: Draws bootstrap resamples.
    """

    classes: Sequence[str]
    families: Sequence[str]
    methods: Mapping[str, str]
    grid: tuple[int, int]
    trust: MaskTrust
    seed: int


def assemble(
    samples: pd.DataFrame, edits: pd.DataFrame | None, setting: Setting
) -> dict[str, pa.Table]:
    """Make every table.

    Args:
        samples: All rows.
        edits: Rows of edited samples; ``None`` where nothing was edited.
        setting: What the rows do not say.

    Returns:
        Tables by the names of their files.
    """
    classes, seed = setting.classes, setting.seed
    making: dict[str, Callable[[], pa.Table]] = {
        "backgrounds": lambda: summarise_backgrounds(samples, classes, setting.grid, seed),
        "classes": lambda: summarise_classes(samples, classes, seed),
        "properties": lambda: relate_properties(samples, classes, seed),
        "strata": lambda: summarise_strata(samples, classes, seed),
        "evidence": lambda: _weigh(samples, edits, setting),
        "labels": lambda: find_suspects(samples, classes, majority_predictions(edits)),
        "transplants": lambda: tabulate_transplants(samples, setting.families, classes),
        "masks": lambda: compare_masks(samples, setting.families),
        "channels": lambda: summarise_channels(samples, classes),
        "confusion": lambda: count_confusions(samples),
    }
    if setting.methods:
        making["methods"] = lambda: compare_methods(samples, setting.methods)
    # Each table draws from a generator of its own, so that their order does not matter.
    with ThreadPoolExecutor(_THREADS) as threads:
        begun = {name: threads.submit(make) for name, make in making.items()}
        made = {name: begun[name].result() for name in _ORDER if name in begun}
    made["classes"] = add_verdicts(
        made["classes"], made["evidence"], made["properties"], edits, setting
    )
    return made


def _weigh(samples: pd.DataFrame, edits: pd.DataFrame | None, setting: Setting) -> pa.Table:
    clusters = None
    if edits is not None:
        every = pd.Series(find_clusters(samples), index=samples["index"])
        clusters = every.loc[edits["index"]].to_numpy()
    return weigh_evidence(
        edits,
        samples,
        setting.classes,
        setting.families,
        seed=setting.seed,
        clusters=clusters,
    )


def add_verdicts(
    classes: pa.Table,
    evidence: pa.Table,
    properties: pa.Table,
    edits: pd.DataFrame | None,
    setting: Setting,
) -> pa.Table:
    """Add what pixels say of each class, and its verdict.

    Args:
        classes: ``classes.parquet`` as far as samples alone make it.
        evidence: ``evidence.parquet``.
        properties: ``properties.parquet``.
        edits: Rows of edited samples; ``None`` where nothing was edited.
        setting: What the rows do not say.

    Returns:
        The table with the columns of edits and verdicts.
    """
    edited = summarise_edits(edits, setting.classes, setting.seed)
    verdicts = judge_classes(
        classes,
        evidence.to_pandas(),
        edited,
        setting.trust,
        properties=properties.to_pandas(),
    )
    for columns, rows in ((EDITED_COLUMNS, edited), (VERDICT_COLUMNS, verdicts)):
        for column in columns:
            values = [row.get(column.name) for row in rows]
            array = pa.array(values, column.type, from_pandas=True)
            classes = classes.append_column(pa.field(column.name, column.type), array)
    return classes
