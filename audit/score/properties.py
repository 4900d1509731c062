"""What an image is like, whatever it shows: light, colour, detail, and a hash of its content."""

from __future__ import annotations

import torch
from torch import Tensor

# Weights of red, green and blue in perceived lightness, ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)
# Levels that the entropy tells apart.
ENTROPY_LEVELS = 64
# Below this spread of luma (in grey levels) an image shows nothing but rounding.
LEAST_SPREAD = 1.0
# Var(Laplacian)/Var of independent pixels: 4² + 4·1².
_WHITE_NOISE = 20.0

# The hash: cells a side; what makes one cell brighter than its neighbour, in grey levels (at 0,
# noise would decide about plain areas); and the steps of the mean colour.
_SIDE = 5
_TIE = 4
_COLOUR_STEP = 16


def image_properties(images: Tensor, readable: Tensor | None = None) -> dict[str, Tensor]:
    """Properties of images that do not depend on any model.

    With R, G, B in [0, 1] and luma Y = .299 R + .587 G + .114 B:

    - ``brightness``: mean of Y, in [0, 1].
    - ``contrast``: standard deviation of Y (root-mean-square contrast), in [0, .5].
    - ``saturation``: mean of HSV saturation, (max − min)/max of R, G, B, in [0, 1]; 0 for black.
    - ``red_green``: mean of R − G, in [−1, 1]; above 0 red, below 0 green.
    - ``yellow_blue``: mean of (R + G)/2 − B, in [−1, 1]; above 0 yellow, below 0 blue.
    - ``sharpness``: √(Var ∇²Y / (20 Var Y)), in [0, 1.8]; 0 = smooth, 1 = fine as pixel noise.
    - ``entropy``: of the histogram of Y in 64 levels, in [0, 6] bits.
    - ``image_hash``: see :func:`image_hash`.

    The variance of the Laplacian alone, the usual measure of blur, grows with the square of the
    contrast; over the variance of Y it does not change when light or contrast do.

    Args:
        images: uint8, N×3×H×W, as the model sees them, before normalisation.
        readable: Which of them are images, bool N; ``None`` for all.

    Returns:
        The properties by name, float32, N each, NaN where undefined; ``image_hash`` is int64, -1
        where undefined. An image that is not readable has none; sharpness is undefined where luma
        varies by less than one grey level or no pixel has four neighbours.

    Source:
        Luma: ITU-R BT.601. Colour opponents: Hasler and Süsstrunk 2003, equations 1 and 2.
        Variance of the Laplacian: Pech-Pacheco et al. 2000.

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
        >>> found = image_properties(grey)
        >>> [round(found[name].item(), 3) for name in ("brightness", "contrast", "saturation")]
        [0.2, 0.0, 0.0]
        >>> found["sharpness"]
        tensor([nan])
    """
    pixels = images.float()
    weight = pixels.shape[2] * pixels.shape[3]
    sums = _cell_sums(pixels, _SIDE)
    means = sums.sum(dim=(2, 3)) / (255 * weight * _SIDE**2)
    red, green, blue = means.float().unbind(dim=1)
    luma = _luma(pixels)
    centred = luma - luma.mean(dim=(1, 2), keepdim=True)
    variance = centred.square().mean(dim=(1, 2))
    found = {
        "brightness": LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue,
        "contrast": variance.sqrt() / 255,
        "saturation": _saturation(images),
        "red_green": red - green,
        "yellow_blue": (red + green) / 2 - blue,
        "sharpness": _sharpness(centred, variance),
        "entropy": _entropy(luma),
        "image_hash": _hash(sums, weight),
    }
    if readable is None:
        return found
    return {
        name: torch.where(readable, values, torch.nan if values.is_floating_point() else -1)
        for name, values in found.items()
    }


