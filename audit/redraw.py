"""Drawing a finished run again: other language, colours or samples, from its stored tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from audit.config import AuditConfig, Colours, Language, load_config
from audit.data.loader import iterate
from audit.data.split import Batch, Split
from audit.errors import AuditError, UsageError
from audit.files import make_folder, sole_writer, write_parquet
from audit.masks.estimate import PLANES, enlarge
from audit.masks.estimators import DefaultEstimator
from audit.masks.families import family_of
from audit.report.columns import TABLES
from audit.report.gallery import choose_flagged
from audit.report.stored import Stored
from audit.report.thumbs import (
    CHOSEN,
    FLAGGED,
    UNKNOWN,
    build_thumbs,
    encode_mask,
    encode_picture,
)
from audit.report.writing import write_report
from audit.run.copies import fetch_run
from audit.run.manifest import NAME, checksums, read_manifest, write_manifest
from audit.run.rows import SAMPLE_COLUMNS
from audit.storage import is_remote
from audit.tables.reading import AuditRun, load_run, read_edits
from audit.viewing import Run, audited_split

_THUMBS, _EDITED = "thumbs.parquet", "edited.parquet"
# What every run has, and the report needs.
_TABLES = (
    "classes.parquet", "evidence.parquet", "confusion.parquet", "backgrounds.parquet",
    "channels.parquet", "labels.parquet", "strata.parquet", "masks.parquet",
    "transplants.parquet", "properties.parquet", _THUMBS,
)  # fmt: skip
# Where a run's new report is drawn before it takes the old one's place.
_UNFINISHED = ".redrawing"
_PAGE = "index.html"
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How a report is to be drawn; what is ``None`` stays as it was.

    Attributes:
        lang: Language of page and pictures.
        colours: Of heatmaps.
        samples: Samples to show beside those that the run chose.
        gallery: At most so many flagged samples.
        data_root: Where named datasets lie, if that is elsewhere by now.
        grids: Whether contact sheets are drawn.
    """

    lang: Language | None = None
    colours: Colours | None = None
    samples: Sequence[str] | None = None
    gallery: int | None = None
    data_root: Path | None = None
    grids: bool = True


def redraw(
    run: str | Path,
    *,
    out: str | Path | None = None,
    lang: Language | None = None,
    colours: Colours | None = None,
    samples: Sequence[str] | None = None,
    gallery: int | None = None,
    data_root: str | Path | None = None,
) -> Path:
    """Draw a run's page and grids again, from its stored tables; no model is opened.

    Args:
        run: Its folder, or a folder of runs: then the newest complete one. Or its address in an
            object store; then ``out`` is needed.
        out: A folder for page and grids; ``None`` replaces the run's own, and the run stays whole.
        lang: ``en`` or ``zh``; ``None`` as before.
        colours: ``jet``, ``viridis``, ``cividis`` or ``inferno``; ``None`` as before.
        samples: sample_ids to show in a part of their own; ``None`` as before. The dataset is asked
            for pictures that the run has not stored.
        gallery: At most so many flagged samples; ``None`` shows all that are stored.
        data_root: Where named datasets lie, if that is elsewhere by now.

    Returns:
        The page.

    Raises:
        ConfigError: If there is no such language or colour map.
        UsageError: If there is no complete run or no such sample, if the run is of another version,
            or if a picture is needed and the dataset cannot be opened.

    Example:
        >>> from audit import run_audit
        >>> run = run_audit(dataset="demo", limit=20, edits="none", grids=False, out=tmp)
        >>> redraw(run.path, colours="viridis", samples=run.samples["sample_id"][:1]).name
        'index.html'
    """
    if is_remote(str(run)) and out is None:
        raise UsageError(
            f"the run {run} is in an object store",
            remedy="say with --out where its page and grids go",
        )
    folder, manifest = _open(fetch_run(str(run)) if is_remote(str(run)) else Path(run))
    wishes = Wishes(
        lang=lang,
        colours=colours,
        samples=samples,
        gallery=gallery,
        data_root=None if data_root is None else Path(data_root),
    )
    if out is not None and Path(out).resolve() != folder.resolve():
        target = _elsewhere(Path(out))
        write_report(target, _stored(folder, manifest, wishes)[0])
        return target / _PAGE
    with sole_writer(folder):
        _replace_report(folder, manifest, wishes)
    return folder / _PAGE


def redrawn(run: Run, config: AuditConfig) -> dict[str, Any]:
    """A run's manifest with its report in the language and the colours of some settings.

    Args:
        run: A complete run whose folder the caller holds.
        config: The settings.
    """
    before = run.manifest["config"]
    now = (config.lang, config.colours, config.grids)
    if (before["lang"], before["colours"], before.get("grids", True)) == now:
        return run.manifest
    wishes = Wishes(lang=config.lang, colours=config.colours, grids=config.grids)
    return _replace_report(run.path, run.manifest, wishes)


def open_stored(run: str | Path) -> Stored:
    """What a run has stored, to draw from.

    Args:
        run: As for :func:`redraw`.

    Raises:
        UsageError: If there is no complete run, or it is of another version.
    """
    return _stored(*_open(Path(run)), Wishes())[0]


