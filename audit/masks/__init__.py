"""Object masks where the dataset has none, and how far to trust them."""

from audit.masks.cache import MaskCache
from audit.masks.estimate import VARIANTS, MaskEstimate, agreement, enlarge, estimate_masks

__all__ = ["VARIANTS", "MaskCache", "MaskEstimate", "agreement", "enlarge", "estimate_masks"]
