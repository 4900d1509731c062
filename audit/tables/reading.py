"""Reading a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audit.errors import UsageError
from audit.run.manifest import NAME, read_manifest

# The folder of the edited samples' rows.
EDITS = "edits"
# The folder of benchmarks (docs/certify.md): the models of their runs were made to rely on cues.
_BENCHMARKS = "certify"


@dataclass(frozen=True)
class AuditRun:
    """A complete run; tables are read when they are first asked for.

    Attributes:
        path: The run's folder.
        manifest: What was run, on what, and the totals.
    """

    path: Path
    manifest: dict[str, Any]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a sample, in the split's order."""
        return read_samples(self.path)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """One row a class."""
        return _read_table(self.path / "classes.parquet")

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """One row a class and family of masks: what edited pictures say of it."""
        return _read_table(self.path / "evidence.parquet")

    @cached_property
    def edits(self) -> pd.DataFrame:
        """One row a sample that was looked at in pixels: what the model says of edited pictures."""
        edits = read_edits(self.path)
        if edits is None:
            raise UsageError(
                f"the run in {self.path} has no edits",
                remedy="run the audit again without --edits none",
            )
        return edits

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """One row for each pair of label and prediction that occurs."""
        return _read_table(self.path / "confusion.parquet")

    @cached_property
    def backgrounds(self) -> pd.DataFrame:
        """One row for each class and kind of background that speaks for it."""
        return _read_table(self.path / "backgrounds.parquet")

    @cached_property
    def channels(self) -> pd.DataFrame:
        """One row for each class and channel: what it adds from object and background."""
        return _read_table(self.path / "channels.parquet")

    @cached_property
    def labels(self) -> pd.DataFrame:
        """One row a label that is probably wrong, the most suspect first."""
        return _read_table(self.path / "labels.parquet")

    @cached_property
    def strata(self) -> pd.DataFrame:
        """One row for each class and kind of its images: accuracy and reliance on background."""
        return _read_table(self.path / "strata.parquet")

    @cached_property
    def masks(self) -> pd.DataFrame:
        """One row a family of object masks: how far the numbers depend on it."""
        return _read_table(self.path / "masks.parquet")

    @cached_property
    def properties(self) -> pd.DataFrame:
        """One row a property, for the split and for each class: does it tell label or error?"""
        return _read_table(self.path / "properties.parquet")

    @cached_property
    def transplants(self) -> pd.DataFrame:
        """One row a family of masks, background's class and object's class: predicted as what?"""
        return _read_table(self.path / "transplants.parquet")

    @cached_property
    def methods(self) -> pd.DataFrame:
        """One row a method, of a run with several or with ``--faithfulness``."""
        return self._optional("methods", "--method a,b or --faithfulness")

    @cached_property
    def sanity(self) -> pd.DataFrame:
        """One row a method and stage, of a run with ``--sanity``."""
        return self._optional("sanity", "--sanity")

    def _optional(self, name: str, flag: str) -> pd.DataFrame:
        file = self.path / f"{name}.parquet"
        # A file of a former run with other settings may still lie there.
        if file.name not in self.manifest["files"]:
            raise UsageError(
                f"the run in {self.path} has no {name}", remedy=f"run the audit again with {flag}"
            )
        return _read_table(file)

    def heatmap(self, sample_id: str, *, target: str = "main") -> NDArray[np.float32]:
        """The map of one sample at image size, from the stored rows alone.

        Args:
            sample_id: Which sample.
            target: ``main`` for the explained class, ``alt`` for the other of predicted and
                labelled class.

        Returns:
            float32, H×W, the positive part over its maximum: in [0, 1].

        Raises:
            UsageError: If there is no such sample, or its map is undefined.
        """
        column = {"main": "map", "alt": "alt_map"}.get(target)
        if column is None:
            raise UsageError(f"no map is called '{target}'", expected="main or alt")
        rows = self.samples.loc[self.samples["sample_id"] == sample_id]
        if rows.empty:
            raise UsageError(f"the run holds no sample '{sample_id}'")
        values = rows.iloc[0][column]
        if values is None:
            raise UsageError(
                f"sample '{sample_id}' has no {target} map",
                found=f"status {rows.iloc[0]['status']}",
            )
        height, width = self.manifest["image_size"]
        return enlarge_map(values, self.manifest["grid"], (height, width))


