"""One batch of samples through all their edited pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from audit.explaining import Explainer
from audit.score.edits import (
    TRANSPLANTS,
    Cutout,
    EditBank,
    background_only,
    cutouts,
    disturbed,
    object_only,
    of_same_class,
    transplanted,
)
from audit.score.filling import FILLS
from audit.score.masks import Masks


def passes(families: int) -> int:
    """Forward passes a sample.

    Args:
        families: Of masks, the main one included.

    Example:
        >>> passes(1), passes(3)
        (20, 38)
    """
    return families * (TRANSPLANTS + len(FILLS)) + 3 * len(FILLS) + 2


class EditStep(nn.Module):
    """Asks the classifier about edited pictures, in pixels.

    Args:
        explainer: Holds the classifier.
        bank: What pictures are edited with.
    """

    def __init__(self, explainer: Explainer, bank: EditBank) -> None:
        super().__init__()
        self.explainer = explainer
        self._bank = bank

    @torch.no_grad()
    def forward(
        self, images: Tensor, labels: Tensor, masks: Masks, index: Tensor
    ) -> dict[str, Tensor]:
        """Edit a batch and predict.

        Args:
            images: uint8, N×3×H×W.
            labels: int64, N, all known.
            masks: Of every family that the bank was made with.
            index: Positions in the split, N.

        Returns:
            Columns of the rows: predictions -1 and probabilities NaN where an edit means nothing.
        """
        pixels, cuts, bank = images.float(), cutouts(masks), self._bank
        others = bank.of_other_classes(index, labels)
        same = of_same_class(index, labels, bank, len(FILLS))
        foreign = bank.labels[others] != labels[:, None]
        columns: dict[str, Tensor] = {
            "transplant_objects": torch.where(foreign, bank.labels[others], -1)
        }
        for family, cut in cuts.items():
            prefix = f"{family}_" if family else ""
            valid = foreign & cut.valid[:, None] & bank.cutouts[family].valid[others]
            edited = self._transplants(pixels, cut, bank.cutouts[family], index, others)
            columns[f"{prefix}transplant_predictions"] = self._answers(edited, labels, valid)[0]
            emptied = (background_only(pixels, cut, fill) for fill in self._fills(index, others))
            columns |= _probed(
                f"{prefix}background_only", *self._answers(emptied, labels, cut.valid[:, None])
            )
        main = cuts[""]
        usable = main.valid[:, None]
        alone = (object_only(pixels, main, fill) for fill in self._fills(index, others))
        columns |= _probed("object_only", *self._answers(alone, labels, usable))
        for name, chosen in (("mixed_same", same), ("mixed_rand", others[:, : len(FILLS)])):
            known = chosen >= 0 if name == "mixed_same" else foreign[:, : len(FILLS)]
            mixed = self._mixed(pixels, main, index, chosen.clamp_min(0), others)
            fit = known & usable & bank.cutouts[""].valid[chosen.clamp_min(0)]
            columns |= _probed(name, *self._answers(mixed, labels, fit))
        return columns | self._disturbed(pixels, main, index, labels)

    def _fills(self, index: Tensor, others: Tensor) -> Iterator[Tensor]:
        for kind in range(len(FILLS)):
            yield self._bank.fill(kind, index, others[:, -1])

    def _transplants(
        self, pixels: Tensor, own: Cutout, theirs: Cutout, index: Tensor, others: Tensor
    ) -> Iterator[Tensor]:
        for number, donor in enumerate(others.unbind(dim=1)):
            fill = self._bank.fill(number % len(FILLS), index, others[:, number - 1])
            yield transplanted(pixels, own, fill, self._bank.images[donor], theirs.object[donor])

    def _mixed(
        self, pixels: Tensor, own: Cutout, index: Tensor, chosen: Tensor, others: Tensor
    ) -> Iterator[Tensor]:
        """These objects on other images' backgrounds."""
        bank = self._bank
        for kind, place in enumerate(chosen.unbind(dim=1)):
            theirs = bank.cutouts[""].take(place)
            fill = bank.fill(kind, index, others[:, -1])
            yield transplanted(bank.images[place], theirs, fill, pixels, own.object)

    def _disturbed(
        self, pixels: Tensor, main: Cutout, index: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        noise = self._bank.noise(index)
        inside, outside = main.object, (~main.hole).to(pixels)
        edited = (disturbed(pixels, where, noise) for where in (inside, outside))
        found, _ = self._answers(edited, labels, main.valid[:, None])
        return {"noise_object_prediction": found[:, 0], "noise_background_prediction": found[:, 1]}

    def _answers(
        self, edited: Iterator[Tensor], labels: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predictions and the label's probability for each edit, N×E."""
        predicted, probability = [], []
        for pictures in edited:
            logits = self.explainer.network(self.explainer.normalised(pictures))
            finite = logits.isfinite().all(dim=1)
            predicted.append(torch.where(finite, logits.argmax(dim=1), -1))
            chances = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
            probability.append(torch.where(finite, chances, torch.nan))
        return (
            torch.where(valid, torch.stack(predicted, dim=1), -1),
            torch.where(valid, torch.stack(probability, dim=1), torch.nan),
        )


def _probed(name: str, predictions: Tensor, chances: Tensor) -> Mapping[str, Tensor]:
    """An edit's predictions, and the mean and range over its fills of the label's probability."""
    undefined = chances.isnan().all(dim=1)
    low = torch.nan_to_num(chances, nan=torch.inf).amin(dim=1)
    high = torch.nan_to_num(chances, nan=-torch.inf).amax(dim=1)
    return {
        f"{name}_predictions": predictions,
        f"p_{name}": chances.nanmean(dim=1),
        f"p_{name}_low": torch.where(undefined, torch.nan, low),
        f"p_{name}_high": torch.where(undefined, torch.nan, high),
    }
