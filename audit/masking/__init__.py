"""Estimated masks beforehand: computed into the cache, shown, and judged by true ones."""

from audit.masking.making import Masking, make_masks

__all__ = ["Masking", "make_masks"]
