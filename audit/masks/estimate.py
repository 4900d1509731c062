"""Object masks from the image alone: colour statistics, a centre prior and border barriers.

The audited model has no part in it, so that a mask cannot agree with a map by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.masks.barrier import barrier_saliency
from audit.masks.colour import rgb_to_lab

WORKING_SIZE = 32
VARIANTS = ("default", "ellipse_small", "ellipse_large", "ellipse_only", "barrier_only")

_COLOURS = 8
_KMEANS_STEPS = 4
_EM_STEPS = 6
_VARIANCE_FLOOR = 4.0
_ROUNDS = 8
_FIELD_STEPS = 4
_SMOOTHING = 0.5
_PRIOR_RANGE = (0.03, 0.97)
_BORDER_DAMPING = 0.6
_COUPLING = 1.0
_ELLIPSE_SOFTNESS = 0.15


@dataclass(frozen=True, kw_only=True)
class MaskEstimate:
    """Five estimates of each image's object, and how far they agree.

    Attributes:
        variants: bool, N×5×32×32, in the order of :data:`VARIANTS`.
        confidence: float32 in [0, 1], N: mean overlap (IoU) of the default with the other four.
    """

    variants: Tensor
    confidence: Tensor


def estimate_masks(images: Tensor) -> MaskEstimate:
    """Estimate where the object is.

    Every colour of the image is one of eight Gaussians; object and background share these and
    differ in how much of each they hold. Starting from a prior (an ellipse in the centre, pixels
    behind a barrier from the border), colour shares and labels are updated in turn, neighbours of
    like colour pulling each other (mean field of a contrast-sensitive Potts model, as in GrabCut,
    Rother et al. 2004). The four other variants start from other priors.

    Args:
        images: uint8, N×3×H×W, any size; on any device.

    Returns:
        The masks at 32×32, on the same device.
    """
    lab = rgb_to_lab(_shrink(images))
    priors = _priors(lab)
    soft = _segment(lab, priors)
    variants = soft > 0.5
    return MaskEstimate(variants=variants, confidence=agreement(variants))


def enlarge(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring 32×32 masks to the image's size.

    Args:
        masks: bool, N×32×32.
        size: Height and width.

    Returns:
        float32 0/1, N×H×W.
    """
    values = masks.float()
    if tuple(masks.shape[-2:]) == size:
        return values
    large = F.interpolate(values[:, None], size=size, mode="bilinear", align_corners=False)
    return (large[:, 0] > 0.5).float()


def agreement(variants: Tensor) -> Tensor:
    """Mean intersection over union of the first variant with the others.

    Args:
        variants: bool, N×V×H×W.

    Returns:
        float32, N; two empty masks agree fully.

    Example:
        >>> a = torch.tensor([[[[1, 1]], [[1, 0]], [[0, 0]]]]).bool()
        >>> agreement(a).tolist()
        [0.25]
    """
    flat = variants.flatten(2).float()
    first, others = flat[:, :1], flat[:, 1:]
    shared = (first * others).sum(dim=2)
    either = torch.maximum(first, others).sum(dim=2)
    return torch.where(either > 0, shared / either.clamp_min(1.0), 1.0).mean(dim=1)


def centre_ellipse(radius: float, device: torch.device | str = "cpu") -> Tensor:
    """Soft ellipse in the middle of the working grid.

    Args:
        radius: Half axes as a share of half the image.
        device: Where to make it.

    Returns:
        float32 in (0, 1), 32×32; 0.5 on the ellipse.
    """
    along = (torch.arange(WORKING_SIZE, device=device) + 0.5) / WORKING_SIZE * 2 - 1
    distance = (along[:, None] ** 2 + along[None, :] ** 2).sqrt()
    return torch.sigmoid((radius - distance) / _ELLIPSE_SOFTNESS)


def _shrink(images: Tensor) -> Tensor:
    values = images.float() / 255
    if values.shape[-2:] == (WORKING_SIZE, WORKING_SIZE):
        return values
    size = (WORKING_SIZE, WORKING_SIZE)
    return F.interpolate(values, size, mode="bilinear", antialias=True).clamp(0, 1)


def _priors(lab: Tensor) -> Tensor:
    """The five variants' starting points, N×5×32×32."""
    barrier = barrier_saliency(lab)
    ellipses = {r: centre_ellipse(r, lab.device).expand_as(barrier) for r in (0.55, 0.75, 0.95)}
    return torch.stack(
        [
            (ellipses[0.75] + barrier) / 2,
            (ellipses[0.55] + barrier) / 2,
            (ellipses[0.95] + barrier) / 2,
            ellipses[0.75],
            barrier,
        ],
        dim=1,
    )


def _segment(lab: Tensor, priors: Tensor) -> Tensor:
    """Probability of object, N×V×32×32."""
    pixels = lab.flatten(2).transpose(1, 2)  # N×P×3
    share, likelihood = _fit_colours(pixels)
    ring = torch.ones(WORKING_SIZE, WORKING_SIZE, device=lab.device)
    ring[0], ring[-1], ring[:, 0], ring[:, -1] = (_BORDER_DAMPING,) * 4
    prior_logit = torch.logit((priors * ring).clamp(*_PRIOR_RANGE))
    right, below = _contrast(lab)
    label = priors
    for _ in range(_ROUNDS):
        evidence = _colour_evidence(label.flatten(2), share, likelihood)
        unary = prior_logit + evidence.view_as(label)
        for _ in range(_FIELD_STEPS):
            label = torch.sigmoid(unary + _COUPLING * _pull(2 * label - 1, right, below))
    return label


