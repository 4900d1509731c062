"""Between the h×w grid of a map and the H×W pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def to_image(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample maps bilinearly (pixel centres, as OpenCV's linear interpolation).

    Args:
        maps: N×h×w.
        size: H and W.

    Returns:
        N×H×W.
    """
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def bilinear_matrix(pixels: int, cells: int) -> Tensor:
    """The upsampling operator of one axis as a matrix.

    Args:
        pixels: Length of the image's axis.
        cells: Length of the grid's axis.

    Returns:
        float32, pixels×cells; every row sums to 1.

    Example:
        >>> bilinear_matrix(4, 2)
        tensor([[1.0000, 0.0000],
                [0.7500, 0.2500],
                [0.2500, 0.7500],
                [0.0000, 1.0000]])
    """
    basis = torch.eye(cells)[:, None, :]
    return F.interpolate(basis, size=pixels, mode="linear", align_corners=False)[
        :, 0
    ].T.contiguous()


@dataclass(frozen=True, kw_only=True)
class Resampler:
    """Brings masks to the grid so that sums over cells equal sums over upsampled pixels.

    With the upsampling operator ``U``, ``Σ_pixels (U L)·M = Σ_cells L·(Uᵀ M)``. The cell weight is
    ``u = Uᵀ 1`` and the mask on the grid ``m = Uᵀ M / u``, so that ``Σ u·L·m / Σ u·L`` is the share
    of the upsampled map that falls on the mask, for any sizes.

    Attributes:
        rows: H×h.
        columns: W×w.
        weight: ``u``, h×w.
    """

    rows: Tensor
    columns: Tensor
    weight: Tensor

    @classmethod
    def between(
        cls, image: tuple[int, int], grid: tuple[int, int], device: torch.device | str = "cpu"
    ) -> Resampler:
        """The operator from a grid to an image.

        Args:
            image: H and W.
            grid: h and w.
            device: Where to keep it.
        """
        rows = bilinear_matrix(image[0], grid[0]).to(device)
        columns = bilinear_matrix(image[1], grid[1]).to(device)
        return cls(
            rows=rows, columns=columns, weight=torch.outer(rows.sum(dim=0), columns.sum(dim=0))
        )

    def to_image(self, maps: Tensor) -> Tensor:
        """The same as :func:`to_image`, by two products.

        Args:
            maps: N×h×w.

        Returns:
            N×H×W.
        """
        return self.rows @ (maps @ self.columns.T)

    def to_grid(self, masks: Tensor) -> Tensor:
        """The masks' share of each cell.

        Args:
            masks: N×H×W in [0, 1].

        Returns:
            N×h×w in [0, 1].
        """
        return (self.rows.T @ masks @ self.columns / self.weight).clamp(0, 1)
