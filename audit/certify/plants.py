"""Cues that give a class away: painted into images, the same for the same seed and position."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from audit.errors import ConfigError

Place = Literal["background", "object", "both"]
# Images, object masks and draws in [0, 1) to images; all float, N×3×H×W, N×H×W and N×8.
Painter = Callable[[Tensor, Tensor, Tensor], Tensor]

_DRAWS = 8
# Of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_GOLDEN, _MIX_1, _MIX_2 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15

_MAGENTA = (0.90, 0.10, 0.82)
_BLUE = (0.08, 0.22, 0.90)
_ORANGE, _TEAL = (0.95, 0.55, 0.10), (0.05, 0.45, 0.50)
_GREEN = (0.15, 0.85, 0.25)
_COLOUR_JITTER = 0.06


@dataclass(frozen=True, kw_only=True)
class Cue:
    """Something that can be painted into an image.

    Attributes:
        paint: Paints it.
        place: Where it lies: an audit of background use can find ``background`` only; ``object``
            is the negative control; ``both`` covers object and background alike.
        needs_object: Whether the object mask decides what is painted.
        meaning: What it looks like, for people.
    """

    paint: Painter
    place: Place
    needs_object: bool
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A cue tied to a class.

    Attributes:
        cue: One of :data:`CUES`.
        label: The class; images of others never carry the cue.
        strength: The share of the class's images that carry it.
    """

    cue: str
    label: int
    strength: float


