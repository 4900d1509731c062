"""``module:function``: a dataset that the user's own code makes."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from audit.data.decode import UnreadableImage
from audit.data.maskfiles import MaskFiles
from audit.data.maskvalues import BadMask, Shares, Size, shares_in_image, shares_in_values
from audit.data.pictures import BadLabel, PictureSplit, Window
from audit.data.reading import read_bytes
from audit.data.split import MASK_MISSING, MASK_UNREADABLE, Split
from audit.errors import DataError
from audit.usercode import Role, brief, call, find

# What is a split, and not a map-style dataset, has these.
_ROLE = Role(name="dataset", gives="dataset", fits="code that gives a dataset", error=DataError)
_SPLITS_OWN = ("fingerprint", "framed", "__getitems__")
_SPLIT_HAS = (
    "name", "part", "classes", "image_size", "stored_size", "has_masks", "mask_kind", "in_memory",
    "facts", "__len__", *_SPLITS_OWN,
)  # fmt: skip
_EXPECTED = (
    "a map-style dataset with .classes that gives (image, label) or (image, label, mask): images "
    "as PIL, uint8 array H×W×3, uint8 tensor 3×H×W, bytes or path"
)
_PAIR = "let its __getitem__ return a tuple: (image, label) or (image, label, mask)"
_NO_TRANSFORMS = (
    "leave out transforms that make floating-point tensors: resizing and normalisation are done "
    "here"
)


def open_function(spec: str, part: str, masks: MaskFiles | None = None) -> Split:
    """Open what a function gives.

    Args:
        spec: ``module:function``, a class, or a dataset itself. A function that takes ``split``
            or ``part`` is told the split's name.
        part: The split's name.
        masks: Which values of the masks mean what.

    Returns:
        The split. What already is one (see :class:`audit.data.split.Split`) is taken as it is; a
        map-style dataset is wrapped, 32×32 until it is ``framed``.

    Raises:
        DataError: If there is no such function, if it fails or gives something else.
    """
    files = masks or MaskFiles()
    made = find(spec, _ROLE)
    if inspect.isclass(made) or (callable(made) and not hasattr(made, "__getitem__")):
        made = _called(spec, made, part)
    if all(hasattr(made, name) for name in _SPLITS_OWN):
        return _whole_split(spec, made, files)
    if not hasattr(made, "__getitem__") or not hasattr(made, "__len__"):
        raise _unfit(spec, type(made).__name__, _remedy_for(made))
    classes = getattr(made, "classes", None)
    if not isinstance(classes, Sequence) or isinstance(classes, str) or not classes:
        raise DataError(
            f"the dataset of {spec} does not name its classes",
            expected="an attribute classes: names in the order of the labels",
            found="none" if classes is None else repr(classes)[:80],
        )
    items = Items(made, part, tuple(map(str, classes)))
    has_masks = len(made) > 0 and _checked_width(spec, items) > 2
    return PictureSplit(
        name=spec.replace(":", "."),
        part=part,
        classes=items.classes,
        records=items,
        masks=ItemMasks(items, files) if has_masks else None,
        any_thread=False,
    )


class Items:
    """The samples of a map-style dataset; the last one is kept, for its parts are asked in turn.

    Args:
        dataset: Gives ``(image, label)`` or ``(image, label, mask)``.
        part: The split's name, which begins the names of its samples.
        classes: Class names.
    """

    def __init__(self, dataset: Any, part: str, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self._dataset = dataset
        self._part = part
        self._last: tuple[int, tuple[Any, ...]] | None = None
        self._labels: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_last": None, "_labels": {}}

    def __len__(self) -> int:
        return len(self._dataset)

    def item(self, i: int) -> tuple[Any, ...]:
        """A sample as the dataset gives it.

        Raises:
            UnreadableImage: If it gives none.
        """
        if self._last is None or self._last[0] != i:
            try:
                given = self._dataset[i]
            except Exception as error:  # the user's code may raise anything
                raise UnreadableImage(brief(error)) from error
            if not isinstance(given, (tuple, list)) or len(given) not in (2, 3):
                raise UnreadableImage(f"the dataset gives {type(given).__name__}, not a pair")
            self._last = i, tuple(given)
        return self._last[1]

    def sample_id(self, i: int) -> str:
        """See :class:`audit.data.pictures.Records`."""
        return f"{self._part}-{i:06d}"

    def label(self, i: int) -> int:
        """See :class:`audit.data.pictures.Records`."""
        if i not in self._labels:
            try:
                self._labels[i] = self._position(self.item(i)[1])
            except UnreadableImage as error:
                raise BadLabel("its label is not known") from error
        return self._labels[i]

    def picture(self, i: int) -> bytes | Tensor:
        """See :class:`audit.data.pictures.Records`."""
        return _picture(self.item(i)[0])

    def window(self, i: int) -> Window | None:
        """See :class:`audit.data.pictures.Records`."""
        return None

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Records`."""
        # Masks too, so that the user's code makes each sample once.
        for i in range(len(self)):
            try:
                digest = hashlib.sha256(_as_bytes(self.picture(i)))
                digest.update(b"".join(_as_bytes(mask) for mask in self.item(i)[2:]))
                yield digest.hexdigest()
            except (UnreadableImage, OSError) as error:
                yield f"unreadable: {type(error).__name__}"
            self._note_label(i)

    def _note_label(self, i: int) -> None:
        """Keep a label for when it is asked, while its sample is at hand."""
        try:
            self.label(i)
        except BadLabel:
            return

    def _position(self, said: Any) -> int:
        if isinstance(said, str):
            if said not in self.classes:
                raise BadLabel(f"its label '{said}' is none of the {len(self.classes)} classes")
            return self.classes.index(said)
        try:
            label = int(said)
        except (TypeError, ValueError) as error:
            raise BadLabel(f"its label is of type {type(said).__name__}") from error
        if not 0 <= label < len(self.classes):
            raise BadLabel(f"its label {label} is none of the {len(self.classes)} classes")
        return label


