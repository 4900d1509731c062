"""What a training run leaves: weights, tables, curves and a model card."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save
from torch import Tensor, nn

import audit
from audit.files import write_atomically
from audit.models.checkpoint import HEADER
from audit.training.curves import draw_epochs, draw_iterations
from audit.training.images import Labelled, TrainingImages
from audit.training.recipe import Recipe

Stats = tuple[tuple[float, ...], tuple[float, ...]]


def write_results(
    out: Path,
    *,
    recipe: Recipe,
    data: TrainingImages,
    model: nn.Module,
    stats: Stats,
    best_epoch: int,
    iterations: list[dict[str, float]],
    epochs: list[dict[str, float]],
) -> Path:
    """Write everything a reader of the weights needs.

    Args:
        out: The folder.
        recipe: The settings of the run.
        data: The images of the run.
        model: The best model, in evaluation mode.
        stats: Channel means and standard deviations.
        best_epoch: When the model was best on the held-out images.
        iterations: One row a step.
        epochs: One row an epoch.

    Returns:
        The weights' file.
    """
    card = _describe(recipe, data, model, stats, best_epoch)
    known = ("architecture", "dataset", "classes", "image_size", "mean", "std")
    # One entry, because safetensors writes several in any order.
    header = {HEADER: json.dumps({key: card[key] for key in known})}
    weights = out / "model.safetensors"
    write_atomically(weights, save(dict(model.state_dict()), metadata=header))
    write_atomically(out / "card.json", (json.dumps(card, indent=2) + "\n").encode())
    write_atomically(out / "README.md", _as_markdown(card).encode())
    steps, table = pd.DataFrame(iterations), pd.DataFrame(epochs)
    write_atomically(out / "iterations.parquet", _parquet(steps))
    write_atomically(out / "epochs.csv", table.round(6).to_csv(index=False).encode())
    write_atomically(out / "loss_per_iteration.png", draw_iterations(steps))
    write_atomically(out / "curves_per_epoch.png", draw_epochs(table))
    return weights


def accuracy_by_class(
    model: nn.Module, data: Labelled, stats: Stats, num_classes: int
) -> tuple[float, list[float | None]]:
    """Top-1 accuracy over all samples and for each class (``None`` for a class without any)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in stats)
    with torch.no_grad():
        predicted = torch.cat(
            [model((x.float() / 255 - mean) / std).argmax(1) for x in data.images.split(500)]
        )
    right = (predicted == data.labels).double()
    classes = [right[data.labels == k] for k in range(num_classes)]
    return float(right.mean()), [_mean(values) for values in classes]


def _mean(values: Tensor) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _describe(
    recipe: Recipe, data: TrainingImages, model: nn.Module, stats: Stats, best_epoch: int
) -> dict[str, Any]:
    count = len(data.classes)
    overall: float | None = None
    per_class: list[float | None] = [None] * count
    if data.test is not None:
        overall, per_class = accuracy_by_class(model, data.test, stats, count)
    held = [accuracy_by_class(model, part, stats, count)[0] for part in data.held_out]
    settings = json.loads(recipe.model_dump_json(exclude={"data_roots"}))
    return {
        "architecture": recipe.model,
        "dataset": recipe.dataset,
        "classes": list(data.classes),
        "image_size": list(data.image_size),
        "mean": list(stats[0]),
        "std": list(stats[1]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "recipe": settings,
        "best_epoch": best_epoch,
        "training_images": len(data.train),
        "copies_of_held_out_images_dropped": data.copies_dropped,
        "test_images": 0 if data.test is None else len(data.test),
        "test_accuracy": None if overall is None else round(overall, 4),
        "test_accuracy_by_class": dict(zip(data.classes, per_class, strict=True)),
        "held_out_images": [len(part) for part in data.held_out],
        "held_out_accuracy": [round(value, 4) for value in held],
        "versions": {"audit": audit.__version__, "torch": torch.__version__},
    }


def _as_markdown(card: dict[str, Any]) -> str:
    recipe = card["recipe"]
    rows = "\n".join(
        f"| {name} | {value:.1%} |" if value is not None else f"| {name} | no samples |"
        for name, value in card["test_accuracy_by_class"].items()
    )
    held = "; ".join(
        f"{accuracy:.2%} on {count:,} images of root {number + 1}"
        for number, (accuracy, count) in enumerate(
            zip(card["held_out_accuracy"], card["held_out_images"], strict=True)
        )
    )
    headline = "There is no test split."
    if card["test_accuracy"] is not None:
        headline = (
            f"**Test accuracy {card['test_accuracy']:.2%}** on {card['test_images']:,} images."
        )
    return f"""# {card["architecture"]} for {card["dataset"]}

{headline}
Held out from training: {held}.

| class | test accuracy |
| --- | --- |
{rows}

- Data: {card["training_images"]:,} training images
  ({card["copies_of_held_out_images_dropped"]:,} copies of held-out images left out).
- Recipe: {recipe["epochs"]} epochs, batch {recipe["batch_size"]}, Adam {recipe["lr"]:g},
  schedule {recipe["schedule"]}, {recipe["precision"]}, seed {recipe["seed"]}; random crop with
  padding 4, colour jitter 0.2/0.2/0.2/0.1, rotation 15°, horizontal flip where it keeps the
  meaning. The weights are those of epoch {card["best_epoch"]}, the best on held-out images.
- Input: {card["image_size"][0]}×{card["image_size"][1]} RGB in [0, 1], normalised with mean
  {card["mean"]} and standard deviation {card["std"]}.
- {card["parameters"]:,} parameters; written by audit {card["versions"]["audit"]} with torch
  {card["versions"]["torch"]}.
- Meant for trying the audit and for testing it, not for deployment.
"""


def _parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
