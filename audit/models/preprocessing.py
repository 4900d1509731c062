"""What is done to an image before a network sees it, and who says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from audit.data.geometry import Geometry, Interpolation
from audit.errors import ModelError

Triple = tuple[float, float, float]
Preset = Literal["imagenet"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Size, crop and normalisation.

    Attributes:
        geometry: Resize and crop; ``None`` takes the images as the dataset has them.
        mean: Of the normalisation, for values in [0, 1]; ``None`` where nobody says.
        std: Likewise.
        origin: Who says so, for people.
    """

    geometry: Geometry | None = None
    mean: Triple | None = None
    std: Triple | None = None
    origin: str = "unknown"

    def describe(self) -> str:
        """One line for people."""
        frame = "size as in the dataset"
        if self.geometry is not None:
            g = self.geometry
            resize = g.resize if isinstance(g.resize, int) else "×".join(map(str, g.resize))
            how = "squashed to" if g.squash else "resized to"
            frame = f"{how} {resize} ({g.interpolation}), cropped to {g.size[0]}×{g.size[1]}"
        return f"{frame}; mean {_numbers(self.mean)}, std {_numbers(self.std)} ({self.origin})"

    def facts(self) -> dict[str, Any]:
        """The same for the manifest."""
        g = self.geometry
        frame = None
        if g is not None:
            frame = {
                "size": list(g.size),
                "resize": g.resize if isinstance(g.resize, int) else list(g.resize),
                "interpolation": g.interpolation,
                "squash": g.squash,
            }
        mean, std = (None if v is None else list(v) for v in (self.mean, self.std))
        return {"geometry": frame, "mean": mean, "std": std, "origin": self.origin}


IMAGENET = Preprocessing(
    geometry=Geometry(size=(224, 224), resize=256),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    origin="--preprocessing imagenet",
)


@dataclass(frozen=True, kw_only=True)
class PreprocessingFlags:
    """What the user says; each ``None`` leaves the model's own word.

    Attributes:
        preset: A named set of all values; the others override it.
        image_size: H and W of what the network sees.
        resize: The short side before the crop.
        interpolation: Of the resize.
        mean: Of the normalisation.
        std: Likewise.
    """

    preset: Preset | None = None
    image_size: tuple[int, int] | None = None
    resize: int | None = None
    interpolation: Interpolation | None = None
    mean: Triple | None = None
    std: Triple | None = None

    def applied_to(self, own: Preprocessing) -> Preprocessing:
        """The model's preprocessing as overridden by the flags.

        Args:
            own: The model's.

        Returns:
            A copy; its origin names the flags that changed it.
        """
        base = IMAGENET if self.preset == "imagenet" else own
        given = [
            f"--{name.replace('_', '-')}"
            for name in ("image_size", "resize", "interpolation", "mean", "std")
            if getattr(self, name) is not None
        ]
        if not given:
            return base
        known = base.geometry is not None or base.mean is not None
        return replace(
            base,
            geometry=self._geometry(base.geometry),
            mean=self.mean or base.mean,
            std=self.std or base.std,
            origin=(f"{base.origin}, " if known else "") + ", ".join(given),
        )

    def _geometry(self, own: Geometry | None) -> Geometry | None:
        if self.image_size is None and self.resize is None and self.interpolation is None:
            return own
        if self.image_size is None and own is None:
            raise ModelError(
                "the size of the network's images is not known",
                expected="--image-size N or HxW beside --resize and --interpolation",
            )
        size = self.image_size or (own.size if own is not None else (0, 0))
        resize: int | tuple[int, int]
        if self.resize is not None:
            resize = self.resize if size[0] == size[1] else _box(self.resize, size)
        elif self.image_size is not None or own is None:
            resize = size[0] if size[0] == size[1] else size
        else:
            resize = own.resize
        interpolation = self.interpolation or (own.interpolation if own else "bilinear")
        squash = own is not None and own.squash and self.image_size is None and self.resize is None
        return Geometry(size=size, resize=resize, interpolation=interpolation, squash=squash)


def _box(short: int, size: tuple[int, int]) -> tuple[int, int]:
    scale = short / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def from_header(about: Mapping[str, Any], origin: str) -> Preprocessing:
    """What a checkpoint or a function says of its images.

    Args:
        about: ``image_size``, ``resize``, ``interpolation``, ``mean``, ``std``; what is absent
            stays open.
        origin: Who says so.

    Raises:
        ModelError: If a value is not valid.

    Example:
        >>> from_header({"image_size": 32, "mean": [0, 0, 0]}, "a test").geometry.size
        (32, 32)
    """
    return Preprocessing(
        geometry=_geometry_said(about, origin),
        mean=_triple(about.get("mean"), "mean"),
        std=_triple(about.get("std"), "std"),
        origin=origin,
    )


