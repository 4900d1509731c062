"""How good, how honest and how fast the mask estimator is, beside simple alternatives.

    python benchmarks/masks.py --data FOLDER [--coco FOLDER]

FOLDER holds images/<class>/* and masks/<class>/*; with --coco, another one holds train2017/,
val2017/ and annotations/instances_*.json. Where figures come in pairs, the first is of all images
and the second of those whose photo has an odd number: no parameter was chosen on them. Every figure
comes from one run of one process.

The last table asks what matters: how the numbers of an audit differ when masks are estimated. It
audits EfficientNet-Lite0 (extra `dev`) on the classes of docs/examples/coco-classes.toml.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2.functional import resize

from audit.data import MaskFiles, open_split
from audit.masks import PLANES, enlarge, estimate_masks, soft_masks
from audit.masks.barrier import barrier_saliency
from audit.masks.colour import rgb_to_lab
from audit.masks.estimate import WORKING_SIZE, centre_ellipse
from audit.tables.correlation import rank_correlation

SIZES = (32, 224)
BAD = 0.3
EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
OTHER_MASKS = ("estimated", "component", "ellipse")
SCENE_SHARES = (0.02, 0.9)  # of the photo; other scenes have no object to speak of
PIXEL_BINS = 5
IMAGE_BINS = 4
LEAST_BIN = 0.02  # a bin with fewer of all pixels says nothing


@dataclass(frozen=True)
class Answer:
    """What an estimator says of N images.

    Attributes:
        masks: bool, N×H×W.
        soft: Probability of object in [0, 1], N×H×W; ``None`` where it says none.
        confidence: Expected overlap, N; ``None`` where it says none.
    """

    masks: Tensor
    soft: Tensor | None = None
    confidence: Tensor | None = None


@dataclass(frozen=True)
class Truth:
    """Images with exact masks.

    Attributes:
        name: Of the dataset.
        images: uint8, N×3×H×W.
        masks: bool, N×H×W.
        known: False where a pixel counts on no side (a crowd), bool N×H×W.
        held_out: Which images no parameter was chosen on, bool N.
    """

    name: str
    images: Tensor
    masks: Tensor
    known: Tensor
    held_out: Tensor


def ellipse(images: Tensor) -> Answer:
    """A centred ellipse, whatever the image shows."""
    soft = enlarge(centre_ellipse(0.75).expand(len(images), -1, -1), _size(images))
    return Answer(soft > 0.5, soft)


def barrier(images: Tensor) -> Answer:
    """Minimum barrier distance above its mean."""
    small = torch.nn.functional.interpolate(
        images.float() / 255, (WORKING_SIZE, WORKING_SIZE), mode="bilinear", antialias=True
    )
    saliency = barrier_saliency(rgb_to_lab(small.clamp(0, 1)))
    masks = enlarge(saliency > saliency.mean(dim=(1, 2), keepdim=True), _size(images)).bool()
    return Answer(masks, enlarge(saliency, _size(images)))


def grabcut(images: Tensor) -> Answer:
    """OpenCV's GrabCut from a centred rectangle, one image at a time."""
    masks = []
    for image in images.permute(0, 2, 3, 1).numpy():
        height, width = image.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        inside = (width // 8, height // 8, width - width // 4, height - height // 4)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(0)
        cv2.grabCut(np.ascontiguousarray(image), mask, inside, *models, 3, cv2.GC_INIT_WITH_RECT)
        masks.append((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD))
    return Answer(torch.from_numpy(np.stack(masks)))


def default(images: Tensor) -> Answer:
    """The product's estimate, with its confidence."""
    return _plane(images, "default")


def component(images: Tensor) -> Answer:
    """Its part in the middle."""
    return _plane(images, "component")


def soft(images: Tensor) -> Answer:
    """The calibrated share of votes, and where it is above a half."""
    estimate = estimate_masks(images)
    shares = enlarge(soft_masks(estimate.planes), _size(images))
    return Answer(shares > 0.5, shares, estimate.confidence)


Estimator = Callable[[Tensor], Answer]
ESTIMATORS: dict[str, Estimator] = {
    "centre ellipse": ellipse,
    "minimum barrier distance": barrier,
    "GrabCut, centre rectangle": grabcut,
    "**the default**": default,
    "its component": component,
    "soft": soft,
}


def _plane(images: Tensor, name: str) -> Answer:
    estimate = estimate_masks(images)
    masks = enlarge(estimate.planes[:, PLANES.index(name)], _size(images)).bool()
    return Answer(masks, None, estimate.confidence)


def _size(images: Tensor) -> tuple[int, int]:
    return int(images.shape[-2]), int(images.shape[-1])


# Data


def crops(folder: Path, size: int) -> Truth:
    """Images of a folder with parallel masks."""
    masks = MaskFiles(root=folder / "masks")
    split = open_split(f"folder:{folder}/images", masks=masks, image_size=size)
    batch = split.__getitems__(range(len(split)))
    assert batch.object_mask is not None
    known = torch.ones_like(batch.object_mask).bool()
    held_out = torch.tensor([_is_held_out(name) for name in batch.sample_id])
    return Truth(folder.name, batch.images, batch.object_mask >= 0.5, known, held_out)


def scenes(folder: Path, size: int) -> Truth:
    """Whole photos: the object is all instances of the class of the largest one."""
    images, masks, known, held_out = [], [], [], []
    for file, instances in _photos(folder):
        picture = decode_image(str(file), ImageReadMode.RGB)
        scene, unknown = _main_class(instances, *_size(picture[None]))
        if SCENE_SHARES[0] <= scene.mean() <= SCENE_SHARES[1]:
            images.append(resize(picture, [size, size], antialias=True))
            both = torch.from_numpy(np.stack([scene, unknown])).float()
            small = resize(both, [size, size], antialias=True)
            masks.append(small[0] >= 0.5)
            known.append(small[1] < 0.5)
            held_out.append(_is_held_out(file.name))
    return Truth(
        f"{folder.name}, scenes",
        torch.stack(images),
        torch.stack(masks),
        torch.stack(known),
        torch.tensor(held_out),
    )


def _photos(folder: Path) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Every annotated photo with its annotations."""
    for listing in sorted((folder / "annotations").glob("instances_*.json")):
        content = json.loads(listing.read_text())
        place = folder / listing.stem.removeprefix("instances_")
        for photo in sorted(content["images"], key=lambda image: image["file_name"]):
            of_it = [a for a in content["annotations"] if a["image_id"] == photo["id"]]
            if any(not a.get("iscrowd") for a in of_it):
                yield place / photo["file_name"], of_it


def _main_class(
    annotations: list[dict[str, Any]], height: int, width: int
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Where instances of the largest one's class are, and where a crowd is, both H×W."""
    from pycocotools import mask as coco

    largest = max((a for a in annotations if not a.get("iscrowd")), key=lambda a: a["area"])
    scene, crowd = np.zeros((2, height, width), bool)
    for annotation in annotations:
        shape = annotation["segmentation"]
        is_code = isinstance(shape, dict) and isinstance(shape["counts"], (str, bytes))
        code = shape if is_code else coco.frPyObjects(shape, height, width)
        here = coco.decode(coco.merge(code) if isinstance(code, list) else code).astype(bool)
        if annotation.get("iscrowd"):
            crowd |= here
        elif annotation["category_id"] == largest["category_id"]:
            scene |= here
    return scene, crowd & ~scene


def _is_held_out(name: str) -> bool:
    """Whether the photo's number is odd; files without a number chose nothing."""
    number = Path(name).stem.split("_")[0]
    return not number.isdecimal() or int(number) % 2 == 1


# Figures


def overlaps(masks: Tensor, truth: Truth) -> Tensor:
    """Intersection over union of what is known, N."""
    shared = (masks & truth.masks & truth.known).flatten(1).sum(dim=1)
    either = ((masks | truth.masks) & truth.known).flatten(1).sum(dim=1)
    return shared / either.clamp_min(1)


def quality(answer: Answer, truth: Truth, chosen: Tensor) -> list[str]:
    """IoU, error, ranking and calibration on some of the images, a text each."""
    iou = overlaps(answer.masks, truth)[chosen]
    soft = (answer.masks.float() if answer.soft is None else answer.soft)[chosen]
    known, object_ = truth.known[chosen], truth.masks[chosen].float()
    cells = [
        f"{iou.mean():.3f} / {(iou < BAD).float().mean():.2f}",
        f"{(soft - object_).abs()[known].mean():.3f}",
    ]
    if answer.confidence is None:
        cells.append("")
    else:
        cells.append(f"{roc_auc_score(iou >= BAD, answer.confidence[chosen]):.2f}")
    pixels = "" if answer.soft is None else f"{_pixel_gap(soft[known], object_[known]):.2f}"
    if answer.confidence is None:
        return [*cells, pixels, ""]
    return [*cells, pixels, f"{_image_gap(answer.confidence[chosen], iou):.2f}"]


def _pixel_gap(soft: Tensor, truth: Tensor) -> float:
    """Largest difference of mean probability and share of object in bins of equal width."""
    which = (soft * PIXEL_BINS).long().clamp_max(PIXEL_BINS - 1)
    bins = [which == number for number in range(PIXEL_BINS)]
    return max(
        float((soft[here].mean() - truth[here].mean()).abs())
        for here in bins
        if here.float().mean() >= LEAST_BIN
    )


def _image_gap(confidence: Tensor, iou: Tensor) -> float:
    """Largest difference of mean confidence and mean IoU in bins of equally many images."""
    order = confidence.argsort()
    return max(
        float((confidence[here].mean() - iou[here].mean()).abs())
        for here in order.tensor_split(IMAGE_BINS)
    )


def speed(estimate: Estimator, images: Tensor, repeats: int = 3) -> float:
    """Images a second of one core: the median of several passes over up to 128 images."""
    images = images[:128]
    estimate(images)
    times = []
    for _ in range(repeats):
        started = time.process_time()
        estimate(images)
        times.append(time.process_time() - started)
    return len(images) / max(statistics.median(times), 1e-9)


# Tables


def print_calibration(together: list[Truth]) -> None:
    """How honest probabilities and confidence are on images of all kinds that chose nothing."""
    soft, object_, confidence, iou = [], [], [], []
    for truth in together:
        chosen, size = truth.held_out, _size(truth.images)
        estimate = estimate_masks(truth.images)
        known = truth.known[chosen]
        soft.append(enlarge(soft_masks(estimate.planes), size)[chosen][known])
        object_.append(truth.masks[chosen].float()[known])
        confidence.append(estimate.confidence[chosen])
        iou.append(overlaps(enlarge(estimate.planes[:, 0], size).bool(), truth)[chosen])
    pixels = _pixel_gap(torch.cat(soft), torch.cat(object_))
    images = _image_gap(torch.cat(confidence), torch.cat(iou))
    names = " and ".join(truth.name for truth in together)
    print(
        f"\n{names} together at {_size(together[0].images)[0]} px, held out: largest gap of the "
        f"soft mask {pixels:.3f}, of confidence and IoU {images:.3f}"
    )


def print_table(truth: Truth) -> None:
    """One row an estimator."""
    columns = [
        "estimator",
        f"IoU mean / share below {BAD}",
        "MAE of the soft mask",
        f"AUC of confidence for IoU below {BAD}",
        "largest gap: soft mask",
        "largest gap: confidence and IoU",
        "images per core-second",
    ]
    everything = torch.ones_like(truth.held_out)
    size, count = truth.images.shape[-1], len(truth.images)
    print(f"\n{truth.name} at {size} px: {count} images; {int(truth.held_out.sum())} held out\n")
    print("|", " | ".join(columns), "|")
    print("|", " | ".join(["---"] * len(columns)), "|")
    for name, estimate in ESTIMATORS.items():
        answer = estimate(truth.images)
        pairs = zip(*(quality(answer, truth, c) for c in (everything, truth.held_out)), strict=True)
        cells = ["; ".join(pair) if pair[0] else "" for pair in pairs]
        rate = f"{speed(estimate, truth.images):,.0f}"
        print("|", " | ".join([name, *cells, rate]), "|", flush=True)


@dataclass(frozen=True)
class Difference:
    """The numbers of an audit under other masks, minus those under true ones."""

    share: float
    share_bias: float
    share_order: float
    kappa_bias: float
    kappa_order: float
    bad: float


def audit_difference(folder: Path, out: Path) -> tuple[float, list[tuple[Difference, Difference]]]:
    """An audit under true masks and, image by image, under others.

    Args:
        folder: With images/ and masks/.
        out: Where the run may lie.

    Returns:
        The mean background share under true masks, and what changes under others, for all images
        and for those whose photo has an odd number.
    """
    from audit import run_audit

    class_map = EXAMPLES / "coco-classes.toml"
    images = out / "images"
    images.mkdir(parents=True)
    for name in tomllib.loads(class_map.read_text()):
        if (folder / "images" / name).is_dir():
            (images / name).symlink_to((folder / "images" / name).resolve())
    sys.path.insert(0, str(EXAMPLES))
    run = run_audit(
        dataset=f"folder:{images}",
        mask_root=folder / "masks",
        model="lite0:build",
        class_map=class_map,
        class_map_by="mean",
        masks=("dataset", *OTHER_MASKS),
        out=out,
    )
    held_out = run.samples[run.samples["sample_id"].map(_is_held_out)]
    found = [(_difference(run.samples, name), _difference(held_out, name)) for name in OTHER_MASKS]
    return float(run.samples["background_share"].mean()), found


def _difference(samples: pd.DataFrame, family: str) -> Difference:
    share, kappa = samples["background_share"], samples["kappa"]
    own_share, own_kappa = samples[f"{family}_background_share"], samples[f"{family}_kappa"]
    return Difference(
        share=float(own_share.mean()),
        share_bias=float((own_share - share).mean()),
        share_order=rank_correlation(own_share, share),
        kappa_bias=float((own_kappa - kappa).mean()),
        kappa_order=rank_correlation(own_kappa, kappa),
        bad=float((samples[f"{family}_mask_iou"] < BAD).mean()),
    )


def print_differences(true_share: float, differences: list[tuple[Difference, Difference]]) -> None:
    """One row a family of masks; each figure for all images, then for those held out."""
    columns = [
        "masks",
        "background share",
        "bias",
        "rank correlation with true masks",
        "kappa: bias",
        "kappa: rank correlation",
        "masks missing the object",
    ]
    print("\nThe audit of EfficientNet-Lite0 under other masks than the true ones, 224 px\n")
    print("|", " | ".join(columns), "|")
    print("|", " | ".join(["---"] * len(columns)), "|")
    print(f"| true | {true_share:.3f} | | | | | |")
    for family, (every, held) in zip(OTHER_MASKS, differences, strict=True):
        cells = [
            f"{every.share:.3f}; {held.share:.3f}",
            f"{every.share_bias:+.3f}; {held.share_bias:+.3f}",
            f"{every.share_order:.2f}; {held.share_order:.2f}",
            f"{every.kappa_bias:+.3f}; {held.kappa_bias:+.3f}",
            f"{every.kappa_order:.2f}; {held.kappa_order:.2f}",
            f"{every.bad:.2f}; {held.bad:.2f}",
        ]
        print("|", " | ".join([family, *cells]), "|")


# The command


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and masks/")
    parser.add_argument("--coco", type=Path, help="folder with train2017/, val2017/, annotations/")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for size in SIZES:
        print_table(crops(arguments.data, size))
    for size in SIZES if arguments.coco else ():
        print_table(scenes(arguments.coco, size))
        print_calibration([crops(arguments.data, size), scenes(arguments.coco, size)])
    with tempfile.TemporaryDirectory() as out:
        print_differences(*audit_difference(arguments.data, Path(out)))


if __name__ == "__main__":
    main()
