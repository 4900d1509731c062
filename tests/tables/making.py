"""Rows of a network with global average pooling and one linear layer, computed in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """What the rows rest on.

    Attributes:
        features: n×C×h×w.
        weights: Of the linear layer, K×C.
        masks: Object shares of the cells, n×h×w.
        labels: n.
    """

    features: Doubles
    weights: Doubles
    masks: Doubles
    labels: NDArray[np.int64]

    @property
    def centred(self) -> Doubles:
        return self.weights - self.weights.mean(axis=0)

    def regions(self) -> list[Doubles]:
        """Object, near and far, n×h×w each."""
        grown = np.zeros_like(self.masks)
        count, height, width = self.masks.shape
        for n in range(count):
            for y in range(height):
                for x in range(width):
                    window = self.masks[n, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                    grown[n, y, x] = window.max()
        return [self.masks, grown - self.masks, 1 - grown]

    def supplied(self, targets: NDArray[np.int64]) -> list[Doubles]:
        """What each channel supplies to a class from object, near and far; n×C each."""
        return [
            np.einsum("nchw,nhw->nc", self.features, region)
            / region[0].size
            * self.centred[targets]
            for region in self.regions()
        ]

    def rows(self) -> pd.DataFrame:
        """As :func:`audit.tables.reading.read_samples` gives them."""
        logits = self.features.mean(axis=(2, 3)) @ self.centred.T
        predicted = logits.argmax(axis=1)
        own = self.supplied(predicted)
        other = np.where(predicted != self.labels, self.labels, -1)
        far = self.regions()[2]
        amount = far.sum(axis=(1, 2))
        mean = np.einsum("nchw,nhw->nc", self.features, far) / np.maximum(amount, 1e-9)[:, None]
        vectors, scale = scaled(np.concatenate(own, axis=1))
        looks, looks_scale = scaled(mean)
        kept = amount >= 0.5
        return pd.DataFrame(
            {
                "index": np.arange(len(logits)),
                "sample_id": [f"s{n:04d}" for n in range(len(logits))],
                "status": pd.Categorical(["ok"] * len(logits)),
                "label": pd.array(self.labels, "Int32"),
                "predicted": pd.array(predicted, "Int32"),
                "target": pd.array(predicted, "Int32"),
                "alt_target": pd.array(np.where(other < 0, pd.NA, other), "Int32"),
                "correct": pd.array(predicted == self.labels, "boolean"),
                "target_logit": logits.max(axis=1).astype(np.float32),
                "far_logit": own[2].sum(axis=1).astype(np.float32),
                "alt_far_logit": np.where(
                    other < 0, np.nan, self.supplied(self.labels)[2].sum(axis=1)
                ).astype(np.float32),
                "transplant_rate": np.float32(0.25),
                "grid_mask": list(self.masks.reshape(len(logits), -1).astype(np.float16)),
                "channel_logits": list(vectors),
                "channel_logits_scale": scale,
                "far_features": [v if k else None for v, k in zip(looks, kept, strict=True)],
                "far_features_scale": np.where(kept, looks_scale, np.nan).astype(np.float32),
            }
        )


def scaled(vectors: Doubles) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Half precision over the largest magnitude, and that magnitude."""
    scale = abs(vectors).max(axis=1).astype(np.float32)
    return (vectors / np.where(scale > 0, scale, 1)[:, None]).astype(np.float16), scale


def random_head(
    rng: np.random.Generator, *, n: int, channels: int, classes: int, grid: tuple[int, int] = (4, 4)
) -> LinearHead:
    """Any features, weights and masks."""
    return LinearHead(
        # Some channels are loud in one image and silent in the next, so that predictions differ.
        features=rng.exponential(size=(n, channels, *grid))
        * rng.exponential(size=(n, channels, 1, 1)) ** 2,
        # Every class has a channel of its own, so that each is predicted.
        weights=rng.normal(size=(classes, channels)) + 2 * np.eye(classes, channels),
        masks=rng.choice([0.0, 0.5, 1.0], (n, *grid), p=[0.9, 0.05, 0.05]),
        labels=rng.integers(0, classes, n),
    )