def _geometry_said(about: Mapping[str, Any], origin: str) -> Geometry | None:
    if about.get("image_size") is None:
        alone = [name for name in ("resize", "interpolation") if about.get(name) is not None]
        if alone:
            raise ModelError(
                f"{origin} names a resize but no image size",
                expected="image_size beside " + " and ".join(alone),
            )
        return None
    sides = _size(about["image_size"], origin)
    resize = _plain(about.get("resize"))
    if resize is None:
        resize = sides[0] if sides[0] == sides[1] else list(sides)
    interpolation: Any = about.get("interpolation") or "bilinear"
    box = resize if isinstance(resize, list) else [resize, resize]
    whole = len(box) == 2 and all(isinstance(n, int) and n > 0 for n in box)
    if not whole or interpolation not in get_args(Interpolation):
        raise ModelError(
            f"{origin} names a resize that is not valid",
            expected="resize: pixels of the short side; interpolation: "
            + " | ".join(get_args(Interpolation)),
            found=f"{resize!r}, {interpolation!r}",
        )
    return Geometry(
        size=sides,
        resize=(box[0], box[1]) if isinstance(resize, list) else resize,
        interpolation=interpolation,
    )


def from_timm(config: Mapping[str, Any], origin: str) -> Preprocessing:
    """What timm's ``pretrained_cfg`` says.

    Args:
        config: With ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean``,
            ``std``.
        origin: Who says so.

    Example:
        >>> config = {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"}
        >>> from_timm(config, "a test").geometry.resize
        256
    """
    size = config.get("input_size") or (3, 224, 224)
    sides = (int(size[-2]), int(size[-1]))
    share = float(config.get("crop_pct") or 0.875)
    box = (math.floor(sides[0] / share), math.floor(sides[1] / share))
    mode = config.get("crop_mode") or "center"
    square = sides[0] == sides[1] and mode != "squash"
    interpolation: Any = config.get("interpolation") or "bicubic"
    replaced = []
    if mode not in ("center", "squash"):
        replaced.append(f"crop at the centre instead of {mode}")
    if interpolation not in get_args(Interpolation):
        replaced.append(f"bicubic instead of {interpolation}")
        interpolation = "bicubic"
    return Preprocessing(
        geometry=Geometry(
            size=sides,
            resize=box[0] if square else box,
            interpolation=interpolation,
            squash=mode == "squash",
        ),
        mean=_triple(config.get("mean"), "mean"),
        std=_triple(config.get("std"), "std"),
        origin=", but ".join([origin, *replaced]),
    )


def from_torchvision(transforms: Any, origin: str) -> Preprocessing:
    """What the transforms of torchvision's weights say.

    Args:
        transforms: An ``ImageClassification`` preset.
        origin: Who says so.
    """
    crop, resize = int(transforms.crop_size[0]), int(transforms.resize_size[0])
    interpolation: Any = transforms.interpolation.value
    return Preprocessing(
        geometry=Geometry(size=(crop, crop), resize=resize, interpolation=interpolation),
        mean=_triple(transforms.mean, "mean"),
        std=_triple(transforms.std, "std"),
        origin=origin,
    )


def _size(value: object, origin: str) -> tuple[int, int]:
    plain = _plain(value)
    sides = [plain, plain] if isinstance(plain, int) else plain
    if (
        not isinstance(sides, list)
        or len(sides) != 2
        or not all(isinstance(n, int) and n > 0 for n in sides)
    ):
        raise ModelError(
            f"{origin} names an image size that is not valid",
            expected="pixels, or height and width",
            found=repr(value),
        )
    return int(sides[0]), int(sides[1])


def _triple(value: object, key: str) -> Triple | None:
    if value is None:
        return None
    plain = _plain(value)
    numbers = plain if isinstance(plain, list) else []
    least = 0.0 if key == "std" else -math.inf
    if len(numbers) != 3 or not all(
        isinstance(n, (int, float)) and math.isfinite(n) and n > least for n in numbers
    ):
        raise ModelError(
            f"the {key} of the normalisation is not valid",
            expected="three finite numbers" + (" above 0" if key == "std" else ""),
            found=repr(value),
        )
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _plain(value: Any) -> Any:
    """Arrays and tensors as lists, and their numbers as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _numbers(values: Triple | None) -> str:
    return "unknown" if values is None else " ".join(f"{v:.4g}" for v in values)
