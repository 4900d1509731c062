"""The half of a network that makes features, fast: folded, laid out, packed, compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from audit.config import Precision
from audit.errors import ModelError
from audit.inference.building import folded, packed, piece_size, rebuilt, survey
from audit.inference.compiling import Tell, compiled, difference, log_warning
from audit.inference.moving import move_graphs
from audit.inference.packing import can_pack
from audit.inference.precision import TOLERANCES, TYPES, computing
from audit.models.probe import probe_images

Size = tuple[int, int]
# Images of the check.
_PROBES = 2


class FastBackbone(nn.Module):
    """The backbone of a cut network, computed as fast as the machine allows.

    At the first batch the graph of operations is copied, batch norms are folded into
    convolutions, weights get the layout that the device prefers, and the result is compared with
    the backbone as it is on images of the same size. If they differ, or cannot be computed, the
    backbone as it is is used. A network without a graph (hooks) always is.

    The network itself is not changed; what is not copied is shared with it. Weights that change
    after the first batch do not count.

    Args:
        backbone: Normalised images N×3×H×W to a tuple of tensors, as of :class:`audit.models.Cut`.
        mean: Of the normalisation, for values in [0, 1].
        std: Likewise.
        precision: With how many digits it computes; what it gives is float32 always.
        compiled: Compile it for one size of batches, see ``batch``.
        tell: Is told in one line where something was given up.

    Attributes:
        how: What was done, in words, after the first batch.
        notes: What was given up, and why.
        batch: The size of batches that it is compiled for: smaller ones are filled up, larger ones
            are computed without compiling. ``None`` takes the first one's; 0 waits for a number.

    Example:
        >>> from audit.models import build, cut
        >>> parts = cut(build("cnn", 10), (32, 32))
        >>> fast = FastBackbone(parts.backbone, mean=(0, 0, 0), std=(1, 1, 1))
        >>> fast(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))[0].shape
        torch.Size([2, 128, 8, 8])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        precision: Precision = "float32",
        compiled: bool = False,
        tell: Tell = log_warning,
    ) -> None:
        super().__init__()
        # In a tuple: the network is the caller's, and no part of this module.
        self._plain = (backbone,)
        for name, values in (("mean", mean), ("std", std)):
            scaled = 255 * torch.tensor(values, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, scaled, persistent=False)
        self.precision = precision
        self.how: tuple[str, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._wants_compiled = compiled
        self._tell = tell
        self._run: Callable[[Tensor], tuple[Tensor, ...]] | None = None
        self._size: Size = (0, 0)
        self.batch: int | None = None
        self._compiled: Callable[[Tensor], tuple[Tensor, ...]] | None = None
        self._piece: int | None = None
        self._layout = torch.contiguous_format

    def to_device(self, device: torch.device) -> None:
        """Move it; the network's own parameters move with it."""
        self._run = None
        (plain,) = self._plain
        for module in (self, plain):
            module.to(device)
        move_graphs(plain, device)

    @torch.no_grad()
    def normalised(self, pixels: Tensor) -> Tensor:
        """What the network is fed with.

        Args:
            pixels: Grey levels in [0, 255], uint8 or float, N×3×H×W.
        """
        if pixels.is_floating_point():
            images = (pixels.float() - self.mean).div_(self.std)
            return images.contiguous(memory_format=self._layout)
        images = pixels.to(torch.float32, memory_format=self._layout)
        return images.sub_(self.mean).div_(self.std)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Features of a batch.

        Args:
            pixels: Grey levels in [0, 255], uint8 or float, N×3×H×W.

        Returns:
            Features N×C×h×w, and whatever else the head reads; floats as float32.
        """
        size = (int(pixels.shape[2]), int(pixels.shape[3]))
        if self._run is None or size != self._size:
            self._settle(size, pixels.device)
        assert self._run is not None
        with computing(self.precision, pixels.device):
            if self._compiled is not None and self.batch is None:
                self.batch = len(pixels)
            if self._compiled is not None and len(pixels) <= (self.batch or 0):
                found = self._compiled(self._filled(self.normalised(pixels)))
                return tuple(_as_float32(each[: len(pixels)]) for each in found)
            pieces = [
                self._run(self.normalised(piece))
                for piece in pixels.split(self._piece or max(1, len(pixels)))
            ]
        return tuple(
            _as_float32(torch.cat(parts) if len(parts) > 1 else parts[0])
            for parts in zip(*pieces, strict=True)
        )

    def _filled(self, images: Tensor) -> Tensor:
        """A smaller batch with more images, so that compiled code fits."""
        missing = (self.batch or 0) - len(images)
        if missing <= 0:
            return images
        more = images[:1].expand(missing, -1, -1, -1)
        return torch.cat([images, more]).contiguous(memory_format=self._layout)

    def _settle(self, size: Size, device: torch.device) -> None:
        """Make ready for images of a size, by the first way that gives the right features."""
        (plain,) = self._plain
        self._size, self._piece, self._compiled = size, None, None
        self._layout = torch.contiguous_format
        images = probe_images(_PROBES, size).to(device)
        with computing("float32", device):
            expected = plain(images)
        layout, has_norms = survey(plain)
        last = ["channels last"] if layout == torch.channels_last else []
        words = (*(["batch norms folded"] if has_norms else []), *last)
        for how, build in self._ways(words, layout, images):
            if (
                run := self._proven(build, images.contiguous(memory_format=layout), expected)
            ) is not None:
                self._layout, self.how = layout, how
                if device.type == "cpu":
                    self._piece = piece_size(plain, images, TYPES[self.precision])
                self._run = run
                if self._wants_compiled:
                    self._compiled = compiled(
                        run, name="backbone", tell=self._tell, freezing=True,
                        tolerance=TOLERANCES[self.precision],
                    )  # fmt: skip
                return
        self._run, self.how = plain, ("as it is",)
        if self.precision != "float32" and self._proven(lambda: plain, images, expected) is None:
            raise ModelError(
                f"the network's features cannot be computed in {self.precision}",
                found="; ".join(self.notes),
                remedy="leave --precision",
            )

    def _ways(
        self, words: tuple[str, ...], layout: torch.memory_format, images: Tensor
    ) -> Iterator[tuple[tuple[str, ...], Callable[[], nn.Module | None]]]:
        """How the features may be computed, the fastest first."""
        (plain,) = self._plain
        dtype = TYPES[self.precision]
        if can_pack(images.device, dtype) and not self._wants_compiled:
            yield (
                (*words, "packed"),
                lambda: rebuilt(plain, partial(packed, images=images, dtype=dtype)),
            )
        yield words, lambda: rebuilt(plain, partial(folded, layout=layout, dtype=dtype))

    def _proven(
        self, build: Callable[[], nn.Module | None], images: Tensor, expected: tuple[Tensor, ...]
    ) -> nn.Module | None:
        """What gives the features that the backbone as it is gives; ``None`` if it does not."""
        try:
            made = build()
            if made is None:
                return None
            with computing(self.precision, images.device):
                found = tuple(_as_float32(each) for each in made(images))
        except Exception as error:  # noqa: BLE001  # torch's own operations differ by version
            self._give_up(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}")
            return None
        gap = difference(found, tuple(_as_float32(each) for each in expected))
        if gap is None or not gap <= TOLERANCES[self.precision]:
            self._give_up(f"features are off by {gap or 0:.1e} of the largest")
            return None
        return made

    def _give_up(self, why: str) -> None:
        self.notes = (*self.notes, why)
        self._tell(f"a faster way to compute the features was left: {why}")


def _as_float32(given: Tensor) -> Tensor:
    return given.float() if given.is_floating_point() else given
