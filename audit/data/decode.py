"""Image bytes to tensors: torchvision's decoders, Pillow for the formats they do not know."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

_PNG = b"\x89PNG\r\n\x1a\n"
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
    # libjpeg only warns about a missing end and returns grey for the lost part.
    if data.startswith(_JPEG) and _JPEG_END not in data[-1024:]:
        raise UnreadableImage("the JPEG is truncated")
    if data.startswith((_PNG, _JPEG)):
        try:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            image = decode_image(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
            # 16-bit PNGs come back as uint16.
            return image if image.dtype == torch.uint8 else (image.int() >> 8).to(torch.uint8)
        except RuntimeError as error:
            raise UnreadableImage(str(error).splitlines()[0]) from error
    return _to_tensor(_open_upright(data).convert("RGB"))


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
    values = np.asarray(image if image.mode.startswith("I") else image.convert("L"))
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


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
