"""Whether a map marks what the classifier uses: remove or keep its pixels and see.

These scores judge the map, not the classifier, and need no object mask. Each of them has its own
blind spot, because removed pixels must be replaced by something: compare CAM methods on one
network, by several scores, rather than networks with one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.score.filling import blurred, pyramid

TENTHS = tuple(k / 10 for k in range(1, 10))

# Steps up to the peak; map values on the same step count as tied. Upsampling makes exact ties at
# the border, and float32 would break them by position.
TIE_LEVELS = 2**16

# Standard deviation of the blur, over the image's side: what it takes on 32- and 224-pixel
# networks until the target is hardly more likely than on a constant image.
BLUR = 0.1

# Standard deviation of the imputation's noise, over the range of the image's channel.
NOISE = 0.01

# A rise of the probability below what float32 resolves is none.
LEAST_GAIN = 1e-6

# The imputation ends where its estimated error, over the channel's range, is below this.
TOLERANCE = 1e-4
MOST_ITERATIONS = 200


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """How a map stands up to its own classifier, N each; NaN where undefined.

    Attributes:
        deletion_auc: Area under the target's probability while the map's highest pixels are
            replaced by the image's mean colour, in [0, 1]; low is good.
        insertion_auc: The same while they are put into the blurred image; high is good.
        average_drop: Relative loss of probability where the image is multiplied by the map, in
            [0, 1]; low is good. It asks how much a map covers, not where: a uniform map has 0.
        increase: 1 where that raises the probability, otherwise 0; high is good.
        road: Mean advantage of removing the lowest pixels first over removing the highest first,
            in [-1, 1]; high is good, and 0 is a map that tells nothing apart.
    """

    deletion_auc: Tensor
    insertion_auc: Tensor
    average_drop: Tensor
    increase: Tensor
    road: Tensor


@torch.no_grad()
def faithfulness(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    target: Tensor,
    *,
    fractions: Sequence[float] = TENTHS,
    seed: int = 0,
) -> Faithfulness:
    """Score maps by what the classifier says without, and with nothing but, what they mark.

    Costs ``4 + 4·len(fractions)`` passes of the whole batch, one after another: 40 by default.
    A sample's scores do not depend on the others in its batch.

    Args:
        model: Images to logits, N×K; in evaluation mode.
        images: Normalised as the model expects, N×C×H×W.
        maps: ``L ≥ 0``, N×H×W, in any unit.
        target: The class that each map explains, int64, N.
        fractions: Shares of the pixels to remove, ascending in (0, 1). The curves have these
            points and both ends.
        seed: Of the order among tied pixels and of the imputation's noise.

    Returns:
        The scores; NaN for a map without mass or with values that are not finite.

    Raises:
        ValueError: If shapes do not fit, a map is negative or the fractions are no such shares.

    Source:
        Deletion and insertion: Petsiuk et al. 2018, "RISE". There, deleted pixels become the
        training set's mean, and the blur, of 5 pixels cut off at 5, serves images of 224. Here
        the image's own mean leaves fewer edges and does not depend on how images are normalised,
        and the blur grows with the image and hides more.
        Average Drop and Increase in Confidence: Chattopadhyay et al. 2018, "Grad-CAM++"; one
        sample's terms of both. The map is divided by its peak, and the product with a map of 0
        is 0 as normalised: the training set's mean colour.
        ROAD: Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution
        Methods", with noisy linear imputation; the difference of its two orders of removal.

    Example:
        >>> images = torch.zeros(1, 1, 4, 4)
        >>> images[..., 0, 0] = 8.0
        >>> def reads_the_corner(x):
        ...     return torch.stack([x[:, 0, 0, 0], torch.zeros(len(x))], dim=1)
        >>> good = faithfulness(reads_the_corner, images, images[:, 0], torch.tensor([0]))
        >>> good.deletion_auc, good.insertion_auc, good.road
        (tensor([0.6413]), tensor([0.9996]), tensor([0.4885]))
    """
    _check(images, maps, fractions)
    pixels = images.float()

    def log_p(variant: Tensor) -> Tensor:
        logits = model(variant.to(images.dtype)).float()
        return logits.log_softmax(dim=1).gather(1, target[:, None])[:, 0]

    relative, defined = _relative_to_peak(maps.float())
    whole = log_p(pixels)
    drop, rises = _change(whole, log_p(pixels * relative[:, None]))
    curves = _curves(lambda x: log_p(x).exp(), whole.exp(), pixels, relative, fractions, seed)
    at = torch.tensor([0.0, *fractions, 1.0], device=pixels.device)
    return Faithfulness(
        deletion_auc=torch.where(defined, torch.trapezoid(curves[0], at, dim=0), torch.nan),
        insertion_auc=torch.where(defined, torch.trapezoid(curves[1], at, dim=0), torch.nan),
        average_drop=torch.where(defined, drop, torch.nan),
        increase=torch.where(defined, rises, torch.nan),
        road=torch.where(defined, curves[2].mean(dim=0), torch.nan),
    )


def linear_imputation(images: Tensor, missing: Tensor) -> Tensor:
    """Fill in missing pixels, each with the weighted mean of its neighbours.

    Conjugate gradients on the whole batch. They begin at a pyramid of the known pixels' means
    and are steered by coarser grids, so that wide holes take little longer than narrow ones.
    The largest error found against an exact solution is 8e-4 of the channel's range, usually
    1e-4, for 10 to 90% of 32×32 and of 224×224 pixels missing, in one hole, in patches and
    scattered.

    Args:
        images: float32, N×C×H×W; what they hold at missing pixels sets their range, no more.
        missing: bool, N×H×W.

    Returns:
        N×C×H×W, equal to the images where nothing is missing; NaN where everything is.

    Source:
        Rong et al. 2022, "A Consistent and Efficient Evaluation Strategy for Attribution
        Methods", linear imputation: direct neighbours weigh 1/6 and diagonal ones 1/12; at the
        border the weights that are left count.

    Example:
        >>> images = torch.tensor([[[[1.0, 9.0, 9.0, 4.0]]]])
        >>> linear_imputation(images, torch.tensor([[[False, True, True, False]]]))
        tensor([[[[1., 2., 3., 4.]]]])
    """
    hole = missing[:, None]
    top, bottom = images.amax(dim=(2, 3), keepdim=True), images.amin(dim=(2, 3), keepdim=True)
    centre, reach = (top + bottom) / 2, (top - bottom) / 2
    # In [-1, 1], so that one tolerance serves all; a constant channel is exactly 0.
    scaled = (images - centre) / reach.clamp_min(torch.finfo(images.dtype).tiny)
    known = (~hole).to(images.dtype)
    start = torch.where(hole, pyramid(scaled * known, known), scaled)
    return torch.where(hole, _solve(start, 1 - known) * reach + centre, images)


def _check(images: Tensor, maps: Tensor, fractions: Sequence[float]) -> None:
    """Refuse what would give numbers without meaning."""
    if maps.shape != (len(images), *images.shape[2:]):
        raise ValueError(f"maps are {tuple(maps.shape)} and images {tuple(images.shape)}")
    if bool((maps < 0).any()):
        raise ValueError("maps must not be negative: take their positive part")
    ends = [0.0, *fractions, 1.0]
    if len(ends) < 3 or any(b <= a for a, b in pairwise(ends)):
        raise ValueError(f"fractions must ascend within (0, 1), not {list(fractions)}")


def _relative_to_peak(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Maps in [0, 1], all 0 where undefined, and which are defined (N)."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    finite = maps.isfinite().all(dim=2).all(dim=1)
    relative = torch.where(finite[:, None, None], maps, 0) / peak.clamp_min(
        torch.finfo(maps.dtype).tiny
    )
    return relative.nan_to_num(0), finite & (peak[:, 0, 0] > 0)


def _change(whole: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Relative loss, and whether there is a gain, between two logarithms of probabilities, N."""
    # From logarithms, so that it is right where the probability itself underflows.
    drop = 1 - (kept - whole).clamp_max(0).exp()
    gain = kept.exp() - whole.exp()
    return drop, torch.where(gain.isnan(), torch.nan, (gain > LEAST_GAIN).to(gain.dtype))


