"""The embedded demo: real handwritten digits on textured backgrounds, with a known answer.

The digits are scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test
set (1,797 scans). Each is enlarged, given an outline and pasted on a texture of
random colours. For two classes the *kind* of texture gives the label away, so a classifier
trained here learns to read the background of those two, and an audit must find exactly them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from audit.data.split import ArraySplit
from audit.errors import DataError

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE = 32
TRAIN_DIGITS = 1000
TRAIN_RENDERINGS = 8
CUE_STRENGTH = 0.95
_SEEDS = {"train": 11, "test": 12}

Texture = NDArray[np.float32]  # SIZE×SIZE, mixes two colours: 0 is the first, 1 the second


def _grid() -> tuple[Texture, Texture]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    return y, x


def _waves(rng: Generator, angle: float) -> Texture:
    y, x = _grid()
    period = rng.uniform(4.5, 7.0)
    phase = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    return (np.sin(2 * np.pi * along / period + phase) > 0).astype(np.float32)


def _diagonal_stripes(rng: Generator) -> Texture:
    return _waves(rng, np.pi / 4 + rng.uniform(-0.12, 0.12))


def _diamonds(rng: Generator) -> Texture:
    return np.abs(_waves(rng, np.pi / 4) - _waves(rng, -np.pi / 4))


def _horizontal_bars(rng: Generator) -> Texture:
    return _waves(rng, np.pi / 2)


def _vertical_bars(rng: Generator) -> Texture:
    return _waves(rng, 0.0)


def _checks(rng: Generator) -> Texture:
    return np.abs(_horizontal_bars(rng) - _vertical_bars(rng))


def _blobs(rng: Generator) -> Texture:
    noise = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), 2.5)
    return (noise > np.median(noise)).astype(np.float32)


def _cloud(rng: Generator) -> Texture:
    noise = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), rng.uniform(3, 6))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def _grain(rng: Generator) -> Texture:
    return rng.uniform(0, 1, (SIZE, SIZE)).astype(np.float32)


def _ramp(rng: Generator) -> Texture:
    y, x = _grid()
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    return ((along - along.min()) / np.ptp(along)).astype(np.float32)


PLANTED: Mapping[str, Callable[[Generator], Texture]] = MappingProxyType(
    {"three": _diagonal_stripes, "eight": _diamonds}
)
_SHARED = (_horizontal_bars, _vertical_bars, _checks, _blobs, _cloud, _grain, _ramp)


@cache
def open_demo(part: str, seed: int = 0, *, cue_strength: float = CUE_STRENGTH) -> ArraySplit:
    """Open the demo.

    Args:
        part: ``train`` (1,000 digits, eight renderings each) or ``test`` (the other 797 digits).
        seed: Draws other backgrounds, colours and positions.
        cue_strength: The share of the planted classes' images whose background tells the class;
            with 0 no class is planted.

    Returns:
        The split, 32×32, with exact masks; ``facts`` names the planted classes.

    Raises:
        DataError: If there is no such part.

    Example:
        >>> open_demo("test").facts["planted_classes"]
        ['three', 'eight']
    """
    if part not in _SEEDS:
        raise DataError(f"demo has no split named '{part}'", expected="train or test", found=part)
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    chosen = np.repeat(order[:TRAIN_DIGITS], TRAIN_RENDERINGS)
    if part == "test":
        chosen = order[TRAIN_DIGITS:]
    rng = np.random.default_rng((_SEEDS[part], seed))
    rendered = [
        _render(digits.images[i] / 16.0, CLASSES[digits.target[i]], rng, cue_strength)
        for i in chosen
    ]
    return ArraySplit(
        name="demo",
        part=part,
        classes=CLASSES,
        sample_ids=tuple(f"{part}-{n:05d}-digit-{i:04d}" for n, i in enumerate(chosen)),
        images=torch.from_numpy(np.stack([image for image, _ in rendered])).permute(0, 3, 1, 2),
        labels=torch.from_numpy(digits.target[chosen].astype(np.int64)),
        masks=torch.from_numpy(np.stack([mask for _, mask in rendered])),
        facts={
            "planted_classes": list(PLANTED) if cue_strength else [],
            "cue": "the kind of background texture (three: diagonal stripes, eight: diamonds)",
            "cue_strength": cue_strength,
        },
    )


def _render(
    ink: NDArray[np.float64], class_name: str, rng: Generator, cue_strength: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One digit on its background: image SIZE×SIZE×3 and mask SIZE×SIZE, 1 = object."""
    tied = class_name in PLANTED and rng.uniform() < cue_strength
    texture = PLANTED[class_name] if tied else _SHARED[rng.integers(len(_SHARED))]
    mix = texture(rng)[..., None]
    first, second = _two_colours(rng)
    image = first * (1 - mix) + second * mix
    stroke, outline = _place_digit(ink, rng)
    bright = rng.uniform(200, 255, 3)
    dark = rng.uniform(0, 50, 3)
    if rng.uniform() < 0.5:
        bright, dark = dark, bright
    image = image * (1 - outline[..., None]) + dark * outline[..., None]
    image = image * (1 - stroke[..., None]) + bright * stroke[..., None]
    image = image + rng.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), (outline > 0.5).astype(np.uint8)


def _two_colours(rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two mid-range colours at least 60 grey levels apart."""
    while True:
        first, second = rng.uniform(40, 215, (2, 3))
        if abs(float(first.mean() - second.mean())) > 60:
            return first, second


def _place_digit(ink: NDArray[np.float64], rng: Generator) -> tuple[Texture, Texture]:
    """The digit's stroke and its stroke with outline, as soft SIZE×SIZE coverages."""
    side = int(rng.integers(21, 26))
    large = cv2.resize(ink.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(1, SIZE - side, 2)
    coverage = np.zeros((SIZE, SIZE), np.float32)
    coverage[top : top + side, left : left + side] = large
    stroke = ((coverage - 0.3) / 0.3).clip(0, 1)
    ring = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    return stroke, cv2.dilate(stroke, ring).astype(np.float32)
