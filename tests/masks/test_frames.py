from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from audit.masks.frames import find_content, into_content, out_of_content

COLOURS = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (30, 60, 230)]


def texture(height: int = 32, width: int = 32) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def framed(colour: tuple[int, ...], top: int, bottom: int, left: int, right: int) -> torch.Tensor:
    image = torch.empty(3, 32, 32, dtype=torch.uint8)
    image[:] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    inner = slice(top, 32 - bottom), slice(left, 32 - right)
    image[:, *inner] = texture()[:, *inner]
    return image


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(
    "depths", [(4, 4, 0, 0), (0, 0, 7, 6), (1, 1, 1, 1), (3, 2, 4, 5), (5, 0, 0, 0), (0, 3, 2, 0)]
)
def test_finds_bars_exactly(colour: tuple[int, ...], depths: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = depths
    found = find_content(framed(colour, *depths)[None])[0].tolist()
    assert found == [top, 32 - bottom, left, 32 - right]


@pytest.mark.parametrize("size", [(8, 8), (1, 20), (20, 1), (1, 1), (33, 57)])
def test_finds_none_where_there_is_none(size: tuple[int, int]) -> None:
    height, width = size
    assert find_content(texture(*size)[None]).tolist() == [[0, height, 0, width]]


def test_a_constant_image_has_no_frame() -> None:
    assert find_content(torch.zeros(1, 3, 32, 32).byte()).tolist() == [[0, 32, 0, 32]]


def test_bars_survive_jpeg() -> None:
    y, x = np.mgrid[:224, :224] / 224
    image = (np.stack([200 - 60 * y, 90 + 80 * x, 120 + 50 * x * y], axis=2)).astype(np.uint8)
    image[:40] = image[-40:] = 0
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])
    decoded = torch.from_numpy(cv2.imdecode(code, cv2.IMREAD_COLOR)).permute(2, 0, 1)
    top, bottom, left, right = find_content(decoded[None])[0].tolist()
    assert (left, right) == (0, 224)
    assert abs(top - 40) <= 1
    assert abs(bottom - 184) <= 1


def test_white_around_a_product_is_no_frame() -> None:
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    image = texture()
    image[:, (y - 16) ** 2 / 60 + (x - 16) ** 2 / 160 > 1] = 255
    assert find_content(image[None]).tolist() == [[0, 32, 0, 32]]


def test_a_box_far_from_all_borders_is_an_object() -> None:
    assert find_content(framed((255, 255, 255), 9, 8, 5, 5)[None]).tolist() == [[0, 32, 0, 32]]


def test_images_of_a_batch_are_judged_alone() -> None:
    images = torch.stack([framed((0, 0, 0), 4, 4, 0, 0), texture(), framed((9, 9, 9), 0, 0, 3, 3)])
    alone = torch.cat([find_content(image[None]) for image in images])
    assert torch.equal(find_content(images), alone)


@pytest.mark.parametrize("length", [5, 32, 50, 224])
def test_resampling_the_whole_equals_torch(length: int) -> None:
    values = torch.rand(1, 1, length, 3)
    whole = into_content(torch.zeros(1), torch.tensor([float(length)]), length, 32) @ values
    expected = F.interpolate(values, (32, 3), mode="bilinear", antialias=True)
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)


def test_resampling_a_part_equals_resampling_the_part_alone() -> None:
    values = torch.rand(1, 1, 90, 3)
    start, stop = torch.tensor([17.0]), torch.tensor([73.0])
    part = into_content(start, stop, 90, 32) @ values
    expected = F.interpolate(values[:, :, 17:73], (32, 3), mode="bilinear", antialias=True)
    torch.testing.assert_close(part, expected, atol=1e-5, rtol=0)


def test_nothing_changes_where_there_is_nothing_to_do() -> None:
    zero, all_of_it = torch.zeros(1), torch.tensor([32.0])
    assert torch.equal(into_content(zero, all_of_it, 32, 32)[0], torch.eye(32))
    assert torch.equal(out_of_content(zero, all_of_it, 32, 32)[0], torch.eye(32))


def test_the_way_back_leaves_bars_empty() -> None:
    back = out_of_content(torch.tensor([8.0]), torch.tensor([24.0]), 32, 32)[0]
    ones = back.sum(dim=1)
    assert ones[:8].eq(0).all()
    assert ones[24:].eq(0).all()
    torch.testing.assert_close(ones[8:24], torch.ones(16))
