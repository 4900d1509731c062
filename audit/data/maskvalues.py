"""What the values of a mask file mean: object, background, or neither."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from audit.data.decode import JPEG, UnreadableImage, open_upright
from audit.data.maskfiles import MaskFiles
from audit.data.places import reason
from audit.data.reading import Reader, read_bytes
from audit.data.split import MASK_MISSING, MASK_UNREADABLE

Values = NDArray[Any]
Size = tuple[int, int]

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_PLAIN_MODES = ("L", "F")
# The first colours and the last of PASCAL VOC's palette, whose entry 255 marks what is neither.
_VOC_COLOURS = {1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 255: (224, 224, 192)}
_VOC_VOID = 255
# Grey levels by which the channels of a grey picture may differ (JPEG's colours are rounded).
_GREY = 8
# Levels this close to the upper end count as it; where there are such, or many levels, those as
# close to the lower end count as that.
_END = 0.06
_MANY_LEVELS = 10
# A level is solid where it fills this share of all 2×2 blocks of one value.
_SOLID = 0.02
_GRADIENT_LEVELS = 64
_GRADIENT_STEP = 1 / 16
# Few levels are shares only on edges of one pixel, and from this share of the range on.
_FEW_LEVELS = 2
_LEAST_OF_FEW = 0.1
_LISTED = 10
# Stated values of a file with losses are at least this far apart: noise is half of it at most.
_LEAST_APART = 32

_STATED = "say which mean object with --mask-object, and which mean neither with --mask-unknown"


class BadMask(ValueError):
    """There is no usable mask.

    Args:
        status: ``mask_missing``, ``mask_unreadable`` or ``mask_mismatch``.
        problem: Why, in words that follow the sample's name.
    """

    def __init__(self, status: str, problem: str) -> None:
        super().__init__(problem)
        self.status = status


class OtherSize(ValueError):
    """A mask was made for a picture of another size.

    Args:
        source: What messages call the mask.
        size: The height and width that it was made for.
    """

    def __init__(self, source: str, size: Sequence[int]) -> None:
        super().__init__(source)
        self.source = source
        self.size = size[0], size[1]


@dataclass(frozen=True)
class Shares:
    """How much of each pixel of a picture is object.

    Attributes:
        object: float32 in [0, 1], H×W.
        unknown: The share that is neither known to be object nor background; ``None`` for 0.
        source: What it was read from, for messages.
    """

    object: Tensor
    unknown: Tensor | None = None
    source: str = "mask"

    @classmethod
    def of(cls, inside: Values, unknown: Values | None = None, source: str = "mask") -> Shares:
        """From arrays of booleans or numbers; object wins where both are true.

        Example:
            >>> shares = Shares.of(np.array([[True, False]]), np.array([[True, True]]))
            >>> shares.object.tolist(), shares.unknown.tolist()
            ([[1.0, 0.0]], [[0.0, 1.0]])
        """
        share = torch.from_numpy(np.array(inside, np.float32, order="C"))
        if unknown is None or not unknown.any():
            return cls(share, None, source)
        neither = torch.from_numpy(np.array(unknown, np.float32, order="C"))
        return cls(share, torch.minimum(neither, 1 - share), source)


@dataclass(frozen=True)
class _Pixels:
    values: Values
    lossy: bool = False
    # Values that the file itself declares to be neither.
    void: tuple[int, ...] = ()
    # Whether it can say no more than yes (1, or 255 as programs show it) and no.
    bits: bool = False


def read_mask(
    place: str, source: str, files: MaskFiles, size: Size, reader: Reader | None = None
) -> Shares:
    """Read and decode a mask file.

    Args:
        place: A path or URI.
        source: What messages call it.
        files: Which values mean what.
        size: The picture's height and width.
        reader: What reads it; ``None`` for the usual limits.

    Returns:
        The shares.

    Raises:
        BadMask: If it is absent, damaged, or does not say what is object.
        OtherSize: If it is not of the picture's size.
    """
    try:
        data = read_bytes(place, reader)
    except FileNotFoundError as error:
        raise BadMask(MASK_MISSING, f"its mask {source} does not exist") from error
    except OSError as error:
        raise BadMask(
            MASK_UNREADABLE, f"its mask {source} cannot be read: {reason(error)}"
        ) from error
    return decode_mask(data, files, source, size)


def decode_mask(
    data: bytes, files: MaskFiles | None = None, source: str = "file", size: Size | None = None
) -> Shares:
    """Decode an object mask of any usual kind.

    Values that ``files`` states decide where there are any; a file that holds something, but none
    of them, is refused. Each pixel of a file with losses (JPEG) counts as the nearest of these, 0
    and 255, and the file is refused where two of these are less than 32 apart. Pictures of one
    bit answer to 255 as well as to 1.

    Else 0 is background and one other value is object; levels between (smooth edges, the noise of
    JPEG) are shares. Palette images are read by index; in PASCAL VOC's palette 255 is unknown.
    Alpha that varies is the mask. Several levels that are not shares are refused: what they mean
    would be a guess.

    Args:
        data: The bytes of an image file.
        files: Which values mean what.
        source: What messages call the file.
        size: The height and width that it must have; ``None`` for any.

    Returns:
        The shares, at the file's own size.

    Raises:
        BadMask: If the file is damaged, or does not say what is object.
        OtherSize: If it is not of ``size``.
    """
    lossy = data.startswith(JPEG) or data[8:16] == b"WEBPVP8 "
    return shares_in_image(_opened(data, source), source, size, files, lossy=lossy)


def shares_in_image(
    image: Image.Image,
    source: str,
    size: Size | None,
    files: MaskFiles | None = None,
    *,
    lossy: bool = False,
) -> Shares:
    """As :func:`decode_mask`, of an image that is decoded already.

    Args:
        image: An upright image of any mode.
        source: What messages call it.
        size: The height and width that it must have; ``None`` for any.
        files: Which values mean what.
        lossy: Whether it was compressed with losses, so that no value is exact.

    Returns:
        The shares.

    Raises:
        BadMask: If it does not say what is object.
        OtherSize: If it is not of ``size``.
    """
    # First, for a file of another size is more likely the wrong one than oddly coloured.
    if size is not None and (image.height, image.width) != size:
        raise OtherSize(source, (image.height, image.width))
    return _shares(_pixels(image, source, lossy=lossy), source, files or MaskFiles())


def shares_in_values(
    values: Values, source: str, size: Size, files: MaskFiles | None = None
) -> Shares:
    """As :func:`decode_mask`, of an array.

    Args:
        values: Booleans or numbers, H×W.
        source: What messages call it.
        size: The height and width that it must have.
        files: Which values mean what.

    Returns:
        The shares.

    Raises:
        BadMask: If it does not say what is object.
        OtherSize: If it is not of ``size``.

    Example:
        >>> shares_in_values(np.array([[0, 7], [7, 0]]), "x", (2, 2)).object.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise BadMask(MASK_UNREADABLE, f"its mask {source} is no array H×W of numbers")
    if values.shape != tuple(size):
        raise OtherSize(source, values.shape)
    bits = values.dtype == bool
    values = values.astype(np.uint8) if bits else values
    return _shares(_Pixels(_finite(values, source), bits=bits), source, files or MaskFiles())


