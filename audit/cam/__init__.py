"""Class activation maps: features and head to maps, and maps between grid and image."""

from audit.cam.masked import ablationcam, scorecam
from audit.cam.methods import (
    METHODS,
    Method,
    cam,
    eigencam,
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    top_channels,
    weighted,
    xgradcam,
)
from audit.cam.resample import Resampler, bilinear_matrix, to_image

__all__ = [
    "METHODS",
    "Method",
    "Resampler",
    "ablationcam",
    "bilinear_matrix",
    "cam",
    "eigencam",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "layercam",
    "scorecam",
    "to_image",
    "top_channels",
    "weighted",
    "xgradcam",
]