def _fit_colours(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Fit eight Gaussians with diagonal covariance to each image's colours.

    Args:
        pixels: Lab colours, N×P×3.

    Returns:
        Posterior of the components given the pixel, and the components' likelihoods (scaled by
        the pixel's largest one), both N×P×8.
    """
    centres = _spread_centres(pixels)
    for _ in range(_KMEANS_STEPS):
        nearest = _distances(pixels, centres).argmin(dim=2)
        belongs = F.one_hot(nearest, _COLOURS).to(pixels.dtype)
        centres = _weighted_mean(belongs, pixels)
    squares = torch.cat([pixels**2, pixels, torch.ones_like(pixels[..., :1])], dim=2)  # N×P×7
    for _ in range(_EM_STEPS):
        total = belongs.sum(dim=1)[..., None]
        moments = belongs.transpose(1, 2) @ squares / total.clamp_min(1e-3)
        mean, second = moments[..., 3:6], moments[..., :3]
        variance = (second - mean**2).clamp_min(_VARIANCE_FLOOR)
        weight = (total[..., 0] / pixels.shape[1]).clamp_min(1e-6)
        log_density = _log_density(squares, mean, variance)
        belongs = torch.softmax(log_density + weight.log()[:, None], dim=2)
    likelihood = (log_density - log_density.amax(dim=2, keepdim=True)).exp()
    return belongs, likelihood


def _spread_centres(pixels: Tensor) -> Tensor:
    """Start at the pixel nearest to the mean, then always the pixel farthest from all so far."""
    mean = pixels.mean(dim=1, keepdim=True)
    first = _distances(pixels, mean)[..., 0].argmin(dim=1)
    chosen = [_pick(pixels, first)]
    nearest = _distances(pixels, chosen[0])[..., 0]
    for _ in range(_COLOURS - 1):
        chosen.append(_pick(pixels, nearest.argmax(dim=1)))
        nearest = torch.minimum(nearest, _distances(pixels, chosen[-1])[..., 0])
    return torch.cat(chosen, dim=1)


def _pick(pixels: Tensor, position: Tensor) -> Tensor:
    return pixels.gather(1, position[:, None, None].expand(-1, 1, 3))


def _distances(pixels: Tensor, centres: Tensor) -> Tensor:
    """Squared distances, N×P×K."""
    cross = pixels @ centres.transpose(1, 2)
    return (
        (pixels**2).sum(dim=2, keepdim=True) - 2 * cross + (centres**2).sum(dim=2)[:, None]
    ).clamp_min(0)


def _weighted_mean(belongs: Tensor, pixels: Tensor) -> Tensor:
    return belongs.transpose(1, 2) @ pixels / belongs.sum(dim=1)[..., None].clamp_min(1e-3)


def _log_density(squares: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log of diagonal Gaussians without the constant, N×P×K, as one matrix product."""
    constant = -0.5 * (mean**2 / variance + variance.log()).sum(dim=2, keepdim=True)
    coefficients = torch.cat([-0.5 / variance, mean / variance, constant], dim=2)
    return squares @ coefficients.transpose(1, 2)


def _colour_evidence(label: Tensor, share: Tensor, likelihood: Tensor) -> Tensor:
    """Log ratio of the colour under the object's mixture and the background's, N×V×P."""
    of_object = label @ share + _SMOOTHING
    of_background = (1 - label) @ share + _SMOOTHING
    mixed = [
        (counts / counts.sum(dim=2, keepdim=True)) @ likelihood.transpose(1, 2)
        for counts in (of_object, of_background)
    ]
    return (mixed[0] / mixed[1]).log()


def _contrast(lab: Tensor) -> tuple[Tensor, Tensor]:
    """How strongly each pixel is tied to its right and lower neighbour, N×1×32×31 and N×1×31×32."""
    right = (lab[..., :, 1:] - lab[..., :, :-1]).square().sum(dim=1, keepdim=True)
    below = (lab[..., 1:, :] - lab[..., :-1, :]).square().sum(dim=1, keepdim=True)
    scale = (right.mean(dim=(2, 3), keepdim=True) + below.mean(dim=(2, 3), keepdim=True)) / 2
    scale = 2 * scale.clamp_min(1e-6)
    return (-right / scale).exp(), (-below / scale).exp()


def _pull(sign: Tensor, right: Tensor, below: Tensor) -> Tensor:
    """Sum of the neighbours' labels (−1 … 1), weighted by likeness of colour."""
    pull = torch.zeros_like(sign)
    pull[..., :, :-1] += right * sign[..., :, 1:]
    pull[..., :, 1:] += right * sign[..., :, :-1]
    pull[..., :-1, :] += below * sign[..., 1:, :]
    pull[..., 1:, :] += below * sign[..., :-1, :]
    return pull
