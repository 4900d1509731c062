"""Image bytes to tensors: torchvision's JPEG decoder, Pillow for everything else."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"


class UnreadableImage(ValueError):
    """The bytes are not a whole image."""


def decode_rgb(data: bytes) -> Tensor:
    """Decode one image to uint8 3×H×W, upright by its EXIF orientation.

    Args:
        data: The file's bytes, in any format that torchvision or Pillow reads.

    Returns:
        uint8 tensor, 3×H×W, RGB.

    Raises:
        UnreadableImage: If the bytes are empty, truncated or not an image.
    """
    # libjpeg only warns about a missing end and returns grey for the lost part; Pillow refuses.
    if data.startswith(_JPEG) and _JPEG_END in data[-1024:]:
        try:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_image(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            raise UnreadableImage(str(error).splitlines()[0]) from error
    # Not torchvision for PNG: a flipped bit in the file can end the process there.
    image = _open_upright(data)
    if image.mode == "F":
        raise UnreadableImage("an image of floating-point numbers has no known range")
    if image.mode.startswith("I"):
        grey = torch.from_numpy(np.asarray(image).astype(np.int64) >> 8).clamp(0, 255)
        return grey.to(torch.uint8).expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def decode_mask(data: bytes) -> Tensor:
    """Decode one object mask to float32 H×W in [0, 1]; 0 is background, the top value object.

    Palette images are read by index, so any entry but the first is object.

    Args:
        data: The bytes of a single-channel or RGB image.

    Returns:
        float32 tensor, H×W.

    Raises:
        UnreadableImage: If the bytes are not a whole image.
    """
    image = _open_upright(data)
    if image.mode == "P":
        return torch.from_numpy((np.asarray(image) > 0).astype(np.float32))
    values = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
    top = float(values.max()) if values.size else 0.0
    return torch.from_numpy(values.astype(np.float32) / top if top > 0 else values * 0.0).float()


def _open_upright(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            image.load()
            return ImageOps.exif_transpose(image)
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise UnreadableImage(str(error)) from error
