"""Reading a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from audit.errors import UsageError
from audit.run.copies import fetch_run
from audit.run.manifest import COMPARED, NAME, find_flaw, is_summed_run, read_manifest, status_of
from audit.storage import is_remote
from audit.tables.frames import (
    EDITS,
    join_samples,
    read_edits,
    read_samples,
    read_table,
    sample_files,
)
from audit.tables.scale import read_kept

__all__ = ["EDITS", "AuditRun", "enlarge_map", "load_run", "read_edits", "read_samples"]

# The folder of benchmarks (docs/certify.md): the models of their runs were made to rely on cues.
_BENCHMARKS = "certify"


@dataclass(frozen=True)
class AuditRun:
    """A complete run; tables are read when they are first asked for.

    Attributes:
        path: The run's folder.
        manifest: What was run, on what, and the totals.

    Example:
        >>> from audit import run_audit
        >>> run = run_audit(dataset="demo", limit=20, edits="none", grids=False, out=tmp)
        >>> rows = run.samples.query("reason == 'background' and correct")
        >>> set(rows["reason"]) <= {"background"}, run.samples["predicted"].dtype
        (True, Int32Dtype())
        >>> run.joined.loc[run.samples["sample_id"], "background_decides"].isna().all().item()
        True
        >>> run.sample("test-00000-digit-0256").notna()["predicted_name"]
        np.True_
    """

    path: Path
    manifest: dict[str, Any]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a sample, in the split's order.

        Classes are nullable integers, flags nullable booleans and names categories; a condition on
        an undefined value is not met. Of a split of more than 200,000 samples these are some that
        were drawn by chance (docs/scale.md); the files in ``samples/`` hold all.
        """
        if not is_summed_run(self.manifest):
            return self.kept
        drawn = self.kept["kept_as"] == "split"
        return self.kept[drawn].drop(columns="kept_as").reset_index(drop=True)

    @cached_property
    def kept(self) -> pd.DataFrame:
        """The rows that the report is made of: those of ``samples``, unless these were drawn.

        Then also rows of rare classes and of samples that come first on some list; ``kept_as``
        says which is which.
        """
        if is_summed_run(self.manifest):
            return read_kept(self.path)
        return read_samples(self.path, sample_files(self.manifest))

    @cached_property
    def joined(self) -> pd.DataFrame:
        """The samples by ``sample_id``, with what the label suspects and the edits say of each.

        The columns beyond those of ``samples`` are null for a sample that is no suspect, or was not
        edited:

        - ``suspect_kind``, ``suspect_score``, ``suggested``, ``suggested_name`` and
          ``suggested_probability``: ``kind``, ``label_score`` and so on of ``labels.parquet``;
        - ``p_object_only``, ``p_background_only``, ``p_mixed_same``, ``p_mixed_rand``: the label's
          probability after these edits, in [0, 1];
        - ``edit_effect``: by how much more than usual this background is followed when it is put
          under objects of other classes, in [−1, 1];
        - ``background_decides``: whether nearly all of these transplants follow it, and at least
          half of them because of it (``decided_share`` of ``evidence.parquet`` counts them).
        """
        return join_samples(
            self.kept, self.labels, read_edits(self.path), len(self.manifest["classes"])
        )

    def sample(self, sample_id: str) -> pd.Series:
        """Everything that the tables say of one sample.

        Args:
            sample_id: Which sample.

        Returns:
            Its row of :attr:`joined`.

        Raises:
            UsageError: If there is no such sample.
        """
        if sample_id not in self.joined.index:
            raise UsageError(
                f"the run holds no sample '{sample_id}'",
                expected=f"a sample_id such as '{self.joined.index[0]}'",
            )
        place = int(np.flatnonzero(self.joined.index == sample_id)[0])
        row: pd.Series = self.joined.iloc[place]
        return row

    @cached_property
    def classes(self) -> pd.DataFrame:
        """One row a class."""
        return read_table(self.path / "classes.parquet")

    @cached_property
    def evidence(self) -> pd.DataFrame:
        """One row a class and family of masks: what edited pictures say of it."""
        return read_table(self.path / "evidence.parquet")

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
        return read_table(self.path / "confusion.parquet")

    @cached_property
    def backgrounds(self) -> pd.DataFrame:
        """One row for each class and kind of background that speaks for it."""
        return read_table(self.path / "backgrounds.parquet")

    @cached_property
    def channels(self) -> pd.DataFrame:
        """One row for each class and channel: what it adds from object and background."""
        return read_table(self.path / "channels.parquet")

    @cached_property
    def labels(self) -> pd.DataFrame:
        """One row a label that is probably wrong, the most suspect first."""
        return read_table(self.path / "labels.parquet")

    @cached_property
    def strata(self) -> pd.DataFrame:
        """One row for each class and kind of its images: accuracy and reliance on background."""
        return read_table(self.path / "strata.parquet")

    @cached_property
    def masks(self) -> pd.DataFrame:
        """One row a family of object masks: how far the numbers depend on it."""
        return read_table(self.path / "masks.parquet")

    @cached_property
    def properties(self) -> pd.DataFrame:
        """One row a property, for the split and for each class: does it tell label or error?"""
        return read_table(self.path / "properties.parquet")

    @cached_property
    def transplants(self) -> pd.DataFrame:
        """One row a family of masks, background's class and object's class: predicted as what?"""
        return read_table(self.path / "transplants.parquet")

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
        return read_table(file)

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
        rows = self.kept.loc[self.kept["sample_id"] == sample_id]
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
            Or the address of a run in an object store, which is copied to ``~/.cache/audit``.

    Returns:
        The run, its files checked against the manifest.

    Raises:
        UsageError: If there is no complete run.
        OutputError: If an object store refuses or does not answer.
    """
    folder = fetch_run(str(path)) if is_remote(str(path)) else Path(path)
    if (folder / NAME).is_file():
        manifest = read_manifest(folder)
        if manifest is None and status_of(folder) == COMPARED:
            raise UsageError(
                f"there is no run in {folder}",
                expected="the folder of a run, or a folder of runs",
                found="a comparison of runs",
                remedy="its manifest.json names the folders of the runs",
            )
        if manifest is None:
            raise UsageError(
                f"the run in {folder} is not whole",
                expected="files as listed in its manifest",
                found=find_flaw(folder),
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