def _shares(pixels: _Pixels, source: str, files: MaskFiles) -> Shares:
    if files.object_values or files.unknown_values:
        return _by_stated(pixels, files, source)
    unknown = np.isin(pixels.values, pixels.void) if pixels.void else None
    values = pixels.values if unknown is None else np.where(unknown, 0, pixels.values)
    levels = _levels(values)
    if len(levels) <= 1:
        return Shares.of(values != 0, unknown, source)
    soft = _soft(values, levels, lossy=pixels.lossy)
    if soft is None:
        raise _undecided(source, levels, zero=bool((values == 0).any()))
    return Shares.of(soft, unknown, source)


def palette_values(data: bytes, source: str) -> NDArray[np.uint8]:
    """The indices of a palette image, or the levels of a grey one.

    Args:
        data: The bytes of an image file.
        source: What messages call the file.

    Returns:
        uint8, H×W.

    Raises:
        BadMask: If the file is damaged or holds colours without a palette.
    """
    image = _opened(data, source)
    if image.mode not in ("P", "L"):
        raise BadMask(
            MASK_UNREADABLE, f"its mask {source} is no palette image but of mode {image.mode}"
        )
    return np.asarray(image)


def _opened(data: bytes, source: str) -> Image.Image:
    try:
        return open_upright(data)
    except UnreadableImage as error:
        raise BadMask(MASK_UNREADABLE, f"its mask {source} cannot be read: {error}") from error


