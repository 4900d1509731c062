"""From a dataset's name to its split."""

from __future__ import annotations

from pathlib import Path

from audit.data.cifar import open_cifar
from audit.data.demo import open_demo
from audit.data.folder import open_folder
from audit.data.geometry import Geometry
from audit.data.maskfiles import MaskFiles
from audit.data.split import LimitedSplit, Split
from audit.errors import DataError

DATASETS = ("demo", "cifar10", "cifar100", "folder:PATH")


def open_split(
    dataset: str,
    part: str = "test",
    *,
    root: Path = Path("data"),
    masks: MaskFiles | None = None,
    image_size: int | None = None,
    limit: int | None = None,
    download: bool = False,
) -> Split:
    """Open one split of a dataset.

    Args:
        dataset: ``demo``, ``cifar10``, ``cifar100`` or ``folder:PATH`` (one sub-folder a class).
        part: The split's name; for folders ``PATH/part`` is used where it exists.
        root: Where the data of ``cifar10`` and ``cifar100`` lies.
        masks: For folders: where their object masks lie.
        image_size: Side of the square that images are resized (short side) and cropped to;
            ``None`` is the dataset's own size, for folders 32.
        limit: Keep this many samples, evenly spaced.
        download: Allow a download where the data is absent.

    Returns:
        The split.

    Raises:
        DataError: If there is no such dataset or split, or it holds no samples, or ``image_size``
            is no size.

    Example:
        >>> len(open_split("demo", "test"))
        797
    """
    split = _open(dataset, part, root, masks or MaskFiles(), download)
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
    dataset: str,
    part: str,
    root: Path,
    masks: MaskFiles,
    download: bool,
) -> Split:
    kind, _, path = dataset.partition(":")
    if masks.root is not None and kind != "folder":
        raise DataError(
            "--mask-root goes with folder:PATH datasets only", found=f"--dataset {dataset}"
        )
    match kind:
        case "demo" if not path:
            return open_demo(part)
        case "cifar10" | "cifar100" if not path:
            return open_cifar(kind, part, root, download=download)
        case "folder" if path:
            return open_folder(Path(path), part, mask_root=masks.root)
    raise DataError(
        f"unknown dataset '{dataset}'",
        expected=" | ".join(DATASETS),
        found=dataset,
        remedy="for your own images use folder:PATH with one sub-folder per class",
    )
