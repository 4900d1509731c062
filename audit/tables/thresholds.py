"""Every threshold that a verdict rests on, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What separates a class that relies on background from one that does not.

    The clean references are what classes without a planted cue show in networks trained for the
    purpose (docs/certify.md has the tables); the others are conventions.

    Attributes:
        clean_effect: A clean class's background moves at most this share of transplants.
        clean_decided: In at most this share of a clean class's images the background decides alone.
        least_effect: A smaller effect accuses nobody, however sure it is …
        least_decided: … unless the background decides alone in this share of the images.
        error_rate: Of all accusations, the share that may be false (Benjamini–Hochberg).
        held_by_fills: What every fill must show at least of the effect of all, for it to hold.
        least_edited: Fewer edited images than this are too few.
        least_usable: Under a family's masks this share of a class's edited images must count.
        least_gap: A class that surely loses this much accuracy on backgrounds of other classes
            (BG-Gap) needs its own: worth a look.
        screened: A class whose feature-space rate is this far above the median of all classes is
            worth a look.
        least_confidence: Estimated masks that are expected to overlap less than this with their
            objects cannot clear a class.
    """

    clean_effect: float = 0.2
    clean_decided: float = 0.05
    least_effect: float = 0.3
    least_decided: float = 0.1
    error_rate: float = 0.05
    held_by_fills: float = 0.5
    least_edited: int = 20
    least_usable: float = 0.5
    least_gap: float = 0.2
    screened: float = 0.25
    least_confidence: float = 0.35


THRESHOLDS = Thresholds()
