"""A finished run as events of TensorBoard."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from audit.errors import UsageError
from audit.export.github import run_as_markdown
from audit.export.names import safe_name, safe_names
from audit.export.numbers import metrics_of
from audit.files import make_folder
from audit.tables.reading import AuditRun
from audit.tables.totals import rank_classes

# The end of our files' names; files of others in the folder stay.
_SUFFIX = ".audit"
_SCORES = ("background_share", "transplant_rate", "far_logit")
_MOST_CLASSES_SHOWN = 5
_SHEETS = ("right_for_the_wrong_reason", "wrong_but_confident")


def export_to_tensorboard(run: AuditRun, logdir: Path) -> Path:
    """Leave a run's numbers, distributions, some contact sheets and verdicts for TensorBoard.

    A second export replaces the first.

    Args:
        run: A finished run.
        logdir: TensorBoard's folder; the run gets its own in it, named by model, dataset and id.

    Returns:
        The run's folder in it.

    Raises:
        UsageError: If TensorBoard is not installed.
        OutputError: If the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed", remedy="pip install 'audit[tensorboard]'"
        ) from error
    facts = run.manifest
    parts = (facts["model"], facts["dataset"], facts["run_id"])
    folder = make_folder(logdir / "-".join(safe_name(part) for part in parts), flag="--logdir")
    before = list(folder.glob(f"events.out.tfevents.*{_SUFFIX}"))
    with SummaryWriter(str(folder), filename_suffix=_SUFFIX) as writer:
        _write(writer, run, datetime.fromisoformat(facts["finished"]).timestamp())
    for old in before:
        old.unlink(missing_ok=True)
    return folder


def _write(writer: Any, run: AuditRun, when: float) -> None:
    for name, value in metrics_of(run).items():
        writer.add_scalar(name, value, 0, walltime=when)
    names = safe_names([str(name) for name in run.classes["label_name"]])
    labels = run.samples["label"]
    for score in _SCORES:
        values = run.samples[score].to_numpy(np.float64, na_value=np.nan)
        for label, name in enumerate(names):
            own = values[(labels == label).to_numpy(bool, na_value=False)]
            own = own[np.isfinite(own)]
            if len(own):
                writer.add_histogram(f"{score}/{name}", own, 0, walltime=when)
    for name in _sheets(run):
        picture = _read_picture(run.path / name)
        writer.add_image(name.removesuffix(".png"), picture, 0, walltime=when, dataformats="HWC")
    writer.add_text("verdicts", run_as_markdown(run), 0, walltime=when)


def _sheets(run: AuditRun) -> list[str]:
    """The sheets of the split, and those of the classes that rely most on background."""
    listed = run.manifest["files"]
    labels = rank_classes(run.classes)["label"][:_MOST_CLASSES_SHOWN]
    wanted = [f"grids/{name}.png" for name in _SHEETS]
    for label in labels:
        wanted += [name for name in listed if name.startswith(f"grids/class-{int(label):04d}-")]
    return [name for name in wanted if name in listed]


def _read_picture(path: Path) -> NDArray[np.uint8]:
    """H×W×3, RGB."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.uint8)
