"""Object masks where the dataset has none, and how far to trust them."""

from audit.masks.alignment import Alignment, check_alignment
from audit.masks.cache import MaskCache
from audit.masks.estimate import (
    PLANES,
    MaskEstimate,
    agreement,
    enlarge,
    estimate_masks,
    soft_masks,
)
from audit.masks.estimators import DefaultEstimator, Estimator

__all__ = [
    "PLANES",
    "Alignment",
    "DefaultEstimator",
    "Estimator",
    "MaskCache",
    "MaskEstimate",
    "agreement",
    "check_alignment",
    "enlarge",
    "estimate_masks",
    "soft_masks",
]
