"""The masks of a batch from everywhere at hand: the dataset, the estimator, an ellipse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from audit.data import Batch
from audit.data.split import (
    BAD_LABEL,
    MASK_MISMATCH,
    MASK_MISSING,
    MASK_UNREADABLE,
    OK,
    UNREADABLE,
)
from audit.masks.background_removal import RembgEstimator, fell_back
from audit.masks.cache import MaskCache
from audit.masks.estimate import PLANES, MaskEstimate, centre_ellipse, enlarge

SOURCES = ("dataset", "box", "estimated", "component", "ellipse", "rembg")
ELLIPSE_RADIUS = 0.75
# Families that come with the dataset.
_OWN = ("dataset", "box")
_BAD_MASKS = (MASK_MISSING, MASK_UNREADABLE, MASK_MISMATCH)


@dataclass(frozen=True, kw_only=True)
class FamilyMasks:
    """One family's masks of a batch, on the device.

    Attributes:
        masks: The share of each pixel that is object, in [0, 1], N×H×W.
        confidence: As in :class:`BatchMasks`, N.
        source: Likewise.
        unknown: The share of each pixel that counts on no side; ``None`` for nothing.
        valid: Which samples have a mask, bool N; ``None`` for all.
    """

    masks: Tensor
    confidence: Tensor
    source: Tensor
    unknown: Tensor | None = None
    valid: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class BatchMasks:
    """The masks of a batch, on the device.

    Attributes:
        main: What scores rest on, in [0, 1], N×H×W.
        unknown: The share of each pixel that counts on no side; ``None`` for nothing.
        others: The other families' masks by name.
        confidence: Expected overlap of an estimated main mask with the object, N; NaN for others.
        source: Where the main mask came from, positions in :data:`SOURCES`, int64 N.
    """

    main: Tensor
    unknown: Tensor | None
    others: dict[str, FamilyMasks]
    confidence: Tensor
    source: Tensor


@dataclass(frozen=True, kw_only=True)
class MaskFamilies:
    """Where a run's masks come from.

    Attributes:
        names: The main family, then the others: ``dataset``, ``box``, ``estimated``,
            ``component``, ``ellipse`` or ``rembg:SESSION``.
        image_size: H and W.
        device: Where masks go.
        estimated: Holds the estimator's masks, where a family needs them.
        removed: Likewise those of rembg.
    """

    names: Sequence[str]
    image_size: tuple[int, int]
    device: torch.device
    estimated: MaskCache | None = None
    removed: MaskCache | None = None

    @property
    def main(self) -> str:
        """The family that scores rest on."""
        return family_of(self.names[0])

    @property
    def others(self) -> list[str]:
        """The families that have columns of their own."""
        return [family_of(name) for name in self.names[1:]]

    @property
    def caches(self) -> list[MaskCache]:
        """What has to be computed before a run."""
        return [cache for cache in (self.estimated, self.removed) if cache is not None]

    @property
    def network(self) -> dict[str, str] | None:
        """Which network removed backgrounds, under which licence; ``None`` where none did."""
        maker = self.removed.estimator if self.removed is not None else None
        return maker.facts() if isinstance(maker, RembgEstimator) else None

    def missing(self, start: int, stop: int) -> int:
        """How many masks of a range are yet to be estimated."""
        return sum(cache.missing(start, stop) for cache in self.caches)

    def fill(self, start: int, stop: int, progress: Callable[[int], object]) -> None:
        """Estimate what is missing in a range."""
        for cache in self.caches:
            cache.fill(start, stop, progress)

    def of(self, batch: Batch) -> BatchMasks:
        """All masks of a batch.

        Args:
            batch: As fetched.

        Returns:
            The masks, in the image's geometry.
        """
        families = [family_of(name) for name in self.names]
        # Two families may come of one estimate.
        caches = {family: self._cache_of(family) for family in families}
        estimates: dict[MaskCache | None, MaskEstimate] = {
            cache: _mended(cache, batch) for cache in set(caches.values()) if cache is not None
        }
        found = {
            family: self._family(family, batch, estimates.get(caches[family]))
            for family in families
        }
        main = found.pop(self.main)
        return BatchMasks(
            main=main.masks,
            unknown=main.unknown,
            others=found,
            confidence=self._blank_unread(main.confidence, batch),
            source=main.source,
        )

    def given(self, batch: Batch) -> list[str]:
        """What is wrong with each sample beforehand, as far as the main masks are concerned.

        A dataset's bad mask does not matter where scores rest on other masks.
        """
        if self.main in _OWN:
            return list(batch.status)
        labels = batch.labels.tolist()
        return [
            (OK if label >= 0 else BAD_LABEL) if status in _BAD_MASKS else status
            for status, label in zip(batch.status, labels, strict=True)
        ]

    def _cache_of(self, family: str) -> MaskCache | None:
        if family in _OWN or family == "ellipse":
            return None
        return self.removed if family == "rembg" else self.estimated

    def _family(self, family: str, batch: Batch, estimate: MaskEstimate | None) -> FamilyMasks:
        count = len(batch)
        nothing = torch.full((count,), torch.nan, device=self.device)
        source = torch.full((count,), SOURCES.index(family), device=self.device)
        if family in _OWN:
            assert batch.object_mask is not None
            valid = torch.tensor([status not in _BAD_MASKS for status in batch.status])
            return FamilyMasks(
                masks=batch.object_mask.to(self.device),
                unknown=None if batch.unknown is None else batch.unknown.to(self.device),
                valid=valid.to(self.device),
                confidence=nothing,
                source=source,
            )
        if family == "ellipse":
            masks = ellipses(count, self.image_size, self.device)
            return FamilyMasks(masks=masks, confidence=nothing, source=source)
        assert estimate is not None
        plane = PLANES.index("component") if family == "component" else 0
        masks = enlarge(estimate.planes[:, plane].to(self.device), self.image_size)
        if family == "rembg":
            instead = fell_back(estimate).to(self.device)
            source = torch.where(instead, SOURCES.index("estimated"), source)
        confidence = estimate.confidence.to(self.device)
        return FamilyMasks(masks=masks, confidence=confidence, source=source)

    def _blank_unread(self, confidence: Tensor, batch: Batch) -> Tensor:
        readable = torch.tensor([status != "unreadable" for status in batch.status])
        return torch.where(readable.to(self.device), confidence, torch.nan)


def _mended(cache: MaskCache, batch: Batch) -> MaskEstimate:
    """Masks from the cache; anew where it has none, or could not read an image when it was filled.

    Some samples from all over a split are not worth filling all of its blocks for.
    """
    readable = torch.tensor([status != UNREADABLE for status in batch.status])
    there = cache.holds(batch.index)
    kept = cache.read(batch.index[there])
    missed = ~there & readable
    missed[there] = kept.confidence.isnan() & readable[there]
    if there.all() and not missed.any():
        return kept
    planes = torch.zeros(len(batch), *kept.planes.shape[1:], dtype=torch.bool)
    confidence = torch.full((len(batch),), torch.nan)
    planes[there], confidence[there] = kept.planes, kept.confidence
    if missed.any():
        again = cache.estimator(batch.images[missed])
        planes[missed], confidence[missed] = again.planes.cpu(), again.confidence.cpu()
    return MaskEstimate(planes=planes, confidence=confidence)


def family_of(name: str) -> str:
    """The family's name without what follows a colon.

    Example:
        >>> family_of("rembg:isnet-general-use")
        'rembg'
    """
    return name.partition(":")[0]


def ellipses(count: int, size: tuple[int, int], device: torch.device | str = "cpu") -> Tensor:
    """The baseline that knows nothing of the image: an ellipse in its centre.

    Args:
        count: How many.
        size: H and W.
        device: Where to make them.

    Returns:
        0 or 1, count×H×W.

    Example:
        >>> round(float(ellipses(1, (64, 48)).mean()), 2)
        0.43
    """
    one = enlarge(centre_ellipse(ELLIPSE_RADIUS, device)[None] > 0.5, size)
    return one.expand(count, -1, -1)
