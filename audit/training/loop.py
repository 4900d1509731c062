"""The training loop: resumable after any epoch, the same result with or without an interruption."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from audit.devices import CPU
from audit.errors import AuditError, UsageError
from audit.files import make_folder, remove_unfinished, write_atomically
from audit.models.architectures import build
from audit.training.card import write_results
from audit.training.images import Labelled, TrainingImages, load_training_images
from audit.training.recipe import Augmentation, Recipe

# Mirroring changes the meaning of these datasets' images.
_NOT_MIRRORED = ("demo",)
_LAST = "last.pt"


@dataclass
class Progress:
    """Everything a resumed run needs besides the network and the optimiser."""

    epoch: int = 0
    best_accuracy: float = -1.0
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    iterations: list[dict[str, float]] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)


def train(
    recipe: Recipe,
    out: Path,
    *,
    device: torch.device = CPU,
    quiet: bool = False,
) -> Path:
    """Train a classifier and write its weights, curves, tables and model card.

    A run that was interrupted goes on after its last whole epoch when it is started again with
    the same recipe and folder.

    Args:
        recipe: The settings.
        out: Folder of the results.
        device: Where to train.
        quiet: No progress bar.

    Returns:
        The best weights: ``out/model.safetensors``.

    Raises:
        AuditError: If the data or the folder cannot be used, or the loss is not finite.
    """
    remove_unfinished(make_folder(out))
    data = load_training_images(recipe)
    trainer = Trainer(recipe, data, device)
    trainer.resume(out / _LAST)
    while trainer.progress.epoch < recipe.epochs:
        trainer.run_epoch(quiet=quiet)
        write_atomically(out / _LAST, trainer.snapshot())
    model = build(recipe.model, len(data.classes))
    model.load_state_dict(trainer.progress.best_weights)
    weights = write_results(
        out,
        recipe=recipe,
        data=data,
        model=model.eval(),
        stats=trainer.stats,
        best_epoch=trainer.progress.best_epoch,
        iterations=trainer.progress.iterations,
        epochs=trainer.progress.epochs,
    )
    (out / _LAST).unlink()
    return weights


class Trainer:
    """One network, its optimiser and schedule, advanced an epoch at a time.

    Args:
        recipe: The settings.
        data: The images.
        device: Where to train.
    """

    def __init__(self, recipe: Recipe, data: TrainingImages, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.progress = Progress()
        self._data = data
        torch.manual_seed(recipe.seed)
        model = build(recipe.model, len(data.classes)).to(self.device)
        self._model = model.to(memory_format=torch.channels_last)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=recipe.lr, fused=True)
        self._schedule = self._make_schedule()
        self._augment = Augmentation(data.image_size, flip=recipe.dataset not in _NOT_MIRRORED)
        self.stats = channel_statistics(data.train.images)

    def run_epoch(self, *, quiet: bool) -> None:
        """Train on every image once, then measure on the held-out ones."""
        epoch = self.progress.epoch
        # Seeded by the epoch alone, so that a resumed run draws what an undisturbed one would.
        torch.manual_seed(_mix(self.recipe.seed, epoch))
        order = torch.randperm(len(self._data.train))
        started = time.monotonic()
        losses, right, seen = 0.0, 0, 0
        bar = tqdm(
            # A batch of one has no batch statistics.
            [chunk for chunk in order.split(self.recipe.batch_size) if len(chunk) > 1],
            desc=f"epoch {epoch + 1}/{self.recipe.epochs}",
            unit="batch",
            disable=quiet,
            mininterval=1.0,
        )
        for step, chunk in enumerate(bar):
            batch = self._data.train.take(chunk)
            loss, correct = self._step(batch, seed=_mix(self.recipe.seed, epoch, step))
            losses, right, seen = losses + loss * len(chunk), right + correct, seen + len(chunk)
            bar.set_postfix(loss=f"{losses / seen:.3f}", acc=f"{right / seen:.3f}", refresh=False)
        bar.close()
        self._finish_epoch(losses / seen, right / seen, time.monotonic() - started, quiet=quiet)

    def _step(self, batch: Labelled, seed: int) -> tuple[float, int]:
        self._model.train()
        images = self._augment(batch.images, seed).to(self.device)
        labels = batch.labels.to(self.device)
        logits = self._forward(images)
        loss = F.cross_entropy(logits, labels)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()
        value = loss.item()
        if math.isnan(value):
            raise AuditError("the training loss is NaN", remedy="lower --lr")
        self.progress.iterations.append({"epoch": self.progress.epoch + 1, "loss": value})
        if isinstance(self._schedule, torch.optim.lr_scheduler.OneCycleLR):
            self._schedule.step()
        return value, int((logits.argmax(1) == labels).sum())

    def _forward(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(s, device=self.device)[:, None, None] for s in self.stats)
        normalised = ((images.float() / 255 - mean) / std).to(memory_format=torch.channels_last)
        low = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            logits: Tensor = self._model(normalised)
        return logits.float()

    def _finish_epoch(self, loss: float, accuracy: float, seconds: float, *, quiet: bool) -> None:
        progress = self.progress
        held_loss, held_accuracies = self._measure()
        held = sum(held_accuracies) / len(held_accuracies)
        lr = self._optimizer.param_groups[0]["lr"]
        if isinstance(self._schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(held_loss)
        progress.epoch += 1
        if held > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = held, progress.epoch
            progress.best_weights = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in self._model.state_dict().items()
            }
        progress.epochs.append(
            {
                "epoch": progress.epoch,
                "train_loss": loss,
                "train_accuracy": accuracy,
                "held_out_loss": held_loss,
                "held_out_accuracy": held,
                "lr": lr,
                "seconds": seconds,
            }
        )
        if not quiet:
            tqdm.write(
                f"epoch {progress.epoch}: train loss {loss:.3f} accuracy {accuracy:.3f}; "
                f"held out loss {held_loss:.3f} accuracy {held:.3f}; lr {lr:.2e}; {seconds:.0f} s"
            )

    @torch.no_grad()
    def _measure(self) -> tuple[float, list[float]]:
        """Mean loss over the held-out images, and the accuracy for each root."""
        self._model.eval()
        losses, accuracies = [], []
        for held in self._data.held_out:
            logits = torch.cat([self._forward(x.to(self.device)) for x in held.images.split(500)])
            labels = held.labels.to(self.device)
            losses.append(F.cross_entropy(logits, labels).item())
            accuracies.append((logits.argmax(1) == labels).float().mean().item())
        return sum(losses) / len(losses), accuracies

    def snapshot(self) -> bytes:
        """The state as a file that :meth:`resume` reads."""
        buffer = io.BytesIO()
        torch.save(
            {
                "recipe": self.recipe.fingerprint(),
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "progress": vars(self.progress),
            },
            buffer,
        )
        return buffer.getvalue()

    def resume(self, file: Path) -> None:
        """Go on from a snapshot, where there is one.

        Raises:
            UsageError: If it was begun with another recipe.
        """
        if not file.exists():
            return
        state: dict[str, Any] = torch.load(file, map_location=self.device, weights_only=True)
        if not isinstance(state, dict) or state.get("recipe") != self.recipe.fingerprint():
            raise UsageError(
                f"{file.parent} holds an unfinished training with other settings",
                remedy=f"name another folder with --out, or delete {file} to begin anew",
            )
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.progress = Progress(**state["progress"])

    def _make_schedule(
        self,
    ) -> torch.optim.lr_scheduler.ReduceLROnPlateau | torch.optim.lr_scheduler.OneCycleLR:
        if self.recipe.schedule == "plateau":
            return torch.optim.lr_scheduler.ReduceLROnPlateau(
                self._optimizer, factor=0.5, patience=3
            )
        sizes = [
            len(chunk)
            for chunk in torch.arange(len(self._data.train)).split(self.recipe.batch_size)
        ]
        return torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer,
            max_lr=self.recipe.lr,
            total_steps=self.recipe.epochs * sum(size > 1 for size in sizes),
        )


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each colour channel, of values in [0, 1].

    Rounded to four digits, which is how such constants are passed on.
    """
    values = torch.stack(
        [torch.bincount(images[:, c].flatten().int(), minlength=256) for c in range(3)]
    ).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = values / values.sum(dim=1, keepdim=True)
    mean = (share * levels).sum(dim=1)
    std = ((share * levels**2).sum(dim=1) - mean**2).sqrt()
    return _rounded(mean), _rounded(std)


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _mix(*numbers: int) -> int:
    """One seed from several numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**31)
    return seed
