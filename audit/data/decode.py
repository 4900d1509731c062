"""Image bytes to tensors: torchvision's JPEG decoder, Pillow for everything else."""

from __future__ import annotations

import io
import warnings

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_QUARTER_TURNS = (5, 6, 7, 8)


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
    if not data:
        raise UnreadableImage("it is empty")
    # libjpeg only warns about a missing end and returns grey for the lost part; Pillow refuses.
    if data.startswith(JPEG) and _JPEG_END in data[-1024:]:
        try:
            return _decode_jpeg(data)
        except RuntimeError as error:
            raise UnreadableImage(str(error).splitlines()[0]) from error
    # Not torchvision for PNG: a flipped bit in the file can end the process there.
    image = open_upright(data)
    if image.mode == "F":
        raise UnreadableImage("an image of floating-point numbers has no known range")
    if image.mode.startswith("I"):
        grey = torch.from_numpy(np.asarray(image).astype(np.int64) >> 8).clamp(0, 255)
        return grey.to(torch.uint8).expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def _decode_jpeg(data: bytes) -> Tensor:
    # Here, for it takes a second to import, and not every dataset has such files.
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_image(encoded, ImageReadMode.RGB, apply_exif_orientation=True)


def is_turned(data: bytes) -> bool:
    """Whether an EXIF entry turns a readable picture so that its sides change places."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS
    except Exception:  # noqa: BLE001 - a damaged entry raises anything, and turns nothing
        return False


def open_upright(data: bytes) -> Image.Image:
    """Read a whole image with Pillow and turn it as its EXIF entry says.

    Raises:
        UnreadableImage: If the bytes are not a whole image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        # Pillow's own words hold a memory address, which differs from run to run.
        raise UnreadableImage("it is no image of a known format") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise UnreadableImage(str(error)) from error
    except Exception as error:  # damaged entries of a TIFF raise TypeError and others
        raise UnreadableImage(f"Pillow fails with {type(error).__name__}") from error