def _pixels(image: Image.Image, source: str, *, lossy: bool) -> _Pixels:
    if image.mode in _ALPHA_MODES:
        alpha = np.asarray(image.getchannel("A"))
        if alpha.min() != alpha.max():
            return _Pixels(alpha, lossy)
        image = image.convert("L" if image.mode in ("LA", "La") else "RGB")
    if image.mode == "P":
        return _Pixels(np.asarray(image), void=_void_of(image))
    if image.mode == "1":
        return _Pixels(np.asarray(image).astype(np.uint8), bits=True)
    if image.mode in _PLAIN_MODES or image.mode.startswith("I"):
        return _Pixels(_finite(np.asarray(image), source), lossy)
    return _from_colours(np.asarray(image.convert("RGB")), source, lossy=lossy)


def _void_of(image: Image.Image) -> tuple[int, ...]:
    palette = image.getpalette("RGB") or []
    voc = all(tuple(palette[3 * k : 3 * k + 3]) == rgb for k, rgb in _VOC_COLOURS.items())
    return (_VOC_VOID,) if voc else ()


def _finite(values: Values, source: str) -> Values:
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all():
        raise BadMask(MASK_UNREADABLE, f"its mask {source} holds values that are not finite")
    return values


def _from_colours(pixels: NDArray[np.uint8], source: str, *, lossy: bool) -> _Pixels:
    """One channel of a grey picture; 0 and 1 of one with black and one other colour."""
    channels = pixels.astype(np.int16)
    if (channels.max(axis=2) - channels.min(axis=2)).max(initial=0) <= _GREY:
        return _Pixels(np.asarray(Image.fromarray(pixels).convert("L")), lossy)
    codes = (pixels.astype(np.uint32) << np.array([16, 8, 0], np.uint32)).sum(axis=2)
    colours = np.unique(codes[codes != 0])
    if len(colours) == 1:
        return _Pixels((codes != 0).astype(np.uint8), bits=True)
    named = ", ".join(f"#{code:06x}" for code in colours[:4].tolist())
    more = ", …" if len(colours) > 4 else ""
    raise BadMask(
        MASK_UNREADABLE,
        f"its mask {source} holds {len(colours)} colours ({named}{more}): which of them mean "
        "object is not said; save it with black for background and one other colour",
    )


def _by_stated(pixels: _Pixels, files: MaskFiles, source: str) -> Shares:
    values, stated = pixels.values, (*files.object_values, *files.unknown_values)
    if pixels.bits and 255 in stated and 1 not in stated:
        values = values * np.uint8(255)
    if pixels.lossy:
        values = _snapped(values, stated, source)
    unknown = np.isin(values, files.unknown_values)
    if files.object_values:
        inside = np.isin(values, files.object_values)
        levels = _levels(values)
        if len(levels) and not inside.any() and not unknown.any():
            named = ", ".join(map(str, files.object_values))
            raise BadMask(
                MASK_UNREADABLE,
                f"none of the values stated with --mask-object ({named}) occurs in its mask "
                f"{source}, which holds {_listed(levels, zero=bool((values == 0).any()))}",
            )
        return Shares.of(inside, unknown, source)
    return Shares.of((values != 0) & ~unknown, unknown, source)


