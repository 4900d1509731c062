"""Pictures as PNG files, encoded in a fraction of the usual time."""

from __future__ import annotations

import struct

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Each row as its difference to the one above: what suits enlarged pictures and paper. To try all
# filters row by row, as libraries do, takes twice the time for files a few hundredths smaller.
_UP = 2
# Intel's deflate, with zlib's result: a quarter of the time of zlib's own first level, and smaller.
_LEVEL = 2
_EIGHT_BITS, _RGB = 8, 2


def png_of(image: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file; on one machine the same picture gives the same bytes.

    Args:
        image: RGB, H×W×3.

    Returns:
        The file's content.

    Source:
        ISO/IEC 15948, "Portable Network Graphics", clauses 9 and 11.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
        >>> bool((np.asarray(Image.open(io.BytesIO(png_of(picture)))) == picture).all())
        True
    """
    height, width, _ = image.shape
    pixels = image.reshape(height, 3 * width)
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = _UP
    rows[:1, 1:] = pixels[:1]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _RGB, 0, 0, 0)
    packed = isal_zlib.compress(rows.data, _LEVEL)
    return b"".join(
        (_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", packed), _chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    check = isal_zlib.crc32(content, isal_zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
