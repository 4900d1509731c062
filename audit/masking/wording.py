"""What ``audit masks`` found, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from audit.masking.judging import BAD, Judgement
from audit.report.wording import percent

if TYPE_CHECKING:
    from audit.masking.making import Made

_REASONS = {
    "unreadable": "unreadable images",
    "mask_missing": "without a true mask",
    "mask_unreadable": "with an unreadable true mask",
    "mask_mismatch": "with a true mask of another size",
    "empty_mask": "with an empty true mask",
    "full_mask": "with a true mask that covers everything",
}
_WIDTH = 28


def describe(
    title: str, made: Sequence[Made], judgements: Sequence[Judgement], sheet: Path | None
) -> str:
    """All lines.

    Args:
        title: Which images.
        made: What each cache holds.
        judgements: What true masks say of each family.
        sheet: Where the contact sheet lies.
    """
    lines = [title]
    for each in made:
        lines += _of_cache(each)
    if not made:
        lines.append("nothing to compute: an ellipse needs no cache")
    if judgements:
        lines += _beside_truth(judgements)
    if sheet is not None:
        lines.append(f"drawn: {sheet}")
    return "\n".join(lines)


def _of_cache(made: Made) -> Iterator[str]:
    found = made.total - min(made.computed, made.total)
    yield (
        f"{made.family}: {min(made.computed, made.total):,} computed in {made.seconds:.1f} s, "
        f"{found:,} found in the cache"
    )
    yield (
        f"  mean confidence {made.confidence:.2f}, below {BAD}: {percent(made.doubtful)}; "
        f"touching the border: {percent(made.at_border)}; empty: {made.empty:,}, "
        f"full: {made.full:,}"
    )
    if made.unreadable:
        yield f"  no mask, for the image cannot be read: {made.unreadable:,}"
    if made.fallbacks is not None:
        yield f"  the network found nothing, the default estimator's stands: {made.fallbacks:,}"
    if made.licence is not None:
        yield f"  licence of the network's weights: {made.licence}"
    yield f"  {made.folder}"


def _beside_truth(judgements: Sequence[Judgement]) -> Iterator[str]:
    first = judgements[0]
    yield f"Against true masks ({first.n:,} samples)"
    left_out = [f"{count:,} {_REASONS[reason]}" for reason, count in first.left_out.items()]
    if left_out:
        yield f"  left out: {', '.join(left_out)}"
    if not first.n:
        return
    head = ("IoU", f"below {BAD}", "MAE, soft", "area bias", "AUC of confidence")
    yield f"  {'':{_WIDTH}}" + "  ".join(head)
    for each in judgements:
        cells = (each.iou, each.bad, each.mae, each.area_bias, each.auc)
        texts = [
            f"{_cell(value, signed=name == 'area bias'):>{len(name)}}"
            for name, value in zip(head, cells, strict=True)
        ]
        yield f"  {each.family:{_WIDTH}}" + "  ".join(texts)
    for each in judgements:
        if each.quarters:
            yield from _by_confidence(each)


def _by_confidence(judgement: Judgement) -> Iterator[str]:
    yield f"  {judgement.family}, by confidence:"
    yield f"  {'':{_WIDTH}}samples  confidence   IoU  below {BAD}"
    names = ("least trusted quarter", "second", "third", "most trusted quarter")
    for name, quarter in zip(names, judgement.quarters, strict=False):
        yield (
            f"    {name:{_WIDTH - 2}}{quarter.n:>7,}  {quarter.confidence:>10.2f}  "
            f"{quarter.iou:.2f}  {quarter.bad:>9.2f}"
        )


def _cell(value: float | None, *, signed: bool) -> str:
    if value is None:
        return "none"
    return f"{value:+.3f}" if signed else f"{value:.3f}"
