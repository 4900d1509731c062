from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audit.data import Batch, MaskFiles, open_split
from audit.data.demo import open_demo
from audit.data.geometry import Geometry
from audit.masks.alignment import check_alignment, reduced_to_check
from tests.conftest import real_data


@cache
def crops(size: int) -> tuple[Tensor, Tensor]:
    """109 square crops of photos with exact masks."""
    root = real_data("coco-crops")
    split = open_split(f"folder:{root / 'images'}", masks=MaskFiles(root=root / "masks"))
    return parts_of(split.framed(Geometry.square(size)).__getitems__(range(len(split))))


def demo(count: int = 100) -> tuple[Tensor, Tensor]:
    return parts_of(open_demo("test").__getitems__(range(count)))


def grown(masks: Tensor, by: int) -> Tensor:
    """The highest value within so many pixels each way: along columns, then along rows."""
    tall = F.max_pool2d(masks[:, None], (2 * by + 1, 1), 1, (by, 0))
    return F.max_pool2d(tall, (1, 2 * by + 1), 1, (0, by))[:, 0]


def parts_of(batch: Batch) -> tuple[Tensor, Tensor]:
    assert batch.object_mask is not None
    return batch.images, batch.object_mask


def shift(masks: Tensor, down: int, right: int) -> Tensor:
    return torch.roll(masks, (down, right), dims=(1, 2))


def half_size(masks: Tensor) -> Tensor:
    """Drawn at half the size, into the upper left corner."""
    height, width = masks.shape[1:]
    small = F.interpolate(masks[:, None], scale_factor=0.5, mode="area")[:, 0]
    return F.pad(small, (0, width - width // 2, 0, height - height // 2))


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "flipped left to right": lambda m: m.flip(-1),
    "flipped upside down": lambda m: m.flip(-2),
    "transposed": lambda m: m.mT,
    "turned by 90° to the right": lambda m: m.rot90(1, (-2, -1)),
    "enlarged to double size from the upper left corner": half_size,
    "shifted 4 px left": lambda m: shift(m, 0, 4),
    "shifted 2 px down and 2 px right": lambda m: shift(m, -2, -2),
}


@pytest.mark.parametrize("load", [lambda: crops(32), demo], ids=["crops", "demo"])
def test_true_masks_fit(load: Callable[[], tuple[Tensor, Tensor]]) -> None:
    images, masks = load()
    found = check_alignment(images, masks)
    assert found.verdict == "fits"
    assert found.placement == "as given"
    assert found.n > 90
    assert found.score > 0.5


@pytest.mark.parametrize("load", [lambda: crops(32), demo], ids=["crops", "demo"])
@pytest.mark.parametrize("placement", WRONG)
def test_wrong_placements_are_named(
    load: Callable[[], tuple[Tensor, Tensor]], placement: str
) -> None:
    images, masks = load()
    found = check_alignment(images, WRONG[placement](masks))
    assert found.verdict == "other placement fits better"
    assert found.placement == placement
    assert placement in found.describe()


def test_large_images_speak_in_their_own_pixels() -> None:
    images, masks = crops(224)
    assert check_alignment(images, masks).verdict == "fits"
    assert check_alignment(images, shift(masks, 28, 0)).placement == "shifted 28 px up"
    wide = grown(masks, 11)
    assert check_alignment(images, wide).placement == "made narrower by 10 px all round"


def test_true_masks_raise_no_false_alarm() -> None:
    images, masks = crops(32)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        half = torch.randperm(len(images), generator=draw)[: len(images) // 2]
        assert check_alignment(images[half], masks[half]).verdict == "fits"


def test_masks_of_other_images_do_not_fit() -> None:
    images, masks = crops(32)
    assert check_alignment(images, masks.roll(37, 0)).verdict == "no fit"
    images, masks = demo()
    assert check_alignment(images, masks.roll(37, 0)).verdict == "no fit"


def test_oblong_images() -> None:
    images, masks = crops(64)
    images, masks = images[:, :, 8:-8], masks[:, 8:-8]
    assert check_alignment(images, masks).verdict == "fits"
    flipped = check_alignment(images, masks.flip(-1))
    assert flipped.placement == "flipped left to right"
    assert "transposed" not in flipped.scores


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_masks_without_border_cannot_tell(value: float) -> None:
    images, masks = demo(40)
    found = check_alignment(images, torch.full_like(masks, value))
    assert (found.verdict, found.n) == ("too few", 0)
    masks[5:] = value
    assert check_alignment(images, masks).verdict == "too few"


def test_few_or_even_images_cannot_tell() -> None:
    images, masks = demo(9)
    assert check_alignment(images, masks).verdict == "too few"
    assert check_alignment(images[:0], masks[:0]).verdict == "too few"
    images, masks = demo(40)
    even = check_alignment(torch.full_like(images, 7), masks)
    assert even.verdict in ("no fit", "too few")


@pytest.mark.data
@pytest.mark.parametrize("seam", [4, 10])
def test_a_wide_seam_of_unknown_pixels_is_no_misfit(seam: int) -> None:
    """A trimap leaves the object too narrow; its border lies in the middle of what is unknown."""
    images, masks = crops(224)
    whole = (masks >= 0.5).float()
    narrow, wide = -grown(-whole, seam), grown(whole, seam)
    small = [reduced_to_check(part) for part in (images, narrow, wide - narrow)]
    assert check_alignment(*small, size=(224, 224)).verdict == "fits"
    if seam == 10:
        assert check_alignment(images, narrow).verdict != "fits"
    shifted = [small[0], *(part.roll(8, dims=2) for part in small[1:])]
    assert "right" not in check_alignment(*shifted, size=(224, 224)).placement
    assert "left" in check_alignment(*shifted, size=(224, 224)).placement
