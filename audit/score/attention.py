"""Where a map's mass lies: shares, hits, ranks, overlap and focus.

All functions take a batch. A score that is undefined for a sample is NaN, never 0: it becomes a
null in the tables and is counted there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

# Values this close, relative to the map's peak, count as tied. Upsampling makes exact ties at the
# border, and float32 breaks them one way or the other with the batch's size.
TIED = 2e-6

# Where the grid leaves less than this between chance and its best, it cannot resolve the object.
LEAST_ROOM = 0.05

# More pixels than this are not looked at one by one.
_MOST_LOOKUPS = 2**22

# Histogram cells of a normalised map, for the pixel average precision of a whole split.
HISTOGRAM_BINS = 256


def object_share(positive: Tensor, grid_mask: Tensor, weight: Tensor) -> Tensor:
    """The share of a map's positive mass on the object, where all pixels are known.

    :meth:`audit.score.masks.CellMasks.shares` gives it for several masks at once.

    Args:
        positive: ``L ≥ 0``, N×h×w.
        grid_mask: ``m``, N×h×w in [0, 1].
        weight: ``u``, h×w.

    Returns:
        ``R = Σ u·L·m / Σ u·L`` in [0, 1], N; NaN for a map without mass.

    Source:
        Relevance mass accuracy, Arras et al. 2022, equation 8; energy-based pointing game,
        Wang et al. 2020, equation 3. Equal to both on the upsampled map.

    Example:
        >>> L = torch.tensor([[[3.0, 1.0]]]); m = torch.tensor([[[1.0, 0.0]]])
        >>> object_share(L, m, torch.ones(1, 2))
        tensor([0.7500])
    """
    mass = positive * weight
    return _ratio((mass * grid_mask).sum(dim=(1, 2)), mass.sum(dim=(1, 2)))


def share_ceiling(grid_mask: Tensor, weight: Tensor, known: Tensor | None = None) -> Tensor:
    """The share that a map equal to the object itself reaches on this grid.

    Args:
        grid_mask: ``m``, N×h×w.
        weight: ``u``, h×w.
        known: The share of each cell that is object or background, N×h×w; ``None`` for all.

    Returns:
        ``R* = Σ u·m² / Σ u·m`` (the lower sum over what is known), N; NaN for an empty mask.

    Example:
        >>> share_ceiling(torch.tensor([[[1.0, 0.5]]]), torch.ones(1, 2))
        tensor([0.8333])
    """
    mass = grid_mask * weight
    total = mass if known is None else mass * known
    return _ratio((mass * grid_mask).sum(dim=(1, 2)), total.sum(dim=(1, 2)))


def background_lift(share: Tensor, area: Tensor) -> Tensor:
    """Background share over the background's area: 1 is what a uniform map gets.

    Args:
        share: Object share ``R``, N.
        area: Object area ``a``, N.

    Returns:
        ``(1 − R) / (1 − a)``, N; NaN where the object fills the image.

    Example:
        >>> background_lift(torch.tensor([0.4]), torch.tensor([0.25]))
        tensor([0.8000])
    """
    return _ratio(1 - share, 1 - area)


def kappa(
    share: Tensor, area: Tensor, ceiling: Tensor | float = 1.0, *, least_room: float = 0.0
) -> Tensor:
    """Chance-corrected object share.

    Args:
        share: Object share ``R``, N.
        area: Object area ``a``, N.
        ceiling: The best share that counts as 1: 1, or the grid's ceiling ``R*``.
        least_room: NaN where the ceiling is no further than this above the area.

    Returns:
        ``(R − a) / (ceiling − a)``, N; 0 is a uniform map; NaN where the ceiling is the area.

    Example:
        >>> kappa(torch.tensor([0.4]), torch.tensor([0.25]))
        tensor([0.2000])
    """
    room = torch.as_tensor(ceiling - area)
    return torch.where(room > least_room, (share - area) / room, torch.nan)


def pointing_tolerance(image_side: int) -> int:
    """Pixels by which the peak may miss the object: 15 at 224 pixels, 1 on thumbnails.

    Example:
        >>> pointing_tolerance(32), pointing_tolerance(224)
        (1, 15)
    """
    return 1 if image_side <= 64 else round(15 * image_side / 224)


def pointing_hit(
    upsampled: Tensor, mask: Tensor, tolerance: int, known: Tensor | None = None
) -> Tensor:
    """Whether the map's peak lies on the object or within a few pixels of it.

    Args:
        upsampled: N×H×W.
        mask: bool (or 0 and 1), N×H×W.
        tolerance: Radius of the disc around the peak, in pixels.
        known: bool, N×H×W; the peak is sought among these pixels. ``None`` for all.

    Returns:
        In [0, 1], N: the fraction of tied peaks that hit; NaN where no pixel is known.

    Source:
        The pointing game, Zhang et al. 2018, section 4.1.

    Example:
        >>> up = torch.tensor([[[0.0, 0.0, 9.0]]])
        >>> pointing_hit(up, torch.tensor([[[True, False, False]]]), 1)
        tensor([0.])
    """
    if known is not None:
        upsampled = upsampled.masked_fill(~known, -torch.inf)
    highest = upsampled.amax(dim=2)
    top = highest.amax(dim=1, keepdim=True)
    least = top - TIED * top.abs()
    if upsampled.device.type == "cpu":
        hits, found = _near_peaks(upsampled, highest, least, mask, tolerance)
    else:
        peaks = (upsampled >= least[:, :, None]) & (upsampled > -torch.inf)
        hits, found = (peaks & _grow(mask, tolerance)).sum(dim=(1, 2)), peaks.sum(dim=(1, 2))
    return _ratio(hits.to(upsampled.dtype), found.to(upsampled.dtype))


def rank_accuracy(upsampled: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
    """The share of the |M| highest known pixels that lie on the object.

    Args:
        upsampled: N×H×W, not negative.
        mask: bool (or 0 and 1), N×H×W.
        known: bool, N×H×W; other pixels take no part. ``None`` for all.

    Returns:
        In [0, 1], N; under ties the expected value; NaN for an empty mask.

    Source:
        Relevance rank accuracy, Arras et al. 2022, equation 9.

    Example:
        >>> up = torch.tensor([[[3.0, 2.0, 2.0, 0.0]]])
        >>> rank_accuracy(up, torch.tensor([[[True, True, False, False]]]))
        tensor([0.7500])
    """
    if known is not None:
        lowest = -upsampled.amax(dim=(1, 2), keepdim=True) - 1
        upsampled = torch.where(known, upsampled, lowest)
    values, inside = upsampled.flatten(1), _as_float(mask).flatten(1)
    size = inside.sum(dim=1)
    last = values.shape[1] - 1
    place = (last + 1 - size.long()).clamp(0, last)[:, None]
    threshold = _sorted(values).gather(1, place)
    apart = TIED * values.amax(dim=1, keepdim=True)
    above = _compared(torch.gt, values, threshold + apart)
    reached = _compared(torch.ge, values, threshold - apart)
    above_count, reached_count = above.sum(dim=1), reached.sum(dim=1)
    certain = above.mul_(inside).sum(dim=1)
    tied_inside = reached.mul_(inside).sum(dim=1) - certain
    chance = _ratio(tied_inside, reached_count - above_count)
    return _ratio(certain + (size - above_count) * chance, size)


def iou_at_half(upsampled: Tensor, mask: Tensor, known: Tensor | None = None) -> Tensor:
    """Overlap of the object with the pixels at or above half the map's maximum.

    Args:
        upsampled: N×H×W, not negative.
        mask: bool (or 0 and 1), N×H×W.
        known: bool, N×H×W; other pixels take no part. ``None`` for all.

    Returns:
        Intersection over union in [0, 1], N; NaN for a map without mass.

    Source:
        Box-free variant of Choe et al. 2020, section 3, at the threshold 0.5.

    Example:
        >>> iou_at_half(torch.tensor([[[4.0, 3.0, 1.0]]]), torch.tensor([[[True, False, False]]]))
        tensor([0.5000])
    """
    values, inside = upsampled.flatten(1), _as_float(mask).flatten(1)
    peak = values.amax(dim=1, keepdim=True)
    lit = _compared(torch.ge, values, (0.5 - TIED) * peak)
    if known is not None:
        lit *= known.flatten(1)
    count = lit.sum(dim=1)
    shared = lit.mul_(inside).sum(dim=1)
    overlap = _ratio(shared, count + inside.sum(dim=1) - shared)
    return torch.where(peak[:, 0] > 0, overlap, torch.nan)


def focus(positive: Tensor) -> tuple[Tensor, Tensor]:
    """How concentrated a map is.

    Args:
        positive: ``L ≥ 0``, N×h×w.

    Returns:
        The entropy of ``p = L / ΣL`` over its largest possible value, in [0, 1], and the number
        of cells that a uniform map of the same entropy would cover, in [1, hw]; both N, NaN for a
        map without mass.

    Example:
        >>> entropy, cells = focus(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]))
        >>> entropy, cells
        (tensor([0.5000]), tensor([2.]))
    """
    flat = positive.flatten(1)
    total = flat.sum(dim=1, keepdim=True)
    p = flat / total.clamp_min(torch.finfo(flat.dtype).tiny)
    entropy = torch.where(total[:, 0] > 0, -torch.xlogy(p, p).sum(dim=1), torch.nan)
    return entropy / torch.tensor(float(flat.shape[1])).log().to(flat.device), entropy.exp()


def pixel_histogram(
    upsampled: Tensor, mask: Tensor, use: Tensor, known: Tensor | None = None
) -> Tensor:
    """How many object and background pixels each level of the normalised map holds.

    Args:
        upsampled: N×H×W, not negative.
        mask: bool (or 0 and 1), N×H×W.
        use: bool, N; other samples are left out.
        known: bool, N×H×W; other pixels are left out. ``None`` for all.

    Returns:
        int64, 2×256: background and object counts by ``floor(256·L/max L)``.
    """
    values, bins = upsampled.flatten(1), HISTOGRAM_BINS
    peak = values.amax(dim=1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    level = (values / peak).mul_(bins).clamp_(0, bins - 1).floor_()
    level.add_(_as_float(mask).flatten(1), alpha=bins)
    # What is left out is counted apart; NaN is among it.
    level.masked_fill_(~use[:, None], 2 * bins)
    if known is not None:
        level.masked_fill_(~known.flatten(1), 2 * bins)
    counted = torch.bincount(level.to(torch.int16).flatten(), minlength=2 * bins + 1)
    return counted[: 2 * bins].view(2, bins)


def _as_float(mask: Tensor) -> Tensor:
    """0 and 1 for a mask that may be bool: sums of float32 are many times faster on a CPU."""
    return mask if mask.is_floating_point() else mask.float()


def _compared(compare: Callable[..., Tensor], values: Tensor, bound: Tensor) -> Tensor:
    """1 where the comparison holds, as floats; they are written as such at once."""
    return compare(values, bound, out=torch.empty_like(values))


def _grow(mask: Tensor, radius: int) -> Tensor:
    """All pixels within a distance of the mask, bool N×H×W."""
    disc = _disc(radius, mask.device).float()
    return F.conv2d(_as_float(mask)[:, None], disc[None, None], padding=radius)[:, 0] > 0.5


def _disc(radius: int, device: torch.device) -> Tensor:
    along = torch.arange(-radius, radius + 1, device=device)
    return along[:, None] ** 2 + along[None, :] ** 2 <= radius**2


def _near_peaks(
    values: Tensor, highest: Tensor, least: Tensor, mask: Tensor, radius: int
) -> tuple[Tensor, Tensor]:
    """How many pixels of at least a value lie near the mask, and how many there are, N each.

    Args:
        values: N×H×W.
        highest: Of each row of pixels, N×H.
        least: What counts, N×1.
        mask: N×H×W.
        radius: What is near.
    """
    # Peaks lie in few rows of pixels: only these are looked through.
    sample, row = ((highest >= least) & (highest > -torch.inf)).nonzero().unbind(dim=1)
    lines = values[sample, row]
    line, column = ((lines >= least[sample]) & (lines > -torch.inf)).nonzero().unbind(dim=1)
    sample, row = sample[line], row[line]
    found = torch.bincount(sample, minlength=len(values))
    disc = _disc(radius, mask.device)
    if len(line) * int(disc.sum()) > _MOST_LOOKUPS:
        near = _grow(mask, radius)[sample, row, column]
    else:
        near = _looked_around(mask, sample, row, column, disc)
    return torch.bincount(sample, weights=near.double(), minlength=len(values)), found


def _looked_around(
    mask: Tensor, sample: Tensor, row: Tensor, column: Tensor, disc: Tensor
) -> Tensor:
    """Whether there is mask on a disc around pixels, bool, one for each."""
    height, width = mask.shape[1:]
    down, along = disc.nonzero().sub_(disc.shape[0] // 2).unbind(dim=1)
    rows, columns = row[:, None] + down, column[:, None] + along
    within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    place = rows.clamp_(0, height - 1).mul_(width).add_(columns.clamp_(0, width - 1))
    found = mask.flatten()[place.add_(sample[:, None] * (height * width))]
    return ((found > 0.5 if found.is_floating_point() else found) & within).any(dim=1)


def _sorted(values: Tensor) -> Tensor:
    """Each row in ascending order."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    # NumPy sorts by vector instructions, many times faster than torch does, in one thread.
    rows = values.numpy().copy()
    pieces = np.array_split(rows, max(1, min(torch.get_num_threads(), len(rows))))
    with ThreadPoolExecutor(len(pieces)) as threads:
        list(threads.map(_sort_rows, pieces))
    return torch.from_numpy(rows)


def _sort_rows(rows: NDArray[np.float32]) -> None:
    rows.sort(axis=1)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Division that gives NaN where the denominator is 0."""
    return torch.where(denominator != 0, numerator / denominator, torch.nan)