class ItemMasks:
    """The masks of the same samples.

    Args:
        items: The samples.
        files: Which values mean what.
    """

    def __init__(self, items: Items, files: MaskFiles) -> None:
        self._items = items
        self._files = files

    def read(self, i: int, size: Size) -> Shares:
        """See :class:`audit.data.pictures.Masks`."""
        given = (*self._items.item(i), None)[2]
        if given is None:
            raise BadMask(MASK_MISSING, "the dataset gives no mask for it")
        if isinstance(given, Image.Image):
            return shares_in_image(
                ImageOps.exif_transpose(given), "of the dataset", size, self._files
            )
        if not isinstance(given, (np.ndarray, Tensor)):
            raise BadMask(MASK_UNREADABLE, f"its mask is of type {type(given).__name__}")
        values = np.asarray(given)
        values = values[0] if values.ndim == 3 and len(values) == 1 else values
        return shares_in_values(values, "of the dataset", size, self._files)

    def contents(self) -> Iterator[str]:
        """See :class:`audit.data.pictures.Masks`."""
        yield repr(("in the samples", self._files.object_values, self._files.unknown_values))


def _called(spec: str, function: Callable[..., Any], part: str) -> Any:
    try:
        known = set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        known = set()
    wanted = {name: part for name in ("split", "part") if name in known}
    return call(spec, _ROLE, lambda: function(**wanted))


def _whole_split(spec: str, made: Any, files: MaskFiles) -> Split:
    if files.object_values or files.unknown_values:
        raise DataError(
            f"{spec} gives a split with masks of its own, to which --mask-object and "
            "--mask-unknown do not apply",
            expected="neither of them",
            remedy="leave them out, or say in the split which pixels are object and unknown",
        )
    missing = [name for name in _SPLIT_HAS if not hasattr(made, name)]
    if missing:
        raise DataError(
            f"the split of {spec} is not complete",
            expected=", ".join(_SPLIT_HAS),
            found=f"none of {', '.join(missing)}",
            remedy="see audit.data.Split",
        )
    split: Split = made
    return split


def _checked_width(spec: str, items: Items) -> int:
    """How many things the first sample is; what it is wrong in, all others are."""
    try:
        first = items.item(0)
    except UnreadableImage as error:
        own = error.__cause__ is not None
        remedy = "take its first sample in Python to see why" if own else _PAIR
        raise _unfit(spec, str(error), remedy) from error
    try:
        items.picture(0)
    except FileNotFoundError:
        return len(first)
    except UnreadableImage as error:
        array = isinstance(first[0], (np.ndarray, Tensor))
        raise _unfit(spec, str(error), _NO_TRANSFORMS if array else _PAIR) from error
    return len(first)


def _remedy_for(made: Any) -> str:
    """What to do about something that a function gave and that is no map-style dataset."""
    if made is None:
        return "let the function return the dataset"
    if hasattr(made, "__iter__"):
        return "give samples by their number: a class with __getitem__ and __len__"
    return "let it give an object with __getitem__, __len__ and classes"


def _unfit(spec: str, found: str, remedy: str) -> DataError:
    return DataError(
        f"{spec} does not give a dataset of pictures",
        expected=_EXPECTED,
        found=found,
        remedy=remedy,
    )


def _picture(given: Any) -> bytes | Tensor:
    if isinstance(given, (bytes, bytearray)):
        return bytes(given)
    if isinstance(given, (str, Path)):
        return read_bytes(str(given))
    if isinstance(given, Image.Image):
        given = np.array(ImageOps.exif_transpose(given).convert("RGB"))
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        given = torch.from_numpy(given[..., None] if given.ndim == 2 else given).movedim(-1, 0)
    if isinstance(given, Tensor) and given.dtype == torch.uint8 and given.ndim in (2, 3):
        tensor = given[None] if given.ndim == 2 else given
        if len(tensor) in (1, 3) and 0 not in tensor.shape:
            # A plain tensor, for datasets may give kinds of their own.
            return tensor.as_subclass(Tensor).expand(3, -1, -1).contiguous()
    raise UnreadableImage(f"a picture is {_described(given)}")


def _described(given: Any) -> str:
    if isinstance(given, (np.ndarray, Tensor)):
        return f"{type(given).__name__} of {given.dtype}, {'×'.join(map(str, given.shape))}"
    return f"of type {type(given).__name__}"


def _as_bytes(given: Any) -> bytes:
    if isinstance(given, bytes):
        return given
    if given is None:
        return b"none"
    array = np.asarray(given)
    return f"{array.shape} {array.dtype}".encode() + array.tobytes()
