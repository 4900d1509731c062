"""The whole benchmark: models, measurements, audits, tables, page; goes on where it stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from audit.certify.base import base_identity, open_base, schedule_of
from audit.certify.cases import Workshop, audit_case, make_model, measure
from audit.certify.evaluation import summarise
from audit.certify.known import KnownData, load_dataset
from audit.certify.page import Story, write_page
from audit.certify.plan import CHECKS, Case, plan_cases
from audit.certify.settings import CertifySettings
from audit.certify.tables import CERTIFY_COLUMNS, SAMPLE_COLUMNS, as_table, class_rows, sample_rows
from audit.certify.wording import plural, short_training
from audit.devices import pick_device
from audit.errors import ConfigError, ModelError
from audit.files import make_folder, remove_unfinished, write_parquet

# Settings that do not decide a result, or are part of the name by themselves.
_NOT_IN_NAME = {"data_root", "checkpoint", "device", "out"}


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A finished benchmark.

    Attributes:
        path: Its folder.
        classes: Rows of ``certify.parquet``.
        samples: Rows of ``samples.parquet``.
        summary: Rows of ``summary.parquet``.
        seconds: How long this call took.
    """

    path: Path
    classes: pd.DataFrame
    samples: pd.DataFrame
    summary: pd.DataFrame
    seconds: float


def certify(
    settings: CertifySettings, *, say: Callable[[str], object] = lambda text: None
) -> Certificate:
    """Plant cues, train on them, audit, and compare the verdicts with what was measured.

    What an earlier call with the same settings has finished is kept.

    Args:
        settings: What to do.
        say: Is told in a line what comes next.

    Returns:
        The tables; they lie in ``<out>/certify/<dataset>/<model>/<id>/`` with ``index.html``.

    Raises:
        AuditError: If the data or the base cannot be opened, or a training or an audit fails.
    """
    started = time.monotonic()
    device = pick_device(settings.device)
    identity = base_identity(settings)
    data = load_dataset(
        settings.dataset,
        settings.data_root,
        limit=settings.limit,
        train_limit=settings.train_limit,
    )
    if "dataset" in settings.mask_sources and not data.exact:
        raise ConfigError(
            f"{settings.dataset} has no object masks",
            expected="a dataset with masks for --masks dataset",
            remedy="use --masks estimated",
        )
    cases = plan_cases(
        settings.cues,
        settings.strengths,
        seeds=settings.seeds,
        num_classes=len(data.classes),
        random=settings.random,
    )
    folder = make_folder(_folder_of(settings, data, identity))
    remove_unfinished(folder)
    models = plural(len(cases), "model")
    say(f"{models} of {settings.model} on {settings.dataset}, in {folder}")
    base = open_base(settings, data, folder, device)
    shop = Workshop(settings=settings, data=data, base=base, device=device, folder=folder)
    classes, samples, measured = _work(shop, cases, say)
    tables = {
        "certify": as_table(classes, CERTIFY_COLUMNS),
        "samples": as_table(samples, SAMPLE_COLUMNS),
    }
    frames = {name: table.to_pandas() for name, table in tables.items()}
    tables["summary"] = summarise(frames["certify"], frames["samples"])
    frames["summary"] = tables["summary"].to_pandas()
    for name, table in tables.items():
        write_parquet(folder / f"{name}.parquet", table)
    recipe = schedule_of(settings, epochs=settings.epochs)
    story = Story(
        settings=settings,
        data=data,
        test=shop.test,
        base=base.source,
        recipe=recipe.describe(),
        accuracies={name: facts["accuracy_clean"] for name, facts in measured.items()},
        refused=tuple(name for name in measured if name not in set(frames["certify"]["case"])),
    )
    write_page(folder, story, classes=frames["certify"], summary=frames["summary"])
    warning = short_training(story.accuracies, frames["certify"])
    if warning is not None:
        say(warning)
    return Certificate(
        path=folder,
        classes=frames["certify"],
        samples=frames["samples"],
        summary=frames["summary"],
        seconds=time.monotonic() - started,
    )


def _work(
    shop: Workshop, cases: Sequence[Case], say: Callable[[str], object]
) -> tuple[list[dict[str, Any]], pd.DataFrame, dict[str, dict[str, Any]]]:
    """Make, measure and audit every case."""
    rows: list[dict[str, Any]] = []
    samples: list[pd.DataFrame] = []
    measured: dict[str, dict[str, Any]] = {}
    for number, case in enumerate(cases, start=1):
        say(f"{number}/{len(cases)} {case.name}")
        model = make_model(shop, case)
        facts = measured[case.name] = measure(shop, case, model)
        try:
            run = audit_case(shop, case)
        except ModelError as error:
            if case.kind not in CHECKS:
                raise
            # A network that learnt nothing may not depend on its images at all.
            say(f"the audit refuses {case.name}: {error.problem}")
            continue
        rows += class_rows(case, facts, run, shop.folder)
        if case.kind in ("planted", "clean"):
            samples.append(sample_rows(case, facts, run))
    empty = pd.DataFrame(columns=[column.name for column in SAMPLE_COLUMNS])
    return rows, pd.concat(samples, ignore_index=True) if samples else empty, measured


def _folder_of(settings: CertifySettings, data: KnownData, base: str) -> Path:
    """Where a benchmark lies: the same settings, data, weights and code give the same folder."""
    digest = hashlib.sha256(settings.model_dump_json(exclude=_NOT_IN_NAME).encode())
    digest.update(f"{base} {torch.__version__.partition('+')[0]}".encode())
    for part in (data.train, data.test):
        digest.update(part.images.numpy().tobytes() + part.labels.numpy().tobytes())
    for name in ("plants", "plan", "known", "training", "reliance", "cases", "splits", "base"):
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    dataset = "".join(c if c.isalnum() or c in "-_" else "-" for c in settings.dataset)
    return settings.out / "certify" / dataset / settings.model / digest.hexdigest()[:12]