def _open(path: Path) -> tuple[Path, dict[str, Any]]:
    """A run of which everything is whole but perhaps its report."""
    manifest = read_manifest(path, but=_is_drawn)
    if manifest is None:
        found = load_run(path)
        path, manifest = found.path, found.manifest
    _refuse_another_version(path, manifest["files"])
    return path, manifest


def _refuse_another_version(folder: Path, files: Mapping[str, Any]) -> None:
    """Refuse a run whose tables are not those that this report is made of."""
    part = min(name for name in files if name.startswith("samples/") and name.endswith(".parquet"))
    needed = {name: TABLES[name] for name in _TABLES} | {part: SAMPLE_COLUMNS}
    for name, columns in needed.items():
        here = set(pq.read_schema(folder / name).names) if name in files else set()
        missing = [column.name for column in columns if column.name not in here]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UsageError(
                f"the run in {folder} was made by another version of audit",
                found=f"{name} without {', '.join(missing[:5])}{more}",
                remedy="run the same audit again; its rows are kept where they still hold",
            )


def _is_drawn(name: str) -> bool:
    return name == _PAGE or name.startswith("grids/")


def _elsewhere(out: Path) -> Path:
    if (out / NAME).exists():
        raise UsageError(
            f"{out} is the folder of another run",
            expected="a folder of its own for --out",
            remedy="leave --out to replace the run's own report",
        )
    return make_folder(out)


