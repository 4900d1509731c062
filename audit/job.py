"""One audit from beginning to end: open, compute what is missing, summarise, draw, commit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import nn

from audit.config import AuditConfig, load_config
from audit.errors import TooManyBadSamples, UsageError
from audit.explaining import explainer_of
from audit.files import remove_unfinished, sole_writer
from audit.inputs import Opened, open_inputs
from audit.models import describe, evaluation, plain_kernels
from audit.pixels import enough_memory, look_again
from audit.redraw import redrawn
from audit.results import conclude, prefixes_of
from audit.run.engine import Auditor, evidence_share
from audit.run.manifest import (
    CODE_OF_REPORTS,
    NAME,
    checksums,
    code_fingerprint,
    read_manifest,
    write_manifest,
)
from audit.run.progress import Progress
from audit.run.rows import columns_of
from audit.run.store import PartStore, Shard, plan_shards
from audit.sanity import count_stages
from audit.step import AuditStep, rehearse
from audit.tables.reading import read_samples
from audit.tables.totals import count_statuses, first_problems
from audit.viewing import Run

# The samples that tell of bad data, not of what the model does.
BAD_STATUSES = (
    "unreadable", "nonfinite", "mask_missing", "mask_unreadable", "mask_mismatch", "bad_label",
)  # fmt: skip
_LARGEST_BATCH = 256
# Pixels of a batch: 256 images of 64×64, 16 of 224×224.
_BATCH_PIXELS = 256 * 64 * 64


def run_audit(
    config: AuditConfig | None = None,
    *,
    network: nn.Module | None = None,
    say: Callable[[str], object] | None = None,
    **settings: Any,
) -> Run:
    """Audit a classifier over a split and leave a complete run.

    What an earlier, interrupted audit with the same settings has finished is kept.

    Args:
        config: The settings; or give them by name.
        network: The network to audit, where you hold it already; it is afterwards as it was
            before. Otherwise the setting ``model`` names it.
        say: Is told in a few lines what was opened, and how.
        **settings: See :class:`audit.config.AuditConfig`.

    Returns:
        The run.

    Raises:
        AuditError: If something cannot be opened, computed or written.

    Example:
        >>> run = run_audit(dataset="demo", limit=20, out=tmp)
        >>> len(run.samples)
        20
    """
    if config is not None and settings:
        raise TypeError("give the settings either as config or by name, not both")
    opened = open_inputs(config or load_config(None, settings), network)
    if say is not None:
        say(describe(opened.classifier, opened.parts))
    with sole_writer(opened.folder), evaluation(opened.classifier.module), plain_kernels():
        manifest = read_manifest(opened.folder)
        if manifest is None or _is_stale(manifest, opened.config):
            manifest = _compute(opened)
        manifest = redrawn(Run(opened.folder, manifest), opened.config)
        totals = manifest["totals"]
        _refuse_bad_data(totals["statuses"], totals["problems"], opened)
    return Run(opened.folder, manifest)


def _is_stale(manifest: dict[str, Any], config: AuditConfig) -> bool:
    """Whether a whole run lacks what is made of its rows."""
    other_code = manifest.get("report_code") != code_fingerprint(CODE_OF_REPORTS)
    # To ask for no edits is to be content with those that are there.
    other_edits = config.edits not in ("none", manifest["config"].get("edits"))
    no_sanity = config.sanity and "sanity.parquet" not in manifest["files"]
    return other_code or other_edits or no_sanity


def _compute(opened: Opened) -> dict[str, Any]:
    started = time.monotonic()
    (opened.folder / NAME).unlink(missing_ok=True)
    remove_unfinished(opened.folder)
    auditor = _auditor(opened)
    shards = plan_shards(len(opened.split), opened.config.shard_size)
    store = PartStore(opened.folder / "samples", opened.fingerprint)
    _compute_parts(auditor, store, shards, opened)
    computed = time.monotonic()
    sidecars = store.verify_all(shards)
    _refuse_bad_data(count_statuses(sidecars), first_problems(sidecars), opened)
    samples = read_samples(opened.folder)
    edited, editor = look_again(opened, auditor, samples)
    looked = time.monotonic()
    facts, written = conclude(opened, auditor, editor, samples, sidecars)
    facts["seconds"] = {
        "parts": round(computed - started, 2),
        "edits": round(looked - computed, 2),
        "tables_and_report": round(time.monotonic() - looked, 2),
    }
    facts["files"] = checksums(opened.folder, sorted(store.names(shards) + edited + written))
    write_manifest(opened.folder, facts)
    return facts


def _auditor(opened: Opened) -> Auditor:
    config = opened.config
    explainer = explainer_of(config, opened.classifier, opened.parts)
    step = AuditStep(
        explainer,
        image_size=opened.split.image_size,
        target=config.target,
        partners=config.partners,
        faithful=config.faithfulness,
        evidence_share=evidence_share(len(opened.split), opened.parts.channels),
    ).to_device(opened.device)
    rehearse(step, opened.classifier.architecture)
    if config.sanity and not count_stages(explainer):
        raise UsageError(
            f"--sanity cannot draw the weights of '{opened.classifier.architecture}' anew",
            expected="a network with parameters",
            found="a program whose weights are constants",
            remedy="leave --sanity, or audit the network from its Python code",
        )
    return Auditor(
        split=opened.split,
        step=step,
        families=opened.families,
        device=opened.device,
        batch_size=_batch_size(config.batch_size, opened.split.image_size),
        workers=opened.workers,
        columns=columns_of(
            prefixes_of(config), faithful=config.faithfulness, families=opened.families.others
        ),
    )


def _batch_size(wanted: int | str, image_size: tuple[int, int]) -> int:
    """A size that does not depend on the machine, so that a run can go on anywhere."""
    if isinstance(wanted, int):
        return wanted
    fit = _BATCH_PIXELS // (image_size[0] * image_size[1])
    return max(1, min(_LARGEST_BATCH, 2 ** max(0, fit.bit_length() - 1)))


def _compute_parts(auditor: Auditor, store: PartStore, shards: list[Shard], opened: Opened) -> None:
    missing = [shard for shard in shards if store.verified(shard) is None]
    if not missing:
        return
    total = len(opened.split)
    if todo := auditor.families.missing(0, total):
        every = total * len(auditor.families.caches)
        with Progress("masks", every, every - todo) as progress:
            auditor.families.fill(0, total, progress)
    done = total - sum(map(len, missing))
    with Progress("audit", total, done) as progress, enough_memory(opened, auditor):
        auditor.choose_donors(opened.config.seed)
        for shard, table, summary in auditor.run_shards(missing, progress):
            store.write(shard, table, summary)


def _refuse_bad_data(statuses: dict[str, int], problems: list[str], opened: Opened) -> None:
    counts = {status: statuses.get(status, 0) for status in BAD_STATUSES}
    bad, total = sum(counts.values()), len(opened.split)
    if bad > opened.config.max_bad * total:
        raise TooManyBadSamples(
            f"{bad:,} of {total:,} samples cannot be audited",
            expected=f"at most {opened.config.max_bad:.1%} (--max-bad)",
            found=", ".join(f"{count:,} {status}" for status, count in counts.items() if count)
            + (f"; for example: {problems[0]}" if problems else ""),
            remedy="look up which: the columns status and problem in "
            f"{opened.folder / 'samples'}; then mend the data, or allow more with --max-bad",
        )