def _curves(
    p: Callable[[Tensor], Tensor],
    whole: Tensor,
    pixels: Tensor,
    relative: Tensor,
    fractions: Sequence[float],
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The curves F×N: deletion and insertion with both ends, and ROAD's lowest minus highest.

    Args:
        p: Images to the target's probability, N.
        whole: That of the whole images.
        pixels: The images, N×C×H×W.
        relative: The maps in [0, 1], N×H×W.
        fractions: Shares of the pixels to remove.
        seed: Of lots and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    highest, lowest = _removal_orders(relative, generator)
    noise = _noise(pixels, generator)

    def without(removed: Tensor) -> Tensor:
        return torch.where(removed[:, None], linear_imputation(pixels, removed) + noise, pixels)

    mean = pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels).contiguous()
    soft = blurred(pixels, _sigma(pixels))
    deletion, insertion, advantage = [whole], [p(soft)], []
    for fraction in fractions:
        most, least = highest.first(fraction), lowest.first(fraction)
        deletion.append(p(torch.where(most[:, None], mean, pixels)))
        insertion.append(p(torch.where(most[:, None], pixels, soft)))
        advantage.append(p(without(least)) - p(without(most)))
    deletion.append(p(mean))
    insertion.append(whole)
    return torch.stack(deletion), torch.stack(insertion), torch.stack(advantage)