def _replace_report(folder: Path, manifest: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    """Draw beside the old report, then put the new one in its place; the manifest comes last."""
    beside = folder / _UNFINISHED
    shutil.rmtree(beside, ignore_errors=True)
    try:
        make_folder(beside)
        stored, thumbs = _stored(folder, manifest, wishes)
        drawn = write_report(beside, stored)
        if thumbs is not None:
            write_parquet(beside / _THUMBS, thumbs)
        make_folder(folder / "grids")
        moved = drawn if thumbs is None else [*drawn, _THUMBS]
        for name in moved:
            (beside / name).replace(folder / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    for file in (folder / "grids").glob("*.png"):
        if f"grids/{file.name}" not in drawn:
            file.unlink()
    kept = {name: facts for name, facts in manifest["files"].items() if not _is_drawn(name)}
    files = kept | checksums(folder, moved)
    facts = {**stored.facts, "files": {name: files[name] for name in sorted(files)}}
    write_manifest(folder, facts)
    return facts


def _stored(
    folder: Path, manifest: Mapping[str, Any], wishes: Wishes
) -> tuple[Stored, pa.Table | None]:
    """What to draw from, and ``thumbs.parquet`` anew where it gets other pictures."""
    facts = {**manifest, "config": _settings(manifest["config"], wishes)}
    others = (_THUMBS, _EDITED)
    names = [n for n in manifest["files"] if n.endswith(".parquet") and "/" not in n]
    stored = Stored(
        facts=facts,
        tables={Path(n).stem: _table(folder / n).to_pandas() for n in names if n not in others},
        samples=AuditRun(folder, dict(manifest)).kept,
        edits=read_edits(folder),
        thumbs=_table(folder / _THUMBS).to_pandas(),
        edited=_table(folder / _EDITED).to_pandas() if _EDITED in manifest["files"] else None,
    )
    wanted = _wanted(stored, wishes)
    thumbs = None
    if not _rows(wanted).equals(_rows(stored.thumbs)):
        thumbs = with_pictures(stored, wanted, wishes.data_root)
        stored = replace(stored, thumbs=thumbs.to_pandas())
    if wishes.gallery is not None:
        beyond = (stored.thumbs["section"] == FLAGGED) & (stored.thumbs["rank"] >= wishes.gallery)
        stored = replace(stored, thumbs=stored.thumbs[~beyond])
    return stored, thumbs


def _table(file: Path) -> pa.Table:
    return pq.ParquetFile(file).read()


def _settings(config: Mapping[str, Any], wishes: Wishes) -> dict[str, Any]:
    changed = {
        name: value
        for name, value in (("lang", wishes.lang), ("colours", wishes.colours))
        if value is not None
    } | {"grids": wishes.grids}
    load_config(None, changed)  # knows the values that are allowed
    return {**config, **changed}


def _wanted(stored: Stored, wishes: Wishes) -> pd.DataFrame:
    """The rows of thumbnails that the report is to have: section, label, rank and index."""
    rows = stored.thumbs[["section", "label", "rank", "index"]]
    if wishes.samples is not None:
        place = pd.Series(stored.samples["index"].to_numpy(), stored.samples["sample_id"])
        ids = list(dict.fromkeys(wishes.samples))
        _refuse_unknown([name for name in ids if name not in place.index])
        asked = {
            "section": CHOSEN,
            "label": -1,
            "rank": np.arange(len(ids)),
            "index": place[ids].to_numpy(np.int64),
        }
        rows = pd.concat([rows[rows["section"] != CHOSEN], pd.DataFrame(asked)], ignore_index=True)
    flagged = rows["section"] == FLAGGED
    if wishes.gallery is not None and wishes.gallery > int(flagged.sum()):
        more = choose_flagged(stored.samples, stored.flags(), wishes.gallery)
        if len(more) > int(flagged.sum()):
            rows = pd.concat([rows[~flagged], more], ignore_index=True)
    return rows


def _refuse_unknown(names: Sequence[str]) -> None:
    if names:
        raise UsageError(
            "the run holds no such sample",
            expected="values of sample_id, as in the samples' rows",
            found=", ".join(f"'{name}'" for name in names[:5])
            + (f" and {len(names) - 5} more" if len(names) > 5 else ""),
        )


def _rows(thumbs: pd.DataFrame) -> pd.DataFrame:
    rows = thumbs[["section", "label", "rank", "index"]]
    return rows.astype({"section": str, "label": int, "rank": int, "index": int})


def with_pictures(stored: Stored, wanted: pd.DataFrame, data_root: Path | None) -> pa.Table:
    """The table of thumbnails, with pictures from the old one or from the dataset.

    Args:
        stored: The run.
        wanted: Rows of the table: section, label, rank and index.
        data_root: Where named datasets lie, if that is elsewhere by now.

    Raises:
        UsageError: If a picture is needed and the dataset cannot be opened, or is another.
    """
    have = stored.thumbs.drop_duplicates("index")
    places = have["index"].tolist()
    images: dict[int, bytes] = dict(zip(places, have["image"], strict=True))
    masks: dict[int, bytes] = dict(zip(places, have["mask"], strict=True))
    rows = stored.samples.set_index("index")
    missing = sorted(set(wanted["index"].tolist()) - images.keys())
    if missing:
        for index, image, mask in _fetch(stored.facts, rows, missing, data_root):
            images[index], masks[index] = encode_picture(image), encode_mask(mask)
    names = {index: str(rows.loc[index, "sample_id"]) for index in images}
    return build_thumbs(wanted, images, masks, names)


def _fetch(
    facts: Mapping[str, Any], rows: pd.DataFrame, missing: list[int], data_root: Path | None
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pictures and masks of samples that the run has not stored, from its dataset."""
    split = _open_split(facts, rows, missing, data_root)
    for batch in iterate(split, missing, batch_size=_BATCH):
        masks = _masks(batch, split, rows.loc[batch.index.tolist()], facts)
        for row, index in enumerate(batch.index.tolist()):
            _refuse_other(batch.sample_id[row], str(rows.loc[index, "sample_id"]), facts)
            yield index, batch.images[row].permute(1, 2, 0).contiguous().numpy(), masks[row]


def _open_split(
    facts: Mapping[str, Any], rows: pd.DataFrame, missing: list[int], data_root: Path | None
) -> Split:
    try:
        split = audited_split(facts, data_root)
        totals = facts["totals"]
        audited = totals["samples"] + totals.get("missing", 0)
        same = len(split) == audited
        reason = None if same else f"{len(split):,} samples instead of {audited:,}"
    except (AuditError, OSError) as error:
        reason = str(error).splitlines()[0]
    if reason is None:
        return split
    first = str(rows.loc[missing[0], "sample_id"])
    raise UsageError(
        f"the run has not stored the pictures of {len(missing):,} of these samples, and its "
        "dataset cannot be opened",
        expected=f"'{facts['config']['dataset']}' as it was audited, with '{first}' in it",
        found=reason,
        remedy="say where the data lies with --data-root, or leave these samples",
    )


def _refuse_other(found: str, expected: str, facts: Mapping[str, Any]) -> None:
    if found != expected:
        raise UsageError(
            f"the dataset '{facts['config']['dataset']}' is not the one that was audited",
            expected=f"sample '{expected}'",
            found=f"'{found}' in its place",
        )


def _masks(
    batch: Batch, split: Split, rows: pd.DataFrame, facts: Mapping[str, Any]
) -> NDArray[np.uint8]:
    """The main masks of a batch: 255 object, 128 unknown."""
    family = family_of(facts["masks"])
    if family in ("dataset", "box") and batch.object_mask is not None:
        inside, unknown = batch.object_mask >= 0.5, batch.unknown
    elif family in ("estimated", "component"):
        plane = PLANES.index("component") if family == "component" else 0
        planes = DefaultEstimator(torch.device("cpu"), split.image_size)(batch.images).planes
        inside, unknown = enlarge(planes[:, plane], split.image_size) >= 0.5, None
    else:
        # Of the others the rows keep what share of each cell is object.
        empty = np.zeros(int(np.prod(facts["grid"])), np.float32)
        shares = [empty if cells is None else np.asarray(cells) for cells in rows["grid_mask"]]
        coarse = torch.from_numpy(np.stack(shares).astype(np.float32))
        height, width = facts["grid"]
        soft = torch.nn.functional.interpolate(
            coarse.reshape(-1, 1, height, width), split.image_size, mode="bilinear"
        )
        inside, unknown = soft[:, 0] >= 0.5, None
    levels = inside.to(torch.uint8) * 255
    if unknown is not None:
        levels = torch.where(unknown >= 0.5, UNKNOWN, levels)
    return levels.numpy()
