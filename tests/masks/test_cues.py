from __future__ import annotations

import cv2
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from audit.masks.barrier import barrier_saliency, geodesic_distance
from audit.masks.colour import rgb_to_lab
from audit.masks.field import Contrast, segment
from audit.masks.mixture import fit_codebook
from audit.masks.regions import region_cues


def test_lab_equals_opencv() -> None:
    torch.manual_seed(0)
    rgb = torch.rand(1, 3, 16, 16)
    theirs = cv2.cvtColor(rgb[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2LAB)
    ours = rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, theirs, atol=0.5)  # OpenCV interpolates a table


def slow_barrier(image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """One sweep down, up, right and left, pixel by pixel, for one channel."""
    height, width = image.shape
    distance = np.full((height, width), np.inf)
    distance[[0, -1], :] = distance[:, [0, -1]] = 0
    high, low = image.copy(), image.copy()

    def visit(y: int, x: int, v: int, u: int) -> None:
        highest, lowest = max(high[v, u], image[y, x]), min(low[v, u], image[y, x])
        if highest - lowest < distance[y, x]:
            distance[y, x], high[y, x], low[y, x] = highest - lowest, highest, lowest

    for y in range(1, height):
        for x in range(width):
            visit(y, x, y - 1, x)
    for y in range(height - 2, -1, -1):
        for x in range(width):
            visit(y, x, y + 1, x)
    for x in range(1, width):
        for y in range(height):
            visit(y, x, y, x - 1)
    for x in range(width - 2, -1, -1):
        for y in range(height):
            visit(y, x, y, x + 1)
    return distance


def test_barrier_equals_a_slow_sweep() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 2, 9, 13, dtype=torch.float64)
    ours = barrier_saliency(images)
    for n in range(3):
        expected = np.mean([slow_barrier(images[n, c].numpy()) for c in range(2)], axis=0)
        np.testing.assert_allclose(ours[n].numpy(), expected / expected.max(), atol=1e-12)


def shortest_paths(image: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Dijkstra's distances of a C×H×W image from a node tied to all of its border."""
    _, height, width = image.shape
    number = np.arange(height * width).reshape(height, width)
    border = np.unique(np.concatenate([number[[0, -1]].ravel(), number[:, [0, -1]].ravel()]))
    colours = image.reshape(len(image), -1)[:, border]
    start = np.sqrt(np.square(colours - colours.mean(axis=1, keepdims=True)).sum(axis=0)) / 2
    right = np.sqrt(np.square(np.diff(image, axis=2)).sum(axis=0))
    below = np.sqrt(np.square(np.diff(image, axis=1)).sum(axis=0))
    one = [number[:, :-1].ravel(), number[:-1].ravel(), np.full_like(border, number.size)]
    other = [number[:, 1:].ravel(), number[1:].ravel(), border]
    costs = np.concatenate([right.ravel(), below.ravel(), start])
    ends = np.concatenate(one), np.concatenate(other)
    graph = coo_array((costs, ends), shape=(number.size + 1, number.size + 1)).tocsr()
    paths = dijkstra(graph, directed=False, indices=number.size)
    return np.asarray(paths[:-1]).reshape(height, width)


def test_paths_from_the_border_equal_dijkstra_after_many_sweeps() -> None:
    torch.manual_seed(0)
    images = torch.rand(3, 2, 12, 9, dtype=torch.float64)
    ours, quick = geodesic_distance(images, rounds=20), geodesic_distance(images)
    for n in range(3):
        exact = shortest_paths(images[n].numpy())
        np.testing.assert_allclose(ours[n].numpy(), exact, atol=1e-9)
        assert (quick[n].numpy() >= exact - 1e-9).all()
        assert np.abs(quick[n].numpy() - exact).mean() < 0.02


def two_colours() -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square on dark ground in Lab, and where it is."""
    square = torch.zeros(32, 32).bool()
    square[10:22, 8:24] = True
    lab = torch.full((1, 3, 32, 32), 10.0)
    lab[0, 0][square] = 80.0
    return lab, square


def test_region_cues_tell_a_square_from_its_ground() -> None:
    lab, square = two_colours()
    spread, middle, to_border = region_cues(lab)[0]
    assert spread[square].mean() < spread[~square].mean()
    assert middle[square].mean() < middle[~square].mean()
    assert to_border[square].min() > 0.99
    assert to_border[~square].max() < 0.01


def test_colours_of_a_square_become_its_mixture() -> None:
    lab, square = two_colours()
    codebook = fit_codebook(lab.flatten(2))
    labels = torch.where(square, 0.8, 0.2).view(1, 1, -1)
    evidence = codebook.evidence(labels).view(32, 32)
    assert (evidence[square] > 0).all()
    assert (evidence[~square] < 0).all()
    torch.testing.assert_close(codebook.posterior.sum(dim=1), torch.ones(1, 1024))


def test_labels_spread_over_like_colours_and_stop_at_edges() -> None:
    lab, square = two_colours()
    prior = torch.full((1, 1, 32, 32), -0.5)
    prior[..., 11:21, 10:22] = 2.0
    labels = segment(fit_codebook(lab.flatten(2)), Contrast(lab), prior)[0, 0]
    assert torch.equal(labels > 0.5, square)
