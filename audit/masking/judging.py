"""Estimated masks beside true ones: overlap, size, and whether confidence knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from audit.data import Batch, Split
from audit.data.loader import iterate
from audit.masks.estimate import enlarge, soft_masks
from audit.masks.families import MaskFamilies

BAD = 0.3  # an overlap below which a mask misleads
_WITHOUT_MASK = ("unreadable", "mask_missing", "mask_unreadable", "mask_mismatch")
_QUARTERS = 4


@dataclass(frozen=True, kw_only=True)
class Quarter:
    """The samples of one quarter by confidence."""

    n: int
    confidence: float
    iou: float
    bad: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How the masks of one family compare with true ones.

    Attributes:
        family: Its name.
        n: Samples with a true mask.
        left_out: How many have none, by reason.
        iou: Mean overlap; ``None``, as all below, where there is no sample.
        bad: Share of samples whose overlap is below :data:`BAD`.
        mae: Mean absolute error of the soft mask; of the mask itself where there is no soft one.
        area_bias: Mean estimated less mean true area.
        auc: How often a bad mask has lower confidence than a good one: ROC-AUC; ``None`` where
            there is no confidence, or not both kinds.
        quarters: By confidence, the least trusted first; none without confidence.
    """

    family: str
    n: int
    left_out: Mapping[str, int]
    iou: float | None
    bad: float | None
    mae: float | None
    area_bias: float | None
    auc: float | None
    quarters: tuple[Quarter, ...]


def judge(
    families: MaskFamilies,
    truth: Split,
    *,
    batch_size: int = 256,
    workers: int = 0,
    progress: Callable[[int], object] = lambda _: None,
) -> list[Judgement]:
    """Compare every family with true masks.

    Args:
        families: Their masks are in the cache, or are estimated now.
        truth: The same samples with true masks.
        batch_size: Samples at a time.
        workers: Processes that decode.
        progress: Is told how many samples were done.

    Returns:
        One judgement a family.
    """
    found: dict[str, list[_Scores]] = {name: [] for name in families.names}
    left_out: Counter[str] = Counter()
    for batch in iterate(truth, range(len(truth)), batch_size=batch_size, workers=workers):
        true, known, reasons = _true_masks(batch)
        left_out.update(reason for reason in reasons if reason)
        usable = torch.tensor([not reason for reason in reasons])
        for name in families.names:
            found[name].append(_compare(families, name, batch, true, known).of(usable))
        progress(len(batch))
    return [_summarise(name, _Scores.joined(found[name]), left_out) for name in families.names]


@dataclass(frozen=True)
class _Scores:
    """Numbers of samples, each float32 N."""

    iou: Tensor
    error: Tensor
    excess: Tensor
    confidence: Tensor

    def of(self, chosen: Tensor) -> _Scores:
        return _Scores(
            self.iou[chosen], self.error[chosen], self.excess[chosen], self.confidence[chosen]
        )

    @classmethod
    def joined(cls, parts: Sequence[_Scores]) -> _Scores:
        return cls(
            torch.cat([part.iou for part in parts]),
            torch.cat([part.error for part in parts]),
            torch.cat([part.excess for part in parts]),
            torch.cat([part.confidence for part in parts]),
        )


def _true_masks(batch: Batch) -> tuple[Tensor, Tensor, list[str]]:
    """True masks and which pixels are known, bool N×H×W, and why a sample has none."""
    assert batch.object_mask is not None
    known = torch.ones_like(batch.object_mask, dtype=torch.bool)
    if batch.unknown is not None:
        known = batch.unknown < 0.5
    true = (batch.object_mask >= 0.5) & known
    empty = ~true.flatten(1).any(dim=1)
    full = ~(known & ~true).flatten(1).any(dim=1)
    reasons = []
    for status, nothing, everything in zip(
        batch.status, empty.tolist(), full.tolist(), strict=True
    ):
        if status in _WITHOUT_MASK:
            reasons.append(status)
        else:
            reasons.append("empty_mask" if nothing else "full_mask" if everything else "")
    return true, known, reasons


def _compare(
    families: MaskFamilies, name: str, batch: Batch, true: Tensor, known: Tensor
) -> _Scores:
    found = replace(families, names=[name]).of(batch)
    mask = (found.main.cpu() >= 0.5) & known
    soft = _soft(families, name, batch, found.main.cpu())
    count = known.flatten(1).sum(dim=1).clamp_min(1)
    shared = (mask & true).flatten(1).sum(dim=1)
    either = (mask | true).flatten(1).sum(dim=1).clamp_min(1)
    return _Scores(
        shared / either,
        ((soft - true.float()).abs() * known).flatten(1).sum(dim=1) / count,
        (mask.flatten(1).sum(dim=1) - true.flatten(1).sum(dim=1)) / count,
        found.confidence.cpu(),
    )


def _soft(families: MaskFamilies, name: str, batch: Batch, mask: Tensor) -> Tensor:
    if name != "estimated" or families.estimated is None:
        return mask
    planes = families.estimated.read(batch.index).planes
    return enlarge(soft_masks(planes), families.image_size)


def _summarise(name: str, scores: _Scores, left_out: Mapping[str, int]) -> Judgement:
    n = len(scores.iou)
    bad = scores.iou < BAD
    trusted = bool(n) and not bool(scores.confidence.isnan().any())
    return Judgement(
        family=name,
        n=n,
        left_out=dict(left_out),
        iou=float(scores.iou.mean()) if n else None,
        bad=float(bad.float().mean()) if n else None,
        mae=float(scores.error.mean()) if n else None,
        area_bias=float(scores.excess.mean()) if n else None,
        auc=roc_auc(scores.confidence.numpy(), bad.numpy()) if trusted else None,
        quarters=_quarters(scores) if trusted else (),
    )


def roc_auc(confidence: NDArray[np.float32], bad: NDArray[np.bool_]) -> float | None:
    """How often a bad mask has lower confidence than a good one; ties count half.

    Example:
        >>> roc_auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([True, True, False, False]))
        0.875
        >>> roc_auc(np.array([0.1, 0.4]), np.array([True, True])) is None
        True
    """
    bads, goods = int(bad.sum()), int((~bad).sum())
    if not bads or not goods:
        return None
    ranks = rankdata(confidence)
    return float((ranks[~bad].sum() - goods * (goods + 1) / 2) / (bads * goods))


def _quarters(scores: _Scores) -> tuple[Quarter, ...]:
    order = scores.confidence.argsort(stable=True)
    parts = [part for part in order.tensor_split(_QUARTERS) if len(part)]
    return tuple(
        Quarter(
            n=len(part),
            confidence=float(scores.confidence[part].mean()),
            iou=float(scores.iou[part].mean()),
            bad=float((scores.iou[part] < BAD).float().mean()),
        )
        for part in parts
    )