def read_samples(folder: Path) -> pd.DataFrame:
    """The rows of all parts of a run, in the split's order."""
    parts = sorted((folder / "samples").glob("part-*.parquet"))
    # No partitioning: a folder above may be called something like lr=0.1.
    table = pq.ParquetDataset(parts, partitioning=None).read()
    frame: pd.DataFrame = table.to_pandas()
    # Nullable integers and booleans; float columns keep NaN as their null.
    for name in ("label", "predicted", "target", "alt_target", "object_pred", "background_pred"):
        frame[name] = frame[name].astype("Int32")
    # Whole numbers below 2⁵³, which float64 has held exactly where some are null.
    for name in frame.columns.intersection(
        ["image_hash", "stored_height", "stored_width", "file_bytes"]
    ):
        frame[name] = frame[name].astype("Int64")
    flags = ("right_for_wrong_reason", "wrong_because_of_background", "context_driven")
    for name in ("correct", *flags):
        frame[name] = frame[name].astype("boolean")
    return frame


def read_edits(folder: Path) -> pd.DataFrame | None:
    """The rows of a run's edited samples; ``None`` where nothing was edited."""
    parts = sorted((folder / EDITS).glob("part-*.parquet"))
    if not parts:
        return None
    frame: pd.DataFrame = pq.ParquetDataset(parts, partitioning=None).read().to_pandas()
    for name in ("predicted", "noise_object_prediction", "noise_background_prediction"):
        frame[name] = frame[name].astype("Int32")
    return frame


def _read_table(file: Path) -> pd.DataFrame:
    return pd.read_parquet(file, dtype_backend="numpy_nullable", partitioning=None)


def enlarge_map(
    values: NDArray[np.generic], grid: tuple[int, int] | list[int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """A stored map as a picture: its positive part, enlarged bilinearly, over its maximum.

    Args:
        values: h·w numbers, row by row.
        grid: h and w.
        size: H and W.

    Returns:
        float32 in [0, 1], H×W; all zero for a map without positive cells.
    """
    positive = np.maximum(np.asarray(values, np.float32).reshape(tuple(grid)), 0)
    large = cv2.resize(positive, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    peak = float(large.max())
    return np.asarray(large / peak if peak > 0 else large, np.float32)


def load_run(path: str | Path) -> AuditRun:
    """Open a finished run.

    Args:
        path: A run's folder, or a folder of runs at any depth: then the newest complete one. Those
            in a folder ``certify`` further down are left out: nobody's models were audited there.

    Returns:
        The run, its files checked against the manifest.

    Raises:
        UsageError: If there is no complete run.
    """
    folder = Path(path)
    if (folder / NAME).is_file():
        manifest = read_manifest(folder)
        if manifest is None:
            raise UsageError(
                f"the run in {folder} is not whole",
                expected="files as listed in its manifest",
                remedy="run the same audit again: what is whole is kept",
            )
        return AuditRun(folder, manifest)
    found = [
        file
        for file in folder.rglob(NAME)
        if _BENCHMARKS not in file.relative_to(folder).parent.parts
    ]
    newest = sorted(found, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for file in newest:
        manifest = read_manifest(file.parent)
        if manifest is not None:
            return AuditRun(file.parent, manifest)
    raise UsageError(
        f"there is no complete run in {folder}",
        expected=f"a folder with {NAME}, at any depth but not in '{_BENCHMARKS}'",
        remedy="make one: audit run --dataset demo",
    )