def _snapped(values: Values, stated: Sequence[int], source: str) -> Values:
    """Each value of a file with losses as the nearest of those that it can mean."""
    known = sorted({0, *stated})
    close = [(one, two) for one, two in itertools.pairwise(known) if two - one < _LEAST_APART]
    if close:
        raise BadMask(
            MASK_UNREADABLE,
            f"its mask {source} was compressed with losses, in which the values {close[0][0]} and "
            f"{close[0][1]} cannot be told apart; save it as PNG from what it was made of",
        )
    if 255 - known[-1] >= _LEAST_APART:
        known.append(255)
    ends = [(one + two) / 2 for one, two in itertools.pairwise(known)]
    return np.array(known)[np.digitize(values, ends)]


def _levels(values: Values) -> Values:
    """The values that occur, without 0, ascending."""
    if values.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(values.ravel(), minlength=256))
    else:
        found = np.unique(values)
    return found[found != 0]


def _soft(values: Values, levels: Values, *, lossy: bool) -> Values | None:
    """The levels as shares of pixels; ``None`` where they may as well be names of things."""
    top = levels[-1]
    if levels[0] < 0:
        return None
    if values.dtype.kind == "f":
        if top <= 1:
            return values
        if not (levels == np.round(levels)).all():
            return None
    full = 255 if top <= 255 else 65535
    # The range of a share's file is its type's; one that ends in its lower half is unknown.
    if not full / 2 < top <= full:
        return None
    share = values.astype(np.float32) / full
    if lossy:
        return np.clip((share - _END) / (1 - 2 * _END), 0, 1)
    return share if _between_ends(values, levels) or _is_gradient(values, levels) else None


def _between_ends(values: Values, levels: Values) -> bool:
    """Whether areas are all background or all object, with other levels on their edges only."""
    top = levels[-1]
    inner = levels[levels < (1 - _END) * top]
    # Noise is told by what it does at the upper end, where no names of things lie so close.
    if len(levels) >= _MANY_LEVELS or len(levels) - len(inner) > 1:
        inner = inner[inner > _END * top]
    few = len(inner) <= _FEW_LEVELS
    if few and (inner < _LEAST_OF_FEW * top).any():
        return False
    block = values[1:, 1:]
    flat = (block == values[:-1, 1:]) & (block == values[1:, :-1]) & (block == values[:-1, :-1])
    least = 0 if few else _SOLID * (flat & (block != 0)).sum()
    _, counts = np.unique(block[flat & np.isin(block, inner)], return_counts=True)
    return bool(counts.max(initial=0) <= least)


def _is_gradient(values: Values, levels: Values) -> bool:
    """Whether many levels run into each other, as in a blurred or predicted mask."""
    if len(levels) < _GRADIENT_LEVELS:
        return False
    number = values.astype(np.float32)
    steps = [
        np.abs(one - other)[(one != other) & (one > 0) & (other > 0)]
        for one, other in ((number[1:], number[:-1]), (number[:, 1:], number[:, :-1]))
    ]
    between = np.concatenate(steps)
    return bool(len(between) and between.mean() <= _GRADIENT_STEP * float(levels[-1]))


def _undecided(source: str, levels: Values, *, zero: bool) -> BadMask:
    named = _listed(levels, zero=zero)
    return BadMask(MASK_UNREADABLE, f"its mask {source} holds the values {named}: {_STATED}")


def _listed(levels: Values, *, zero: bool) -> str:
    values = [0, *levels.tolist()] if zero else levels.tolist()
    named = ", ".join(f"{value:g}" for value in values[:_LISTED])
    return named + (f", … ({len(values)} in all)" if len(values) > _LISTED else "")
