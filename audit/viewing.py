"""A finished run to look at: any of its samples as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from audit.config import AuditConfig, Colours, Language
from audit.errors import AuditError, UsageError
from audit.files import make_folder, write_atomically
from audit.report.pictures.png import png_of
from audit.report.pictures.show import Seen, Shown, draw_sample
from audit.report.pictures.style import choose_style
from audit.report.records import OBJECT, UNKNOWN, Record, record_of
from audit.report.thumbs import picture, silhouette
from audit.tables import reading

if TYPE_CHECKING:
    import pandas as pd

    from audit.data import Split

_GIVEN = ("dataset", "box")


@dataclass(frozen=True)
class Run(reading.AuditRun):
    """A complete run with its pictures: see :class:`audit.tables.AuditRun` for the tables.

    Example:
        >>> from audit import load_run, run_audit
        >>> done = run_audit(dataset="demo", limit=20, edits="none", grids=False, out=tmp)
        >>> run = load_run(done.path)
        >>> shown = run.show("test-00000-digit-0256", colours="viridis")
        >>> shown.lines[0][:6]
        'Label:'
        >>> shown.save(tmp / "sample.png").stat().st_size > 1000
        True
    """

    def show(
        self,
        sample_id: str,
        *,
        target: Literal["main", "alt"] = "main",
        colours: Colours | None = None,
        lang: Language | None = None,
        image: NDArray[np.uint8] | None = None,
    ) -> Shown:
        """One sample as a picture: image, heatmap, outline, and what the tables say of it.

        The picture comes from ``thumbs.parquet``; where the run keeps none of this sample, the
        dataset is opened as it was for the audit and asked for it.

        Args:
            sample_id: Which sample.
            target: ``main`` for the heatmap of the explained class, ``alt`` for that of the other
                of predicted and labelled class.
            colours: Of the heatmap; ``None`` takes the run's.
            lang: Of the lines; likewise.
            image: The picture as the model sees it, RGB, H×W×3, for a sample without a stored
                picture whose dataset is not at hand.

        Returns:
            What a notebook shows by itself; ``save`` writes it, ``str`` gives the lines.

        Raises:
            UsageError: If there is no such sample or map, or no picture to be had.
        """
        row = self.sample(sample_id)
        if target != "main":
            # Says why where there is none.
            self.heatmap(sample_id, target=target)
        config = self.manifest["config"]
        chosen = colours or config.get("colours", "jet"), lang or config.get("lang", "en")
        return draw_sample(
            row,
            self._seen(sample_id, row, image),
            classes=self.manifest["classes"],
            grid=tuple(self.manifest["grid"]),
            target=target,
            style=choose_style(*chosen),
        )

    def to_fiftyone(
        self,
        name: str | None = None,
        *,
        sample_ids: Iterable[str] | None = None,
        folder: str | Path | None = None,
    ) -> Any:
        """The samples as a dataset of FiftyOne, with heatmaps, masks and scores.

        A sample has the fields ``ground_truth`` and ``prediction`` (classifications with the
        class's probability as confidence), ``heatmap``, ``object_mask`` (1 object, 2 unknown),
        scores such as ``background_share`` by their names in :attr:`joined`, and its true flags as
        tags. Undefined values are left out.

        Args:
            name: Of the dataset; ``None`` makes one of dataset, model and run.
            sample_ids: Which samples; ``None`` takes those that the run keeps pictures of. Others
                are asked of the dataset.
            folder: Where pictures are written, as the model sees them; ``None`` is ``fiftyone`` in
                the run's folder.

        Returns:
            A ``fiftyone.Dataset``.

        Raises:
            UsageError: If FiftyOne is not installed, there is a dataset of this name, or a sample
                or its picture is not to be had.
        """
        fiftyone = _fiftyone()
        facts = self.manifest
        name = name or f"{facts['dataset']}-{facts['model']}-{facts['run_id']}"
        if fiftyone.dataset_exists(name):
            raise UsageError(
                f"FiftyOne already has a dataset '{name}'",
                remedy=f"give another name, or delete it: fiftyone.delete_dataset({name!r})",
            )
        samples = list(self.fiftyone_samples(sample_ids, folder))
        dataset = fiftyone.Dataset(name)
        dataset.add_samples(samples)
        dataset.default_mask_targets = {OBJECT: "object", UNKNOWN: "unknown"}
        dataset.info = {"run_id": facts["run_id"], "path": str(self.path)}
        dataset.save()
        return dataset

    def fiftyone_samples(
        self, sample_ids: Iterable[str] | None = None, folder: str | Path | None = None
    ) -> Iterator[Any]:
        """The same as single samples, for a dataset that you make yourself.

        Args:
            sample_ids: As in :meth:`to_fiftyone`.
            folder: Likewise.

        Yields:
            A ``fiftyone.Sample`` each.
        """
        fiftyone = _fiftyone()
        place = make_folder(self.path / "fiftyone" if folder is None else Path(folder), flag=None)
        for sample_id in self.pictured if sample_ids is None else sample_ids:
            row = self.sample(sample_id)
            seen = self._seen(sample_id, row, None)
            record = record_of(row, seen, tuple(self.manifest["grid"]))
            # A sample's name may hold anything; its position is a safe name for a file.
            file = place / f"{int(row['index']):09d}.png"
            write_atomically(file, png_of(seen.image), flag=None)
            yield _fiftyone_sample(fiftyone, file.resolve(), record)

    @cached_property
    def pictured(self) -> list[str]:
        """The samples whose pictures the run keeps, in the split's order."""
        table = pq.read_table(
            self.path / "thumbs.parquet", columns=["index", "sample_id"], partitioning=None
        )
        found = dict(zip(table["index"].to_pylist(), table["sample_id"].to_pylist(), strict=True))
        return [found[index] for index in sorted(found)]

    def _seen(self, sample_id: str, row: pd.Series, image: NDArray[np.uint8] | None) -> Seen:
        """The sample's picture, from what is given, the run, or the dataset."""
        if image is not None:
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise UsageError(
                    "the image is no picture",
                    expected="RGB as uint8, H×W×3",
                    found=f"{image.dtype}, {'×'.join(map(str, image.shape))}",
                )
            return Seen(image=image, mask=self._coarse_mask(row, image), exact=False)
        stored = pq.read_table(
            self.path / "thumbs.parquet",
            columns=["image", "mask"],
            filters=[("sample_id", "=", sample_id)],
            partitioning=None,
        )
        if len(stored):
            first = stored.slice(0, 1).to_pylist()[0]
            return Seen(image=picture(first["image"]), mask=silhouette(first["mask"]))
        return self._from_dataset(sample_id, row)

    def _from_dataset(self, sample_id: str, row: pd.Series) -> Seen:
        place, asked = int(row["index"]), f"the run keeps no picture of '{sample_id}'"
        remedy = "give it: run.show(sample_id, image=…), RGB as uint8, H×W×3"
        try:
            split = self._split
            batch = split.__getitems__([place]) if place < len(split) else None
        except (AuditError, OSError) as error:
            raise UsageError(
                f"{asked}, and its dataset cannot be opened",
                expected=f"'{self.manifest['config']['dataset']}' where it was audited",
                found=str(error).splitlines()[0],
                remedy=remedy,
            ) from error
        if batch is None or batch.sample_id[0] != sample_id:
            raise UsageError(
                f"{asked}, and the dataset is not the one that was audited",
                expected=f"'{sample_id}' at position {place:,}",
                found="nothing" if batch is None else f"'{batch.sample_id[0]}'",
                remedy=remedy,
            )
        if batch.status[0] == "unreadable":
            raise UsageError(f"the picture of '{sample_id}' is unreadable", found=batch.problem[0])
        image = batch.images[0].permute(1, 2, 0).contiguous().numpy()
        if batch.object_mask is None or row["mask_source"] not in _GIVEN:
            return Seen(image=image, mask=self._coarse_mask(row, image), exact=False)
        mask = np.where(batch.object_mask[0].numpy() >= 0.5, 255, 0).astype(np.uint8)
        if batch.unknown is not None:
            mask[batch.unknown[0].numpy() >= 0.5] = 128
        return Seen(image=image, mask=mask)

    @cached_property
    def _split(self) -> Split:
        return audited_split(self.manifest)

    def _coarse_mask(self, row: pd.Series, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The stored shares of the map's cells that are object, as a mask."""
        if row["grid_mask"] is None:
            return None
        shares = np.asarray(row["grid_mask"], np.float32).reshape(self.manifest["grid"])
        soft = cv2.resize(shares, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        return np.where(soft >= 0.5, 255, 0).astype(np.uint8)


def audited_split(manifest: Mapping[str, Any], data_root: Path | None = None) -> Split:
    """Open a run's dataset once more, in the geometry that the model saw.

    Args:
        manifest: Of the run.
        data_root: Where named datasets lie, if that is elsewhere by now.

    Raises:
        AuditError: If it cannot be opened.
    """
    from audit.data.geometry import Geometry
    from audit.inputs import open_data

    root = {} if data_root is None else {"data_root": data_root}
    split = open_data(AuditConfig.model_validate({**manifest["config"], **root}))
    frame = manifest["preprocessing"]["geometry"]
    if frame is None:
        return split
    resize = frame["resize"]
    return split.framed(
        Geometry(
            size=tuple(frame["size"]),
            resize=resize if isinstance(resize, int) else tuple(resize),
            interpolation=frame["interpolation"],
            squash=frame["squash"],
        )
    )


def load_run(path: str | Path) -> Run:
    """Open a finished run.

    Args:
        path: A run's folder, or a folder of runs at any depth: then the newest complete one. Those
            in a folder ``certify`` further down are left out: nobody's models were audited there.
            Or the address of a run in an object store, which is copied to ``~/.cache/audit``.

    Returns:
        The run, its files checked against the manifest.

    Raises:
        UsageError: If there is no complete run.
    """
    found = reading.load_run(path)
    return Run(found.path, found.manifest)


def _fiftyone() -> Any:
    try:
        import fiftyone
    except ModuleNotFoundError as error:
        if error.name != "fiftyone":
            raise
        raise UsageError(
            "FiftyOne is not installed", remedy="pip install 'audit[fiftyone]'"
        ) from error
    return fiftyone


def _fiftyone_sample(fiftyone: Any, file: Path, record: Record) -> Any:
    """A record in FiftyOne's terms."""
    fields: dict[str, Any] = {"sample_id": record.sample_id, **record.fields}
    for field, named in (("ground_truth", record.label), ("prediction", record.prediction)):
        if named is not None:
            fields[field] = fiftyone.Classification(label=named[0], confidence=named[1])
    if record.heatmap is not None:
        fields["heatmap"] = fiftyone.Heatmap(map=record.heatmap, range=[0, 1])
    if record.mask is not None:
        fields["object_mask"] = fiftyone.Segmentation(mask=record.mask)
    return fiftyone.Sample(filepath=str(file), tags=list(record.tags), **fields)
