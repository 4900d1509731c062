"""One model of a benchmark: trained, measured, audited; each step's result is a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audit.certify.base import Base, save_as, schedule_of
from audit.certify.known import Images, KnownData, object_masks
from audit.certify.plan import CHECKS, Case
from audit.certify.plants import CUES, Plant, carriers, plant_all
from audit.certify.reliance import measure_reliance, reliant_samples
from audit.certify.settings import CertifySettings
from audit.certify.splits import write_split
from audit.certify.training import fit, fresh_weights, load_model, predict, renewed
from audit.files import make_folder, write_atomically
from audit.job import run_audit
from audit.models import build
from audit.run.progress import Progress
from audit.tables import AuditRun

# Fewer test images are enough to see whether a network without knowledge is accused.
_MOST_CHECKED = 400
# Shuffled labels are learnt by heart, which works for few; of many a network learns nothing, and
# its units die.
_MEMORISED = 500


@dataclass(frozen=True)
class Workshop:
    """What all models of a benchmark share.

    Attributes:
        settings: Of the benchmark.
        data: The clean images.
        base: The clean weights.
        device: Where to compute.
        folder: Where everything is kept.
    """

    settings: CertifySettings
    data: KnownData
    base: Base
    device: torch.device
    folder: Path

    @cached_property
    def test(self) -> Images:
        """The clean test images, with object masks."""
        return replace(self.data.test, masks=object_masks(self.data.test))

    def part(self, name: str) -> Path:
        """A folder for one kind of result."""
        return make_folder(self.folder / name)


def make_model(shop: Workshop, case: Case) -> nn.Module:
    """Train a case's model, or take the one that is kept.

    Args:
        shop: What all models share.
        case: Which one.

    Returns:
        The model in evaluation mode; its weights lie in ``models/``.
    """
    file = model_file(shop, case)
    model = build(shop.settings.model, len(shop.data.classes))
    if file.is_file():
        return load_model(file, model)
    if case.kind == "random":
        model.load_state_dict(fresh_weights(model, case.seed))
        model.eval()
    else:
        renewed(model, shop.base.weights, kept=shop.settings.kept, seed=case.seed)
        images = _training_images(shop, case)
        # As many steps for every case, however few its images.
        epochs = shop.settings.epochs * round(len(shop.data.train) / len(images))
        recipe = schedule_of(shop.settings, epochs=epochs)
        with Progress(case.name, epochs * len(images)) as progress:
            fit(
                model,
                images,
                shop.base.stats,
                recipe,
                seed=case.seed,
                device=shop.device,
                advance=progress,
            )
    save_as(file, model, shop.settings, shop.data, shop.base.stats)
    return model


def model_file(shop: Workshop, case: Case) -> Path:
    """Where a case's weights lie."""
    # The masks are shuffled for the clean model, not for one of their own.
    name = "seed0-clean" if case.kind == "shuffled_masks" else case.name
    return shop.part("models") / f"{name}.safetensors"


def _training_images(shop: Workshop, case: Case) -> Images:
    """What a case's model is trained on."""
    data = shop.data.train
    if case.kind == "shuffled_labels":
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(case.seed))
        some = order[:_MEMORISED]
        return Images(images=data.images[some], labels=data.labels[some.flip(0)], masks=None)
    seed = _train_seed(case)
    chosen = torch.zeros(len(data), dtype=torch.bool)
    for plant in case.plants:
        if CUES[plant.cue].needs_object:
            chosen |= carriers(plant, data.labels, data.index, seed=seed)
    masks = object_masks(data, chosen) if bool(chosen.any()) else None
    images, _ = plant_all(
        data.images, data.labels, masks, _painted(case.plants), data.index, seed=seed
    )
    return replace(data, images=images)


def _test_images(shop: Workshop, case: Case) -> tuple[Tensor, Tensor]:
    """A case's test images, and which carry a cue."""
    return plant_all(
        shop.test.images,
        shop.test.labels,
        shop.test.masks,
        _painted(case.plants),
        shop.test.index,
        seed=_test_seed(case),
    )


def _painted(plants: tuple[Plant, ...]) -> tuple[Plant, ...]:
    """The plants that anything carries; those of clean models are only measured."""
    return tuple(plant for plant in plants if plant.strength > 0)


def _train_seed(case: Case) -> int:
    return 2 * case.seed


def _test_seed(case: Case) -> int:
    return 2 * case.seed + 1


def measure(shop: Workshop, case: Case, model: nn.Module) -> dict[str, Any]:
    """What the model really relies on, or what was measured before.

    Args:
        shop: What all models share.
        case: Which one.
        model: Its model.

    Returns:
        ``accuracy_clean`` and ``accuracy_planted`` on the test images without and with their
        cues; ``plants``, one entry each with what :class:`audit.certify.reliance.Reliance` holds;
        ``carried`` and ``reliant``, 0 or 1 for each test image.
    """
    file = shop.part("measured") / f"{case.name}.json"
    if file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    images, carried = _test_images(shop, case)
    stats, labels = shop.base.stats, shop.test.labels
    clean = predict(model, shop.test.images, stats, shop.device)
    planted = predict(model, images, stats, shop.device)
    plants = []
    for plant in case.plants:
        found = measure_reliance(
            model, plant, shop.test, stats, clean=clean, seed=_test_seed(case), device=shop.device
        )
        plants.append(asdict(plant) | asdict(found) | {"pull": found.pull})
    facts = {
        "accuracy_clean": float((clean == labels).float().mean()),
        "accuracy_planted": float((planted == labels).float().mean()),
        "plants": plants,
        "carried": carried.int().tolist(),
        "reliant": reliant_samples(planted, clean, labels, carried).int().tolist(),
    }
    write_atomically(file, json.dumps(facts).encode())
    return facts


def audit_case(shop: Workshop, case: Case) -> AuditRun:
    """Audit a case's model as a user would: a Parquet file, a checkpoint, nothing else.

    Args:
        shop: What all models share.
        case: Which one; its model must be there.

    Returns:
        The finished run.
    """
    settings = shop.settings
    checked = case.kind in CHECKS
    return run_audit(
        dataset=f"parquet:{escape(str(_data_file(shop, case)))}",
        model=settings.model,
        checkpoint=model_file(shop, case),
        mean=shop.base.stats[0],
        std=shop.base.stats[1],
        masks="dataset" if case.kind == "shuffled_masks" else settings.masks,
        device=settings.device,
        limit=_MOST_CHECKED if checked and len(shop.test) > _MOST_CHECKED else None,
        grids=False,
        out=shop.folder / "runs",
    )


def _data_file(shop: Workshop, case: Case) -> Path:
    """The Parquet file that is audited, written where it is not there yet."""
    clean = case.kind in ("clean", "random", "shuffled_labels")
    file = shop.part("data") / f"{'clean' if clean else case.name}.parquet"
    if file.is_file():
        return file
    test = shop.test
    images, masks = test.images, test.masks if shop.data.exact else None
    if case.kind == "planted":
        images, _ = _test_images(shop, case)
    if case.kind == "shuffled_masks":
        assert test.masks is not None
        order = torch.randperm(len(test), generator=torch.Generator().manual_seed(case.seed))
        masks = test.masks[order]
    write_split(file, images, test.labels, shop.data.classes, masks)
    return file
