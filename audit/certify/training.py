"""Short trainings on planted images: fine-tuned from a common base, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from audit.certify.known import Images
from audit.devices import CPU
from audit.errors import AuditError, ModelError
from audit.files import write_atomically
from audit.models.checkpoint import HEADER, read_checkpoint

Stats = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how hard a model is trained.

    Attributes:
        epochs: Passes over the images.
        batch_size: Images a step.
        lr: Peak learning rate of Adam under one cycle.
        flip: Mirror half of the images.
        shift: Pixels that images are shifted by at most; a cue survives it.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 1e-3
    flip: bool = True
    shift: int = 2

    def describe(self) -> str:
        """The recipe in words."""
        mirrored = ", half of the images mirrored" if self.flip else ""
        return (
            f"{self.epochs} epochs, batch {self.batch_size}, Adam with one cycle to {self.lr:g}, "
            f"images shifted by up to {self.shift} pixels{mirrored}"
        )


def renewed(model: nn.Module, base: Mapping[str, Tensor], *, kept: float, seed: int) -> nn.Module:
    """Mix a base's weights with fresh ones, so that a short training still learns anew.

    A network that already answers nearly everything rightly has no reason to learn a cue; mixed
    with fresh weights it has, and keeps much of what it knew (shrink and perturb, Ash and Adams
    2020, section 4).

    Args:
        model: A network of the base's architecture, changed in place.
        base: Its weights.
        kept: Share of the base; 1 copies it.
        seed: Of the fresh weights.

    Returns:
        The model.

    Raises:
        ModelError: If the base is of another architecture.

    Example:
        >>> layer = renewed(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.ones(1)},
        ...                 kept=1.0, seed=0)
        >>> layer.bias.item()
        1.0
    """
    fresh = fresh_weights(model, seed)
    for name, value in fresh.items():
        # Older files lack this counter.
        if name.endswith("num_batches_tracked"):
            continue
        if name not in base or base[name].shape != value.shape:
            raise ModelError("the base weights are of another architecture", found=f"no {name}")
    learned = {name for name, _ in model.named_parameters()}
    mixed = {
        name: kept * base[name] + (1 - kept) * value if name in learned else base.get(name, value)
        for name, value in fresh.items()
    }
    model.load_state_dict(mixed)
    return model


def fresh_weights(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """What a network of this architecture begins with, drawn by its layers' own rules."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in model.modules():
            draw = getattr(layer, "reset_parameters", None)
            if callable(draw):
                draw()
    return {name: value.clone() for name, value in model.state_dict().items()}


def fit(
    model: nn.Module,
    data: Images,
    stats: Stats,
    schedule: Schedule,
    *,
    seed: int = 0,
    device: torch.device = CPU,
    advance: Callable[[int], object] | None = None,
) -> nn.Module:
    """Train a model where it stands.

    Args:
        model: The network, changed in place.
        data: Images and labels.
        stats: Channel means and standard deviations of values in [0, 1].
        schedule: How long and how hard.
        seed: Of order, dropout and augmentation.
        device: Where to train.
        advance: Is told how many images each step used.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        AuditError: If the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model.to(device).to(memory_format=torch.channels_last).train()
        batches = [
            chunk
            for _ in range(schedule.epochs)
            for chunk in torch.randperm(len(data)).split(schedule.batch_size)
            # A batch of one has no batch statistics.
            if len(chunk) > 1
        ]
        optimizer = torch.optim.Adam(model.parameters(), lr=schedule.lr)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=schedule.lr, total_steps=max(2, len(batches))
        )
        for chunk in batches:
            seen = shifted(data.images[chunk], schedule.shift, flip=schedule.flip).to(device)
            loss = F.cross_entropy(model(normalised(seen, stats)), data.labels[chunk].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            cycle.step()
            if not bool(torch.isfinite(loss)):
                raise AuditError("the training loss is not finite", remedy="lower --lr")
            if advance is not None:
                advance(len(chunk))
    return model.eval().to("cpu").to(memory_format=torch.contiguous_format)


def shifted(images: Tensor, most: int, *, flip: bool) -> Tensor:
    """Shift each image by a few pixels of its own and mirror half of them.

    Borders are mirrored outward. Draws from torch's global generator.

    Args:
        images: uint8, N×3×H×W.
        most: Pixels, in each direction.
        flip: Whether to mirror.

    Returns:
        uint8, N×3×H×W.

    Example:
        >>> image = torch.arange(12, dtype=torch.uint8).reshape(1, 1, 3, 4).expand(1, 3, 3, 4)
        >>> torch.equal(shifted(image, 0, flip=False), image)
        True
    """
    count, _, height, width = images.shape
    down, right = torch.randint(-most, most + 1, (2, count, 1))
    y = _mirrored(torch.arange(height) + down, height)
    x = _mirrored(torch.arange(width) + right, width)
    if flip:
        x = torch.where(torch.rand(count, 1) < 0.5, x.flip(1), x)
    rows = torch.arange(count)[:, None, None]
    # Channels last, as convolutions like it.
    moved = images.permute(0, 2, 3, 1)[rows, y[:, :, None], x[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _mirrored(places: Tensor, size: int) -> Tensor:
    return (size - 1 - (size - 1 - places.abs()).abs()).clamp(0, size - 1)


def normalised(images: Tensor, stats: Stats) -> Tensor:
    """What the network sees of uint8 images."""
    mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in stats)
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Tensor,
    stats: Stats,
    device: torch.device = CPU,
) -> Tensor:
    """The class that a model answers with, int64, N."""
    model = model.eval().to(device)
    answers = [
        model(normalised(part.to(device), stats)).argmax(dim=1).cpu() for part in images.split(500)
    ]
    model.to("cpu")
    return torch.cat(answers) if answers else torch.zeros(0, dtype=torch.int64)


def save_model(file: Path, model: nn.Module, about: Mapping[str, object]) -> None:
    """Write weights as the audit opens them.

    Args:
        file: Where to; its folder must exist.
        model: The network.
        about: What is needed to use it: architecture, dataset, classes, image_size, mean, std.
    """
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    write_atomically(file, save(tensors, metadata={HEADER: json.dumps(about)}))


def load_model(file: Path, model: nn.Module) -> nn.Module:
    """Fill a network with the weights of :func:`save_model`.

    Args:
        file: The weights.
        model: A network of the same architecture, changed in place.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: If the file is damaged.
    """
    model.load_state_dict(dict(read_checkpoint(file).tensors))
    return model.eval()
