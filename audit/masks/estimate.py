"""Object masks from the image alone: colour statistics, a centre prior and border barriers.

The audited model has no part in it, so that a mask cannot agree with a map by construction.

The weights below were fitted by logistic regression on 828 crops and scenes of COCO photos with an
even number, animals and vehicles counting three times for the votes and the trust; the trust was
then calibrated on 59 crops and 89 scenes of the same photos, each counting once.
``benchmarks/masks.py`` reports on photos with an odd number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.masks.barrier import barrier_saliency, geodesic_distance
from audit.masks.colour import rgb_to_lab
from audit.masks.component import central_component
from audit.masks.field import Contrast, segment
from audit.masks.frames import find_content, into_content, out_of_content
from audit.masks.mixture import Codebook, fit_codebook
from audit.masks.regions import places, region_cues

WORKING_SIZE = 32
VOTES = ("regions", "mixed_large", "mixed", "mixed_small", "ellipse", "barrier")
PLANES = ("default", "component", *VOTES)

_BATCH = 64  # always: products of other shapes round otherwise; larger ones leave the cache
_MOST_PIXELS = 2**22  # of images that are looked at together
_PRIOR_RANGE = (0.03, 0.97)
_BORDER_DAMPING = 0.6
_ELLIPSE_SOFTNESS = 0.15
_FLAT = 3.0  # Lab units: an image that varies less shows no object

# A mask that fills its bounding box is a picture in a frame rather than an object: of the true
# masks of 109 crops and 174 scenes one in 28 fills .85 of it, one in 70 fills .9.
_ROUGH, _SQUARE, _SQUARE_TRUST = 0.84, 0.92, 0.25

# Log odds of object given the cues of :func:`_cues`.
_CUE_WEIGHTS = (0.749, -3.656, -2.002, 0.589, -1.382, -1.444)
_CUE_BIAS = 0.477
# Log odds of object given the votes, in the order of VOTES.
_VOTE_WEIGHTS = (0.812, 0.865, 0.075, 0.248, 0.337, 0.337)
_VOTE_BIAS = -1.956
# Log odds of overlap given the cues of :func:`_trust_cues`.
_TRUST_WEIGHTS = (2.643, -1.512, 3.024)
_TRUST_BIAS = -3.215


@dataclass(frozen=True, kw_only=True)
class MaskEstimate:
    """Estimates of each image's object, and how far to trust the first.

    Attributes:
        planes: bool, N×P×32×32, in the order of :data:`PLANES`.
        confidence: float32 in [0, 1], N: the overlap (IoU) of the default with the object that is
            to be expected.
    """

    planes: Tensor
    confidence: Tensor


def estimate_masks(images: Tensor) -> MaskEstimate:
    """Estimate where the object is.

    Bars and frames of one colour are set aside (:mod:`audit.masks.frames`). On the content, each
    vote starts from another prior and fits labels to the image's colours and to their neighbours
    (:mod:`audit.masks.field`): ``regions`` from cues of regions and of paths from the border,
    weighed by logistic regression; ``ellipse`` from a soft ellipse in the centre, ``barrier``
    from the minimum barrier distance, the ``mixed`` ones from the mean of both. The default is
    the mean of ``regions`` and ``mixed_large``; ``component`` is its part in the middle, and
    fails differently: it never holds a patch in a corner or a ring around the picture.

    Args:
        images: uint8, N×3×H×W, any size; on any device.

    Returns:
        The masks at 32×32, on the same device; the same whatever the batch.

    Example:
        >>> picture = torch.full((1, 3, 48, 48), 200, dtype=torch.uint8)
        >>> picture[:, 0, 14:34, 14:34] = 20
        >>> mask = estimate_masks(picture).planes[0, 0]
        >>> mask[16, 16].item(), mask[2, 2].item()
        (True, False)
    """
    size = int(images.shape[-2]), int(images.shape[-1])
    at_once = max(1, min(_BATCH, _MOST_PIXELS // (size[0] * size[1])))
    contents = [_look(part) for part in _filled_up(images, at_once)]
    edges, small = (torch.cat(parts)[: len(images)] for parts in zip(*contents, strict=True))
    found = [
        _estimate(*part, size)
        for part in zip(_filled_up(edges, _BATCH), _filled_up(small, _BATCH), strict=True)
    ]
    return MaskEstimate(
        planes=torch.cat([part.planes for part in found])[: len(images)],
        confidence=torch.cat([part.confidence for part in found])[: len(images)],
    )


def soft_masks(planes: Tensor) -> Tensor:
    """Probability that a pixel is object, from the votes for it.

    Args:
        planes: bool, N×P×32×32, in the order of :data:`PLANES`.

    Returns:
        float32 in [0, 1], N×32×32; a pixel without a vote is still object once in eight times.

    Example:
        >>> everybody, nobody = torch.ones(1, 8, 1, 1), torch.zeros(1, 8, 1, 1)
        >>> soft_masks(everybody.bool()).item() > 0.6 > 0.2 > soft_masks(nobody.bool()).item()
        True
    """
    votes = planes[:, -len(VOTES) :]
    odds = torch.full_like(votes[:, 0], _VOTE_BIAS, dtype=torch.float32)
    for number, weight in enumerate(_VOTE_WEIGHTS):
        odds = odds + weight * votes[:, number]
    return torch.sigmoid(odds)


def enlarge(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring 32×32 masks to the image's size.

    Args:
        masks: bool, or float in [0, 1] for soft masks, N×32×32.
        size: Height and width.

    Returns:
        float32, N×H×W; 0 or 1 where the masks are bool.

    Example:
        >>> enlarge(torch.tensor([[[True, False]]]), (1, 4)).tolist()
        [[[1.0, 1.0, 0.0, 0.0]]]
    """
    values = masks.float()
    if tuple(masks.shape[-2:]) == size:
        return values
    large = F.interpolate(values[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return (large > 0.5).float() if masks.dtype == torch.bool else large


def agreement(planes: Tensor) -> Tensor:
    """Mean intersection over union of the first plane with the others.

    Args:
        planes: bool, N×P×H×W.

    Returns:
        float32, N; two empty masks agree fully.

    Example:
        >>> a = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]]]]).bool()
        >>> agreement(a).tolist()
        [0.25]
    """
    first, others = planes[:, :1], planes[:, 1:]
    shared = (first & others).flatten(2).sum(dim=2)
    either = (first | others).flatten(2).sum(dim=2)
    return torch.where(either > 0, shared / either.clamp_min(1), 1.0).mean(dim=1)


def centre_ellipse(radius: float, device: torch.device | str = "cpu") -> Tensor:
    """Soft ellipse in the middle of the working grid.

    Args:
        radius: Half axes as a share of half the image.
        device: Where to make it.

    Returns:
        float32 in (0, 1), 32×32; 0.5 on the ellipse.

    Example:
        >>> ellipse = centre_ellipse(0.75)
        >>> bool(ellipse[16, 16] > 0.9), bool(ellipse[0, 0] < 0.1)
        (True, True)
    """
    away = places(WORKING_SIZE, torch.device(device)).square().sum(dim=0).sqrt()
    return torch.sigmoid((radius - away) / _ELLIPSE_SOFTNESS).view(WORKING_SIZE, WORKING_SIZE)


def _filled_up(values: Tensor, count: int) -> Sequence[Tensor]:
    """Parts of equal length, the last one filled up with blanks; at least one."""
    missing = -len(values) % count if len(values) else count
    return torch.cat([values, values.new_zeros(missing, *values.shape[1:])]).split(count)


def _look(images: Tensor) -> tuple[Tensor, Tensor]:
    """Where each image's content lies, N×4, and the content at 32×32 in [0, 1]."""
    height, width = images.shape[-2:]
    edges = find_content(images)
    top, bottom, left, right = edges.unbind(1)
    down = into_content(top, bottom, height, WORKING_SIZE)
    along = into_content(left, right, width, WORKING_SIZE)
    return edges, down[:, None] @ (images.float() / 255) @ along[:, None].mT


def _estimate(edges: Tensor, small: Tensor, size: tuple[int, int]) -> MaskEstimate:
    """The masks of images whose content was looked at."""
    height, width = size
    top, bottom, left, right = edges.unbind(1)
    # Blanks that fill a batch up have content too.
    bottom, right = (
        torch.where(bottom > top, bottom, height),
        torch.where(right > left, right, width),
    )
    lab = rgb_to_lab(small.clamp(0, 1))
    codebook = fit_codebook(lab.flatten(2))
    priors = _priors(lab)
    votes = segment(codebook, Contrast(lab), priors)
    soft = torch.cat([votes[:, :2].mean(dim=1, keepdim=True), votes], dim=1)
    confidence = _trust(lab, codebook, soft > 0.5)
    up = out_of_content(top, bottom, height, WORKING_SIZE)
    across = out_of_content(left, right, width, WORKING_SIZE)
    planes = up[:, None] @ soft @ across[:, None].mT > 0.5
    component = central_component(planes[:, 0])
    planes = torch.cat([planes[:, :1], component[:, None], planes[:, 1:]], dim=1)
    return MaskEstimate(planes=planes, confidence=confidence)


def _priors(lab: Tensor) -> Tensor:
    """The votes' starting points as log odds, N×V×32×32, in the order of VOTES."""
    barrier = barrier_saliency(lab)
    ellipses = {r: centre_ellipse(r, lab.device).expand_as(barrier) for r in (0.55, 0.75, 0.95)}
    mixed = [(ellipses[radius] + barrier) / 2 for radius in (0.95, 0.75, 0.55)]
    others = torch.stack([*mixed, ellipses[0.75], barrier], dim=1)
    ring = torch.ones(WORKING_SIZE, WORKING_SIZE, device=lab.device)
    ring[0], ring[-1], ring[:, 0], ring[:, -1] = (_BORDER_DAMPING,) * 4
    weights = lab.new_tensor(_CUE_WEIGHTS)[:, None, None]
    learned = torch.sigmoid((_cues(lab) * weights).sum(dim=1, keepdim=True) + _CUE_BIAS)
    return torch.logit(torch.cat([learned, others * ring], dim=1).clamp(*_PRIOR_RANGE))


def _cues(lab: Tensor) -> Tensor:
    """What tells an object's pixels: path from the border, region's cues, x² and y², N×6×S×S."""
    paths = geodesic_distance(lab).log1p()
    rows_columns = places(WORKING_SIZE, lab.device).square().view(1, 2, *lab.shape[-2:])
    columns_rows = rows_columns.flip(1).expand(len(lab), -1, -1, -1)
    return torch.cat([paths[:, None], region_cues(lab), columns_rows], dim=1)


def _trust(lab: Tensor, codebook: Codebook, masks: Tensor) -> Tensor:
    """Expected overlap of the first mask with the object, N; almost 0 for flat images."""
    cues = _trust_cues(codebook, masks)
    expected = torch.sigmoid((cues * cues.new_tensor(_TRUST_WEIGHTS)).sum(dim=1) + _TRUST_BIAS)
    variance = lab.flatten(2).var(dim=2, unbiased=False).sum(dim=1)
    expected = expected * (1 - (-variance / _FLAT**2).exp())
    squareness = (_filled(masks[:, 0]) - _ROUGH) / (_SQUARE - _ROUGH)
    return expected * (1 - (1 - _SQUARE_TRUST) * squareness.clamp(0, 1))


def _filled(masks: Tensor) -> Tensor:
    """How much of its bounding box a mask fills, in [0, 1], N."""
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    box = _extent(rows) * _extent(columns)
    return masks.flatten(1).sum(dim=1) / box.clamp_min(1)


def _extent(lines: Tensor) -> Tensor:
    """From the first line with something to the last one, N."""
    something = lines.float()
    last = lines.shape[1] - something.flip(1).argmax(dim=1)
    return (last - something.argmax(dim=1)) * lines.any(dim=1)


def _trust_cues(codebook: Codebook, masks: Tensor) -> Tensor:
    """What tells a good mask, N×3.

    The votes' share within it, the likeness of the colours within and without (Bhattacharyya's
    coefficient), the root of its area.
    """
    flat = masks.flatten(2).float()
    first, votes = flat[:, 0], flat[:, 1:]
    within = (votes.mean(dim=1) * first).sum(dim=1) / first.sum(dim=1).clamp_min(1)
    colours = torch.stack([first, 1 - first], dim=1) @ codebook.posterior.mT
    shares = colours / colours.sum(dim=2, keepdim=True).clamp_min(1)
    alike = shares.prod(dim=1).clamp_min(0).sqrt().sum(dim=1)
    return torch.stack([within, alike, first.mean(dim=1).sqrt()], dim=1)
