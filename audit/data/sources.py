"""From a dataset's name to its split."""

from __future__ import annotations

from pathlib import Path

from audit.data.cifar import open_cifar
from audit.data.coco import open_coco, open_coco_file
from audit.data.demo import open_demo
from audit.data.folder import open_folder
from audit.data.functions import open_function
from audit.data.geometry import Geometry
from audit.data.manifest import open_manifest
from audit.data.maskfiles import MaskFiles
from audit.data.parquet import open_parquet
from audit.data.pets import open_pets
from audit.data.pictures import Samples
from audit.data.reading import ReadPolicy
from audit.data.split import LimitedSplit, Split
from audit.data.voc import open_voc
from audit.data.webdataset import open_webdataset
from audit.errors import DataError
from audit.usercode import is_spec

DATASETS = (
    "demo",
    "cifar10",
    "cifar100",
    "oxford-iiit-pet",
    "voc",
    "coco",
    "coco:FILE.json",
    "folder:PATH",
    "parquet:GLOB",
    "manifest:FILE",
    "webdataset:PATTERN",
    "module:function",
)
_PLACES = {
    "folder": "folder:PATH",
    "parquet": "parquet:GLOB",
    "manifest": "manifest:FILE",
    "webdataset": "webdataset:PATTERN",
}
_KINDS = {name.partition(":")[0] for name in DATASETS}


def is_code(dataset: str) -> bool:
    """Whether a dataset is a ``module:function``, whose code runs when it is opened.

    Example:
        >>> [is_code(name) for name in ("demo", "folder:photos", "my_data:build")]
        [False, False, True]
    """
    return is_spec(dataset) and dataset.partition(":")[0] not in _KINDS


def open_split(  # noqa: PLR0913 - each says something of its own
    dataset: str,
    part: str = "test",
    *,
    root: Path = Path("data"),
    masks: MaskFiles | None = None,
    samples: Samples = "images",
    image_size: int | None = None,
    limit: int | None = None,
    download: bool = False,
    cache: Path | None = None,
    policy: ReadPolicy | None = None,
) -> Split:
    """Open one split of a dataset.

    Args:
        dataset: One of :data:`DATASETS`.
        part: The split's name; for folders ``PATH/part`` is used where it exists.
        root: Where the data of datasets without a path of their own lies, and what
            ``coco:FILE.json`` names.
        masks: Where object masks (or boxes) lie, and which of their values mean what, for
            datasets that do not say it themselves.
        samples: For ``voc`` and ``coco``: whole pictures, or one cut-out an object.
        image_size: Side of the square that images are resized (short side) and cropped to;
            ``None`` is the dataset's own size, or 32 where pictures have many.
        limit: Keep this many samples, evenly spaced.
        download: Allow a download where the data is absent.
        cache: The folder of caches, for the indexes of tar files; ``None`` keeps none.
        policy: How long and how often objects in a store are asked for; ``None`` for 30 seconds
            and four times.

    Returns:
        The split.

    Raises:
        DataError: If there is no such dataset or split, or it holds no samples, or ``image_size``
            is no size.

    Example:
        >>> len(open_split("demo", "test"))
        797
    """
    masks = masks or MaskFiles()
    kind, _, place = dataset.partition(":")
    if kind == "webdataset" and place:
        _refuse_flags(dataset, kind, masks, samples)
        split: Split = open_webdataset(place, part, masks, cache=cache, policy=policy)
    elif kind == "manifest" and place:
        _refuse_flags(dataset, kind, masks, samples)
        split = open_manifest(place, part, masks, policy)
    else:
        split = _open(dataset, part, root, masks, samples, download=download)
    if image_size is not None:
        split = split.framed(Geometry.square(image_size))
    if limit is not None:
        split = LimitedSplit(split, limit)
    if len(split) == 0:
        raise DataError(
            f"the {part} split of {dataset} is empty",
            expected="at least one image",
            found="0",
            remedy="check the path, or name another split with --split",
        )
    return split


def _open(
    dataset: str, part: str, root: Path, masks: MaskFiles, samples: Samples, *, download: bool
) -> Split:
    kind, _, path = dataset.partition(":")
    _refuse_flags(dataset, kind, masks, samples)
    if path:
        split = _open_place(kind, path, part, root, masks, samples)
    else:
        split = _open_named(kind, part, root, samples, download=download)
    if split is None and is_code(dataset):
        split = open_function(dataset, part, masks)
    if split is not None:
        return split
    raise DataError(
        f"unknown dataset '{dataset}'",
        expected=" | ".join(DATASETS),
        found=dataset,
        remedy="for your own images use folder:PATH with one sub-folder per class",
    )


def _open_named(
    kind: str, part: str, root: Path, samples: Samples, *, download: bool
) -> Split | None:
    match kind:
        case "demo":
            return open_demo(part)
        case "cifar10" | "cifar100":
            return open_cifar(kind, part, root, download=download)
        case "oxford-iiit-pet":
            return open_pets(part, root, download=download)
        case "voc":
            return open_voc(part, root, samples, download=download)
        case "coco":
            return open_coco(part, root, samples)
    return None


def _open_place(
    kind: str, path: str, part: str, root: Path, masks: MaskFiles, samples: Samples
) -> Split | None:
    match kind:
        case "coco":
            return open_coco_file(Path(path), part, samples, root=root)
        case "folder":
            return open_folder(Path(path), part, masks)
        case "parquet":
            return open_parquet(path, part, masks)
    return None


def _refuse_flags(dataset: str, kind: str, masks: MaskFiles, samples: Samples) -> None:
    """Refuse what the dataset would silently pass over."""
    valued = bool(masks.object_values or masks.unknown_values)
    given = (
        ("--mask-root", masks.root is not None, ("folder",)),
        ("--boxes", masks.boxes is not None, ("folder", "manifest")),
        (
            "--mask-object and --mask-unknown",
            valued,
            ("folder", "parquet", "manifest", "webdataset", "module:function"),
        ),
        ("--samples instances", samples == "instances", ("voc", "coco")),
    )
    own = kind not in _KINDS and is_spec(dataset)
    for flag, used, kinds in given:
        if used and ("module:function" if own else kind) not in kinds:
            named = " and ".join(_PLACES.get(each, each) for each in kinds)
            verb = "go" if " and " in flag else "goes"
            raise DataError(
                f"{flag} {verb} with {named} datasets only", found=f"--dataset {dataset}"
            )
    if masks.root is not None and masks.boxes is not None:
        raise DataError(
            "masks and boxes are given, where one of them decides",
            expected="either --mask-root or --boxes",
            found=f"--mask-root {masks.root} --boxes {masks.boxes}",
        )
    if kind == "folder" and valued and masks.root is None:
        raise DataError(
            "values of masks are given, but no masks",
            expected="--mask-root beside --mask-object or --mask-unknown",
            found=f"--dataset {dataset} without --mask-root",
        )
