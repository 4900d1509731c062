"""Do these masks belong to these images, and do they lie where they should?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Verdict = Literal["fits", "other placement fits better", "no fit", "too few"]

_SIDE = 64  # of larger images only this much is looked at: outlines are not exact to the pixel
_AT_A_TIME = 16
_LEAST_BORDER = 4.0  # pixels of border below which a mask says nothing
_LEAST_SAMPLES = 10
_STRANGERS = 2  # other images that each mask is laid on
_SURE = 3.0  # standard errors from 0, for masks as given
_SURE_OF_OTHER = 4.0  # likewise, for the best of many placements
_MARGIN = 0.15  # by which another placement must fit better
_FITS = 0.2  # what masks score that fit at least roughly
_GOOD = 0.3  # what masks score that fit; exact ones 0.7 to 1.2, those of other images 0
_STEPS = (-2, -1, 0, 1, 2)  # of a sixteenth of the side
_AROUND = 20  # masks are grown and shrunk by one part in so many of the side

AS_GIVEN = "as given"


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How well masks sit on the edges of their images.

    Attributes:
        verdict: ``fits``; ``other placement fits better``, named by ``placement``; ``no fit``,
            where the masks suit their images no better than they suit other images; ``too few``,
            where the samples cannot tell.
        placement: What must be done to the masks, in words: ``shifted 4 px right``.
        n: Samples with a border to judge by.
        score: Of the masks as given: image gradient across their borders, in units of the image's
            mean gradient, less what they find on other images. Exact masks reach 0.7 to 1.2, masks
            of other images 0.
        z: The score in standard errors.
        better: By how much ``placement`` scores higher.
        scores: The mean score of each placement.
    """

    verdict: Verdict
    placement: str = AS_GIVEN
    n: int = 0
    score: float = 0.0
    z: float = 0.0
    better: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """One sentence for people.

        Example:
            >>> Alignment(verdict="no fit", n=40, score=0.01).describe()
            'the masks fit their images no better than other images (score 0.01 of 40 samples)'
        """
        found = f"(score {self.score:.2f} of {self.n} samples)"
        match self.verdict:
            case "fits":
                return f"the borders of the masks lie on edges of their images {found}"
            case "no fit":
                return f"the masks fit their images no better than other images {found}"
            case "too few":
                return f"whether the masks fit their images cannot be told {found}"
        return f"the masks would fit their images better {self.placement} {found}"


def reduced_to_check(values: Tensor) -> Tensor:
    """Images or masks at the size that :func:`check_alignment` works at: many take little room.

    Args:
        values: N×3×H×W or N×H×W.

    Returns:
        float32, with the longer side at most 64.
    """
    channels = values[:, None] if values.dim() == 3 else values
    small = _resize(channels, _reduced(values.shape[-2:]))
    return small[:, 0] if values.dim() == 3 else small


def check_alignment(
    images: Tensor,
    masks: Tensor,
    unknown: Tensor | None = None,
    *,
    size: tuple[int, int] | None = None,
) -> Alignment:
    """Judge whether masks lie on the objects of their images.

    The border of an object is an edge of the image, so the image's gradient across a mask's border
    is larger where the mask lies right. That is compared with the same masks flipped, turned,
    shifted, scaled, grown and shrunk, and with the same masks on other images, which takes away
    what masks and images have in common anyway: objects in the middle, upright edges. Boxes,
    which follow no edges, should not be judged.

    Args:
        images: In [0, 255], N×3×H×W.
        masks: In [0, 1], N×H×W. Those without a border inside the image are left out.
        unknown: The share of each pixel that is neither object nor background, N×H×W: the border
            is taken to run in the middle of it. ``None`` for nothing.
        size: H and W before :func:`reduced_to_check`, for the words; ``None`` for as they are.

    Returns:
        The verdict; at least fifty samples make it sure.

    Example:
        >>> from audit.data.demo import open_demo
        >>> batch = open_demo("test").__getitems__(range(60))
        >>> check_alignment(batch.images, batch.object_mask).verdict
        'fits'
        >>> check_alignment(batch.images, batch.object_mask.flip(-1)).placement
        'flipped left to right'
    """
    if len(images) < _LEAST_SAMPLES:
        return Alignment(verdict="too few", n=len(images))
    placements = _placements(_reduced(masks.shape[-2:]), (size or masks.shape[-2:])[-1] / _SIDE)
    if unknown is not None and unknown.any():
        masks = _settled(reduced_to_check(masks), reduced_to_check(unknown))
    scores = _score_all(images, masks, placements)
    return _judge([placement.words for placement in placements], scores, _opposites(placements))


@dataclass(frozen=True, kw_only=True)
class _Placement:
    """One way to lay masks N×1×h×w; ``shift`` says how far down and right, where it is one."""

    words: str
    move: Callable[[Tensor], Tensor]
    shift: tuple[int, int] | None = None


