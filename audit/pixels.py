"""The second look: some samples of a finished pass, edited in pixels and asked about again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from audit.errors import AuditError
from audit.inputs import Opened
from audit.run.edits import PixelEditor, images_a_class
from audit.run.engine import Auditor
from audit.run.progress import Progress
from audit.run.store import PartStore, plan_shards
from audit.tables.allocation import choose_bank, choose_edited
from audit.tables.reading import EDITS

# Edited samples a part; each takes some forty passes.
_SHARD = 250


def look_again(
    opened: Opened, auditor: Auditor, samples: pd.DataFrame
) -> tuple[list[str], PixelEditor]:
    """Edit the samples that ``--edits`` chooses, as far as a former try has not.

    Args:
        opened: What the run reads.
        auditor: As it computed the rows.
        samples: All rows.

    Returns:
        The files of the edits, relative to the run's folder; none where nothing was chosen. And
        what edits, to make pictures again.
    """
    chosen = choose_edited(samples, opened.config.edits, opened.config.seed)
    rows = samples.set_index("index")
    predicted = rows.loc[chosen, "predicted"].to_numpy(np.int64, na_value=-1)
    a_class = images_a_class(len(opened.split.classes), opened.split.image_size)
    bank = choose_bank(samples, a_class, opened.config.seed)
    editor = PixelEditor(auditor, chosen, predicted, bank, opened.config.seed)
    store = PartStore(opened.folder / EDITS, editor.fingerprint(opened.fingerprint))
    shards = plan_shards(len(chosen), _SHARD)
    missing = [shard for shard in shards if store.verified(shard) is None]
    if missing:
        done = len(chosen) - sum(map(len, missing))
        with Progress("edits", len(chosen), done) as progress, enough_memory(opened, auditor):
            editor.prepare()
            for shard, table, summary in editor.run_shards(missing, progress):
                store.write(shard, table, summary)
    store.verify_all(shards)
    names = store.names(shards)
    _remove_others(opened.folder / EDITS, names)
    return names, editor


@contextmanager
def enough_memory(opened: Opened, auditor: Auditor) -> Iterator[None]:
    """Say what helps where the device's memory does not suffice.

    Raises:
        AuditError: Then.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        height, width = opened.split.image_size
        raise AuditError(
            f"the device {opened.device} has too little memory for {auditor.batch_size} "
            f"images of {height}×{width} at a time",
            remedy="give a smaller --batch-size",
        ) from error


def _remove_others(folder: Path, names: Sequence[str]) -> None:
    """Remove parts of a larger choice than this one."""
    kept = {Path(name).name for name in names}
    for file in folder.iterdir():
        if file.name not in kept and file.name.lstrip("_").startswith("part-"):
            file.unlink()
