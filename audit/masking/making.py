"""``audit masks``: fill the cache that runs read, and tell what is in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from audit.config import AuditConfig
from audit.data.loader import iterate
from audit.errors import OutputError, UsageError
from audit.files import make_folder, write_atomically
from audit.masking.judging import BAD, Judgement, judge
from audit.masking.opening import Opened, open_masking
from audit.masking.wording import describe
from audit.masks import MaskCache, MaskEstimate
from audit.masks.background_removal import RembgEstimator, fell_back
from audit.masks.estimate import PLANES, enlarge, soft_masks
from audit.masks.families import ellipses
from audit.models import plain_kernels
from audit.report.pictures.masksheet import MaskCard, MaskSection, draw_masks
from audit.run.progress import Progress

_AT_ONCE = 2000  # samples read from the cache at a time
_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one cache holds after it was filled.

    Attributes:
        family: Whose masks.
        computed: Samples that were estimated now, by this process.
        seconds: How long that took.
        total: Samples of the split.
        unreadable: Those without a mask, because the image cannot be read.
        confidence: Mean of the others'.
        doubtful: Share of them with a confidence below :data:`audit.masking.judging.BAD`.
        at_border: Share of them whose mask touches the image's border.
        empty: How many are empty.
        full: How many cover the whole image.
        fallbacks: For rembg: how many are the default estimator's.
        licence: For rembg: of the network's weights.
        folder: Where they lie.
    """

    family: str
    computed: int
    seconds: float
    total: int
    unreadable: int
    confidence: float
    doubtful: float
    at_border: float
    empty: int
    full: int
    fallbacks: int | None
    licence: str | None
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What ``audit masks`` did.

    Attributes:
        title: Which images, in which geometry.
        made: One for each cache.
        judgements: One for each family, where there are true masks.
        sheet: The contact sheet, where one was asked for.
    """

    title: str
    made: tuple[Made, ...]
    judgements: tuple[Judgement, ...] = ()
    sheet: Path | None = None

    def describe(self) -> str:
        """All of it for people, in lines."""
        return describe(self.title, self.made, self.judgements, self.sheet)


def make_masks(
    config: AuditConfig, *, show: Path | None = None, against: str | None = None
) -> Masking:
    """Estimate the masks that a run with these settings will use.

    Args:
        config: The settings.
        show: Draw the least and the most trusted masks into this PNG file.
        against: Judge the masks by true ones: ``dataset``, or a folder parallel to the images'.

    Returns:
        What was done and found.

    Raises:
        AuditError: If something cannot be opened, estimated or written.

    Example:
        >>> made = make_masks(AuditConfig(dataset="demo", limit=20, out=tmp), against="dataset")
        >>> made.made[0].computed, made.judgements[0].n
        (20, 20)
    """
    if show is not None:
        _refuse_other_pictures(show)
    opened = open_masking(config, against)
    with plain_kernels():
        made = tuple(_fill(opened, cache) for cache in opened.families.caches)
        judgements = tuple(_judge(opened)) if opened.truth is not None else ()
        if show is not None:
            _write_sheet(show, _draw(opened))
    height, width = opened.split.image_size
    title = (
        f"{opened.split.name}, {opened.split.part}: {len(opened.split):,} images of "
        f"{height}×{width} ({opened.frame})"
    )
    return Masking(title=title, made=made, judgements=judgements, sheet=show)


def _write_sheet(show: Path, content: bytes) -> None:
    try:
        write_atomically(show, content)
    except OutputError as error:
        raise OutputError(
            error.problem, found=error.found, remedy="name another file with --show"
        ) from error


def _refuse_other_pictures(show: Path) -> None:
    if show.suffix.lower() != ".png" or show.is_dir():
        raise UsageError(
            "--show draws a PNG file", expected="a name that ends with .png", found=str(show)
        )
    make_folder(show.parent, flag="--show")


def _fill(opened: Opened, cache: MaskCache) -> Made:
    total = len(opened.split)
    started = time.monotonic()
    computed = 0
    if todo := cache.missing(0, total):
        with Progress(f"masks ({cache.estimator.name})", total, total - todo) as progress:
            computed = cache.fill(0, total, progress)
    return _look_into(cache, total, computed, time.monotonic() - started)


def _look_into(cache: MaskCache, total: int, computed: int, seconds: float) -> Made:
    confidence, border, empty, full = [], [], [], []
    fallbacks = 0
    rembg = cache.estimator if isinstance(cache.estimator, RembgEstimator) else None
    for _, estimate in _read_all(cache, total):
        masks = estimate.planes[:, 0]
        confidence.append(estimate.confidence)
        border.append(_touches_border(masks))
        empty.append(~masks.flatten(1).any(dim=1))
        full.append(masks.flatten(1).all(dim=1))
        fallbacks += int(fell_back(estimate).sum()) if rembg is not None else 0
    trusted = torch.cat(confidence)
    read = ~trusted.isnan()
    return Made(
        family=cache.estimator.name,
        computed=computed,
        seconds=seconds,
        total=total,
        unreadable=int((~read).sum()),
        confidence=_mean(trusted[read]),
        doubtful=_mean(trusted[read] < BAD),
        at_border=_mean(torch.cat(border)[read]),
        empty=int(torch.cat(empty)[read].sum()),
        full=int(torch.cat(full)[read].sum()),
        fallbacks=fallbacks if rembg is not None else None,
        licence=rembg.licence if rembg is not None else None,
        folder=cache.folder,
    )


def _read_all(cache: MaskCache, total: int) -> Iterator[tuple[Tensor, MaskEstimate]]:
    for index in torch.arange(total).split(_AT_ONCE):
        yield index, cache.read(index)


def _mean(values: Tensor) -> float:
    return float(values.float().mean()) if len(values) else 0.0


def _touches_border(masks: Tensor) -> Tensor:
    """Whether any pixel of the outermost lines is object, N."""
    rows = masks[:, [0, -1]].flatten(1).any(dim=1)
    return rows | masks[:, :, [0, -1]].flatten(1).any(dim=1)


def _judge(opened: Opened) -> list[Judgement]:
    assert opened.truth is not None
    with Progress("against true masks", len(opened.truth)) as progress:
        return judge(opened.families, opened.truth, workers=opened.workers, progress=progress)


def _draw(opened: Opened) -> bytes:
    """The contact sheet of the first family."""
    name = opened.families.names[0]
    total = len(opened.split)
    cache = _cache_of(opened, name)
    if cache is None:
        chosen = [place * total // min(total, 2 * _SHOWN) for place in range(min(total, 24))]
        sections = [MaskSection(heading="Evenly over the split", cards=_cards(opened, chosen))]
    else:
        confidence = torch.cat([estimate.confidence for _, estimate in _read_all(cache, total)])
        order = confidence.argsort(stable=True)[: int((~confidence.isnan()).sum())].tolist()
        least, most = order[: len(order) // 2][:_SHOWN], order[len(order) // 2 :][-_SHOWN:]
        sections = [
            MaskSection(heading="Least trusted", cards=_cards(opened, least)),
            MaskSection(heading="Most trusted", cards=_cards(opened, most[::-1])),
        ]
    title = f"Masks of {opened.split.name}, {opened.split.part}: {name}"
    return draw_masks(title, f"{total:,} images; {opened.frame}", sections)


def _cache_of(opened: Opened, name: str) -> MaskCache | None:
    if name == "ellipse":
        return None
    return opened.families.removed if name.startswith("rembg:") else opened.families.estimated


def _cards(opened: Opened, chosen: Sequence[int]) -> list[MaskCard]:
    cards = []
    for batch in iterate(opened.split, chosen, batch_size=32):
        mask, soft, confidence = _masks_of(opened, batch.index)
        for row, sample_id in enumerate(batch.sample_id):
            cards.append(
                MaskCard(
                    image=batch.images[row].permute(1, 2, 0).contiguous().numpy(),
                    mask=mask[row].numpy(),
                    soft=soft[row].numpy(),
                    sample_id=sample_id,
                    confidence=float(confidence[row]) if confidence is not None else None,
                )
            )
    return cards


def _masks_of(opened: Opened, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mask, soft mask (both float N×H×W) and confidence of the first family."""
    name, size = opened.families.names[0], opened.split.image_size
    cache = _cache_of(opened, name)
    if cache is None:
        mask = ellipses(len(index), size)
        return mask, mask, None
    estimate = cache.read(index)
    plane = PLANES.index("component") if name == "component" else 0
    mask = enlarge(estimate.planes[:, plane], size)
    soft = enlarge(soft_masks(estimate.planes), size) if name == "estimated" else mask
    return mask, soft, estimate.confidence
