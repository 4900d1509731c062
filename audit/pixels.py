"""The second look: some samples of a finished pass, edited in pixels and asked about again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from audit.inputs import Opened
from audit.run.edits import PixelEditor, images_a_class
from audit.run.engine import Auditor
from audit.run.progress import Progress
from audit.run.store import PartStore, plan_shards, this_process
from audit.storage import Storage
from audit.storage.mirror import pull
from audit.tables.allocation import choose_bank, choose_edited
from audit.tables.reading import EDITS
from audit.telemetry import Telemetry
from audit.work import enough_memory

# Edited samples a part; each takes some forty passes.
_SHARD = 250


def look_again(
    opened: Opened, auditor: Auditor, samples: pd.DataFrame, telemetry: Telemetry | None = None
) -> tuple[list[str], PixelEditor]:
    """Edit the samples that ``--edits`` chooses, as far as a former try has not.

    Args:
        opened: What the run reads.
        auditor: As it computed the rows.
        samples: All rows.
        telemetry: Is told how far it is.

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
    fingerprint = editor.fingerprint(opened.fingerprint)
    telemetry = telemetry or Telemetry()
    if others := sum(count for of, count in _edited(opened.storage) if of != fingerprint):
        instead = f"replaced by those of {len(chosen):,}" if len(chosen) else "removed"
        telemetry.note(f"pixel edits of {others:,} images are {instead}: {_asked(opened)}")
    store = PartStore(opened.storage, EDITS, fingerprint)
    shards = plan_shards(len(chosen), _SHARD)
    missing = [shard for shard in shards if store.verified(shard) is None]
    if missing:
        done = len(chosen) - sum(map(len, missing))
        progressing = Progress("edits", len(chosen), done, telemetry)
        with progressing as progress, enough_memory(opened, auditor):
            editor.prepare()
            for shard, table, summary in editor.run_shards(missing, progress):
                store.commit(shard, table, summary, this_process())
    store.verify_all(shards)
    names = store.names(shards)
    _remove_others(opened.storage, names)
    if opened.remote:
        _empty(opened.folder / EDITS)
        pull(opened.storage, names, opened.folder)
    return names, editor


def tell_kept(opened: Opened, telemetry: Telemetry) -> None:
    """Tell of edits that are there and were not asked for.

    Args:
        opened: A complete run.
        telemetry: Is told.
    """
    if kept := sum(count for _, count in _edited(opened.storage)):
        telemetry.note(
            f"pixel edits of an earlier run are kept: {kept:,} images (for a run without them: "
            "another --run NAME)"
        )


def _asked(opened: Opened) -> str:
    return f"--edits {opened.config.edits}"


def _edited(storage: Storage) -> list[tuple[str, int]]:
    """Of each part of edits that is there, which choice it belongs to, and how many it holds."""
    found = []
    for entry in storage.entries(EDITS):
        if entry.name.endswith(".json"):
            try:
                sidecar = json.loads(storage.read(entry.name))
                found.append((str(sidecar["fingerprint"]), int(sidecar["rows"])))
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                continue  # of a writer that was killed; its part is no evidence
    return found


def _remove_others(storage: Storage, names: Sequence[str]) -> None:
    """Remove parts of a larger choice than this one."""
    for entry in storage.entries(EDITS):
        file = entry.name.rpartition("/")[2]
        if entry.name not in names and file.lstrip("_").startswith("part-"):
            storage.delete(entry.name)


def _empty(folder: Path) -> None:
    """Remove the copy of what may be another choice."""
    for file in folder.glob("*part-*"):
        file.unlink()