def image_hash(images: Tensor) -> Tensor:
    """A number that copies of an image share, and other images hardly ever.

    The image is averaged over 5×5 cells. 40 bits say which cells are brighter than their left and
    than their upper neighbour, by more than four grey levels; 12 bits hold the mean of red, green
    and blue in steps of 16, without which all plain images would be alike. Equal on every device,
    because all sums are of integers and exact. Of the 60,000 images of CIFAR-10, 42 groups share a
    hash: 33 of copies, 9 of images that look alike. 91% of those small images, and 98% of
    109 photos of 224×224, keep theirs when saved again as JPEG of quality 90. A crop or a mirror
    image has another.

    Args:
        images: uint8, N×3×H×W.

    Returns:
        int64, N, not negative.

    Source:
        Difference hash (dHash, Krawetz 2013), in both directions, with a margin and colours.

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
        >>> image_hash(grey) == image_hash(grey + 1), image_hash(grey) == image_hash(grey + 99)
        (tensor([True]), tensor([False]))
    """
    return _hash(_cell_sums(images.float(), _SIDE), images.shape[2] * images.shape[3])


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(dim=1)
    return (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def _saturation(images: Tensor) -> Tensor:
    red, green, blue = images.unbind(dim=1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    # Pixels are whole numbers, so that only black is below 1.
    return (high - low).float().div_(high.clamp_min(1)).mean(dim=(1, 2))


def _sharpness(centred: Tensor, variance: Tensor) -> Tensor:
    """Detail of a luma without its mean, N×H×W, relative to its variance."""
    if min(centred.shape[1:]) < 3:
        return torch.full_like(variance, torch.nan)
    inner = centred[:, 1:-1, 1:-1]
    laplacian = centred[:, :-2, 1:-1] + centred[:, 2:, 1:-1]
    laplacian += centred[:, 1:-1, :-2]
    laplacian += centred[:, 1:-1, 2:]
    laplacian.sub_(inner, alpha=4)
    laplacian -= laplacian.mean(dim=(1, 2), keepdim=True)
    detail = laplacian.square_().mean(dim=(1, 2))
    sharp = (detail / (_WHITE_NOISE * variance)).sqrt()
    return torch.where(variance >= LEAST_SPREAD**2, sharp, torch.nan)


def _entropy(luma: Tensor) -> Tensor:
    count, levels = len(luma), ENTROPY_LEVELS
    # Rounded first: a luma of 8.0 must not fall below 8 for its last digit.
    level = luma.round().mul_(levels / 256).to(torch.int32).flatten(1)
    level += torch.arange(count, device=luma.device, dtype=torch.int32)[:, None] * levels
    found = torch.bincount(level.flatten(), minlength=count * levels)
    p = found.view(count, levels) / level.shape[1]
    return -torch.xlogy(p, p).sum(dim=1) / torch.tensor(2.0, device=luma.device).log()


def _cell_sums(pixels: Tensor, side: int) -> Tensor:
    """Sums of whole-number pixels over equal cells, float64 N×3×side×side; a cell weighs H·W.

    A pixel on the seam of two cells counts by the part that lies in each. Pixels and weights are
    whole numbers; float32 (with tensor cores too) holds the sums down a column exactly, and float64
    those of the image. So neither the order of summation nor the device matters.
    """
    height, width = pixels.shape[2:]
    down = _overlaps(height, side, pixels.device).float()
    along = _overlaps(width, side, pixels.device).double()
    return (down.T @ pixels).double() @ along


def _overlaps(length: int, cells: int, device: torch.device) -> Tensor:
    """How many parts (a pixel has ``cells``) of each pixel lie in each cell, length×cells."""
    pixel = torch.arange(length, device=device)[:, None] * cells
    cell = torch.arange(cells, device=device)[None, :] * length
    overlap = torch.minimum(pixel + cells, cell + length) - torch.maximum(pixel, cell)
    return overlap.clamp_min(0)


def _hash(sums: Tensor, weight: int) -> Tensor:
    """The hash of sums over 5×5 cells of this weight, float64 N×3×5×5 of whole numbers."""
    red, green, blue = sums.unbind(dim=1)
    luma = 299 * red + 587 * green + 114 * blue
    brighter = torch.cat([luma.diff(dim=2).flatten(1), luma.diff(dim=1).flatten(1)], dim=1)
    bits = brighter > 1000 * _TIE * weight
    code = (bits * 2 ** torch.arange(bits.shape[1], device=bits.device)).sum(dim=1)
    steps = (sums.sum(dim=(2, 3)) / (_COLOUR_STEP * weight * _SIDE**2)).long()
    for step in steps.unbind(dim=1):
        code = code * (256 // _COLOUR_STEP) + step
    return code