@dataclass(frozen=True)
class _Order:
    """In which order the pixels go.

    Attributes:
        keys: int64, N×H×W, without repetition in a sample; the smallest goes first.
        ascending: The same, sorted, N×HW.
    """

    keys: Tensor
    ascending: Tensor

    @classmethod
    def by(cls, level: Tensor, lot: Tensor) -> _Order:
        keys = level * lot.numel() + lot
        return cls(keys, keys.flatten(1).sort(dim=1).values)

    def first(self, fraction: float) -> Tensor:
        """This share of the pixels, bool, N×H×W; never all of them."""
        pixels = self.ascending.shape[1]
        count = min(round(fraction * pixels), pixels - 1)
        return self.keys < self.ascending[:, count, None, None]


def _removal_orders(relative: Tensor, generator: torch.Generator) -> tuple[_Order, _Order]:
    """Highest first and lowest first.

    Maps have wide ties: wherever a ReLU left 0, and at the border, where bilinear upsampling
    repeats the outermost cell. Tied pixels go by one lot in both orders, which then do not differ
    where the map tells nothing apart: a uniform map's ``road`` is exactly 0. The lot favours no
    part of the image, and it goes through the image in patches as wide as a map's: single pixels
    all over the image are filled in so well that maps would gain from having ties.
    """
    height, width = relative.shape[1:]
    # From the middle of a larger pattern, because the blur is weaker at its border.
    pattern = torch.randn(3 * height, 3 * width, generator=generator, dtype=torch.float64)
    patches = blurred(pattern, _sigma(relative))[height : 2 * height, width : 2 * width]
    lot = patches.flatten().argsort().argsort().view(height, width).to(relative.device)
    level = (relative * TIE_LEVELS).round().long()
    return _Order.by(TIE_LEVELS - level, lot), _Order.by(level, lot)


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """The imputation's noise, N×C×H×W: one pattern, in units of each image's channels."""
    pattern = torch.randn(images.shape[1:], generator=generator).to(images.device)
    reach = images.amax(dim=(2, 3), keepdim=True) - images.amin(dim=(2, 3), keepdim=True)
    return NOISE * reach * pattern


def _sigma(images: Tensor) -> float:
    """The blur's standard deviation in pixels."""
    return BLUR * float(images.shape[-2] * images.shape[-1]) ** 0.5


def _solve(start: Tensor, gap: Tensor) -> Tensor:
    """Preconditioned conjugate gradients, for each sample and channel on its own.

    Args:
        start: Known pixels and a guess at the others, N×C×H×W, in [-1, 1].
        gap: 1 where missing, N×1×H×W.
    """
    weight = _neighbours(torch.ones_like(gap[:1]))  # 1, and less at the border
    coarser = _coarser_gaps(gap)
    found, residual = start, gap * (_neighbours(start) - weight * start)
    direction = steered = _steer(residual, coarser)
    energy = _dot(residual, steered)
    for _ in range(MOST_ITERATIONS):
        # The square of the estimated error. Who is done stands still, whoever else goes on.
        active = energy > (2 * TOLERANCE) ** 2
        if not bool(active.any()):
            break
        change = gap * (weight * direction - _neighbours(direction))
        step = torch.where(active, energy / _dot(direction, change), 0)
        found, residual = found + step * direction, residual - step * change
        steered = _steer(residual, coarser)
        before, energy = energy, _dot(residual, steered)
        direction = steered + torch.where(active, energy / before, 0) * direction
    return found


def _steer(residual: Tensor, coarser: Sequence[Tensor]) -> Tensor:
    """Nearly the inverse of the system: the residual as grids of all widths see it, summed.

    A multilevel preconditioner (Bramble, Pasciak and Xu 1990) on the hat functions that lie
    within the hole.
    """
    if not coarser:
        return residual
    seen = coarser[0] * _binomial(residual)[..., ::2, ::2] / 4
    finer = torch.zeros_like(residual)
    finer[..., ::2, ::2] = _steer(seen, coarser[1:])
    return residual + _binomial(finer) / 4


def _coarser_gaps(gap: Tensor) -> list[Tensor]:
    """For each coarser grid: 1 where a cell's hat function touches nothing that is known."""
    gaps = []
    while max(gap.shape[2:]) > 2:
        gap = -F.max_pool2d(-gap, 3, stride=2, padding=1)
        gaps.append(gap)
    return gaps


def _neighbours(x: Tensor) -> Tensor:
    """Weighted sum of the eight neighbours, nothing beyond the border."""
    return (_binomial(x) - 4 * x) / 12


def _binomial(x: Tensor) -> Tensor:
    """Sums with the weights 1, 2, 1 along both axes; slices outrun a convolution ten to one."""
    for dim in (2, 3):
        wide, pairs = 2 * x, x.shape[dim] - 1
        wide.narrow(dim, 1, pairs).add_(x.narrow(dim, 0, pairs))
        wide.narrow(dim, 0, pairs).add_(x.narrow(dim, 1, pairs))
        x = wide
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(2, 3), keepdim=True)
