"""One batch of samples through all their edited pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

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


# What is done to a picture; the names of the columns begin with these.
TRANSPLANT, OBJECT_ONLY, BACKGROUND_ONLY = "transplant", "object_only", "background_only"
MIXED_SAME, MIXED_RAND = "mixed_same", "mixed_rand"
NOISE_OBJECT, NOISE_BACKGROUND = "noise_object", "noise_background"
# Nothing is.
ORIGINAL = "original"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One way in which the pictures of a batch are edited.

    Attributes:
        name: What is done.
        family: Under whose masks; empty for the main ones.
        fill: What stands where pixels were removed, one of :data:`FILLS`; ``None`` for nothing.
        valid: Where the edited picture means something, bool N.
        objects: The object's class, N; -1 for none.
        backgrounds: The background's class, N; -1 for none.
        make: Makes the pictures, float N×3×H×W in grey levels.
    """

    name: str
    family: str
    fill: str | None
    valid: Tensor
    objects: Tensor
    backgrounds: Tensor
    make: Callable[[], Tensor]


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
        others = self._bank.of_other_classes(index, labels)
        donors = self._bank.labels[others]
        columns = {"transplant_objects": torch.where(donors != labels[:, None], donors, -1)}
        answers: dict[tuple[str, str], list[tuple[Tensor, Tensor]]] = {}
        for edit in self.edits(images, labels, masks, index):
            found = self.answer(edit, edit.make(), labels)
            answers.setdefault((edit.family, edit.name), []).append(found)
        for (family, name), found_of in answers.items():
            predicted, chances = (torch.stack(part, dim=1) for part in zip(*found_of, strict=True))
            prefix = f"{family}_" if family else ""
            if name == TRANSPLANT:
                columns[f"{prefix}{name}_predictions"] = predicted
            elif name in (NOISE_OBJECT, NOISE_BACKGROUND):
                columns[f"{name}_prediction"] = predicted[:, 0]
            else:
                columns |= _probed(f"{prefix}{name}", predicted, chances)
        return columns

    def edits(self, images: Tensor, labels: Tensor, masks: Masks, index: Tensor) -> Iterator[Edit]:
        """Everything that is done to a batch; pictures are made when they are asked for.

        Args:
            images: As for :meth:`forward`.
            labels: Likewise.
            masks: Likewise.
            index: Likewise.

        Yields:
            The edits; those of one name and family in the order of the columns' lists.
        """
        pixels, cuts, bank = images.float(), cutouts(masks), self._bank
        others = bank.of_other_classes(index, labels)
        for family, cut in cuts.items():
            yield from self._transplants(pixels, cut, family, labels, index, others)
            yield from self._alone(BACKGROUND_ONLY, pixels, cut, family, labels, index, others)
        main = cuts[""]
        yield from self._alone(OBJECT_ONLY, pixels, main, "", labels, index, others)
        same = of_same_class(index, labels, bank, len(FILLS))
        rand = torch.where(bank.labels[others] != labels[:, None], others, -1)[:, : len(FILLS)]
        for name, chosen in ((MIXED_SAME, same), (MIXED_RAND, rand)):
            yield from self._mixed(name, pixels, main, chosen, labels, index, others)
        yield from self._noised(pixels, main, labels, index)

    def original(self, images: Tensor, labels: Tensor) -> Edit:
        """The pictures as they are, in the form of an edit."""
        return Edit(
            name=ORIGINAL, family="", fill=None, valid=torch.ones_like(labels, dtype=torch.bool),
            objects=labels, backgrounds=labels, make=images.float,
        )  # fmt: skip

    @torch.no_grad()
    def answer(self, edit: Edit, pictures: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Ask about an edit's pictures.

        Args:
            edit: Which.
            pictures: That it made, N×3×H×W.
            labels: int64, N.

        Returns:
            Predictions and the labels' probabilities, N each; -1 and NaN where the edit means
            nothing.
        """
        logits = self.explainer.predict(pictures)
        fine = edit.valid & logits.isfinite().all(dim=1)
        chances = logits.softmax(dim=1).gather(1, labels[:, None])[:, 0]
        return (
            torch.where(fine, logits.argmax(dim=1), -1),
            torch.where(fine, chances, torch.nan),
        )

    def _transplants(
        self,
        pixels: Tensor,
        own: Cutout,
        family: str,
        labels: Tensor,
        index: Tensor,
        others: Tensor,
    ) -> Iterator[Edit]:
        """Other classes' objects on these backgrounds."""
        bank, theirs = self._bank, self._bank.cutouts[family]
        for number, donor in enumerate(others.unbind(dim=1)):
            kind = number % len(FILLS)
            fill = partial(bank.fill, kind, index, others[:, number - 1])
            foreign = bank.labels[donor] != labels
            yield Edit(
                name=TRANSPLANT,
                family=family,
                fill=FILLS[kind],
                valid=foreign & own.valid & theirs.valid[donor],
                objects=bank.labels[donor],
                backgrounds=labels,
                make=partial(_transplant, pixels, own, fill, bank.images, theirs.object, donor),
            )

    def _alone(
        self,
        name: str,
        pixels: Tensor,
        own: Cutout,
        family: str,
        labels: Tensor,
        index: Tensor,
        others: Tensor,
    ) -> Iterator[Edit]:
        """The object or the background alone."""
        nothing = torch.full_like(labels, -1)
        keep_object = name == OBJECT_ONLY
        for kind, called in enumerate(FILLS):
            fill = partial(self._bank.fill, kind, index, others[:, -1])
            yield Edit(
                name=name,
                family=family,
                fill=called,
                valid=own.valid,
                objects=labels if keep_object else nothing,
                backgrounds=nothing if keep_object else labels,
                make=partial(_alone, object_only if keep_object else background_only, pixels, own,
                             fill),
            )  # fmt: skip

    def _mixed(
        self,
        name: str,
        pixels: Tensor,
        own: Cutout,
        chosen: Tensor,
        labels: Tensor,
        index: Tensor,
        others: Tensor,
    ) -> Iterator[Edit]:
        """These objects on other images' backgrounds; none where ``chosen`` is -1."""
        bank, theirs = self._bank, self._bank.cutouts[""]
        for kind, place in enumerate(chosen.clamp_min(0).unbind(dim=1)):
            fill = partial(bank.fill, kind, index, others[:, -1])
            yield Edit(
                name=name,
                family="",
                fill=FILLS[kind],
                valid=(chosen[:, kind] >= 0) & own.valid & theirs.valid[place],
                objects=labels,
                backgrounds=bank.labels[place],
                make=partial(_mix, pixels, own, fill, bank.images, theirs, place),
            )

    def _noised(
        self, pixels: Tensor, main: Cutout, labels: Tensor, index: Tensor
    ) -> Iterator[Edit]:
        """Noise on the object, and on the background."""
        noise = self._bank.noise(index)
        for name, where in (
            (NOISE_OBJECT, main.object), (NOISE_BACKGROUND, (~main.hole).to(pixels))
        ):  # fmt: skip
            yield Edit(
                name=name,
                family="",
                fill=None,
                valid=main.valid,
                objects=labels,
                backgrounds=labels,
                make=partial(disturbed, pixels, where, noise),
            )


def _transplant(
    pixels: Tensor,
    own: Cutout,
    fill: Callable[[], Tensor],
    images: Tensor,
    where: Tensor,
    donor: Tensor,
) -> Tensor:
    return transplanted(pixels, own, fill(), images[donor], where[donor])


def _alone(
    keep: Callable[[Tensor, Cutout, Tensor], Tensor],
    pixels: Tensor,
    own: Cutout,
    fill: Callable[[], Tensor],
) -> Tensor:
    return keep(pixels, own, fill())


def _mix(
    pixels: Tensor,
    own: Cutout,
    fill: Callable[[], Tensor],
    images: Tensor,
    theirs: Cutout,
    place: Tensor,
) -> Tensor:
    return transplanted(images[place], theirs.take(place), fill(), pixels, own.object)


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
