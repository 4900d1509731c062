from __future__ import annotations

import colorsys
import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from audit.data import open_split
from audit.score.properties import image_hash, image_properties
from tests.conftest import real_data


def some_images(count: int = 6, height: int = 9, width: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def of_one(image: np.ndarray) -> dict[str, float]:
    """The properties of one H×W×3 picture, pixel by pixel."""
    height, width, _ = image.shape
    pixels = [tuple(float(v) for v in image[y, x]) for y in range(height) for x in range(width)]
    luma = np.array([0.299 * r + 0.587 * g + 0.114 * b for r, g, b in pixels])
    grid = luma.reshape(height, width)
    laplacian = [
        grid[y - 1, x] + grid[y + 1, x] + grid[y, x - 1] + grid[y, x + 1] - 4 * grid[y, x]
        for y in range(1, height - 1)
        for x in range(1, width - 1)
    ]
    levels = np.unique((np.round(luma) // 4).astype(int), return_counts=True)[1] / len(luma)
    return {
        "brightness": luma.mean() / 255,
        "contrast": luma.std() / 255,
        "saturation": float(np.mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in pixels])),
        "red_green": float(np.mean([r - g for r, g, _ in pixels])) / 255,
        "yellow_blue": float(np.mean([(r + g) / 2 - b for r, g, b in pixels])) / 255,
        "sharpness": float(np.sqrt(np.var(laplacian) / (20 * luma.var()))),
        "entropy": float(-(levels * np.log2(levels)).sum()),
    }


def test_equal_to_a_loop_over_pixels() -> None:
    images = some_images()
    images[1, :, :4] = 0  # black has no saturation
    found = image_properties(images)
    for n in range(len(images)):
        expected = of_one(images[n].permute(1, 2, 0).numpy())
        for name, value in expected.items():
            assert found[name][n].item() == pytest.approx(value, abs=2e-6), name


def test_luma_and_laplacian_are_those_of_opencv() -> None:
    image = some_images(1, 32, 32)
    picture = image[0].permute(1, 2, 0).numpy()
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    found = image_properties(image)
    assert found["brightness"].item() == pytest.approx(grey.mean() / 255, abs=1e-3)
    detail = cv2.Laplacian(grey.astype(np.float64), cv2.CV_64F)[1:-1, 1:-1].var()
    expected = np.sqrt(detail / grey.astype(np.float64).var() / 20)
    assert found["sharpness"].item() == pytest.approx(expected, rel=5e-3)


def test_a_plain_image_has_no_sharpness_and_a_white_one_no_entropy() -> None:
    white = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    found = {name: values.item() for name, values in image_properties(white).items()}
    assert found["brightness"] == pytest.approx(1)
    assert np.isnan(found["sharpness"])
    names = ("contrast", "saturation", "red_green", "yellow_blue", "entropy")
    assert [found[name] for name in names] == pytest.approx([0] * 5, abs=1e-6)
    tiny = image_properties(some_images(2, 2, 5))
    assert tiny["sharpness"].isnan().all(), "no pixel has four neighbours"
    assert tiny["contrast"].isfinite().all()


def test_sharpness_does_not_change_with_contrast_and_falls_with_blur() -> None:
    picture = some_images(1, 48, 48)[0].permute(1, 2, 0).numpy()
    picture = cv2.GaussianBlur(picture, (0, 0), 1.5)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    faint = (picture * 0.4 + 60).round().astype(np.uint8)
    blurred = cv2.GaussianBlur(picture, (0, 0), 2.0)
    noise = some_images(1, 48, 48)[0].permute(1, 2, 0).numpy()
    batch = torch.from_numpy(np.stack([picture, faint, blurred, noise])).permute(0, 3, 1, 2)
    sharp, same, smooth, white = image_properties(batch)["sharpness"].tolist()
    assert same == pytest.approx(sharp, rel=0.05)
    assert smooth < 0.7 * sharp
    assert white == pytest.approx(1, abs=0.1)


def test_what_cannot_be_read_has_no_properties() -> None:
    readable = torch.tensor([True, False, True, True, True, True])
    found = image_properties(some_images(), readable)
    assert found["image_hash"][1] == -1
    assert (found["image_hash"][readable] >= 0).all()
    for name, values in found.items():
        if name != "image_hash":
            assert values.isnan().tolist() == (~readable).tolist(), name


def test_a_batch_gives_what_its_images_give_alone() -> None:
    images = some_images(20, 32, 32)
    together = image_properties(images)
    for n in range(len(images)):
        alone = image_properties(images[n : n + 1])
        assert alone["image_hash"][0] == together["image_hash"][n]
        for name in set(together) - {"image_hash"}:
            torch.testing.assert_close(alone[name][0], together[name][n], rtol=1e-6, atol=1e-6)


def hash_of_one(image: np.ndarray) -> int:
    """The hash by whole numbers, after enlarging the image so that pixels do not straddle cells."""
    large = image.astype(object).repeat(5, axis=0).repeat(5, axis=1)
    height, width, _ = image.shape
    luma = 299 * large[..., 0] + 587 * large[..., 1] + 114 * large[..., 2]
    cells = luma.reshape(5, height, 5, width).sum(axis=(1, 3))
    weight = height * width
    bits = [cells[y, x + 1] - cells[y, x] > 4000 * weight for y in range(5) for x in range(4)]
    bits += [cells[y + 1, x] - cells[y, x] > 4000 * weight for y in range(4) for x in range(5)]
    code = sum(2**place for place, bit in enumerate(bits) if bit)
    for colour in range(3):
        code = 16 * code + int(large[..., colour].sum()) // (16 * 25 * weight)
    return code


@pytest.mark.parametrize("size", [(5, 5), (32, 32), (9, 13), (224, 150), (3, 4)])
def test_the_hash_is_exact(size: tuple[int, int]) -> None:
    images = some_images(4, *size)
    images[1] = images[1] // 64 + 100  # near the margin
    images[2] = 48  # on the seam of two colours
    expected = [hash_of_one(image.permute(1, 2, 0).numpy()) for image in images]
    assert image_hash(images).tolist() == expected
    assert max(expected) < 2**52, "float64 holds it"
    torch.testing.assert_close(image_properties(images)["image_hash"], image_hash(images))


def test_plain_images_of_other_colours_have_other_hashes() -> None:
    colours = torch.tensor(
        [[0, 0, 0], [255, 255, 255], [200, 40, 40], [40, 200, 40], [40, 40, 200]]
    )
    plain = colours[:, :, None, None].expand(-1, -1, 16, 16).to(torch.uint8)
    assert len(set(image_hash(plain).tolist())) == 5
    noisy = (plain.int() + torch.randint(-2, 3, plain.shape)).clamp(0, 255).to(torch.uint8)
    assert torch.equal(image_hash(plain), image_hash(noisy)), "noise is no structure"


def test_copies_keep_their_hash_and_others_have_another() -> None:
    split = open_split("cifar10", "test", root=real_data("cifar10"))
    images = split.__getitems__(range(2000)).images
    hashes = image_hash(images)
    again = torch.stack([saved_again(image) for image in images[:300]])
    assert (image_hash(again) == hashes[:300]).float().mean() > 0.85
    assert len(images) - len(hashes.unique()) <= 1


def saved_again(image: Tensor) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=90)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)