def _reduced(size: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, _SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _placements(size: tuple[int, int], enlarged: float) -> list[_Placement]:
    """All ways to lay the masks, the one they were given in first.

    Args:
        size: Height and width of the reduced masks.
        enlarged: Pixels of the masks as given in one of the reduced ones, if more than one.
    """
    pixels = max(1.0, enlarged)
    found = [
        _Placement(words=AS_GIVEN, move=lambda m: m),
        _Placement(words="flipped left to right", move=lambda m: m.flip(-1)),
        _Placement(words="flipped upside down", move=lambda m: m.flip(-2)),
        _Placement(words="turned by 180°", move=lambda m: m.flip(-1, -2)),
    ]
    if size[0] == size[1]:
        found += [
            _Placement(words="transposed", move=lambda m: m.mT),
            _Placement(words="transposed and turned by 180°", move=lambda m: m.mT.flip(-1, -2)),
            _Placement(words="turned by 90° to the left", move=lambda m: m.rot90(1, (-2, -1))),
            _Placement(words="turned by 90° to the right", move=lambda m: m.rot90(-1, (-2, -1))),
        ]
    steps = [(down, right) for down in _STEPS for right in _STEPS if down or right]
    for down, right in steps:
        y, x = round(down * size[0] / 16), round(right * size[1] / 16)
        found.append(
            _Placement(
                words=_shift_words(y * pixels, x * pixels), move=_shifter(y, x), shift=(y, x)
            )
        )
    for factor, words in ((0.5, "shrunk to half their size"), (2.0, "enlarged to double size")):
        found.append(_Placement(words=f"{words} about the centre", move=_scaler(factor, 0.0)))
        found.append(
            _Placement(words=f"{words} from the upper left corner", move=_scaler(factor, -1.0))
        )
    around = max(1, round(max(size) / _AROUND))
    rim = f"by {around * pixels:.0f} px all round"
    found.append(_Placement(words=f"made wider {rim}", move=_grower(around)))
    found.append(_Placement(words=f"made narrower {rim}", move=_shrinker(around)))
    return found


def _shift_words(down: float, right: float) -> str:
    """A shift in pixels of the image.

    Example:
        >>> _shift_words(-4.0, 14.0)
        'shifted 4 px up and 14 px right'
    """
    parts = []
    if down:
        parts.append(f"{abs(down):.0f} px {'down' if down > 0 else 'up'}")
    if right:
        parts.append(f"{abs(right):.0f} px {'right' if right > 0 else 'left'}")
    return "shifted " + " and ".join(parts)


def _shifter(down: int, right: int) -> Callable[[Tensor], Tensor]:
    margins = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    top, left = max(-down, 0), max(-right, 0)

    def move(masks: Tensor) -> Tensor:
        height, width = masks.shape[-2:]
        return F.pad(masks, margins)[..., top : top + height, left : left + width]

    return move


def _scaler(factor: float, fixed: float) -> Callable[[Tensor], Tensor]:
    """Scale about a point on the diagonal: -1 is the upper left corner, 0 the centre."""
    offset = fixed * (1 - 1 / factor)
    matrix = torch.tensor([[1 / factor, 0.0, offset], [0.0, 1 / factor, offset]])

    def move(masks: Tensor) -> Tensor:
        places = F.affine_grid(
            matrix.to(masks).expand(len(masks), 2, 3), list(masks.shape), align_corners=False
        )
        return F.grid_sample(masks, places, align_corners=False)

    return move


def _grower(pixels: int) -> Callable[[Tensor], Tensor]:
    return lambda masks: F.max_pool2d(masks, 2 * pixels + 1, 1, pixels)


def _shrinker(pixels: int) -> Callable[[Tensor], Tensor]:
    return lambda masks: -F.max_pool2d(-masks, 2 * pixels + 1, 1, pixels)


def _score_all(images: Tensor, masks: Tensor, placements: list[_Placement]) -> Tensor:
    """How much better each placed mask fits its image than other images.

    Args:
        images: uint8, N×3×H×W.
        masks: N×H×W.
        placements: P of them.

    Returns:
        float32, P×N; NaN where a placed mask has too little border.
    """
    size = _reduced(masks.shape[-2:])
    reduced = (_resize(masks[:, None], size) > 0.5).float()
    edges = _edge_tensor(_resize(images, size))
    step = max(1, len(images) // (_STRANGERS + 1))
    strangers = [edges.roll(step * (k + 1), dims=0) for k in range(_STRANGERS)]
    found = []
    for placement in placements:
        border = _border(placement.move(reduced), placement.move(torch.ones_like(reduced)))
        length = border.square().sum(dim=1).sqrt().sum(dim=(1, 2))
        own = _across(border, edges)
        others = sum(_across(border, stranger) for stranger in strangers) / _STRANGERS
        score = (own - others) / length.clamp_min(1e-6)
        found.append(torch.where(length >= _LEAST_BORDER, score, torch.nan))
    return torch.stack(found)


def _settled(masks: Tensor, unknown: Tensor) -> Tensor:
    """Let object and background grow into what is unknown until they meet in its middle."""
    fixed = unknown < 0.5
    values = torch.where(fixed, masks / (1 - unknown).clamp_min(0.5), 0.5)
    for _ in range(_SIDE // 2):
        smooth = F.avg_pool2d(values[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
        values = torch.where(fixed, values, smooth)
    return values


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(values.shape[-2:]) == size:
        return values.float()
    # Large images are too many to have them all as numbers of four bytes.
    parts = values.split(_AT_A_TIME)
    return torch.cat(
        [F.interpolate(part.float(), size, mode="bilinear", antialias=True) for part in parts]
    )


def _gradient(values: Tensor) -> Tensor:
    """Sobel's gradient of N×C×h×w, down and right: N×C×2×h×w."""
    padded = F.pad(values, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    columns = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    down = rows[..., 2:, :] - rows[..., :-2, :]
    right = columns[..., 2:] - columns[..., :-2]
    return torch.stack([down, right], dim=2) / 8


def _edge_tensor(images: Tensor) -> Tensor:
    """The structure tensor in units of the image's mean gradient: N×3×h×w (yy, xx, twice xy)."""
    down, right = _gradient(images).unbind(dim=2)
    yy, xx = down.square().sum(dim=1), right.square().sum(dim=1)
    mean = (yy + xx).sqrt().mean(dim=(1, 2)).clamp_min(1e-6)
    return torch.stack([yy, xx, 2 * (down * right).sum(dim=1)], dim=1) / mean.view(-1, 1, 1, 1) ** 2


def _border(masks: Tensor, covered: Tensor) -> Tensor:
    """The masks' gradient, N×2×h×w, zero at the image's rim and where nothing is known.

    Args:
        masks: N×1×h×w.
        covered: Likewise, 1 where the placed mask comes from inside the given one.
    """
    inner = F.pad(torch.ones_like(covered[..., 1:-1, 1:-1]), (1, 1, 1, 1))
    inner = inner * (-F.max_pool2d(-covered, 3, 1, 1) > 0.999)
    return _gradient(masks)[:, 0] * inner


def _across(border: Tensor, edges: Tensor) -> Tensor:
    """The image's gradient across the border, summed along it, N."""
    down, right = border.unbind(dim=1)
    yy, xx, xy = edges.unbind(dim=1)
    squares = down**2 * yy + right**2 * xx + down * right * xy
    return squares.clamp_min(0).sqrt().sum(dim=(1, 2))


def _opposites(placements: list[_Placement]) -> dict[int, int]:
    """For each shift, the position of the shift the other way."""
    places = {p.shift: k for k, p in enumerate(placements) if p.shift is not None}
    return {k: places[-shift[0], -shift[1]] for shift, k in places.items()}


def _judge(names: list[str], scores: Tensor, opposites: Mapping[int, int]) -> Alignment:
    given = scores[0]
    known = ~given.isnan()
    n = int(known.sum())
    if n < _LEAST_SAMPLES:
        return Alignment(verdict="too few", n=n)
    mean, error = _mean_and_error(given[known])
    best, better = 0, 0.0
    for number in range(1, len(names)):
        gain = _gain(scores, number, opposites.get(number))
        if gain > max(better, _MARGIN):
            best, better = number, gain
    verdict: Verdict = "too few"
    if best:
        verdict = "other placement fits better"
    elif mean > max(_FITS, _SURE * error):
        verdict = "fits"
    elif mean + _SURE * error < _GOOD:
        verdict = "no fit"
    return Alignment(
        verdict=verdict,
        placement=names[best],
        n=n,
        score=mean,
        z=mean / error if error else 0.0,
        better=better,
        scores={name: float(row.nanmean()) for name, row in zip(names, scores, strict=True)},
    )


def _gain(scores: Tensor, number: int, opposite: int | None) -> float:
    """By how much a placement surely beats the given one; 0 where that is not sure.

    A shift must beat the shift the other way too: masks wider than their objects gain by both.
    """
    here = scores[number]
    both = ~(here.isnan() | scores[0].isnan())
    if int(both.sum()) < max(_LEAST_SAMPLES, len(here) // 2):
        return 0.0
    rivals = [here[both], (here - scores[0])[both]]
    if opposite is not None:
        difference = here - scores[opposite]
        rivals.append(difference[~difference.isnan()])
    return float(rivals[1].mean()) if all(map(_surely_positive, rivals)) else 0.0


def _surely_positive(values: Tensor) -> bool:
    mean, error = _mean_and_error(values)
    return mean > _SURE_OF_OTHER * error


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    if len(values) < 2:
        return 0.0, 0.0
    return float(values.mean()), float(values.std()) / len(values) ** 0.5
