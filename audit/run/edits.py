"""Computing edited pictures of chosen samples: the bank, the parts and their rows."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from audit.run.columns import array_of
from audit.run.edit_rows import edit_columns
from audit.run.engine import Auditor, MaskedBatch
from audit.run.store import Shard
from audit.score.edits import EditBank
from audit.score.masks import Masks
from audit.step.edits import (
    BACKGROUND_ONLY,
    MIXED_RAND,
    MIXED_SAME,
    OBJECT_ONLY,
    ORIGINAL,
    TRANSPLANT,
    Edit,
    EditStep,
)

# Images that pictures are edited with: this many a class, unless that exceeds the totals below.
IMAGES_A_CLASS = 16
MAX_IMAGES = 512
MAX_BYTES = 512 * 2**20
# Bytes a pixel of the bank: image and backdrop as float32 in three channels.
_BYTES_A_PIXEL = 2 * 3 * 4
# Edits whose pictures may be shown, and those that every family of masks has.
SHOWN = (ORIGINAL, OBJECT_ONLY, BACKGROUND_ONLY, MIXED_SAME, MIXED_RAND, TRANSPLANT)
_OF_FAMILY = (BACKGROUND_ONLY, TRANSPLANT)


@dataclass(frozen=True, kw_only=True)
class EditedPicture:
    """A picture as it was shown to the model.

    Attributes:
        index: The sample's position in the split.
        edit: What was done, as in :mod:`audit.step.edits`; ``original`` for nothing.
        family: Under whose masks.
        fill: What stands where pixels were removed; ``None`` for nothing.
        object: The object's class; ``None`` where there is none.
        background: The background's class; likewise.
        predicted: What the model says of it.
        p_label: The probability of the sample's label.
        image: RGB, rounded to whole grey levels, H×W×3.
    """

    index: int
    edit: str
    family: str
    fill: str | None
    object: int | None
    background: int | None
    predicted: int
    p_label: float
    image: NDArray[np.uint8]


class PixelEditor:
    """Computes the edits of chosen samples.

    Args:
        auditor: Fetches samples with their masks, and holds the classifier.
        chosen: Positions in the split, ascending.
        predicted: What the classifier says of each.
        bank: Positions of samples of all classes to take objects and backgrounds from.
        seed: Chooses the fields of noise.
    """

    def __init__(
        self,
        auditor: Auditor,
        chosen: NDArray[np.int64],
        predicted: NDArray[np.int64],
        bank: NDArray[np.int64],
        seed: int,
    ) -> None:
        self._auditor = auditor
        self._chosen = chosen
        self._predicted = predicted
        self._bank = bank
        self._seed = seed
        self._step: EditStep | None = None

    def fingerprint(self, of_run: str) -> str:
        """Of these edits within a run."""
        parts = (self._chosen.tobytes(), self._bank.tobytes())
        return hashlib.sha256(b"|".join((of_run.encode(), *parts))).hexdigest()

    def prepare(self) -> None:
        """Make the bank."""
        batches = list(self._auditor.batches(self._bank.tolist()))
        explainer = self._auditor.step.explainer
        bank = EditBank.of(
            torch.cat([masked.index for masked in batches]),
            torch.cat([masked.images for masked in batches]),
            Masks.joined([masked.masks for masked in batches]),
            torch.cat([masked.labels for masked in batches]),
            mean=explainer.mean,
            num_classes=len(self._auditor.split.classes),
            seed=self._seed,
        )
        self._step = EditStep(explainer, bank)

    def run_shards(
        self, shards: Sequence[Shard], progress: Callable[[int], object]
    ) -> Iterator[tuple[Shard, pa.Table, dict[str, Any]]]:
        """Compute shards of the chosen samples one after the other.

        Args:
            shards: Ranges of the chosen samples.
            progress: Is told how many samples were done.

        Yields:
            Each shard with its rows and the (empty) summary for its sidecar.
        """
        for shard in shards:
            places = range(shard.start, shard.stop)
            rows: dict[str, list[Tensor]] = {}
            sample_ids: list[str] = []
            for masked in self._auditor.batches(self._chosen[places.start : places.stop].tolist()):
                for name, values in self._edited(masked).items():
                    rows.setdefault(name, []).append(values)
                sample_ids.extend(masked.batch.sample_id)
                progress(len(masked.batch))
            yield shard, self._table(rows, sample_ids, places), {}

    def pictures(self, family: str, indices: Sequence[int]) -> Iterator[EditedPicture]:
        """Make edited pictures of some samples again, to look at them.

        Args:
            family: Under whose masks objects are moved; objects alone and mixtures are cut by the
                main ones, as in the rows.
            indices: Positions in the split.

        Yields:
            The pictures that mean something, those of a sample in the order of the edits.
        """
        if self._step is None:
            self.prepare()
        assert self._step is not None
        main = self._auditor.families.main
        wanted = "" if family == main else family
        for masked in self._auditor.batches(indices):
            given = (masked.images, masked.labels)
            every = self._step.edits(*given, masked.masks, masked.index)
            for edit in itertools.chain([self._step.original(*given)], every):
                if (
                    edit.family == (wanted if edit.name in _OF_FAMILY else "")
                    and edit.name in SHOWN
                ):
                    yield from self._shown(masked, edit, main)

    def _shown(self, masked: MaskedBatch, edit: Edit, main: str) -> Iterator[EditedPicture]:
        assert self._step is not None
        pictures = edit.make()
        predicted, chances = (
            values.tolist() for values in self._step.answer(edit, pictures, masked.labels)
        )
        images = pictures.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for row, index in enumerate(masked.index.tolist()):
            if predicted[row] >= 0:
                yield EditedPicture(
                    index=index,
                    edit=edit.name,
                    family=edit.family or main,
                    fill=edit.fill,
                    object=_known(int(edit.objects[row])),
                    background=_known(int(edit.backgrounds[row])),
                    predicted=predicted[row],
                    p_label=chances[row],
                    image=np.ascontiguousarray(images[row]),
                )

    def _edited(self, masked: MaskedBatch) -> dict[str, Tensor]:
        assert self._step is not None, "prepare() comes first"
        columns = self._step(masked.images, masked.labels, masked.masks, masked.index)
        return columns | {"index": masked.index, "label": masked.labels}

    def _table(
        self, rows: dict[str, list[Tensor]], sample_ids: list[str], places: range
    ) -> pa.Table:
        host = {name: torch.cat(parts).cpu().numpy() for name, parts in rows.items()}
        host["predicted"] = self._predicted[places.start : places.stop]
        columns = edit_columns(self._auditor.families.others)
        arrays = [
            pa.array(sample_ids, pa.string())
            if column.name == "sample_id"
            else _array(host[column.name], column.type)
            for column in columns
        ]
        return pa.Table.from_arrays(arrays, schema=pa.schema([(c.name, c.type) for c in columns]))


def _known(label: int) -> int | None:
    return label if label >= 0 else None


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return array_of(values, kind)
    # Lists of equal length; −1 stays, for it says which of the edits means nothing.
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    flat = pa.array(values.ravel().astype(np.int32), kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=kind)


def images_a_class(classes: int, image_size: tuple[int, int]) -> int:
    """How many images of each class the bank takes.

    Args:
        classes: K.
        image_size: H and W.

    Example:
        >>> images_a_class(10, (32, 32)), images_a_class(1000, (224, 224))
        (16, 1)
    """
    fit = MAX_BYTES // (_BYTES_A_PIXEL * image_size[0] * image_size[1])
    return max(1, min(IMAGES_A_CLASS, MAX_IMAGES // classes, fit // classes))