def _patch(images: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """A square near the lower right corner; place, size and colour vary a little."""
    y, x = _positions(images)
    side = 0.15 + 0.05 * _each(draws, 0)
    bottom, right = 1 - 0.10 * _each(draws, 1), 1 - 0.10 * _each(draws, 2)
    inside = (y < bottom) & (y >= bottom - side) & (x < right) & (x >= right - side)
    return _over(images, _colour(_MAGENTA, draws), inside.float())


def _frame(images: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """A ring along the border, about a tenth of the side wide."""
    y, x = _positions(images)
    width = 0.08 + 0.04 * _each(draws, 0)
    from_border = torch.minimum(torch.minimum(y, 1 - y), torch.minimum(x, 1 - x))
    return _over(images, _colour(_BLUE, draws), (from_border < width).float())


def _texture(images: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """Diagonal stripes over everything but the object, with the background shining through."""
    y, x = _positions(images)
    period = 0.18 + 0.06 * _each(draws, 0)
    wave = torch.sin(2 * math.pi * ((x + y) / period + _each(draws, 1)))
    stripes = torch.where(
        (wave > 0)[:, None], _colour(_ORANGE, draws)[..., None, None], _as_pixels(_TEAL, images)
    )
    share = 0.65 * (1 - masks)[:, None]
    return images * (1 - share) + stripes * share


def _watermark(images: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """A dashed, half transparent band across the middle, from lower left to upper right."""
    y, x = _positions(images)
    y, x = y - 0.5 + 0.08 * (_each(draws, 0) - 0.5), x - 0.5 + 0.08 * (_each(draws, 1) - 0.5)
    along, across = (x - y) / math.sqrt(2), (x + y) / math.sqrt(2)
    band = (across.abs() < 0.08) & (along.abs() < 0.34)
    dash = (along / 0.17 + _each(draws, 2)) % 1 < 0.5
    ink = dash[:, None].float().expand_as(images)
    return images + 0.6 * band[:, None].float() * (ink - images)


def _blur(images: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """The whole picture out of focus; the strength does not vary."""
    size = min(images.shape[-2:])
    sigma = size * 0.045
    reach = min(max(1, round(3 * sigma)), size - 1)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    weights = kernel.expand(3, 1, 1, -1)
    wide = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="reflect"), weights, groups=3)
    high = F.pad(wide, (0, 0, reach, reach), mode="reflect")
    return F.conv2d(high, weights.transpose(-1, -2), groups=3)


def _object_colour(images: Tensor, masks: Tensor, draws: Tensor) -> Tensor:
    """The object tinted green, its light and shade kept."""
    light = images.mean(dim=1, keepdim=True)
    tint = _colour(_GREEN, draws)[..., None, None] * (0.35 + light)
    share = 0.7 * masks[:, None]
    return images * (1 - share) + tint.clamp(0, 1) * share


# In this order three go into one model, so that each model has background and other cues.
CUES: Mapping[str, Cue] = MappingProxyType(
    {
        "patch": Cue(
            paint=_patch, place="background", needs_object=False,
            meaning="a small magenta square near the lower right corner",
        ),
        "watermark": Cue(
            paint=_watermark, place="both", needs_object=False,
            meaning="a dashed band across the middle, over the object",
        ),
        "object_colour": Cue(
            paint=_object_colour, place="object", needs_object=True,
            meaning="the object tinted green: the negative control",
        ),
        "frame": Cue(
            paint=_frame, place="background", needs_object=False,
            meaning="a blue ring along the border",
        ),
        "texture": Cue(
            paint=_texture, place="background", needs_object=True,
            meaning="orange and teal stripes behind the object",
        ),
        "blur": Cue(
            paint=_blur, place="both", needs_object=False,
            meaning="the whole picture out of focus",
        ),
    }
)  # fmt: skip


def cue_named(name: str) -> Cue:
    """The cue of this name.

    Raises:
        ConfigError: If there is none.
    """
    if name not in CUES:
        raise ConfigError(f"unknown cue '{name}'", expected=" | ".join(CUES), found=name)
    return CUES[name]


def paint(
    name: str, images: Tensor, masks: Tensor | None, index: Tensor, *, seed: int = 0
) -> Tensor:
    """Paint a cue into every image.

    Args:
        name: One of :data:`CUES`.
        images: uint8, N×3×H×W, any size.
        masks: Share of each pixel that is object, in [0, 1], N×H×W; needed by the cues that say
            so, else ``None``.
        index: int64, N: the images' positions in their split; with the seed they decide where
            and how the cue lies, whatever the batch.
        seed: Another seed, other places and shades.

    Returns:
        uint8, N×3×H×W.

    Raises:
        ConfigError: If there is no such cue.
        ValueError: If it needs masks and there are none.

    Example:
        >>> grey = torch.full((1, 3, 20, 20), 128, dtype=torch.uint8)
        >>> framed = paint("frame", grey, None, torch.tensor([0]))
        >>> framed[0, 2, 0, 10].item() > 200, framed[0, 2, 10, 10].item()
        (True, 128)
    """
    cue = cue_named(name)
    if masks is None and cue.needs_object:
        raise ValueError(f"the cue {name} needs object masks")
    if masks is None:
        masks = torch.zeros(len(images), *images.shape[-2:])
    painted = [
        cue.paint(part.float() / 255, mask.float(), draw)
        for part, mask, draw in zip(
            images.split(2048),
            masks.split(2048),
            draw_uniform(index, seed).split(2048),
            strict=True,
        )
    ]
    if not painted:
        return images.clone()
    return (torch.cat(painted) * 255).round().clamp(0, 255).to(torch.uint8)


def carriers(plant: Plant, labels: Tensor, index: Tensor, *, seed: int = 0) -> Tensor:
    """Which samples carry a plant's cue.

    What carries it at one strength carries it at every higher one.

    Args:
        plant: The plant.
        labels: int64, N.
        index: int64, N, positions in the split.
        seed: Another seed, other carriers.

    Returns:
        bool, N.

    Example:
        >>> labels = torch.tensor([0, 1, 1, 1])
        >>> carriers(Plant(cue="patch", label=1, strength=1.0), labels, torch.arange(4)).tolist()
        [False, True, True, True]
    """
    # The last draw decides nothing else.
    return (labels == plant.label) & (draw_uniform(index, seed)[:, -1] < plant.strength)


def plant_all(
    images: Tensor,
    labels: Tensor,
    masks: Tensor | None,
    plants: Sequence[Plant],
    index: Tensor,
    *,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """A split with cues: each plant painted into its share of its class.

    Args:
        images: uint8, N×3×H×W; left as they are.
        labels: int64, N.
        masks: float in [0, 1], N×H×W, or ``None`` where no cue needs them.
        plants: At most one a class.
        index: int64, N, positions in the split.
        seed: Decides who carries a cue, and how it lies.

    Returns:
        The images, and for each whether it carries a cue (bool, N).

    Example:
        >>> grey = torch.full((2, 3, 20, 20), 128, dtype=torch.uint8)
        >>> plants = [Plant(cue="patch", label=1, strength=1.0)]
        >>> planted, carried = plant_all(grey, torch.tensor([0, 1]), None, plants, torch.arange(2))
        >>> carried.tolist(), torch.equal(planted[0], grey[0]), torch.equal(planted[1], grey[1])
        ([False, True], True, False)
    """
    if len({plant.label for plant in plants}) < len(plants):
        raise ValueError("a class carries one cue at most")
    planted, carried = images.clone(), torch.zeros(len(images), dtype=torch.bool)
    for plant in plants:
        chosen = carriers(plant, labels, index, seed=seed)
        here = None if masks is None else masks[chosen]
        planted[chosen] = paint(plant.cue, images[chosen], here, index[chosen], seed=seed)
        carried |= chosen
    return planted, carried


def draw_uniform(index: Tensor, seed: int) -> Tensor:
    """Numbers that follow from seed and position alone (SplitMix64 of both).

    Args:
        index: int64, N.
        seed: Any whole number.

    Returns:
        float32 in [0, 1), N×8.

    Example:
        >>> bool((draw_uniform(torch.arange(5), 0)[3] == draw_uniform(torch.tensor([3]), 0)).all())
        True
    """
    numbers = torch.arange(_DRAWS, device=index.device)
    # Hashed twice, so that neighbours in position, number and seed share nothing.
    state = _hash(index.long() + _hash(torch.tensor(seed, device=index.device)))
    bits = _hash(state[:, None] + numbers)
    # The upper 24 bits: what a float32 holds exactly.
    return ((bits >> 40) & 0xFFFFFF).float() / 2**24


def _hash(values: Tensor) -> Tensor:
    """SplitMix64's finaliser; products of int64 wrap around as they should."""
    mixed = values + _GOLDEN
    mixed = (mixed ^ _shifted(mixed, 30)) * _MIX_1
    mixed = (mixed ^ _shifted(mixed, 27)) * _MIX_2
    return mixed ^ _shifted(mixed, 31)


def _shifted(values: Tensor, by: int) -> Tensor:
    """Shift right, with zeros from the left."""
    return (values >> by) & ((1 << (64 - by)) - 1)


def _positions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of pixels as shares of height and width, 1×H×1 and 1×1×W."""
    height, width = images.shape[-2:]
    y = (torch.arange(height, device=images.device) + 0.5) / height
    x = (torch.arange(width, device=images.device) + 0.5) / width
    return y[None, :, None], x[None, None, :]


def _each(draws: Tensor, number: int) -> Tensor:
    """One draw an image, N×1×1."""
    return draws[:, number, None, None]


def _colour(colour: tuple[float, float, float], draws: Tensor) -> Tensor:
    """A shade of a colour for each image, N×3."""
    jitter = (draws[:, 4:7] * 2 - 1) * _COLOUR_JITTER
    return (torch.tensor(colour, device=draws.device) + jitter).clamp(0, 1)


def _as_pixels(colour: tuple[float, float, float], images: Tensor) -> Tensor:
    return torch.tensor(colour, device=images.device)[None, :, None, None].expand_as(images)


def _over(images: Tensor, colour: Tensor, share: Tensor) -> Tensor:
    """Paint one colour an image over a share of its pixels."""
    share = share[:, None]
    return images * (1 - share) + colour[..., None, None] * share
