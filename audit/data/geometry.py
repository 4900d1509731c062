"""From a picture of any size to what the model sees: one resize, one crop at the centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from audit.errors import DataError

Interpolation = Literal["nearest", "bilinear", "bicubic"]

_KERNELS = {
    # The pixel under the new pixel's centre, as Pillow has it; torchvision's NEAREST takes the one
    # under its corner, so that pictures would lie half a pixel beside their `box`.
    "nearest": "nearest-exact",
    "bilinear": "bilinear",
    "bicubic": "bicubic",
}
# Mask and image keep one geometry because all kernels are centred alike. A mask says how much of
# a pixel is object: bilinear averages coverage, but bicubic has negative weights and would ring.
_MASK_KERNELS = _KERNELS | {"bicubic": "bilinear"}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How an image becomes what the model sees: resized, then cropped at the centre.

    Args:
        size: Height and width of the result. Where the resized image is smaller, zeros
            surround it, and the mask says background there.
        resize: An ``int`` is the length of the short side, as in torchvision's ``Resize(int)``;
            a pair is the height and width of a box that the resized image just covers.
        interpolation: The kernel for images, antialiased but for ``nearest``. Masks take it too,
            but for ``bicubic``: they take ``bilinear`` then.
        squash: Resize to exactly ``resize`` (an ``int``: to that square) and let go of the
            aspect ratio, as timm's crop mode ``squash`` does.

    Raises:
        DataError: If a side is shorter than two pixels, or there is no such interpolation.

    Example:
        >>> preset = Geometry(size=(224, 224), resize=256)
        >>> image, mask = preset(torch.zeros(3, 512, 1024, dtype=torch.uint8), None)
        >>> tuple(image.shape)
        (3, 224, 224)
        >>> preset.box(512, 1024)
        (32.0, 288.0, 480.0, 736.0)
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    interpolation: Interpolation = "bilinear"
    squash: bool = False

    def __post_init__(self) -> None:
        # Torch cannot resize bytes to a single pixel, and no map has a place in one.
        if min(*self.size, *self._target) < 2:
            raise DataError(
                "images cannot be brought to a size without pixels to compare",
                expected="sides of at least two pixels",
                found=f"size {self.size}, resize {self.resize}",
                remedy="name the size that the model was trained on, for example 224",
            )
        if self.interpolation not in _KERNELS:
            raise DataError(
                f"unknown interpolation '{self.interpolation}'",
                expected=" | ".join(_KERNELS),
                found=self.interpolation,
                remedy="take the one that the model was trained with; bilinear where unknown",
            )

    @classmethod
    def square(cls, side: int) -> Geometry:
        """Resize the short side to ``side`` and crop the square at the centre.

        Args:
            side: Height and width of the result.

        Returns:
            The geometry.

        Example:
            >>> Geometry.square(32).box(64, 96)
            (0.0, 16.0, 64.0, 80.0)
        """
        return cls(size=(side, side), resize=side)

    def __call__(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Resize and crop one sample, or a batch of equal size.

        Args:
            image: uint8, (N×)3×H×W.
            mask: float32 in [0, 1], (N×)H×W, or ``None``.

        Returns:
            Image and mask, contiguous, with H and W as in ``size``.

        Example:
            >>> image = torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
            >>> image, mask = Geometry.square(32)(image, torch.ones(2, 48, 64))
            >>> tuple(image.shape), tuple(mask.shape)
            ((2, 3, 32, 32), (2, 32, 32))
        """
        return self.image(image), None if mask is None else self.mask(mask)

    def image(self, image: Tensor) -> Tensor:
        """Resize and crop uint8 (N×)3×H×W alone."""
        return self._frame(image, _KERNELS[self.interpolation])

    def mask(self, mask: Tensor) -> Tensor:
        """Resize and crop shares of pixels, float32 (N×)H×W in [0, 1], alone."""
        soft = self._frame(mask.unsqueeze(-3), _MASK_KERNELS[self.interpolation])
        return soft.squeeze(-3).clamp(0, 1)

    def box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Where in the original picture the result lies: to paint a map back on it.

        Args:
            height: The original picture's height.
            width: Its width.

        Returns:
            Top, left, bottom and right in the picture's pixels, in fractions of them too; beyond
            the picture where zeros surround it.

        Example:
            >>> Geometry(size=(40, 40), resize=20).box(100, 100)
            (-50.0, -50.0, 150.0, 150.0)
        """
        resized = self._resized(height, width)
        top, left = self._corner(resized)
        y, x = height / resized[0], width / resized[1]
        return top * y, left * x, (top + self.size[0]) * y, (left + self.size[1]) * x

    def keeps(self, height: int, width: int) -> bool:
        """Whether pictures of this size stay as they are.

        Args:
            height: The pictures' height.
            width: Their width.

        Returns:
            True where neither the resize nor the crop changes a pixel.

        Example:
            >>> Geometry.square(32).keeps(32, 32), Geometry.square(32).keeps(32, 40)
            (True, False)
        """
        return self._resized(height, width) == tuple(self.size) == (height, width)

    @property
    def _target(self) -> tuple[int, int]:
        return (self.resize, self.resize) if isinstance(self.resize, int) else self.resize

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width between resize and crop."""
        rows, columns = self._target
        if self.squash:
            return rows, columns
        if rows == columns:
            # As torchvision has it: fractions of a pixel are cut off.
            short = min(height, width)
            return int(rows * height / short), int(rows * width / short)
        # As timm has it, for torchvision has no such resize: fractions are rounded.
        ratio = min(height / rows, width / columns)
        return round(height / ratio), round(width / ratio)

    def _corner(self, resized: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the crop in the resized image, rounded as torchvision does."""
        top, left = (
            round((have - want) / 2) if have >= want else -((want - have) // 2)
            for have, want in zip(resized, self.size, strict=True)
        )
        return top, left

    def _frame(self, image: Tensor, kernel: str) -> Tensor:
        """Resize and crop …×C×H×W."""
        # Here, for it takes a second to import, and pictures of the right size need none of it.
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        resized = self._resized(image.shape[-2], image.shape[-1])
        image = F.resize(
            image, list(resized), interpolation=InterpolationMode(kernel), antialias=True
        )
        # Contiguous, so that a batch does not keep (or send to another process) what was cut off.
        return F.crop(image, *self._corner(resized), *self.size).contiguous()
